// The client module in Node, against the server, and against servers that know nothing of it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import http from 'node:http';
import net from 'node:net';
import { once } from 'node:events';
import { test } from 'node:test';
import { promisify } from 'node:util';
import socketIo from 'socket.io';
import { connect, ConnectionError } from '../../web/client.js';
import { JOB_A, jobUpdate, lastRendered, recordedFarm, TASK_A, taskLog, taskUpdate, workerUpdate } from '../clients/support/farm.mjs';
import { Farm, NO_FARM } from '../clients/support/flamenco.mjs';
import { EVERY_EVENT, Server } from '../clients/support/server.mjs';
import { Arrivals, eventually, within } from '../clients/support/wait.mjs';
import { PlayedServer } from './support/played.mjs';
import { listen } from './support/socket-io.mjs';

const MODULE = new URL('../../web/client.js', import.meta.url);

const TRANSPORTS = {
  websocket: { transports: ['websocket'], ends: 'websocket' },
  polling: { transports: ['polling'], ends: 'polling' },
  'polling → websocket': { transports: ['polling', 'websocket'], ends: 'websocket' },
};

async function serve(t, ...args) {
  const server = await Server.start({ args });
  t.after(() => server.program.exit ?? server.stop());
  return server;
}

/** A connection that `t` closes at its end. */
function open(t, url, options) {
  const farm = connect(url, options);
  t.after(() => farm.close());
  return farm;
}

/** What `emitter` reports under `name`, from now on. */
function heard(emitter, name) {
  const arrivals = new Arrivals();
  emitter.on(name, (event) => arrivals.push(event));
  return arrivals;
}

const live = (farm) => eventually(() => farm.status, (status) => status === 'live', 'the connection');
const has = (count) => (entries) => entries.length >= count;

for (const [title, { ends, transports }] of Object.entries(TRANSPORTS)) {
  test(`every update comes once and in order over ${title}`, async (t) => {
    const server = await serve(t, ...EVERY_EVENT);
    const farm = open(t, server.browsers, { transports });
    const updates = heard(farm, 'update');
    const jobs = farm.room('Jobs');
    const log = farm.room(`tasklog-${TASK_A.toUpperCase()}`);
    await within(Promise.all([jobs.once('ready'), log.once('ready')]), 'the rooms');
    const seen = [];
    const reading = (async () => {
      for await (const update of jobs) if (seen.push(update.payload.turn) === 300) break;
    })();
    const events = Array.from({ length: 600 }, (_, turn) => (turn % 2 ? jobUpdate({ turn }) : taskLog({ turn, log: `🎬\u2028${'x'.repeat(turn % 90)}` })));
    for (let at = 0; at < events.length; at += 10) await server.publish(events.slice(at, at + 10));
    await updates.until(has(600), '600 updates');
    assert.deepEqual(updates.entries.map(({ payload }) => payload), events.map(({ payload }) => payload));
    await within(reading, '300 updates of the iterator');
    assert.deepEqual(seen, Array.from({ length: 300 }, (_, at) => at * 2 + 1));
    // It may have heard everything before its upgrade is through.
    await eventually(() => farm.transport, (transport) => transport === ends, `the transport to be ${ends}`);
    await eventually(() => server.stats(), ({ sessions }) => sessions.total === 1 && sessions[ends] === 1, `one session over ${ends}`);
    farm.close();
    await eventually(() => server.stats(), ({ sessions }) => sessions.total === 0, 'the session to end at once');
  });

  test(`requests are answered over ${title}`, async (t) => {
    const server = await serve(t);
    const farm = open(t, server.browsers, { transports });
    // Before there is a connection.
    assert.equal(await farm.request('/subscription', { op: 'subscribe', type: 'job', uuid: 'x' }), 'invalid UUID, ignoring request');
    const chat = heard(farm.room('Chat'), '/message');
    assert.equal(await farm.request('/chat', { name: 'Ünal', text: '„hello“ 🎬' }), 'message sent successfully.');
    assert.deepEqual(await chat.until(([first]) => first?.payload, 'the message'), { name: 'Ünal', text: '„hello“ 🎬' });
    await assert.rejects(farm.request('/unknown', {}, { timeout: 50 }), new ConnectionError('no acknowledgement of /unknown within 50 ms'));
  });

  test(`a server that is killed and started again has the rooms back over ${title}`, async (t) => {
    const server = await serve(t);
    const farm = open(t, server.browsers, { transports, reconnect: { min: 50, max: 200 } });
    const job = farm.room(`job-${JOB_A}`);
    const workers = farm.room('Workers');
    await within(Promise.all([job.once('ready'), workers.once('ready')]), 'the rooms');
    // The rooms may be entered before the server has said that it can resume.
    await eventually(() => farm.resumes, Boolean, 'the server to resume');
    const [statuses, tasks] = [heard(farm, 'status'), heard(job, '/task')];
    for (const signal of ['SIGKILL', 'SIGTERM']) {
      await server.stop(signal);
      await statuses.until((all) => all.at(-1) === 'reconnecting', 'the loss to be noticed');
      const back = Promise.all([job.once('gap'), workers.once('gap'), job.once('ready'), workers.once('ready')]);
      await server.startAgain();
      const [gap, , ready] = await within(back, 'the rooms');
      assert.deepEqual([gap, ready.recovered], ['epoch', false]);
      await server.publish([taskUpdate({ signal }), taskUpdate({ signal, again: true })]);
      const [first, second] = await tasks.until((all) => has(2)(all) && all.splice(0), 'two updates');
      assert.deepEqual([first.payload.signal, first.gap, second.gap], [signal, 'epoch', undefined]);
    }
    assert.deepEqual(statuses.entries, ['reconnecting', 'live', 'reconnecting', 'live']);
  });
}

