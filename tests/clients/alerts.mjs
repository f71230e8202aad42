// Each alert of contrib/alerts.yml, fired in a real Prometheus by a fault of a real server. tests/long/alerts runs it, because
// `promtool test rules` has the same in no time, with made-up metrics. Needs a server with `fault-injection`.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { jobUpdate } from './support/farm.mjs';
import { startNats } from './support/nats.mjs';
import { Prometheus } from './support/prometheus.mjs';
import { RawBrowser } from './support/raw.mjs';
import { request, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

const RULES = readFileSync(new URL('../../contrib/alerts.yml', import.meta.url), 'utf8');
const NOBODY = '127.0.0.1:1';

/** By the name of a server: its options, the alerts that its fault fires, and the fault. */
const FAULTS = {
  dead: { fires: ['WebupdatesDown'], fault: (_, server) => server.stop('SIGKILL') },
  stuck: { fires: ['WebupdatesRegistryDown'], fault: (_, server) => stall(server, 'room-registry', 30_000) },
  restarted: {
    fires: ['WebupdatesRestarts'],
    fault: async (_, server) => {
      await arm(server, { actor: 'job-updates', when: 'next-publish' });
      await server.publish(jobUpdate());
    },
  },
  poisoned: {
    fires: ['WebupdatesPoisoned', 'WebupdatesRestarts'],
    fault: async (_, server) => {
      await arm(server, { actor: 'job-updates', when: 'always-on-event', event_id: 'poison' });
      await server.post({ id: 'poison', ...jobUpdate() });
    },
  },
  late: {
    options: ['--workers', '1'],
    fires: ['WebupdatesLate'],
    fault: async (t, server) => {
      await RawBrowser.connect(t, server);
      await stall(server, 'flusher', 3000);
      // What is published while it stops is written late.
      for (let turn = 0; turn < 10; turn++) await server.publish(jobUpdate({ turn }));
    },
  },
  overloaded: {
    options: ['--backlog', '1'],
    fires: ['WebupdatesOverloaded'],
    fault: async (_, server) => {
      await stall(server, 'room-registry', 2000);
      await Promise.all(Array.from({ length: 3 }, () => server.post(jobUpdate())));
    },
  },
  alone: { options: ['--manager', `http://${NOBODY}`], fires: ['WebupdatesManagerAway'] },
  'without broker': { options: ['--mqtt', `mqtt://${NOBODY}`], fires: ['WebupdatesBrokerAway'] },
  'to no broker': {
    options: ['--mqtt-publish', `mqtt://${NOBODY}`],
    fires: ['WebupdatesPublishToBroker'],
    fault: (_, server) => server.publish(Array.from({ length: 10_000 }, (_, turn) => jobUpdate({ turn }))),
  },
  node: { nats: true, options: ['--mqtt', `mqtt://${NOBODY}`], fires: ['WebupdatesBrokerAway', 'WebupdatesNodeBehind'] },
  slow: {
    options: ['--outbox-bytes', '65536', '--outbox-age', '1s'],
    fires: ['WebupdatesSlowBrowsers'],
    fault: async (t, server) => {
      const stalled = await Promise.all(Array.from({ length: 25 }, () => RawBrowser.connect(t, server)));
      stalled.forEach(({ socket }) => socket.pause());
      const batch = Array.from({ length: 1000 }, (_, turn) => jobUpdate({ turn, name: 'x'.repeat(2000) }));
      const evicted = async () => (await server.publish(batch), (await server.stats()).disconnects['too-slow']);
      await eventually(evicted, (count) => count === stalled.length, 'every browser that does not read to be evicted', 60_000);
    },
  },
  full: {
    options: ['--max-sessions', '1'],
    fires: ['WebupdatesFull'],
    fault: async (t, server) => {
      await RawBrowser.connect(t, server);
      await request(new URL('/socket.io/?EIO=3&transport=polling', server.browsers));
    },
  },
};
/** Alerts that have no server in their labels. */
const OF_ALL = ['WebupdatesNoLeader mqtt'];

async function arm(server, fault) {
  const answer = await request(new URL('/api/debug/panic', server.manager), {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(fault),
  });
  assert.equal(answer.status, 204, answer.text);
}

/** Lets a part of the server stop for so many milliseconds, without waiting for that. */
async function stall(server, actor, ms) {
  await arm(server, { actor, when: 'next-publish', stall_ms: ms });
  server.post(jobUpdate()).catch(() => {});
}

// Each program that is started listens for the end of this one.
process.setMaxListeners(50);

test('each alert fires on its fault', { timeout: 300_000 }, async (t) => {
  const servers = {};
  let endNats = [];
  const nats = await startNats({ after: (end) => endNats.push(end) });
  t.after(() => Promise.all(endNats.map((end) => end())));
  for (const [name, { options = [], nats: isNode }] of Object.entries(FAULTS)) {
    servers[name] = await Server.start({ args: [...options, ...(isNode ? ['--nats', nats] : [])] });
    t.after(() => servers[name].program.child.kill('SIGKILL'));
  }
  // As in the file, but nobody waits for minutes.
  const rules = RULES.replace(/ for: \d+m$/gm, ' for: 3s');
  const targets = Object.fromEntries(Object.entries(servers).map(([name, server]) => [name, server.manager.host]));
  const prometheus = await Prometheus.start(t, targets, { rules, interval: '3s' });
  const none = await Prometheus.start(t, {}, { rules, interval: '3s' });
  const up = () => prometheus.query('up == 1');
  await eventually(up, ({ length }) => length === Object.keys(servers).length, 'every server to be scraped', 60_000);
  // Counters grow between two scrapes.
  const scrapes = () => prometheus.query('min(count_over_time(up[1m]))');
  await eventually(scrapes, ([{ value }]) => Number(value[1]) >= 2, 'two scrapes', 60_000);

  const early = (await prometheus.firing()).filter((alert) => !/^Webupdates(Manager|Broker)Away /.test(alert));
  assert.deepEqual(early, [], 'without a fault nothing fires; some began with theirs');

  const seen = new Set();
  const ofEach = Object.entries(FAULTS).flatMap(([name, { fires }]) => fires.map((alert) => `${alert} ${name}`));
  const wanted = [...ofEach, ...OF_ALL];
  const look = async () => (await prometheus.firing()).forEach((alert) => seen.add(alert)) ?? [...seen];
  await Promise.all([
    ...Object.entries(FAULTS).map(([name, { fault }]) => fault?.(t, servers[name])),
    ...endNats.splice(0).map((end) => end()),
    eventually(look, () => wanted.every((alert) => seen.has(alert)), 'every alert', 120_000)
      .catch(() => assert.fail(`not fired: ${wanted.filter((alert) => !seen.has(alert))}`)),
  ]);
  assert.deepEqual([...seen].sort(), wanted.sort(), 'each on its own fault only');
  await eventually(() => none.firing(), (firing) => firing.join() === 'WebupdatesNotScraped', 'the alert that nothing is scraped', 60_000);
  const names = [...RULES.matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
  const fired = new Set([...seen, 'WebupdatesNotScraped'].map((alert) => alert.split(' ')[0]));
  assert.deepEqual(names.filter((name) => !fired.has(name)), [], 'alerts that no fault has fired');
});
