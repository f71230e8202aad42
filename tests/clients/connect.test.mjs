// Coming in: the handshake, the rooms one is in by default, what everybody hears, the heartbeat.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { forEachClient } from './support/browsers.mjs';
import { asReceived, eventName, heardIn, JOB_A, jobUpdate, oneOfEach, workerUpdate } from './support/farm.mjs';
import { frame, HANDSHAKE, OPCODE, RawBrowser, refusedUpgrade } from './support/raw.mjs';
import { request, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

forEachClient((client) => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  test('a client that asks for nothing hears jobs, chat and what everybody hears', async (t) => {
    const browser = await client.connect(t, server);
    const events = oneOfEach();
    await server.publish(events);
    await server.settle(browser);
    const heard = heardIn(['Jobs', 'Chat'], events);
    assert.deepEqual(heard.map(({ type }) => eventName(type)), ['/lifecycle', '/status', '/jobs', '/jobs', '/message']);
    assert.deepEqual(browser.take(), asReceived(heard));
  });

  test('a client outlives many heartbeats', async (t) => {
    const beating = await Server.start({ args: ['--ping-interval', '500ms', '--ping-timeout', '5s'] });
    t.after(() => beating.stop());
    const browser = await client.connect(t, beating);
    for (let beat = 0; beat < 3; beat++) await new Promise((resolve) => browser.socket.once('pong', resolve));
    assert.deepEqual(browser.facts, ['connect']);
  });
});

describe('default rooms', () => {
  test('are a setting', async (t) => {
    const server = await Server.start({ args: ['--default-rooms', 'Workers,Last-Rendered'] });
    t.after(() => server.stop());
    const browser = await RawBrowser.connect(t, server);
    const { rooms } = await server.stats();
    assert.deepEqual(rooms, { Workers: 1, 'Last-Rendered': 1 });
    await server.publish([jobUpdate(), workerUpdate()]);
    await server.settle(browser);
    assert.deepEqual(browser.take(), [`42["/workers",${JSON.stringify(workerUpdate().payload)}]`]);
  });
});

describe('handshake', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  test('the open packet comes first and 40 at once behind it', async (t) => {
    const browser = await RawBrowser.open(t, server);
    const open = await browser.next('the open packet');
    assert.equal(open[0], '0');
    const { sid, ...rest } = JSON.parse(open.slice(1));
    assert.deepEqual(rest, { upgrades: [], pingInterval: 30_000, pingTimeout: 60_000 });
    // 120 bits are 20 characters of base64.
    assert.match(sid, /^[\w-]{20,64}$/);
    assert.equal(await browser.next(), '40');
  });

  test('session ids differ', async (t) => {
    const browsers = await Promise.all(Array.from({ length: 20 }, () => RawBrowser.connect(t, server)));
    assert.equal(new Set(browsers.map(({ handshake }) => handshake.sid)).size, 20);
  });

  test('the heartbeat in the open packet is a setting, in milliseconds', async (t) => {
    const other = await Server.start({ args: ['--ping-interval', '20s', '--ping-timeout', '50s'] });
    t.after(() => other.stop());
    const { handshake } = await RawBrowser.connect(t, other);
    assert.deepEqual([handshake.pingInterval, handshake.pingTimeout], [20_000, 50_000]);
  });

  test('works on the path without its last slash', async (t) => {
    const browser = await RawBrowser.open(t, server, { path: '/socket.io' });
    assert.match(await browser.next(), /^0\{/);
  });

  test('ignores query fields that it does not know', async (t) => {
    const browser = await RawBrowser.open(t, server, { query: { ...HANDSHAKE, t: 'Mx1', b64: '1', token: 'ä&=' } });
    assert.match(await browser.next(), /^0\{/);
  });

  test('stats count the session and its default rooms, and forget both', async (t) => {
    const fresh = await Server.start();
    t.after(() => fresh.stop());
    const browser = await RawBrowser.connect(t, fresh);
    const there = await fresh.stats();
    assert.deepEqual(there.sessions, { total: 1, websocket: 1, polling: 0 });
    assert.deepEqual(there.rooms, { Jobs: 1, Chat: 1 });
    browser.ws.close();
    const forgotten = ({ sessions, rooms, disconnects }) =>
      sessions.total === 0 && Object.keys(rooms).length === 0 && disconnects['transport-close'] === 1;
    await eventually(() => fresh.stats(), forgotten, 'the session to be forgotten');
  });
});

describe('heartbeat', () => {
  let server;
  before(async () => (server = await Server.start({ args: ['--ping-interval', '1s', '--ping-timeout', '1s'] })));
  after(() => server.stop());

  test('a ping is answered with the same data', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    for (const data of ['', 'probe', 'ä🎬"']) {
      browser.send(`2${data}`);
      assert.equal(await browser.next(`the pong of ${data}`), `3${data}`);
    }
  });

  test('a silent client is closed without a 41', async (t) => {
    const before = await server.stats();
    const browser = await RawBrowser.connect(t, server);
    const opened = performance.now();
    await browser.close('the silent client to be closed');
    const silence = performance.now() - opened;
    assert.ok(silence > 1_500 && silence < 10_000, `closed after ${silence} ms; 2000 ms of silence are allowed`);
    assert.deepEqual(browser.take(), []);
    const counted = ({ disconnects }) => disconnects['ping-timeout'] === (before.disconnects['ping-timeout'] ?? 0) + 1;
    await eventually(() => server.stats(), counted, 'the disconnect to be counted as ping-timeout');
  });

  test('any packet is a sign of life', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const beat = setInterval(() => browser.send('42["/nothing"]'), 400);
    t.after(() => clearInterval(beat));
    const still = Symbol('connected');
    const first = await Promise.race([browser.close(), new Promise((resolve) => setTimeout(resolve, 4_000, still))]);
    assert.equal(first, still, 'closed although it spoke');
  });
});

