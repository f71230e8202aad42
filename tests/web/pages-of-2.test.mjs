// Pages as they were written for socket.io-client 2, with the script that the server gives them in its place.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { test } from 'node:test';
import socketIo from 'socket.io';
import { launch, NO_CHROMIUM, openPage } from '../clients/support/chromium.mjs';
import { JOB_A, jobUpdate, taskUpdate } from '../clients/support/farm.mjs';
import { Server } from '../clients/support/server.mjs';
import { Arrivals, eventually } from '../clients/support/wait.mjs';
import { listen } from './support/socket-io.mjs';

/** The chat that socket.io's own introduction had, made to speak to this server. */
const CHAT = `<!doctype html><title>Chat</title>
<ul id="messages"></ul>
<form action=""><input id="m" autocomplete="off" /><button>Send</button></form>
<script src="SERVER/socket.io/socket.io.js"></script>
<script>
  var socket = io('SERVER');
  document.querySelector('form').addEventListener('submit', function (e) {
    e.preventDefault();
    socket.emit('/chat', { name: 'Ann', text: document.getElementById('m').value });
    document.getElementById('m').value = '';
    return false;
  });
  socket.on('/message', function (msg) {
    var li = document.createElement('li');
    li.textContent = msg.name + ': ' + msg.text;
    document.getElementById('messages').appendChild(li);
  });
</script>`;

/** A page that writes down all that its socket reports. */
const RECORDER = `<!doctype html><title>Recorder</title>
<script src="SERVER/socket.io/socket.io.js"></script>
<script>
  window.seen = [];
  window.socket = io.connect('SERVER', Object.assign({ reconnectionDelay: 50, reconnectionDelayMax: 100, query: { token: 'a b&c' } }, OPTIONS));
  ['connecting', 'connect', 'connect_error', 'disconnect', 'error', 'reconnect', 'reconnecting', 'reconnect_attempt', 'reconnect_error', 'reconnect_failed', '/jobs', '/task']
    .forEach(function (name) {
      socket.on(name, function (value) { seen.push([name, value && value.message || value]); });
    });
  window.ask = function (name, value) { return new Promise(function (resolve) { socket.emit(name, value, resolve); }); };
</script>`;

/** Opens pages of one origin; `html` may name the server and the options. */
async function pages(t) {
  let html = '';
  const server = http.createServer((_, response) => response.setHeader('content-type', 'text/html; charset=utf-8').end(html));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const browser = await launch(t);
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const origin = `http://127.0.0.1:${server.address().port}`;
  return {
    origin,
    open(page, url, options = {}) {
      html = page.replaceAll('SERVER', url).replace('OPTIONS', JSON.stringify(options));
      return openPage(browser, origin);
    },
  };
}

const names = (seen) => seen.map(([name]) => name);

test('the chat of the introduction works', { skip: NO_CHROMIUM }, async (t) => {
  const { origin, open } = await pages(t);
  const server = await Server.start({ args: ['--allow-origin', origin] });
  t.after(() => server.stop());
  const [ann, bob] = [await open(CHAT, server.browsers.origin), await open(CHAT, server.browsers.origin)];
  await eventually(() => server.stats(), ({ sessions }) => sessions.websocket === 2, 'both to be in');
  await ann.page.type('#m', 'hello <b>🎬</b>');
  await ann.page.keyboard.press('Enter');
  for (const { page, said } of [ann, bob]) {
    const lines = await eventually(() => page.$$eval('li', (items) => items.map((item) => item.textContent)), (lines) => lines.length, 'the message');
    assert.deepEqual([lines, said], [['Ann: hello <b>🎬</b>'], []]);
  }
});

for (const transports of [undefined, ['websocket'], ['polling'], ['polling', 'websocket']]) {
  test(`a page survives a restart over ${transports ?? 'what it is given'}`, { skip: NO_CHROMIUM }, async (t) => {
    const { origin, open } = await pages(t);
    const server = await Server.start({ args: ['--allow-origin', origin] });
    t.after(() => server.stop());
    const { page } = await open(RECORDER, server.browsers.origin, { transports });
    const seen = (wanted, what) => eventually(() => page.evaluate(() => window.seen), wanted, what);
    await seen((all) => names(all).includes('connect'), 'the connection');
    const facts = await page.evaluate(() => [socket.connected, socket.disconnected, typeof socket.id, socket.io.engine.id === socket.id]);
    assert.deepEqual(facts, [true, false, 'string', true]);
    assert.equal(await page.evaluate((uuid) => ask('/subscription', { op: 'subscribe', type: 'job', uuid }), JOB_A), 'ok');
    await server.publish([jobUpdate(), taskUpdate()]);
    const before = await seen((all) => all.length >= 4, 'two updates');
    assert.deepEqual(before, [['connecting', null], ['connect', null], ['/jobs', jobUpdate().payload], ['/task', taskUpdate().payload]]);
    await server.stop('SIGKILL');
    await seen((all) => names(all).includes('reconnect_error'), 'the loss to be noticed, and an attempt to fail');
    await server.startAgain();
    const after = (await seen((all) => names(all).lastIndexOf('connect') > 4, 'the connection again')).slice(4);
    assert.match(after[0].join(), /^disconnect,transport (close|error)$/);
    assert.deepEqual(names(after.slice(1, 5)), ['reconnect_attempt', 'reconnecting', 'connect_error', 'reconnect_error']);
    assert.deepEqual(names(after.slice(-4)), ['reconnect_attempt', 'reconnecting', 'reconnect', 'connect']);
    assert.equal(after.at(-2)[1], after.at(-3)[1], 'the number of the attempt');
    await page.evaluate(() => socket.close());
    await eventually(() => server.stats(), ({ sessions }) => sessions.total === 0, 'the session to end');
    assert.deepEqual((await page.evaluate(() => [window.seen.at(-1), socket.connected])), [['disconnect', 'io client disconnect'], false]);
    await page.evaluate(() => socket.open());
    await eventually(() => server.stats(), ({ sessions }) => sessions.total === 1, 'the session to come back');
  });
}