test('a room is left by the last who is in it, and a loop that ends leaves it', async (t) => {
  const server = await serve(t);
  const farm = open(t, server.browsers);
  const rooms = async (wanted) => eventually(async () => Object.keys((await server.stats()).rooms).sort(), (rooms) => rooms.join() === wanted, wanted);
  const [one, other] = [farm.room('Workers'), farm.room('Workers')];
  await within(one.once('ready'), 'the room');
  await rooms('Chat,Workers');
  one.leave();
  await server.publish(workerUpdate());
  const reading = (async () => {
    for await (const update of other) {
      assert.equal(update.name, '/workers');
      break;
    }
  })();
  await server.publish(workerUpdate());
  await within(reading, 'an update');
  await rooms('Chat');
  const late = [];
  for await (const update of one) late.push(update);
  assert.deepEqual(late, [], 'a room that was left has no updates');
});

test('an update of two rooms goes to both', async (t) => {
  const server = await serve(t);
  const farm = open(t, server.browsers);
  const rooms = [farm.room(`job-${JOB_A}`), farm.room('Last-Rendered')];
  const all = rooms.map((room) => heard(room, '/last-rendered'));
  await within(Promise.all(rooms.map((room) => room.once('ready'))), 'the rooms');
  await server.publish(lastRendered());
  await Promise.all(all.map((images) => images.until(has(1), 'the image')));
  assert.throws(() => farm.room('Everything'), RangeError);
  assert.throws(() => farm.room('job-1'), RangeError);
  assert.throws(() => farm.room('constructor'), RangeError);
});

test('an iterator that is not read holds no more than its queue, and says what it dropped', async (t) => {
  const server = await serve(t, ...EVERY_EVENT);
  const farm = open(t, server.browsers);
  const jobs = farm.room('Jobs', { queue: 10 });
  const iterator = jobs[Symbol.asyncIterator]();
  await within(jobs.once('ready'), 'the room');
  const updates = heard(jobs, '/jobs');
  await server.publish(Array.from({ length: 25 }, (_, turn) => jobUpdate({ turn })));
  await updates.until(has(25), '25 updates');
  const taken = [];
  for (let count = 0; count < 5; count++) taken.push((await iterator.next()).value);
  assert.deepEqual(taken.map(({ payload, gap }) => [payload.turn, gap]), [
    [20, 'overflow'], [21, undefined], [22, undefined], [23, undefined], [24, undefined],
  ]);
  const waiting = iterator.next();
  farm.close();
  assert.deepEqual(await waiting, { done: true, value: undefined });
});

test('where WebSockets do not pass, it polls', async (t) => {
  const server = await serve(t);
  const front = http.createServer((request, response) => {
    const { method, url, headers } = request;
    request.pipe(http.request(new URL(url, server.browsers), { method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    }).on('error', () => response.destroy()));
  });
  front.on('upgrade', (_, socket) => socket.end('HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n'));
  await new Promise((resolve) => front.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    front.close();
    front.closeAllConnections();
  });
  const farm = open(t, `http://127.0.0.1:${front.address().port}`);
  const jobs = farm.room('Jobs');
  await within(jobs.once('ready'), 'the room');
  assert.equal(farm.transport, 'polling');
  const [update] = await Promise.all([within(jobs.once('/jobs'), 'an update'), server.publish(jobUpdate())]);
  assert.equal(update.payload.id, JOB_A);
});

