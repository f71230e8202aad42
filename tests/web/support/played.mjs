// A server whose every packet is decided by the test: for what a real one does only seldom, or not yet.

import http from 'node:http';
import { WebSocketServer } from 'ws';
import { Arrivals } from '../../clients/support/wait.mjs';

const OPEN = { sid: 'a'.repeat(20), upgrades: [], pingInterval: 25_000, pingTimeout: 60_000 };

/** Accepts WebSockets; `connections` holds each, in order. */
export class PlayedServer {
  connections = new Arrivals();
  /** What the next handshakes say in place of `OPEN`. */
  open = {};
  /** Whether a connection is greeted. */
  greets = true;

  static async start(t) {
    const played = new PlayedServer();
    const server = http.createServer((_, response) => response.writeHead(400).end());
    const sockets = new WebSocketServer({ server });
    sockets.on('connection', (socket, request) => played.#connected(socket, request));
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => {
      sockets.clients.forEach((socket) => socket.terminate());
      server.close();
      server.closeAllConnections();
    });
    played.url = `http://127.0.0.1:${server.address().port}`;
    return played;
  }

  /** The connection with this number, once it is there. */
  connection(number = 0) {
    return this.connections.until((all) => all[number], `connection ${number}`);
  }

  #connected(socket, request) {
    const received = new Arrivals();
    const connection = {
      query: new URL(request.url, 'http://server').searchParams,
      received,
      closed: new Promise((resolve) => socket.on('close', resolve)),
      send: (...packets) => packets.forEach((packet) => socket.send(packet)),
      close: () => socket.close(1001),
      /** Resolves with the id and the arguments of the first event of this name, counted from `skip`. */
      event: (name, skip = 0) => received.until((packets) => packets.map(parsed).filter((event) => event?.name === name)[skip], name),
    };
    socket.on('message', (data) => received.push(String(data)));
    socket.on('error', () => {});
    if (this.greets) connection.send(`0${JSON.stringify({ ...OPEN, ...this.open })}`, '40');
    this.connections.push(connection);
  }
}

function parsed(packet) {
  const [, id, json] = /^42(\d*)(\[.*)$/s.exec(packet) ?? [];
  if (!json) return undefined;
  const [name, ...args] = JSON.parse(json);
  return { id, name, args };
}
