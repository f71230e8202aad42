// The farm page in a real browser.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { launch, NO_CHROMIUM } from '../clients/support/chromium.mjs';
import { JOB_A, jobUpdate, oneOfEach, recordedFarm, TASK_A, taskLog, taskUpdate, workerUpdate } from '../clients/support/farm.mjs';
import { Farm, NO_FARM } from '../clients/support/flamenco.mjs';
import { EVERY_EVENT, Program, Server } from '../clients/support/server.mjs';
import { eventually } from '../clients/support/wait.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const VIEWS = ['#jobs', `#job/${JOB_A}`, `#task/${JOB_A}/${TASK_A}`, '#workers', '#images', '#chat', '#inspector', '#nothing'];
/** Where the picture in the README goes, when it is to be made again: `SCREENSHOT=$PWD/../../docs/page.png npm test`. */
const { SCREENSHOT } = process.env;
/** Events of tests have images that no server has. */
const NO_IMAGE = /^Failed to load resource: the server responded with a status of 404/;

const uuid = (number) => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;

/** A server and its page: `said` is what the browser had to complain about. */
async function start(t, { args = [], hash = '', size = { width: 1200, height: 800 }, path = '', zone } = {}) {
  const server = await Server.start({ args: [...EVERY_EVENT, ...args] });
  t.after(() => server.program.exit ?? server.stop());
  const browser = await launch(t);
  const page = await browser.newPage();
  await page.setViewport(size);
  if (zone) await page.emulateTimezone(zone);
  const said = [];
  page.on('console', (message) => NO_IMAGE.test(message.text()) || said.push(message.text()));
  page.on('pageerror', (error) => said.push(String(error)));
  await page.evaluateOnNewDocument(() => {
    addEventListener('securitypolicyviolation', ({ violatedDirective, sourceFile }) => console.error(`policy: ${violatedDirective} ${sourceFile}`));
  });
  await page.goto(`${server.browsers.origin}/${path}${hash}`);
  await isLive(page);
  return { server, browser, page, said };
}

const isLive = (page) => text(page, '#connection', (found) => found === 'live');

/** The text of an element, once it is as wanted. */
const text = (page, selector, wanted) =>
  eventually(() => page.$eval(selector, (found) => found.innerText).catch(() => undefined), (found) => found !== undefined && wanted(found), `${selector}: ${wanted}`);

/** The texts of the rows in sight, once they are as wanted. */
const rows = (page, wanted, what = 'the rows') =>
  eventually(
    () => page.$$eval('.space > li', (all) => all.map((row) => row.innerText.replaceAll(/\s+/g, ' ').trim())),
    wanted,
    what,
  );

const go = (page, hash) => page.evaluate((wanted) => { location.hash = wanted; }, hash);

const subscribed = (server, room) => eventually(() => server.stats(), ({ rooms }) => rooms[room] > 0, `a subscription to ${room}`);

