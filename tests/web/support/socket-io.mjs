import { once } from 'node:events';

/** Starts the HTTP server of a Socket.IO server on a free port; it ends with `t`. */
export async function listen(t, server, io) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    io.close();
    server.closeAllConnections();
  });
}
