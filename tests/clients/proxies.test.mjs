// Behind nginx, HAProxy, Caddy and Apache, set up as docs/deployment.md says.

import assert from 'node:assert/strict';
import http from 'node:http';
import { createRequire } from 'node:module';
import { describe, test } from 'node:test';
import { Browser, TRANSPORTS } from './support/browsers.mjs';
import { asReceived, jobUpdate } from './support/farm.mjs';
import { Farm, NO_FARM } from './support/flamenco.mjs';
import { NO_NGINX, PROXIES, startNginx, startNginxBeforeFlamenco } from './support/proxies.mjs';
import { EVERY_EVENT, LOOPBACK, request, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

const io = createRequire(import.meta.url)('socket.io-client-2.5.0');
const PING = ['--ping-interval', '500ms'];

// Each program that is started listens for the end of this one.
process.setMaxListeners(50);

/** Seconds of silence in the test of idle browsers; with the real time-out when it is a minute or more. */
const IDLE = Number(process.env.IDLE_SECONDS ?? 5);

async function connect(t, url, options) {
  const browser = new Browser(io(url, { forceNew: true, rejectUnauthorized: false, ...options }), []);
  t.after(() => browser.close());
  await browser.connected();
  return browser;
}

async function startServer(t, ...args) {
  const server = await Server.start({ args: [...EVERY_EVENT, ...args] });
  t.after(() => server.stop());
  return server;
}

/** Checks that the only browser of `server` gets all events, in order, and over the transport that it is to end with. */
async function getsEverything(browser, server, transport) {
  await browser.subscribe({ type: 'allWorkers' });
  const events = Array.from({ length: 500 }, (_, turn) => jobUpdate({ turn, name: 'é🎬'.repeat(turn) }));
  for (let sent = 0; sent < events.length; sent += 50) await server.publish(events.slice(sent, sent + 50));
  await server.settle(browser);
  assert.deepEqual(browser.take(), asReceived(events));
  const ends = transport === 'polling' ? 'polling' : 'websocket';
  await eventually(() => server.stats(), ({ sessions }) => sessions[ends] === 1 && sessions.total === 1, `one session over ${ends}`);
}

describe('behind nginx', { skip: NO_NGINX, timeout: 300_000 }, () => {
  for (const scheme of ['http', 'https']) {
    for (const [transport, options] of Object.entries(TRANSPORTS)) {
      test(`a page of that host gets everything over ${scheme} and ${transport}`, async (t) => {
        const server = await startServer(t);
        const url = (await startNginx(t, [server]))[scheme];
        const browser = await connect(t, url, { ...options, extraHeaders: { origin: url } });
        await getsEverything(browser, server, transport);
        assert.deepEqual(browser.facts, ['connect']);
      });
    }
  }

  test('in front of a Manager the names of the farm win against the default site', async (t) => {
    const server = await startServer(t, '--demo', '--trusted-proxy', LOOPBACK);
    const url = await startNginxBeforeFlamenco(t, server);
    for (const host of ['farm', 'farm.example', 'farm.example:80']) {
      const answer = await request(new URL('/api/v3/jobs', url), { headers: { host } });
      assert.deepEqual([answer.status, Array.isArray(answer.json?.jobs)], [200, true], `${host}: ${answer.text}`);
      await connect(t, url, { ...TRANSPORTS.websocket, extraHeaders: { host } });
    }
    const other = await request(url, { headers: { host: 'elsewhere.example' } });
    assert.equal(other.text, 'Welcome to nginx!');
  });

  for (const [transport, options] of Object.entries(TRANSPORTS)) {
    test(`a browser that hears nothing for ${IDLE} s stays over ${transport}`, async (t) => {
      const server = await startServer(t, ...(IDLE < 60 ? PING : []));
      const url = (await startNginx(t, [server], { readTimeout: IDLE < 60 ? '2s' : undefined })).http;
      const browser = await connect(t, url, options);
      await new Promise((resolve) => setTimeout(resolve, IDLE * 1000));
      await server.publish(jobUpdate());
      await server.settle(browser);
      assert.deepEqual(browser.take(), asReceived([jobUpdate()]));
      assert.deepEqual(browser.facts, ['connect']);
    });

    test(`a path of its own works over ${transport}`, async (t) => {
      const path = '/farm/socket.io';
      const server = await startServer(t, '--path', path);
      const url = (await startNginx(t, [server], { path })).http;
      const browser = await connect(t, url, { ...options, path: `${path}/` });
      await browser.subscribe({ type: 'allWorkers' });
    });

    test(`the address of a browser is the one that nginx saw over ${transport}`, async (t) => {
      const server = await startServer(t, '--trusted-proxy', LOOPBACK, '--max-sessions-per-address', '1');
      const url = (await startNginx(t, [server])).http;
      const from = (localAddress, claimed) =>
        new Browser(io(url, {
          ...options, forceNew: true, reconnection: false, agent: new http.Agent({ localAddress }), extraHeaders: { 'x-forwarded-for': claimed },
        }), []);
      // What comes from the trusted address is another proxy's: its word is taken, and one session of that address is enough.
      const known = [from(LOOPBACK, '203.0.113.7'), from(LOOPBACK, '203.0.113.8')];
      // The word of others is not: they are of this machine, which may have more.
      const liars = [from('127.0.9.1', '203.0.113.7'), from('127.0.9.1', '203.0.113.7')];
      t.after(() => [...known, ...liars].forEach((browser) => browser.close()));
      await Promise.all([...known, ...liars].map((browser) => browser.connected()));
      const second = from(LOOPBACK, '203.0.113.7');
      t.after(() => second.close());
      await second.fact('connect_error');
      assert.equal((await server.stats()).sessions.total, 4);
    });

    test(`of two servers each keeps its browsers over ${transport}`, async (t) => {
      const servers = [await startServer(t), await startServer(t)];
      const url = (await startNginx(t, servers)).http;
      // ip_hash looks at the first three numbers of an address.
      const addresses = Array.from({ length: 16 }, (_, turn) => `127.0.${turn + 1}.1`);
      const browsers = await Promise.all(addresses.map((localAddress) => connect(t, url, { ...options, agent: new http.Agent({ localAddress }) })));
      const totals = await Promise.all(servers.map(async (server) => (await server.stats()).sessions.total));
      assert.ok(totals[0] > 0 && totals[1] > 0 && totals[0] + totals[1] === browsers.length, `${totals}`);
      for (const turn of [1, 2, 3]) {
        for (const server of servers) await server.publish(jobUpdate({ turn }));
      }
      for (const browser of browsers) {
        await browser.count(3);
        assert.deepEqual(browser.take(), asReceived([1, 2, 3].map((turn) => jobUpdate({ turn }))));
        assert.deepEqual(browser.facts, ['connect']);
      }
    });
  }
});

describe('behind the other proxies', { timeout: 300_000, concurrency: true }, () => {
  for (const [name, { skip, start }] of Object.entries(PROXIES)) {
    describe(`behind ${name}`, { skip, concurrency: 1 }, () => {
      for (const [transport, options] of Object.entries(TRANSPORTS)) {
        for (const scheme of name === 'Caddy' ? ['http', 'https'] : ['http']) {
          test(`a page of that host gets everything over ${scheme} and ${transport}, and no other`, async (t) => {
            const server = await startServer(t, '--trusted-proxy', LOOPBACK);
            const url = (await start(t, server))[scheme];
            const forged = { 'x-forwarded-for': '203.0.113.7', 'x-forwarded-host': 'elsewhere.example', 'x-forwarded-proto': 'https' };
            const browser = await connect(t, url, { ...options, extraHeaders: { origin: url, ...forged } });
            await getsEverything(browser, server, transport);
            const { json } = await request(new URL('/api/sessions', server.manager));
            assert.deepEqual(json.sessions.map(({ address }) => address), [LOOPBACK]);
            assert.deepEqual(browser.facts, ['connect']);
            const extraHeaders = { origin: 'https://elsewhere.example', ...forged };
            const stranger = new Browser(io(url, { ...options, forceNew: true, reconnection: false, rejectUnauthorized: false, extraHeaders }), []);
            t.after(() => stranger.close());
            await stranger.fact('connect_error');
          });
        }
      }

      test(`a browser that hears nothing for ${IDLE} s stays over every transport`, async (t) => {
        const server = await startServer(t, ...(IDLE < 60 ? PING : []));
        const { http: url } = await start(t, server, { timeout: IDLE < 60 ? 2 : undefined });
        const browsers = await Promise.all(Object.values(TRANSPORTS).map((options) => connect(t, url, options)));
        await new Promise((resolve) => setTimeout(resolve, IDLE * 1000));
        await server.publish(jobUpdate());
        await server.settle(...browsers);
        for (const browser of browsers) {
          assert.deepEqual(browser.take(), asReceived([jobUpdate()]));
          assert.deepEqual(browser.facts, ['connect']);
        }
      });
    });
  }

  test('all of a Manager is behind each', { skip: NO_FARM }, async (t) => {
    const farm = await Farm.start(t, '3.9');
    const server = await startServer(t, '--manager', farm.url, '--trusted-proxy', LOOPBACK);
    for (const [name, { skip, start }] of Object.entries(PROXIES)) {
      await t.test(name, { skip }, async (t) => {
        const { http: url } = await start(t, server, { path: '/' });
        const both = (path) => Promise.all([url, farm.url].map(async (host) => (await request(new URL(path, host))).text));
        const [page, same] = await both('/app/jobs');
        assert.equal(page, same);
        const [, script] = /src="(\/app\/assets\/[^"]+\.js)"/.exec(page);
        const [code, sameCode] = await both(script);
        assert.ok(code === sameCode && code.length > 100_000, `${script}: ${code.length} characters`);
        const browser = await connect(t, url, { ...TRANSPORTS['polling → websocket'], extraHeaders: { origin: url } });
        const job = await farm.submit('sleep', '--name', `behind ${name}`, '--tasks', '1');
        await browser.event((event, { id }) => event === '/jobs' && id === job, 'the job');
        const { json } = await request(new URL(`/api/v3/jobs/${job}`, url));
        assert.equal(json.name, `behind ${name}`);
      });
    }
  });
});
