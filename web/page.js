/** The farm page: its views, and which of them is shown. */

import { connect } from './client.js';
import { element, label, localTime, setAttribute, setStatus, setText } from './dom.js';
import { Inspector } from './inspector.js';
import { VirtualList } from './list.js';
import { LogView } from './log.js';
import { Manager } from './manager.js';
import { Farm } from './model.js';

/** @import { TaskUpdate, WorkerUpdate } from './client.js' */
/** @import { Job } from './model.js' */

/** @typedef {{ element: (Node | string)[], update(): void, close?(): void }} View */

/** Jobs whose last images the gallery asks for when it is opened. */
const ASKED_IMAGES = 60;

/** A list is sorted again at most this often, so that its rows can be read. */
const SORT_EVERY_MS = 500;

const UUID = '([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})';

/** @template {Element} E @param {string} id @param {new () => E} type */
function byId(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`there is no ${id}`);
  return found;
}

const main = byId('view', HTMLElement);
const notice = byId('notice', HTMLElement);
/** What the server says of itself. @param {string} name */
const meta = (name) => document.querySelector(`meta[name=${name}]`)?.getAttribute('content') ?? '';
const page = new URL(location.href);
page.hash = page.search = '';
const connection = connect(page.origin, { path: new URL(`../${meta('socket-io')}`, page).pathname });
/** Where the API and the images are. */
const root = new URL(`${meta('root')}/`, page);
const manager = new Manager(meta('api') === 'none' ? undefined : new URL(`${meta('api')}/`, root));
const farm = new Farm(connection, root, manager, schedule);
/** @type {View | undefined} */
let view;
let isScheduled = false;
/** @type {{ delay: number, since: number } | undefined} */
let waiting;

/** Shows what has changed, in the next frame. */
function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    showStates();
    view?.update();
  });
}

function showStates() {
  const isFarmKnown = connection.status === 'live';
  setStatus(byId('farm', HTMLElement), isFarmKnown ? farm.status : 'unknown', `farm ${isFarmKnown ? farm.status : 'unknown'}`);
  const seconds = waiting && Math.ceil((waiting.since + waiting.delay - performance.now()) / 1000);
  const again = seconds && seconds > 1 && connection.status !== 'live' ? `, again in ${seconds} s` : '';
  setStatus(byId('connection', HTMLElement), connection.status, `${connection.status}${again}`);
  notice.hidden = !farm.isDoubtful;
  setText(notice, farm.isDoubtful ? 'Updates were missed while the connection was lost: what has not changed since may be outdated.' : '');
}

connection.on('status', schedule);
connection.on('waiting', ({ delay }) => {
  waiting = { delay, since: performance.now() };
  schedule();
});

/**
 * A list whose order is made anew at most twice a second, and its rows in each frame.
 * @template {{ id: string }} T
 * @param {object} options
 * @param {string} options.label
 * @param {string} options.empty What it says while nothing is in it.
 * @param {number} options.height
 * @param {() => T[]} options.items
 * @param {(id: string) => T | undefined} options.newest
 * @param {() => HTMLElement} options.create
 * @param {(row: HTMLElement, item: T) => void} options.update
 */
function sortedList({ label, empty, height, items, newest, create, update }) {
  /** @type {T[]} */
  let sorted = [];
  let sortedAt = -Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const list = new VirtualList({
    label,
    height,
    create,
    item: (index) => sorted[index],
    key: (index) => sorted[index].id,
    update: (row, item) => update(row, newest(item.id) ?? item),
  });
  const nothing = element('p', { class: 'empty' }, empty);
  const sort = () => {
    timer = undefined;
    sortedAt = performance.now();
    sorted = items();
    list.count = sorted.length;
    nothing.hidden = sorted.length > 0;
  };
  return {
    elements: [nothing, list.box],
    sort,
    close: () => clearTimeout(timer),
    update() {
      list.schedule();
      timer ??= setTimeout(sort, Math.max(0, sortedAt + SORT_EVERY_MS - performance.now()));
    },
  };
}

