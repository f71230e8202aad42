// Several nodes behind nginx and HAProxy, set up as docs/cluster.md says.

import assert from 'node:assert/strict';
import http from 'node:http';
import { createRequire } from 'node:module';
import net from 'node:net';
import { describe, test } from 'node:test';
import { Browser, TRANSPORTS } from './support/browsers.mjs';
import { asReceived, jobUpdate } from './support/farm.mjs';
import { freePort } from './support/listening.mjs';
import { NO_NATS, startNats } from './support/nats.mjs';
import { PROXIES_OF_NODES } from './support/proxies.mjs';
import { EVERY_EVENT, LOOPBACK, request, Server } from './support/server.mjs';
import { eventually } from './support/wait.mjs';

const io = createRequire(import.meta.url)('socket.io-client-2.5.0');
const QUICK = { forceNew: true, rejectUnauthorized: false, reconnectionDelay: 100, reconnectionDelayMax: 1000 };
const PATIENCE = 60_000;

/** How often all nodes are replaced. With more than once, what takes long is tested too. */
const ROUNDS = Number(process.env.ROLLING_UPDATES ?? 1);
const IS_LONG = ROUNDS > 1;
/** The clients of each kind and transport meanwhile. */
const CLIENTS = IS_LONG ? 20 : 3;

/** The line between a node and NATS. */
class Line {
  #sockets = new Set();
  #isOpen = true;

