/** What the page knows of the farm, from the updates that come. Everything in it is bounded. */

import { onShaped, SHAPES } from './shapes.js';

/** @import { ChatMessage, Connection, JobUpdate, Ready, Room, RoomName, TaskUpdate, WorkerUpdate } from './client.js' */
/** @import { Manager } from './manager.js' */

/** @typedef {JobUpdate & { image?: string }} Job */

const MAX_JOBS = 5000;
const MAX_TASKS = 20_000;
const MAX_WORKERS = 5000;
const MAX_TAGS = 1000;
const MAX_IMAGES = 200;
const MAX_MESSAGES = 500;
/** Active jobs whose tasks are followed to see what workers do. */
const MAX_FOLLOWED = 30;

/** Between two requests for what is there, while the Manager does not answer. */
const LIST_AGAIN_MS = 5000;
/** Where the API has workers. */
const WORKERS = 'worker-mgt/workers';

/** The order in which jobs are shown: what is going on first. */
const RANKS = new Map(
  [['active'], ['pause-requested', 'cancel-requested', 'requeueing', 'under-construction'], ['queued'], ['paused'], ['failed'], ['completed', 'canceled']]
    .flatMap((statuses, rank) => statuses.map((status) => /** @type {const} */ ([status, rank]))),
);
const UNKNOWN_RANK = 2.5;

/**
 * Entities by their ids. After a gap, `prune` drops those that the state that followed does not have any more.
 * @template {{ id: string }} T
 */
class Entities {
  /** @type {Map<string, T & { seen: number }>} */
  #all = new Map();
  #generation = 0;
  /** @type {T[] | undefined} */
  #sorted;

  /**
   * @param {number} limit
   * @param {(one: T, other: T) => number} compare
   */
  constructor(limit, compare) {
    this.limit = limit;
    this.compare = compare;
  }

  get size() {
    return this.#all.size;
  }

  /** @param {string} id */
  get(id) {
    return this.#all.get(id);
  }