/** What axe finds wrong. */
async function faults(page) {
  // Through the debugger, as the page's policy lets no script in.
  const client = await page.createCDPSession();
  await client.send('Runtime.evaluate', { expression: AXE });
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(' ')}`);
}

test('every view shows what comes', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t);
  for (const room of ['Jobs', 'Workers', 'Worker-Tags', 'Last-Rendered']) await subscribed(server, room);
  await server.publish(oneOfEach());
  const name = jobUpdate().payload.name;
  await rows(page, ([first]) => first?.includes(name) && first.includes('active') && first.includes('50'), 'the job');
  await text(page, '#farm', (found) => found === 'farm waiting');
  assert.equal(await page.$eval('progress', ({ value, max }) => `${value}/${max}`), '1/20');

  // By the keyboard alone: to the job, its task, and back.
  await page.keyboard.press('Tab');
  for (let tabs = 0; tabs < 10 && !(await page.evaluate(() => document.activeElement.matches('.row'))); tabs++) await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await text(page, 'h2', (found) => found === name);
  assert.equal(await page.evaluate(() => location.hash), `#job/${JOB_A}`);
  await subscribed(server, `job-${JOB_A}`);
  await server.publish(taskUpdate());
  await rows(page, ([first]) => first?.includes('render-1-10') && first.includes('render-node-03') && first.includes('Fra:3 Mem:12.00M'), 'the task');
  await page.click('.row.tasks');
  await subscribed(server, `tasklog-${TASK_A}`);
  await server.publish([taskLog({ log: 'first line\nsecond line\n' }), taskUpdate({ status: 'completed' })]);
  // The view begins with what the server still has of the log.
  await rows(page, (all) => all.slice(-2).join() === 'first line,second line' && all[0] === 'Fra:3', 'the log');
  await text(page, '.head', (found) => found.includes('completed'));

  await go(page, '#workers');
  await rows(page, ([first]) => first?.includes('render-node-03') && first.includes('awake') && first.includes('→ asleep when done'), 'the worker');
  await text(page, '.bar', (found) => found.includes('1 workers · tags: GPU'));
  await subscribed(server, `job-${JOB_A}`);
  await server.publish(taskUpdate({ activity: 'Fra:4' }));
  await rows(page, ([first]) => first.includes('render-1-10: Fra:4'), 'what it works on');
  await go(page, '#images');
  await text(page, '.gallery', (found) => found.includes(name));
  await go(page, '#chat');
  await text(page, '.messages', (found) => found === 'Manager: rendering starts');
  await page.type('[name=name]', 'Ann');
  await page.type('[name=text]', 'hello 🎬');
  await page.keyboard.press('Enter');
  await text(page, '.messages', (found) => found.includes('hello 🎬'));
  assert.equal(await page.$eval('[name=text]', ({ value }) => value), '');
  await go(page, '#jobs');
  await server.publish({ type: 'job-update', payload: { ...jobUpdate().payload, was_deleted: true, status: '', updated: '0001-01-01T00:00:00Z' } });
  await rows(page, (all) => all.length === 0, 'the job to be gone');
  assert.deepEqual(said, []);
});

test('the page has its place without a folder, and can be linked into', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t, { hash: `#task/${JOB_A}/${TASK_A.toUpperCase()}` });
  assert.equal(new URL(page.url()).pathname, '/webupdates/');
  await subscribed(server, `tasklog-${TASK_A}`);
  await go(page, '#job/not-a-uuid');
  await text(page, 'main', (found) => found.includes('There is nothing here.'));
  await eventually(() => server.stats(), ({ rooms }) => !rooms[`tasklog-${TASK_A}`] && !rooms[`job-${JOB_A}`], 'the rooms to be left');
  assert.deepEqual(said, []);
});

test('names are in the order of their numbers, and times are the reader\'s', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t, { hash: `#job/${JOB_A}`, zone: 'Asia/Tokyo' });
  await subscribed(server, `job-${JOB_A}`);
  const names = ['render-1-4', 'render-5-8', 'render-13-16', 'render-101-104'];
  await server.publish([jobUpdate({ updated: '2026-11-24T08:00:00.123456789+01:00' }), ...names.toReversed().map((name, number) => taskUpdate({ id: uuid(number), name }))]);
  await rows(page, (all) => all.length === 4 && all.every((row, at) => row.includes(names[at])), 'the tasks in order');
  await text(page, '.head', (found) => found.includes('Nov 24, 2026, 4:00:00'));
  await server.publish([
    ...[10, 9, 2].map((number) => workerUpdate({ id: uuid(number), name: `node-${number}`, last_seen: '2026-11-24T08:00:00Z', status_change: undefined })),
    taskUpdate({ id: uuid(1), name: 'sleep', activity: '', worker: { name: 'node-9', uuid: uuid(9) } }),
  ]);
  await go(page, '#workers');
  await rows(page, (all) => all.length === 3 && ['node-2', 'node-9', 'node-10'].every((name, at) => all[at].includes(name)), 'the workers in order');
  await rows(page, ([first]) => first.includes('seen Nov 24, 2026, 5:00:00'), 'when it was seen');
  await rows(page, ([, second]) => / sleep 3\./.test(second), 'a task that says nothing of what it does');
  assert.deepEqual(said, []);
});

test('on a phone a job has the whole width, and a worker what it works on', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t, { hash: `#job/${JOB_A}`, size: { width: 390, height: 800, isMobile: true, hasTouch: true } });
  for (const room of ['Workers', `job-${JOB_A}`]) await subscribed(server, room);
  await server.publish([jobUpdate({ name: 'a job with a long name that takes more than one line' }), taskUpdate(), workerUpdate({ status_change: undefined })]);
  await text(page, 'h2', (found) => found.startsWith('a job with'));
  assert.ok((await page.$eval('.head p', (found) => found.clientWidth)) > 300, 'beside no image');
  await go(page, '#workers');
  await rows(page, ([first]) => first?.includes('render-1-10: Fra:3'), 'its work');
  await server.publish(workerUpdate());
  await rows(page, ([first]) => first.includes('→ asleep') && !first.includes('Fra:3'), 'what it is asked for');
  assert.deepEqual(said, []);
});

