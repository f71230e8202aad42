/** What flows: the last events as they came, which can be filtered, read, copied and downloaded. */

import { element, setText, toggle } from './dom.js';
import { VirtualList } from './list.js';

/** @import { Connection, EventName, Room, Update } from './client.js' */

/** @typedef {{ number: number, at: Date, name: EventName, room: string, text: string }} Seen */

const MAX_EVENTS = 5000;
const MAX_CHARACTERS = 16_000_000;
const RATE_OVER_MS = 5000;
/** Where the Manager connects by default. */
const MANAGER = 'http://127.0.0.1:8082';

/** The kind of event that the Manager posts to have each of them sent. @type {Record<EventName, string>} */
const KINDS = {
  '/jobs': 'job-update',
  '/task': 'task-update',
  '/tasklog': 'task-log-update',
  '/last-rendered': 'last-rendered',
  '/workers': 'worker-update',
  '/workertags': 'worker-tag-update',
  '/lifecycle': 'life-cycle',
  '/status': 'farm-status',
  '/message': 'chat-message',
};

/** @param {Update} update */
function roomOf({ name, payload }) {
  switch (name) {
    case '/jobs': return 'Jobs';
    case '/task': return `job-${payload.job_id}`;
    case '/tasklog': return `tasklog-${payload.task_id}`;
    case '/last-rendered': return `job-${payload.job_id}`;
    case '/workers': return 'Workers';
    case '/workertags': return 'Worker-Tags';
    case '/message': return 'Chat';
    default: return '(everyone)';
  }
}

/** An event as a line that `replay` takes, and that the Manager could have posted. @param {Seen} seen */
const line = ({ at, name, text }) => `{"type":"${KINDS[name]}","time":"${at.toISOString()}","payload":${text}}`;

