// The server goes and comes back: every page must return by itself.

import assert from 'node:assert/strict';
import http from 'node:http';
import { describe, test } from 'node:test';
import { AS_FLAMENCO, forEachClient } from './support/browsers.mjs';
import { asReceived, JOB_A, jobUpdate, TASK_A, taskLog, taskUpdate } from './support/farm.mjs';
import { RawBrowser } from './support/raw.mjs';
import { EVERY_EVENT, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

const SUBSCRIPTIONS = [{ type: 'allWorkers' }, { type: 'job', uuid: JOB_A }, { type: 'tasklog', uuid: TASK_A }];
const NEWS = [jobUpdate(), taskUpdate(), taskLog()];

/** The reasons with which a client comes back by itself. */
const RETURNS = {
  SIGTERM: ['transport close'],
  SIGINT: ['transport close'],
  // A kernel that closes for the dead process may reset the connection.
  SIGKILL: ['transport close', 'transport error'],
};

forEachClient((client) => {
  const CLIENTS = client.isSlow ? 5 : 20;

  for (const [signal, reasons] of Object.entries(RETURNS)) {
    test(`${CLIENTS} clients are back after ${signal} and a start on the same port`, async (t) => {
      const server = await Server.start();
      t.after(() => server.stop());
      const browsers = await client.connectMany(t, server, CLIENTS, { ...AS_FLAMENCO, subscriptions: SUBSCRIPTIONS });
      await roomsFilled(server);
      await server.publish(NEWS);
      await server.settle(...browsers);
      for (const browser of browsers) assert.deepEqual(browser.take(), asReceived(NEWS));

      await server.stop(signal);
      for (const browser of browsers) {
        const reason = await browser.fact('disconnect');
        if (client.saysWhy) assert.ok(reasons.includes(reason), `disconnected with ${reason}`);
      }
      await server.startAgain();
      await Promise.all(browsers.map((browser) => browser.fact('reconnect')));
      await roomsFilled(server);
      await server.publish(NEWS);
      await server.settle(...browsers);
      for (const browser of browsers) assert.deepEqual(browser.take(), asReceived(NEWS));
    });
  }

  test('what was accepted before SIGTERM still arrives', async (t) => {
    const server = await Server.start({ args: EVERY_EVENT });
    const browsers = await client.connectMany(t, server, CLIENTS, { reconnection: false });
    const events = Array.from({ length: 1000 }, (_, turn) => jobUpdate({ priority: turn }));
    await server.publish(events);
    await server.stop();
    for (const browser of browsers) {
      await browser.fact('disconnect');
      assert.deepEqual(browser.take().map(([, { priority }]) => priority), events.map(({ payload }) => payload.priority));
    }
  });

  /** Every client joins each room twice, on `connect` and on `reconnect`, and is in it once. */
  function roomsFilled(server) {
    const rooms = ['Jobs', 'Chat', 'Workers', `job-${JOB_A}`, `tasklog-${TASK_A}`];
    const full = (stats) => rooms.every((room) => stats.rooms[room] === CLIENTS);
    return eventually(() => server.stats(), full, `${CLIENTS} clients in each of ${rooms}`);
  }
});

describe('the last words to a browser', () => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    test(`after ${signal} are a WebSocket close 1001, and no 41`, async (t) => {
      const server = await Server.start();
      const browser = await RawBrowser.connect(t, server);
      await server.publish(jobUpdate());
      await server.stop(signal);
      assert.equal((await browser.close()).code, 1001);
      assert.deepEqual(browser.take(), [`42["/jobs",${JSON.stringify(jobUpdate().payload)}]`]);
    });
  }

  test('a browser that answers nothing holds nobody up', async (t) => {
    const server = await Server.start();
    const deaf = await RawBrowser.connect(t, server);
    const other = await RawBrowser.connect(t, server);
    deaf.socket.pause();
    const asked = performance.now();
    await server.stop();
    const took = performance.now() - asked;
    assert.ok(took < 5_000, `took ${took} ms to stop`);
    assert.equal((await other.close()).code, 1001);
  });

  test('an open NDJSON request holds nobody up', async (t) => {
    const server = await Server.start();
    const browser = await RawBrowser.connect(t, server);
    const outgoing = http.request(new URL('/api/events', server.manager), {
      method: 'POST', agent: false, headers: { 'content-type': 'application/x-ndjson' },
    });
    t.after(() => outgoing.destroy());
    outgoing.on('error', () => {});
    outgoing.write(`${JSON.stringify(jobUpdate())}\n`);
    await browser.next('the event');
    const asked = performance.now();
    await server.stop();
    const took = performance.now() - asked;
    assert.ok(took < 5_000, `took ${took} ms to stop`);
    assert.equal((await browser.close()).code, 1001);
  });
});