  /**
   * @param {string} id
   * @param {T} entity
   */
  set(id, entity) {
    this.#all.set(id, { ...this.#all.get(id), ...entity, seen: this.#generation });
    this.#sorted = undefined;
    // Those at the end of the list go first, many at once: the list is sorted for that.
    if (this.#all.size > this.limit * 1.1) for (const last of this.sorted.slice(this.limit)) this.delete(last.id);
  }

  /** @param {string} id */
  delete(id) {
    if (this.#all.delete(id)) this.#sorted = undefined;
  }

  clear() {
    this.#all.clear();
    this.#sorted = undefined;
  }

  /** @returns {T[]} */
  get sorted() {
    this.#sorted ??= [...this.#all.values()].sort(this.compare);
    return this.#sorted;
  }

  /** What is here may be outdated. */
  doubt() {
    this.#generation++;
  }

  /** All that is so has been said since. */
  prune() {
    for (const [id, entity] of this.#all) if (entity.seen < this.#generation) this.delete(id);
  }

  /**
   * Takes a complete list that was asked for when only `before` were known: updates that came since are newer.
   * @param {T[]} list
   * @param {Set<string>} before
   * @param {(one: T) => string | undefined} time
   */
  merge(list, before, time) {
    for (const entity of list) {
      before.delete(entity.id);
      const known = this.#all.get(entity.id);
      if (known && Date.parse(time(known) ?? '') > Date.parse(time(entity) ?? '')) known.seen = this.#generation;
      else this.set(entity.id, entity);
    }
    for (const id of before) this.delete(id);
  }

  get ids() {
    return new Set(this.#all.keys());
  }
}

/** @param {string | undefined} one @param {string | undefined} other */
const byText = (one = '', other = '') => (one < other ? -1 : one > other ? 1 : 0);

/** @typedef {{ id: string, name: string, order?: string }} Named */

/** By name, and numbers in it by their value. @param {Named} one @param {Named} other */
const byName = (one, other) => byText(one.order, other.order) || byText(one.id, other.id);

/** A name as `byName` compares it: to pad numbers once is faster than to compare them each time. @param {string} name */
const orderOf = (name) => String(name).slice(0, 300).replace(/\d{1,15}/g, (digits) => digits.padStart(15, '0'));

/** @param {Job} one @param {Job} other */
function byUrgency(one, other) {
  const rank = (/** @type {Job} */ { status }) => RANKS.get(status) ?? UNKNOWN_RANK;
  return rank(one) - rank(other) || other.priority - one.priority || byText(other.updated, one.updated) || byText(one.id, other.id);
}

/** Calls `changed` whenever something is different from before. */
export class Farm {
  status = 'unknown';
  jobs = new Entities(MAX_JOBS, byUrgency);
  /** @type {Entities<WorkerUpdate & Named>} */
  workers = new Entities(MAX_WORKERS, (one, other) => byName(one, other));
  /** The tasks of the job that is looked at. @type {Entities<TaskUpdate & Named>} */
  tasks = new Entities(MAX_TASKS, (one, other) => byName(one, other));
  /** @type {Entities<Named>} */
  tags = new Entities(MAX_TAGS, byName);
  /** The last image of each job, the newest last. @type {Map<string, string>} */
  images = new Map();
  /** @type {ChatMessage[]} */
  messages = [];
  /** What each worker was last seen working on. @type {Map<string, TaskUpdate>} */
  work = new Map();
  /** The tags of each worker, as the Manager's API has them. @type {Map<string, string[]>} */
  tagsOf = new Map();
  /** Whether something was missed that the server could not send again. */
  isDoubtful = false;
  /** The job that is looked at. @type {string | undefined} */
  #shown;
  /** The job whose tasks are to be asked for, once it is known. @type {string | undefined} */
  #unlisted;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #listing;

  /**
   * @param {Connection} connection
   * @param {URL} root Where images are.
   * @param {Manager} manager
   * @param {() => void} changed
   */
  constructor(connection, root, manager, changed) {
    this.connection = connection;
    this.root = root;
    this.manager = manager;
    this.changed = changed;
    onShaped(this.#follow('Jobs', [this.jobs]), '/jobs', (/** @type {JobUpdate} */ payload) => {
      if (payload.was_deleted) this.jobs.delete(payload.id);
      else this.jobs.set(payload.id, { ...payload, image: this.images.get(payload.id) });
      // Many tasks have changed, without an event for each.
      if (payload.refresh_tasks && payload.id === this.#shown) this.#unlisted = payload.id;
      this.#listTasks();
      changed();
    });
    onShaped(this.#follow('Workers', [this.workers]), '/workers', (/** @type {WorkerUpdate} */ payload) => {
      if (payload.deleted_at) this.workers.delete(payload.id);
      else this.workers.set(payload.id, { ...payload, order: orderOf(payload.name) });
      changed();
    });
    onShaped(this.#follow('Worker-Tags', [this.tags]), '/workertags', (payload) => {
      const id = payload.tag.id ?? payload.tag.name;
      if (payload.was_deleted) this.tags.delete(id);
      else this.tags.set(id, { id, name: payload.tag.name, order: orderOf(payload.tag.name) });
      manager.forget(WORKERS);
      changed();
    });
    onShaped(this.#follow('Last-Rendered', []), '/last-rendered', (payload) => this.#image(payload, true));
    onShaped(this.#follow('Chat', []), '/message', (/** @type {ChatMessage} */ payload) => {
      this.messages.push(payload);
      if (this.messages.length > MAX_MESSAGES) this.messages.shift();
      changed();
    });
    onShaped(connection, '/status', (payload) => {
      this.status = payload.status;
      changed();
    });
    onShaped(connection, '/lifecycle', (payload) => {
      if (payload.type === 'manager-shutdown') this.status = 'unknown';
      changed();
    });
  }

  /**
   * Enters a job's room, and forgets the tasks of the one before.
   * @param {string} id
   */
  job(id) {
    this.tasks.clear();
    this.#shown = id;
    const room = this.#follow(/** @type {const} */ (`job-${id}`), [this.tasks]);
    onShaped(room, '/task', (/** @type {TaskUpdate} */ payload) => {
      this.tasks.set(payload.id, { ...payload, order: orderOf(payload.name) });
      this.changed();
    });
    const list = () => {
      this.#unlisted = id;
      this.#listTasks();
    };
    // Again once it is entered: until then updates may be missed, and while the Manager is away that can take long.
    room.on('ready', list);
    list();
    return room;
  }

  /** Asks for the tasks of the job that is looked at: events say only what changes. */
  async #listTasks() {
    const id = this.#unlisted;
    // The Manager answers for its own jobs only.
    if (!id || !this.jobs.get(id)) return;
    this.#unlisted = undefined;
    const before = this.tasks.ids;
    const answer = await this.manager.get(`jobs/${id}/tasks`);
    if (id !== this.#shown || !Array.isArray(answer?.tasks)) return;
    const listed = answer.tasks.map((/** @type {any} */ { worker, ...task }) => {
      const known = this.tasks.get(task.id);
      const named = worker?.name ? { name: worker.name, uuid: worker.id } : known?.worker;
      return { activity: known?.activity ?? '', ...task, job_id: id, worker: named, order: orderOf(task.name) };
    });
    const tasks = listed.filter(SHAPES['/task']);
    this.tasks.merge(tasks, before, ({ updated }) => updated);
    this.changed();
  }

  /** Asks for the last image of a job that was rendered before the page was there. @param {string} id */
  wantImage(id) {
    if (this.images.has(id) || this.images.size >= MAX_IMAGES) return;
    this.manager.once(`jobs/${id}/last-rendered`, (thumbnail) => {
      const update = { job_id: id, thumbnail };
      if (!this.images.has(id) && SHAPES['/last-rendered'](update)) this.#image(update, false);
    });
  }

  /** Asks for the tags and the task of a worker. @param {string} id */
  wantWorker(id) {
    this.manager.once(`${WORKERS}/${id}`, ({ tags, task }) => {
      if (this.tagsOf.size >= MAX_WORKERS) this.tagsOf.clear();
      this.tagsOf.set(id, Array.isArray(tags) ? tags.map(({ name }) => String(name)) : []);
      const given = { activity: '', ...task, worker: { uuid: id, name: '' } };
      if (!this.work.has(id) && SHAPES['/task'](given)) this.#work(given);
      this.changed();
    });
  }

  /** Asks for everything after a gap, until the Manager answers. */
  async #list() {
    clearTimeout(this.#listing);
    if (!this.isDoubtful || !this.manager.isThere) return;
    const [jobsBefore, workersBefore] = [this.jobs.ids, this.workers.ids];
    const [all, mine] = await Promise.all([this.manager.get('jobs'), this.manager.get(WORKERS)]);
    if (!Array.isArray(all?.jobs) || !Array.isArray(mine?.workers)) {
      this.#listing = setTimeout(() => this.#list(), LIST_AGAIN_MS);
      return;
    }
    const jobs = all.jobs.map((/** @type {any} */ job) => ({ ...job, image: this.images.get(job.id) }));
    this.jobs.merge(jobs.filter(SHAPES['/jobs']), jobsBefore, ({ updated }) => updated);
    const workers = mine.workers.map((/** @type {any} */ worker) => ({ ...worker, order: orderOf(worker.name) }));
    this.workers.merge(workers.filter(SHAPES['/workers']), workersBefore, ({ last_seen }) => last_seen);
    this.isDoubtful = false;
    this.changed();
  }

  /** Follows what workers do: `update` enters the rooms of the jobs that have become active, and leaves the others. */
  followWork() {
    this.manager.forget(WORKERS);
    /** @type {Map<string, Room<`job-${string}`>>} */
    const rooms = new Map();
    const enter = (/** @type {string} */ id) => {
      const room = this.#follow(/** @type {const} */ (`job-${id}`), []);
      onShaped(room, '/task', (/** @type {TaskUpdate} */ payload) => this.#work(payload));
      rooms.set(id, room);
    };
    return {
      update: () => {
        const active = new Set(this.jobs.sorted.slice(0, MAX_FOLLOWED).filter(({ status }) => status === 'active').map(({ id }) => id));
        for (const id of active) if (!rooms.has(id)) enter(id);
        for (const [id, room] of rooms) {
          if (active.has(id)) continue;
          room.leave();
          rooms.delete(id);
        }
      },
      close: () => {
        for (const room of rooms.values()) room.leave();
        this.work.clear();
      },
    };
  }

  /** @param {TaskUpdate} task */
  #work(task) {
    if (!task.worker) return;
    const { uuid } = task.worker;
    if (task.status === 'active') this.work.set(uuid, task);
    else if (this.work.get(uuid)?.id === task.id) this.work.delete(uuid);
    if (this.work.size > MAX_WORKERS) this.work.clear();
    this.changed();
  }

  /**
   * @template {RoomName} R
   * @param {R} name
   * @param {Entities<any>[]} entities
   * @returns {Room<R>}
   */
  #follow(name, entities) {
    const room = this.connection.room(name);
    const marks = /** @type {{ on(name: string, listener: (event: any) => void): void }} */ (room);
    // A server that has started anew knows only what was published since.
    let isComplete = true;
    marks.on('gap', (/** @type {string} */ reason) => {
      isComplete = reason !== 'epoch';
      this.isDoubtful = true;
      for (const all of entities) all.doubt();
      this.changed();
    });
    marks.on('ready', (/** @type {Ready} */ { state }) => {
      if (state && isComplete) {
        for (const all of entities) all.prune();
        this.isDoubtful = false;
      }
      this.#list();
      this.changed();
    });
    return room;
  }

  /** @param {{ job_id: string, thumbnail: { base: string, suffixes: string[] } }} update @param {boolean} isNew */
  #image({ job_id, thumbnail }, isNew) {
    const suffix = thumbnail.suffixes.find((name) => name.includes('small')) ?? thumbnail.suffixes.find((name) => name.includes('tiny')) ?? thumbnail.suffixes[0];
    const url = suffix && this.#address(`${thumbnail.base}/${suffix}`);
    if (!url) return;
    this.images.delete(job_id);
    if (isNew) this.images.set(job_id, url);
    else this.images = new Map([[job_id, url], ...this.images]);
    if (this.images.size > MAX_IMAGES) this.images.delete(/** @type {string} */ (this.images.keys().next().value));
    const job = this.jobs.get(job_id);
    if (job) job.image = url;
    this.changed();
  }

  /** The address of an image of the server's, which is fetched again for each update. @param {string} path */
  #address(path) {
    try {
      const url = new URL(path.replace(/^\//, ''), this.root);
      if (url.origin !== this.root.origin) return undefined;
      url.searchParams.set('at', String(Date.now()));
      return url.href;
    } catch {
      return undefined;
    }
  }
}
