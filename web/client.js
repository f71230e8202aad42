/**
 * Live updates of a render farm, for browsers and Node.js 22 or newer.
 *
 *     import { connect } from '/webupdates/client.js';
 *
 *     const farm = connect();
 *     for await (const { payload } of farm.room('Jobs')) console.log(payload.name, payload.status);
 *
 * Speaks Socket.IO 2 on Engine.IO 3, over a WebSocket or else long-polling. A lost connection comes back by itself. Where the
 * server can, it then sends what was missed (resume), and the last known state of a room to whoever enters it; elsewhere the
 * rooms are entered again, and a `gap` says that updates may be missing.
 *
 * Binary data is refused: sending it throws, and an event that contains it is dropped with an `error`.
 *
 * @module
 */

/** @import * as API from './client.d.ts' */

export class ConnectionError extends Error {
  name = 'ConnectionError';
}

const UPGRADE_EVERY_MS = 60_000;
/** How long a connection that is in doubt may take to show that it is alive. */
const DOUBT_MS = 4000;
/** Packets in one request: servers limit them. */
const PACKETS_PER_POST = 32;

/** Calls listeners by name. */
class Emitter {
  /** @type {Map<any, Set<(event: any) => void>>} */
  #listeners = new Map();

  /**
   * @param {any} name
   * @param {(event: any) => void} listener
   */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => this.off(name, listener);
  }

  /**
   * @param {any} name
   * @param {(event: any) => void} listener
   */
  off(name, listener) {
    this.#listeners.get(name)?.delete(listener);
  }

  /** @param {any} name @returns {Promise<any>} */
  once(name) {
    return new Promise((resolve) => {
      const off = this.on(name, (event) => {
        off();
        resolve(event);
      });
    });
  }

  /**
   * @param {string} name
   * @param {unknown} [event]
   */
  dispatch(name, event) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        // A listener's mistake is reported as that of an event listener is, and keeps nothing from the others.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** @typedef {{ opened(): void, packet(text: string | null): void, ended(reason: string): void }} LinkHooks */

/** Engine packets over a WebSocket. */
class WebSocketLink {
  /** @type {API.TransportName} */
  name = 'websocket';

  /**
   * @param {URL} url
   * @param {LinkHooks} hooks
   */
  constructor(url, hooks) {
    const address = new URL(url);
    address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
    this.socket = new WebSocket(address);
    this.socket.binaryType = 'arraybuffer';
    this.socket.onopen = () => hooks.opened();
    this.socket.onmessage = ({ data }) => hooks.packet(typeof data === 'string' ? data : null);
    this.socket.onclose = ({ code }) => hooks.ended(code === 1006 ? 'transport error' : 'transport close');
    // Node reports a failed handshake with this one only.
    this.socket.onerror = () => hooks.ended('transport error');
  }

  /** @param {string[]} packets */
  send(packets) {
    for (const packet of packets) this.socket.send(packet);
  }

  close() {
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    // A WebSocket that is closed while it connects reports an error, which nobody waits for.
    this.socket.onerror = () => {};
    this.socket.close();
  }
}

/** Engine packets over HTTP requests: one that waits for packets, and one at a time that brings some. */
class PollingLink {
  /** @type {API.TransportName} */
  name = 'polling';
  #abort = new AbortController();
  /** @type {string[]} */
  #waiting = [];
  #isPosting = false;
  #isPolling = false;
  /** @type {(() => void) | undefined} */
  #paused;
  #turn = 0;

