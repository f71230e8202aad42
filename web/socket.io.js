/**
 * `io()` for pages that were written for socket.io-client 2, as `/socket.io/socket.io.js` gives it to them. It is a thin layer
 * over `client.js`, which it loads from beside itself.
 *
 * It has: `io([url], [options])` with `path`, `transports`, `query`, `timeout`, `autoConnect`, `withCredentials`, `reconnection`,
 * `reconnectionAttempts`, `reconnectionDelay`, `reconnectionDelayMax` and `randomizationFactor`; sockets with `on`, `once`, `off`
 * and their other names, `emit` and `send` with acknowledgements, `open`, `close`, `id`, `connected`, `disconnected`, `io`; the
 * events of a connection and of its reconnects.
 *
 * It lacks:
 * - namespaces other than `/`: their sockets report the `error` "Invalid namespace";
 * - binary data: `emit` throws, and an event that contains it is dropped with an `error`;
 * - long-polling with scripts (`forceJSONP`, `jsonp`), `extraHeaders`, `transportOptions`, `parser`, `agent` and certificates;
 * - one connection for several sockets: each `io()` has a connection of its own, as with `forceNew`;
 * - a manager to construct (`io.Manager`), and events of `io.engine` but its `id` and `transport.name`;
 * - CommonJS and AMD, and browsers without ES modules.
 *
 * It differs: the WebSocket is tried first unless `transports` says otherwise, and at most 1000 messages wait for a connection.
 */