test('hostile names are shown, and nothing more', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t);
  for (const room of ['Jobs', 'Workers', 'Worker-Tags', 'Last-Rendered']) await subscribed(server, room);
  const names = ['<script>window.hit=1</script>', '<img src=x onerror="window.hit=1">', '"><svg/onload=window.hit=1>', '\u202Eلعبة\u2066', 'x'.repeat(10_000), 'a\u0000b', '\u0000', ''];
  const jobs = names.map((name, number) => jobUpdate({ id: uuid(number), name, priority: 100 - number, type: name || 'x', status: number % 2 ? name || 'x' : 'active' }));
  const others = names.flatMap((name, number) => [
    workerUpdate({ id: uuid(number), name, version: name, status: name || 'x', status_change: { status: name, is_lazy: false } }),
    taskUpdate({ id: uuid(number), name, activity: name, status: name || 'x', worker: { name, uuid: uuid(1) } }),
    { type: 'worker-tag-update', payload: { tag: { id: uuid(number), name } } },
    { type: 'chat-message', payload: { name, text: name } },
    { type: 'last-rendered', payload: { job_id: uuid(number), thumbnail: { base: ['javascript:window.hit=1//', '//evil.example/', 'https://evil.example', 'data:text/html,'][number % 4], suffixes: [name, ''] } } },
    { type: 'farm-status', payload: { status: name || 'x' } },
    taskLog({ log: name }),
  ]);
  for (const view of VIEWS) {
    await go(page, view);
    if (view.startsWith('#job/')) await subscribed(server, `job-${JOB_A}`);
    if (view.startsWith('#task/')) await subscribed(server, `tasklog-${TASK_A}`);
    await server.publish([...jobs, ...others]);
    await server.publish({ type: 'farm-status', payload: { status: `seen in ${VIEWS.indexOf(view)}` } });
    await text(page, '#farm', (found) => found === `farm seen in ${VIEWS.indexOf(view)}`);
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    assert.deepEqual(await page.$$eval('main script, main svg, main [onerror], main iframe', (all) => all.length), 0, view);
    const { wide, hosts } = await page.evaluate(() => ({
      wide: document.documentElement.scrollWidth > innerWidth,
      hosts: [...document.images].map(({ src }) => src && new URL(src).host).filter((host) => host && host !== location.host),
    }));
    assert.deepEqual([wide, hosts], [false, []], view);
  }
  await go(page, '#jobs');
  await rows(page, (all) => all.some((row) => row.includes('<script>window.hit=1</script>')), 'the name');
  assert.equal(await page.evaluate(() => window.hit), undefined);
  assert.deepEqual(said, []);
});

test('payloads of another shape, which a newer Manager may send, harm nothing', { skip: NO_CHROMIUM }, async (t) => {
  const { server, browser } = await start(t);
  const page = await browser.newPage();
  const said = [];
  page.on('pageerror', (error) => said.push(String(error)));
  await page.evaluateOnNewDocument(() => {
    const Original = WebSocket;
    window.WebSocket = class extends Original {
      constructor(...args) {
        super(...args);
        window.receive = (...event) => this.onmessage({ data: `42${JSON.stringify(event)}` });
      }
    };
  });
  await page.goto(`${server.browsers.origin}/webupdates/`);
  await isLive(page);
  const strange = [null, 7, true, [], {}, 'x'];
  for (const view of VIEWS) {
    await go(page, view);
    await page.evaluate((names, strange, job, task, uuid) => {
      for (const one of strange) {
        for (const name of names) window.receive(name, one);
        for (const id of [one, uuid, job, task]) {
          window.receive('/jobs', { id, name: one, status: one, type: one, priority: one, updated: one, steps_total: one, steps_completed: one });
          window.receive('/task', { id, job_id: job, name: one, status: one, activity: one, worker: one, updated: one });
          window.receive('/workers', { id, name: one, status: one, version: one, status_change: one, last_seen: one });
          window.receive('/workertags', { tag: one });
          window.receive('/workertags', { tag: { id, name: one } });
          window.receive('/last-rendered', { job_id: id, thumbnail: one });
          window.receive('/last-rendered', { job_id: id, thumbnail: { base: one, suffixes: one } });
          window.receive('/last-rendered', { job_id: id, thumbnail: { base: one, suffixes: [one] } });
        }
        window.receive('/tasklog', { task_id: task, log: one });
        window.receive('/status', { status: one });
        window.receive('/message', { name: one, text: one });
      }
    }, ['/jobs', '/task', '/tasklog', '/last-rendered', '/workers', '/workertags', '/lifecycle', '/status', '/message'], strange, JOB_A, TASK_A, uuid(7));
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 600)));
  }
  await go(page, '#jobs');
  await server.publish([jobUpdate({ id: uuid(8), name: 'a good one', status: 'active', priority: 100 }), { type: 'farm-status', payload: { status: 'idle' } }]);
  await rows(page, (all) => all.some((row) => row.includes('a good one')), 'the next job');
  await text(page, '#farm', (found) => found === 'farm idle');
  assert.deepEqual(said, []);
});

