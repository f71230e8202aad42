// A real nats-server, over which several servers share their events.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort, listening } from './listening.mjs';
import { LOOPBACK } from './server.mjs';

/** The program; `./test` installs what is missing. */
const { NATS_SERVER } = process.env;

export const NO_NATS = NATS_SERVER ? false : 'no NATS: set NATS_SERVER to nats-server, as `./test` does';

/** Starts it until `t` ends. Returns its URL. */
export async function startNats(t) {
  const home = mkdtempSync(join(tmpdir(), 'webupdates-nats-'));
  const port = await freePort();
  await listening(t, NATS_SERVER, ['-js', '-sd', home, '-a', LOOPBACK, '-p', String(port)], port, 'SIGKILL');
  t.after(() => rmSync(home, { recursive: true, force: true }));
  return `nats://${LOOPBACK}:${port}`;
}
