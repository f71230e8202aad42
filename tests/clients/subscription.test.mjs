// Rooms: joining, leaving, every refusal word for word, and that nobody hears another room's news.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { forEachClient } from './support/browsers.mjs';
import {
  asReceived, heardIn, JOB_A, JOB_B, jobUpdate, lastRendered, oneOfEach, ROOMS_OF_EACH, subscriptionTo,
  TASK_A, TASK_B, taskLog, taskUpdate,
} from './support/farm.mjs';
import { RawBrowser } from './support/raw.mjs';
import { EVERY_EVENT, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

const INVALID_UUID = 'invalid UUID, ignoring request';
const JOB_NEEDS_UUID = 'operation on job requires a UUID';
const TASK_NEEDS_UUID = 'operation on task requires a UUID';
const UNKNOWN_TYPE = 'unknown subscription type, ignoring request';
const INVALID_OP = 'invalid subscription operation, ignoring request';

/** Requests that are refused, in the order in which the checks run: several are wrong in more than one way. */
const REFUSALS = [
  [{ op: 'explode', type: 'nonsense', uuid: 'not-a-uuid' }, INVALID_UUID],
  [{ op: 'subscribe', type: 'allJobs', uuid: 'not-a-uuid' }, INVALID_UUID],
  [{ op: 'subscribe', type: 'job', uuid: JOB_A.slice(1) }, INVALID_UUID],
  [{ op: 'subscribe', type: 'tasklog', uuid: JOB_A.replace('4', 'g') }, INVALID_UUID],
  [{ op: 'explode', type: 'nonsense' }, UNKNOWN_TYPE],
  [{ op: 'subscribe', type: 'alljobs' }, UNKNOWN_TYPE],
  [{ op: 'subscribe', type: '', uuid: JOB_A }, UNKNOWN_TYPE],
  [{ op: 'explode', type: 'job' }, JOB_NEEDS_UUID],
  [{ op: 'subscribe', type: 'job' }, JOB_NEEDS_UUID],
  [{ op: 'unsubscribe', type: 'job' }, JOB_NEEDS_UUID],
  [{ op: 'explode', type: 'tasklog' }, TASK_NEEDS_UUID],
  [{ op: 'subscribe', type: 'tasklog' }, TASK_NEEDS_UUID],
  [{ op: 'explode', type: 'job', uuid: JOB_A }, INVALID_OP],
  [{ op: 'Subscribe', type: 'allWorkers' }, INVALID_OP],
  [{ op: '', type: 'allWorkers' }, INVALID_OP],
];

/** Arguments that are no request at all. */
const WRONG_SHAPES = [
  [], [null], [7], [true], ['job'], [[]], [{}], [{ op: 'subscribe' }], [{ type: 'allWorkers' }],
  [{ op: 1, type: 'allWorkers' }], [{ op: 'subscribe', type: ['allWorkers'] }], [{ op: 'subscribe', type: 'job', uuid: 5 }],
  [{ op: 'subscribe', type: 'job', uuid: { a: JOB_A } }], [{ op: null, type: null, uuid: null }],
];

function allRoomsEmpty(server) {
  return eventually(() => server.stats(), ({ rooms }) => Object.keys(rooms).length === 0, 'all rooms to be empty');
}

forEachClient((client) => {
  let server;
  before(async () => (server = await Server.start({ args: EVERY_EVENT })));
  // The browsers of the test before were told to close; the server hears of it in its own time.
  beforeEach(() => allRoomsEmpty(server));
  after(() => server.stop());

  for (const room of ROOMS_OF_EACH) {
    test(`subscribe to ${room} and unsubscribe`, async (t) => {
      const browser = await client.connect(t, server);
      await browser.unsubscribe(subscriptionTo('Jobs'));
      await browser.subscribe(subscriptionTo(room));
      const events = oneOfEach();
      await server.publish(events);
      await server.settle(browser);
      const heard = heardIn([room, 'Chat'], events);
      assert.ok(heard.length > heardIn(['Chat'], events).length);
      assert.deepEqual(browser.take(), asReceived(heard));

      await browser.unsubscribe(subscriptionTo(room));
      await server.publish(events);
      await server.settle(browser);
      assert.deepEqual(browser.take(), asReceived(heardIn(['Chat'], events)));
    });
  }

  test('subscribing twice joins once, unsubscribing once leaves', async (t) => {
    const browser = await client.connect(t, server);
    const job = { type: 'job', uuid: JOB_A };
    await browser.subscribe(job, job);
    assert.equal((await server.stats()).rooms[`job-${JOB_A}`], 1);
    await server.publish(taskUpdate());
    await server.settle(browser);
    assert.deepEqual(browser.take(), asReceived([taskUpdate()]));

    await browser.unsubscribe(job);
    assert.equal((await server.stats()).rooms[`job-${JOB_A}`], undefined);
    await server.publish(taskUpdate());
    await server.settle(browser);
    assert.deepEqual(browser.take(), []);
  });

  test('unsubscribing from what was never subscribed is ok', async (t) => {
    const browser = await client.connect(t, server);
    await browser.unsubscribe({ type: 'job', uuid: JOB_B });
    await browser.unsubscribe({ type: 'allWorkerTags' });
  });

  test('rooms are apart', async (t) => {
    const [onA, onB, logA, logB] = await client.connectMany(t, server, 4);
    await onA.subscribe({ type: 'job', uuid: JOB_A });
    await onB.subscribe({ type: 'job', uuid: JOB_B });
    await logA.subscribe({ type: 'tasklog', uuid: TASK_A });
    await logB.subscribe({ type: 'tasklog', uuid: TASK_B });
    const a = [taskUpdate(), lastRendered()];
    const b = [taskUpdate({ job_id: JOB_B }), lastRendered({ job_id: JOB_B })];
    const log = { a: [taskLog()], b: [taskLog({ task_id: TASK_B })] };
    await server.publish([a[0], b[0], log.a[0], b[1], log.b[0], a[1]]);
    await server.settle(onA, onB, logA, logB);
    const heard = [onA, onB, logA, logB].map((browser) => browser.take());
    assert.deepEqual(heard, [a, b, log.a, log.b].map(asReceived));
  });

  test('UUIDs are compared case-insensitively, payloads stay as they are', async (t) => {
    const [upper, lower] = await client.connectMany(t, server, 2);
    await upper.subscribe({ type: 'job', uuid: JOB_A.toUpperCase() }, { type: 'tasklog', uuid: TASK_A.toUpperCase() });
    await lower.subscribe({ type: 'job', uuid: JOB_A });
    await lower.subscribe({ type: 'job', uuid: JOB_A.toUpperCase() });
    const events = [taskUpdate({ job_id: JOB_A.toUpperCase() }), taskUpdate(), taskLog({ task_id: TASK_A.toUpperCase() })];
    await server.publish(events);
    await server.settle(upper, lower);
    assert.deepEqual(upper.take(), asReceived(events));
    assert.deepEqual(lower.take(), asReceived(events.slice(0, 2)));
    assert.equal((await server.stats()).rooms[`job-${JOB_A}`], 2);
  });

  test('a client that left is in no room', async (t) => {
    const browser = await client.connect(t, server);
    await browser.subscribe({ type: 'job', uuid: JOB_A }, { type: 'allWorkers' });
    browser.close();
    await allRoomsEmpty(server);
  });

  test('refusals, word for word and in the order of the checks', async (t) => {
    const browser = await client.connect(t, server);
    for (const [wanted, text] of REFUSALS) {
      assert.deepEqual(await browser.ask('/subscription', wanted), [text], JSON.stringify(wanted));
    }
    assert.deepEqual((await server.stats()).rooms, { Jobs: 1, Chat: 1 });
  });

  test('an argument of the wrong shape is answered, and the connection stays', async (t) => {
    const browser = await client.connect(t, server);
    for (const wanted of WRONG_SHAPES) {
      const [text, ...rest] = await browser.ask('/subscription', ...wanted);
      assert.deepEqual(rest, []);
      assert.ok(typeof text === 'string' && text.length > 10, `a sentence for ${JSON.stringify(wanted)}, not ${text}`);
    }
    assert.deepEqual((await server.stats()).rooms, { Jobs: 1, Chat: 1 });
    assert.deepEqual(browser.facts, ['connect']);
  });

  test('other event names are ignored', async (t) => {
    const browser = await client.connect(t, server);
    for (const name of ['', 'subscription', '/subscription ', '/Chat', '/jobs', '/message', '__proto__']) {
      browser.tell(name, { op: 'subscribe', type: 'allWorkers', name: 'x', text: 'x' });
    }
    await server.settle(browser);
    assert.deepEqual(browser.take(), []);
    assert.deepEqual((await server.stats()).rooms, { Jobs: 1, Chat: 1 });
    assert.deepEqual(browser.facts, ['connect']);
  });

  test('what is published after the ok arrives', async (t) => {
    const browser = await client.connect(t, server);
    const job = { type: 'job', uuid: JOB_A };
    const expected = [];
    for (let turn = 0; turn < 100; turn++) {
      await browser.subscribe(job);
      const inside = taskUpdate({ activity: `inside ${turn}` });
      await server.publish(inside);
      expected.push(inside);
      await browser.unsubscribe(job);
      await server.publish(taskUpdate({ activity: `outside ${turn}` }));
    }
    await server.settle(browser);
    assert.deepEqual(browser.take(), asReceived(expected));
  });
});

describe('acknowledgements on the wire', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  const subscribe = '["/subscription",{"op":"subscribe","type":"allWorkers"}]';
  const refused = '["/subscription",{"op":"explode","type":"allWorkers"}]';

  test('without an ack id nothing is answered', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    for (const text of [subscribe, refused, '["/subscription"]', '["/chat",5]', '["/nothing",1]']) browser.send(`42${text}`);
    browser.send(`421${refused}`);
    assert.equal(await browser.next(), `431["${INVALID_OP}"]`);
    assert.deepEqual(browser.take(), []);
  });

  test('an unknown event is not even acknowledged', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    browser.send('421["/nothing",1]');
    browser.send(`422${subscribe}`);
    assert.equal(await browser.next(), '432["ok"]');
  });

  test('ids are echoed digit for digit', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    for (const id of ['0', '7', '007', '4294967296', '9007199254740992']) {
      browser.send(`42${id}${subscribe}`);
      assert.equal(await browser.next(`the acknowledgement ${id}`), `43${id}["ok"]`);
    }
  });

  test('answers come in the order of the requests', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    for (let id = 0; id < 300; id++) browser.send(`42${id}${id % 3 ? subscribe : refused}`);
    for (let id = 0; id < 300; id++) {
      assert.equal(await browser.next(), `43${id}["${id % 3 ? 'ok' : INVALID_OP}"]`);
    }
  });

  test('white space and escapes in a request are JSON like any other', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    browser.send(`421[ "\\/subscription" , { "type" : "j\\u006fb", "extra": [1], "uuid": "${JOB_B}", "op":"subscribe" } ]`);
    assert.equal(await browser.next(), '431["ok"]');
    await server.publish([jobUpdate(), taskUpdate({ job_id: JOB_B })]);
    await server.settle(browser);
    assert.equal(browser.take().length, 2);
  });
});

describe('namespaces', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  test('there is only /, others are refused and disturb nothing', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    for (const connect of ['40/admin,', '40/admin', '40/admin?token=1,']) {
      browser.send(connect);
      assert.equal(await browser.next(`the answer to ${connect}`), '44/admin,"Invalid namespace"');
    }
    browser.send('421["/subscription",{"op":"subscribe","type":"allWorkers"}]');
    assert.equal(await browser.next(), '431["ok"]');
  });
});