test('a connection to nothing is tried again, and waits longer each time', async (t) => {
  const nothing = net.createServer().listen(0, '127.0.0.1');
  await once(nothing, 'listening');
  const { port } = nothing.address();
  nothing.close();
  const farm = open(t, `http://127.0.0.1:${port}`, { reconnect: { min: 20, max: 100, jitter: 0 } });
  const waits = heard(farm, 'waiting');
  await waits.until(has(5), 'five attempts');
  assert.deepEqual(waits.entries.slice(0, 5).map(({ delay }) => delay), [50, 50, 80, 100, 100]);
  assert.equal(farm.status, 'connecting');
  const answer = assert.rejects(farm.request('/chat', {}), ConnectionError);
  farm.close();
  await answer;
  assert.throws(() => farm.emit('/chat', {}), ConnectionError);
  const few = open(t, `http://127.0.0.1:${port}`, { reconnect: false });
  await eventually(() => few.status, (status) => status === 'closed', 'it to give up');
});

test('what waits for a connection is bounded', (t) => {
  const farm = open(t, 'http://127.0.0.1:9', { sendQueue: 2 });
  farm.emit('/chat', 1);
  farm.emit('/chat', 2);
  assert.throws(() => farm.emit('/chat', 3), ConnectionError);
});

test('binary data is refused both ways', async (t) => {
  const played = await PlayedServer.start(t);
  const farm = open(t, played.url);
  for (const binary of [new ArrayBuffer(1), new Uint8Array(1), new DataView(new ArrayBuffer(1)), new Blob(['x']), Buffer.from('x')]) {
    assert.throws(() => farm.emit('/chat', { deep: [binary] }), TypeError);
    await assert.rejects(farm.request('/chat', binary), TypeError);
  }
  const connection = await played.connection();
  await live(farm);
  const [errors, updates] = [heard(farm, 'error'), heard(farm, 'update')];
  const asked = farm.request('/ask', 1);
  const { id } = await connection.event('/ask');
  connection.send('451-["/jobs",{"_placeholder":true,"num":0}]', Buffer.from('x'), `461-${id}[{"_placeholder":true,"num":0}]`, Buffer.from('x'), '42["/status",{"status":"idle"}]');
  await assert.rejects(asked, TypeError);
  await updates.until(has(1), 'what comes after');
  assert.deepEqual(updates.entries.map(({ name }) => name), ['/status']);
  assert.equal(errors.entries.length, 1);
  assert.equal(farm.status, 'live');
});

test('what is no packet ends the connection, which comes back', async (t) => {
  const played = await PlayedServer.start(t);
  const farm = open(t, played.url, { reconnect: { min: 50, max: 50 } });
  const bad = ['x', '', '4', '49', '42', '42{}', '42[]', '42[1]', '42["/jobs",', '49999999999999999999["x"]', '0{}', '0null', '1', '41'];
  for (const [number, packet] of bad.entries()) {
    const connection = await played.connection(number);
    await live(farm);
    connection.send(packet, '42["/status",{"status":"never"}]');
    await within(connection.closed, `${packet} to end it`);
  }
  const last = await played.connection(bad.length);
  const updates = heard(farm, 'update');
  // These are packets, of no use here.
  last.send('6', '40', '40/admin,', '44/admin,"no"', '43999[]', '430', '42/admin,["/status",{}]', '42["/unknown",{}]', '42["/jobs",null]', '42["/jobs"]',
    '42["constructor",{}]', '42["/jobs",{}]', '42["/status",{"status":"idle"}]');
  await updates.until((all) => all.at(-1)?.payload.status === 'idle', 'the last');
  assert.equal(updates.entries.length, 2);
});

test('heartbeats are sent, and a server that does not answer them is left', async (t) => {
  const played = await PlayedServer.start(t);
  played.open = { pingInterval: 20, pingTimeout: 60 };
  const farm = open(t, played.url, { reconnect: { min: 50, max: 50 } });
  const first = await played.connection();
  for (let beat = 1; beat <= 3; beat++) {
    await first.received.until((packets) => packets.filter((packet) => packet === '2').length >= beat, `ping ${beat}`);
    first.send('3');
  }
  assert.equal(farm.status, 'live');
  await within(first.closed, 'the silent server to be left');
  await played.connection(1);
});

test('a server that does not greet is left after the time-out', async (t) => {
  const played = await PlayedServer.start(t);
  played.greets = false;
  const farm = open(t, played.url, { timeout: 50, transports: ['websocket'], reconnect: { min: 50, max: 50 } });
  const failed = await within(farm.once('failed'), 'the attempt to fail');
  assert.deepEqual(failed, new ConnectionError('timeout'));
  played.greets = true;
  await live(farm);
});

