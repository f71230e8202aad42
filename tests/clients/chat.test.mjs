// Chat between browsers.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { forEachClient } from './support/browsers.mjs';
import { Server } from './support/server.mjs';

const SENT = ['message sent successfully.'];
const CHAT_MESSAGE = { name: 'Ünal 🎬', text: 'zwei\nZeilen "und" \\ <b>\u0000\u2028</b>' };

forEachClient((client) => {
  let server;
  before(async () => (server = await Server.start({ args: ['--max-chats-per-second', '1000'] })));
  after(() => server.stop());

  test('a message goes to everybody in the chat, the sender included', async (t) => {
    const [sender, ...others] = await client.connectMany(t, server, 3);
    assert.deepEqual(await sender.ask('/chat', CHAT_MESSAGE), SENT);
    for (const browser of [sender, ...others]) {
      await browser.count(1);
      assert.deepEqual(browser.take(), [['/message', CHAT_MESSAGE]]);
    }
  });

  test('it is sent also when no acknowledgement is asked for', async (t) => {
    const [sender, other] = await client.connectMany(t, server, 2);
    sender.tell('/chat', CHAT_MESSAGE);
    await other.count(1);
    assert.deepEqual(other.take(), [['/message', CHAT_MESSAGE]]);
  });

  test('many messages of one sender keep their order', async (t) => {
    const [sender, other] = await client.connectMany(t, server, 2);
    const sent = Array.from({ length: 200 }, (_, at) => ({ name: 'Ada', text: `message ${at}` }));
    const answers = await Promise.all(sent.map((message) => sender.ask('/chat', message)));
    assert.deepEqual(answers, sent.map(() => SENT));
    for (const browser of [sender, other]) {
      await browser.count(sent.length);
      assert.deepEqual(browser.take(), sent.map((message) => ['/message', message]));
    }
  });

  test('a message of the wrong shape is answered and not sent', async (t) => {
    const [sender, other] = await client.connectMany(t, server, 2);
    for (const wrong of [[], [null], ['hello'], [[]], [{}], [{ name: 'Ada' }], [{ text: 'x' }], [{ name: 1, text: 'x' }], [{ name: 'x', text: {} }]]) {
      const [text, ...rest] = await sender.ask('/chat', ...wrong);
      assert.deepEqual(rest, []);
      assert.ok(typeof text === 'string' && text.length > 10 && text !== SENT[0], `a sentence for ${JSON.stringify(wrong)}, not ${text}`);
    }
    // Chat of one sender keeps its order: whatever had been sent would come before this.
    await sender.ask('/chat', CHAT_MESSAGE);
    await other.count(1);
    assert.deepEqual(other.take(), [['/message', CHAT_MESSAGE]]);
    assert.deepEqual(sender.facts, ['connect']);
  });

  test('too much of it is refused in the acknowledgement, and the connection stays', async (t) => {
    const strict = await Server.start({ args: ['--max-chats-per-second', '5', '--max-chat', '100'] });
    t.after(() => strict.stop());
    const browser = await client.connect(t, strict);
    const [tooLong] = await browser.ask('/chat', { name: 'Ada', text: 'x'.repeat(200) });
    assert.match(tooLong, /too long/);
    const answers = await Promise.all(Array.from({ length: 50 }, () => browser.ask('/chat', CHAT_MESSAGE)));
    const sent = answers.filter(([answer]) => answer === SENT[0]).length;
    assert.ok(sent >= 1 && sent <= 10, `${sent} of 50 were sent`);
    assert.ok(answers.every(([answer]) => answer === SENT[0] || /too many/.test(answer)));
    await browser.count(sent);
    assert.equal(browser.take().length, sent);
    assert.deepEqual(browser.facts, ['connect']);
  });

  test('who is not in the chat may speak and does not hear', async (t) => {
    const jobsOnly = await Server.start({ args: ['--default-rooms', 'Jobs'] });
    t.after(() => jobsOnly.stop());
    const [sender, other] = await client.connectMany(t, jobsOnly, 2);
    assert.deepEqual(await sender.ask('/chat', CHAT_MESSAGE), SENT);
    await jobsOnly.settle(sender, other);
    assert.deepEqual([sender.take(), other.take()], [[], []]);
  });
});
