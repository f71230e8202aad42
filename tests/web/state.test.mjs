// Pages that come late, or were away: the state of the farm at load, and what was missed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch, NO_CHROMIUM } from '../clients/support/chromium.mjs';
import { JOB_A, JOB_B, jobUpdate, oneOfEach, TASK_A, taskLog, taskUpdate, workerUpdate } from '../clients/support/farm.mjs';
import { Farm, NO_FARM } from '../clients/support/flamenco.mjs';
import { EVERY_EVENT, Server } from '../clients/support/server.mjs';
import { eventually } from '../clients/support/wait.mjs';

const DASHBOARD = fileURLToPath(new URL('../../examples/dashboard', import.meta.url));
const DELETED = { id: JOB_A, updated: '0001-01-01T00:00:00Z', status: '', type: '', priority: 0, refresh_tasks: false, was_deleted: true };

async function start(t, ...args) {
  const server = await Server.start({ args: [...EVERY_EVENT, ...args] });
  t.after(() => server.program.exit ?? server.stop());
  return server;
}

async function open(t, url) {
  const browser = await launch(t);
  const page = await browser.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  await page.goto(url);
  return { page, errors };
}

const text = (page, selector, wanted) =>
  eventually(() => page.$eval(selector, (found) => found.innerText).catch(() => undefined), (found) => found !== undefined && wanted(found), `${selector}: ${wanted}`);
const isLive = (page) => text(page, '#connection', (found) => found === 'live');
const rows = (page, wanted, what) =>
  eventually(() => page.$$eval('.space > li', (all) => all.map((row) => row.innerText.replaceAll(/\s+/g, ' ').trim())), wanted, what);
const go = (page, hash) => page.evaluate((wanted) => { location.hash = wanted; }, hash);
const isDoubtful = (page) => page.$eval('#notice', ({ hidden }) => !hidden);

test('a page that is opened late has the state of the farm', { skip: NO_CHROMIUM }, async (t) => {
  const server = await start(t);
  await server.publish([
    ...oneOfEach(), jobUpdate({ name: 'first' }), jobUpdate({ id: JOB_B, name: 'second', status: 'queued' }), taskUpdate({ activity: 'Fra:7' }),
    taskLog({ log: 'said before' }), { type: 'farm-status', payload: { status: 'active' } },
  ]);
  const { page, errors } = await open(t, `${server.browsers.origin}/`);
  await rows(page, (all) => all.length === 2 && all[0].includes('first') && all[1].includes('second'), 'both jobs');
  await text(page, '#farm', (found) => found === 'farm active');
  await eventually(() => page.$$eval('.row.jobs img[src]', (all) => all.length), (count) => count === 1, 'the last image');
  await go(page, `#job/${JOB_A}`);
  await rows(page, (all) => all.some((row) => row.includes('Fra:7')), 'the task');
  await go(page, `#task/${JOB_A}/${TASK_A}`);
  await rows(page, (all) => all.at(-1) === 'said before', 'the log');
  await go(page, '#workers');
  await rows(page, ([first]) => first?.includes('render-node-03'), 'the worker');
  await text(page, '.bar', (found) => found.includes('tags: GPU'));
  assert.equal(await isDoubtful(page), false);
  // Reloaded, and linked into.
  await page.goto(`${server.browsers.origin}/webupdates/#job/${JOB_A}`);
  await page.reload();
  await text(page, 'h2', (found) => found === 'first');
  await rows(page, (all) => all.some((row) => row.includes('Fra:7')), 'the task after a reload');
  assert.deepEqual(errors, []);
});

test('what a page missed while its network was cut comes, and nothing is in doubt', { skip: NO_CHROMIUM }, async (t) => {
  const server = await start(t);
  await server.publish([jobUpdate({ name: 'gone soon' }), jobUpdate({ id: JOB_B, name: 'stays', status: 'queued' }), workerUpdate()]);
  const { page, errors } = await open(t, `${server.browsers.origin}/`);
  await rows(page, (all) => all.length === 2, 'both jobs');
  const client = await page.createCDPSession();
  await client.send('Network.enable');
  const offline = (isOffline) => client.send('Network.emulateNetworkConditions', { offline: isOffline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  for (const status of ['active', 'completed']) {
    await offline(true);
    await text(page, '#connection', (found) => found.startsWith('reconnecting'));
    await server.publish([{ type: 'job-update', payload: DELETED }, jobUpdate({ id: JOB_B, name: 'stays', status })]);
    await offline(false);
    await isLive(page);
    await rows(page, (all) => all.length === 1 && all[0].includes('stays') && all[0].includes(status), `the job ${status}`);
    assert.equal(await isDoubtful(page), false, 'everything has come');
  }
  await go(page, '#workers');
  await rows(page, (all) => all.length === 1, 'the worker, which was there before');
  assert.deepEqual(errors, []);
});

test('after a restart of the server a page says that it may be outdated', { skip: NO_CHROMIUM }, async (t) => {
  const server = await start(t);
  await server.publish(jobUpdate({ name: 'before' }));
  const { page, errors } = await open(t, `${server.browsers.origin}/`);
  await rows(page, (all) => all.length === 1, 'the job');
  await server.stop('SIGKILL');
  await text(page, '#farm', (found) => found === 'farm unknown');
  await server.startAgain();
  await isLive(page);
  await eventually(() => isDoubtful(page), Boolean, 'the notice');
  await server.publish(jobUpdate({ id: JOB_B, name: 'after' }));
  await rows(page, (all) => all.length === 2, 'both jobs');
  assert.deepEqual(errors, []);
});

test('a dashboard on this server alone has the state at load', { skip: NO_CHROMIUM }, async (t) => {
  const server = await start(t, '--static', DASHBOARD);
  await server.publish([jobUpdate({ name: 'first', status: 'active', steps_completed: 1, steps_total: 2 }), jobUpdate({ id: JOB_B, name: 'second', status: 'queued', steps_total: 0 })]);
  const { page, errors } = await open(t, `${server.browsers.origin}/static/`);
  const cards = () => page.$$eval('#jobs li', (items) => items.map(({ innerText }) => innerText.replaceAll(/\s+/g, ' ').trim()).sort());
  await eventually(cards, (all) => all.join('|') === 'first active · 1 of 2|second queued', 'both jobs');
  assert.deepEqual(errors, []);
});

test('in front of a real Manager a page that is opened late has its farm', { skip: NO_CHROMIUM || NO_FARM, timeout: 300_000 }, async (t) => {
  const farm = await Farm.start(t, '3.9');
  await farm.submit('sleep', '--name', 'before the server', '--tasks', '1', '--seconds', '1');
  const server = await start(t, '--manager', farm.url);
  await eventually(() => server.stats(), ({ sources }) => sources.relay?.state === 'connected', 'the relay to be connected', 60_000);
  const id = await farm.submit('sleep', '--name', 'before the page', '--tasks', '3', '--seconds', '1');
  const { page, errors } = await open(t, `${server.browsers.origin}/webupdates/`);
  await rows(page, (all) => all.length === 2 && all.some((row) => row.includes('before the page')) && all.some((row) => row.includes('before the server')), 'both jobs');
  await go(page, '#workers');
  await rows(page, (all) => all.length === 1, 'the worker');
  await go(page, `#job/${id}`);
  await text(page, 'h2', (found) => found === 'before the page');
  await eventually(() => page.$$eval('.row.tasks', (all) => all.length), (count) => count > 0, 'its tasks', 120_000);
  assert.deepEqual(errors, []);
});