test('a request is rejected when the connection is lost, and not sent again', async (t) => {
  const played = await PlayedServer.start(t);
  const farm = open(t, played.url, { reconnect: { min: 50, max: 50 } });
  const first = await played.connection();
  const asked = assert.rejects(farm.request('/ask', 1), /^ConnectionError: the connection was lost: transport close$/);
  await first.event('/ask');
  first.close();
  await asked;
  const second = await played.connection(1);
  await second.event('/resume');
  assert.ok(!second.received.entries.some((packet) => packet.includes('/ask')));
});

test('updates are resumed where the server can', async (t) => {
  const played = await PlayedServer.start(t);
  const farm = open(t, played.url, { reconnect: { min: 50, max: 50 }, ackTimeout: 300 });
  const jobs = farm.room('Jobs');
  const [updates, gaps, readies] = [heard(jobs, '/jobs'), heard(farm, 'gap'), heard(jobs, 'ready')];
  const resume = async (connection, answer) => {
    const { id, args } = await connection.event('/resume');
    connection.send(`43${id}${JSON.stringify([answer])}`);
    await readies.until(has(1), 'the room');
    return [args, readies.entries.splice(0)];
  };
  const job = (turn) => JSON.stringify(jobUpdate({ turn }).payload);

  // The first time there is nothing to go on from; the rooms are asked for in the old way too.
  const first = await played.connection(0);
  assert.equal(first.query.get('resume'), '1');
  first.send(`42["/jobs",${job(0)},{"state":true}]`);
  assert.deepEqual(await resume(first, { recovered: false, reason: 'epoch', token: 'e-7-c' }), [
    [{ token: null, rooms: ['Jobs', 'Chat'], state: true }], [{ state: true, recovered: false }],
  ]);
  assert.deepEqual((await first.event('/subscription')).args, [{ op: 'subscribe', type: 'allJobs' }]);
  first.send(`42["/jobs",${job(1)},"e-8-c"]`, `42["/jobs",${job(2)},"e-9-c",{"state":true}]`);
  await updates.until(has(3), 'three updates');
  assert.deepEqual(updates.entries.map(({ payload, state }) => [payload.turn, state]), [[0, true], [1, false], [2, true]]);
  assert.ok(farm.resumes);

  // A room of later is entered with its state.
  const workers = farm.room('Workers');
  const entered = workers.once('ready');
  const { id, args } = await first.event('/subscription', 1);
  assert.deepEqual(args, [{ op: 'subscribe', type: 'allWorkers', state: true }]);
  first.send(`43${id}["ok"]`);
  assert.deepEqual(await entered, { state: true, recovered: false });

  // What was missed comes, and nothing is subscribed to.
  first.close();
  const second = await played.connection(1);
  second.send(`42["/jobs",${job(3)},"e-10-c"]`);
  assert.deepEqual(await resume(second, { recovered: true, token: 'e-10-c', events: 1 }), [
    [{ token: 'e-9-c', rooms: ['Jobs', 'Workers', 'Chat'], state: true }], [{ state: true, recovered: true }],
  ]);
  assert.deepEqual([updates.entries.at(-1).gap, gaps.entries], [undefined, []]);
  assert.ok(!second.received.entries.some((packet) => packet.includes('/subscription')));

  // A room that is new since then is entered with its state.
  second.close();
  const images = farm.room('Last-Rendered');
  const shown = images.once('ready');
  const meanwhile = await played.connection(2);
  await resume(meanwhile, { recovered: true, token: 'e-10-c', events: 0 });
  const wanted = await meanwhile.event('/subscription');
  assert.deepEqual(wanted.args, [{ op: 'subscribe', type: 'allLastRendered', state: true }]);
  meanwhile.send(`43${wanted.id}["ok"]`);
  assert.deepEqual(await shown, { state: true, recovered: false });
  images.leave();

  // It has been away for too long.
  meanwhile.close();
  const third = await played.connection(3);
  assert.deepEqual((await resume(third, { recovered: false, reason: 'too-old', token: 'e-99-c' }))[0][0].token, 'e-10-c');
  third.send(`42["/jobs",${job(4)},"e-100-c"]`);
  assert.equal((await updates.until((all) => all[4], 'the update')).gap, 'too-old');
  assert.deepEqual(gaps.entries.splice(0), ['too-old']);

  // The server that is back is an old one.
  third.close();
  const fourth = await played.connection(4);
  assert.deepEqual((await fourth.event('/resume')).args[0].token, 'e-100-c');
  assert.deepEqual((await fourth.event('/subscription')).args, [{ op: 'subscribe', type: 'allJobs' }]);
  assert.deepEqual(gaps.entries, ['reconnect']);
  assert.equal(farm.resumes, false);
});