/** @param {HTMLProgressElement} bar @param {{ steps_completed?: number, steps_total?: number }} steps */
function showProgress(bar, { steps_completed = 0, steps_total = 0 }) {
  const total = Math.max(1, steps_total);
  if (bar.max !== total) bar.max = total;
  if (bar.value !== steps_completed) bar.value = steps_completed;
  setAttribute(bar, 'aria-label', `${steps_completed} of ${steps_total} steps`);
}

/** @param {HTMLImageElement} image @param {string | undefined} url */
function showImage(image, url) {
  if (image.getAttribute('src') === (url ?? null)) return;
  if (url) {
    image.src = url;
    image.classList.remove('empty');
  } else {
    image.removeAttribute('src');
    image.classList.add('empty');
  }
}

/** An image that is not seen when it cannot be had. @param {string} name */
function picture(name = '') {
  const image = element('img', { alt: name, class: 'empty' });
  image.addEventListener('error', () => image.classList.add('empty'));
  return image;
}

function progressBar(name = '') {
  return element('progress', { class: name, value: 0, max: 1 });
}

/** @returns {View} */
function jobsView() {
  let wanted = '';
  const matching = (/** @type {Job} */ { id, name = '', status, type }) => [id, name, status, type].some((text) => text.toLowerCase().includes(wanted));
  const list = sortedList({
    label: 'Jobs',
    empty: 'No job has been heard of yet.',
    height: 44,
    items: () => (wanted ? farm.jobs.sorted.filter(matching) : farm.jobs.sorted),
    newest: (id) => farm.jobs.get(id),
    create: () => element('a', { class: 'row jobs' }, element('span', {}, picture()), element('span', {}, element('span', { class: 'chip' })), label(),
      progressBar('wide'), element('span', { class: 'number' }), element('bdi', { class: 'wide faint' })),
    update(row, job) {
      const [image, status, name, progress, priority, type] = row.children;
      setAttribute(row, 'href', `#job/${job.id}`);
      if (!job.image) farm.wantImage(job.id);
      showImage(/** @type {HTMLImageElement} */ (image.firstElementChild), job.image);
      setStatus(/** @type {HTMLElement} */ (status.firstElementChild), job.status);
      setText(name, job.name || job.id);
      showProgress(/** @type {HTMLProgressElement} */ (progress), job);
      setText(priority, job.priority);
      setAttribute(priority, 'aria-label', `priority ${job.priority}`);
      setText(type, job.type);
    },
  });
  const filter = element('input', { type: 'search', placeholder: 'Filter', 'aria-label': 'Filter the jobs' });
  filter.addEventListener('input', () => {
    wanted = filter.value.trim().toLowerCase();
    list.sort();
  });
  const count = element('span', { class: 'rest' });
  list.sort();
  return {
    element: [element('div', { class: 'bar' }, element('h2', {}, 'Jobs'), filter, count), ...list.elements],
    close: list.close,
    update() {
      setText(count, `${farm.jobs.size} jobs`);
      list.update();
    },
  };
}

/** @param {string} id @returns {View} */
function jobView(id) {
  const room = farm.job(id);
  const [image, name, status, progress, facts] = [picture('The last image'), element('bdi'), element('span', { class: 'chip' }), progressBar(), element('bdi')];
  const list = sortedList({
    label: 'Tasks',
    empty: 'No task of this job has been heard of yet.',
    height: 32,
    items: () => farm.tasks.sorted,
    newest: (task) => farm.tasks.get(task),
    create: () => element('a', { class: 'row tasks' }, element('span', {}, element('span', { class: 'chip' })), label(), progressBar(),
      element('bdi', { class: 'wide' }), element('bdi', { class: 'wide faint' })),
    update(row, /** @type {TaskUpdate} */ task) {
      const [status, name, progress, worker, activity] = row.children;
      setAttribute(row, 'href', `#task/${id}/${task.id}`);
      setStatus(/** @type {HTMLElement} */ (status.firstElementChild), task.status);
      setText(name, task.name);
      showProgress(/** @type {HTMLProgressElement} */ (progress), task);
      setText(worker, task.worker?.name);
      setText(activity, task.activity);
    },
  });
  return {
    element: [
      element('div', { class: 'head' }, image, element('div', {}, element('h2', {}, name), progress, element('p', {}, status, facts, element('a', { href: '#jobs' }, 'All jobs')))),
      ...list.elements,
    ],
    close() {
      room.leave();
      list.close();
    },
    update() {
      const job = farm.jobs.get(id);
      setText(name, job?.name ?? `Job ${id}`);
      setStatus(status, job?.status ?? 'unknown');
      showProgress(progress, job ?? {});
      setText(facts, job ? `priority ${job.priority} · ${job.type} · updated ${localTime(job.updated)}` : '');
      if (job) farm.wantImage(id);
      showImage(image, farm.images.get(id));
      list.update();
    },
  };
}