  static async to(t, url) {
    const { port: target } = new URL(url);
    const line = new Line();
    const port = await freePort();
    const listener = net.createServer((socket) => line.#carry(socket, net.connect(target, LOOPBACK))).listen(port, LOOPBACK);
    t.after(() => {
      line.turn(false);
      listener.close();
    });
    line.url = `nats://${LOOPBACK}:${port}`;
    return line;
  }

  #carry(...pair) {
    for (const [turn, socket] of pair.entries()) {
      this.#sockets.add(socket);
      socket.on('error', () => {}).on('close', () => (this.#sockets.delete(socket), pair[1 - turn].destroy()));
      if (this.#isOpen) socket.pipe(pair[1 - turn]);
      else socket.destroy();
    }
  }

  turn(isOpen) {
    this.#isOpen = isOpen;
    if (!isOpen) for (const socket of this.#sockets) socket.destroy();
  }
}

/** The node that a client's session is at. */
const nodeOf = (socket) => socket.io.engine.id.split('.')[0];

/** Clients behind a proxy and a Manager that posts numbered events through it, again with the same ids if they are not accepted. */
class Crowd {
  clients = [];
  published = 0;
  refused = 0;
  wrong = [];
  #isOver = false;

  static async gather(t, proxy) {
    const crowd = new Crowd();
    for (const [transport, options] of Object.entries(TRANSPORTS)) {
      for (let turn = 0; turn < 2 * CLIENTS; turn++) crowd.#add(t, proxy, `${transport} ${turn}`, options, turn % 2 === 0);
    }
    await eventually(() => crowd.clients.filter(({ isReady }) => !isReady).length, (missing) => missing === 0, 'all clients', PATIENCE);
    crowd.publishing = crowd.#publish(proxy);
    t.after(() => (crowd.#isOver = true));
    return crowd;
  }

  #add(t, proxy, name, options, resumes) {
    const socket = io(proxy.http, { ...QUICK, ...options, query: resumes ? { resume: '1' } : {} });
    t.after(() => socket.close());
    const client = { name, socket, last: 0, token: null, isReady: false, connections: 0 };
    this.clients.push(client);
    socket.on('connect', () => {
      client.connections += 1;
      if (!resumes) {
        client.last = undefined;
        client.isReady = true;
        return;
      }
      socket.emit('/resume', { token: client.token, rooms: ['Chat'] }, ({ recovered, token }) => {
        if (recovered !== client.isReady) this.wrong.push(`${name}: recovered ${recovered}`);
        client.isReady = true;
        client.token = token;
      });
    });
    socket.on('/message', ({ text }, token) => {
      const number = Number(text);
      if (number !== (client.last ?? number - 1) + 1) this.wrong.push(`${name}: ${number} after ${client.last}`);
      client.last = number;
      if (resumes) client.token = token;
    });
  }

  async #publish(proxy) {
    const events = (first) => Array.from({ length: 5 }, (_, turn) => ({
      id: `event-${first + turn}`, type: 'chat-message', payload: { name: 'n', text: String(first + turn) },
    }));
    while (!this.#isOver) {
      const { status } = await request(new URL('/api/events', proxy.manager), {
        method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(events(this.published + 1)),
      });
      if (status === 200) this.published += 5;
      else this.refused += 1;
      await new Promise((resolve) => setTimeout(resolve, status === 200 ? 20 : 100));
    }
  }

  /** Waits until more events are published, and all clients have them. */
  async goesOn() {
    const wanted = this.published + 25;
    await eventually(() => this.published, (published) => published >= wanted, 'events to be accepted', PATIENCE);
    await eventually(
      () => this.clients.filter(({ last }) => !(last >= wanted)).map(({ name, last }) => `${name}: ${last}`), (behind) => behind.length === 0,
      `all clients to have event ${wanted}`, PATIENCE,
    );
  }

  /** Waits until all clients have everything, and checks what they got. */
  async end() {
    this.#isOver = true;
    await this.publishing;
    await eventually(
      () => this.clients.filter(({ last }) => last !== this.published).map(({ name, last }) => `${name}: ${last}`), (behind) => behind.length === 0,
      `all clients to have ${this.published} events`, PATIENCE,
    );
    assert.deepEqual(this.wrong, []);
  }
}

async function connect(t, url, options) {
  const browser = new Browser(io(url, { ...QUICK, ...options }), []);
  t.after(() => browser.close());
  await browser.connected();
  return browser;
}

/** Waits until a new session comes to this node. */
async function getsHandshakes(t, proxy, name) {
  await eventually(async () => {
    const browser = await connect(t, proxy.http, TRANSPORTS.websocket);
    const node = nodeOf(browser.socket);
    browser.close();
    return node;
  }, (node) => node === name, `a handshake at ${name}`, PATIENCE);
}

const health = async (node) => (await request(new URL('/healthz', node.browsers))).status;

describe('several nodes', { skip: NO_NATS, timeout: 300_000 * ROUNDS, concurrency: true }, () => {
  for (const [name, { skip, start }] of Object.entries(PROXIES_OF_NODES)) {
    test(`behind ${name}`, { skip }, async (t) => {
      const nats = await startNats(t);
      const line = await Line.to(t, nats);
      const options = (name, nats) => [...EVERY_EVENT, '--nats', nats, '--node-name', name, '--trusted-proxy', LOOPBACK];
      const nodes = await Promise.all([
        Server.start({ args: options('farm-1', nats) }), Server.start({ args: [...options('farm-2', line.url), '--backplane-grace', '1s'] }),
      ]);
      t.after(() => Promise.all(nodes.map(({ program }) => program.exit ?? (program.child.kill('SIGKILL'), program.exited))));
      const proxy = await start(t, nodes);
      // Each step begins with the nodes that the one before it has left well.
      const step = async (name, check) => {
        let isPassed = false;
        await t.test(name, async (t) => {
          await check(t);
          isPassed = true;
        });
        assert.ok(isPassed, name);
      };

      await step('a node that is cut off from NATS gets no sessions', async (t) => {
        const [, node] = nodes;
        line.turn(false);
        await eventually(() => health(node), (status) => status === 503, 'the node to be cut off', PATIENCE);
        for (const options of Object.values(TRANSPORTS)) {
          const browsers = await Promise.all([1, 2, 3, 4].map(() => connect(t, proxy.http, options)));
          for (const { socket, facts } of browsers) assert.deepEqual([nodeOf(socket), facts], ['farm-1', ['connect']]);
        }
        assert.equal(await health(node), 503);
        assert.equal((await node.stats()).sessions.total, 0);
        line.turn(true);
        await node.stop();
        node.options.args = options('farm-2', line.url);
        await node.startAgain();
        await getsHandshakes(t, proxy, 'farm-2');
      });

      await step('each of 40 long-polling sessions stays at its node, and counts for its own address', async (t) => {
        const addresses = Array.from({ length: 40 }, (_, turn) => `127.0.9.${turn + 1}`);
        const browsers = await Promise.all(addresses.map((localAddress) =>
          connect(t, proxy.http, { ...TRANSPORTS.polling, agent: new http.Agent({ localAddress }) })));
        await Promise.all(browsers.map((browser) => browser.subscribe({ type: 'allWorkers' })));
        for (let turn = 1; turn <= 5; turn++) {
          const { status } = await request(new URL('/api/events', proxy.manager), {
            method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(jobUpdate({ priority: turn })),
          });
          assert.equal(status, 200);
          await Promise.all(browsers.map((browser) => browser.event((_, { priority }) => priority === turn, `update ${turn}`)));
        }
        for (const browser of browsers) {
          assert.deepEqual(browser.take(), asReceived([1, 2, 3, 4, 5].map((priority) => jobUpdate({ priority }))));
          assert.deepEqual(browser.facts, ['connect']);
        }
        const pages = await Promise.all(nodes.map(({ manager }) => request(new URL('/api/sessions', manager))));
        const at = pages.map(({ json }) => json.sessions.map(({ address }) => address));
        const named = ['farm-1', 'farm-2'].map((name) => addresses.filter((_, turn) => nodeOf(browsers[turn].socket) === name));
        assert.deepEqual(at.map((all) => all.sort()), named.map((all) => all.sort()));
        assert.ok(named.every((all) => all.length > 0), `both nodes have some: ${named.map((all) => all.length)}`);
      });

      for (const [transport, options] of Object.entries(TRANSPORTS)) {
        await step(`chat crosses nodes over ${transport}, also over https`, async (t) => {
          const browsers = await Promise.all(['http', 'http', 'http', 'https', 'https'].map((scheme) => connect(t, proxy[scheme], options)));
          while (new Set(browsers.map(({ socket }) => nodeOf(socket))).size < 2) browsers.push(await connect(t, proxy.http, options));
          const [answer] = await browsers[0].ask('/chat', { name: 'Zoë', text: `hello over ${transport} 🎬` });
          assert.equal(answer, 'message sent successfully.');
          await Promise.all(browsers.map((browser) => browser.event((name, { text }) => name === '/message' && text === `hello over ${transport} 🎬`, 'the chat')));
          for (const { socket } of browsers) {
            await eventually(() => socket.io.engine.transport.name, (now) => now === options.transports.at(-1), `the session over ${transport}`);
          }
          for (const browser of browsers) assert.deepEqual(browser.facts, ['connect']);
        });
      }

      if (IS_LONG) {
        await step('clients that hear nothing for 70 s stay', async (t) => {
          const browsers = await Promise.all(Object.values(TRANSPORTS).map((options) => connect(t, proxy.http, options)));
          await new Promise((resolve) => setTimeout(resolve, 70_000));
          const [answer] = await browsers[0].ask('/chat', { name: 'n', text: 'after 70 s' });
          assert.equal(answer, 'message sent successfully.');
          await Promise.all(browsers.map((browser) => browser.event((name, { text }) => name === '/message' && text === 'after 70 s', 'the chat')));
          for (const browser of browsers) assert.deepEqual(browser.facts, ['connect']);
        });
      }

      await step('nodes are replaced under load, and one is killed, and no event is lost or repeated', async (t) => {
        const crowd = await Crowd.gather(t, proxy);
        await crowd.goesOn();
        for (let round = 0; round < ROUNDS; round++) {
          for (const [turn, node] of nodes.entries()) {
            await node.stop();
            await crowd.goesOn();
            assert.deepEqual([...new Set(crowd.clients.map(({ socket }) => nodeOf(socket)))], [`farm-${2 - turn}`], 'all are at the other node');
            await node.startAgain();
            await getsHandshakes(t, proxy, `farm-${turn + 1}`);
          }
        }
        if (IS_LONG && name === 'HAProxy') {
          nodes[1].program.child.kill('SIGSTOP');
          await crowd.goesOn();
          nodes[1].program.child.kill('SIGCONT');
          await getsHandshakes(t, proxy, 'farm-2');
        }
        await nodes[0].stop('SIGKILL');
        await crowd.goesOn();
        await crowd.end();
        assert.ok(crowd.clients.every(({ connections }) => connections >= 2), 'all were at another node');
        t.diagnostic(`${crowd.published} events to ${crowd.clients.length} clients, ${crowd.refused} requests not accepted`);
      });
    });
  }
});
