// Every kind of event, from the Manager to the browsers, in every form in which it may be handed over.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { forEachClient } from './support/browsers.mjs';
import {
  asPacket, asReceived, JOB_A, JOB_B, jobUpdate, lastRendered, oneOfEach, ROOMS_OF_EACH, subscriptionTo, TASK_A, taskLog, TIME, WORKER,
} from './support/farm.mjs';
import { RawBrowser, samePackets } from './support/raw.mjs';
import { answerOf, EVERY_EVENT, Server } from './support/server.mjs';
import { within } from './support/wait.mjs';

/** The forms in which events may be handed over: each publishes all of `events`. */
const FORMS = {
  'one by one': async (server, events) => {
    for (const event of events) await server.publish(event);
  },
  'as an array': (server, events) => server.publish(events),
  'as NDJSON': (server, events) => server.publishLines(events.map((event) => JSON.stringify(event))),
};

forEachClient((client) => {
  let server;
  // An image that is held back would reach the browsers of the next test.
  before(async () => (server = await Server.start({ args: EVERY_EVENT })));
  after(() => server.stop());

  for (const [form, publish] of Object.entries(FORMS)) {
    test(`every kind ${form}`, async (t) => {
      const browser = await client.connect(t, server);
      await browser.subscribe(...ROOMS_OF_EACH.map(subscriptionTo));
      const before = await server.stats();
      const events = oneOfEach();
      await publish(server, events);
      await server.settle(browser);
      assert.deepEqual(browser.take(), asReceived(events));

      const { events: counted } = await server.stats();
      for (const { type } of events) {
        const fences = type === 'farm-status' ? 1 : 0;
        assert.equal(counted[type], (before.events[type] ?? 0) + 1 + fences, `count of ${type}`);
      }
    });
  }

  test('a client in two rooms of an event gets it once', async (t) => {
    const browser = await client.connect(t, server);
    await browser.subscribe({ type: 'allLastRendered' }, { type: 'job', uuid: JOB_A });
    const before = await server.stats();
    await server.publish(lastRendered());
    assert.equal((await server.stats()).deliveries, before.deliveries + 1);
    await server.settle(browser);
    assert.deepEqual(browser.take(), asReceived([lastRendered()]));
  });

  test('fields and status words from the future survive', async (t) => {
    const browser = await client.connect(t, server);
    await browser.subscribe(...ROOMS_OF_EACH.map(subscriptionTo));
    const future = { colour: 'tangerine', nested: { list: [1, null, { deep: true }] }, '': 0, __proto: [] };
    const events = oneOfEach().map(({ type, payload }) => ({ type, payload: { ...payload, ...future } }));
    for (const { payload } of events) if ('status' in payload) payload.status = 'defragmenting-the-moon';
    await server.publish(events);
    await server.settle(browser);
    assert.deepEqual(browser.take(), asReceived(events));
  });
});

// Each waits, with a server of its own.
describe('many images', { concurrency: 4 }, () => {
  forEachClient((client) => {
    test('of images the Last-Rendered room hears the first and the last in a time, the job’s room each', async (t) => {
      const INTERVAL_MS = 3_000;
      const slow = await Server.start({ args: ['--last-rendered-interval', `${INTERVAL_MS}ms`] });
      t.after(() => slow.stop());
      const [global, job, both] = await client.connectMany(t, slow, 3);
      await global.subscribe({ type: 'allLastRendered' });
      await job.subscribe({ type: 'job', uuid: JOB_A });
      await both.subscribe({ type: 'job', uuid: JOB_A }, { type: 'allLastRendered' });
      const images = Array.from({ length: 10 }, (_, turn) => lastRendered({ turn }));
      const other = lastRendered({ job_id: JOB_B });
      const began = performance.now();
      await slow.publish([...images.slice(0, 5), other, ...images.slice(5)]);
      await slow.settle(global, job, both);
      assert.ok(performance.now() - began < INTERVAL_MS, 'this machine is too slow for this test');
      assert.deepEqual(global.take(), asReceived([images[0], other]));

      await global.count(1);
      const waited = performance.now() - began;
      assert.ok(waited >= INTERVAL_MS - 1, `told again after ${waited} ms`);
      await slow.settle(global, job, both);
      assert.deepEqual(global.take(), asReceived([images[9]]));
      assert.deepEqual(job.take(), asReceived(images));
      assert.deepEqual(both.take(), asReceived([...images.slice(0, 5), other, ...images.slice(5)]));
    });
  });
});

