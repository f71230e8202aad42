/** The console: who is connected, how the server is doing, and the few things that an operator may do about it. */

import { element, setStatus, setText } from './dom.js';

/** Milliseconds between two looks at the figures, and at the sessions and rooms. */
const FIGURES_EVERY = 2000;
const LISTS_EVERY = 4000;
const PAGE = 50;
/** What the server keeps. */
const HOUR_S = 3600;
/** The shortest time that a plot covers. */
const SHORTEST_S = 120;
/** Where the tab keeps the token. */
const TOKEN = 'webupdates-token';

/**
 * @typedef {{ at_s: number, for_s: number, websocket: number, polling: number, waiting_bytes: number, deliveries: number, bytes_out: number, events: number[], sources: number[], refused: number, disconnects: number, latencies: number[] }} Sample
 * @typedef {{ version: string, backlog: number, workers: number, interval_s: number, buckets_s: number[], events: string[], sources: string[], samples: Sample[], current: Sample }} History
 * @typedef {{ name: string, version: string, sessions: { total: number }, offset: number, sources: string[], uptime_s: number, age_s: number }} Node
 * @typedef {{ id: number, address: string, age_s: number, transport: string, room_count: number, rooms: string[], waiting_bytes: number }} Session
 */

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const number = new Intl.NumberFormat('en');
const rate = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });

