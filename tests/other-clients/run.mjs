// Clients of other languages and versions, each as a process of its own, against a server that is killed and comes back. Prints
// a table for docs/protocol.md; exits with 1 if a client that must work does not.
//
//   node run.mjs [WORD…]       only clients whose names hold one of the words

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { EVERY_EVENT, LOOPBACK, Server } from '../clients/support/server.mjs';
import { Arrivals } from '../clients/support/wait.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const load = createRequire(import.meta.url);
const BUILT = process.env.OTHER_CLIENTS_BUILT ?? `${here}built`;

const EVENTS = 2000;
const IDLE_MS = 7000;
const UNICODE = 'čau 🎬 \u2028 “ahoj” \u0000 نور';
const job = (fields) => ({
  type: 'job-update',
  payload: {
    id: '4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21', name: 'shot', updated: '2026-11-23T08:00:00Z', status: 'active', type: 'x',
    priority: 0, refresh_tasks: false, ...fields,
  },
});

// ---- the clients

const NODE = ['1.4.8', '1.7.4', '2.0.4', '2.5.0'];
const NEWER = ['3.1.3', '4.8.1'];
const JAVA = ['0.8.3', '1.0.0', '1.0.2'];
const ALL = ['websocket', 'polling', 'upgrade'];

const module_ = (version) => `socket.io-client-${version}`;
const bun = `${here}node_modules/@oven/bun-linux-x64-baseline/bin/bun`;

function clients() {
  const found = [];
  const add = (name, transports, command, more = {}) => found.push({ name, transports, command, ...more });
  for (const version of NODE) {
    add(`socket.io-client ${version}, Node`, ALL, ['node', `${here}bridge.cjs`, module_(version)]);
  }
  if (existsSync(bun)) add('socket.io-client 2.5.0, Bun', ALL, [bun, `${here}bridge.cjs`, module_('2.5.0')]);
  else leaveOut('Bun: npm has no build of it for this machine');
  for (const version of JAVA) {
    const folder = `${BUILT}/java-${version}`;
    if (existsSync(folder)) add(`socket.io-client-java ${version}`, ALL, ['java', '-cp', `${folder}:${folder}/*`, 'Bridge']);
    else leaveOut(`Java ${version}: it was not built`);
  }
  if (existsSync(`${BUILT}/go`)) {
    add('graarh/golang-socketio, Go', ['websocket'], [`${BUILT}/go`], { comesBack: false, pingsOnItsOwn: true, shuffles: true });
  } else leaveOut('Go: it was not built');
  if (process.env.FIREFOX) add('socket.io-client 2.5.0, Firefox', ALL, null, { firefox: true });
  else leaveOut('Firefox: none was found');
  for (const version of NEWER) {
    add(`socket.io-client ${version}, Node`, ['websocket', 'polling'], ['node', `${here}bridge.cjs`, module_(version)], { refused: true });
  }
  const newerJava = `${BUILT}/java-2.1.2`;
  if (existsSync(newerJava)) {
    add('socket.io-client-java 2.1.2', ['websocket', 'polling'], ['java', '-cp', `${newerJava}:${newerJava}/*`, 'Bridge'], { refused: true });
  }
  return found;
}

const leftOut = [];
function leaveOut(what) {
  leftOut.push(what);
}

/** A client as a process that is told what to do and says what happens, in lines of JSON. */
class Process {
  #arrivals = new Arrivals();
  lines = [];

  constructor(command) {
    this.child = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
    createInterface({ input: this.child.stdout }).on('line', (line) => this.took(JSON.parse(line)));
    this.child.stderr.resume();
    this.child.on('error', (error) => this.took({ fact: 'error', message: error.message }));
  }

  took(line) {
    this.lines.push(line);
    this.#arrivals.push(line);
  }

