// The server under test as a process of its own, and the Manager's side of it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { Arrivals, within } from './wait.mjs';

export const LOOPBACK = '127.0.0.1';
/** Options with which every client gets every event: no image is held back, and no machine too slow to read. */
export const EVERY_EVENT = [
  '--last-rendered-interval', '0s', '--outbox-lag', '60s', '--outbox-age', '60s', '--outbox-bytes', '100000000',
];
const READY = /^listening browsers=(https?:\/\/\S+) manager=(https?:\/\/\S+)\n/;

/** The program to test: `WEBUPDATES_BIN`, or else what cargo built last. */
export const BINARY = process.env.WEBUPDATES_BIN ?? builtLast();

/** The program started with `args`: what it printed in `stdout` and `stderr`, how it ended in `exit`. */
export class Program {
  stdout = '';
  stderr = '';
  exit = undefined;
  #output = new Arrivals();

  constructor(args, { env = {}, stdin = 'ignore' } = {}) {
    const { PATH, HOME } = process.env;
    // A bare environment: every option may come from a variable, and none of the developer's may leak in.
    this.child = spawn(BINARY, args, {
      env: { PATH, HOME, RUST_LOG: 'info', RUST_BACKTRACE: '1', ...env },
      stdio: [stdin, 'pipe', 'pipe'],
    });
    for (const name of ['stdout', 'stderr']) {
      this.child[name].setEncoding('utf8').on('data', (text) => {
        this[name] += text;
        this.#output.push(`${name}: ${text}`);
      });
    }
    this.exited = once(this.child, 'close').then(
      ([code, signal]) => this.#ended(code, signal),
      (error) => this.#ended(null, error.message),
    );
    const kill = () => this.child.kill('SIGKILL');
    process.on('exit', kill);
    this.exited.then(() => process.off('exit', kill));
  }

  #ended(code, signal) {
    this.exit = { code, signal, stdout: this.stdout, stderr: this.stderr };
    this.#output.push(`exit: code ${code}, signal ${signal}`);
    return this.exit;
  }

  get stdin() {
    return this.child.stdin;
  }

  /** Resolves with the first truthy answer of `question(this)`, asked whenever it prints or ends. */
  printed(question, what) {
    return this.#output.until(() => question(this), what);
  }

  /** Resolves with `{code, signal, stdout, stderr}` once it has ended; what does not end in time is killed. */
  async ended(what = `${BINARY} to end`) {
    try {
      return await within(this.exited, what, () => ({ stdout: this.stdout, stderr: this.stderr }));
    } catch (late) {
      this.child.kill('SIGKILL');
      throw late;
    }
  }
}

/** Runs the program to its end. */
export function run(args, options) {
  return new Program(args, options).ended(`${BINARY} ${args.join(' ')} to end`);
}

/** A running `serve`. */
export class Server {
  /** Starts on ports that the system picks and waits for the ready line. */
  static async start({ args = [], env = {}, stdin = 'ignore', token } = {}) {
    const server = new Server({ args, env, stdin, token });
    await server.#launch(`${LOOPBACK}:0`, `${LOOPBACK}:0`);
    return server;
  }

  constructor(options) {
    this.options = options;
  }

  /** Ends it with `signal`; a server that was asked politely must leave with code 0, and never with a panic. */
  async stop(signal = process.env.STOP_SIGNAL ?? 'SIGTERM') {
    this.program.child.kill(signal);
    const exit = await this.ended();
    if (signal !== 'SIGKILL') assert.equal(exit.code, 0, `exit code after ${signal}, stderr:\n${exit.stderr}`);
    return exit;
  }

  /** Waits until it has ended by itself. */
  async ended() {
    const exit = await this.program.ended('the server to end');
    assert.doesNotMatch(exit.stderr, /panicked at/, 'the server panicked');
    assert.match(exit.stdout, READY);
    assert.equal(exit.stdout.split('\n').length, 2, `one line on stdout, not:\n${exit.stdout}`);
    return exit;
  }

  /** Starts it again on the ports that it had. */
  async startAgain() {
    await this.#launch(this.browsers.host, this.manager.host);
  }

