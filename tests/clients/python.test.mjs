// What python-socketio over polling needs to come back: its reader and its writer are two threads, and the server decides whether
// both of them notice that a session is gone.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';
import { Browser } from './support/browsers.mjs';
import * as python from './support/python.mjs';
import { answerOf, LOOPBACK, Server } from './support/server.mjs';
import { Arrivals, within } from './support/wait.mjs';

const CHAT = { name: 'Anna', text: 'hello' };

test('a writer that is busy when its reader stops comes back with it', { skip: python.NO_PYTHON, timeout: 60_000 }, async (t) => {
  const server = await Server.start();
  t.after(() => server.stop('SIGKILL'));
  const gate = await Gate.open(t, server);
  const socket = python.connect(gate.origin, { transports: ['polling'], reconnectionDelay: 100, reconnectionDelayMax: 100 });
  const stopping = new Promise((resolve) => socket.once('stopping', resolve));
  const browser = new Browser(socket, []);
  t.after(() => browser.close());
  await browser.connected();
  assert.deepEqual(await browser.ask('/chat', CHAT), ['message sent successfully.']);

  // The writer waits for the answer to one message, and behind the next one in its queue comes the reader's end.
  gate.close();
  browser.tell('/chat', CHAT);
  await gate.held.until((posts) => posts.length === 1, 'a POST at the gate');
  browser.tell('/chat', CHAT);
  await server.stop('SIGKILL');
  await server.startAgain();
  await within(stopping, 'the reader to stop');
  gate.open();
  await browser.fact('reconnect');
  assert.deepEqual(await browser.ask('/chat', CHAT), ['message sent successfully.']);
});

/** Relays requests to the server, and holds POSTs while it is closed. An answer that does not come is not made up. */
class Gate {
  /** The POSTs that came while it was closed. */
  held = new Arrivals();
  #opened;

  static async open(t, server) {
    const gate = new Gate();
    const relay = http.createServer(async (incoming, outgoing) => {
      try {
        await gate.#pass(incoming, outgoing, server.browsers);
      } catch {
        incoming.socket.destroy();
      }
    });
    relay.listen(0, LOOPBACK);
    await once(relay, 'listening');
    t.after(() => {
      relay.close();
      relay.closeAllConnections();
    });
    gate.origin = `http://${LOOPBACK}:${relay.address().port}`;
    return gate;
  }

  close() {
    this.#opened = new Promise((resolve) => (this.open = resolve));
  }

  async #pass(incoming, outgoing, to) {
    const { method, url, headers } = incoming;
    const body = [];
    for await (const chunk of incoming) body.push(chunk);
    if (method === 'POST' && this.#opened) {
      this.held.push(url);
      await this.#opened;
    }
    const request = http.request(new URL(url, to), { method, headers, agent: false });
    request.end(Buffer.concat(body));
    const [response] = await once(request, 'response');
    const { status, text } = await answerOf(response);
    outgoing.writeHead(status, { 'content-type': response.headers['content-type'] });
    outgoing.end(text);
  }
}
