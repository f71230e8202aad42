// Order: nothing lost, nothing twice, nothing out of turn, to many clients at once.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { forEachClient } from './support/browsers.mjs';
import { jobUpdate, oneOfEach, eventName, ROOMS_OF_EACH, subscriptionTo, workerUpdate } from './support/farm.mjs';
import { EVERY_EVENT, Server } from './support/server.mjs';

const EVENTS = 2000;

/** Event number `turn`, its kind in turn one of all kinds. */
const KINDS = oneOfEach();
function numbered(turn) {
  const { type, payload } = KINDS[turn % KINDS.length];
  return { type, payload: { ...payload, turn } };
}

/** Asserts that `browser` received exactly `expected`, texts of number and event name; short when it fails. */
function receivedInOrder(browser, expected) {
  const received = browser.take().map(([name, { turn }]) => `${turn} ${name}`);
  const at = received.findIndex((entry, position) => entry !== expected[position]);
  if (at >= 0) assert.deepEqual(received.slice(at, at + 5), expected.slice(at, at + 5), `from position ${at}`);
  assert.equal(received.length, expected.length);
}

forEachClient((client) => {
  const CLIENTS = client.isSlow ? 5 : 50;
  let server;
  before(async () => {
    server = await Server.start({ args: EVERY_EVENT });
  });
  after(() => server.stop());

  test(`${EVENTS} events one by one, in order to ${CLIENTS} clients`, async (t) => {
    const browsers = await client.connectMany(t, server, CLIENTS);
    const turns = Array.from({ length: EVENTS }, (_, turn) => turn);
    await server.publishOneByOne(turns.map((turn) => jobUpdate({ turn })));
    await server.settle(...browsers);
    const expected = turns.map((turn) => `${turn} /jobs`);
    for (const browser of browsers) receivedInOrder(browser, expected);
  });

  test(`${EVENTS} events of all kinds in arrays, in order to ${CLIENTS} clients in all rooms`, async (t) => {
    const browsers = await client.connectMany(t, server, CLIENTS);
    await Promise.all(browsers.map((browser) => browser.subscribe(...ROOMS_OF_EACH.map(subscriptionTo))));
    const events = Array.from({ length: EVENTS }, (_, turn) => numbered(turn));
    for (let sent = 0, size = 1; sent < EVENTS; sent += size, size = (size * 3) % 127) {
      await server.publish(events.slice(sent, sent + size));
    }
    await server.settle(...browsers);
    const expected = events.map(({ type }, turn) => `${turn} ${eventName(type)}`);
    for (const browser of browsers) receivedInOrder(browser, expected);
  });

  test('several Managers at once: each one’s order holds, and all clients see the same', async (t) => {
    const browsers = await client.connectMany(t, server, 10);
    await Promise.all(browsers.map((browser) => browser.subscribe({ type: 'allWorkers' })));
    const turns = Array.from({ length: 200 }, (_, turn) => turn);
    const managers = ['north', 'south', 'east', 'west'];
    await Promise.all(managers.map(async (from) => {
      for (const turn of turns) await server.publish(turn % 2 ? jobUpdate({ turn, from }) : workerUpdate({ turn, from }));
    }));
    await server.settle(...browsers);
    const [first, ...others] = browsers.map((browser) => browser.take().map(([, { turn, from }]) => `${from} ${turn}`));
    for (const seen of others) assert.deepEqual(seen, first);
    for (const from of managers) {
      assert.deepEqual(first.filter((entry) => entry.startsWith(from)), turns.map((turn) => `${from} ${turn}`));
    }
  });
});
