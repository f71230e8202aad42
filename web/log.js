/** The log of a task: any number of lines, which can be followed, paused and searched. */

import { element, setText, toggle } from './dom.js';
import { VirtualList } from './list.js';
import { onShaped } from './shapes.js';

/** @import { Connection } from './client.js' */
/** @import { Manager } from './manager.js' */

/** A million of them are within what Firefox allows an element: 17.8 million pixels. */
const LINE_HEIGHT = 17;
const MAX_LINES = 1_000_000;
const MAX_CHARACTERS = 128_000_000;
/** What is dropped at once when there are more. */
const DROPPED = MAX_LINES / 10;
/** Characters of a line that are shown. */
const SHOWN = 4000;
/** How long the log waits for its room, whose server may be away. */
const ENTERED_MS = 3000;
/** Lines that are searched before the page may do something else. */
const SEARCHED_AT_ONCE = 50_000;

/** The lines of a chunk or a file, whose last need not have an end. @param {string} text */
function linesOf(text) {
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

/**
 * What of `later` comes after the end of `earlier`, whose last lines it may repeat.
 * @param {string[]} earlier
 * @param {string[]} later
 */
function after(earlier, later) {
  for (let at = Math.max(0, earlier.length - later.length); at < earlier.length; at++) {
    if (earlier.slice(at).every((line, index) => line === later[index])) return later.slice(earlier.length - at);
  }
  return later;
}

export class LogView {
  /** @type {string[]} */
  #lines = [];
  /** @type {string[]} Chunks that came while it is paused. */
  #held = [];
  /** @type {string[] | undefined} Chunks that came before the Manager has sent what there is. */
  #early;
  #isClosed = false;
  #characters = 0;
  /** How many lines were dropped: line numbers stay what they were. */
  #dropped = 0;
  #isPaused = false;
  #query = '';
  /** @type {number[]} Lines that match, by number. */
  #matches = [];
  #searched = 0;
  #isSearching = false;
  #match = -1;

  /**
   * @param {Connection} connection
   * @param {Manager} manager
   * @param {string} task
   */
  constructor(connection, manager, task) {
    this.list = new VirtualList({
      label: 'Log',
      class: 'log',
      height: LINE_HEIGHT,
      item: (index) => this.#lines[index],
      key: (index) => index + this.#dropped,
      update: (row, line) => {
        const shown = line.length > SHOWN ? `${line.slice(0, SHOWN)}…` : line;
        if (row.textContent !== shown) row.textContent = shown;
        row.classList.toggle('match', this.#query !== '' && line.toLowerCase().includes(this.#query));
        row.classList.toggle('gap', line === GAP);
      },
    });
    this.list.follows = true;
    this.follow = toggle('Follow', true, (isOn) => {
      this.list.follows = isOn;
      this.list.schedule();
    });
    this.pause = toggle('Pause', false, (isOn) => {
      this.#isPaused = isOn;
      for (const text of isOn ? [] : this.#held.splice(0)) this.#append(linesOf(text));
      this.#show();
    });
    const search = element('input', { type: 'search', placeholder: 'Search the log', 'aria-label': 'Search the log' });
    search.addEventListener('input', () => this.#search(search.value));
    search.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') this.#step(event.shiftKey ? -1 : 1);
    });
    this.found = element('span', { role: 'status' });
    this.rest = element('span', { class: 'rest' });
    this.bar = element('div', { class: 'bar' }, this.follow.button, this.pause.button, search,
      element('button', { type: 'button', 'aria-label': 'Previous match', onclick: () => this.#step(-1) }, '↑'),
      element('button', { type: 'button', 'aria-label': 'Next match', onclick: () => this.#step(1) }, '↓'), this.found, this.rest);
    this.element = [this.bar, this.list.box];
    let top = 0;
    const scrolled = () => {
      // The page itself scrolls only down, or to the end.
      if (this.list.box.scrollTop < top && !this.list.isAtEnd) this.follow.set(false);
      top = this.list.box.scrollTop;
    };
    this.list.box.addEventListener('scroll', scrolled, { passive: true });
    this.room = connection.room(/** @type {const} */ (`tasklog-${task}`));
    onShaped(this.room, '/tasklog', ({ log }) => this.#take(log));
    this.room.on('gap', () => this.#take(GAP));
    if (manager.isThere) {
      this.#early = [];
      // What the server has of the log comes before the room is entered. It overlaps the Manager's file, so both are joined once.
      const entered = Promise.race([this.room.once('ready'), new Promise((resolve) => setTimeout(resolve, ENTERED_MS))]);
      Promise.all([manager.log(task), entered]).then(([text]) => this.#begin(text ?? ''));
    }
    this.#show();
  }

  close() {
    this.#isClosed = true;
    this.room.leave();
    this.#lines = [];
    this.#held = [];
  }

  /** Begins with what there was when the view was opened. @param {string} text */
  #begin(text) {
    const early = this.#early ?? [];
    this.#early = undefined;
    if (this.#isClosed) return;
    const lines = linesOf(text);
    this.#append(lines);
    this.#append(after(lines, early.flatMap(linesOf)));
    this.#show();
  }

  /** @param {string} text */
  #take(text) {
    if (this.#early) return this.#early.push(text);
    if (this.#isPaused && this.#held.length < DROPPED) this.#held.push(text);
    else this.#append(linesOf(text));
    this.#show();
  }

  /** @param {string[]} lines */
  #append(lines) {
    for (const line of lines) {
      this.#lines.push(line);
      this.#characters += line.length + 1;
    }
    while (this.#lines.length > MAX_LINES || (this.#characters > MAX_CHARACTERS && this.#lines.length > 1)) {
      const dropped = this.#lines.splice(0, Math.min(DROPPED, Math.ceil(this.#lines.length / 10)));
      for (const line of dropped) this.#characters -= line.length + 1;
      this.#dropped += dropped.length;
      this.#matches = this.#matches.filter((line) => line >= this.#dropped);
    }
    this.#searchOn();
  }

  #show() {
    this.list.count = this.#lines.length;
    const held = this.#held.length ? ` · ${this.#held.length} updates held` : '';
    const dropped = this.#dropped ? ` · first ${this.#dropped} dropped` : '';
    setText(this.rest, `${this.#lines.length.toLocaleString()} lines${dropped}${held}`);
  }

  /** @param {string} text */
  #search(text) {
    this.#query = text.toLowerCase();
    this.#matches = [];
    this.#match = -1;
    this.#searched = this.#dropped;
    this.#searchOn();
    this.list.schedule();
  }

  /** Searches what has not been searched yet, a part at a time. */
  #searchOn() {
    if (this.#query === '') return setText(this.found, '');
    if (this.#isSearching) return;
    const from = Math.max(this.#searched, this.#dropped);
    const to = Math.min(from + SEARCHED_AT_ONCE, this.#dropped + this.#lines.length);
    for (let line = from; line < to; line++) {
      if (this.#lines[line - this.#dropped].toLowerCase().includes(this.#query)) this.#matches.push(line);
    }
    this.#searched = to;
    this.#count();
    if (to >= this.#dropped + this.#lines.length) return;
    this.#isSearching = true;
    setTimeout(() => {
      this.#isSearching = false;
      this.#searchOn();
    });
  }

  #count() {
    const at = this.#match >= 0 ? `${this.#match + 1} of ` : '';
    setText(this.found, `${at}${this.#matches.length.toLocaleString()} lines match`);
  }

  /** @param {number} by */
  #step(by) {
    if (!this.#matches.length) return;
    this.follow.set(false);
    this.#match = this.#match < 0 && by < 0 ? this.#matches.length - 1 : (this.#match + by + this.#matches.length) % this.#matches.length;
    this.#count();
    this.list.show(this.#matches[this.#match] - this.#dropped);
  }
}

const GAP = '— lines may be missing here —';
