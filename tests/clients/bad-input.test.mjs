// Hostile browsers: whoever breaks the protocol is closed, without a 41, and nobody else notices.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { forEachClient } from './support/browsers.mjs';
import { asReceived, jobUpdate } from './support/farm.mjs';
import { frame, HANDSHAKE, OPCODE, RawBrowser, refusedUpgrade } from './support/raw.mjs';
import { request, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

/** Bytes a message may have in these tests. */
const MAX_MESSAGE = 65_536;

/** Reasons that would hide what really happened. */
const UNNAMED = ['transport-close', 'ping-timeout', 'too-slow', 'server-shutdown'];

const DEEP = 10_000;
const CHAT = '["/chat",{"name":"n","text":"t"}]';
const binary = (bytes) => frame(bytes, { opcode: OPCODE.binary });
const attachment = binary([4, 1, 2, 3]);
const withPlaceholder = (num) => frame(`451-["/x",{"_placeholder":true,"num":${num}}]`);

/** WebSocket frames that are wrong by RFC 6455, or larger than allowed. */
const BAD_FRAMES = {
  'text that is not UTF-8': [frame([0x34, 0x32, 0xff, 0xfe])],
  'text that ends inside a character': [frame([0x34, 0x32, 0xf0, 0x9f])],
  'text with a surrogate in UTF-8': [frame([0x32, 0xed, 0xa0, 0x80])],
  'fragments that together are not UTF-8': [
    frame([0x32, 0xf0, 0x9f], { fin: false }), frame([0x41], { opcode: OPCODE.continuation }),
  ],
  'an unmasked frame': [frame('2', { masked: false })],
  'an oversized frame': [frame(`42["/chat",{"name":"n","text":"${'x'.repeat(MAX_MESSAGE)}"}]`)],
  'an oversized frame of which only the head comes': [frame('', { claimedLength: MAX_MESSAGE + 1 })],
  'a frame that claims 2^63 - 1 bytes': [frame('2', { claimedLength: 2n ** 63n - 1n })],
  'a frame that claims 2^64 - 1 bytes': [frame('2', { claimedLength: 2n ** 64n - 1n })],
  'an oversized message in small fragments': [
    frame('4', { fin: false }),
    ...Array.from({ length: 70 }, () => frame('x'.repeat(1000), { opcode: OPCODE.continuation, fin: false })),
  ],
  'a continuation of nothing': [frame('2', { opcode: OPCODE.continuation })],
  'a new message inside a fragmented one': [frame('2', { fin: false }), frame('2')],
  'a reserved opcode': [frame('2', { opcode: 3 })],
  'a reserved control opcode': [frame('', { opcode: 11 })],
  'a reserved bit': [frame('2', { rsv: 0x40 })],
  'a fragmented ping': [frame('x', { opcode: OPCODE.ping, fin: false })],
  'a ping of 126 bytes': [frame('x'.repeat(126), { opcode: OPCODE.ping })],
};

/** Packets that no rule of Engine.IO 3 and Socket.IO revision 4 allows. */
const BAD_PACKETS = {
  'an empty frame': [frame('')],
  'an empty binary frame': [binary([])],
  'an unknown engine type': [frame('7')],
  'an engine type that is no digit': [frame('x')],
  'an engine type beyond ASCII': [frame('ü')],
  'a message without a packet': [frame('4')],
  'an unknown packet type': [frame('47')],
  'a packet type that is no digit': [frame('4x')],
  'an open packet from a client': [frame('0{"sid":"x"}')],
  'an open packet with rubbish': [frame('0x')],
  'an event without data': [frame('42')],
  'an event that is no JSON': [frame('42[')],
  'an event with text behind its JSON': [frame(`42${CHAT}x`)],
  'an event that is no array': [frame('42{"a":1}')],
  'an event without a name': [frame('42[]')],
  'an event named by an object': [frame('42[{}]')],
  'an event named by null': [frame('42[null]')],
  'an event named by a number': [frame('42[5]')],
  'an acknowledgement that is no JSON': [frame('430[')],
  'an acknowledgement that is no array': [frame('430{}')],
  'an ack id of 400 digits': [frame(`42${'7'.repeat(400)}${CHAT}`)],
  'an ack id beyond 2^53': [frame(`429007199254740993${CHAT}`)],
  'a hundred million attachments': [frame('45999999-["/x",{"_placeholder":true,"num":0}]')],
  'attachments of 400 digits': [frame(`45${'9'.repeat(400)}-["/x"]`)],
  'attachments that are no number': [frame('45x-["/x"]')],
  'attachments without their end': [frame('451["/x"]')],
  'a placeholder beyond the attachments': [withPlaceholder(1), attachment],
  'a negative placeholder': [withPlaceholder(-1), attachment],
  'a fractional placeholder': [withPlaceholder(0.5), attachment],
  'a huge placeholder': [withPlaceholder('1e300'), attachment],
  'a placeholder of 400 digits': [withPlaceholder('9'.repeat(400)), attachment],
  'a placeholder that is text': [withPlaceholder('"0"'), attachment],
  'a text packet where an attachment is due': [frame('451-["/x",{"_placeholder":true,"num":0}]'), frame(`42${CHAT}`)],
  'an attachment that nobody announced': [attachment],
  'a binary frame of an unknown engine type': [binary([9, 1, 2])],
  'ten thousand brackets that never close': [frame(`42["/x",${'['.repeat(DEEP)}`)],
  'ten thousand braces that never close': [frame(`42["/x",${'{"a":'.repeat(DEEP)}`)],
};

/** Well-formed, useless: ignored, and the connection stays. */
const USELESS = {
  'reserved names': ['connect', 'disconnect', 'error', 'disconnecting', 'newListener', 'removeListener', 'connect_error', 'reconnect', 'ping', 'pong']
    .map((name) => frame(`42["${name}",{"a":1}]`)),
  'reserved names with an ack id': [frame('421["error"]'), frame('422["connect"]')],
  'an event that nobody knows': [frame('42["/nothing",1,2,3]'), frame('421["/nothing"]')],
  'an acknowledgement that nobody asked for': [frame('437["ok"]')],
  'a binary event that nobody knows, whole': [withPlaceholder(0), attachment],
  'a binary event without an ack id': [frame('451-["/chat",{"_placeholder":true,"num":0}]'), attachment],
  'fifty arguments': [frame(`42["/chat"${',0'.repeat(50)}]`)],
  'an unknown event with an argument nested fifty deep': [frame(`42["/x",${'['.repeat(50)}${']'.repeat(50)}]`)],
};

test('closed without a 41, with a named reason, and nobody else notices', async (t) => {
  const server = await Server.start({ args: ['--max-message', `${MAX_MESSAGE}`] });
  t.after(() => server.stop());
  const bystander = await RawBrowser.connect(t, server);

  for (const [what, frames] of Object.entries({ ...BAD_FRAMES, ...BAD_PACKETS })) {
    await t.test(what, async (t) => {
      const before = await server.stats();
      const hostile = await RawBrowser.connect(t, server);
      for (const bytes of frames) hostile.write(bytes);
      await hostile.close(`${what} to be answered with a close`);
      assert.deepEqual(hostile.take(), [], 'nothing is said, least of all 41');

      const reason = await newReason(server, before);
      assert.ok(!UNNAMED.includes(reason), `counted as ${reason}`);
      await server.publish(jobUpdate());
      await server.settle(bystander);
      assert.deepEqual(bystander.take(), [`42["/jobs",${JSON.stringify(jobUpdate().payload)}]`]);
    });
  }
});

describe('ignored, and the connection stays', () => {
  let server;
  before(async () => (server = await Server.start({ args: ['--max-message', `${MAX_MESSAGE}`] })));
  after(() => server.stop());

  for (const [what, frames] of Object.entries(USELESS)) {
    test(what, async (t) => {
      const browser = await RawBrowser.connect(t, server);
      for (const bytes of frames) browser.write(bytes);
      await browser.roundTrip();
      assert.deepEqual(browser.take(), []);
      browser.send(`425${CHAT}`);
      await browser.messages.until((messages) => messages.includes('435["message sent successfully."]'), 'the acknowledgement');
      // Its chat message follows the acknowledgement, and is for everyone who is there by then: not for the next test's browser.
      await browser.messages.until((messages) => messages.some((text) => text.startsWith('42["/message",')), 'the chat message');
    });
  }

  test('a binary event that asks for an answer is refused in it', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    for (const name of ['/chat', '/subscription']) {
      browser.send(`452-8["${name}",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]`);
      browser.write(attachment);
      browser.write(attachment);
      const [answer, ...more] = JSON.parse((await browser.next()).replace(/^438/, ''));
      assert.ok(typeof answer === 'string' && answer.length > 10 && more.length === 0, `a sentence, not ${answer}`);
    }
    await browser.roundTrip();
  });

  test('a balanced event nested ten thousand deep hurts nobody', async (t) => {
    const bystander = await RawBrowser.connect(t, server);
    const deep = `${'['.repeat(DEEP)}${']'.repeat(DEEP)}`;
    for (const text of [`42["/x",${deep}]`, `421["/chat",${deep}]`, `421["/subscription",{"op":${deep}}]`, `42${deep}`]) {
      const browser = await RawBrowser.connect(t, server);
      browser.send(text);
      // Whether it is a parse error or a useless event is the server's choice; it must make one.
      await Promise.race([browser.close(), browser.roundTrip()]);
      assert.ok(!browser.take().includes('41'));
    }
    await bystander.roundTrip();
  });

  test('a message of exactly the allowed size is taken', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const [head, tail] = ['42["/x","', '"]'];
    browser.send(`${head}${'x'.repeat(MAX_MESSAGE - head.length - tail.length)}${tail}`);
    await browser.roundTrip();
  });
});