  /**
   * @param {URL} url
   * @param {boolean} withCredentials
   * @param {LinkHooks} hooks
   */
  constructor(url, withCredentials, hooks) {
    this.url = new URL(url);
    // Without it, binary packets would make the whole body binary.
    this.url.searchParams.set('b64', '1');
    this.hooks = hooks;
    /** @type {RequestInit} */
    this.request = { credentials: withCredentials ? 'include' : 'same-origin', cache: 'no-store', signal: this.#abort.signal };
    this.#poll();
  }

  /** @param {string[]} packets */
  send(packets) {
    this.#waiting.push(...packets);
    this.#post();
  }

  /** Resolves when no request is under way; no other will be made. @returns {Promise<void>} */
  pause() {
    return new Promise((resolve) => {
      this.#paused = resolve;
      this.#checkPaused();
    });
  }

  close() {
    if (this.url.searchParams.has('sid') && !this.#abort.signal.aborted) {
      // Without it the server would keep the session until its time-out.
      fetch(this.url, { ...this.request, signal: null, method: 'POST', body: '1:1', keepalive: true }).catch(() => {});
    }
    this.abandon();
  }

  /** Makes no more requests, and does not take leave of the server. */
  abandon() {
    this.#abort.abort();
  }

  #checkPaused() {
    if (!this.#isPolling && !this.#isPosting) this.#paused?.();
  }

  async #poll() {
    this.#isPolling = true;
    await this.#attempt(async () => {
      while (!this.#paused && !this.#abort.signal.aborted) {
        for (const packet of parsePayload(await this.#fetch({}))) {
          if (packet[0] === '0') this.url.searchParams.set('sid', JSON.parse(packet.slice(1)).sid);
          if (!this.#abort.signal.aborted) this.hooks.packet(packet[0] === 'b' ? null : packet);
        }
      }
    });
    this.#isPolling = false;
    this.#checkPaused();
  }

  async #post() {
    if (this.#isPosting) return;
    this.#isPosting = true;
    await this.#attempt(async () => {
      while (this.#waiting.length) {
        const body = this.#waiting.splice(0, PACKETS_PER_POST).map((packet) => `${packet.length}:${packet}`).join('');
        await this.#fetch({ method: 'POST', body, headers: { 'content-type': 'text/plain;charset=UTF-8' } });
      }
    });
    this.#isPosting = false;
    this.#checkPaused();
  }

  /** @param {() => Promise<void>} work */
  async #attempt(work) {
    try {
      await work();
    } catch (error) {
      if (!this.#abort.signal.aborted) this.hooks.ended(error instanceof SyntaxError ? 'parse error' : 'transport error');
    }
  }

  /**
   * @param {RequestInit} more
   * @returns {Promise<string>}
   */
  async #fetch(more) {
    this.url.searchParams.set('t', `${Date.now().toString(36)}.${this.#turn++}`);
    const answer = await fetch(this.url, { ...this.request, ...more });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.text();
  }
}

/**
 * The packets of a polling answer; their lengths count UTF-16 code units, as strings do here.
 * @param {string} text
 */
function parsePayload(text) {
  const packets = [];
  for (let at = 0; at < text.length; ) {
    const colon = text.indexOf(':', at);
    const digits = text.slice(at, colon);
    const end = colon + 1 + Number(digits);
    if (colon < 0 || !/^\d{1,10}$/.test(digits) || end > text.length || end === colon + 1) throw new SyntaxError('bad payload');
    packets.push(text.slice(colon + 1, end));
    at = end;
  }
  return packets;
}

/** @typedef {{ message(text: string | null): void, ended(reason: string): void, beat(name: 'ping' | 'pong'): void }} SessionHooks */

/** One Engine.IO session, from its handshake to its end. */
class Session {
  id = '';
  #interval = 25_000;
  #timeout = 60_000;
  #heardAt = Date.now();
  #isOver = false;
  /** @type {string[] | undefined} Packets that wait while the transport changes. */
  #held;
  /** @type {WebSocketLink | undefined} */
  #probe;
  /** @type {Timer} */ #pingTimer;
  /** @type {Timer} */ #deadline;
  #endsAt = Infinity;
  /** @type {Timer} */ #upgradeTimer;

  /**
   * @param {URL} url
   * @param {API.TransportName} transport
   * @param {{ withCredentials: boolean, upgrades: boolean, upgradesAtOnce: boolean }} options
   * @param {SessionHooks} hooks
   */
  constructor(url, transport, options, hooks) {
    this.url = url;
    this.options = options;
    this.hooks = hooks;
    this.link = this.#open(transport);
  }

  /** @param {string} message */
  send(message) {
    this.#send(`4${message}`);
  }

