// Waiting with a deadline. Every error tells what was awaited and what had arrived instead.

import { inspect } from 'node:util';

/** Milliseconds a test waits for one thing; far above what a healthy server needs on a busy machine. */
const DEADLINE_MS = 15_000;

/** Passes `promise` on, or rejects after `ms` with `what` was awaited and what `arrived()` tells. */
export async function within(promise, what, arrived = () => 'nothing', ms = DEADLINE_MS) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}; arrived: ${show(arrived())}`)), ms);
  });
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again and again until `check` likes the answer: for facts that no event announces. */
export async function eventually(ask, check, what, ms = DEADLINE_MS) {
  const end = performance.now() + ms;
  for (;;) {
    const answer = await ask();
    if (check(answer)) return answer;
    if (performance.now() > end) throw new Error(`waited ${ms} ms for ${what}; arrived: ${show(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A list that only grows, and on whose content one can wait. */
export class Arrivals {
  entries = [];
  #waiting = new Set();
  #ended;

  push(entry) {
    this.entries.push(entry);
    for (const look of this.#waiting) look();
  }

  /** Says that nothing more will come, and why: whoever waits on is told at once. */
  end(why) {
    this.#ended = why;
    for (const look of this.#waiting) look();
  }

  /** Resolves with the first truthy answer of `question(entries)`, which is asked after each arrival. */
  async until(question, what, ms = DEADLINE_MS) {
    let look;
    const answered = new Promise((resolve, reject) => {
      look = () => {
        const answer = question(this.entries);
        if (answer) resolve(answer);
        else if (this.#ended) reject(new Error(`waited for ${what}, but ${this.#ended}; arrived: ${show(this.entries)}`));
      };
    });
    this.#waiting.add(look);
    look();
    try {
      return await within(answered, what, () => this.entries, ms);
    } finally {
      this.#waiting.delete(look);
    }
  }
}

/** `value` for an error message: the end of a long list, no endless text. */
function show(value) {
  const recent = Array.isArray(value) && value.length > 20 ? [`${value.length - 20} earlier`, ...value.slice(-20)] : value;
  return inspect(recent, { depth: 6, breakLength: 120, maxStringLength: 2000 });
}
