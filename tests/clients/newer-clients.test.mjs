// Clients of Socket.IO 3.x and 4.x cannot work here: they are told which clients do, in their own protocol.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { TRANSPORTS } from './support/browsers.mjs';
import { Server } from './support/server.mjs';
import { Arrivals, eventually } from './support/wait.mjs';

const load = createRequire(import.meta.url);

const SENTENCE = /this server works with socket\.io-client .*2/;

describe('a newer client', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  for (const version of ['3.1.3', '4.8.4']) {
    for (const [transport, { transports }] of Object.entries(TRANSPORTS)) {
      test(`socket.io-client ${version} over ${transport} learns which clients work`, async (t) => {
        const { io } = load(`socket.io-client-${version}`);
        const socket = io(server.browsers.origin, { transports, forceNew: true, reconnection: false });
        t.after(() => socket.close());
        const errors = new Arrivals();
        socket.on('connect_error', (error) => errors.push(error.message));
        assert.match(await errors.until(([first]) => first, 'an error'), SENTENCE);
      });
    }
  }

  for (const [transport, { transports }] of Object.entries(TRANSPORTS)) {
    test(`socket.io-client 4.8.4 over ${transport} does not try again`, async (t) => {
      const { io } = load('socket.io-client-4.8.4');
      const socket = io(server.browsers.origin, { transports, forceNew: true, reconnectionDelay: 1, reconnectionDelayMax: 1 });
      t.after(() => socket.close());
      const errors = new Arrivals();
      socket.on('connect_error', (error) => errors.push(error.message));
      socket.io.on('reconnect_attempt', () => errors.push('it tries again'));
      await errors.until(([first]) => first, 'an error');
      // Its connection is closed, and it opens no other.
      await eventually(() => server.stats(), (stats) => stats.http_connections === 0, 'it to be gone');
      assert.equal(errors.entries.length, 1, `${errors.entries}`);
      assert.match(errors.entries[0], SENTENCE);
    });
  }
});
