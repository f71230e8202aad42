// The checks of the public test suite for Engine.IO protocol revision 3, in our words. Where that suite has its server echo
// messages, here a subscription is acknowledged: it too is one message there and one back.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { HANDSHAKE, OPCODE, RawBrowser, refusedUpgrade, frame } from './support/raw.mjs';
import { request, Server } from './support/server.mjs';

const ASK = '420["/subscription",{"op":"subscribe","type":"allWorkers"}]';
const ANSWER = '430["ok"]';
const BINARY_ASK = '451-1["/x",{"_placeholder":true,"num":0}]';
const BINARY_ANSWER = '431["binary data is not supported, ignoring request"]';

let server;
before(async () => (server = await Server.start({ args: ['--ping-interval', '20s', '--ping-timeout', '50s'] })));
after(() => server.stop());

const polling = (query = {}, options) =>
  request(new URL(`/socket.io/?${new URLSearchParams({ EIO: '3', transport: 'polling', ...query })}`, server.browsers), options);
const post = (sid, body) => polling({ sid }, { method: 'POST', body });
const payload = (...packets) => packets.map((packet) => `${packet.length}:${packet}`).join('');

/** Of a new polling session the open packet's text, with `40` behind it. */
async function open() {
  const { status, text } = await polling();
  assert.equal(status, 200, text);
  const [, length, rest] = /^(\d+):(.*)$/s.exec(text);
  const packet = rest.slice(0, Number(length));
  assert.deepEqual([packet[0], rest.slice(Number(length))], ['0', '2:40']);
  return JSON.parse(packet.slice(1));
}

function assertOpen({ sid, ...rest }, upgrades) {
  assert.equal(typeof sid, 'string');
  assert.deepEqual(rest, { upgrades, pingInterval: 20_000, pingTimeout: 50_000 });
}

describe('handshake over polling', () => {
  test('opens a session', async () => assertOpen(await open(), ['websocket']));

  for (const [what, query] of [
    ['an empty EIO', { EIO: '' }], ['an EIO that is none', { EIO: 'abc' }], ['no transport', { transport: '' }], ['an unknown transport', { transport: 'abc' }],
  ]) {
    test(`with ${what} is refused`, async () => {
      assert.equal((await polling(query)).status, 400);
      assert.equal((await refusedUpgrade(server, { ...HANDSHAKE, ...query })).status, 400);
    });
  }

  for (const method of ['POST', 'PUT']) {
    test(`with ${method} is refused`, async () => assert.equal((await polling({}, { method })).status, 400));
  }
});

test('handshake over a WebSocket opens a session', async (t) => {
  assertOpen((await RawBrowser.connect(t, server)).handshake, []);
});

describe('messages over polling', () => {
  for (const [what, sent, back] of [
    ['one packet of text', [ASK], [ANSWER]],
    ['several packets of text', [ASK, '2a', ASK], [ANSWER, '3a', ANSWER]],
    ['text and binary', [BINARY_ASK, 'b4AQIDBA==', ASK], [BINARY_ANSWER, ANSWER]],
  ]) {
    test(`${what} go there and come back`, async () => {
      const { sid } = await open();
      const posted = await post(sid, payload(...sent));
      assert.deepEqual([posted.status, posted.text], [200, 'ok']);
      const polled = await polling({ sid });
      assert.deepEqual([polled.status, polled.text], [200, payload(...back)]);
    });
  }

  test('a body that is none closes the session', async () => {
    const { sid } = await open();
    assert.equal((await post(sid, 'abc')).status, 400);
    // What waits may be fetched: the close packet. Then nobody knows of it any more.
    await polling({ sid });
    assert.equal((await polling({ sid })).status, 400);
  });

  test('a second poll at a time closes the session', async () => {
    const { sid } = await open();
    const polls = await Promise.all([polling({ sid }), polling({ sid, t: 'burst' })]);
    polls.sort((one, other) => one.status - other.status);
    assert.deepEqual(polls.map(({ status }) => status), [200, 400]);
    assert.equal(polls[0].text, '1:1');
    assert.equal((await polling({ sid })).status, 400);
  });
});

describe('messages over a WebSocket', () => {
  test('text goes there and comes back', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    browser.send(ASK);
    assert.equal(await browser.next(), ANSWER);
  });

  test('binary goes there and is answered', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    browser.send(BINARY_ASK);
    browser.write(frame(Buffer.from([4, 1, 2, 3, 4]), { opcode: OPCODE.binary }));
    assert.equal(await browser.next(), BINARY_ANSWER);
  });

  test('a packet that is none closes the session', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    browser.send('abc');
    await browser.close();
  });
});

describe('heartbeat', () => {
  let patient;
  before(async () => {
    patient = server;
    server = await Server.start({ args: ['--ping-interval', '1s', '--ping-timeout', '1s'] });
  });
  after(async () => {
    await server.stop();
    server = patient;
  });

  test('over polling pings are answered', async () => {
    const { sid } = await open();
    for (let beat = 0; beat < 3; beat++) {
      assert.equal((await post(sid, '1:2')).status, 200);
      assert.equal((await polling({ sid })).text, '1:3');
    }
  });

  test('over polling a silent session is closed', async () => {
    const { sid } = await open();
    // A request that waits is no sign of life.
    assert.equal((await polling({ sid })).text, '1:1');
    assert.equal((await post(sid, '1:2')).status, 400);
  });

  test('over a WebSocket pings are answered', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    for (let beat = 0; beat < 3; beat++) {
      browser.send('2');
      assert.equal(await browser.next(), '3');
    }
  });

  test('over a WebSocket a silent session is closed', async (t) => {
    await (await RawBrowser.connect(t, server)).close();
  });
});

describe('close', () => {
  test('over polling ends the session and the waiting poll', async () => {
    const { sid } = await open();
    const [polled] = await Promise.all([polling({ sid }), post(sid, '1:1')]);
    assert.equal(polled.status, 200);
    assert.match(polled.text, /^1:[16]$/);
    assert.equal((await polling({ sid })).status, 400);
  });

  test('over a WebSocket ends the session', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    browser.send('1');
    await browser.close();
  });
});

describe('upgrade', () => {
  /** A session that has moved; the poll that was released meanwhile is `released`. */
  async function move(t) {
    const { sid } = await open();
    const browser = await RawBrowser.open(t, server, { query: { ...HANDSHAKE, sid } });
    browser.send('2probe');
    assert.equal(await browser.next(), '3probe');
    const released = await polling({ sid });
    browser.send('5');
    browser.send('2moved');
    assert.equal(await browser.next(), '3moved');
    return { sid, browser, released };
  }

  test('releases the poll and goes on over the WebSocket', async (t) => {
    const { browser, released } = await move(t);
    assert.deepEqual([released.status, released.text], [200, '1:6']);
    browser.send(ASK);
    assert.equal(await browser.next(), ANSWER);
  });

  test('leaves nothing for later requests', async (t) => {
    const { sid, browser } = await move(t);
    assert.equal((await polling({ sid })).status, 400);
    browser.send(ASK);
    assert.equal(await browser.next(), ANSWER);
  });

  test('leaves nothing for another WebSocket', async (t) => {
    const { sid, browser } = await move(t);
    assert.equal((await refusedUpgrade(server, { ...HANDSHAKE, sid })).status, 400);
    browser.send(ASK);
    assert.equal(await browser.next(), ANSWER);
  });
});
