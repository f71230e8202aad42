// contrib/grafana-dashboard.json, whose every query a real Prometheus answers.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { Browser, TRANSPORTS } from './support/browsers.mjs';
import { jobUpdate } from './support/farm.mjs';
import { NO_NATS, startNats } from './support/nats.mjs';
import { NO_PROMETHEUS, Prometheus } from './support/prometheus.mjs';
import { request, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

const io = createRequire(import.meta.url)('socket.io-client-2.5.0');
const { panels, templating } = JSON.parse(readFileSync(new URL('../../contrib/grafana-dashboard.json', import.meta.url), 'utf8'));

const options = { skip: NO_PROMETHEUS || NO_NATS, timeout: 120_000 };

test('every panel of the dashboard shows two servers, and tells them and their series apart', options, async (t) => {
  const nats = await startNats(t);
  const servers = { 'one:8082': undefined, 'two:8082': undefined };
  for (const instance of Object.keys(servers)) {
    const server = await Server.start({ args: ['--nats', nats, '--manager', 'http://127.0.0.1:1'] });
    servers[instance] = server;
    t.after(() => server.stop());
  }
  const all = Object.values(servers);
  const targets = Object.entries(servers).map(([instance, server]) => [instance, server.manager.host]);
  const prometheus = await Prometheus.start(t, Object.fromEntries(targets));

  // What panels show only while it happens.
  const happen = (server) => Promise.all([
    server.publish(jobUpdate()),
    request(new URL('/socket.io/?EIO=3&transport=polling', server.browsers), { headers: { origin: 'http://elsewhere.example' } }),
    (async () => {
      const browser = new Browser(io(server.browsers.origin, { ...TRANSPORTS.websocket, forceNew: true }), []);
      await browser.connected();
      browser.close();
    })(),
  ]);
  for (const server of all) {
    const browser = new Browser(io(server.browsers.origin, { ...TRANSPORTS.websocket, forceNew: true }), []);
    t.after(() => browser.close());
    await browser.connected();
  }
  const answers = async () => {
    await Promise.all(all.map(happen));
    return Promise.all(panels.flatMap(({ title, targets }) => targets.map(async ({ expr, legendFormat }) => {
      const query = expr.replaceAll('$instance', '.*').replaceAll('$__rate_interval', '10s');
      const series = await prometheus.query(query);
      const legends = series.map(({ metric }) => legendFormat.replace(/\{\{(\w+)\}\}/g, (_, label) => metric[label] ?? `no label ${label}`));
      return { title, query, legends, values: series.map(({ value }) => value[1]) };
    })));
  };
  const isShown = ({ values }) => values.length > 0 && values.every((value) => Number.isFinite(Number(value)));
  const shown = await eventually(answers, (found) => found.every(isShown), 'data in every panel', 60_000)
    .catch(async () => assert.fail(`no data: ${JSON.stringify((await answers()).filter((answer) => !isShown(answer)))}`));
  const legendsOf = (title) => shown.filter((answer) => answer.title === title).flatMap(({ legends }) => legends);
  const alike = panels.map(({ title }) => [title, legendsOf(title)])
    .filter(([, legends]) => new Set(legends).size < legends.length || legends.some((legend) => legend.includes('no label')));
  assert.deepEqual(alike, [], 'every series of a panel has a legend of its own');

  // A panel of the present state asks for nothing else: a range would also have the states of the last hour.
  const isPresent = ({ instant, range }) => instant && range === false;
  const past = panels.filter(({ type, targets }) => type === 'stat' && !targets.every(isPresent));
  assert.deepEqual(past.map(({ title }) => title), []);

  // The list of servers to choose from.
  const { query } = templating.list.find(({ name }) => name === 'instance').query;
  const [, metric, label] = /^label_values\((\w+), (\w+)\)$/.exec(query);
  assert.deepEqual((await prometheus.query(metric)).map((series) => series.metric[label]).sort(), Object.keys(servers));
});