/** A command for a shell that posts the event. @param {Seen} seen */
const curl = (seen) =>
  `curl -X POST ${MANAGER}/api/events -H 'Content-Type: application/json' --data-raw '${line(seen).replaceAll("'", `'\\''`)}'`;

export class Inspector {
  /** @type {Seen[]} */
  #events = [];
  /** @type {Seen[]} */
  #shown = [];
  #characters = 0;
  #count = 0;
  #isPaused = false;
  /** @type {Seen | undefined} */
  #selected;
  /** When each event came of late, by name. @type {Map<string, number[]>} */
  #times = new Map();
  /** @type {Room<any>[]} */
  #rooms = [];

  /** @param {Connection} connection */
  constructor(connection) {
    this.connection = connection;
    this.off = connection.on('update', (update) => this.#take(update));
    this.list = new VirtualList({
      label: 'Events',
      height: 28,
      item: (index) => this.#shown[this.#shown.length - 1 - index],
      key: (index) => this.#shown[this.#shown.length - 1 - index].number,
      create: () => element('button', { type: 'button', class: 'row events' }, element('span'), element('span'), element('bdi', { class: 'faint' })),
      update: (row, seen) => {
        const [at, name, text] = row.children;
        setText(at, seen.at.toISOString().slice(11, 23));
        setText(name, seen.name);
        setText(text, seen.text);
        row.onclick = () => this.#select(seen);
      },
    });
    const pause = toggle('Pause', false, (isOn) => {
      this.#isPaused = isOn;
      this.#filter();
    });
    this.event = element('select', { 'aria-label': 'Event' }, element('option', { value: '' }, 'every event'),
      ...Object.keys(KINDS).map((name) => element('option', { value: name }, name)));
    this.room = element('input', { type: 'search', placeholder: 'Room', 'aria-label': 'Room', size: 10 });
    this.text = element('input', { type: 'search', placeholder: 'UUID or text', 'aria-label': 'UUID or text' });
    for (const input of [this.event, this.room, this.text]) input.addEventListener('input', () => this.#filter());
    this.count = element('span', { class: 'rest', role: 'status' });
    const enter = element('input', { name: 'enter', placeholder: 'job-… or tasklog-…', 'aria-label': 'Room to enter' });
    const form = element('form', { class: 'bar' }, enter, element('button', {}, 'Enter the room'));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      try {
        this.#rooms.push(connection.room(/** @type {any} */ (enter.value.trim()), { queue: 1 }));
        enter.setCustomValidity('');
        enter.value = '';
      } catch (error) {
        enter.setCustomValidity(error instanceof Error ? error.message : String(error));
        enter.reportValidity();
      }
    });
    enter.addEventListener('input', () => enter.setCustomValidity(''));
    this.json = element('pre', { tabindex: 0, role: 'region', 'aria-label': 'The event that is selected' });
    this.copied = element('span', { role: 'status', class: 'rest' });
    this.copy = element('button', { type: 'button', disabled: true, onclick: () => this.#copy() }, 'Copy as curl');
    this.rates = element('ul', { class: 'rates', 'aria-label': 'Events a second' });
    const download = element('button', { type: 'button', onclick: () => this.#download() }, 'Download as NDJSON');
    this.element = element('div', { class: 'inspector' },
      element('div', {},
        element('div', { class: 'bar' }, pause.button, this.event, this.room, this.text, this.count),
        this.rates, this.list.box),
      element('div', {},
        element('div', { class: 'bar' }, this.copy, download, this.copied), form, this.json));
    this.timer = setInterval(() => this.#showRates(), 1000);
    this.#filter();
  }

  close() {
    this.off();
    clearInterval(this.timer);
    for (const room of this.#rooms) room.leave();
  }

  /** @param {Update} update */
  #take(update) {
    const times = this.#times.get(update.name) ?? [];
    this.#times.set(update.name, times);
    times.push(performance.now());
    if (this.#isPaused) return;
    const seen = { number: this.#count++, at: new Date(), name: update.name, room: roomOf(update), text: JSON.stringify(update.payload) };
    this.#events.push(seen);
    this.#characters += seen.text.length;
    if (this.#matches(seen)) this.#shown.push(seen);
    if (this.#events.length > MAX_EVENTS * 1.1 || this.#characters > MAX_CHARACTERS) {
      const dropped = this.#events.splice(0, Math.ceil(this.#events.length / 10));
      for (const { text } of dropped) this.#characters -= text.length;
      const first = this.#events[0]?.number ?? this.#count;
      this.#shown = this.#shown.filter(({ number }) => number >= first);
    }
    this.#show();
  }

  /** @param {Seen} seen */
  #matches({ name, room, text }) {
    const [wantedRoom, wantedText] = [this.room.value, this.text.value].map((value) => value.trim().toLowerCase());
    return (!this.event.value || name === this.event.value) && room.toLowerCase().includes(wantedRoom) && (!wantedText || text.toLowerCase().includes(wantedText));
  }

  #filter() {
    this.#shown = this.#events.filter((seen) => this.#matches(seen));
    this.#show();
  }

  #show() {
    this.list.count = this.#shown.length;
    setText(this.count, `${this.#shown.length} of ${this.#events.length} events${this.#isPaused ? ', paused' : ''}`);
  }

  #showRates() {
    const since = performance.now() - RATE_OVER_MS;
    const rates = [];
    for (const [name, times] of this.#times) {
      const old = times.findIndex((time) => time >= since);
      times.splice(0, old < 0 ? times.length : old);
      rates.push(`${name} ${(times.length / (RATE_OVER_MS / 1000)).toFixed(1)}/s`);
    }
    this.rates.replaceChildren(...rates.sort().map((text) => element('li', {}, text)));
  }

  /** @param {Seen} seen */
  #select(seen) {
    this.#selected = seen;
    this.copy.disabled = false;
    // Long ones are shown in part: they can be downloaded.
    const text = JSON.stringify(JSON.parse(seen.text), null, 2);
    this.json.textContent = `${seen.at.toISOString()}  ${seen.name}  ${seen.room}\n\n${text.length > 100_000 ? `${text.slice(0, 100_000)}…` : text}`;
  }

  async #copy() {
    if (!this.#selected) return;
    try {
      await navigator.clipboard.writeText(curl(this.#selected));
      setText(this.copied, 'copied');
    } catch {
      // Pages without TLS have no clipboard: it is shown, to be copied by hand.
      this.json.textContent = curl(this.#selected);
      setText(this.copied, 'select it to copy it');
    }
  }

  #download() {
    const lines = this.#events.filter((seen) => this.#matches(seen)).map((seen) => `${line(seen)}\n`);
    const url = URL.createObjectURL(new Blob(lines, { type: 'application/x-ndjson' }));
    element('a', { href: url, download: 'events.ndjson' }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}
