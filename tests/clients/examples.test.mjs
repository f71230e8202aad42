// The programs in examples/, as their users run them.

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch, NO_CHROMIUM, openPage } from './support/chromium.mjs';
import { asReceived, JOB_A, jobUpdate, oneOfEach, taskUpdate } from './support/farm.mjs';
import { RawBrowser } from './support/raw.mjs';
import { LOOPBACK, request, Server } from './support/server.mjs';
import { Arrivals, eventually, within } from './support/wait.mjs';

const EXAMPLES = fileURLToPath(new URL('../../examples/', import.meta.url));
const missing = (program, ...args) => (spawnSync(program, args).status === 0 ? false : `no ${program}`);
const NO_PYTHON = missing('python3', '--version');
const NO_GO = missing('go', 'version');
const NO_PAGE = existsSync(join(EXAMPLES, 'page/node_modules')) ? false : 'not fetched: `npm ci` in examples/page, as `./test` does';
const TOKEN = 'token-of-the-examples';

/** Runs a program to its end, with `input` on its stdin. */
async function ran(program, args, input = '', env = process.env) {
  const child = spawn(program, args, { env });
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (text) => (said[name] += text));
  const closed = once(child, 'close');
  child.stdin.on('error', () => {}).end(input);
  try {
    const [code] = await within(closed, `${program} to end`, () => said, 30_000);
    return { code, ...said };
  } finally {
    child.kill('SIGKILL');
  }
}

async function start(t, options) {
  const server = await Server.start(options);
  t.after(() => server.stop());
  return server;
}