describe('an image that is held back from the Last-Rendered room', () => {
  /** The images that a client in Last-Rendered gets when it enters or leaves the job's room while one is held back. */
  async function whileHeld(t, before, after) {
    const server = await Server.start();
    t.after(() => server.stop());
    const browser = await RawBrowser.connect(t, server);
    const ask = async (op, type, uuid) => {
      browser.send(`420["/subscription",${JSON.stringify({ op, type, uuid })}]`);
      await browser.messages.until((messages) => messages.includes('430["ok"]'), 'ok');
      browser.messages.entries.splice(browser.messages.entries.indexOf('430["ok"]'), 1);
    };
    const witness = await RawBrowser.connect(t, server);
    witness.send('420["/subscription",{"op":"subscribe","type":"allLastRendered"}]');
    await witness.next();
    await ask('subscribe', 'allLastRendered');
    if (before) await ask(before, 'job', JOB_A);
    await server.publish([lastRendered({ turn: 1 }), lastRendered({ turn: 2 })]);
    await ask(after, 'job', JOB_A);
    assert.match(await witness.next('the first image'), /"turn":1/);
    assert.match(await witness.next('the held image'), /"turn":2/);
    await server.settle(browser);
    return browser.take().map((packet) => JSON.parse(packet.slice(2))[1].turn);
  }

  test('does not come twice to a client that left the job’s room meanwhile', async (t) => {
    assert.deepEqual(await whileHeld(t, 'subscribe', 'unsubscribe'), [1, 2]);
  });

  test('comes also to a client that entered the job’s room meanwhile', async (t) => {
    assert.deepEqual(await whileHeld(t, undefined, 'subscribe'), [1, 2]);
  });
});

describe('payloads on the wire', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  /** A browser in every room, and what it reads after `lines` were handed over. */
  async function readBack(t, publish) {
    const browser = await RawBrowser.connect(t, server);
    for (const [at, room] of ROOMS_OF_EACH.entries()) {
      browser.send(`42${at}["/subscription",${JSON.stringify({ op: 'subscribe', ...subscriptionTo(room) })}]`);
      assert.equal(await browser.next(), `43${at}["ok"]`);
    }
    await publish();
    await server.settle(browser);
    return browser.take();
  }

  const job = (rest) => `{"id":"${JOB_A}","updated":"${TIME}","status":"active","type":"t","priority":50,"refresh_tasks":false${rest}}`;

  /** Payloads as text that parsing and printing again would change. */
  const DELICATE = [
    ['job-update', job(',"big":12345678901234567890123456789,"small":1e-400,"float":1.0,"exp":1E+2,"minus":-0')],
    ['job-update', job(',"name":"\\u0041\\/\\u00fc\\ud83c\\udfac <b>&amp;</b> \\u0026\\u2028"')],
    ['job-update', job(',"name":"plain ü 🎬 \u2028\u2029\u007f"')],
    ['job-update', job(',"lone":"\\ud83c","zero":"\\u0000"')],
    ['job-update', job(',"zebra":1,"apple":2,"name":"keys stay where they are","10":1,"9":2')],
    ['job-update', job(',"extra":{"id":1,"id":2}')],
    ['job-update', `{"id":"${JOB_A}","priority":0,"refresh_tasks":false,"status":"","type":"","updated":"0001-01-01T00:00:00Z","was_deleted":true}`],
    ['task-log-update', `{"task_id":"${TASK_A}","log":"${'line \\r\\n\\t\\u001b[31m'.repeat(2000)}"}`],
    ['worker-update', `{"id":"${WORKER}","name":"n","updated":"2026-11-23T08:00:00-11:30","status":"awake","version":"","status_change":{"status":"asleep","is_lazy":false}}`],
    ['chat-message', '{"text":"t","name":"n","at":18446744073709551616}'],
  ];
  const delicate = DELICATE.map(([type, payloadText]) => ({ type, payloadText }));
  const line = ({ type, payloadText }) => `{"type":"${type}","payload":${payloadText}}`;

  test('are forwarded byte for byte, one by one', async (t) => {
    const packets = await readBack(t, async () => {
      for (const event of delicate) {
        const answer = await server.post(line(event));
        assert.deepEqual([answer.status, answer.json], [200, { accepted: 1 }], `${answer.text} to ${line(event).slice(0, 300)}`);
      }
    });
    samePackets(packets, delicate.map(asPacket));
  });

  test('are forwarded byte for byte, as an array', async (t) => {
    const packets = await readBack(t, async () => {
      const answer = await server.post(`[${delicate.map(line)}]`);
      assert.deepEqual([answer.status, answer.json], [200, { accepted: delicate.length }], answer.text);
    });
    samePackets(packets, delicate.map(asPacket));
  });

  test('are forwarded byte for byte, as NDJSON', async (t) => {
    samePackets(await readBack(t, () => server.publishLines(delicate.map(line))), delicate.map(asPacket));
  });

  test('may stand before the type, between fields that nobody knows', async (t) => {
    const [, payloadText] = DELICATE[0];
    const packets = await readBack(t, async () => {
      const answer = await server.post(` {"t_ms":5, "payload" :${payloadText}, "more":[{}], "type":"job-update"}\n`);
      assert.equal(answer.status, 200, answer.text);
    });
    samePackets(packets, [asPacket({ type: 'job-update', payloadText })]);
  });

  test('printed over many lines keep their meaning', async (t) => {
    const [packet] = await readBack(t, () => server.post(JSON.stringify(jobUpdate(), null, 2)));
    assert.deepEqual(JSON.parse(packet.slice(2)), ['/jobs', jobUpdate().payload]);
  });
});

