// The command line: help, version, and every refusal to start in one sentence with exit code 2.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { RawBrowser } from './support/raw.mjs';
import { LOOPBACK, run, Server } from './support/server.mjs';

const ANY_PORTS = ['--listen', `${LOOPBACK}:0`, '--manager-listen', `${LOOPBACK}:0`];

describe('help and version', () => {
  test('--version', async () => {
    const { code, stdout, stderr } = await run(['--version']);
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, /^flamenco-webupdates \d+\.\d+\.\d+\ncommit: .+\ncompiler: rustc .+\ntarget: .+\nfeatures: .+\n$/);
  });

  test('--help names the commands', async () => {
    const { code, stdout } = await run(['--help']);
    assert.equal(code, 0);
    for (const command of ['serve', 'simulate-farm', 'watch']) assert.match(stdout, new RegExp(`\\b${command}\\b`));
  });

  test('serve --help names the options and their defaults', async () => {
    const { code, stdout } = await run(['serve', '--help']);
    assert.equal(code, 0);
    const options = [
      '--demo', '--listen', '--manager-listen', '--manager-token-file', '--events-from-stdin', '--allow-origin',
      '--default-rooms', '--ping-interval', '--ping-timeout', '--max-message',
    ];
    for (const option of options) assert.ok(stdout.includes(option), `${option} is missing in:\n${stdout}`);
    for (const value of ['127.0.0.1:8081', '127.0.0.1:8082', 'Jobs,Chat', '30s', '60s']) {
      assert.ok(stdout.includes(value), `the default ${value} is missing in:\n${stdout}`);
    }
  });
});

describe('settings', () => {
  /** The heartbeat of a server started with `options`, as its open packet tells it. */
  async function heartbeat(t, options) {
    const server = await Server.start(options);
    t.after(() => server.stop());
    const { pingInterval, pingTimeout } = (await RawBrowser.connect(t, server)).handshake;
    return [pingInterval, pingTimeout];
  }

  test('come from the command line before the environment, and from there before the file', async (t) => {
    const folder = mkdtempSync(path.join(tmpdir(), 'webupdates-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const config = path.join(folder, 'webupdates.toml');
    writeFileSync(config, 'ping-interval = "1m"\nping-timeout = "2m"\nallow-origin = ["http://a.example", "http://b.example"]\n');
    const file = ['--config', config];
    const env = { WEBUPDATES_PING_INTERVAL: '20s' };
    assert.deepEqual(await heartbeat(t, { args: file }), [60_000, 120_000]);
    assert.deepEqual(await heartbeat(t, { env: { WEBUPDATES_CONFIG: config } }), [60_000, 120_000]);
    assert.deepEqual(await heartbeat(t, { args: file, env }), [20_000, 120_000]);
    assert.deepEqual(await heartbeat(t, { args: [...file, '--ping-interval', '500ms'], env }), [500, 120_000]);
  });
});

describe('serve refuses to start', () => {
  let folder;
  before(() => (folder = mkdtempSync(path.join(tmpdir(), 'webupdates-'))));
  after(() => rmSync(folder, { recursive: true }));

  /** Runs `serve` with `args`: it must leave with code 2, say nothing on stdout and one sentence with `words` on stderr. */
  async function refuses(args, words) {
    const { code, stdout, stderr } = await run(['serve', ...args], { env: { RUST_LOG: 'error' } });
    assert.deepEqual([code, stdout], [2, ''], stderr);
    assert.match(stderr, words);
    assert.doesNotMatch(stderr, /panicked/);
    return stderr;
  }

  /** As `refuses`, of which the sentence is all. */
  async function refusesBriefly(args, words) {
    const stderr = await refuses(args, words);
    assert.equal(stderr.trim().split('\n').length, 1, `one sentence, not:\n${stderr}`);
  }

  for (const address of ['0.0.0.0:0', '[::]:0']) {
    test(`with a Manager's port on ${address} and no token`, async () => {
      await refusesBriefly(['--listen', `${LOOPBACK}:0`, '--manager-listen', address], /token/);
    });
  }

  for (const option of ['--listen', '--manager-listen']) {
    test(`when the port of ${option} is taken`, async (t) => {
      const taken = net.createServer().listen(0, LOOPBACK);
      await once(taken, 'listening');
      t.after(() => taken.close());
      const address = `${LOOPBACK}:${taken.address().port}`;
      const other = option === '--listen' ? '--manager-listen' : '--listen';
      await refusesBriefly([option, address, other, `${LOOPBACK}:0`], new RegExp(address.replaceAll('.', '\\.')));
    });
  }

  test('when another server has the port', async (t) => {
    const server = await Server.start();
    t.after(() => server.stop());
    await refusesBriefly(['--listen', server.browsers.host, '--manager-listen', `${LOOPBACK}:0`], new RegExp(server.browsers.port));
  });

  test('with a token file that cannot be read, or is empty', async () => {
    const missing = path.join(folder, 'missing');
    await refusesBriefly([...ANY_PORTS, '--manager-token-file', missing], /missing/);
    const empty = path.join(folder, 'empty');
    writeFileSync(empty, '\n');
    await refusesBriefly([...ANY_PORTS, '--manager-token-file', empty], /empty/);
  });

  test('with a configuration that cannot be read, or says what nobody knows', async () => {
    const missing = path.join(folder, 'missing.toml');
    await refusesBriefly([...ANY_PORTS, '--config', missing], /missing\.toml/);
    const wrong = path.join(folder, 'wrong.toml');
    writeFileSync(wrong, 'no-such-option = 5\n');
    await refuses([...ANY_PORTS, '--config', wrong], /no-such-option/);
    writeFileSync(wrong, 'listen = \n');
    await refuses([...ANY_PORTS, '--config', wrong], /wrong\.toml/);
  });

  const BAD = [
    ['--nonsense'], ['--listen', 'here'], ['--listen', LOOPBACK], ['--listen', `${LOOPBACK}:65536`], ['--demo=perhaps'],
    ['--ping-interval', 'banana'], ['--ping-interval', '0s'], ['--max-message=-5'], ['--max-message', '0'],
    ['--default-rooms', 'Kitchen'], ['--allow-origin', 'not an origin'],
  ];
  for (const args of BAD) {
    test(`with ${args.join(' ')}`, async () => {
      const option = args[0].split('=')[0];
      const ports = option === '--listen' ? ANY_PORTS.slice(2) : ANY_PORTS;
      await refuses([...ports, ...args], new RegExp(option));
    });
  }

  test('without a command, or with one that nobody knows', async () => {
    for (const args of [[], ['explode']]) {
      const { code, stdout } = await run(args);
      assert.deepEqual([code, stdout], [2, ''], args.join(' '));
    }
  });
});
