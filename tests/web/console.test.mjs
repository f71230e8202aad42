// The console on the Manager's port in a real browser.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import WebSocket from 'ws';
import { launch, NO_CHROMIUM } from '../clients/support/chromium.mjs';
import { jobUpdate, TASK_A, taskLog } from '../clients/support/farm.mjs';
import { NO_NATS, startNats } from '../clients/support/nats.mjs';
import { EVERY_EVENT, Server } from '../clients/support/server.mjs';
import { eventually } from '../clients/support/wait.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const TOKEN = 'a-token-of-the-manager';
const { CONSOLE_SCREENSHOT } = process.env;

async function start(t, { args = [], token, url = (server) => `${server.manager.origin}/`, size = { width: 1200, height: 900 } } = {}) {
  if (token) {
    const folder = mkdtempSync(join(tmpdir(), 'webupdates-console-'));
    t.after(() => rmSync(folder, { recursive: true }));
    writeFileSync(join(folder, 'token'), token);
    args.push('--manager-token-file', join(folder, 'token'));
  }
  const server = await Server.start({ args, token });
  t.after(() => server.program.exit ?? server.stop());
  const browser = await launch(t);
  const page = await browser.newPage();
  await page.setViewport(size);
  const said = [];
  page.on('console', (message) => said.push(message.text()));
  page.on('pageerror', (error) => said.push(String(error)));
  await page.evaluateOnNewDocument(() => {
    addEventListener('securitypolicyviolation', ({ violatedDirective, sourceFile }) => console.error(`policy: ${violatedDirective} ${sourceFile}`));
  });
  await page.goto(url(server));
  return { server, page, said };
}

/** Clients that only connect. */
async function connect(t, server, count) {
  const sockets = Array.from({ length: count }, () => new WebSocket(`${server.browsers.origin.replace('http', 'ws')}/socket.io/?EIO=3&transport=websocket`));
  t.after(() => sockets.forEach((socket) => socket.terminate()));
  for (const socket of sockets) if (socket.readyState !== WebSocket.OPEN) await new Promise((resolve) => socket.once('open', resolve));
  await eventually(() => server.stats(), ({ sessions }) => sessions.total >= count, `${count} sessions`);
  return sockets;
}

const text = (page, selector, wanted) =>
  eventually(() => page.$eval(selector, (found) => found.innerText).catch(() => undefined), (found) => found !== undefined && wanted(found), `${selector}: ${wanted}`);
const rows = (page, id, wanted) =>
  eventually(() => page.$$eval(`#${id} tbody tr`, (all) => all.map((row) => [...row.cells].map(({ innerText }) => innerText.trim()))), wanted, `the rows of ${id}`);
const press = (page, label) => page.evaluate((wanted) => [...document.querySelectorAll('button')].find((button) => button.textContent === wanted && !button.disabled).click(), label);

test('the console lists the nodes of a cluster', { skip: NO_CHROMIUM || NO_NATS }, async (t) => {
  const nats = await startNats(t);
  const other = await Server.start({ args: ['--nats', nats, '--node-name', 'farm-2'] });
  t.after(() => other.program.exit ?? other.stop());
  const { server, page, said } = await start(t, { args: ['--nats', nats, '--node-name', 'farm-1'] });
  await connect(t, server, 2);
  await connect(t, other, 1);
  const shown = (all) => all.map(([name, , sessions]) => `${name} ${sessions}`).join();
  await rows(page, 'nodes', (all) => shown(all) === 'farm-1 2,farm-2 1');
  await text(page, '#nodes-sum', (found) => found === '3 sessions');
  await other.stop();
  await rows(page, 'nodes', (all) => shown(all) === 'farm-1 2');
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run('#cluster', { resultTypes: ['violations'] }));
  assert.deepEqual(violations.filter(({ impact }) => impact === 'serious' || impact === 'critical'), []);
  assert.deepEqual(said, []);
});