describe('a body', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  for (const type of ['application/json; charset=utf-8', 'Application/JSON', 'application/x-ndjson;charset=UTF-8']) {
    test(`of type ${type} is read`, async () => {
      await server.publish(jobUpdate(), { type });
    });
  }

  test('of no event is accepted', async () => {
    for (const [body, type] of [['[]', 'application/json'], ['', 'application/x-ndjson']]) {
      const answer = await server.post(body, { type });
      assert.deepEqual([answer.status, answer.json], [200, { accepted: 0 }], type);
    }
  });

  test('of NDJSON may lack its last line break, and have those of Windows', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const lines = [1, 2, 3].map((priority) => JSON.stringify(jobUpdate({ priority })));
    const answer = await server.post(lines.join('\r\n'), { type: 'application/x-ndjson' });
    assert.deepEqual([answer.status, answer.json], [200, { accepted: 3 }]);
    await server.settle(browser);
    samePackets(browser.take(), [1, 2, 3].map((priority) => `42["/jobs",${JSON.stringify(jobUpdate({ priority }).payload)}]`));
  });

  test('of NDJSON is published while it is still arriving', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const outgoing = http.request(new URL('/api/events', server.manager), {
      method: 'POST', agent: false, headers: { 'content-type': 'application/x-ndjson' },
    });
    t.after(() => outgoing.destroy());
    const answered = new Promise((resolve, reject) => {
      outgoing.on('response', (incoming) => resolve(answerOf(incoming))).on('error', reject);
    });
    for (let turn = 0; turn < 20; turn++) {
      // Each write ends in the middle of a line, and of a character.
      const text = Buffer.from(`${JSON.stringify(jobUpdate({ priority: turn }))}\n`);
      const cut = text.indexOf('🎬') + 1;
      outgoing.write(text.subarray(0, cut));
      await browser.roundTrip();
      outgoing.write(text.subarray(cut));
      assert.equal(JSON.parse((await browser.next(`event ${turn}`)).slice(2))[1].priority, turn);
    }
    outgoing.end();
    const answer = await within(answered, 'the answer');
    assert.deepEqual([answer.status, answer.json], [200, { accepted: 20 }]);
  });
});

describe('of a new job and a new worker', () => {
  test('previous_status is dropped, with a warning', async (t) => {
    const server = await Server.start();
    t.after(() => server.stop());
    const browser = await RawBrowser.connect(t, server);
    browser.send('420["/subscription",{"op":"subscribe","type":"allWorkers"}]');
    await browser.next();
    for (const [kind, event] of [['new-job', jobUpdate({ exact: 12345 })], ['new-worker', oneOfEach().find(({ type }) => type === 'new-worker')]]) {
      await server.publish({ type: kind, payload: { ...event.payload, previous_status: 'queued' } });
      const { previous_status: _, ...rest } = event.payload;
      assert.deepEqual(JSON.parse((await browser.next()).slice(2))[1], rest);
      const warned = ({ stderr }) => stderr.split('\n').some((text) => /WARN/.test(text) && text.includes(kind) && text.includes('previous_status'));
      await server.program.printed(warned, `a warning about ${kind} and previous_status`);
    }
  });
});

describe('the text of a task log', () => {
  test('is never logged, whatever the level', async (t) => {
    const server = await Server.start({ env: { RUST_LOG: 'trace' } });
    t.after(() => server.stop());
    const browser = await RawBrowser.connect(t, server);
    browser.send(`420["/subscription",{"op":"subscribe","type":"tasklog","uuid":"${TASK_A}"}]`);
    await browser.next();
    const secret = 'correct-horse-battery-staple';
    await server.publish(taskLog({ log: secret }));
    await server.publishLines([JSON.stringify(taskLog({ log: secret }))]);
    const refused = await server.post({ type: 'task-log-update', payload: { task_id: 'no uuid', log: secret } });
    assert.equal(refused.status, 422);
    await server.settle(browser);
    assert.equal(browser.take().length, 2);
    const { stderr } = await server.stop();
    assert.ok(!stderr.includes(secret), `in the log: ${stderr.slice(Math.max(0, stderr.indexOf(secret) - 300)).slice(0, 600)}`);
  });
});
