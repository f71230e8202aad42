// A browser that speaks the protocol by hand: sees the exact text, and may send what no client would.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import net from 'node:net';
import WebSocket from 'ws';
import { answerOf } from './server.mjs';
import { Arrivals, within } from './wait.mjs';

export const HANDSHAKE = { EIO: '3', transport: 'websocket' };

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

export class RawBrowser {
  messages = new Arrivals();
  pongs = new Arrivals();
  #next = 0;

  /** A connected one, past the open packet and `40`; `t` ends it. */
  static async connect(t, server) {
    const browser = await RawBrowser.open(t, server);
    browser.handshake = JSON.parse((await browser.next()).slice(1));
    await browser.next();
    return browser;
  }

  /** A WebSocket that is open and has read nothing yet. */
  static async open(t, server, { path = '/socket.io/', query = HANDSHAKE, headers } = {}) {
    const browser = new RawBrowser(server, path, query, headers);
    t.after(() => browser.socket.destroy());
    await within(browser.opened, 'the WebSocket to open');
    return browser;
  }

  constructor(server, path, query, headers) {
    this.socket = net.connect(server.browsers.port, server.browsers.hostname);
    this.socket.on('error', () => {});
    const url = `ws://${server.browsers.host}${path}?${new URLSearchParams(query)}`;
    this.ws = new WebSocket(url, { createConnection: () => this.socket, headers, perMessageDeflate: false });
    this.opened = new Promise((resolve, reject) => this.ws.on('open', resolve).on('error', reject));
    this.closed = new Promise((resolve) => {
      this.ws.on('close', (code, reason) => {
        resolve({ code, reason: reason.toString() });
        this.messages.end(`the connection was closed with ${code}`);
      });
    });
    this.ws.on('message', (data, isBinary) => this.messages.push(isBinary ? data : data.toString('utf8')));
    this.ws.on('pong', (data) => this.pongs.push(data.toString('utf8')));
  }

  /** The next message that has not been read. */
  async next(what = 'one more message') {
    const at = this.#next++;
    const [message] = await this.messages.until((messages) => messages.length > at && [messages[at]], what);
    return message;
  }

  /** The messages that came since the last read, pings and fences of `settle` left out. */
  take() {
    const messages = this.messages.entries.slice(this.#next);
    this.#next = this.messages.entries.length;
    return messages.filter((message) => !isFence(message));
  }

  /** Resolves when the server has worked through all that was sent before. */
  async roundTrip() {
    const token = `2${randomBytes(6).toString('hex')}`;
    this.ws.send(token);
    const pong = `3${token.slice(1)}`;
    await this.messages.until((messages) => messages.includes(pong), `the answer to ${token}`);
    this.messages.entries.splice(this.messages.entries.indexOf(pong), 1);
  }

  async fenced(fence) {
    await this.messages.until((messages) => messages.some((text) => isFence(text) && text.includes(`:${fence}}`)), `fence ${fence}`);
  }

  send(text) {
    this.ws.send(text);
  }

  /** Writes bytes past the WebSocket library. */
  write(bytes) {
    this.socket.write(bytes);
  }

  /** Resolves with `{code, reason}` once the connection has ended. */
  close(what = 'the server to close') {
    return within(this.closed, what, () => this.messages.entries);
  }
}

/** One WebSocket frame as a client sends it (RFC 6455, 5.2), or wrong in one of the ways asked for. */
export function frame(payload, { opcode = OPCODE.text, fin = true, masked = true, rsv = 0, claimedLength } = {}) {
  const data = Buffer.from(payload);
  const length = BigInt(claimedLength ?? data.length);
  const head = [(fin ? 0x80 : 0) | rsv | opcode];
  const mask = masked ? 0x80 : 0;
  const wide = Buffer.alloc(8);
  wide.writeBigUInt64BE(length);
  if (length < 126n) head.push(mask | Number(length));
  else if (length < 65536n) head.push(mask | 126, ...wide.subarray(6));
  else head.push(mask | 127, ...wide);
  if (!masked) return Buffer.concat([Buffer.from(head), data]);
  const key = randomBytes(4);
  return Buffer.concat([Buffer.from(head), key, data.map((byte, at) => byte ^ key[at % 4])]);
}

/** Asks for a WebSocket and resolves with the HTTP answer that refuses it. */
export function refusedUpgrade(server, query, { path = '/socket.io/', headers = {} } = {}) {
  const refused = new Promise((resolve, reject) => {
    const outgoing = http.request(new URL(`${path}?${new URLSearchParams(query)}`, server.browsers), {
      agent: false,
      headers: {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': randomBytes(16).toString('base64'),
        ...headers,
      },
    });
    outgoing.on('response', (incoming) => resolve(answerOf(incoming)));
    outgoing.on('upgrade', (_, socket) => {
      socket.destroy();
      reject(new Error('the upgrade was accepted'));
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
  return within(refused, `the upgrade with ${JSON.stringify(query)} to be refused`);
}

/** Fails at the first packet that differs, and shows only where: packets may be long. */
export function samePackets(actual, expected) {
  const text = (packet) => (Buffer.isBuffer(packet) ? packet.toString('hex') : packet ?? '(no packet)');
  const longer = Math.max(actual.length, expected.length);
  for (let at = 0; at < longer; at++) {
    const [got, wanted] = [text(actual[at]), text(expected[at])];
    if (got === wanted) continue;
    let same = 0;
    while (got[same] === wanted[same]) same++;
    const from = Math.max(0, same - 60);
    const around = (packet) => packet.slice(from, same + 120);
    assert.fail(`packet ${at} of ${expected.length} (${actual.length} came) differs at character ${same}:\n` +
      `  arrived: ${around(got)}\n  wanted:  ${around(wanted)}`);
  }
}

function isFence(message) {
  return typeof message === 'string' && message.startsWith('42["/status",{"status":"active","fence":');
}