for (const scheme of ['light', 'dark']) {
  for (const width of [1200, 380]) {
    test(`axe finds nothing wrong, ${scheme}, ${width} pixels wide`, { skip: NO_CHROMIUM }, async (t) => {
      const { server, page, said } = await start(t, { size: { width, height: 800 } });
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
      for (const room of ['Jobs', 'Workers', 'Worker-Tags', 'Last-Rendered']) await subscribed(server, room);
      await server.publish(oneOfEach());
      const statuses = ['active', 'failed', 'queued', 'paused', 'completed', 'unheard-of'];
      await server.publish(statuses.map((status, number) => jobUpdate({ id: uuid(number), name: `shot ${number}`, status })));
      for (const view of VIEWS) {
        await go(page, view);
        if (view.startsWith('#job/')) await subscribed(server, `job-${JOB_A}`);
        if (view.startsWith('#task/')) await subscribed(server, `tasklog-${TASK_A}`);
        await server.publish([taskUpdate(), taskLog()]);
        await server.publish({ type: 'farm-status', payload: { status: `seen in ${VIEWS.indexOf(view)}` } });
        await text(page, '#farm', (found) => found === `farm seen in ${VIEWS.indexOf(view)}`);
        assert.deepEqual(await faults(page), [], view);
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, `${view} is too wide`);
      }
      assert.deepEqual(said, []);
    });
  }
}

test('a server that is killed, or stopped, and comes back has its page back', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page } = await start(t, { hash: `#job/${JOB_A}` });
  await subscribed(server, `job-${JOB_A}`);
  for (const signal of ['SIGKILL', 'SIGTERM']) {
    await server.stop(signal);
    await text(page, '#connection', (found) => found.startsWith('reconnecting'));
    await text(page, '#farm', (found) => found === 'farm unknown');
    await server.startAgain();
    await isLive(page);
    await subscribed(server, `job-${JOB_A}`);
    await server.publish(taskUpdate({ activity: `after ${signal}` }));
    await rows(page, ([first]) => first?.includes(`after ${signal}`), 'the task');
    await text(page, '#notice', (found) => found.includes('may be outdated'));
  }
});

test('a network that is cut, and one that was cut while asleep, is noticed', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page } = await start(t);
  const client = await page.createCDPSession();
  await client.send('Network.enable');
  const offline = (isOffline) => client.send('Network.emulateNetworkConditions', { offline: isOffline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await offline(true);
  await text(page, '#connection', (found) => found.startsWith('reconnecting'));
  await offline(false);
  await isLive(page);
  // The clock has jumped: the page was asleep for longer than a session lives.
  const before = await server.stats();
  await page.evaluate(() => {
    const now = Date.now;
    Date.now = () => now() + 600_000;
    dispatchEvent(new Event('online'));
  });
  await eventually(() => server.stats(), ({ disconnects }) => disconnects['transport-close'] > before.disconnects['transport-close'], 'the session to be given up');
  await isLive(page);
  await subscribed(server, 'Workers');
  await server.publish(jobUpdate());
  await rows(page, (all) => all.length === 1, 'the job');
});