test('a page that may not connect is told so, and gives up when it should', { skip: NO_CHROMIUM }, async (t) => {
  const { open } = await pages(t);
  const server = await Server.start();
  t.after(() => server.stop());
  const { page } = await open(RECORDER, server.browsers.origin, { reconnectionAttempts: 2 });
  const seen = await eventually(() => page.evaluate(() => window.seen), (all) => names(all).includes('reconnect_failed'), 'the page to give up');
  const attempt = ['reconnect_attempt', 'reconnecting', 'connect_error', 'reconnect_error'];
  assert.deepEqual(names(seen), ['connecting', 'connect_error', ...attempt, ...attempt, 'reconnect_failed']);
});

test('sockets behave as in 2.x with Socket.IO 2.5.1', { skip: NO_CHROMIUM }, async (t) => {
  const script = Object.fromEntries(['socket.io.js', 'client.js'].map((name) => [`/files/${name}`, readFileSync(new URL(`../../web/${name}`, import.meta.url))]));
  const { open } = await pages(t);
  const server = http.createServer((request, response) => {
    response.setHeader('content-type', 'text/javascript').setHeader('access-control-allow-origin', '*').end(script[request.url]);
  });
  const io = socketIo(server, { serveClient: false, origins: '*:*' });
  await listen(t, server, io);
  const sockets = new Arrivals();
  io.on('connection', (socket) => {
    const received = new Arrivals();
    socket.on('note', (...args) => received.push(args));
    socket.on('add', (one, other, answer) => answer(one + other, 'two answers'));
    sockets.push({ socket, received });
  });
  const { page, said } = await open(RECORDER.replace('/socket.io/', '/files/'), `http://127.0.0.1:${server.address().port}`);
  const { socket, received } = await sockets.until(([first]) => first, 'the page');
  assert.equal(socket.handshake.query.token, 'a b&c');

  // Emitters.
  const heard = await page.evaluate(() => {
    const heard = [];
    const listener = (value) => heard.push(value);
    socket.on('local', listener).once('local', (value) => heard.push(`once ${value}`));
    for (const call of [1, 2]) socket.listeners('local').forEach((each) => each(call));
    socket.removeListener('local', listener);
    heard.push(socket.hasListeners('local'), io.protocol);
    return heard;
  });
  assert.deepEqual(heard, [1, 'once 1', 2, false, 4]);

  // Acknowledgements, both ways.
  assert.deepEqual(await page.evaluate(() => new Promise((resolve) => socket.emit('add', 1, 2, (...all) => resolve(all)))), [3, 'two answers']);
  await page.evaluate(() => { socket.on('question', (value, answer) => answer(`${value}!`)); });
  assert.equal(await new Promise((resolve) => socket.emit('question', 'Well', resolve)), 'Well!');

  // Binary data is refused, and the connection stays.
  assert.match(await page.evaluate(() => { try { socket.emit('note', new Uint8Array(1)); } catch (error) { return String(error); } }), /^TypeError/);
  socket.emit('/jobs', Buffer.from('binary'));
  socket.emit('/jobs', 'text');
  const seen = () => page.evaluate(() => window.seen);
  assert.deepEqual(names((await eventually(seen, (all) => names(all).includes('/jobs'), 'what came after')).slice(2)), ['error', '/jobs']);

  // After a disconnect packet the page stays away until it asks again; what it sends meanwhile goes out then.
  socket.disconnect();
  assert.deepEqual((await eventually(seen, (all) => names(all).at(-1) === 'disconnect', 'the end')).at(-1), ['disconnect', 'io server disconnect']);
  await page.evaluate(() => { socket.emit('note', 1).emit('note', 2); socket.connect(); });
  const again = await sockets.until((all) => all[1], 'the page again');
  await again.received.until((all) => all.length === 2, 'what was sent meanwhile');
  assert.deepEqual([again.received.entries, received.entries], [[[1], [2]], []]);

  // Namespaces.
  const refused = await page.evaluate(() => new Promise((resolve) => { io(`${socket.io.uri}/admin`).on('error', resolve); }));
  assert.equal(refused, 'Invalid namespace');
  assert.deepEqual(said, []);
});
