// A real nats-server, over which several servers share their events.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LOOPBACK } from './server.mjs';
import { eventually } from './wait.mjs';

/** The program; `./test` installs what is missing. */
const { NATS_SERVER } = process.env;

export const NO_NATS = NATS_SERVER ? false : 'no NATS: set NATS_SERVER to nats-server, as `./test` does';

/** Starts it until `t` ends. Returns its URL. */
export async function startNats(t) {
  const home = mkdtempSync(join(tmpdir(), 'webupdates-nats-'));
  const listener = net.createServer().listen(0, LOOPBACK);
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  const program = spawn(NATS_SERVER, ['-js', '-sd', home, '-a', LOOPBACK, '-p', String(port)], { stdio: 'ignore' });
  const ended = once(program, 'close');
  const kill = () => program.kill('SIGKILL');
  process.on('exit', kill);
  t.after(async () => {
    kill();
    await ended;
    process.off('exit', kill);
    rmSync(home, { recursive: true, force: true });
  });
  const answers = () => new Promise((resolve) => {
    const socket = net.connect(port, LOOPBACK, () => { socket.destroy(); resolve(true); }).on('error', () => resolve(false));
  });
  await eventually(answers, Boolean, 'NATS to listen');
  return `nats://${LOOPBACK}:${port}`;
}