test('2000 jobs at 500 updates a second stay smooth', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t);
  const job = (number, more) => jobUpdate({ id: uuid(number), name: `shot ${number}`, priority: number % 100, status: number % 5 ? 'queued' : 'active', steps_total: 1000, ...more });
  for (let from = 0; from < 2000; from += 100) await server.publish(Array.from({ length: 100 }, (_, at) => job(from + at)));
  await text(page, '.bar', (found) => found.includes('2000 jobs'));
  assert.ok((await page.$$('.row.jobs')).length < 60, 'only the rows in sight exist');
  await rows(page, (all) => all.length > 10 && all.every((row) => row.includes('active')), 'active jobs first');
  await page.evaluate(() => {
    window.frames_ = [];
    const frame = (time) => {
      window.frames_.push(time);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  const began = performance.now();
  let sent = 0;
  for (let turn = 0; turn < 50; turn++) {
    await server.publish(Array.from({ length: 50 }, () => job((sent * 7) % 2000, { steps_completed: sent++ % 1000 })));
    const due = began + (turn + 1) * 100;
    if (due > performance.now()) await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
  }
  const rate = sent / ((performance.now() - began) / 1000);
  const gaps = await page.evaluate(() => window.frames_.slice(1).map((time, at) => time - window.frames_[at]).sort((one, other) => one - other));
  const { TaskDuration, ScriptDuration } = await page.metrics();
  t.diagnostic(`${Math.round(rate)} updates/s; frames: median ${gaps[gaps.length >> 1].toFixed(1)} ms, p95 ${gaps[Math.floor(gaps.length * 0.95)].toFixed(1)} ms; tasks ${TaskDuration.toFixed(2)} s, scripts ${ScriptDuration.toFixed(2)} s`);
  // Of the five seconds, the page may not be busy for most: frames themselves depend on what else the machine does.
  assert.ok(ScriptDuration < 1.5, `${ScriptDuration} s of scripts`);
  // The keys reach the last.
  await page.focus('.row.jobs');
  await page.keyboard.press('End');
  await eventually(() => page.evaluate(() => document.activeElement.closest('li')?.getAttribute('aria-posinset')), (at) => at === '2000', 'the last to have the focus');
  assert.deepEqual(said, []);
});

test('a log of a million lines can be followed and searched', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t, { hash: `#task/${JOB_A}/${TASK_A}`, args: ['--max-body', '100000000'] });
  await subscribed(server, `tasklog-${TASK_A}`);
  const chunk = 10_000;
  for (let from = 0; from < 1_000_000; from += chunk) {
    const lines = Array.from({ length: chunk }, (_, at) => `Fra:${from + at} Mem:12.00M${(from + at) % 100_000 === 77_777 ? ' needle' : ''}`);
    await server.publish(taskLog({ log: lines.join('\n') }));
  }
  await text(page, '.rest', (found) => found.replaceAll(/\D/g, '') === '1000000');
  await rows(page, (all) => all.at(-1) === 'Fra:999999 Mem:12.00M', 'the last line');
  assert.ok((await page.$$('.log li')).length < 100, 'only the lines in sight exist');
  await page.type('input[type=search]', 'needle');
  await text(page, '.bar [role=status]', (found) => found === '10 lines match');
  await page.keyboard.press('Enter');
  await rows(page, (all) => all.includes('Fra:77777 Mem:12.00M needle'), 'the first match');
  await server.publish(taskLog({ log: 'one more' }));
  await text(page, '.rest', (found) => found.includes('dropped'));
  await rows(page, (all) => all.includes('Fra:177777 Mem:12.00M needle') || all.every((row) => row !== 'one more'), 'it not to follow');
  await page.evaluate(() => [...document.querySelectorAll('button')].find((button) => button.textContent === 'Follow').click());
  await rows(page, (all) => all.at(-1) === 'one more', 'it to follow again');
  await page.evaluate(() => [...document.querySelectorAll('button')].find((button) => button.textContent === 'Pause').click());
  await server.publish(taskLog({ log: 'held' }));
  await text(page, '.rest', (found) => found.includes('1 updates held'));
  await page.evaluate(() => [...document.querySelectorAll('button')].find((button) => button.textContent === 'Pause').click());
  await rows(page, (all) => all.at(-1) === 'held', 'what was held');
  assert.deepEqual(said, []);
});