forEachClient((client) => {
  test('a real client notices nothing of a hundred hostile ones', async (t) => {
    const server = await Server.start({ args: ['--max-message', `${MAX_MESSAGE}`] });
    t.after(() => server.stop());
    const browser = await client.connect(t, server);
    const attacks = Object.values({ ...BAD_FRAMES, ...BAD_PACKETS });
    const events = [];
    for (let turn = 0; turn < 100; turn++) {
      const hostile = await RawBrowser.connect(t, server);
      for (const bytes of attacks[turn % attacks.length]) hostile.write(bytes);
      events.push(jobUpdate({ priority: turn }));
      await server.publish(events.at(-1));
    }
    await server.settle(browser);
    assert.deepEqual(browser.take(), asReceived(events));
    assert.deepEqual(browser.facts, ['connect']);
    await eventually(() => server.stats(), ({ sessions }) => sessions.total === 1, 'all hostile sessions to end');
  });
});

describe('a handshake that is refused', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  const REFUSED = [
    [{ EIO: '2', transport: 'websocket' }, 5],
    [{ EIO: 'x', transport: 'websocket' }, 5],
    [{ EIO: '3', transport: 'flashsocket' }, 0],
    [{ EIO: '3' }, 0],
    [{ EIO: '3', transport: 'websocket', sid: 'nobody-has-this' }, 1],
  ];
  const MESSAGES = { 0: /^Transport unknown$/, 1: /^Session ID unknown$/, 2: /^Bad handshake method$/, 3: /^Bad request$/, 5: /^Unsupported protocol version/ };

  function assertRefused({ status, headers, json, text }, code, what) {
    assert.deepEqual([status, json?.code], [400, code], `${what}: ${text}`);
    assert.match(json.message, MESSAGES[code]);
    assert.match(headers['content-type'], /^application\/json/);
  }

  for (const [query, code] of REFUSED) {
    test(`${new URLSearchParams(query)} is error ${code}, as upgrade and as request`, async () => {
      assertRefused(await refusedUpgrade(server, query), code, 'upgrade');
      assertRefused(await request(new URL(`/socket.io/?${new URLSearchParams(query)}`, server.browsers)), code, 'GET');
    });
  }

  test('a newer client is told which versions work', async () => {
    const { json } = await refusedUpgrade(server, { EIO: '2', transport: 'websocket' });
    assert.match(json.message, /2\.x|2\b.*socket\.io-client|socket\.io-client.*\b2\b/);
  });

  test('a WebSocket request that does not upgrade is error 3', async () => {
    assertRefused(await request(new URL(`/socket.io/?${new URLSearchParams(HANDSHAKE)}`, server.browsers)), 3);
  });

  for (const transport of ['websocket', 'polling']) {
    test(`a POST over ${transport} without a session is error 2`, async () => {
      const url = new URL(`/socket.io/?EIO=3&transport=${transport}`, server.browsers);
      assertRefused(await request(url, { method: 'POST', body: '1:2' }), 2);
    });
  }

  test('a session that is served over WebSocket has no other transport', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const { sid } = browser.handshake;
    const { status } = await request(new URL(`/socket.io/?EIO=3&transport=polling&sid=${sid}`, server.browsers));
    assert.equal(status, 400);
    const refused = await refusedUpgrade(server, { ...HANDSHAKE, sid });
    assert.equal(refused.status, 400);
    await browser.roundTrip();
  });

  test('bad upgrade headers are refused', async () => {
    for (const headers of [{ 'sec-websocket-version': '12' }, { 'sec-websocket-key': '' }]) {
      const { status } = await refusedUpgrade(server, HANDSHAKE, { headers });
      assert.ok(status >= 400 && status < 500, `${status} to ${JSON.stringify(headers)}`);
    }
  });

  test('leaves no session behind', async () => {
    assert.equal((await server.stats()).sessions.total, 0);
  });
});

/** The one reason of which the server counts one more than in `before`. */
async function newReason(server, before) {
  const increased = ({ disconnects }) => Object.keys(disconnects).filter((reason) => disconnects[reason] > (before.disconnects[reason] ?? 0));
  const after = await eventually(() => server.stats(), (stats) => increased(stats).length > 0, 'the disconnect to be counted');
  const [reason, ...others] = increased(after);
  assert.deepEqual(others, []);
  assert.equal(after.disconnects[reason], (before.disconnects[reason] ?? 0) + 1);
  return reason;
}