/** @param {number} bytes */
function size(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${rate.format(bytes)} ${units[unit]}`;
}

/** @param {number} seconds */
function duration(seconds) {
  const parts = [[86_400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const at = Math.max(0, parts.findIndex(([length]) => seconds >= Number(length)));
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  const [[length, unit], next] = [parts[at], parts[at + 1]];
  const rest = next && Math.floor((seconds % Number(length)) / Number(next[0]));
  return `${Math.floor(seconds / Number(length))} ${unit}${rest ? ` ${rest} ${next[1]}` : ''}`;
}

/** Latencies are better read in milliseconds. @param {number} seconds */
const latency = (seconds) => (seconds === Infinity ? 'over 10 s' : seconds < 1 ? `${rate.format(seconds * 1000)} ms` : `${rate.format(seconds)} s`);

/** The server did not let us in. */
class NoToken extends Error {}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...(token ? { authorization: `Bearer ${token}` } : {}), ...(options.body ? { 'content-type': 'application/json' } : {}) };
  const answer = await fetch(path, { ...options, headers, cache: 'no-store', signal: AbortSignal.timeout(10_000) });
  if (answer.status === 401 || (answer.status === 403 && token)) throw new NoToken(token ? 'This is not the token.' : '');
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? `The server answers ${answer.status}.`);
  return body;
}

/**
 * The bound below which this share of the latencies is; undefined without any.
 * @param {number[]} counts
 * @param {number[]} bounds
 * @param {number} share
 */
function quantile(counts, bounds, share) {
  const all = counts.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (const [bucket, count] of counts.entries()) {
    seen += count;
    if (count && seen >= all * share) return bounds[bucket] ?? Infinity;
  }
  return undefined;
}

/** What the server has kept, and what has come since. */
const history = {
  /** @type {Sample[]} */ samples: [],
  /** @type {Sample | undefined} */ current: undefined,
  /** @type {number[]} */ bounds: [],
  /** @param {History} report */
  add(report) {
    // A server that was started again counts from zero.
    if (this.current && report.current.at_s < this.current.at_s) this.samples = [];
    this.samples.push(...report.samples);
    this.current = report.current;
    this.bounds = report.buckets_s;
    while (this.samples.length && this.samples[0].at_s < report.current.at_s - HOUR_S) this.samples.shift();
  },
  get since() {
    return this.samples.at(-1)?.at_s ?? 0;
  },
  get all() {
    return this.current && this.current.for_s > 0.5 ? [...this.samples, this.current] : this.samples;
  },
};

/** The colours of the page's theme. */
const colour = (/** @type {string} */ name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/**
 * A plot with its caption, which says the same in words.
 * @param {string} title
 * @param {(context: CanvasRenderingContext2D, width: number, height: number, x: (at_s: number) => number) => string} draw Returns the newest value.
 */
function plot(title, draw) {
  const [canvas, now] = [element('canvas', { role: 'img' }), element('span')];
  const figure = element('figure', {}, element('figcaption', {}, element('span', {}, title), now), canvas);
  byId('plots').append(figure);
  return () => {
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    const context = canvas.getContext('2d');
    if (!context) return;
    context.scale(scale, scale);
    const [first, end] = [history.all[0], history.current?.at_s ?? 0];
    // A server that has just started has little to show.
    const span = Math.min(HOUR_S, Math.max(SHORTEST_S, first ? end - first.at_s + first.for_s : 0));
    const text = draw(context, width, height, (at) => width - ((end - at) / span) * width);
    setText(now, text);
    canvas.setAttribute('aria-label', `${title}: ${text}`);
  };
}

/**
 * A line, scaled to its highest value.
 * @param {(sample: Sample) => number} value
 * @param {(value: number) => string} format
 * @param {string} ink
 */
const line = (value, format, ink) => (/** @type {CanvasRenderingContext2D} */ context, /** @type {number} */ _, /** @type {number} */ height, /** @type {(at_s: number) => number} */ x) => {
  const points = history.all.map((sample) => [x(sample.at_s - sample.for_s), x(sample.at_s), value(sample)]);
  const highest = Math.max(...points.map(([, , at]) => at), 0);
  const y = (/** @type {number} */ at) => height - 2 - (highest ? (at / highest) * (height - 8) : 0);
  context.strokeStyle = context.fillStyle = colour(ink);
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [from, to, at] of points) {
    context.lineTo(from, y(at));
    context.lineTo(to, y(at));
  }
  context.stroke();
  return points.length ? `${format(points[points.length - 1][2])} · highest ${format(highest)}` : 'nothing yet';
};

/** How many rounds of the flusher took how long, over time: the darker, the more. */
function heatMap(/** @type {CanvasRenderingContext2D} */ context, /** @type {number} */ _, /** @type {number} */ height, /** @type {(at_s: number) => number} */ x) {
  const rows = history.bounds.length + 1;
  context.fillStyle = colour('accent');
  for (const sample of history.all) {
    const most = Math.max(...sample.latencies);
    const [from, to] = [x(sample.at_s - sample.for_s), x(sample.at_s)];
    for (const [bucket, count] of sample.latencies.entries()) {
      if (!count) continue;
      context.globalAlpha = 0.15 + 0.85 * (count / most);
      context.fillRect(from, height - ((bucket + 1) * height) / rows, Math.max(1, to - from), height / rows);
    }
  }
  context.globalAlpha = 1;
  context.lineWidth = 1.5;
  for (const [share, ink] of /** @type {const} */ ([[0.5, 'green'], [0.99, 'red']])) {
    context.strokeStyle = colour(ink);
    context.beginPath();
    for (const sample of history.all) {
      const at = quantile(sample.latencies, history.bounds, share);
      if (at === undefined) continue;
      const bucket = history.bounds.indexOf(at);
      const y = height - (((bucket < 0 ? rows - 1 : bucket) + 0.5) * height) / rows;
      context.lineTo(x(sample.at_s - sample.for_s), y);
      context.lineTo(x(sample.at_s), y);
    }
    context.stroke();
  }
  return percentiles(history.all.slice(-6)) ?? 'nothing yet';
}

/** @param {Sample[]} samples */
function percentiles(samples) {
  const counts = history.bounds.concat(0).map((_, bucket) => samples.reduce((sum, { latencies }) => sum + latencies[bucket], 0));
  const [half, most] = [0.5, 0.99].map((share) => quantile(counts, history.bounds, share));
  return half === undefined || most === undefined ? undefined : `p50 ≤ ${latency(half)} · p99 ≤ ${latency(most)}`;
}

const sum = (/** @type {number[]} */ values) => values.reduce((all, value) => all + value, 0);
const perSecond = (/** @type {number} */ value) => `${rate.format(value)}/s`;
const plots = [
  plot('Publish to write', heatMap),
  plot('Deliveries', line(({ deliveries, for_s }) => deliveries / for_s, perSecond, 'blue')),
  plot('Events received', line(({ events, for_s }) => sum(events) / for_s, perSecond, 'green')),
  plot('Sessions', line(({ websocket, polling }) => websocket + polling, (value) => number.format(value), 'amber')),
  plot('Waiting in outboxes', line(({ waiting_bytes }) => waiting_bytes, size, 'red')),
  plot('Disconnects and refusals', line(({ disconnects, refused, for_s }) => (disconnects + refused) / for_s, perSecond, 'grey')),
];

/**
 * Sets the rows of a table; the cells of a row that stays are set, so that a selection in them stays.
 * @param {string} id
 * @param {string[]} heads Those that begin with # are numbers.
 * @param {unknown[][]} rows
 */
function table(id, heads, rows) {
  const target = /** @type {HTMLTableElement} */ (byId(id));
  const isNumber = heads.map((head) => head.startsWith('#'));
  if (!target.tHead) {
    target.createTHead().append(element('tr', {}, ...heads.map((head, at) => element('th', { scope: 'col', class: isNumber[at] && 'number' }, head.replace('#', '')))));
    target.createTBody();
  }
  const body = target.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  for (const [at, cells] of rows.entries()) {
    const row = body.rows[at] ?? body.appendChild(element('tr', {}, ...cells.map((_, column) => element('td', { class: isNumber[column] && 'number' }))));
    cells.forEach((cell, column) => setText(row.cells[column], cell));
  }
}

/** Of counters by name, those that count something, the most first. @param {Record<string, number>} counters */
const counted = (counters) => Object.entries(counters).filter(([, count]) => count).sort(([, one], [, other]) => other - one).map(([name, count]) => [name, number.format(count)]);

/** @param {[string, string][]} all */
function showFigures(all) {
  const list = byId('figures');
  for (const [at, [name, value]] of all.entries()) {
    const one = list.children[at] ?? list.appendChild(element('div', {}, element('dt'), element('dd')));
    setText(one.children[0], name);
    setText(one.children[1], value);
  }
}

async function updateFigures() {
  const [stats, report] = await Promise.all([ask('api/stats?rooms=false&cluster=true'), ask(`api/history?since=${history.since}`)]);
  history.add(report);
  const recent = history.all.slice(-2);
  const seconds = sum(recent.map(({ for_s }) => for_s)) || 1;
  const rateOf = (/** @type {(sample: Sample) => number} */ value) => perSecond(sum(recent.map(value)) / seconds);
  setText(byId('about'), `version ${report.version} · up ${duration(stats.uptime_s)}`);
  showFigures([
    ['WebSocket sessions', number.format(stats.sessions.websocket)],
    ['Polling sessions', number.format(stats.sessions.polling)],
    ['Events', rateOf(({ events }) => sum(events))],
    ['Deliveries', rateOf(({ deliveries }) => deliveries)],
    ['Sent', `${size(sum(recent.map(({ bytes_out }) => bytes_out)) / seconds)}/s`],
    ['Waiting in outboxes', size(waiting)],
    ['Events in flight', number.format(report.backlog)],
    ['HTTP connections', number.format(stats.http_connections)],
    ['Worker threads', number.format(report.workers)],
  ]);
  showNodes(stats.cluster);
  for (const draw of plots) draw();
  const sources = Object.entries(stats.sources).map(([name, { events, dropped, state, last_event_age_s: age }]) => [
    `from ${name}${state ? ` (${state})` : ''}${age === undefined ? '' : `, last ${duration(age)} ago`}${dropped ? `, ${number.format(dropped)} dropped` : ''}`,
    number.format(events),
  ]);
  table('events', ['Source or kind', '#Count'], [...sources, ...counted(stats.events)]);
  table('disconnects', ['Reason', '#Count'], counted(stats.disconnects));
  table('refused', ['Reason', '#Count'], counted(stats.refused));
}

/** @param {{ sessions: { total: number }, nodes: Node[] } | undefined} cluster There is none without NATS. */
function showNodes(cluster) {
  byId('cluster').hidden = !cluster;
  if (!cluster) return;
  setText(byId('nodes-sum'), `${number.format(cluster.sessions.total)} sessions`);
  table('nodes', ['Node', 'Version', '#Sessions', 'Runs', '#Offset', '#Up', '#Heard'], cluster.nodes.map((node) => [
    node.name, node.version, number.format(node.sessions.total), node.sources.join(', '), String(node.offset), duration(node.uptime_s), `${duration(node.age_s)} ago`,
  ]));
}

const sorting = { key: 'age', order: 'ascending', offset: 0, total: 0 };
let waiting = 0;

const COLUMNS = /** @type {const} */ ([['address', 'Address'], ['age', '#Age'], ['transport', 'Transport'], ['rooms', 'Rooms'], ['waiting', '#Waiting'], ['', '']]);

/** The table's head, whose buttons sort. */
function makeSessionsHead() {
  const row = element('tr');
  for (const [key, name] of COLUMNS) {
    const sort = () => {
      sorting.order = sorting.key === key && sorting.order === 'ascending' ? 'descending' : 'ascending';
      [sorting.key, sorting.offset] = [key, 0];
      void run(updateLists);
    };
    const content = key ? element('button', { type: 'button', onclick: sort }, name.replace('#', '')) : element('span', { class: 'skip' }, 'Actions');
    row.append(element('th', { scope: 'col', class: name.startsWith('#') && 'number' }, content));
  }
  const target = /** @type {HTMLTableElement} */ (byId('sessions'));
  target.createTHead().append(row);
  target.createTBody();
}

/** The rows of sessions that stay are kept, and so is the focus in them. @param {Session[]} sessions */
function showSessions(sessions) {
  const body = /** @type {HTMLTableElement} */ (byId('sessions')).tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  const rows = sessions.map((session) => {
    const id = String(session.id);
    const row = known.get(id) ?? element('tr', { 'data-id': id }, element('td'), element('td', { class: 'number' }), element('td'), element('td'), element('td', { class: 'number' }), element('td', { class: 'number' }, element('button', { type: 'button', 'aria-label': `Disconnect ${session.address}`, onclick: () => disconnect(session) }, 'Disconnect…')));
    const more = session.room_count - session.rooms.length;
    const texts = [session.address, duration(session.age_s), session.transport, `${session.rooms.join(', ')}${more ? ` and ${more} more` : ''}`, size(session.waiting_bytes)];
    texts.forEach((text, at) => setText(row.cells[at], text));
    return row;
  });
  if (rows.length !== body.rows.length || rows.some((row, at) => body.rows[at] !== row)) {
    const focused = document.activeElement;
    body.replaceChildren(...rows);
    if (focused instanceof HTMLElement && body.contains(focused)) focused.focus();
  }
}

async function updateLists() {
  const address = /** @type {HTMLInputElement} */ (byId('address')).value.trim();
  const query = new URLSearchParams({ sort: sorting.key, order: sorting.order, offset: String(sorting.offset), limit: String(PAGE), ...(address && { address }) });
  const [page, rooms] = await Promise.all([ask(`api/sessions?${query}`), ask('api/rooms?limit=20')]);
  sorting.total = page.total;
  if (!address) waiting = page.waiting_bytes;
  if (sorting.offset && !page.sessions.length) {
    sorting.offset = Math.max(0, Math.floor((page.total - 1) / PAGE) * PAGE);
    return updateLists();
  }
  showSessions(page.sessions);
  for (const [at, [key]] of COLUMNS.entries()) {
    const head = /** @type {HTMLTableElement} */ (byId('sessions')).tHead?.rows[0].cells[at];
    if (key === sorting.key) head?.setAttribute('aria-sort', sorting.order);
    else head?.removeAttribute('aria-sort');
  }
  const last = sorting.offset + page.sessions.length;
  setText(byId('sessions-range'), page.total ? `${number.format(sorting.offset + 1)}–${number.format(last)} of ${number.format(page.total)}` : 'none');
  /** @type {HTMLButtonElement} */ (byId('earlier')).disabled = sorting.offset === 0;
  /** @type {HTMLButtonElement} */ (byId('later')).disabled = last >= page.total;
  const more = rooms.total - rooms.rooms.length;
  table('rooms', ['Room', '#Members'], [
    ...rooms.rooms.map((/** @type {{ name: string, members: number }} */ room) => [room.name, number.format(room.members)]),
    ...(more ? [[`and ${number.format(more)} more`, '']] : []),
  ]);
}

/** Asks before something is done. @param {string} question @param {string} answer */
function confirmed(question, answer) {
  const dialog = /** @type {HTMLDialogElement} */ (byId('confirm'));
  setText(byId('question'), question);
  setText(byId('yes'), answer);
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true }));
}

/** @param {string} text */
function say(text) {
  const notice = byId('notice');
  setText(notice, text);
  notice.hidden = !text;
}

/** @param {Session} session */
async function disconnect(session) {
  const question = `Close the connection of ${session.address}? Its page reconnects by itself.`;
  if (await confirmed(question, 'Disconnect')) await act(`api/sessions/${session.id}`, { method: 'DELETE' });
}

async function drain() {
  const question = 'Drain the server? It accepts no new sessions, delivers what it has, closes every connection and stops. Pages reconnect once it, or another server, is there again.';
  if (await confirmed(question, 'Drain and stop')) await act('api/drain', { method: 'POST', body: JSON.stringify({ confirm: true }) });
}

/** @param {string} path @param {RequestInit} options */
async function act(path, options) {
  await run(async () => {
    try {
      say((await ask(path, options)).done);
    } catch (failed) {
      if (failed instanceof NoToken) throw failed;
      say(failed instanceof Error ? failed.message : String(failed));
    }
    await updateLists();
  });
}

/** Does something that asks the server, and shows whether it answers. @param {() => Promise<void>} work */
async function run(work) {
  try {
    await work();
    show('live');
  } catch (failed) {
    if (failed instanceof NoToken) show('token', failed.message);
    else show('away');
  }
}

/** @param {'live' | 'away' | 'token'} state @param {string} [why] */
function show(state, why = '') {
  const isLocked = state === 'token';
  if (isLocked) sessionStorage.removeItem(TOKEN);
  setStatus(byId('connection'), state === 'live' ? 'live' : 'reconnecting', { live: 'live', away: 'no answer', token: 'locked' }[state]);
  if (byId('login').hidden === isLocked) {
    byId('login').hidden = !isLocked;
    if (isLocked) byId('token').focus();
  }
  if (isLocked) byId('view').hidden = true;
  else if (state === 'live') byId('view').hidden = false;
  /** @type {HTMLButtonElement} */ (byId('drain')).disabled = state !== 'live';
  if (why) setText(byId('wrong'), why);
}

/** Repeats `work` while the page is seen. @param {() => Promise<void>} work @param {number} every */
async function keep(work, every) {
  for (;;) {
    if (!document.hidden && byId('login').hidden) await run(work);
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}

byId('login').addEventListener('submit', (event) => {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ (byId('token'));
  sessionStorage.setItem(TOKEN, input.value.trim());
  input.value = '';
  setText(byId('wrong'), '');
  void run(async () => {
    await updateLists();
    byId('view').hidden = false;
    await updateFigures();
    byId('login').hidden = true;
    byId('view').focus();
  });
});
byId('drain').addEventListener('click', () => void drain());
byId('earlier').addEventListener('click', () => {
  sorting.offset = Math.max(0, sorting.offset - PAGE);
  void run(updateLists);
});
byId('later').addEventListener('click', () => {
  sorting.offset += PAGE;
  void run(updateLists);
});
byId('address').addEventListener('change', () => {
  sorting.offset = 0;
  void run(updateLists);
});
window.addEventListener('resize', () => plots.forEach((draw) => draw()));
makeSessionsHead();
await run(async () => {
  await updateLists();
  byId('view').hidden = false;
  await updateFigures();
});
void keep(updateFigures, FIGURES_EVERY);
void keep(updateLists, LISTS_EVERY);