test('the console shows who is connected and what flows', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t);
  await text(page, '#connection', (found) => found === 'live');
  assert.equal(await page.$eval('#cluster', ({ hidden }) => hidden), true, 'a server alone has no nodes');
  const sockets = await connect(t, server, 3);
  const uuid = '4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21';
  sockets[1].send(`42["/subscription",{"op":"subscribe","type":"job","uuid":"${uuid}"}]`);
  await server.publish(Array.from({ length: 50 }, () => jobUpdate()));
  await rows(page, 'sessions', (all) => all.length === 3 && all.every(([address, , transport]) => address === '127.0.0.1' && transport === 'websocket') && all.some(([, , , rooms]) => rooms.includes(`job-${uuid}`)));
  await text(page, '#figures', (found) => /WebSocket sessions\s+3/.test(found));
  await rows(page, 'rooms', (all) => all[0]?.[1] === '3' && all.some(([name, members]) => name === `job-${uuid}` && members === '1'));
  await rows(page, 'events', (all) => all.some(([name, count]) => name === 'job-update' && count === '50') && all.some(([name]) => name.startsWith('from http')));
  const labels = () => page.$$eval('canvas', (all) => all.map((canvas) => canvas.getAttribute('aria-label')));
  await eventually(labels, (all) => /^Publish to write: p50 ≤ .* · p99 ≤/.test(all[0]) && /^Deliveries: .*\/s/.test(all[1]) && all[3] === 'Sessions: 3 · highest 3', 'the plots');
  // Something is drawn: the plots are there at load, too.
  await page.reload();
  await eventually(labels, (all) => /^Publish to write: p50 ≤/.test(all[0] ?? ''), 'the plots after a reload');
  await eventually(() => page.$eval('canvas', (canvas) => canvas.width > 0 && canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte)), Boolean, 'a heat map');
  if (CONSOLE_SCREENSHOT) {
    await new Promise((resolve) => setTimeout(resolve, Number(process.env.CONSOLE_WAIT ?? 0)));
    await page.screenshot({ path: CONSOLE_SCREENSHOT, fullPage: true });
  }
  assert.deepEqual(said, []);
});

test('sessions are sorted and paged by the server, and an operator may disconnect one', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t);
  const sockets = await connect(t, server, 120);
  const last = sockets.at(-1);
  last.send('42["/subscription",{"op":"subscribe","type":"allWorkers"}]');
  await eventually(() => server.stats(), ({ rooms }) => rooms.Workers === 1, 'a subscription');
  await text(page, '#sessions-range', (found) => found === '1–50 of 120');
  await press(page, 'Next');
  await text(page, '#sessions-range', (found) => found === '51–100 of 120');
  await press(page, 'Next');
  await text(page, '#sessions-range', (found) => found === '101–120 of 120');
  await page.focus('th:nth-child(4) button');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Enter');
  await rows(page, 'sessions', ([first]) => first?.[3].includes('Workers'));
  assert.equal(await page.$eval('th:nth-child(4)', (head) => head.getAttribute('aria-sort')), 'descending');

  const closed = new Promise((resolve) => last.once('close', resolve));
  // By the keyboard: asked, cancelled, asked again and done.
  await page.focus('#sessions tbody button');
  await page.keyboard.press('Enter');
  await text(page, '#question', (found) => found.includes('127.0.0.1'));
  await page.keyboard.press('Escape');
  await eventually(() => page.$eval('dialog', ({ open }) => open), (open) => !open, 'the dialog to close');
  assert.equal((await server.stats()).sessions.total, 120);
  await page.focus('#sessions tbody button');
  await page.keyboard.press('Enter');
  await press(page, 'Disconnect');
  assert.equal(await closed, 1012);
  await text(page, '#sessions-range', (found) => found.endsWith('of 119'));
  await text(page, '#notice', (found) => found === 'the session is closed');
  await rows(page, 'disconnects', (all) => all.some(([reason, count]) => reason === 'operator' && count === '1'));
  assert.match(server.program.stderr, /WARN .* session \d+ of 127\.0\.0\.1 is closed by an operator at 127\.0\.0\.1/);
  await page.type('#address', '192.0.2.7');
  await page.keyboard.press('Enter');
  await text(page, '#sessions-range', (found) => found === 'none');
  assert.deepEqual(said, []);
});

test('what waits for a client that does not read is in the plots', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t, { args: [...EVERY_EVENT] });
  const [socket] = await connect(t, server, 1);
  socket.pause();
  const log = 'x'.repeat(1_000_000);
  socket.send(`42["/subscription",{"op":"subscribe","type":"tasklog","uuid":"${TASK_A}"}]`);
  await eventually(() => server.stats(), ({ rooms }) => rooms[`tasklog-${TASK_A}`] === 1, 'the subscription');
  for (let turn = 0; turn < 20; turn++) await server.publish(taskLog({ log }));
  await rows(page, 'sessions', ([first]) => / MiB$/.test(first?.[4]));
  // The server looks every 10 s.
  const label = () => page.$eval('#plots figure:nth-child(5) canvas', (canvas) => canvas.getAttribute('aria-label'));
  await eventually(label, (found) => /^Waiting in outboxes: [\d.]+ MiB/.test(found ?? ''), 'the plot');
  assert.deepEqual(said, []);
});

