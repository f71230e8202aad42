// What the Manager's port refuses, and that it says exactly what, where, and how much it took.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { jobUpdate, lastRendered, taskLog, taskUpdate, workerUpdate, TAG } from './support/farm.mjs';
import { RawBrowser, samePackets } from './support/raw.mjs';
import { answerOf, request, Server } from './support/server.mjs';
import { within } from './support/wait.mjs';

const NDJSON = { type: 'application/x-ndjson' };

/** A job update without `field`. */
function jobWithout(field) {
  const event = jobUpdate();
  delete event.payload[field];
  return event;
}

/** Invalid events, and the field that the error must name. */
const INVALID = [
  [{ type: 'job-updates', payload: jobUpdate().payload }, 'type'],
  [{ type: 7, payload: jobUpdate().payload }, 'type'],
  [{ payload: jobUpdate().payload }, 'type'],
  [{ type: 'job-update' }, 'payload'],
  [{ type: 'job-update', payload: null }, 'payload'],
  [{ type: 'job-update', payload: [] }, 'payload'],
  [{ ...jobUpdate(), id: 5 }, 'id'],
  [{ ...jobUpdate(), id: 'x'.repeat(129) }, 'id'],
  ...['id', 'updated', 'status', 'type', 'priority', 'refresh_tasks'].map((field) => [jobWithout(field), `payload.${field}`]),
  [jobUpdate({ id: 'not-a-uuid' }), 'payload.id'],
  [jobUpdate({ updated: 'yesterday' }), 'payload.updated'],
  [jobUpdate({ updated: '2026-11-23 08:00' }), 'payload.updated'],
  [jobUpdate({ updated: '2026-13-23T08:00:00Z' }), 'payload.updated'],
  [jobUpdate({ updated: 5 }), 'payload.updated'],
  [jobUpdate({ priority: '50' }), 'payload.priority'],
  [jobUpdate({ priority: 50.5 }), 'payload.priority'],
  [jobUpdate({ refresh_tasks: 'no' }), 'payload.refresh_tasks'],
  [jobUpdate({ name: 5 }), 'payload.name'],
  [jobUpdate({ previous_status: 5 }), 'payload.previous_status'],
  [jobUpdate({ steps_total: 'many' }), 'payload.steps_total'],
  [jobUpdate({ delete_requested_at: 'soon' }), 'payload.delete_requested_at'],
  [taskUpdate({ job_id: 'x' }), 'payload.job_id'],
  [taskUpdate({ activity: undefined }), 'payload.activity'],
  [taskUpdate({ worker: { name: 'w', uuid: 'x' } }), 'payload.worker.uuid'],
  [taskLog({ log: undefined }), 'payload.log'],
  [taskLog({ task_id: undefined }), 'payload.task_id'],
  [lastRendered({ thumbnail: { base: '/x' } }), 'payload.thumbnail.suffixes'],
  [lastRendered({ thumbnail: undefined }), 'payload.thumbnail'],
  [workerUpdate({ version: undefined }), 'payload.version'],
  [workerUpdate({ last_seen: 'never' }), 'payload.last_seen'],
  [workerUpdate({ status_change: { status: 'asleep' } }), 'payload.status_change.is_lazy'],
  [{ type: 'worker-tag-update', payload: { tag: { id: TAG.slice(2), name: 'x' } } }, 'payload.tag.id'],
  [{ type: 'life-cycle', payload: {} }, 'payload.type'],
  [{ type: 'farm-status', payload: { status: null } }, 'payload.status'],
  [{ type: 'chat-message', payload: { name: 'x' } }, 'payload.text'],
];

/** Bodies that are no JSON. */
const NOT_JSON = ['', '{', '{"type":', 'job-update', '[{"type":"job-update"', `${JSON.stringify(jobUpdate())},`, '\u0000', '{"a":01}'];

/** JSON that is no event. */
const NO_EVENT = ['null', '5', '"job-update"', 'true'];

describe('an invalid event', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  for (const [event, field] of INVALID) {
    test(`is refused and ${field} is named: ${JSON.stringify(event).slice(0, 160)}`, async (t) => {
      const browser = await RawBrowser.connect(t, server);
      const good = jobUpdate({ priority: 1 });
      const refused = { status: 422, field, index: undefined, line: undefined, accepted: 0 };

      assert.deepEqual(outcome(await server.post(event)), refused);
      assert.deepEqual(outcome(await server.post([good, event, good])), { ...refused, index: 1 });
      await server.settle(browser);
      assert.deepEqual(browser.take(), [], 'an array is all or nothing');

      const lines = [good, event, good].map((one) => `${JSON.stringify(one)}\n`).join('');
      assert.deepEqual(outcome(await server.post(lines, NDJSON)), { ...refused, line: 2, accepted: 1 });
      await server.settle(browser);
      samePackets(browser.take(), [`42["/jobs",${JSON.stringify(good.payload)}]`]);
    });
  }

  test('is counted', async () => {
    const before = await server.stats();
    await server.post({ type: 'nonsense', payload: {} });
    await server.post('{');
    const { refused } = await server.stats();
    assert.equal(refused['invalid-event'], before.refused['invalid-event'] + 1);
    assert.equal(refused['bad-json'], (before.refused['bad-json'] ?? 0) + 1);
  });
});