  /** Ends the session within seconds if the connection is not alive any more, without waiting for the next heartbeat. */
  check() {
    if (!this.id) return;
    if (Date.now() - this.#heardAt > this.#interval + this.#timeout) this.fail('ping timeout');
    else this.#ping(Math.min(DOUBT_MS, this.#timeout));
  }

  close() {
    if (this.#isOver) return;
    this.#stop();
    this.link.close();
  }

  /** @param {API.TransportName} transport */
  #open(transport) {
    const url = new URL(this.url);
    url.searchParams.set('EIO', '3');
    url.searchParams.set('transport', transport);
    /** @type {LinkHooks} */
    const hooks = { opened() {}, packet: (text) => this.#packet(text), ended: (reason) => this.fail(reason) };
    return transport === 'websocket' ? new WebSocketLink(url, hooks) : new PollingLink(url, this.options.withCredentials, hooks);
  }

  /** @param {string} packet */
  #send(packet) {
    if (this.#held) this.#held.push(packet);
    else if (!this.#isOver) this.link.send([packet]);
  }

  /** @param {string | null} text */
  #packet(text) {
    if (this.#isOver) return;
    this.#heardAt = Date.now();
    this.#endsAt = Infinity;
    clearTimeout(this.#deadline);
    if (text === null) return this.hooks.message(null);
    const data = text.slice(1);
    switch (text[0]) {
      case '0': return this.#opened(data);
      case '1': return this.fail('transport close');
      case '2': return this.#send(`3${data}`);
      case '3': return this.hooks.beat('pong');
      case '4': return this.hooks.message(data);
      case '6': return;
      default: return this.fail('parse error');
    }
  }

  /** @param {string} data */
  #opened(data) {
    const { sid, upgrades, pingInterval, pingTimeout } = parseJson(data) ?? {};
    if (typeof sid !== 'string' || this.id) return this.fail('parse error');
    this.id = sid;
    this.#interval = Number(pingInterval) || this.#interval;
    this.#timeout = Number(pingTimeout) || this.#timeout;
    this.#scheduleUpgrade(Array.isArray(upgrades) && upgrades.includes('websocket'), this.options.upgradesAtOnce ? 0 : UPGRADE_EVERY_MS);
    const beat = () => {
      this.#pingTimer = setTimeout(() => {
        if (Date.now() - this.#heardAt > this.#interval + this.#timeout) return this.fail('ping timeout');
        this.#ping(this.#timeout);
        beat();
      }, this.#interval);
    };
    beat();
  }

  /** @param {number} patience */
  #ping(patience) {
    this.#send('2');
    this.hooks.beat('ping');
    if (Date.now() + patience >= this.#endsAt) return;
    this.#endsAt = Date.now() + patience;
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.fail('ping timeout'), patience);
  }

  /**
   * @param {boolean} isOffered
   * @param {number} delay
   */
  #scheduleUpgrade(isOffered, delay) {
    if (!isOffered || !this.options.upgrades || this.link.name === 'websocket') return;
    this.#upgradeTimer = setTimeout(() => this.#upgrade(), delay);
  }

  /** Moves from long-polling to a WebSocket, between two packets. */
  #upgrade() {
    const url = new URL(this.url);
    for (const [name, value] of [['EIO', '3'], ['transport', 'websocket'], ['sid', this.id]]) url.searchParams.set(name, value);
    const polling = /** @type {PollingLink} */ (this.link);
    let isProbed = false;
    const failed = () => {
      probe.close();
      this.#probe = undefined;
      if (isProbed) this.fail('transport error');
      else this.#scheduleUpgrade(true, UPGRADE_EVERY_MS);
    };
    /** @type {WebSocketLink} */
    const probe = new WebSocketLink(url, {
      opened: () => probe.send(['2probe']),
      ended: (reason) => (this.link === probe ? this.fail(reason) : failed()),
      packet: (text) => {
        if (this.link === probe) return this.#packet(text);
        if (text !== '3probe' || isProbed) return failed();
        isProbed = true;
        this.#held = [];
        polling.pause().then(() => {
          if (this.#isOver) return;
          polling.abandon();
          this.link = probe;
          this.#probe = undefined;
          probe.send(['5', ...(this.#held ?? [])]);
          this.#held = undefined;
        });
      },
    });
    this.#probe = probe;
  }

  #stop() {
    this.#isOver = true;
    clearTimeout(this.#pingTimer);
    clearTimeout(this.#deadline);
    clearTimeout(this.#upgradeTimer);
    this.#probe?.close();
  }

  /** Ends it with a reason. @param {string} reason */
  fail(reason) {
    if (this.#isOver) return;
    this.#stop();
    // The server may hold a session that is over for us: it is told, where that costs nothing.
    this.link.close();
    this.hooks.ended(reason);
  }
}

/** @typedef {ReturnType<typeof setTimeout> | undefined} Timer */

/** @param {string} text */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * What a Socket.IO packet says: type, namespace, acknowledgement and data; undefined if it is none.
 * @param {string} text
 */
function parsePacket(text) {
  const [head, type, , , namespace = '/', , id] = /^([0-6])((\d+)-)?(\/[^,]*)?(,?)(\d{1,16})?/.exec(text) ?? [];
  if (head === undefined) return undefined;
  const rest = text.slice(head.length);
  const data = rest === '' ? undefined : parseJson(rest);
  return rest !== '' && data === undefined ? undefined : { type, namespace: namespace.split('?')[0], id, data };
}

/**
 * Arguments as JSON.
 * @param {unknown[]} args
 */
function pack(args) {
  return JSON.stringify(args, function (key, value) {
    // As it is, not as its `toJSON` would have it.
    const original = this[key];
    const isBlob = typeof Blob === 'function' && original instanceof Blob;
    if (isBlob || original instanceof ArrayBuffer || ArrayBuffer.isView(original)) throw new TypeError('binary data is not supported');
    return value;
  });
}

/** @implements {API.Socket} */
export class Socket extends Emitter {
  /** @type {API.Status} */
  status = 'closed';
  obeysDisconnect = false;
  /** @type {Session | undefined} */
  #session;
  /** @type {Timer} */ #timer;
  /** @type {(() => void) | undefined} Makes the next attempt to connect before its time. */
  #hurry;
  #attempts = 0;
  #connectedAt = 0;
  #nextId = 0;
  /** @type {Map<string, { resolve(args: any[]): void, reject(error: Error): void }>} */
  #requests = new Map();
  /** @type {{ text: string, id?: string }[]} */
  #unsent = [];
  #awake = () => {
    if (globalThis.document?.visibilityState === 'hidden') return;
    if (!this.#hurry) this.#session?.check();
    else if (globalThis.navigator?.onLine !== false) this.#hurry();
  };

  /**
   * @param {string | URL} url
   * @param {API.SocketOptions} [options]
   */
  constructor(url, options = {}) {
    super();
    this.options = options;
    this.url = new URL(url, globalThis.location?.href);
    this.url.protocol = this.url.protocol.replace(/^ws/, 'http');
    this.url.pathname = (options.path ?? `${this.url.pathname}/socket.io`).replace(/\/+/g, '/').replace(/\/?$/, '/');
    this.url.hash = '';
    for (const [name, value] of Object.entries(options.query ?? {})) this.url.searchParams.set(name, value);
  }

  get id() {
    return this.status === 'live' ? this.#session?.id : undefined;
  }

  get transport() {
    return this.status === 'live' ? this.#session?.link.name : undefined;
  }

  open() {
    if (this.status !== 'closed') return;
    for (const name of ['online', 'offline', 'pageshow']) globalThis.addEventListener?.(name, this.#awake);
    globalThis.document?.addEventListener('visibilitychange', this.#awake);
    this.#attempts = 0;
    this.#become('connecting');
    this.#connect();
  }

  close(reason = 'io client disconnect') {
    if (this.status === 'closed') return;
    const wasLive = this.status === 'live';
    for (const name of ['online', 'offline', 'pageshow']) globalThis.removeEventListener?.(name, this.#awake);
    globalThis.document?.removeEventListener('visibilitychange', this.#awake);
    clearTimeout(this.#timer);
    this.#hurry = undefined;
    this.#drop();
    this.#unsent = [];
    this.#become('closed');
    this.#lose(reason, wasLive);
  }

  /**
   * @param {string} name
   * @param {...unknown} args
   */
  emit(name, ...args) {
    this.#send({ text: `2${pack([name, ...args])}` });
  }

  /**
   * @param {string} name
   * @param {unknown[]} args
   * @returns {Promise<any[]>}
   */
  request(name, args, timeout = this.options.ackTimeout ?? 5000) {
    return new Promise((resolve, reject) => {
      const id = String(this.#nextId++);
      this.#send({ text: `2${id}${pack([name, ...args])}`, id });
      const settle = () => {
        clearTimeout(timer);
        this.#requests.delete(id);
        this.#unsent = this.#unsent.filter((unsent) => unsent.id !== id);
      };
      /** @param {Error} error */
      const fail = (error) => {
        settle();
        reject(error);
      };
      const late = () => fail(new ConnectionError(`no acknowledgement of ${name} within ${timeout} ms`));
      const timer = timeout === Infinity ? undefined : setTimeout(late, timeout);
      this.#requests.set(id, {
        reject: fail,
        resolve(args) {
          settle();
          resolve(args);
        },
      });
    });
  }

  /** @param {{ text: string, id?: string }} message */
  #send(message) {
    const limit = this.options.sendQueue ?? 64;
    if (this.status === 'live') return this.#session?.send(message.text);
    if (this.status === 'closed') throw new ConnectionError('the connection is closed');
    if (this.#unsent.length >= limit) throw new ConnectionError(`there is no connection, and ${limit} messages wait for one`);
    this.#unsent.push(message);
  }

  /** @param {API.Status} status */
  #become(status) {
    this.status = status;
    this.dispatch('status', status);
  }

  #drop() {
    this.#session?.close();
    this.#session = undefined;
  }

  /** Tries the transports one after the other. */
  #connect(at = 0) {
    const wanted = this.options.transports ?? ['websocket', 'polling'];
    const transports = wanted.filter((name) => name === 'polling' || typeof WebSocket === 'function');
    /** @param {string} reason */
    const failed = (reason) => {
      clearTimeout(this.#timer);
      this.#drop();
      if (at + 1 < transports.length) return this.#connect(at + 1);
      this.dispatch('failed', new ConnectionError(reason));
      this.#retry();
    };
    this.#timer = setTimeout(() => failed('timeout'), this.options.timeout ?? 5000);
    const options = {
      withCredentials: this.options.withCredentials ?? false,
      upgrades: transports.includes('websocket'),
      upgradesAtOnce: transports[0] === 'polling',
    };
    try {
      this.#session = new Session(this.url, transports[at], options, {
        message: (text) => this.#message(text),
        ended: (reason) => (this.status === 'live' ? this.#ended(reason) : failed(reason)),
        beat: (name) => this.dispatch(name),
      });
    } catch (error) {
      // The page may not be allowed to connect there. Nobody could listen yet if that were said at once.
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => failed(String(error)));
    }
  }

  /** @param {string} reason */
  #ended(reason) {
    this.#drop();
    // A client that is let in and sent away at once is not to come back the faster.
    if (Date.now() - this.#connectedAt > (this.#reconnect()?.max ?? 0)) this.#attempts = 0;
    if (!this.#reconnect()) return this.close(reason);
    this.#become('reconnecting');
    this.#lose(reason, true);
    this.#retry();
  }

  /**
   * Answers what was sent and will not be acknowledged any more.
   * @param {string} reason
   * @param {boolean} wasLive
   */
  #lose(reason, wasLive) {
    const unsent = new Set(this.#unsent.map(({ id }) => id));
    for (const [id, { reject }] of [...this.#requests]) {
      if (!unsent.has(id)) reject(new ConnectionError(`the connection was lost: ${reason}`));
    }
    if (wasLive) this.dispatch('disconnect', reason);
  }

  #reconnect() {
    if (this.options.reconnect === false) return undefined;
    return { min: 500, max: 5000, jitter: 1, attempts: Infinity, ...this.options.reconnect };
  }

  #retry() {
    // A listener may have closed it.
    if (this.status === 'closed') return;
    const reconnect = this.#reconnect();
    if (!reconnect || this.#attempts >= reconnect.attempts) {
      const made = this.#attempts;
      this.close('transport error');
      return this.dispatch('exhausted', made);
    }
    const { min, max, jitter } = reconnect;
    const longest = Math.min(max, min * 2 ** Math.min(this.#attempts++, 20));
    const delay = Math.max(longest * (1 - jitter * Math.random()), 50);
    this.#hurry = () => {
      clearTimeout(this.#timer);
      this.#hurry = undefined;
      this.dispatch('attempt', this.#attempts);
      if (this.status !== 'closed') this.#connect();
    };
    this.#timer = setTimeout(this.#hurry, delay);
    this.dispatch('waiting', { attempt: this.#attempts, delay });
  }

  /** @param {string | null} text */
  #message(text) {
    const packet = text === null ? undefined : parsePacket(text);
    // The binary part of an event that was dropped.
    if (text === null) return;
    if (!packet) return this.#fail('parse error');
    const { type, namespace, id = '', data } = packet;
    if (namespace !== '/') return;
    switch (type) {
      case '0': return this.#connected();
      case '1': return this.obeysDisconnect ? this.close('io server disconnect') : this.#fail('io server disconnect');
      case '2': return this.#event(data, id);
      case '3': return this.#requests.get(id)?.resolve(Array.isArray(data) ? data : []);
      case '4': return this.dispatch('error', data);
      case '6': return this.#requests.get(id)?.reject(new TypeError('the acknowledgement contains binary data'));
      default: return this.dispatch('error', new TypeError('an event that contains binary data was dropped'));
    }
  }

  /** @param {string} reason */
  #fail(reason) {
    if (this.status === 'live') this.#ended(reason);
    else this.#session?.fail(reason);
  }

  #connected() {
    if (this.status === 'live') return;
    clearTimeout(this.#timer);
    this.#connectedAt = Date.now();
    this.#become('live');
    this.dispatch('connect', { attempts: this.#attempts });
    for (const { text } of this.#unsent.splice(0)) this.#session?.send(text);
  }

  /**
   * @param {any} args
   * @param {string} id
   */
  #event(args, id) {
    if (!Array.isArray(args) || typeof args[0] !== 'string') return this.#fail('parse error');
    const session = this.#session;
    const answer = (/** @type {unknown[]} */ ...answers) => session?.send(`3${id}${pack(answers)}`);
    this.dispatch('event', id ? { args, answer } : { args });
  }
}

/** What can be iterated over. @template {API.Update} U */
class Updates extends Emitter {
  /** @type {Set<(update?: U) => void>} */
  #readers = new Set();
  #isOver = false;
  /** @type {API.GapReason | undefined} */
  #gap;

  /** @param {number} queue */
  constructor(queue) {
    super();
    this.queue = queue;
  }

  /** @returns {AsyncIterableIterator<U>} */
  [Symbol.asyncIterator]() {
    /** @type {U[]} */
    let updates = [];
    /** @type {((result: IteratorResult<U>) => void)[]} */
    const takers = [];
    let isOver = this.#isOver;
    /** @param {U} [update] */
    const read = (update) => {
      if (!update) {
        isOver = true;
        for (const take of takers.splice(0)) take({ done: true, value: undefined });
      } else if (takers.length) {
        takers.shift()?.({ done: false, value: update });
      } else {
        if (updates.length >= this.queue) [updates, update] = [[], { ...update, gap: 'overflow' }];
        updates.push(update);
      }
    };
    if (!isOver) this.#readers.add(read);
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next() {
        const [value] = updates.splice(0, 1);
        if (value) return Promise.resolve({ done: false, value });
        if (isOver) return Promise.resolve({ done: true, value: undefined });
        return new Promise((resolve) => takers.push(resolve));
      },
      return: async () => {
        updates = [];
        this.#readers.delete(read);
        read();
        this.unread();
        return { done: true, value: undefined };
      },
    };
  }

  /** An iterator was given up. */
  unread() {}

  /** @param {API.GapReason} reason */
  missed(reason) {
    this.#gap = reason;
    this.dispatch('gap', reason);
  }

  /** @param {U} update */
  hand(update) {
    const marked = this.#gap ? { ...update, gap: this.#gap } : update;
    this.#gap = undefined;
    this.dispatch(marked.name, marked);
    for (const read of [...this.#readers]) read(marked);
  }

  /** Ends all iterators, once they have been read to their end. */
  finish() {
    this.#isOver = true;
    for (const read of this.#readers) read();
    this.#readers.clear();
  }
}

/**
 * @template {API.RoomName} R
 * @extends {Updates<API.Update<API.NamesIn<R>>>}
 * @implements {API.Room<R>}
 */
class Room extends Updates {
  #connection;

  /**
   * @param {Connection} connection
   * @param {R} name
   * @param {{ state: boolean, queue: number }} options
   */
  constructor(connection, name, { state, queue }) {
    super(queue);
    this.name = name;
    this.state = state;
    this.#connection = connection;
  }

  refresh() {
    return this.#connection.enter(this.name, true);
  }

  leave() {
    this.finish();
    this.#connection.left(this);
  }

  unread() {
    this.leave();
  }
}

/** What subscribes to each room. */
const SUBSCRIPTIONS = new Map([
  ['Jobs', 'allJobs'], ['Workers', 'allWorkers'], ['Last-Rendered', 'allLastRendered'], ['Worker-Tags', 'allWorkerTags'],
]);

/** The rooms of each event. */
const ROOMS = new Map(/** @type {[string, (payload: any) => string[]][]} */ ([
  ['/jobs', () => ['Jobs']],
  ['/task', ({ job_id }) => [`job-${job_id}`]],
  ['/tasklog', ({ task_id }) => [`tasklog-${task_id}`]],
  ['/last-rendered', ({ job_id }) => ['Last-Rendered', `job-${job_id}`]],
  ['/workers', () => ['Workers']],
  ['/workertags', () => ['Worker-Tags']],
  ['/message', () => ['Chat']],
  ['/lifecycle', () => []],
  ['/status', () => []],
]));

const ROOM_OF_ONE = /^(job|tasklog)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/i;

/** A room's name with its UUID as the server writes it. @param {string} name */
function canonical(name) {
  return name.replace(ROOM_OF_ONE, (same) => same.toLowerCase());
}

/** What subscribes to a room; nothing does to `Chat`, which everyone is in. @param {string} room */
function subscription(room) {
  const [, type = SUBSCRIPTIONS.get(room), uuid] = ROOM_OF_ONE.exec(room) ?? [];
  return type && { type, ...(uuid && { uuid }) };
}

/**
 * @extends {Updates<API.Update>}
 * @implements {API.Connection}
 */
class Connection extends Updates {
  #socket;
  /** @type {Map<string, Set<Room<any>>>} */
  #rooms = new Map();
  /** The rooms of which the server has sent what there was. */
  #known = new Set();
  /** @type {string | null} Where to go on after what has come. */
  #token = null;
  resumes = false;
  #wasLive = false;

  /**
   * @param {string | URL} url
   * @param {API.ConnectOptions} options
   */
  constructor(url, { queue = 10_000, ...options }) {
    super(queue);
    this.#socket = new Socket(url, { ...options, query: { ...options.query, resume: '1' } });
    this.#socket.on('event', ({ args }) => this.#event(args));
    this.#socket.on('connect', () => this.#join());
    for (const name of ['status', 'waiting', 'failed', 'error']) {
      this.#socket.on(name, (event) => this.dispatch(name, event));
    }
    this.#socket.open();
  }

  get status() {
    return this.#socket.status;
  }

  get transport() {
    return this.#socket.transport;
  }

  /**
   * @template {API.RoomName} R
   * @param {R} name
   * @param {{ state?: boolean, queue?: number }} [options]
   */
  room(name, { state = true, queue = this.queue } = {}) {
    const key = canonical(name);
    if (key !== 'Chat' && !subscription(key)) throw new RangeError(`there is no room ${name}`);
    const room = new Room(this, name, { state, queue });
    const members = this.#rooms.get(key) ?? new Set();
    this.#rooms.set(key, members.add(room));
    if (this.status === 'closed') room.leave();
    else if (this.status === 'live') this.enter(name, state);
    return room;
  }

  /**
   * @param {string} name
   * @param {...unknown} args
   */
  emit(name, ...args) {
    this.#socket.emit(name, ...args);
  }

  /**
   * @param {string} name
   * @param {unknown} argument
   * @param {{ timeout?: number }} [options]
   */
  async request(name, argument, { timeout } = {}) {
    return (await this.#socket.request(name, [argument], timeout))[0];
  }

  close() {
    this.#socket.close();
    for (const members of [...this.#rooms.values()]) for (const room of [...members]) room.leave();
    this.finish();
  }

  /**
   * Enters a room of the server, or enters it again for its state.
   * @param {string} name
   * @param {boolean} state
   */
  async enter(name, state) {
    if (await this.#subscribe(canonical(name), state)) this.#entered([canonical(name)], { state: state && this.resumes, recovered: false });
  }

  /** @param {Room<any>} room */
  left(room) {
    const name = canonical(room.name);
    const members = this.#rooms.get(name);
    if (!members?.delete(room) || members.size) return;
    this.#rooms.delete(name);
    this.#known.delete(name);
    const wanted = subscription(name);
    if (wanted && this.status === 'live') this.#socket.emit('/subscription', { op: 'unsubscribe', ...wanted });
  }

  /** Enters all rooms of a connection that has just been made. */
  async #join() {
    const rooms = [...this.#rooms.keys()];
    const state = [...this.#rooms.values()].some((members) => [...members].some((room) => room.state));
    const isAgain = this.#wasLive;
    this.#wasLive = true;
    // No subscription joins Chat, so it is always asked for.
    const wanted = [...new Set([...rooms, 'Chat'])];
    const resumed = this.#socket.request('/resume', [{ token: this.#token, rooms: wanted, state }]).then(
      ([answer]) => this.#resumed(answer, rooms, isAgain),
      () => false,
    );
    // A server that does not know this event does not acknowledge it either. So until one did, the rooms are entered the other
    // way too: a room that is entered twice is entered once.
    if (this.resumes && ((await resumed) || this.status !== 'live')) return;
    this.resumes = false;
    if (isAgain) this.#lost('reconnect');
    const isIn = await Promise.all(rooms.map((room) => this.#subscribe(room, false)));
    if (!this.resumes) this.#entered(rooms.filter((_, at) => isIn[at]), { state: false, recovered: false });
  }

  /**
   * @param {any} answer
   * @param {string[]} rooms
   * @param {boolean} isAgain
   */
  #resumed(answer, rooms, isAgain) {
    if (typeof answer?.recovered !== 'boolean') return false;
    // Otherwise it was said already that the connection is another one.
    if (isAgain && this.resumes && !answer.recovered) this.#lost(answer.reason);
    this.resumes = true;
    if (typeof answer.token === 'string') this.#token = answer.token;
    // What was missed is all there is of a room that is not new.
    const isKnown = (/** @type {string} */ name) => !answer.recovered || this.#known.has(name);
    this.#entered(rooms.filter(isKnown), { state: true, recovered: answer.recovered });
    for (const name of rooms) if (!isKnown(name)) this.enter(name, true);
    return true;
  }

  /**
   * Resolves with whether the room has been entered.
   * @param {string} room
   * @param {boolean} state
   */
  async #subscribe(room, state) {
    const wanted = subscription(room);
    if (!wanted) return true;
    try {
      const [answer] = await this.#socket.request('/subscription', [{ op: 'subscribe', ...wanted, ...(state && { state }) }]);
      const refused = typeof answer === 'string' && answer !== 'ok';
      if (refused) this.dispatch('error', new ConnectionError(`${room}: ${answer}`));
      return !refused;
    } catch {
      // Servers need not acknowledge. A connection that is lost enters its rooms when it is back.
      return this.status === 'live';
    }
  }

  /** @param {API.GapReason} reason */
  #lost(reason) {
    this.missed(reason);
    for (const members of this.#rooms.values()) for (const room of members) room.missed(reason);
  }

  /**
   * @param {string[]} rooms
   * @param {API.Ready} how
   */
  #entered(rooms, how) {
    this.dispatch('ready', how);
    for (const name of rooms) this.#known.add(name);
    for (const name of rooms) for (const room of this.#rooms.get(name) ?? []) room.dispatch('ready', how);
  }

  /** @param {any[]} args */
  #event([name, payload, ...more]) {
    const roomsOf = ROOMS.get(name);
    if (!roomsOf || !payload || typeof payload !== 'object') return;
    const token = more.find((argument) => typeof argument === 'string');
    const state = more.some((argument) => argument?.state === true);
    const update = /** @type {API.Update} */ ({ name, payload, state });
    this.hand(update);
    this.dispatch('update', update);
    for (const room of roomsOf(payload)) {
      for (const member of [...(this.#rooms.get(canonical(room)) ?? [])]) member.hand(/** @type {any} */ (update));
    }
    // Last: an update that could not be handed on would be sent again.
    if (token !== undefined) this.#token = token;
  }
}

/**
 * @param {string | URL} [url]
 * @param {API.ConnectOptions} [options]
 * @returns {API.Connection}
 */
export function connect(url = globalThis.location?.origin ?? 'http://127.0.0.1:8081', options = {}) {
  return new Connection(url, options);
}