  send(command) {
    // In ASCII: to some readers of lines, U+2028 ends one.
    const ascii = JSON.stringify(command).replace(/[^\x00-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
    this.child.stdin.write(`${ascii}\n`);
  }

  until(question, what) {
    return this.#arrivals.until(() => question(this.lines), what);
  }

  async close() {
    this.child.kill('SIGKILL');
  }
}

/** The same in a page of Firefox. */
class Page extends Process {
  static async open(url, transport) {
    const { default: puppeteer } = await import('puppeteer-core');
    const bundle = readFileSync(load.resolve('socket.io-client-2.5.0/dist/socket.io.js'));
    const pages = http.createServer((request, response) => {
      const isScript = request.url === '/socket.io.js';
      response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html; charset=utf-8');
      response.end(isScript ? bundle : '<!doctype html><title>Farm</title><script src="socket.io.js"></script>');
    });
    await new Promise((resolve) => pages.listen(Page.port, LOOPBACK, resolve));
    const browser = await puppeteer.launch({ browser: 'firefox', executablePath: process.env.FIREFOX, headless: true });
    const page = await browser.newPage();
    const opened = new Page(['true']);
    Object.assign(opened, { browser, pages, page });
    await page.exposeFunction('say', (line) => opened.took(line));
    await page.goto(`http://${LOOPBACK}:${Page.port}/`);
    await page.evaluate((address, name) => {
      const transports = name === 'upgrade' ? ['polling', 'websocket'] : [name];
      const socket = (window.socket = window.io(address, { transports, reconnectionDelay: 250, reconnectionDelayMax: 1000 }));
      socket.on('connect', () => window.say({ fact: 'connect' }));
      socket.on('disconnect', (reason) => window.say({ fact: 'disconnect', reason }));
      for (const event of ['/jobs', '/message']) socket.on(event, (payload) => window.say({ event: [event, payload] }));
    }, url, transport);
    return opened;
  }

  send({ emit }) {
    this.page.evaluate((...request) => window.socket.emit(...request, (answer) => window.say({ ack: answer })), ...emit);
  }

  async close() {
    await this.browser.close();
    this.pages.closeAllConnections();
    this.pages.close();
  }
}

// ---- what is tried

const count = (lines, fact) => lines.filter((line) => line.fact === fact).length;
const events = (lines, name) => lines.filter(({ event }) => event?.[0] === name).map(({ event }) => event[1]);

const CHECKS = {
  connect: async ({ client }) => client.until((lines) => count(lines, 'connect') > 0, 'the client to connect'),
  acknowledgement: async ({ client }) => {
    client.send({ emit: ['/subscription', { op: 'subscribe', type: 'allWorkers' }] });
    await client.until((lines) => lines.some(({ ack }) => ack === 'ok'), 'ok');
  },
  'chat, Unicode': async ({ client }) => {
    client.send({ emit: ['/chat', { name: 'a', text: UNICODE }] });
    await client.until((lines) => events(lines, '/message').some(({ text }) => text === UNICODE), 'the message');
  },
  '60 KB': async ({ client, server }) => {
    const name = 'ž'.repeat(30_000);
    await server.publish(job({ name, priority: -1 }));
    await client.until((lines) => events(lines, '/jobs').some((received) => received.name === name), 'the event');
  },
  [`${EVENTS} in order`]: async ({ client, server, row }) => {
    const numbers = Array.from({ length: EVENTS }, (_, number) => number + 1);
    await server.publishOneByOne(numbers.map((priority) => job({ priority })));
    const received = (lines) => events(lines, '/jobs').map(({ priority }) => priority).filter((priority) => priority > 0);
    await client.until((lines) => received(lines).length >= EVENTS, 'all events');
    const inOrder = received(client.lines);
    if (!row.shuffles) return assert.deepEqual(inOrder, numbers);
    assert.deepEqual(inOrder.sort((a, b) => a - b), numbers);
    return 'all; its handlers run side by side';
  },
  idle: async ({ client }) => {
    await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
    assert.equal(count(client.lines, 'disconnect'), 0);
  },
  'kill -9': async ({ client, server, row }) => {
    await server.stop('SIGKILL');
    if (row.comesBack === false) return 'does not reconnect by itself';
    await server.startAgain();
    const before = count(client.lines, 'connect');
    await client.until((lines) => count(lines, 'connect') > before || before > 1, 'the client to come back');
    await server.publish(job({ priority: -2 }));
    await client.until((lines) => events(lines, '/jobs').some(({ priority }) => priority === -2), 'an event after that');
  },
};

async function refusal({ client }) {
  await client.until((lines) => lines.some(({ message }) => message?.includes('socket.io-client 1.x and 2.x')), 'our sentence');
  return 'is told which clients work';
}

async function attempt(row, transport) {
  // A page's origin has to be known before the server starts.
  Page.port = 20_000 + Math.floor(Math.random() * 20_000);
  const timing = row.pingsOnItsOwn ? [] : ['--ping-interval', '2s', '--ping-timeout', '3s'];
  const server = await Server.start({ args: [...EVERY_EVENT, ...timing, '--allow-origin', `http://${LOOPBACK}:${Page.port}`] });
  const url = server.browsers.origin;
  const client = row.firefox ? await Page.open(url, transport) : new Process([...row.command, url, transport]);
  const results = {};
  try {
    for (const [name, check] of row.refused ? [['connect', refusal]] : Object.entries(CHECKS)) {
      try {
        results[name] = (await check({ client, server, row })) ?? 'ok';
        if (typeof results[name] !== 'string') results[name] = 'ok';
      } catch (error) {
        results[name] = `FAILED: ${error.message.split('\n')[0]}`;
        break;
      }
    }
  } finally {
    await client.close();
    await server.stop('SIGKILL').catch(() => {});
  }
  return results;
}

const words = process.argv.slice(2);
let failed = 0;
const columns = Object.keys(CHECKS);
console.log(`| client | transport | ${columns.join(' | ')} |\n|${'---|'.repeat(columns.length + 2)}`);
for (const row of clients().filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)))) {
  for (const transport of row.transports) {
    const results = await attempt(row, transport);
    if (Object.values(results).some((result) => result.startsWith('FAILED'))) failed += 1;
    console.log(`| ${row.name} | ${transport} | ${columns.map((column) => results[column] ?? '').join(' | ')} |`);
  }
}
for (const what of leftOut) console.log(`left out: ${what}`);
process.exit(failed > 0 ? 1 : 0);