describe('WebSocket', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  test('its own pings are answered', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    browser.ws.ping('are you there');
    await browser.pongs.until((pongs) => pongs.includes('are you there'), 'the pong');
  });

  test('a message may come in fragments, with a ping between them', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    const text = Buffer.from('427["/chat",{"name":"Ünal","text":"🎬 in pieces"}]');
    // The second cut falls inside the film clapper's four bytes.
    const cut = [5, text.indexOf('🎬') + 2];
    browser.write(frame(text.subarray(0, cut[0]), { fin: false }));
    browser.write(frame('between', { opcode: OPCODE.ping }));
    browser.write(frame(text.subarray(cut[0], cut[1]), { opcode: OPCODE.continuation, fin: false }));
    browser.write(frame(text.subarray(cut[1]), { opcode: OPCODE.continuation }));
    await browser.messages.until((messages) => messages.includes('437["message sent successfully."]'), 'the acknowledgement');
    const message = '42["/message",{"name":"Ünal","text":"🎬 in pieces"}]';
    await browser.messages.until((messages) => messages.includes(message), 'the message');
    await browser.pongs.until((pongs) => pongs.includes('between'), 'the pong');
  });

  test('frames may come byte by byte, and many at once', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    for (const byte of frame('2slow')) browser.write(Buffer.from([byte]));
    assert.equal(await browser.next(), '3slow');
    browser.write(Buffer.concat(Array.from({ length: 500 }, (_, at) => frame(`2${at}`))));
    for (let at = 0; at < 500; at++) assert.equal(await browser.next(), `3${at}`);
  });

  test('frames may come right behind the request, before the answer to it', async (t) => {
    const browser = new RawBrowser(server, '/socket.io/', HANDSHAKE);
    t.after(() => browser.socket.destroy());
    browser.socket.once('connect', () => browser.write(frame('2early')));
    assert.match(await browser.next(), /^0\{/);
    assert.equal(await browser.next(), '40');
    assert.equal(await browser.next(), '3early');
  });

  test('a close from the browser is answered with a close', async (t) => {
    const browser = await RawBrowser.connect(t, server);
    browser.ws.close(1000, 'bye');
    assert.equal((await browser.close()).code, 1000);
  });
});

describe('origins', () => {
  const connect = (t, server, origin) => RawBrowser.open(t, server, { headers: { origin } });

  test('the own host may connect, others may not', async (t) => {
    const server = await Server.start();
    t.after(() => server.stop());
    await connect(t, server, server.browsers.origin);
    for (const origin of ['http://evil.example', 'null', `http://evil.example:${server.browsers.port}`]) {
      const answer = await refusedUpgrade(server, HANDSHAKE, { headers: { origin } });
      assert.deepEqual([answer.status, answer.json], [403, { code: 4, message: 'Forbidden', reason: '--allow-origin lets pages of this origin in' }], origin);
    }
  });

  test('more origins are a setting that may be repeated', async (t) => {
    const allowed = ['https://farm.example', 'http://localhost:5173'];
    const server = await Server.start({ args: allowed.flatMap((origin) => ['--allow-origin', origin]) });
    t.after(() => server.stop());
    for (const origin of [...allowed, server.browsers.origin]) await connect(t, server, origin);
    const answer = await refusedUpgrade(server, HANDSHAKE, { headers: { origin: 'http://farm.example' } });
    assert.equal(answer.status, 403);
  });
});

describe('other paths of the browsers’ listener', () => {
  let server;
  before(async () => (server = await Server.start()));
  after(() => server.stop());

  test('healthz says that the server is well', async () => {
    assert.equal((await request(new URL('/healthz', server.browsers))).status, 200);
  });

  test('nothing of the Manager’s is there', async () => {
    const event = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(jobUpdate({ id: JOB_A })) };
    assert.equal((await request(new URL('/api/events', server.browsers), event)).status, 404);
    assert.equal((await request(new URL('/api/stats', server.browsers))).status, 404);
  });
});
