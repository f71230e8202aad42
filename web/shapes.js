/** The shapes of payloads. The server passes on events that it does not know, so views check what they show. */

/** @typedef {(value: any) => boolean} Check */

/** @type {Check} */
const string = (value) => typeof value === 'string';
/** @type {Check} */
const number = (value) => typeof value === 'number';
/** @param {Check} is @returns {Check} */
const optional = (is) => (value) => value === undefined || is(value);
/** @param {Check} is @returns {Check} */
const list = (is) => (value) => Array.isArray(value) && value.every(is);
/** @param {Record<string, Check>} fields @returns {Check} */
const object = (fields) => (value) => value instanceof Object && Object.entries(fields).every(([name, is]) => is(value[name]));

const named = { id: string, name: string, status: string };
const steps = { steps_completed: optional(number), steps_total: optional(number) };

/** What views use of each payload, and of the entries of the Manager's lists. */
export const SHAPES = {
  '/jobs': object({ ...named, ...steps, name: optional(string), type: string, priority: number, updated: string }),
  '/task': object({ ...named, ...steps, job_id: string, activity: string, updated: string, worker: optional(object({ name: string, uuid: string })) }),
  '/tasklog': object({ log: string }),
  '/last-rendered': object({ job_id: string, thumbnail: object({ base: string, suffixes: list(string) }) }),
  '/workers': object({ ...named, version: string, last_seen: optional(string), status_change: optional(object({ status: string })) }),
  '/workertags': object({ tag: object({ id: optional(string), name: string }) }),
  '/lifecycle': object({ type: string }),
  '/status': object({ status: string }),
  '/message': object({ name: string, text: string }),
};

/**
 * Calls `use` with the payloads of a room or connection that have their shape.
 * @param {{ on(name: any, listener: (event: any) => void): unknown }} updates
 * @param {keyof SHAPES} name
 * @param {(payload: any) => void} use
 */
export function onShaped(updates, name, use) {
  updates.on(name, ({ payload }) => {
    if (SHAPES[name](payload)) use(payload);
  });
}
