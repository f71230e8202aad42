// A real Prometheus that scrapes servers.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { freePort, listening } from './listening.mjs';
import { LOOPBACK, request } from './server.mjs';
import { eventually } from './wait.mjs';

/** The program beside `promtool`, with which it is packaged; `./test` installs what is missing. */
const { PROMTOOL, PROMETHEUS = PROMTOOL && join(dirname(PROMTOOL), 'prometheus') } = process.env;

export const NO_PROMETHEUS = existsSync(PROMETHEUS ?? '') ? false : 'no Prometheus: set PROMETHEUS to one';

export class Prometheus {
  /**
   * Starts it until `t` ends. Every `interval` it scrapes the Manager's ports `targets`, with the label `instance` that each
   * has as its key, and evaluates the text `rules`.
   */
  static async start(t, targets, { rules = 'groups: []', interval = '1s' } = {}) {
    const home = mkdtempSync(join(tmpdir(), 'webupdates-prometheus-'));
    const port = await freePort();
    const scraped = Object.entries(targets).map(([instance, target]) => ({ targets: [target], labels: { instance } }));
    // JSON is YAML.
    writeFileSync(join(home, 'prometheus.yml'), JSON.stringify({
      global: { scrape_interval: interval, scrape_timeout: interval, evaluation_interval: '1s' },
      rule_files: ['rules.yml'],
      scrape_configs: [{ job_name: 'flamenco-webupdates', static_configs: scraped }],
    }));
    writeFileSync(join(home, 'rules.yml'), rules);
    await listening(t, PROMETHEUS, [
      `--config.file=${home}/prometheus.yml`, `--storage.tsdb.path=${home}/data`, `--web.listen-address=${LOOPBACK}:${port}`,
    ], port, 'SIGKILL');
    t.after(() => rmSync(home, { recursive: true, force: true }));
    const prometheus = new Prometheus();
    prometheus.url = `http://${LOOPBACK}:${port}`;
    const isReady = () => request(`${prometheus.url}/-/ready`).then(({ status }) => status === 200);
    await eventually(isReady, Boolean, 'Prometheus to be ready');
    return prometheus;
  }

  /** The series that an expression has now: `[{ metric, value }]`. */
  async query(expression) {
    const { json, text } = await request(`${this.url}/api/v1/query?query=${encodeURIComponent(expression)}`);
    if (json?.status !== 'success') throw new Error(`${expression}: ${text}`);
    return json.data.result;
  }

  /** The alerts that fire now, as `name instance`. */
  async firing() {
    const { json } = await request(`${this.url}/api/v1/alerts`);
    return json.data.alerts.filter(({ state }) => state === 'firing')
      .map(({ labels: { alertname, instance = '', source = '' } }) => [alertname, instance || source].join(' ').trim());
  }
}