test('the inspector shows, filters, copies and downloads what flows', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t, { hash: '#inspector' });
  for (const room of ['Jobs', 'Workers', 'Worker-Tags', 'Last-Rendered']) await subscribed(server, room);
  await page.type('[name=enter]', `tasklog-${TASK_A}`);
  await page.keyboard.press('Enter');
  await subscribed(server, `tasklog-${TASK_A}`);
  const events = [...oneOfEach().filter(({ type }) => type !== 'task-update'), jobUpdate({ name: "it's" })];
  await server.publish(events);
  await text(page, '.rest', (found) => found === `${events.length} of ${events.length} events`);
  await page.select('select', '/jobs');
  await text(page, '.rest', (found) => found.startsWith('3 of'));
  await page.type('input[placeholder="UUID or text"]', "IT'S");
  await text(page, '.rest', (found) => found.startsWith('1 of'));
  await page.click('.row.events');
  const json = await text(page, 'pre', (found) => found.includes('"name"'));
  assert.deepEqual(JSON.parse(json.slice(json.indexOf('{'))), events.at(-1).payload);
  await page.browserContext().overridePermissions(server.browsers.origin, ['clipboard-read', 'clipboard-write', 'clipboard-sanitized-write']);
  await page.bringToFront();
  await page.evaluate(() => [...document.querySelectorAll('button')].find((button) => button.textContent === 'Copy as curl').click());
  await text(page, '.inspector > div:last-child .rest', (found) => found === 'copied');
  const command = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(command, /^curl -X POST http:\/\/127\.0\.0\.1:8082\/api\/events -H 'Content-Type: application\/json' --data-raw '\{"type":"job-update",.*it'\\''s/);
  // What is downloaded can be posted again.
  await page.select('select', '');
  await page.$eval('input[placeholder="UUID or text"]', (input) => { input.value = ''; input.dispatchEvent(new Event('input')); });
  await page.evaluate(() => {
    URL.createObjectURL = (blob) => { window.blob = blob; return 'about:blank#'; };
    HTMLAnchorElement.prototype.click = () => {};
    [...document.querySelectorAll('button')].find((button) => button.textContent === 'Download as NDJSON').click();
  });
  const lines = (await page.evaluate(() => window.blob.text())).trimEnd().split('\n');
  assert.deepEqual(lines.map((line) => JSON.parse(line).payload), events.map(({ payload }) => payload));
  const replayed = new Program(['replay', '-', server.manager.origin, '--speed', 'max'], { stdin: 'pipe' });
  replayed.stdin.end(lines.map((line) => `${line}\n`).join(''));
  assert.equal((await replayed.ended()).code, 0, replayed.stderr);
  await text(page, '.rest', (found) => found === `${2 * events.length} of ${2 * events.length} events`);
  await page.evaluate(() => [...document.querySelectorAll('button')].find((button) => button.textContent === 'Pause').click());
  await server.publish(jobUpdate());
  await text(page, '.rates', (found) => /\/jobs \d/.test(found));
  await text(page, '.rest', (found) => found === `${2 * events.length} of ${2 * events.length} events, paused`);
  assert.deepEqual(said, []);
});

test('a recorded farm is shown', { skip: NO_CHROMIUM }, async (t) => {
  const { server, page, said } = await start(t);
  for (const room of ['Jobs', 'Workers', 'Worker-Tags', 'Last-Rendered']) await subscribed(server, room);
  const events = recordedFarm();
  await server.publishLines(events.map(({ line }) => line));
  const jobs = new Map(events.filter(({ type }) => /job/.test(type)).map(({ payload }) => [payload.id, payload]));
  const left = [...jobs.values()].filter(({ was_deleted }) => !was_deleted);
  await text(page, '.rest', (found) => found === `${left.length} jobs`);
  await rows(page, (all) => all.length === left.length && left.every(({ name, status }) => all.some((row) => row.includes(name) && row.includes(status))), 'its jobs');
  assert.deepEqual(said, []);
});

test('the simulated farm is shown', { skip: NO_CHROMIUM }, async (t) => {
  const { page, said } = await start(t, { args: ['--demo'], size: { width: 1100, height: 420 } });
  await rows(page, (all) => all.length > 2 && all.some((row) => row.includes('active')), 'an active job among others');
  await eventually(() => page.$$eval('.row.jobs img', (all) => all.filter(({ naturalWidth }) => naturalWidth > 0).length), (count) => count > 1, 'pictures');
  if (SCREENSHOT) await page.screenshot({ path: SCREENSHOT });
  await go(page, '#images');
  await eventually(() => page.$$eval('.gallery img', (all) => all.length > 1 && all.every(({ naturalWidth }) => naturalWidth > 0)), Boolean, 'every image of the gallery');
  await go(page, '#workers');
  await rows(page, (all) => all.filter((row) => row.includes('awake')).length > 3, 'workers');
  assert.deepEqual(said, []);
});

