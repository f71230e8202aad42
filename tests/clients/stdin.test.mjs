// Events from standard input, by hand and from the simulator.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { forEachClient } from './support/browsers.mjs';
import { allRooms, asPacket, asReceived, DEFAULT_ROOMS, heardIn, jobUpdate, lastRendered, readEvents, subscriptionTo } from './support/farm.mjs';
import { RawBrowser, samePackets } from './support/raw.mjs';
import { EVERY_EVENT, Program, run, Server } from './support/server.mjs';

const SIMULATE = ['simulate-farm', '--seed', '7', '--duration', '60s', '--rate', '0'];

const listening = (...args) => Server.start({ args: ['--events-from-stdin', ...args], stdin: 'pipe' });

describe('standard input', () => {
  test('is read line by line; a bad line is reported with its number and skipped', async (t) => {
    const server = await listening();
    const browser = await RawBrowser.connect(t, server);
    const good = [1, 2, 3, 4].map((priority) => JSON.stringify(jobUpdate({ priority })));
    const packets = [1, 2, 3, 4].map((priority) => `42["/jobs",${JSON.stringify(jobUpdate({ priority }).payload)}]`);
    const { stdin } = server.program;

    stdin.write(`${good[0]}\n`);
    assert.equal(await browser.next(), packets[0]);
    stdin.write(`not json\n${good[1]}\n`);
    stdin.write(Buffer.concat([Buffer.from('{"type":"job-update","payload":{"name":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}}\n')]));
    stdin.write(`${JSON.stringify(jobUpdate({ updated: 'yesterday' }))}\n${JSON.stringify({ type: 'nonsense', payload: {} })}\n${good[2]}\r\n`);
    // The last line has no line break.
    stdin.end(good[3]);

    const { code, stderr } = await server.ended();
    assert.equal(code, 0);
    assert.equal((await browser.close()).code, 1001);
    samePackets(browser.take(), packets.slice(1));
    for (const line of [2, 4, 5, 6]) assert.match(stderr, new RegExp(`line ${line}\\b`), `line ${line} is reported`);
    for (const line of [1, 3, 7, 8]) assert.doesNotMatch(stderr, new RegExp(`line ${line}\\b`), `line ${line} is fine`);
    assert.match(stderr, /line 5\b.*payload\.updated/);
  });

  test('a line without end is reported, bounded and skipped', async (t) => {
    const server = await listening();
    const browser = await RawBrowser.connect(t, server);
    const { stdin } = server.program;
    const chunk = 'x'.repeat(2 ** 20);
    for (let sent = 0; sent < 64; sent++) if (!stdin.write(chunk)) await new Promise((resolve) => stdin.once('drain', resolve));
    stdin.end(`\n${JSON.stringify(jobUpdate())}\n`);
    const { code, stderr } = await server.ended();
    assert.equal(code, 0);
    await browser.close();
    samePackets(browser.take(), [`42["/jobs",${JSON.stringify(jobUpdate().payload)}]`]);
    assert.match(stderr, /line 1\b/);
    assert.ok(stderr.length < 10_000, 'the line is not printed');
  });

  test('at its end delivers also the image that is held back for the second to be over', async (t) => {
    const server = await listening();
    const browser = await RawBrowser.connect(t, server);
    browser.send('420["/subscription",{"op":"subscribe","type":"allLastRendered"}]');
    await browser.next();
    const images = [1, 2, 3].map((turn) => lastRendered({ turn }));
    server.program.stdin.end(images.map((image) => `${JSON.stringify(image)}\n`).join(''));
    assert.equal((await server.ended()).code, 0);
    await browser.close();
    samePackets(browser.take(), [images[0], images[2]].map(({ payload }) => `42["/last-rendered",${JSON.stringify(payload)}]`));
  });

  test('that is empty ends the server with code 0', async () => {
    const server = await listening();
    server.program.stdin.end();
    assert.equal((await server.ended()).code, 0);
  });

  test('is one more source: the Manager’s port works beside it', async (t) => {
    const server = await listening();
    const browser = await RawBrowser.connect(t, server);
    server.program.stdin.write(`${JSON.stringify(jobUpdate({ priority: 1 }))}\n`);
    await browser.next('the event from stdin');
    await server.publish(jobUpdate({ priority: 2 }));
    await browser.next('the event from HTTP');
    assert.equal((await server.stats()).events['job-update'], 2);
    server.program.stdin.end();
    assert.equal((await server.ended()).code, 0);
  });
});

describe('the simulator', () => {
  test('runs inside the server with --demo', async (t) => {
    const server = await Server.start({ args: ['--demo'] });
    t.after(() => server.stop());
    const browser = await RawBrowser.connect(t, server);
    browser.send('420["/subscription",{"op":"subscribe","type":"allWorkers"}]');
    const heard = (name) => browser.messages.until((messages) => messages.find((text) => text.startsWith(`42["${name}",`)), name);
    for (const name of ['/jobs', '/workers']) await heard(name);
    await server.publish(jobUpdate());
  });

  test('prints the same farm for the same seed, and another for another', async () => {
    const [first, again, other] = await Promise.all([run(SIMULATE), run(SIMULATE), run(SIMULATE.with(2, '8'))]);
    assert.deepEqual([first.code, first.stderr], [0, '']);
    assert.ok(again.stdout === first.stdout, 'seed 7 prints something else the second time');
    assert.ok(other.stdout !== first.stdout, 'seed 8 prints the same');
  });

  test('shows every kind of news that a farm has', async () => {
    const { stdout } = await run(SIMULATE);
    const kinds = new Set(readEvents(stdout).map(({ type }) => type));
    for (const kind of ['job-update', 'task-update', 'task-log-update', 'last-rendered', 'worker-update', 'farm-status']) {
      assert.ok(kinds.has(kind), `${kind} is missing`);
    }
  });
});

forEachClient((client) => {
  test('the simulator piped into the server reaches clients in all rooms, line for line', async (t) => {
    const simulated = readEvents((await run(SIMULATE)).stdout);
    assert.ok(simulated.length > 200, `only ${simulated.length} events`);
    const rooms = allRooms(simulated).filter((room) => !DEFAULT_ROOMS.includes(room));
    const server = await listening(...EVERY_EVENT);
    const everywhere = await client.connect(t, server, { reconnection: false });
    for (const room of rooms) await everywhere.subscribe(subscriptionTo(room));
    const each = await Promise.all(rooms.map(async (room) => {
      const browser = await client.connect(t, server, { reconnection: false });
      await browser.subscribe(subscriptionTo(room));
      return { browser, joined: [...DEFAULT_ROOMS, room] };
    }));
    const exact = await RawBrowser.connect(t, server);

    new Program(SIMULATE).child.stdout.setEncoding('utf8').pipe(server.program.stdin);
    assert.equal((await server.ended()).code, 0);
    for (const { browser, joined } of [{ browser: everywhere, joined: [...DEFAULT_ROOMS, ...rooms] }, ...each]) {
      await browser.fact('disconnect');
      assert.deepEqual(browser.take(), asReceived(heardIn(joined, simulated)));
    }
    await exact.close();
    samePackets(exact.take(), heardIn(DEFAULT_ROOMS, simulated).map(asPacket));
  });
});
