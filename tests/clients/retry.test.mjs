// A Manager that retries, and a server that is killed beside it: docs/reliability.md says what is promised.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { jobUpdate } from './support/farm.mjs';
import { RawBrowser } from './support/raw.mjs';
import { Server } from './support/server.mjs';

const EVENTS = 400;
const BEFORE_THE_KILL = 150;

test('no retry doubles an event for who is connected, through a kill -9 and a new start', async (t) => {
  const server = await Server.start();
  t.after(() => server.stop());
  const before = await RawBrowser.connect(t, server);
  let comeBack;
  const publishing = publishEachTwice(server, new Promise((resolve) => (comeBack = resolve)));
  await before.messages.until((messages) => messages.length >= BEFORE_THE_KILL, 'events');
  await server.stop('SIGKILL');
  await server.startAgain();
  const after = await RawBrowser.connect(t, server);
  comeBack();
  const unanswered = await publishing;
  await server.settle(after);

  const [first, second] = [before, after].map((browser) => browser.take().map(numberOf));
  assert.deepEqual(first, upFrom(0, first.length), 'each once and in order until the kill');
  assert.deepEqual(second, upFrom(second[0], second.length), 'each once and in order after it');
  assert.equal(second.at(-1), EVENTS - 1, 'to the end');
  assert.ok(unanswered > 0, 'the Manager was interrupted');
  t.diagnostic(`${first.length} events before the kill, ${second.length} after it, ${unanswered} requests without an answer`);
});

/**
 * Sends each event until it is answered, and then once more, as one whose answer was lost; the last ones when somebody is back to see
 * them. Returns how many requests failed.
 */
async function publishEachTwice(server, isBack) {
  let unanswered = 0;
  for (let number = 0; number < EVENTS; number++) {
    if (number === EVENTS - 100) await isBack;
    const event = { ...jobUpdate({ priority: number }), id: `event-${number}` };
    for (let answers = 0; answers < 2; ) {
      try {
        assert.equal((await server.post(event)).status, 200);
        answers++;
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        unanswered++;
        await sleep(5);
      }
    }
  }
  return unanswered;
}

const numberOf = (packet) => JSON.parse(packet.slice(2))[1].priority;
const upFrom = (start, length) => Array.from({ length }, (_, index) => start + index);