for (const generation of ['3.9', '3.0']) {
  test(`a real farm of ${generation} is shown beside its own page`, { skip: NO_CHROMIUM || NO_FARM, timeout: 300_000 }, async (t) => {
    const farm = await Farm.start(t, generation);
    const before = await farm.submit('blender', '--name', 'rendered before', '--frames', '1-2', '--chunk', '1');
    const hasImage = async () => (await fetch(`${farm.url}/api/v3/jobs/${before}/last-rendered`)).status === 200;
    await eventually(hasImage, Boolean, 'an image', 120_000);
    const { page, said, server } = await start(t, { args: ['--manager', farm.url], path: 'webupdates/' });
    await subscribed(server, 'Workers');
    await rows(page, (all) => all.some((row) => row.includes('rendered before')), 'the job from before');
    await eventually(() => page.$$eval('.row.jobs img', (all) => all.some(({ naturalWidth }) => naturalWidth > 0)), Boolean, 'its image');
    await go(page, `#job/${before}`);
    await rows(page, (all) => all.some((row) => row.includes('render-1') && row.includes('completed')), 'its tasks');
    await go(page, '#workers');
    await rows(page, ([first]) => first?.includes('worker-1') && first.includes('awake'), 'its worker');

    await go(page, '#images');
    await text(page, '.gallery', (found) => found.includes('rendered before'));
    const isThere = () => page.$$eval('.gallery img', (all) => all.some(({ naturalWidth }) => naturalWidth > 0));
    await eventually(isThere, Boolean, 'its image in the gallery');
    await go(page, '#chat');
    await page.type('[name=name]', 'Ann');
    await page.type('[name=text]', 'hello 🎬');
    await page.keyboard.press('Enter');
    // By way of a Manager of 3.0, which has a chat of its own.
    await text(page, '.messages', (found) => found.includes('hello 🎬'));
    await go(page, '#inspector');
    await text(page, '.rest', (found) => found.includes('events'));

    const id = await farm.submit('sleep', '--name', 'a real one', '--tasks', '40', '--seconds', '1');
    await page.type('input[placeholder="UUID or text"]', id);
    await text(page, '.rest', (found) => /^[1-9]/.test(found));
    await page.click('.row.events');
    await text(page, 'pre', (found) => found.includes(id));
    await go(page, `#job/${id}`);
    await subscribed(server, `job-${id}`);
    const finished = () => page.$$eval('.row.tasks', (all) => all.filter((row) => row.innerText.includes('completed')).length);
    await eventually(finished, (count) => count > 0, 'a task to be completed', 120_000);
    assert.equal((await page.$$('.row.tasks')).length > 10, true, 'tasks that have not begun are there');

    await page.evaluate(() => [...document.querySelectorAll('.row.tasks')].find((row) => row.innerText.includes('completed')).click());
    await rows(page, (all) => all.some((row) => row.includes('changed status')), 'the log of a completed task');

    await farm.restart();
    await farm.submit('sleep', '--name', 'another', '--tasks', '1');
    await go(page, '#jobs');
    await eventually(() => page.$$eval('.row.jobs', (all) => all.some((row) => row.innerText.includes('another'))), Boolean, 'the next job', 120_000);
    if (generation === '3.9') await text(page, '#farm', (found) => !found.includes('unknown'));
    assert.deepEqual(said, []);
  });
}