  /** `POST /api/events`: `body` is text as it is, or what is to be sent as JSON. */
  post(body, { type = 'application/json', headers = {} } = {}) {
    return request(new URL('/api/events', this.manager), {
      method: 'POST',
      headers: { 'content-type': type, ...this.#authorization(), ...headers },
      body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
    });
  }

  /** Posts what must be accepted: `events` is one event or an array. */
  async publish(events) {
    const answer = await this.post(events);
    const accepted = Array.isArray(events) ? events.length : 1;
    assert.deepEqual([answer.status, answer.json], [200, { accepted }], answer.text);
  }

  /**
   * Posts each of `events` in a request of its own that must be accepted, all pipelined on one connection: so a client that
   * shares this process's one thread does not slow the Manager down.
   */
  async publishOneByOne(events) {
    const requests = events.map((event, turn) => {
      const body = JSON.stringify(event);
      const connection = turn === events.length - 1 ? 'close' : 'keep-alive';
      const headers = {
        host: this.manager.host,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        connection,
        ...this.#authorization(),
      };
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      return `POST /api/events HTTP/1.1\r\n${lines.join('')}\r\n${body}`;
    });
    const socket = net.connect(this.manager.port, this.manager.hostname).setEncoding('utf8');
    socket.write(requests.join(''));
    let answers = '';
    const readAll = async () => {
      for await (const text of socket) answers += text;
    };
    await within(readAll(), `the answers to ${events.length} requests`, () => answers.slice(-200));
    assert.equal(answers.match(/HTTP\/1\.1 200 OK\r\n/g)?.length, events.length, answers.slice(-200));
  }

  /** Posts `lines`, texts of one event each, as NDJSON that must be accepted. */
  async publishLines(lines) {
    const answer = await this.post(lines.map((line) => `${line}\n`).join(''), { type: 'application/x-ndjson' });
    assert.deepEqual([answer.status, answer.json], [200, { accepted: lines.length }], answer.text);
  }

  /**
   * Resolves when everything published before has reached `browsers`: a status that only tests send is
   * posted behind it, and order does the rest.
   */
  async settle(...browsers) {
    const fence = nextFence++;
    await this.publish({ type: 'farm-status', payload: { status: 'active', fence } });
    await Promise.all(browsers.map((browser) => browser.fenced(fence)));
  }

  async stats() {
    const answer = await request(new URL('/api/stats', this.manager), { headers: this.#authorization() });
    assert.equal(answer.status, 200, answer.text);
    return answer.json;
  }

  #authorization() {
    return this.options.token ? { authorization: `Bearer ${this.options.token}` } : {};
  }

  async #launch(listen, managerListen) {
    const { args, env, stdin } = this.options;
    this.program = new Program(['serve', '--listen', listen, '--manager-listen', managerListen, ...args], { env, stdin });
    try {
      const { stdout, exit } = await this.program.printed((program) => (READY.test(program.stdout) || program.exit) && program, 'the ready line');
      assert.equal(exit, undefined, 'the server ended at start');
      const [, browsers, manager] = READY.exec(stdout);
      this.browsers = new URL(browsers);
      this.manager = new URL(manager);
    } catch (failed) {
      this.program.child.kill('SIGKILL');
      throw failed;
    }
  }
}

let nextFence = 1;

/** One HTTP request on a connection of its own: `{status, headers, text, json}`. */
export async function request(url, { method = 'GET', headers = {}, body } = {}) {
  const { status, headers: received, text } = await within(
    new Promise((resolve, reject) => {
      const outgoing = http.request(url, { method, headers, agent: false }, (incoming) => resolve(answerOf(incoming)));
      outgoing.on('error', reject);
      outgoing.end(body);
    }),
    `the answer to ${method} ${url}`,
  );
  return { status, headers: received, text, json: parsed(text) };
}

/** Reads an answer to its end. */
export async function answerOf(incoming) {
  let text = '';
  for await (const chunk of incoming.setEncoding('utf8')) text += chunk;
  return { status: incoming.statusCode, headers: incoming.headers, text, json: parsed(text) };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function builtLast() {
  const built = ['release', 'debug']
    .map((profile) => fileURLToPath(new URL(`../../../target/${profile}/flamenco-webupdates`, import.meta.url)))
    .filter(existsSync)
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
  if (built.length === 0) throw new Error('no binary to test: run `cargo build`, or set WEBUPDATES_BIN to one');
  return built[0];
}
