// A recording of a real farm, replayed event for event to clients in every room.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forEachClient } from './support/browsers.mjs';
import { allRooms, asPacket, asReceived, DEFAULT_ROOMS, heardIn, recordedFarm, SUBSCRIPTIONS, subscriptionTo } from './support/farm.mjs';
import { RawBrowser, samePackets } from './support/raw.mjs';
import { EVERY_EVENT, Server } from './support/server.mjs';

const farm = recordedFarm();
const rooms = allRooms(farm).filter((room) => !DEFAULT_ROOMS.includes(room));

test('the recording is the one these tests were written for', () => {
  assert.equal(farm.length, 446);
  const count = (start) => rooms.filter((room) => room.startsWith(start)).length;
  assert.deepEqual([count('job-'), count('tasklog-')], [4, 20]);
  assert.deepEqual(rooms.filter((room) => room in SUBSCRIPTIONS).sort(), ['Last-Rendered', 'Worker-Tags', 'Workers']);
});

/** Ways to hand the recording over: `lines` as they stand in the file. */
const WAYS = {
  'as one NDJSON body': (server) => server.publishLines(farm.map(({ line }) => line)),
  'one by one': async (server) => {
    for (const { line } of farm) assert.equal((await server.post(line)).status, 200, line);
  },
};

forEachClient((client) => {
  for (const [way, replay] of Object.entries(WAYS)) {
    test(`replayed ${way} it reaches each room's client, and one in all rooms, event for event`, async (t) => {
      const server = await Server.start({ args: EVERY_EVENT });
      t.after(() => server.stop());
      const inRooms = async (joined) => {
        const browser = await client.connect(t, server);
        for (const room of joined) await browser.subscribe(subscriptionTo(room));
        return { browser, joined: [...DEFAULT_ROOMS, ...joined] };
      };
      const all = await Promise.all([[], ...rooms.map((room) => [room]), rooms].map(inRooms));
      const nowhere = await client.connect(t, server);
      await nowhere.unsubscribe({ type: 'allJobs' });
      all.push({ browser: nowhere, joined: ['Chat'] });

      await replay(server);
      await server.settle(...all.map(({ browser }) => browser));
      for (const { browser, joined } of all) assert.deepEqual(browser.take(), asReceived(heardIn(joined, farm)));
    });
  }
});

test('every payload arrives byte for byte as it was recorded', async (t) => {
  const server = await Server.start({ args: EVERY_EVENT });
  t.after(() => server.stop());
  const browser = await RawBrowser.connect(t, server);
  for (const room of rooms) {
    browser.send(`421["/subscription",${JSON.stringify({ op: 'subscribe', ...subscriptionTo(room) })}]`);
    assert.equal(await browser.next(), '431["ok"]');
  }
  await server.publishLines(farm.map(({ line }) => line));
  await server.settle(browser);
  samePackets(browser.take(), farm.map(asPacket));
});
