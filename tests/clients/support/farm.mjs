// What a farm says, and who is to hear it: the room rules of the contract, restated for the tests.

import { readFileSync } from 'node:fs';

export const JOB_A = '4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21';
export const JOB_B = '0c9d5a7e-1f2b-4c3d-8e4f-5a6b7c8d9e0f';
export const TASK_A = 'aa11bb22-cc33-4d44-8e55-ff6677889900';
export const TASK_B = 'bb11bb22-cc33-4d44-8e55-ff6677889911';
export const WORKER = '2efb28b1-4341-49f2-965c-8289164a48d1';
export const TAG = '0d503122-33c2-4266-a27c-2f0b0c46d1b5';
export const TIME = '2026-11-23T08:00:00.123456789+01:00';

/** The rooms a client is in when it has asked for nothing. */
export const DEFAULT_ROOMS = ['Jobs', 'Chat'];

/** The subscription that joins each room without a UUID. */
export const SUBSCRIPTIONS = {
  Jobs: { type: 'allJobs' },
  Workers: { type: 'allWorkers' },
  'Last-Rendered': { type: 'allLastRendered' },
  'Worker-Tags': { type: 'allWorkerTags' },
};

const EVERY_CLIENT = undefined;

/** Of each kind: the browsers' event, and the rooms its payload goes to. */
const KINDS = {
  'new-job': ['/jobs', () => ['Jobs']],
  'job-update': ['/jobs', () => ['Jobs']],
  'task-update': ['/task', ({ job_id }) => [`job-${job_id.toLowerCase()}`]],
  'task-log-update': ['/tasklog', ({ task_id }) => [`tasklog-${task_id.toLowerCase()}`]],
  'last-rendered': ['/last-rendered', ({ job_id }) => [`job-${job_id.toLowerCase()}`, 'Last-Rendered']],
  'new-worker': ['/workers', () => ['Workers']],
  'worker-update': ['/workers', () => ['Workers']],
  'worker-tag-update': ['/workertags', () => ['Worker-Tags']],
  'life-cycle': ['/lifecycle', () => EVERY_CLIENT],
  'farm-status': ['/status', () => EVERY_CLIENT],
  'chat-message': ['/message', () => ['Chat']],
};

/** The subscription that joins `room`. */
export function subscriptionTo(room) {
  const [, type, uuid] = /^(job|tasklog)-(.*)$/.exec(room) ?? [];
  return type ? { type, uuid } : SUBSCRIPTIONS[room];
}

/** The browsers' name of a kind of event. */
export function eventName(kind) {
  return KINDS[kind][0];
}

/** The rooms `event` goes to; undefined means every client. */
function roomsOf({ type, payload }) {
  return KINDS[type][1](payload);
}

/** Every room that one of `events` goes to. */
export function allRooms(events) {
  return [...new Set(events.flatMap((event) => roomsOf(event) ?? []))];
}

/** Those of `events` that a client in `rooms` is to get, each once, in order. */
export function heardIn(rooms, events) {
  const joined = new Set(rooms);
  return events.filter((event) => roomsOf(event)?.some((room) => joined.has(room)) ?? true);
}

/** `events` as a browser receives them: `[name, payload]`. */
export function asReceived(events) {
  return events.map(({ type, payload }) => [eventName(type), payload]);
}

/** `event`, of which `payloadText` is the payload as sent, as the exact text of a packet. */
export function asPacket({ type, payloadText }) {
  return `42["${eventName(type)}",${payloadText}]`;
}

export function jobUpdate(more = {}) {
  const payload = {
    id: JOB_A, name: 'shot_010_anim 🎬', updated: TIME, status: 'active', previous_status: 'queued',
    type: 'simple-blender-render', priority: 50, refresh_tasks: false, steps_completed: 1, steps_total: 20, ...more,
  };
  return { type: 'job-update', payload };
}

export function taskUpdate(more = {}) {
  const payload = {
    id: TASK_A, job_id: JOB_A, name: 'render-1-10', updated: TIME, status: 'active', previous_status: 'queued',
    activity: 'Fra:3 Mem:12.00M', worker: { name: 'render-node-03', uuid: WORKER }, steps_completed: 3, steps_total: 10, ...more,
  };
  return { type: 'task-update', payload };
}

export function taskLog(more = {}) {
  return { type: 'task-log-update', payload: { task_id: TASK_A, log: 'Fra:3\r\n\tSaved: „π“ 🎬\u0007\u2028', ...more } };
}

export function lastRendered(more = {}) {
  const thumbnail = { base: `/job-files/${JOB_A}`, suffixes: ['last-rendered.jpg', 'last-rendered-tiny.jpg'] };
  return { type: 'last-rendered', payload: { job_id: JOB_A, thumbnail, ...more } };
}

export function workerUpdate(more = {}) {
  const payload = {
    id: WORKER, name: 'render-node-03', updated: TIME, last_seen: TIME, status: 'awake', previous_status: 'asleep',
    status_change: { status: 'asleep', is_lazy: true }, version: '3.9-alpha0', can_restart: false, ...more,
  };
  return { type: 'worker-update', payload };
}

/** One valid event of every kind. */
export function oneOfEach() {
  const { previous_status: _, ...newJob } = jobUpdate({ status: 'under-construction' }).payload;
  const { previous_status: __, ...newWorker } = workerUpdate({ status: 'starting' }).payload;
  return [
    { type: 'life-cycle', payload: { type: 'manager-startup' } },
    { type: 'farm-status', payload: { status: 'waiting' } },
    { type: 'new-worker', payload: newWorker },
    workerUpdate(),
    { type: 'worker-tag-update', payload: { tag: { id: TAG, name: 'GPU', description: 'schnell & groß' } } },
    { type: 'new-job', payload: newJob },
    jobUpdate(),
    taskUpdate(),
    taskLog(),
    lastRendered(),
    { type: 'chat-message', payload: { name: 'Manager', text: 'rendering starts' } },
  ];
}

/** Every room that `oneOfEach` goes to and a client can subscribe to. */
export const ROOMS_OF_EACH = [...Object.keys(SUBSCRIPTIONS), `job-${JOB_A}`, `tasklog-${TASK_A}`];

/** Events from NDJSON text: `{line, type, payload, payloadText}`, `line` and `payloadText` as they stand there. */
export function readEvents(ndjson) {
  return ndjson.split('\n').filter(Boolean).map((line) => {
    const { type, payload } = JSON.parse(line);
    // The payload is the last field of a line in both the recording and the simulator.
    const payloadText = line.slice(line.indexOf('"payload":') + '"payload":'.length, -1);
    return { line, type, payload, payloadText };
  });
}

/** A recording of a real Manager, one event per line. */
export function recordedFarm() {
  return readEvents(readFileSync(new URL('../../data/farm-3.9.ndjson', import.meta.url), 'utf8'));
}