/** @param {string} job @param {string} task @returns {View} */
function taskView(job, task) {
  // The room of its job goes on telling of the task.
  const room = farm.job(job);
  const log = new LogView(connection, manager, task);
  const [name, status, facts, jobName] = [element('bdi'), element('span', { class: 'chip' }), element('bdi'), element('bdi')];
  return {
    element: [
      element('div', { class: 'head' }, element('div', {}, element('h2', {}, name), element('p', {}, status, facts, element('a', { href: `#job/${job}` }, jobName)))),
      ...log.element,
    ],
    close() {
      room.leave();
      log.close();
    },
    update() {
      const known = farm.tasks.get(task);
      setText(name, known?.name ?? `Task ${task}`);
      setStatus(status, known?.status ?? 'unknown');
      setText(facts, known ? [known.worker?.name, known.activity].filter(Boolean).join(' · ') : '');
      setText(jobName, farm.jobs.get(job)?.name || 'The job of this task');
    },
  };
}

/** @returns {View} */
function workersView() {
  const list = sortedList({
    label: 'Workers',
    empty: 'No worker has been heard of yet.',
    height: 36,
    items: () => farm.workers.sorted,
    newest: (id) => farm.workers.get(id),
    create: () => element('div', { class: 'row workers', role: 'group' }, element('span', {}, element('span', { class: 'chip' })), label(), label('change'),
      label('work faint'), label('wide faint'), label('wide faint')),
    update(row, /** @type {WorkerUpdate} */ worker) {
      const [status, name, change, work, tags, version] = row.children;
      farm.wantWorker(worker.id);
      setStatus(/** @type {HTMLElement} */ (status.firstElementChild), worker.status);
      setText(name, worker.name);
      setAttribute(row, 'aria-label', `${worker.name.slice(0, 100)}, ${worker.status}`);
      setText(change, worker.status_change && `→ ${worker.status_change.status}${worker.status_change.is_lazy ? ' when done' : ''}`);
      const task = farm.work.get(worker.id);
      setText(work, task ? [task.name, task.activity].filter(Boolean).join(': ') : worker.last_seen && `seen ${localTime(worker.last_seen)}`);
      setText(tags, farm.tagsOf.get(worker.id)?.join(', '));
      setText(version, worker.version);
    },
  });
  const tags = element('span', { class: 'rest' });
  const work = farm.followWork();
  list.sort();
  return {
    element: [element('div', { class: 'bar' }, element('h2', {}, 'Workers'), tags), ...list.elements],
    close() {
      work.close();
      list.close();
    },
    update() {
      work.update();
      const names = farm.tags.sorted.map(({ name }) => name).join(', ');
      setText(tags, `${farm.workers.size} workers${names && ` · tags: ${names}`}`);
      list.update();
    },
  };
}

/** @returns {View} */
function imagesView() {
  const gallery = element('ul', { class: 'gallery', 'aria-label': 'Last rendered images' });
  const nothing = element('p', { class: 'empty' }, 'No image has been rendered yet.');
  /** @type {Map<string, HTMLLIElement>} */
  const shown = new Map();
  return {
    element: [element('div', { class: 'bar' }, element('h2', {}, 'Last rendered')), nothing, gallery],
    update() {
      nothing.hidden = farm.images.size > 0;
      for (const { id } of farm.jobs.sorted.slice(0, ASKED_IMAGES)) farm.wantImage(id);
      // The newest is the last, and shown first.
      let next = /** @type {Element | null} */ (gallery.firstElementChild);
      for (const [id, url] of [...farm.images].reverse()) {
        const one = shown.get(id) ?? element('li', {}, element('a', { href: `#job/${id}` }, picture(), label()));
        const [image, name] = /** @type {HTMLElement} */ (one.firstElementChild).children;
        shown.set(id, one);
        showImage(/** @type {HTMLImageElement} */ (image), url);
        setText(name, farm.jobs.get(id)?.name || `Job ${id}`);
        if (one === next) next = next.nextElementSibling;
        else gallery.insertBefore(one, next);
      }
      for (const [id, one] of shown) {
        if (farm.images.has(id)) continue;
        one.remove();
        shown.delete(id);
      }
    },
  };
}