/** A server with the Manager's token, and the file that holds it. */
async function startWithToken(t) {
  const folder = mkdtempSync(join(tmpdir(), 'webupdates-examples-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'token');
  writeFileSync(file, `${TOKEN}\n`, { mode: 0o600 });
  return { server: await start(t, { args: ['--manager-token-file', file], token: TOKEN }), file };
}

/**
 * A proxy in front of the Manager's port that refuses the first request, passes on the second and loses its answer, and from
 * then on passes on everything. It keeps the bodies that it was sent.
 */
async function unreliable(t, server) {
  const bodies = [];
  const proxy = http.createServer(async (incoming, outgoing) => {
    let body = '';
    for await (const chunk of incoming.setEncoding('utf8')) body += chunk;
    bodies.push(body);
    if (bodies.length === 1) return outgoing.writeHead(503, { 'retry-after': '0' }).end('later');
    const headers = { 'content-type': incoming.headers['content-type'] };
    const { status, text } = await request(new URL(incoming.url, server.manager), { method: 'POST', headers, body });
    if (bodies.length === 2) return incoming.socket.destroy();
    outgoing.writeHead(status).end(text);
  });
  proxy.listen(0, LOOPBACK);
  await once(proxy, 'listening');
  t.after(() => {
    proxy.closeAllConnections();
    proxy.close();
  });
  return { url: `http://${LOOPBACK}:${proxy.address().port}`, bodies };
}

/** What the jobs' room has heard, as statuses. */
const statuses = (browser) => browser.take().map((packet) => JSON.parse(packet.slice(2))).filter(([name]) => name === '/jobs').map(([, job]) => job.status);

describe('the Manager in Python', { skip: NO_PYTHON }, () => {
  const manager = (...args) => ran('python3', [join(EXAMPLES, 'manager.py'), ...args]);

  test('publishes a job from its creation to its end', async (t) => {
    const { server, file } = await startWithToken(t);
    const browser = await RawBrowser.connect(t, server);
    const { code, stdout, stderr } = await manager(server.manager.origin, file);
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, /^published [0-9a-f-]{36}\n$/);
    await server.settle(browser);
    assert.deepEqual(statuses(browser), ['queued', 'active', 'completed']);
  });

  test('retries with the same ids, so that nothing is published twice', async (t) => {
    const server = await start(t);
    const browser = await RawBrowser.connect(t, server);
    const { url, bodies } = await unreliable(t, server);
    const { code, stderr } = await manager(url);
    assert.equal(code, 0, stderr);
    assert.equal(stderr.match(/^retrying: /gm)?.length, 2, stderr);
    assert.equal(new Set(bodies.slice(0, 3)).size, 1, 'all three attempts are the same bytes');
    await server.settle(browser);
    assert.deepEqual(statuses(browser), ['queued', 'active', 'completed']);
    assert.equal((await server.stats()).refused.repeated, 2);
  });

  test('gives up at once where it is refused', async (t) => {
    const { server } = await startWithToken(t);
    const { code, stderr } = await manager(server.manager.origin);
    assert.equal(code, 1);
    assert.match(stderr, /Refused: 401 /);
    assert.doesNotMatch(stderr, /retrying/);
  });
});

describe('the forwarder in Go', { skip: NO_GO, timeout: 180_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'webupdates-forwarder-'));
  after(() => rmSync(folder, { recursive: true }));
  const binary = join(folder, 'forwarder');
  const forward = (input, ...args) => {
    if (!existsSync(binary)) execFileSync('go', ['build', '-o', binary, '.'], { cwd: join(EXAMPLES, 'forwarder') });
    return ran(binary, args, input);
  };
  const lines = (events) => events.map((event) => `${JSON.stringify(event)}\n`).join('');

  test('is formatted and vetted', () => {
    const cwd = join(EXAMPLES, 'forwarder');
    assert.equal(execFileSync('gofmt', ['-l', '.'], { cwd, encoding: 'utf8' }), '');
    execFileSync('go', ['vet', './...'], { cwd });
  });

  test('forwards every kind of event, and more than fit a request, in their order', async (t) => {
    const { server, file } = await startWithToken(t);
    const browser = await RawBrowser.connect(t, server);
    const events = [...oneOfEach(), ...Array.from({ length: 2500 }, (_, priority) => jobUpdate({ priority, name: '<a> & 🎬' }))];
    const { code, stdout, stderr } = await forward(lines(events), '-token-file', file, server.manager.origin);
    assert.deepEqual([code, stdout, stderr], [0, `forwarded ${events.length}\n`, '']);
    await server.settle(browser);
    const heard = browser.take().map((packet) => JSON.parse(packet.slice(2))).filter(([name]) => name === '/jobs').slice(-2500);
    assert.deepEqual(heard, asReceived(events.slice(-2500)));
  });

  test('retries with the same ids, so that nothing is published twice', async (t) => {
    const server = await start(t);
    const browser = await RawBrowser.connect(t, server);
    const { url, bodies } = await unreliable(t, server);
    const events = ['queued', 'active', 'completed'].map((status) => jobUpdate({ status }));
    const { code, stdout, stderr } = await forward(lines(events), url);
    assert.deepEqual([code, stdout], [0, 'forwarded 3\n'], stderr);
    assert.equal(new Set(bodies).size, 1);
    assert.equal(bodies.length, 3);
    await server.settle(browser);
    assert.deepEqual(statuses(browser), ['queued', 'active', 'completed']);
    assert.equal((await server.stats()).refused.repeated, 3);
  });

  test('says which event is refused, and gives up', async (t) => {
    const server = await start(t);
    const { code, stderr } = await forward(lines([jobUpdate(), { type: 'nonsense', payload: {} }]), server.manager.origin);
    assert.equal(code, 1);
    assert.match(stderr, /refused: 422 .*"line":2/);
  });
});