describe('a body that is no event', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  test('no JSON is 400', async () => {
    for (const body of NOT_JSON) {
      assert.deepEqual(outcome(await server.post(body)), { status: 400, field: undefined, index: undefined, line: undefined, accepted: 0 }, body);
    }
  });

  test('a line that is no JSON is 400 with its number, and what came before it was taken', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const lines = `${JSON.stringify(jobUpdate())}\n${JSON.stringify(jobUpdate())}\n{"type"\n${JSON.stringify(jobUpdate())}\n`;
    assert.deepEqual(outcome(await server.post(lines, NDJSON)), { status: 400, field: undefined, index: undefined, line: 3, accepted: 2 });
    await server.settle(browser);
    assert.equal(browser.take().length, 2);
  });

  test('bytes that are no UTF-8 are 400', async () => {
    const body = Buffer.from(JSON.stringify(jobUpdate({ name: 'é' })));
    body[body.indexOf(0xc3)] = 0xff;
    assert.equal((await server.post(body)).status, 400);
    assert.equal((await server.post(body, NDJSON)).status, 400);
  });

  test('other JSON is 422', async () => {
    for (const body of NO_EVENT) assert.equal((await server.post(body)).status, 422, body);
    const { status, index, accepted } = outcome(await server.post('[[]]'));
    assert.deepEqual({ status, index, accepted }, { status: 422, index: 0, accepted: 0 });
  });

  test('deep nesting is refused or passed on, and hurts nobody', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
    for (const body of [deep, `{"type":"chat-message","payload":{"name":"n","text":"t","deep":${deep}}}`, `{"type":"x","more":${deep}}`]) {
      const { status } = await server.post(body);
      assert.ok([200, 400, 413, 422].includes(status), `${status} to ${body.slice(0, 80)}`);
    }
    await server.settle(browser);
  });

  test('another content type is 415', async () => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonl', '']) {
      assert.equal(outcome(await server.post(jobUpdate(), { type })).status, 415, type);
    }
    const bare = await request(new URL('/api/events', server.manager), { method: 'POST', body: '{}' });
    assert.equal(outcome(bare).status, 415, 'no content type');
  });
});

describe('too much at once', () => {
  const MAX_BODY = 65_536;
  let server;
  before(async () => (server = await Server.start({ args: ['--max-body', `${MAX_BODY}`] })));
  after(() => server.stop());

  /** A text of `length` bytes that is one event. */
  function eventOf(length) {
    const bare = JSON.stringify(jobUpdate({ filler: '' }));
    return JSON.stringify(jobUpdate({ filler: 'x'.repeat(length - Buffer.byteLength(bare)) }));
  }

  test('a body over the limit is 413, one of exactly the limit is taken', async () => {
    await server.publish(jobUpdate({ filler: 'x'.repeat(MAX_BODY / 2) }));
    assert.equal((await server.post(eventOf(MAX_BODY))).status, 200);
    assert.deepEqual(outcome(await server.post(eventOf(MAX_BODY + 1))), { status: 413, field: undefined, index: undefined, line: undefined, accepted: 0 });
  });

  test('lines are limited one by one, not the body', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    await server.publishLines([1, 2, 3].map(() => eventOf(MAX_BODY)));
    const lines = `${eventOf(MAX_BODY)}\n${eventOf(MAX_BODY + 1)}\n${eventOf(1000)}\n`;
    assert.deepEqual(outcome(await server.post(lines, NDJSON)), { status: 413, field: undefined, index: undefined, line: 2, accepted: 1 });
    await server.settle(browser);
    assert.equal(browser.take().length, 4);
  });

  test('a body that is only announced is refused by its announcement', async (t) => {
    const outgoing = openRequest(t, { 'content-type': 'application/json', 'content-length': 2 ** 40 });
    outgoing.flushHeaders();
    assert.equal(outcome(await within(outgoing.answered, 'the answer to an announced terabyte')).status, 413);
  });

  test('a line that does not end is refused while it is still arriving', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const outgoing = openRequest(t, { 'content-type': NDJSON.type });
    outgoing.write(`${JSON.stringify(jobUpdate())}\n{"type":"`);
    await browser.next('the event before it');
    let done = false;
    outgoing.answered.finally(() => (done = true)).catch(() => {});
    for (let sent = 0; sent < 2 ** 28 && !done; sent += MAX_BODY) {
      if (!outgoing.write('x'.repeat(MAX_BODY))) {
        await Promise.race([new Promise((resolve) => outgoing.once('drain', resolve)), outgoing.answered]);
      }
    }
    const { status, line, accepted } = outcome(await within(outgoing.answered, 'the answer to 256 MiB without a line break'));
    assert.deepEqual({ status, line, accepted }, { status: 413, line: 2, accepted: 1 });
  });

  /** A request whose body the test writes, and which `t` ends; `answered` is its answer. */
  function openRequest(t, headers) {
    const outgoing = http.request(new URL('/api/events', server.manager), { method: 'POST', agent: false, headers });
    t.after(() => outgoing.destroy());
    outgoing.answered = new Promise((resolve, reject) => {
      outgoing.on('response', (incoming) => resolve(answerOf(incoming)));
      // Once it has answered, the server need not read what still comes.
      outgoing.on('error', reject);
    });
    return outgoing;
  }
});