test('an operator may drain the server, after a question', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page } = await start(t);
  const [socket] = await connect(t, server, 1);
  const closed = new Promise((resolve) => socket.once('close', resolve));
  await eventually(() => page.$eval('#drain', ({ disabled }) => disabled), (disabled) => !disabled, 'the button');
  await page.click('#drain');
  await press(page, 'Cancel');
  assert.equal((await server.stats()).sessions.total, 1);
  await page.click('#drain');
  await press(page, 'Drain and stop');
  assert.equal(await closed, 1001);
  assert.equal((await server.ended()).code, 0);
  assert.match(server.program.stderr, /WARN .* an operator at 127\.0\.0\.1 drains the server/);
  await text(page, '#connection', (found) => found === 'no answer');
});

test('with a token the page asks for it, and keeps it for the tab', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t, { token: TOKEN });
  await text(page, '#connection', (found) => found === 'locked');
  assert.deepEqual(await page.$eval('#view', ({ hidden }) => hidden), true);
  await page.type('#token', 'not-the-token-of-it');
  await page.keyboard.press('Enter');
  await text(page, '#wrong', (found) => found === 'This is not the token.');
  await page.type('#token', TOKEN);
  await page.keyboard.press('Enter');
  await text(page, '#connection', (found) => found === 'live');
  await text(page, '#sessions-range', (found) => found === 'none');
  await page.reload();
  await text(page, '#connection', (found) => found === 'live');
  assert.deepEqual(await page.evaluate(() => [localStorage.length, document.cookie, document.body.innerText.includes('a-token')]), [0, '', false]);
  await connect(t, server, 1);
  await rows(page, 'sessions', (all) => all.length === 1);
  assert.deepEqual(said.filter((line) => !/status of 40[13]/.test(line)), []);
});

test('a page of another origin gets nothing and changes nothing', { skip: NO_CHROMIUM }, async (t) => {
  const other = http.createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<!doctype html><title>other</title>'));
  await new Promise((resolve) => other.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    other.close();
    other.closeAllConnections();
  });
  const { server, page } = await start(t, { url: () => `http://127.0.0.1:${other.address().port}/` });
  const [socket] = await connect(t, server, 1);
  const tries = await page.evaluate(async (manager) => {
    const one = (path, options) => fetch(`${manager}${path}`, options).then((answer) => `${answer.type} ${answer.status}`, () => 'blocked');
    const json = { 'content-type': 'application/json' };
    const loaded = (tag, path) => new Promise((resolve) => {
      const made = document.createElement(tag);
      made.onload = () => resolve('loaded');
      made.onerror = () => resolve('blocked');
      made.src = `${manager}${path}`;
      document.body.append(made);
    });
    return {
      read: await one('/api/sessions'),
      blind: await one('/api/drain', { method: 'POST', mode: 'no-cors', body: '{"confirm":true}' }),
      drain: await one('/api/drain', { method: 'POST', headers: json, body: '{"confirm":true}' }),
      disconnect: await one('/api/sessions/1', { method: 'DELETE' }),
      script: await loaded('script', '/console/console.js'),
    };
  }, server.manager.origin);
  assert.deepEqual(tries, { read: 'blocked', blind: 'opaque 0', drain: 'blocked', disconnect: 'blocked', script: 'blocked' });
  assert.equal(socket.readyState, WebSocket.OPEN);
  const { refused, sessions } = await server.stats();
  assert.equal(sessions.total, 1);
  assert.ok(refused.unauthorized >= 4, JSON.stringify(refused));
});

for (const [name, size, scheme] of [['a screen', { width: 1200, height: 900 }, 'light'], ['a phone in the dark', { width: 390, height: 800, isMobile: true, hasTouch: true }, 'dark']]) {
  test(`axe finds nothing wrong on ${name}`, { skip: NO_CHROMIUM }, async (t) => {
    const { server, page, said } = await start(t, { args: ['--demo'], size });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
    await connect(t, server, 3);
    await rows(page, 'sessions', (all) => all.length === 3);
    const client = await page.createCDPSession();
    await client.send('Runtime.evaluate', { expression: AXE });
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(' ')}`), []);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, 'too wide');
    assert.deepEqual(said, []);
  });
}