test('it works with Socket.IO 2.5.1', async (t) => {
  const server = http.createServer();
  const io = socketIo(server, { pingInterval: 200, pingTimeout: 2000, path: '/updates/socket.io' });
  await listen(t, server, io);
  const sockets = new Arrivals();
  io.on('connection', (socket) => {
    socket.on('/subscription', (_, answer) => answer('ok'));
    socket.on('/echo', (value, answer) => answer(value));
    sockets.push(socket);
  });
  for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
    sockets.entries.length = 0;
    const farm = open(t, `http://127.0.0.1:${server.address().port}/updates`, { transports, reconnect: { min: 50, max: 50 } });
    const jobs = farm.room('Jobs');
    await within(jobs.once('ready'), 'the room');
    const text = '🎬 "quoted" \u2028 \\ ü';
    assert.equal(await farm.request('/echo', text), text);
    if (transports.length > 1) await eventually(() => farm.transport, (name) => name === 'websocket', 'the upgrade');
    const updates = heard(jobs, '/jobs');
    for (let turn = 0; turn < 100; turn++) io.emit('/jobs', { id: JOB_A, turn, text });
    await updates.until(has(100), '100 updates');
    assert.deepEqual(updates.entries.map(({ payload }) => payload.turn), Array.from({ length: 100 }, (_, at) => at));
    if (transports[0] === 'websocket') {
      // This server's own way to send a client away, after which others stay away.
      sockets.entries[0].disconnect();
      assert.equal(await within(jobs.once('gap'), 'the loss'), 'reconnect');
      await within(jobs.once('ready'), 'the room again');
    }
    farm.close();
  }
});

test('it works with a real Manager', { skip: NO_FARM }, async (t) => {
  const manager = await Farm.start(t, '3.9');
  const farm = open(t, manager.url, { reconnect: { min: 50, max: 500 } });
  const [jobs, workers] = [farm.room('Jobs'), farm.room('Workers')];
  const updates = heard(jobs, '/jobs');
  const PATIENCE_MS = 120_000;
  await within(Promise.all([jobs.once('ready'), workers.once('ready')]), 'the rooms');
  const named = (name) => updates.until((all) => all.find(({ payload }) => payload.name === name), name, PATIENCE_MS);
  const id = await manager.submit('sleep', '--name', 'first', '--tasks', '1', '--seconds', '1');
  await named('first');
  const job = farm.room(`job-${id}`);
  await within(job.once('/task'), 'an update of a task', undefined, PATIENCE_MS);
  const back = within(jobs.once('ready'), 'the room', undefined, PATIENCE_MS);
  await manager.restart();
  await back;
  await manager.submit('sleep', '--name', 'second', '--tasks', '1');
  assert.equal((await named('second')).name, '/jobs');
});

test('a recorded farm comes as it is', async (t) => {
  const server = await serve(t, ...EVERY_EVENT);
  const farm = open(t, server.browsers);
  const events = recordedFarm();
  const rooms = new Set(['Jobs', 'Workers', 'Last-Rendered', 'Worker-Tags']);
  for (const { payload } of events) if (payload.job_id) rooms.add(`job-${payload.job_id}`);
  for (const { payload } of events) if (payload.task_id) rooms.add(`tasklog-${payload.task_id}`);
  await within(Promise.all([...rooms].map((name) => farm.room(name).once('ready'))), 'the rooms');
  const updates = heard(farm, 'update');
  await server.publishLines(events.map(({ line }) => line));
  await updates.until(has(events.length), 'all of the recording');
  assert.deepEqual(updates.entries.map(({ payload }) => payload), events.map(({ payload }) => payload));
});

test('a program ends after it has closed its connection', async (t) => {
  const server = await serve(t);
  const program = `
    import { connect } from ${JSON.stringify(MODULE.href)};
    const farm = connect(process.argv[1]);
    for await (const { payload } of farm.room('Jobs')) {
      console.log(payload.name);
      break;
    }
    farm.close();`;
  const running = promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program, server.browsers.href]);
  await eventually(() => server.stats(), ({ sessions }) => sessions.total === 1, 'the program to connect');
  await server.publish(jobUpdate({ name: 'shot' }));
  const { stdout, stderr } = await within(running, 'the program to end');
  assert.deepEqual([stdout, stderr], ['shot\n', '']);
});