describe('an id', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());
  const numbered = (priority, id) => ({ ...jobUpdate({ priority }), id });
  const priorities = (browser) => browser.take().map((packet) => JSON.parse(packet.slice(2))[1].priority);

  test('that was accepted is acknowledged again and sent once', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const long = 'é'.repeat(64);
    for (const id of ['a', long]) {
      await server.publish(numbered(1, id));
      await server.publish(numbered(2, id));
    }
    await server.publish([numbered(3, 'b'), numbered(4, 'b'), numbered(5, 'a'), numbered(6, 'A')]);
    await server.publishLines([numbered(7, 'b'), numbered(8, 'c')].map((event) => JSON.stringify(event)));
    await server.settle(browser);
    assert.deepEqual(priorities(browser), [1, 1, 3, 6, 8]);
  });

  test('that is empty counts as none', async (t) => {
    // A Manager that never sets the field may send it empty with every event.
    const browser = await RawBrowser.connect(t, server);
    await server.publish([numbered(1, ''), numbered(2, '')]);
    await server.settle(browser);
    assert.deepEqual(priorities(browser), [1, 2]);
  });

  test('of an array that was refused may come again', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const first = numbered(1, 'retried');
    assert.equal((await server.post([first, { type: 'nonsense', payload: {} }])).status, 422);
    await server.publish([first, numbered(2, 'another')]);
    await server.settle(browser);
    assert.deepEqual(priorities(browser), [1, 2]);
  });
});

describe('a token', () => {
  let server, folder;
  const token = 'correct horse battery staple'.replaceAll(' ', '-');
  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'webupdates-'));
    writeFileSync(path.join(folder, 'token'), `${token}\n`);
    server = await Server.start({ args: ['--manager-token-file', path.join(folder, 'token')], token });
  });
  after(async () => {
    await server.stop();
    rmSync(folder, { recursive: true });
  });

  test('lets in whoever has it', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    await server.publish(jobUpdate());
    assert.match(await browser.next(), /^42\["\/jobs"/);
    assert.equal((await server.stats()).events['job-update'], 1);
  });

  test('none is 401, a wrong one 403, and nothing is read', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const post = (headers) => request(new URL('/api/events', server.manager), {
      method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(jobUpdate()),
    });
    assert.equal((await post({})).status, 401);
    for (const wrong of [`Bearer ${token}x`, `Bearer ${token.slice(1)}`, `Bearer ${token.toUpperCase()}`]) {
      const answer = await post({ authorization: wrong });
      assert.equal(answer.status, 403, wrong);
      assert.ok(!answer.text.includes(token), 'the answer tells the token');
    }
    for (const other of ['Bearer ', token, `Basic ${Buffer.from(`manager:${token}`).toString('base64')}`]) {
      const { status } = await post({ authorization: other });
      assert.ok([401, 403].includes(status), `${status} to ${other}`);
    }
    await server.settle(browser);
    assert.deepEqual(browser.take(), []);
  });

  test('is asked of stats too', async () => {
    assert.equal((await request(new URL('/api/stats', server.manager))).status, 401);
  });
});

/** What an error answer says, apart from its sentence. */
function outcome({ status, json, text }) {
  assert.ok(typeof json?.error === 'string' && json.error.length > 5 && !json.error.includes('\n'), `one sentence, not ${text}`);
  const { field, index, line, accepted } = json;
  return { status, field, index, line, accepted };
}
