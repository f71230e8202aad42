// Posts the events on stdin, a JSON array, and prints what the server answers; then does what it must not accept.

import createClient from 'openapi-fetch';
import type { components, paths } from './api.js';

type Event = components['schemas']['Event'];

const [url, token, text] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url, headers: { authorization: `Bearer ${token}` } });

const events: Event[] = JSON.parse(text);
const { data } = await client.POST('/api/events', { body: events });
const accepted: number | undefined = data?.accepted;

const { error } = await client.POST('/api/events', {
  // @ts-expect-error There is no such kind of event.
  body: { type: 'no-such-event', payload: {} },
});
const field: string | undefined = error && 'field' in error ? error.field : undefined;

const { data: stats } = await client.GET('/api/stats', { params: { query: { rooms: false } } });
console.log(JSON.stringify({ accepted, field, statuses: stats?.events['farm-status'] }));
