// Programs that listen on ports which the tests choose for them.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { LOOPBACK } from './server.mjs';
import { eventually } from './wait.mjs';

/** A port below those that systems give to whoever asks for any, so that nobody gets it in the meantime. */
export async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    const listener = net.createServer().listen(port, LOOPBACK);
    try {
      await once(listener, 'listening');
    } catch (error) {
      if (error.code === 'EADDRINUSE') continue;
      throw error;
    }
    listener.close();
    await once(listener, 'close');
    return port;
  }
}

/** Starts a program until `t` ends, with `signal`, and waits until it listens at `port`. */
export async function listening(t, program, args, port, signal = 'SIGTERM') {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (said = (said + text).slice(-10_000)));
  const ended = once(child, 'close');
  const kill = () => child.kill('SIGKILL');
  process.on('exit', kill);
  t.after(async () => {
    child.kill(signal);
    await ended;
    process.off('exit', kill);
  });
  await eventually(() => answers(port), (is) => is || child.exitCode !== null, `${program} to listen`);
  assert.equal(child.exitCode, null, said);
  return child;
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, LOOPBACK, () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
}