/** @returns {View} */
function chatView() {
  const messages = element('ol');
  const box = element('div', { class: 'messages', 'aria-label': 'Messages', role: 'log', tabindex: 0 }, messages);
  const name = element('input', { name: 'name', placeholder: 'Your name', 'aria-label': 'Your name', required: true, size: 12, autocomplete: 'nickname' });
  const text = element('input', { name: 'text', placeholder: 'Message', 'aria-label': 'Message', required: true, autocomplete: 'off' });
  const answer = element('span', { role: 'status' });
  const form = element('form', { class: 'bar' }, name, text, element('button', {}, 'Send'), answer);
  try {
    name.value = localStorage.getItem('name') ?? '';
  } catch {
    // Some browsers keep nothing.
  }
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    try {
      localStorage.setItem('name', name.value);
    } catch {
      // The same.
    }
    try {
      const said = await connection.request('/chat', { name: name.value, text: text.value });
      setText(answer, said === 'message sent successfully.' ? '' : said);
      if (said === 'message sent successfully.') text.value = '';
    } catch (error) {
      setText(answer, error instanceof Error ? error.message : error);
    }
  });
  /** The last message that is shown. @type {unknown} */
  let last;
  return {
    element: [element('div', { class: 'bar' }, element('h2', {}, 'Chat')), box, form],
    update() {
      const from = farm.messages.lastIndexOf(/** @type {any} */ (last)) + 1;
      if (from === farm.messages.length) return;
      if (from === 0) messages.replaceChildren();
      for (const message of farm.messages.slice(from)) {
        const author = element('b', {}, element('bdi', {}, message.name.slice(0, 100)));
        messages.append(element('li', {}, author, ': ', element('bdi', {}, message.text.slice(0, 10_000))));
      }
      while (messages.childElementCount > farm.messages.length) messages.firstElementChild?.remove();
      last = farm.messages.at(-1);
      box.scrollTop = box.scrollHeight;
    },
  };
}

/** @returns {View} */
function inspectorView() {
  const inspector = new Inspector(connection);
  return { element: [inspector.element], update() {}, close: () => inspector.close() };
}

/** Views by what their address begins with. @type {[RegExp, string, string, (...ids: string[]) => View][]} */
const VIEWS = [
  [/^#jobs$|^$/, '#jobs', 'Jobs', jobsView],
  [new RegExp(`^#job/${UUID}$`, 'i'), '#jobs', 'Job', (id) => jobView(id.toLowerCase())],
  [new RegExp(`^#task/${UUID}/${UUID}$`, 'i'), '#jobs', 'Task', (job, task) => taskView(job.toLowerCase(), task.toLowerCase())],
  [/^#workers$/, '#workers', 'Workers', workersView],
  [/^#images$/, '#images', 'Last rendered', imagesView],
  [/^#chat$/, '#chat', 'Chat', chatView],
  [/^#inspector$/, '#inspector', 'Inspector', inspectorView],
];

/** Shows what the address names. */
function route() {
  const found = VIEWS.map(([pattern, link, title, make]) => ({ ids: pattern.exec(location.hash), link, title, make })).find(({ ids }) => ids);
  view?.close?.();
  view = undefined;
  document.title = `${found?.title ?? 'Not found'} · Farm`;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.getAttribute('href') === found?.link) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  view = found?.make(...(found.ids ?? []).slice(1)) ?? { element: [element('p', { class: 'empty' }, 'There is nothing here. '), element('a', { href: '#jobs' }, 'All jobs')], update() {} };
  main.replaceChildren(...view.element);
  schedule();
}

window.addEventListener('hashchange', () => {
  route();
  main.focus({ preventScroll: true });
});
byId('skip', HTMLElement).addEventListener('click', () => main.focus({ preventScroll: true }));
setInterval(showStates, 1000);
route();