test("in front of a Manager the page begins with the Manager's own lists, and goes back to them", { skip: NO_CHROMIUM }, async (t) => {
  const task = (number, more) => ({ id: uuid(number), name: `render-${number}`, status: 'completed', updated: '2026-11-24T08:00:00Z', worker: { id: uuid(9), name: 'node-9' }, ...more });
  const known = {
    '/api/v3/version': { name: 'Flamenco', version: '3.9', shortversion: '3.9', git: '-' },
    [`/api/v3/jobs/${JOB_A}/tasks`]: { tasks: [task(1), task(2)] },
    [`/api/v3/jobs/${JOB_A}/last-rendered`]: { base: '/job-files/a', suffixes: ['last-rendered.jpg', 'last-rendered-small.jpg'] },
    [`/api/v3/tasks/${uuid(2)}/log`]: { job_id: JOB_A, task_id: uuid(2), size: 14, url: '/task-logs/a.txt' },
    [`/api/v3/worker-mgt/workers/${uuid(9)}`]: { id: uuid(9), tags: [{ name: 'GPU' }], task: { ...task(3), status: 'active', job_id: JOB_A } },
  };
  const asked = [];
  const manager = http.createServer(({ url }, answer) => {
    asked.push(url);
    if (url.startsWith('/job-files/')) return answer.setHeader('content-type', 'image/svg+xml').end('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>');
    if (url === '/task-logs/a.txt') return answer.end('one\ntwo\nthree\n');
    return known[url] ? answer.setHeader('content-type', 'application/json').end(JSON.stringify(known[url])) : answer.writeHead(url.endsWith('/last-rendered') ? 204 : 404).end();
  });
  await new Promise((resolve) => manager.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    manager.close();
    manager.closeAllConnections();
  });
  const path = 'farm/webupdates/';
  const { server, page, said } = await start(t, { path, args: ['--manager', `http://127.0.0.1:${manager.address().port}`, '--task-logs', 'off', '--path', '/farm/socket.io'] });
  for (const room of ['Jobs', 'Workers']) await subscribed(server, room);
  await server.publish([jobUpdate({ name: 'rendered before' }), jobUpdate({ id: uuid(5), name: 'without an image' }), workerUpdate({ id: uuid(9), name: 'node-9', status_change: undefined })]);
  await eventually(() => page.$$eval('.row.jobs img', (all) => all.filter(({ naturalWidth }) => naturalWidth > 0).length), (count) => count === 1, 'the image');
  await go(page, '#images');
  await text(page, '.gallery', (found) => found === 'rendered before');
  await go(page, '#workers');
  await rows(page, ([first]) => first?.includes('GPU') && first.includes('render-3'), 'its tag and its task');
  await go(page, `#job/${JOB_A}`);
  await rows(page, (all) => all.length === 2 && all.every((row) => row.includes('completed') && row.includes('node-9')), 'its tasks');
  // An update stays that is newer than the list, which is asked for again after a change of many tasks.
  await server.publish(taskUpdate({ id: uuid(2), name: 'render-2', status: 'failed', updated: '2026-11-24T09:00:00Z' }));
  await rows(page, ([, second]) => second.includes('failed'), 'the newer update');
  known[`/api/v3/jobs/${JOB_A}/tasks`] = { tasks: [task(1, { status: 'canceled', updated: '2026-11-24T08:30:00Z' }), task(2)] };
  await server.publish(jobUpdate({ name: 'rendered before', refresh_tasks: true }));
  await rows(page, ([first, second]) => first.includes('canceled') && second.includes('failed'), 'the changed tasks');
  await server.publish(taskLog({ task_id: uuid(2), log: 'three\nfour' }));
  await go(page, `#task/${JOB_A}/${uuid(2)}`);
  await subscribed(server, `tasklog-${uuid(2)}`);
  await rows(page, (all) => all.join() === 'one,two,three,four', 'the log, whose end the server has too');
  await server.publish(taskLog({ task_id: uuid(2), log: 'five' }));
  await rows(page, (all) => all.at(-1) === 'five' && all.length === 5, 'its next line');
  assert.equal(asked.filter((url) => url.endsWith(`${JOB_A}/last-rendered`)).length, 1, 'each image is asked for once');
  assert.deepEqual(said, []);

  // A server that was started again knows little; the Manager knows all.
  await server.stop('SIGKILL');
  await text(page, '#connection', (found) => found.startsWith('reconnecting'));
  known['/api/v3/jobs'] = { jobs: [{ ...jobUpdate({ id: uuid(6), name: 'new' }).payload }] };
  await server.startAgain();
  await isLive(page);
  await go(page, '#jobs');
  await text(page, '#notice', (found) => found.includes('may be outdated'));
  known['/api/v3/worker-mgt/workers'] = { workers: [] };
  await rows(page, (all) => all.length === 1 && all[0].includes('new'), 'the jobs of the Manager');
  assert.equal(await page.$eval('#notice', ({ hidden }) => hidden), true);
});