(() => {
  const script = /** @type {HTMLScriptElement} */ (document.currentScript);
  /** @type {Promise<typeof import('./client.js')>} */
  const loading = import(new URL('client.js', script.src).href);
  // Each socket says so by itself.
  loading.catch(() => {});

  const UNSENT = 1000;
  /** Events that a page cannot send. */
  const RESERVED = new Set([
    'connect', 'connect_error', 'connect_timeout', 'connecting', 'disconnect', 'error', 'reconnect', 'reconnect_attempt',
    'reconnect_failed', 'reconnect_error', 'reconnecting', 'ping', 'pong',
  ]);

  class Emitter {
    /** @type {Map<string, Function[]>} */
    #listeners = new Map();

    /** @param {string} name @param {Function} listener */
    on(name, listener) {
      this.#listeners.set(name, [...this.listeners(name), listener]);
      return this;
    }

    /** @param {string} name @param {Function} listener */
    once(name, listener) {
      /** @param {...unknown} args */
      const once = (...args) => {
        this.off(name, once);
        listener.apply(this, args);
      };
      // So that it can be taken away by the listener's own name.
      once.listener = listener;
      return this.on(name, once);
    }

    /** @param {string} [name] @param {Function} [listener] */
    off(name, listener) {
      if (name === undefined) this.#listeners.clear();
      else if (listener === undefined) this.#listeners.delete(name);
      else {
        const listeners = this.listeners(name);
        const at = listeners.findIndex((/** @type {any} */ one) => one === listener || one.listener === listener);
        this.#listeners.set(name, listeners.filter((_, other) => other !== at));
      }
      return this;
    }

    /** @param {string} name */
    listeners(name) {
      return this.#listeners.get(name) ?? [];
    }

    /** @param {string} name */
    hasListeners(name) {
      return this.listeners(name).length > 0;
    }

    /** @param {string} name @param {...unknown} args */
    fire(name, ...args) {
      for (const listener of this.listeners(name)) listener.apply(this, args);
    }
  }

  /** The other names that some of them have. @type {Record<string, 'on' | 'off'>} */
  const ALIASES = { addEventListener: 'on', removeListener: 'off', removeAllListeners: 'off', removeEventListener: 'off' };
  for (const [alias, name] of Object.entries(ALIASES)) {
    Object.defineProperty(Emitter.prototype, alias, { value: Emitter.prototype[name] });
  }

  /** What a page sees as `socket.io`. */
  class Manager extends Emitter {
    /** @param {string} uri @param {any} opts @param {Socket} socket */
    constructor(uri, opts, socket) {
      super();
      this.uri = uri;
      this.opts = opts;
      this.socket = socket;
    }

    get engine() {
      const { wire } = this.socket;
      return wire && { id: wire.id, transport: { name: wire.transport } };
    }

    /** @param {boolean} [wanted] */
    reconnection(wanted) {
      if (wanted === undefined) return this.opts.reconnection !== false;
      this.opts.reconnection = wanted;
      return this;
    }

    open() {
      this.socket.open();
      return this;
    }

    close() {
      this.socket.close();
    }
  }

  class Socket extends Emitter {
    connected = false;
    disconnected = true;
    /** @type {string | undefined} */
    id = undefined;
    /** @type {import('./client.js').Socket | undefined} */
    wire;
    /** @type {unknown[][]} */
    sendBuffer = [];
    #isWanted = false;
    #pingedAt = 0;

    /** @param {URL} url @param {any} opts */
    constructor(url, opts) {
      super();
      this.nsp = url.pathname || '/';
      this.url = url;
      this.io = new Manager(url.origin, opts, this);
      if (opts.autoConnect !== false) this.open();
    }

    open() {
      if (this.#isWanted) return this;
      this.#isWanted = true;
      const begin = async () => {
        try {
          const { Socket: Wire } = await loading;
          // It may have been closed, and opened again, in the meantime.
          if (this.#isWanted && !this.wire) this.#connect(Wire);
        } catch (error) {
          if (this.#isWanted) this.#both('connect_error', error);
        }
      };
      void begin();
      return this;
    }

    connect() {
      return this.open();
    }

    close() {
      this.#isWanted = false;
      const { wire } = this;
      wire?.close();
      this.wire = undefined;
      return this;
    }

    disconnect() {
      return this.close();
    }

    /** @param {string} name @param {...any} args */
    emit(name, ...args) {
      if (RESERVED.has(name)) this.fire(name, ...args);
      else if (this.connected) this.#send([name, ...args]);
      else if (this.sendBuffer.length < UNSENT) this.sendBuffer.push([name, ...args]);
      else throw new Error(`there is no connection, and ${UNSENT} messages wait for one`);
      return this;
    }

    /** @param {...any} args */
    send(...args) {
      return this.emit('message', ...args);
    }

    compress() {
      return this;
    }

    /** Pages replace it to see every event. @param {{ data: any[], answer?: Function }} packet */
    onevent({ data: [name, ...args], answer }) {
      this.fire(name, ...args, ...(answer ? [answer] : []));
    }

    /** @param {any[]} message */
    #send([name, ...args]) {
      const answer = typeof args.at(-1) === 'function' ? args.pop() : undefined;
      if (!answer) return this.wire?.emit(name, ...args);
      // As in socket.io-client 2, an answer that does not come is waited for without end.
      this.wire?.request(name, args, Infinity).then((answers) => answer(...answers), (error) => {
        if (error instanceof TypeError) throw error;
      });
    }

    /** To the listeners of the socket and of its manager. @param {string} name @param {...unknown} args */
    #both(name, ...args) {
      this.fire(name, ...args);
      this.io.fire(name, ...args);
    }

    /** @param {typeof import('./client.js').Socket} Wire */
    #connect(Wire) {
      const opts = this.io.opts;
      const timeout = opts.timeout ?? 20_000;
      const url = new URL(this.url.origin);
      const query = Object.fromEntries([...this.url.searchParams, ...new URLSearchParams(opts.query ?? {})]);
      const wire = new Wire(url, {
        path: opts.path ?? '/socket.io',
        query,
        timeout,
        transports: opts.transports?.filter((/** @type {string} */ name) => name === 'websocket' || name === 'polling'),
        withCredentials: opts.withCredentials ?? true,
        reconnect: opts.reconnection === false ? false : {
          min: opts.reconnectionDelay ?? 1000,
          max: opts.reconnectionDelayMax ?? 5000,
          jitter: opts.randomizationFactor ?? 0.5,
          attempts: opts.reconnectionAttempts ?? Infinity,
        },
      });
      wire.obeysDisconnect = true;
      this.wire = wire;
      wire.on('connect', ({ attempts }) => {
        if (this.nsp !== '/') return this.fire('error', 'Invalid namespace');
        this.id = wire.id;
        this.connected = true;
        this.disconnected = false;
        if (attempts) this.#both('reconnect', attempts);
        this.fire('connect');
        for (const message of this.sendBuffer.splice(0)) this.#send(message);
      });
      wire.on('disconnect', (reason) => {
        this.id = undefined;
        this.connected = false;
        this.disconnected = true;
        if (wire.status === 'closed') this.#ended(wire);
        if (this.nsp === '/') this.fire('disconnect', reason);
      });
      wire.on('failed', (error) => {
        if (error.message === 'timeout') this.#both('connect_timeout', timeout);
        this.#both('connect_error', error);
        if (isRetry) this.#both('reconnect_error', error);
      });
      let isRetry = false;
      wire.on('attempt', (attempt) => {
        isRetry = true;
        this.#both('reconnect_attempt', attempt);
        this.#both('reconnecting', attempt);
      });
      wire.on('exhausted', () => {
        this.#ended(wire);
        if (opts.reconnection !== false) this.#both('reconnect_failed');
      });
      wire.on('event', ({ args, answer }) => {
        if (this.nsp === '/') this.onevent(answer ? { data: args, answer } : { data: args });
      });
      wire.on('error', (error) => this.fire('error', error));
      wire.on('ping', () => {
        this.#pingedAt = performance.now();
        this.#both('ping');
      });
      wire.on('pong', () => this.#both('pong', Math.round(performance.now() - this.#pingedAt)));
      this.fire('connecting');
      wire.open();
    }

    /** It will not come back by itself, but may be opened again. @param {import('./client.js').Socket} wire */
    #ended(wire) {
      if (this.wire !== wire) return;
      this.wire = undefined;
      this.#isWanted = false;
    }
  }

  /** @param {any} [uri] @param {any} [opts] */
  function io(uri, opts = {}) {
    if (uri && typeof uri === 'object') return new Socket(new URL(location.origin), { ...uri });
    const absolute = !uri || uri[0] === '/' ? uri : /^(https?|wss?):\/\//.test(uri) ? uri : `${location.protocol}//${uri}`;
    const url = new URL(absolute || '/', location.origin);
    url.protocol = url.protocol.replace(/^ws/, 'http');
    return new Socket(url, { ...opts });
  }
  Object.assign(io, { connect: io, Socket, protocol: 4, managers: {} });
  Object.assign(globalThis, { io });
})();
