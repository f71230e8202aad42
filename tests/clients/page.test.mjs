// Pages in a real browser, served from another origin than the server's: what the browser itself has to say on it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { launch, NO_CHROMIUM, openPage } from './support/chromium.mjs';
import { asReceived, JOB_A, jobUpdate, taskUpdate } from './support/farm.mjs';
import { LOOPBACK, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

const TRANSPORTS = {
  websocket: { transports: ['websocket'], ends: 'websocket' },
  polling: { transports: ['polling'], ends: 'polling' },
  'polling by scripts and forms': { transports: ['polling'], forceJSONP: true, ends: 'polling' },
  'polling → websocket': { transports: ['polling', 'websocket'], ends: 'websocket' },
};
const EVENTS = 200;

const bundle = readFileSync(createRequire(import.meta.url).resolve('socket.io-client-2.5.0/dist/socket.io.js'));

describe('a page', { skip: NO_CHROMIUM, timeout: 120_000 }, () => {
  let pages, browser, origin;
  const closing = [];
  before(async () => {
    pages = http.createServer((request, response) => {
      const isScript = request.url === '/socket.io.js';
      response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html; charset=utf-8');
      response.end(isScript ? bundle : '<!doctype html><title>Farm</title><script src="socket.io.js"></script>');
    });
    await new Promise((resolve) => pages.listen(0, LOOPBACK, resolve));
    origin = `http://${LOOPBACK}:${pages.address().port}`;
    browser = await launch({ after: (close) => closing.push(close) });
  });
  after(async () => {
    for (const close of closing) await close();
    pages?.closeAllConnections();
    pages?.close();
  });

  /** A page that connects to `server`: what becomes of that is in its `facts` and `events`. */
  async function connect(t, server, { transports, forceJSONP = false }) {
    const opened = await openPage(browser, origin);
    t.after(() => opened.page.browserContext().close());
    await opened.page.evaluate((url, options) => {
      window.facts = [];
      window.events = [];
      window.socket = window.io(url, { ...options, reconnection: false });
      const dispatch = window.socket.onevent;
      window.socket.onevent = (packet) => {
        window.events.push(packet.data);
        dispatch.call(window.socket, packet);
      };
      for (const fact of ['connect', 'connect_error', 'disconnect']) window.socket.on(fact, () => window.facts.push(fact));
    }, server.browsers.origin, { transports, forceJSONP });
    return opened;
  }
  const facts = (page) => eventually(() => page.evaluate(() => window.facts), (all) => all.length > 0, 'the page to connect, or not');
  const ask = (page, ...request) => page.evaluate((...args) => new Promise((resolve) => window.socket.emit(...args, resolve)), ...request);

  for (const [title, { ends, ...options }] of Object.entries(TRANSPORTS)) {
    test(`of an allowed origin works over ${title}`, async (t) => {
      const server = await Server.start({ args: ['--allow-origin', origin] });
      t.after(() => server.stop());
      const { page, said } = await connect(t, server, options);
      assert.deepEqual(await facts(page), ['connect']);
      assert.equal(await ask(page, '/subscription', { op: 'subscribe', type: 'job', uuid: JOB_A }), 'ok');
      const chat = { name: 'Ünal 🎬', text: 'zwei\nZeilen "und" \\ <b></script>\u2028' };
      assert.equal(await ask(page, '/chat', chat), 'message sent successfully.');
      const events = Array.from({ length: EVENTS }, (_, turn) => (turn % 2 ? jobUpdate({ turn }) : taskUpdate({ turn })));
      for (let sent = 0; sent < EVENTS; sent += 20) await server.publish(events.slice(sent, sent + 20));
      const heard = await eventually(() => page.evaluate(() => window.events), (all) => all.length > EVENTS, `${EVENTS} events`);
      assert.deepEqual(heard, [['/message', chat], ...asReceived(events)]);
      // A page that is busy may have heard everything before its upgrade is through.
      await eventually(() => server.stats(), ({ sessions }) => sessions[ends] === 1, `its session to go over ${ends}`);
      assert.deepEqual(said, []);
    });

    test(`of another origin is refused over ${title}, and sees that`, async (t) => {
      const server = await Server.start({ args: ['--allow-origin', 'https://farm.example'] });
      t.after(() => server.stop());
      const { page } = await connect(t, server, options);
      assert.deepEqual(await facts(page), ['connect_error']);
      await server.publish(jobUpdate());
      assert.deepEqual(await page.evaluate(() => window.events), []);
      const { sessions, refused } = await server.stats();
      assert.equal(sessions.total, 0);
      assert.ok(refused['forbidden-origin'] > 0);
    });
  }
});