describe('the page', { skip: NO_PAGE }, () => {
  async function serve(t, server) {
    const child = spawn('node', [join(EXAMPLES, 'page/serve.mjs'), server, '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => child.kill());
    const said = new Arrivals();
    child.stdout.setEncoding('utf8').on('data', (text) => said.push(text));
    const text = await said.until((all) => /^page (\S+)\n/.exec(all.join('')), 'the address of the page');
    return text[1];
  }

  test('is served with its library and the address of the server', async (t) => {
    const url = await serve(t, 'http://updates.example:8081');
    for (const [path, type, content] of [
      ['/', 'text/html; charset=utf-8', /<script src="\/socket\.io\.js">/],
      ['/page.js', 'text/javascript; charset=utf-8', /subscribe/],
      ['/socket.io.js', 'text/javascript; charset=utf-8', /socket\.io-client|Socket\.IO v2\.5\.0/i],
      ['/server.json', 'application/json', /^{"updates":"http:\/\/updates\.example:8081"}$/],
    ]) {
      const answer = await request(new URL(path, url));
      assert.deepEqual([answer.status, answer.headers['content-type']], [200, type], path);
      assert.match(answer.text, content, path);
    }
    assert.equal((await request(new URL('/serve.mjs', url))).status, 404);
  });

  test('shows jobs, and the tasks of the selected job, also after a restart of the server', { skip: NO_CHROMIUM, timeout: 120_000 }, async (t) => {
    const server = await start(t, { args: ['--allow-origin', '*'] });
    const chromium = await launch(t);
    const { page, said } = await openPage(chromium, await serve(t, server.browsers.origin));
    const text = (selector, wanted) => eventually(() => page.$eval(selector, (element) => element.innerText), (now) => wanted.test(now), `${selector} to show ${wanted}`);
    await text('#connection', /live/);

    await server.publish(jobUpdate({ name: '<b>shot</b> 🎬', status: 'active' }));
    await text('#jobs', /<b>shot<\/b> 🎬\s+active/);
    await page.click(`[id="${JOB_A}"]`);
    await eventually(() => server.stats(), (stats) => stats.rooms[`job-${JOB_A}`] === 1, 'the subscription');
    await server.publish(taskUpdate({ activity: 'rendering frame 1' }));
    await text('#tasks', /rendering frame 1/);

    await server.stop();
    await text('#connection', /reconnecting/);
    await server.startAgain();
    await text('#connection', /live/);
    await eventually(() => server.stats(), (stats) => stats.rooms[`job-${JOB_A}`] === 1, 'the subscription after the restart');
    await server.publish(taskUpdate({ activity: 'rendering frame 2' }));
    await text('#tasks', /rendering frame 2/);
    await server.publish({ type: 'job-update', payload: { id: JOB_A, updated: '0001-01-01T00:00:00Z', status: '', type: '', priority: 0, refresh_tasks: false, was_deleted: true } });
    await eventually(() => page.$$eval('#jobs tr', (rows) => rows.length), (rows) => rows === 0, 'the job to go');
    assert.deepEqual(said.filter((line) => /subscribe|TypeError/.test(line)), []);
  });
});

describe('the client that resumes', { skip: NO_PAGE, timeout: 120_000 }, () => {
  test('misses and repeats nothing while its connection is cut again and again', async (t) => {
    const server = await start(t);
    const cuts = await Cuts.open(t, server.browsers);
    const client = spawn('node', [join(EXAMPLES, 'page/resume.mjs'), cuts.origin, 'Chat', 'Jobs']);
    t.after(() => client.kill('SIGKILL'));
    const lines = new Arrivals();
    let stderr = '';
    client.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
    createInterface({ input: client.stdout }).on('line', (line) => lines.push(JSON.parse(line)));
    const numbers = () => lines.entries.filter(({ name }) => name === '/message').map(({ payload }) => Number(payload.text));
    await eventually(() => server.stats(), ({ rooms }) => rooms.Chat === 1, 'the client in its room');

    const count = 600;
    for (let number = 1; number <= count; number += 1) {
      await server.publish({ type: 'chat-message', payload: { name: '', text: String(number) } });
      // At any point of a connection's life: while it opens, resumes, or is live.
      if (number % 40 === 0) {
        const { recovered } = (await server.stats()).resumes;
        cuts.cut();
        if (number % 80 === 0) await eventually(() => server.stats(), ({ resumes }) => resumes.recovered > recovered, 'it to be back');
      }
      if (number % 7 === 0) await server.publish(jobUpdate({ priority: number }));
    }
    await lines.until(() => numbers().at(-1) === count, 'the last message');
    assert.deepEqual(numbers(), Array.from({ length: count }, (_, index) => index + 1));
    const { resumes } = await server.stats();
    assert.ok(resumes.recovered >= 7, JSON.stringify(resumes));
    assert.equal(stderr, 'connected\n');

    // After a restart of the server there is another history, which it says.
    await server.stop('SIGKILL');
    await server.startAgain();
    await eventually(() => stderr, (text) => text.includes('state anew'), 'the end of the history', 20_000);
    assert.match(stderr, /state anew: the token is of another history/);
  });
});

/** A relay of connections, which it cuts on demand. */
class Cuts {
  #open = new Set();

  static async open(t, { origin }) {
    const cuts = new Cuts();
    const target = Number(new URL(origin).port);
    const relay = net.createServer((client) => {
      const upstream = net.connect(target, LOOPBACK);
      for (const [from, to] of [[client, upstream], [upstream, client]]) {
        cuts.#open.add(from);
        from.on('error', () => {}).on('close', () => to.destroy()).pipe(to);
      }
    });
    relay.listen(0, LOOPBACK);
    await once(relay, 'listening');
    t.after(() => {
      relay.close();
      cuts.cut();
    });
    cuts.origin = `http://${LOOPBACK}:${relay.address().port}`;
    return cuts;
  }

  cut() {
    for (const socket of this.#open) socket.destroy();
    this.#open.clear();
  }
}
