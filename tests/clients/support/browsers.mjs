// Browsers: real clients of every supported version, in JavaScript and in Python, over every transport.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { describe } from 'node:test';
import * as python from './python.mjs';
import { Arrivals, within } from './wait.mjs';

const load = createRequire(import.meta.url);

const CLIENTS = [
  ...['2.5.0', '2.0.4', '1.7.4'].map((version) => ({
    name: `socket.io-client ${version}`, io: load(`socket.io-client-${version}`), saysWhy: true,
  })),
  { name: 'python-socketio 4.6.1', io: python.connect, skip: python.NO_PYTHON, isSlow: true },
];
export const TRANSPORTS = {
  websocket: { transports: ['websocket'] },
  polling: { transports: ['polling'] },
  'polling → websocket': { transports: ['polling', 'websocket'] },
};

/** How Flamenco's page connects: it gives up after a second, and tries again soon. */
export const AS_FLAMENCO = { reconnectionDelay: 250, reconnectionDelayMax: 3000, timeout: 1000 };

/** Runs `scenario(client)` once for each row of the matrix; `client.connect` makes browsers of that row. */
export function forEachClient(scenario, isMeant = () => true) {
  for (const { skip, ...client } of CLIENTS.filter(isMeant)) {
    for (const [transport, options] of Object.entries(TRANSPORTS)) {
      describe(`${client.name} over ${transport}`, { timeout: 120_000, skip }, () => scenario(new Client(client, options)));
    }
  }
}

class Client {
  /** `saysWhy`: it tells the reason of a disconnect. `isSlow`: fifty of it are more than a small machine serves in time. */
  constructor({ io, saysWhy = false, isSlow = false }, options) {
    Object.assign(this, { io, saysWhy, isSlow, options });
  }

  /** A connected browser, which `t` closes at its end; `subscriptions` are made on every connect. */
  async connect(t, server, options) {
    const browser = this.begin(t, server, options);
    await browser.connected();
    return browser;
  }

  /** One that is about to connect. */
  begin(t, server, { subscriptions = [], ...more } = {}) {
    const options = { ...this.options, forceNew: true, ...more };
    const browser = new Browser(this.io(server.browsers.origin, options), subscriptions);
    t.after(() => browser.close());
    return browser;
  }

  /** `count` connected browsers. */
  connectMany(t, server, count, options) {
    return Promise.all(Array.from({ length: count }, () => this.connect(t, server, options)));
  }
}

/** One page: what it received as `[event, payload]`, and what became of its connection. */
export class Browser {
  #received = new Arrivals();
  #life = new Arrivals();
  #taken = 0;

  constructor(socket, subscriptions) {
    this.socket = socket;
    const dispatch = socket.onevent;
    // Every event is recorded, also one whose name nobody expects.
    socket.onevent = (packet) => {
      this.#received.push(packet.data);
      dispatch.call(socket, packet);
    };
    for (const fact of ['connect', 'disconnect', 'reconnect', 'connect_error', 'error']) {
      socket.on(fact, (detail) => this.#life.push([fact, detail instanceof Error ? detail.message : detail]));
    }
    // Flamenco's page subscribes again on both, without asking for an acknowledgement.
    const subscribe = () => subscriptions.forEach((wanted) => this.tell('/subscription', { op: 'subscribe', ...wanted }));
    socket.on('connect', subscribe);
    socket.on('reconnect', subscribe);
  }

  /** Resolves once it has been connected `times` times. */
  connected(times = 1) {
    const connects = (facts) => facts.filter(([fact]) => fact === 'connect').length >= times;
    return this.#life.until(connects, `connect number ${times}`);
  }

  /** Resolves with the detail of the first `fact` ('disconnect', 'reconnect' …). */
  async fact(fact) {
    const [, detail] = await this.#life.until((facts) => facts.find(([name]) => name === fact), fact);
    return detail;
  }

  /** What happened to the connection so far, by name. */
  get facts() {
    return this.#life.entries.map(([fact]) => fact);
  }

  /** Sends without asking for an acknowledgement. */
  tell(event, ...args) {
    this.socket.emit(event, ...args);
  }

  /** Sends and resolves with the acknowledgement's arguments. */
  ask(event, ...args) {
    const answered = new Promise((resolve) => this.socket.emit(event, ...args, (...answer) => resolve(answer)));
    return within(answered, `the acknowledgement of ${event} ${JSON.stringify(args)}`, () => this.#life.entries);
  }

  /** Joins rooms and sees `ok` for each. */
  async subscribe(...wanted) {
    for (const subscription of wanted) {
      assert.deepEqual(await this.ask('/subscription', { op: 'subscribe', ...subscription }), ['ok']);
    }
  }

  async unsubscribe(subscription) {
    assert.deepEqual(await this.ask('/subscription', { op: 'unsubscribe', ...subscription }), ['ok']);
  }

  /** Resolves with the first event that `matches(name, payload)`. */
  event(matches, what) {
    return this.#received.until((events) => events.find(([name, payload]) => matches(name, payload)), what);
  }

  /** Resolves once `count` events have come since the last `take`. */
  async count(count) {
    await this.#received.until((events) => events.length >= this.#taken + count, `${count} events`);
  }

  fenced(fence) {
    return this.event((name, payload) => name === '/status' && payload.fence === fence, `fence ${fence}`);
  }

  /** The events since the last call, in order, as `[name, payload]` (fences of `settle` left out). */
  take() {
    const events = this.#received.entries.slice(this.#taken);
    this.#taken = this.#received.entries.length;
    return events.filter(([name, payload]) => !(name === '/status' && payload.fence));
  }

  close() {
    this.socket.close();
  }
}
