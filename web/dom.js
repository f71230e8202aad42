/** Small helpers for elements. Text is only ever set as text, so that names mean nothing to the browser. */

/** Longer texts are cut where only one line is shown. */
const SHORT = 300;

/**
 * An element with properties (`class`, `dataset`, `on…` and attributes) and children.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const dateAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

/**
 * A time of the Manager's in the reader's zone and language; nothing if it is none.
 * @param {string | undefined} time
 */
export function localTime(time) {
  const at = Date.parse(time ?? '');
  // Go writes the year 1 for a time that is not set.
  return at > 0 ? dateAndTime.format(at) : '';
}

/**
 * A text of unknown direction, which changes nothing around it.
 * @param {string} [name] Its class.
 */
export function label(name) {
  return element('bdi', { class: name });
}

/**
 * Sets an element's text if it is another one.
 * @param {Element} target
 * @param {unknown} value
 */
export function setText(target, value) {
  const text = value === undefined || value === null ? '' : String(value).slice(0, SHORT);
  if (target.textContent !== text) target.textContent = text;
}

/**
 * @param {HTMLElement} chip
 * @param {string} status
 * @param {string} [text]
 */
export function setStatus(chip, status, text = status) {
  if (chip.dataset.status !== status) chip.dataset.status = status;
  setText(chip, text);
}

/**
 * @param {Element} target
 * @param {string} name
 * @param {string} value
 */
export function setAttribute(target, name, value) {
  if (target.getAttribute(name) !== value) target.setAttribute(name, value);
}

/**
 * A button that is on or off.
 * @param {string} text
 * @param {boolean} isOn
 * @param {(isOn: boolean) => void} changed
 */
export function toggle(text, isOn, changed) {
  const button = element('button', { type: 'button', 'aria-pressed': String(isOn) }, text);
  const set = (/** @type {boolean} */ now) => {
    if (String(now) === button.getAttribute('aria-pressed')) return;
    button.setAttribute('aria-pressed', String(now));
    changed(now);
  };
  button.addEventListener('click', () => set(button.getAttribute('aria-pressed') !== 'true'));
  return { button, set };
}
