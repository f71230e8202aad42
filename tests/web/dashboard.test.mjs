// The dashboard of docs/dashboard.md in a real browser, in each place where it may be.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch, NO_CHROMIUM } from '../clients/support/chromium.mjs';
import { JOB_A, JOB_B, jobUpdate } from '../clients/support/farm.mjs';
import { Farm, NO_FARM } from '../clients/support/flamenco.mjs';
import { Server } from '../clients/support/server.mjs';
import { eventually } from '../clients/support/wait.mjs';

const FOLDER = fileURLToPath(new URL('../../examples/dashboard', import.meta.url));
const PAGE = readFileSync(`${FOLDER}/index.html`, 'utf8');
const PIXEL = Buffer.from('R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7', 'base64');
/** What a browser says while its server is away. */
const AWAY = /ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|Failed to load resource|WebSocket connection to/;

/** An HTTP server that `t` closes; its address. */
async function listen(t, answer) {
  const server = http.createServer(answer);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

/** A Manager with these jobs, each with an image. */
const manage = (t, jobs) => listen(t, ({ url }, response) => {
  const json = (body) => response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
  const { pathname } = new URL(url, 'http://manager');
  if (pathname === '/api/v3/version') return json({ name: 'Flamenco', version: '3.9', shortversion: '3.9', git: '-' });
  if (pathname === '/api/v3/jobs') return json({ jobs: jobs() });
  if (pathname.endsWith('/last-rendered')) return json({ base: '/job-files/x', suffixes: ['last-rendered.jpg', 'last-rendered-small.jpg'] });
  if (pathname.startsWith('/job-files/')) return response.setHeader('content-type', 'image/gif').end(PIXEL);
  return response.writeHead(404).end();
});

/** The dashboard on a host of its own; `farm()` is the server's address. */
const host = (t, farm) => listen(t, (_, response) => response.setHeader('content-type', 'text/html').end(PAGE.replace('data-farm=""', `data-farm="${farm()}"`)));

async function start(t, ...args) {
  const server = await Server.start({ args });
  t.after(() => server.program.exit ?? server.stop());
  return server;
}

async function open(t, url) {
  const browser = await launch(t);
  const page = await browser.newPage();
  const said = [];
  page.on('console', (message) => said.push(message.text()));
  page.on('pageerror', (error) => said.push(String(error)));
  await page.goto(url);
  return { page, said };
}

/** The cards, once they are as wanted: name, facts, and whether there is an image. */
const cards = (page, wanted) =>
  eventually(
    () => page.$$eval('#jobs li', (items) => items.map((item) => [...item.querySelectorAll('strong, div')].map(({ textContent }) => textContent).concat(item.querySelector('img').naturalWidth > 0)).sort()),
    wanted,
    'the cards',
  );
const connection = (page, wanted) => eventually(() => page.$eval('#connection', ({ textContent }) => textContent), (found) => found === wanted, wanted);
const equal = (wanted) => (found) => JSON.stringify(found) === JSON.stringify(wanted);
const job = (more) => jobUpdate(more).payload;

test('the documentation has the example as it is', () => {
  assert.ok(readFileSync(new URL('../../docs/dashboard.md', import.meta.url), 'utf8').includes(`\`\`\`html\n${PAGE}\`\`\``));
});

describe('a dashboard of one\'s own', { skip: NO_CHROMIUM }, () => {
  test('on this server alone shows what comes', async (t) => {
    const server = await start(t, '--static', FOLDER);
    const { page, said } = await open(t, `${server.browsers.origin}/static/`);
    await connection(page, 'live');
    await server.publish(jobUpdate({ name: '<b>shot</b>', status: 'active', steps_completed: 3, steps_total: 8 }));
    await cards(page, equal([['<b>shot</b>', 'active · 3 of 8', false]]));
    await server.stop('SIGKILL');
    await connection(page, 'reconnecting');
    await server.startAgain();
    await connection(page, 'live');
    await server.publish(jobUpdate({ name: 'shot', status: 'completed', steps_completed: 8, steps_total: 8, updated: '2026-11-24T08:00:00Z' }));
    await cards(page, equal([['shot', 'completed · 8 of 8', false]]));
    // An older update changes nothing, which shows once another job is there.
    await server.publish([
      jobUpdate({ name: 'shot', status: 'active', updated: '2020-01-01T00:00:00Z' }),
      jobUpdate({ id: JOB_B, name: 'tail', status: 'queued', steps_completed: 0, steps_total: 1 }),
    ]);
    await cards(page, equal([['shot', 'completed · 8 of 8', false], ['tail', 'queued · 0 of 1', false]]));
    assert.deepEqual(said.filter((line) => !AWAY.test(line)), []);
  });

  test('with the demo shows pictures within seconds', async (t) => {
    const server = await start(t, '--demo', '--static', FOLDER);
    const { page, said } = await open(t, `${server.browsers.origin}/static/`);
    await cards(page, (found) => found.some(([, facts, hasImage]) => hasImage && /^(active|completed) · \d+ of \d+/.test(facts)));
    await page.reload();
    await cards(page, (found) => found.length > 0 && found.some(([, , hasImage]) => hasImage));
    assert.deepEqual(said, []);
  });

  for (const [place, address, args] of [
    ['in front of a Manager', (server) => `${server.browsers.origin}/static/`, () => ['--static', FOLDER]],
    ['on a host of its own', (_, own) => own, (own) => ['--allow-origin', own]],
  ]) {
    test(`${place} has state and images at load, and after everything`, async (t) => {
      let jobs = [job({ name: 'one', status: 'queued', steps_total: 0 }), job({ id: JOB_B, name: 'two', status: 'active', steps_completed: 1, steps_total: 2 })];
      const manager = await manage(t, () => jobs);
      let farm;
      const own = await host(t, () => farm);
      const server = await start(t, '--manager', manager, '--task-logs', 'off', ...args(own));
      farm = server.browsers.origin;
      const { page, said } = await open(t, address(server, own));
      await cards(page, equal([['one', 'queued', true], ['two', 'active · 1 of 2', true]]));
      await server.publish(jobUpdate({ name: 'one', status: 'active', steps_completed: 1, steps_total: 4, updated: '2027-01-01T00:00:00Z' }));
      await cards(page, equal([['one', 'active · 1 of 4', true], ['two', 'active · 1 of 2', true]]));
      await server.stop('SIGKILL');
      await connection(page, 'reconnecting');
      jobs = [job({ name: 'one', status: 'completed', steps_completed: 4, steps_total: 4, updated: '2027-01-02T00:00:00Z' })];
      await server.startAgain();
      await cards(page, equal([['one', 'completed · 4 of 4', true]]));
      assert.deepEqual(said.filter((line) => !AWAY.test(line)), []);
    });
  }

  test('on a host that is not let in says so, and the server says how', async (t) => {
    const server = await start(t);
    const own = await host(t, () => server.browsers.origin);
    const { said } = await open(t, own);
    await server.program.printed(({ stderr }) => stderr.includes(`--allow-origin ${own} allows it`), 'the option in the log');
    await eventually(() => said.some((line) => /WebSocket connection to/.test(line)), Boolean, 'the browser to complain');
  });

  test('beside a real Manager shows its jobs', { skip: NO_FARM, timeout: 300_000 }, async (t) => {
    const farm = await Farm.start(t, '3.9');
    const server = await start(t, '--manager', farm.url, '--static', FOLDER);
    await farm.submit('sleep', '--name', 'before', '--tasks', '1', '--seconds', '1');
    const { page, said } = await open(t, `${server.browsers.origin}/static/`);
    await cards(page, (found) => found.some(([name]) => name === 'before'));
    await farm.submit('sleep', '--name', 'after', '--tasks', '1', '--seconds', '1');
    await eventually(() => page.$$eval('#jobs li', (items) => items.map(({ innerText }) => innerText)), (found) => found.length === 2 && found.every((text) => text.includes('completed')), 'both jobs to be completed', 120_000);
    assert.deepEqual(said, []);
  });
});
