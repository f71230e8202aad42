// Clients that go on where they ended, and pages that begin with the state of the farm.

import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import { forEachClient } from './support/browsers.mjs';
import { JOB_A, JOB_B, jobUpdate, lastRendered, subscriptionTo, TASK_A, taskLog, taskUpdate } from './support/farm.mjs';
import { EVERY_EVENT, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

const RESUME = { query: { resume: '1' } };
/** What a client remembers: the token of the last event, which is its last argument. */
const tokenOf = (event) => event.at(-1);
const chat = (number) => ({ type: 'chat-message', payload: { name: 'n', text: String(number) } });

const only2 = ({ name }) => name.includes('2.5.0');

forEachClient((client) => {
  let server;
  before(async () => (server = await Server.start({ args: EVERY_EVENT })));
  after(() => server.stop());

  test('nothing is missed or repeated over many connections', async (t) => {
    const seen = [];
    let token = null;
    let number = 0;
    for (let connection = 0; connection < 6; connection += 1) {
      const browser = await client.connect(t, server, RESUME);
      // Some are published while it asks.
      const publishing = server.publish(chat((number += 1)));
      const [answer] = await browser.ask('/resume', { token, rooms: ['Chat'] });
      assert.equal(answer.recovered, connection > 0, JSON.stringify(answer));
      await publishing;
      await server.publish([chat((number += 1)), chat((number += 1))]);
      await browser.event((name, payload) => name === '/message' && payload.text === String(number), `chat ${number}`);
      if (connection === 0) token = answer.token;
      for (const event of browser.take().filter(([name]) => name === '/message')) {
        seen.push(event[1].text);
        token = tokenOf(event);
      }
      browser.close();
      await server.publish([chat((number += 1)), jobUpdate({ priority: number }), chat((number += 1))]);
    }
    const first = Number(seen[0]);
    const chats = Array.from({ length: Number(seen.at(-1)) - first + 1 }, (_, index) => String(first + index));
    assert.deepEqual(seen, chats);
    assert.ok(first <= 2, 'the first connection is seated when it asks');
  });
}, only2);

describe('resume', () => {
  forEachClient((client) => {
    test('a token that is not of this history is answered by name', async (t) => {
      const server = await Server.start({ args: ['--history', '20000'] });
      t.after(() => server.stop());
      const ask = async (token) => {
        const browser = await client.connect(t, server, RESUME);
        const [answer] = await browser.ask('/resume', { token, rooms: ['Chat'] });
        browser.close();
        return answer;
      };
      await server.publish(chat(0));
      const fresh = await ask(null);
      assert.deepEqual({ ...fresh, token: '' }, { recovered: false, token: '', events: 0 });
      assert.match(fresh.token, /^[0-9a-f]+-1-[0-9a-f]+$/);
      const [epoch, offset, check] = fresh.token.split('-');
      for (const [token, reason] of [
        ['', 'invalid'], ['x'.repeat(10_000), 'invalid'], ['1-2-3', 'epoch'], [`${epoch}-9-${check}`, 'epoch'],
        [`${epoch}-${offset}-${check}f`.slice(0, 60), 'epoch'],
      ]) {
        const answer = await ask(token);
        assert.deepEqual([answer.recovered, answer.reason, answer.token], [false, reason, fresh.token], token.slice(0, 40));
        assert.match(answer.message, /token/);
      }
      for (let number = 1; number < 100; number += 1) await server.publish(chat(number));
      assert.equal((await ask(fresh.token)).reason, 'too-old');
      const { resumes, history_bytes: bytes } = await server.stats();
      assert.equal(resumes['too-old'], 1);
      assert.ok(bytes > 10_000 && bytes <= 20_000, `${bytes}`);
    });

    test('a request that makes no sense is refused with a sentence', async (t) => {
      const server = await Server.start();
      t.after(() => server.stop());
      const plain = await client.connect(t, server);
      const [notAsked] = await plain.ask('/resume', { token: null, rooms: [] });
      assert.match(notAsked, /not opened with resume=1/);
      const browser = await client.connect(t, server, RESUME);
      for (const [request, sentence] of [
        [null, /the value is null/], [{}, /rooms is missing/], [{ rooms: ['Kitchen'] }, /rooms\[0\] is not the name of a room/],
        [{ rooms: [1] }, /rooms\[0\] is a number/], [{ rooms: [], token: 5 }, /token is a number/],
        [{ rooms: Array.from({ length: 1001 }, (_, n) => `job-${JOB_A.slice(0, -4)}${String(n).padStart(4, '0')}`) }, /too many rooms/],
      ]) {
        const [answer] = await browser.ask('/resume', request);
        assert.match(answer, sentence, JSON.stringify(request)?.slice(0, 80));
      }
      const [answer] = await browser.ask('/resume', { token: null, rooms: ['Chat', 'Chat'] });
      assert.equal(answer.recovered, false);
      assert.deepEqual((await server.stats()).rooms, { Chat: 2, Jobs: 1 });
      assert.match((await browser.ask('/resume', { token: null, rooms: [] }))[0], /resumed or is in a room already/);
      const late = await client.connect(t, server, RESUME);
      await late.subscribe(subscriptionTo('Workers'));
      assert.match((await late.ask('/resume', { token: null, rooms: [] }))[0], /resumed or is in a room already/);
    });

    test('the state comes first, then what changes', async (t) => {
      const server = await Server.start({ args: EVERY_EVENT });
      t.after(() => server.stop());
      await server.publish([
        jobUpdate(), jobUpdate({ id: JOB_B }), jobUpdate({ priority: 3 }), taskUpdate(), taskUpdate({ activity: '' }),
        lastRendered(), taskLog(), taskLog(),
      ]);
      const state = (events) => events.filter((event) => event.at(-1)?.state === true).map(([name]) => name);
      const browser = await client.connect(t, server);
      for (const [room, expected] of [
        [`job-${JOB_A}`, ['/task', '/last-rendered']], [`tasklog-${TASK_A}`, ['/tasklog', '/tasklog']], ['Last-Rendered', ['/last-rendered']],
        ['Workers', []], ['Jobs', ['/jobs', '/jobs']],
      ]) {
        browser.take();
        const [answer] = await browser.ask('/subscription', { op: 'subscribe', ...subscriptionTo(room), state: true });
        assert.equal(answer, 'ok');
        assert.deepEqual(state(browser.take()), expected, room);
      }
      const again = await client.connect(t, server, RESUME);
      const [answer] = await again.ask('/resume', { token: null, rooms: ['Jobs', `job-${JOB_A}`], state: true });
      const begin = again.take();
      assert.deepEqual(state(begin), ['/jobs', '/jobs', '/task', '/last-rendered']);
      assert.equal(begin.length, 4);
      await server.publish([{ type: 'farm-status', payload: { status: 'active' } }, jobUpdate({ id: JOB_B, priority: 9 })]);
      const one = await client.connect(t, server, RESUME);
      await one.ask('/resume', { token: null, rooms: ['Workers'], state: true });
      assert.deepEqual(state(one.take()), ['/status'], 'every client gets the state of the farm');
      const [, live] = await eventually(() => again.take(), (events) => events.length > 1, 'the change');
      assert.equal(live.length, 3);
      assert.notEqual(tokenOf(live), answer.token);
    });

    test('a client that can resume gets every image', async (t) => {
      const server = await Server.start({ args: ['--last-rendered-interval', '60s'] });
      t.after(() => server.stop());
      const [plain, resuming] = [await client.connect(t, server), await client.connect(t, server, RESUME)];
      await plain.subscribe(subscriptionTo('Last-Rendered'));
      await resuming.ask('/resume', { token: null, rooms: ['Last-Rendered', 'Chat'] });
      await server.publish([1, 2, 3].map(() => lastRendered()));
      await server.publish(chat(4));
      for (const browser of [plain, resuming]) await browser.event((name) => name === '/message', 'the chat');
      const images = (browser) => browser.take().filter(([name]) => name === '/last-rendered').length;
      assert.deepEqual([images(plain), images(resuming)], [1, 3]);
    });
  }, only2);
});
