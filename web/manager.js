/** The Manager's API, where the server has one: what was there before the page, and what events do not say. */

/** Requests at the same time: the Manager has other work to do. */
const MAX_AT_ONCE = 4;
/** Requests that wait. The oldest are dropped: their rows have left the screen. */
const MAX_WAITING = 100;

/** Bytes of a log that are fetched. */
const MAX_LOG = 32_000_000;

/** @typedef {{ path: string, resolve(answer: any): void }} Question */

export class Manager {
  /** @type {Question[]} */
  #waiting = [];
  #underWay = 0;
  /** Paths that have been asked for. @type {Set<string>} */
  #asked = new Set();

  /** @param {URL | undefined} root The folder of the API; undefined if the server has none. */
  constructor(root) {
    this.root = root;
  }

  /** Whether there is an API. */
  get isThere() {
    return this.root !== undefined;
  }

  /**
   * Resolves with the JSON at a path, and with undefined if there is none.
   * @param {string} path
   * @returns {Promise<any>}
   */
  get(path) {
    if (!this.root) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting.push({ path, resolve });
      if (this.#waiting.length > MAX_WAITING) this.#drop();
      this.#next();
    });
  }

  /**
   * Resolves with the end of a task's log, and with undefined without one.
   * @param {string} task
   * @returns {Promise<string | undefined>}
   */
  async log(task) {
    const { url, size } = (await this.get(`tasks/${task}/log`)) ?? {};
    if (typeof url !== 'string' || !this.root) return undefined;
    // The API is two folders below the Manager's own root.
    const file = new URL(`../../${url.replace(/^\/+/, '')}`, this.root);
    if (file.origin !== this.root.origin) return undefined;
    const headers = size > MAX_LOG ? { range: `bytes=-${MAX_LOG}` } : undefined;
    const answer = await fetch(file, { headers, signal: AbortSignal.timeout(30_000) }).catch(() => undefined);
    return answer?.ok ? answer.text().catch(() => undefined) : undefined;
  }

  /**
   * As `get`, once for each path until `forget`.
   * @param {string} path
   * @param {(answer: any) => void} use Called if there is JSON.
   */
  async once(path, use) {
    if (!this.root || this.#asked.has(path)) return;
    this.#asked.add(path);
    const answer = await this.get(path);
    if (answer) use(answer);
  }

  /** Lets paths be asked for again. @param {string} prefix */
  forget(prefix) {
    for (const path of this.#asked) if (path.startsWith(prefix)) this.#asked.delete(path);
  }

  #drop() {
    const { path, resolve } = /** @type {Question} */ (this.#waiting.shift());
    this.#asked.delete(path);
    resolve(undefined);
  }

  async #next() {
    if (this.#underWay >= MAX_AT_ONCE) return;
    // What came into sight last is asked for first.
    const question = this.#waiting.pop();
    if (!question) return;
    this.#underWay++;
    question.resolve(await this.#fetch(question.path).catch(() => undefined));
    this.#underWay--;
    this.#next();
  }

  /** @param {string} path */
  async #fetch(path) {
    const answer = await fetch(new URL(path, this.root), { signal: AbortSignal.timeout(10_000) });
    // Without an image or a task the status is 204.
    return answer.status === 200 ? answer.json() : undefined;
  }
}
