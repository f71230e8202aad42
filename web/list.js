/** A list of any length, of which only the rows in sight exist. */

import { element } from './dom.js';

/** Rows that are kept above and below what is in sight. */
const MARGIN = 8;

/** @template T */
export class VirtualList {
  /** @type {Map<string | number, HTMLLIElement>} */
  #rows = new Map();
  #count = 0;
  #isScheduled = false;
  #current = 0;
  /** Whether the end stays in sight. */
  follows = false;

  /**
   * @param {object} options
   * @param {string} options.label What the list is, for screen readers.
   * @param {string} [options.class]
   * @param {number} options.height Of a row, in pixels.
   * @param {(index: number) => T} options.item
   * @param {(index: number) => string | number} options.key
   * @param {() => HTMLElement} [options.create] The content of a row.
   * @param {(row: HTMLElement, item: T, index: number) => void} options.update
   */
  constructor(options) {
    this.options = options;
    this.space = element('ul', { class: 'space', role: 'list', 'aria-label': options.label });
    this.box = element('div', { class: `list ${options.class ?? ''}`, role: 'region', 'aria-label': options.label, tabindex: options.create ? -1 : 0 }, this.space);
    this.box.addEventListener('scroll', () => this.schedule(), { passive: true });
    this.box.addEventListener('keydown', (event) => this.#key(event));
    this.box.addEventListener('focusin', ({ target }) => {
      for (const [key, row] of this.#rows) if (row.contains(/** @type {Node} */ (target))) this.#focused(key);
    });
    new ResizeObserver(() => this.schedule()).observe(this.box);
  }

  get count() {
    return this.#count;
  }

  set count(count) {
    this.#count = count;
    this.schedule();
  }

  /** Whether its end is in sight. */
  get isAtEnd() {
    return this.box.scrollTop + this.box.clientHeight >= this.#count * this.options.height - this.options.height;
  }

  /** Shows what has changed, in the next frame. */
  schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame(() => {
      this.#isScheduled = false;
      if (this.box.isConnected) this.#render();
    });
  }

  /** @param {number} index */
  show(index) {
    const { height } = this.options;
    this.#resize();
    const top = index * height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + height > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + height - this.box.clientHeight;
    this.#render();
  }

  #resize() {
    const size = `${this.#count * this.options.height}px`;
    if (this.space.style.height !== size) this.space.style.height = size;
  }

  #render() {
    const { height, item, key, create, update } = this.options;
    this.#resize();
    if (this.follows) this.box.scrollTop = this.#count * height;
    const first = Math.max(0, Math.floor(this.box.scrollTop / height) - MARGIN);
    const last = Math.min(this.#count, Math.ceil((this.box.scrollTop + this.box.clientHeight) / height) + MARGIN);
    this.#current = Math.min(this.#current, Math.max(0, this.#count - 1));
    const reachable = this.#current >= first && this.#current < last ? this.#current : first;
    const seen = new Set();
    let next = this.space.firstElementChild;
    for (let index = first; index < last; index++) {
      const name = key(index);
      let row = this.#rows.get(name);
      if (!row) {
        row = element('li', {}, ...(create ? [create()] : []));
        row.style.height = `${height}px`;
        this.#rows.set(name, row);
      }
      // In the document they stand as they are seen; to move one would take the focus from it.
      if (row === next) next = next.nextElementSibling;
      else if (!row.contains(document.activeElement)) this.space.insertBefore(row, next);
      seen.add(name);
      const place = `translateY(${index * height}px)`;
      if (row.style.transform !== place) {
        row.style.transform = place;
        row.setAttribute('aria-posinset', String(index + 1));
        row.dataset.index = String(index);
      }
      row.setAttribute('aria-setsize', String(this.#count));
      const content = /** @type {HTMLElement} */ (create ? row.firstElementChild : row);
      if (create) content.tabIndex = index === reachable ? 0 : -1;
      update(content, item(index), index);
    }
    for (const [name, row] of this.#rows) {
      if (seen.has(name)) continue;
      // The focus would be lost with it: it goes to the list, where the keys still work.
      if (row.contains(document.activeElement)) this.box.focus({ preventScroll: true });
      row.remove();
      this.#rows.delete(name);
    }
  }

  /** @param {string | number} key */
  #focused(key) {
    this.#current = Number(this.#rows.get(key)?.dataset.index);
    this.schedule();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (!this.options.create || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.options.height) - 1);
    const to = { ArrowDown: this.#current + 1, ArrowUp: this.#current - 1, PageDown: this.#current + page, PageUp: this.#current - page, Home: 0, End: this.#count }[event.key];
    if (to === undefined || !this.#count) return;
    event.preventDefault();
    this.#current = Math.max(0, Math.min(this.#count - 1, to));
    this.show(this.#current);
    const row = this.#rows.get(this.options.key(this.#current));
    /** @type {HTMLElement | null | undefined} */ (row?.firstElementChild)?.focus({ preventScroll: true });
  }
}
