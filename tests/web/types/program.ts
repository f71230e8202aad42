// What must compile, and behind each `@ts-expect-error` what must not.

import { connect, ConnectionError, type JobUpdate, type Payloads, type Update } from '../../../web/client.js';

const farm = connect('http://127.0.0.1:8081', { transports: ['websocket'], reconnect: { jitter: 0.5 } });

for await (const { name, payload, state, gap } of farm.room('Jobs', { queue: 10 })) {
  const job: JobUpdate = payload;
  const event: '/jobs' = name;
  console.log(job.status, event, state && gap === 'overflow');
  // @ts-expect-error: this is no task
  console.log(payload.activity);
}

for await (const update of farm.room('job-4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21')) {
  if (update.name === '/task') console.log(update.payload.activity);
  else console.log(update.payload.thumbnail.base);
}

for await (const update of farm) {
  if (update.name === '/status') console.log(update.payload.status);
}

const off: () => void = farm.room('Workers').on('/workers', ({ payload }) => console.log(payload.version));
off();
farm.room('Chat').on('ready', ({ recovered }) => console.log(recovered));
farm.on('status', (status) => console.log(status === 'live'));
const update: Update<'/message'> = await farm.once('/message');
const text: Payloads['/message']['text'] = update.payload.text;
const answer: unknown = await farm.request('/chat', { name: 'Ann', text }, { timeout: 1000 });
if (answer instanceof ConnectionError) farm.close();

// @ts-expect-error: there is no such room
farm.room('Everything');
// @ts-expect-error: a room of workers has no jobs
farm.room('Workers').on('/jobs', () => {});
// @ts-expect-error: there is no such event
farm.on('/nothing', () => {});
// @ts-expect-error: there is no such transport
connect(undefined, { transports: ['flashsocket'] });
