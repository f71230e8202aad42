// Over TLS everything is as without: real clients over wss and https.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import selfsigned from 'selfsigned';
import { forEachClient } from './support/browsers.mjs';
import { asReceived, JOB_A, jobUpdate, TASK_A, taskLog, taskUpdate } from './support/farm.mjs';
import { EVERY_EVENT, LOOPBACK, Server } from './support/server.mjs';

const ALT_NAMES = [{ name: 'subjectAltName', altNames: [{ type: 7, ip: LOOPBACK }] }];
const { cert, private: key } = selfsigned.generate([{ name: 'commonName', value: LOOPBACK }], {
  days: 2, keySize: 2048, algorithm: 'sha256', extensions: ALT_NAMES,
});
const SUBSCRIPTIONS = [{ type: 'job', uuid: JOB_A }, { type: 'tasklog', uuid: TASK_A }];
const NEWS = [jobUpdate({ name: 'über TLS 🎬' }), taskUpdate(), taskLog()];

let folder, args;
before(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'webupdates-'));
  const files = { cert: path.join(folder, 'cert.pem'), key: path.join(folder, 'key.pem') };
  writeFileSync(files.cert, cert);
  writeFileSync(files.key, key);
  args = ['--tls-cert', files.cert, '--tls-key', files.key, ...EVERY_EVENT];
});
after(() => rmSync(folder, { recursive: true }));

forEachClient((client) => {
  test('comes in, hears everything in order, and comes back after a restart', async (t) => {
    const server = await Server.start({ args });
    t.after(() => server.stop());
    assert.equal(server.browsers.protocol, 'https:');
    const browsers = await client.connectMany(t, server, 10, { ca: cert, reconnectionDelay: 50 });
    for (const browser of browsers) await browser.subscribe(...SUBSCRIPTIONS);
    await server.publish(NEWS);
    await server.settle(...browsers);
    for (const browser of browsers) assert.deepEqual(browser.take(), asReceived(NEWS));

    const many = Array.from({ length: 2000 }, (_, turn) => jobUpdate({ priority: turn, filler: 'x'.repeat(500) }));
    await server.publish(many);
    await server.settle(...browsers);
    for (const browser of browsers) {
      assert.deepEqual(browser.take().map(([, { priority }]) => priority), many.map(({ payload }) => payload.priority));
    }

    await server.stop();
    await server.startAgain();
    await Promise.all(browsers.map((browser) => browser.fact('reconnect')));
    await server.publish(jobUpdate());
    await server.settle(...browsers);
    for (const browser of browsers) assert.deepEqual(browser.take(), asReceived([jobUpdate()]));
  });

  test('does not come in where it trusts nobody', async (t) => {
    const server = await Server.start({ args });
    t.after(() => server.stop());
    const browser = client.begin(t, server, { reconnection: false, rejectUnauthorized: true });
    await browser.fact('connect_error');
    assert.equal((await server.stats()).sessions.total, 0);
  });
}, ({ name }) => name === 'socket.io-client 2.5.0');
