// Flamenco's own page in a real browser, in front of real Managers of both generations.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import io from 'socket.io-client-2.5.0';
import { launch, NO_CHROMIUM, openPage } from './support/chromium.mjs';
import { Farm, NO_FARM } from './support/flamenco.mjs';
import { Server } from './support/server.mjs';
import { Arrivals, eventually } from './support/wait.mjs';

/** Milliseconds for what a farm does: its workers ask for work every few seconds. */
const PATIENCE_MS = 120_000;

/** Pages say so by themselves, also without this server. */
const USUAL = [
  /unsafe header "User-Agent"/, /value of type XMLHttpRequestResponseType/, /^Flamenco is starting/, /^socketIO (re)?connect/,
  /^task log update/, /^Requesting worker status change/,
];

/** Resolves with all rows of the page's tables, as text, once there is one with all of these words. */
const row = (page, ...words) =>
  eventually(
    () => page.$$eval('.tabulator-row', (rows) => rows.map((row) => row.innerText)),
    (rows) => hasRow(rows, ...words),
    `a row with ${words}`,
    PATIENCE_MS,
  );

const hasRow = (rows, ...words) => rows.some((row) => words.every((word) => row.includes(word)));

const click = (page, selector, text) =>
  page.$$eval(
    selector,
    (found, text) => {
      const element = found.find((one) => one.innerText.includes(text));
      if (!element) throw new Error(`no ${text} among ${found.length}`);
      element.click();
    },
    text,
  );

/** Has the worker that is looked at do something; resolves when the Manager knows. */
const command = async (workers, action) => {
  const known = workers.waitForResponse((answer) => answer.url().endsWith('/setstatus') && answer.ok(), { timeout: PATIENCE_MS });
  // A click does nothing before the page has fetched the worker.
  const sends = async () => {
    const sent = workers.waitForRequest((request) => request.url().endsWith('/setstatus'), { timeout: 2000 }).then(() => true, () => false);
    await workers.select('select', action);
    await click(workers, 'button', 'Apply');
    return sent;
  };
  await Promise.all([known, eventually(sends, (sent) => sent, `the page to send ${action}`, PATIENCE_MS)]);
};

for (const generation of ['3.9', '3.0']) {
  test(`the page of Flamenco ${generation} is live`, { skip: NO_FARM || NO_CHROMIUM }, async (t) => {
    const farm = await Farm.start(t, generation);
    const server = await Server.start({ args: ['--manager', farm.url] });
    t.after(() => server.stop());
    const browser = await launch(t);
    const { page: workers, said: saidWorkers } = await openPage(browser, `${server.browsers}app/workers`);
    const { page: jobs, said } = await openPage(browser, `${server.browsers}app/jobs`);
    // All of the page is laid out, not just the tab that is looked at.
    for (const page of [workers, jobs]) await page.setViewport({ width: 1400, height: 1000 });

    // A worker is sent to sleep: it sleeps.
    await row(workers, 'awake', 'worker-1');
    await workers.$eval('.tabulator-row', (row) => row.click());
    await workers.waitForFunction(() => document.querySelector('select') && document.body.innerText.includes('worker-1'));
    await command(workers, 'asleep_immediate');
    await row(workers, 'asleep', 'worker-1');

    // A job is submitted: it appears.
    const job = await farm.submit('blender', '--name', 'appears', '--frames', '1-30', '--chunk', '30');
    await row(jobs, 'queued', 'appears');
    const { tasks } = await farm.api(`/jobs/${job}/tasks`);
    const render = tasks.find((task) => task.name.startsWith('render'));
    const told = new Arrivals();
    const wire = await jobs.createCDPSession();
    await wire.send('Network.enable');
    wire.on('Network.webSocketFrameReceived', ({ response }) => told.push(response.payloadData));
    await jobs.goto(`${server.browsers}app/jobs/${job}/${render.id}`);
    await row(jobs, 'queued', render.name);
    await jobs.waitForSelector('.app-footer-expand');
    await jobs.click('.app-footer-expand');
    await click(jobs, 'li.footer-tab', 'Task Log');

    // The worker wakes: task and log run live, and an image comes.
    await command(workers, 'wakeup');
    await row(workers, 'awake', 'worker-1');
    await row(jobs, 'Saved:');
    await row(jobs, 'completed', render.name);
    await row(jobs, 'Blender quit');
    // The page also fetches the end of the log when the task changes: its lines came live all the same, while the task ran.
    const isLine = (words) => (frame) => frame.startsWith('42["/tasklog",') && frame.includes(words);
    const isDone = (frame) => frame.startsWith('42["/task",') && frame.includes(render.id) && frame.includes('"status":"completed"');
    await told.until((frames) => frames.some(isLine('Blender quit')) && frames.some(isDone), 'the log and the end of the task to be sent');
    const [line, done] = [isLine('Saved:'), isDone].map((wanted) => told.entries.findIndex(wanted));
    assert.ok(line >= 0 && line < done, `the log comes while the task runs: its first line is frame ${line}, the end frame ${done}`);
    await jobs.waitForFunction(
      (job) => [...document.images].some((image) => image.src.includes(`${job}/last-rendered`) && image.naturalWidth > 0),
      { timeout: PATIENCE_MS },
      job,
    );
    const unusual = [...said, ...saidWorkers].filter((text) => !USUAL.some((usual) => usual.test(text)));
    assert.deepEqual(unusual, [], 'what the pages said on their console');

    // The Manager restarts: the page stays connected and shows what comes after.
    await jobs.goto(`${server.browsers}app/jobs`);
    await row(jobs, 'appears');
    const before = await server.stats();
    await farm.restart();
    await farm.submit('sleep', '--name', 'after-the-restart', '--tasks', '1');
    await row(jobs, 'after-the-restart');
    assert.deepEqual((await server.stats()).disconnects, before.disconnects, 'nobody was sent away');

    // This server is killed and comes back: so does the page, by itself, and shows what it missed.
    await server.stop('SIGKILL');
    await farm.submit('sleep', '--name', 'meanwhile', '--tasks', '1');
    await server.startAgain();
    const began = performance.now();
    await row(jobs, 'meanwhile');
    const took = performance.now() - began;
    assert.ok(took <= 4000, `the page was back after ${took} ms`);
    t.diagnostic(`the page was back after ${Math.round(took)} ms`);
  });

  test(`people chat in front of Flamenco ${generation}`, { skip: NO_FARM }, async (t) => {
    const farm = await Farm.start(t, generation);
    const server = await Server.start({ args: ['--manager', farm.url] });
    t.after(() => server.stop());
    const enter = async (url) => {
      const socket = io(url.toString(), { transports: ['websocket'], forceNew: true });
      t.after(() => socket.close());
      const heard = new Arrivals();
      socket.on('/message', (message) => heard.push(message));
      const connected = new Arrivals();
      socket.on('connect', () => connected.push('connected'));
      await connected.until((entries) => entries.length > 0, `a connection to ${url}`);
      return { socket, hears: (text) => heard.until((messages) => messages.some((message) => message.text === text), text) };
    };
    const [ann, bob] = [await enter(server.browsers), await enter(server.browsers)];
    ann.socket.emit('/chat', { name: 'Ann', text: 'hello 🎬' });
    await Promise.all([ann.hears('hello 🎬'), bob.hears('hello 🎬')]);
    if (generation !== '3.0') return;
    // Only old Managers know of chat.
    const direct = await enter(farm.url);
    direct.socket.emit('/chat', { name: 'Eve', text: 'from the Manager itself' });
    await Promise.all([ann.hears('from the Manager itself'), bob.hears('from the Manager itself')]);
  });
}
