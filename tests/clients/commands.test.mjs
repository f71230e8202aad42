// The commands of the documentation, run as they stand there. Only addresses are replaced, by those of this machine.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startNats, NO_NATS } from './support/nats.mjs';
import { freePort } from './support/listening.mjs';
import { BINARY, LOOPBACK, run, Server } from './support/server.mjs';
import { Arrivals, eventually, within } from './support/wait.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Its commands are those of measurements, with their date. */
const MEASUREMENTS = 'docs/performance.md';
const PAGES = ['README.md', ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`)]
  .filter((name) => name.endsWith('.md') && name !== MEASUREMENTS);
/** How the first paragraph of a page, or the one before or after a block of commands, says so, or names another test. */
const NOT_RUN = /not run by a test|run by hand|`tests\/long\/\w+` runs/;
/** The programs that the tests run. Any other may change the machine. */
const MAY_RUN = /^(flamenco-webupdates|curl|openssl) /;
/** What runs until it is stopped, and what it has printed when it has begun. */
const LASTING = [
  [/^flamenco-webupdates serve\b|\| flamenco-webupdates serve\b/, /^listening /m],
  [/^flamenco-webupdates watch\b/, /connected/],
];

// Each program that is started listens for the end of this one.
process.setMaxListeners(50);

/** The blocks of shell of a page: `{ line, commands: [{ text, output }], isMarked }`, where `output` are the lines that it shows. */
function blocks(page) {
  const text = readFileSync(join(ROOT, page), 'utf8');
  return [...text.matchAll(/^ *```sh\n(.*?)^ *```/gms)].map((block) => {
    const [before, after] = [text.slice(0, block.index), text.slice(block.index + block[0].length)];
    const around = [text.split('\n\n')[1], before.trimEnd().split(/\n\s*\n/).at(-1), after.trimStart().split(/\n\s*\n/)[0]];
    const hasPrompts = /^ *\$ /m.test(block[1]);
    const commands = [];
    for (const line of block[1].replace(/\\\n/g, ' ').replace(/^ +/gm, '').trimEnd().split('\n')) {
      const command = hasPrompts ? /^\$ (.*)$/.exec(line)?.[1] : line;
      // The argument of curl's `-d` may have several lines.
      if (command === undefined) commands.at(-1).output.push(line);
      else if (commands.length > 0 && isOpen(commands.at(-1).text)) commands.at(-1).text += `\n${line}`;
      else commands.push({ text: command.replace(/\s+#\s.*$/, ''), output: [] });
    }
    const isMarked = around.some((paragraph) => NOT_RUN.test(paragraph.replace(/\s+/g, ' ')));
    return { line: before.split('\n').length, commands, isMarked };
  });
}

const isOpen = (command) => command.split("'").length % 2 === 0;

/** The commands of those who develop the server: a path in the repository, or cargo's. */
function isOfDevelopers(command) {
  const [program] = command.replace(/^(\w+=('[^']*'|\S*)\s+)*/, '').split(' ');
  return (program === 'cargo' && !/^cargo (run|install)/.test(command)) || (program.includes('/') && existsSync(join(ROOT, program)));
}

/** One page's commands, in order, in a folder of their own. */
class Shell {
  #ports = new Map();
  #running = [];

  constructor(t, { manager, nats }) {
    this.folder = mkdtempSync(join(tmpdir(), 'webupdates-commands-'));
    mkdirSync(join(this.folder, 'bin'));
    symlinkSync(BINARY, join(this.folder, 'bin/flamenco-webupdates'));
    symlinkSync(join(ROOT, 'examples'), join(this.folder, 'examples'));
    writeFileSync(join(this.folder, 'token'), 'a-token-of-at-least-16', { mode: 0o600 });
    this.manager = manager.browsers.origin;
    this.#ports.set('4222', new URL(nats).port);
    t.after(async () => {
      await this.stop();
      rmSync(this.folder, { recursive: true, force: true });
    });
  }

  async run({ text, output, where }) {
    const command = await this.#here(text);
    assert.match(command, MAY_RUN, `${where}: a test does not run this, so the page must say that`);
    const lasting = LASTING.find(([pattern]) => pattern.test(command));
    if (lasting && /\bserve\b/.test(command)) await this.stop();
    const { HOME } = process.env;
    const recording = /^flamenco-webupdates record .*--output (\S+)/.exec(command)?.[1];
    const child = spawn('sh', ['-ec', recording ? `exec ${command}` : command], {
      cwd: this.folder, detached: true, stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        HOME, PATH: `${this.folder}/bin:${process.env.PATH}`, WEBUPDATES_LISTEN: await this.#here('127.0.0.1:8081'),
        WEBUPDATES_MANAGER_LISTEN: await this.#here('127.0.0.1:8082'),
      },
    });
    const said = new Arrivals();
    let [stdout, all] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (part) => { stdout += part; all += part; said.push(part); });
    child.stderr.setEncoding('utf8').on('data', (part) => { all += part; said.push(part); });
    const ended = new Promise((resolve) => child.on('close', (code) => { said.push(`exit code ${code}`); resolve(code); }));
    const kill = () => { try { process.kill(-child.pid, 'SIGKILL'); } catch { /* It has ended. */ } };
    process.on('exit', kill);
    this.#running.push(async () => { kill(); await ended; process.off('exit', kill); });
    if (recording) {
      const size = () => statSync(join(this.folder, recording), { throwIfNoEntry: false })?.size ?? 0;
      await eventually(size, Boolean, `${where}: a recorded event`, 60_000);
      child.kill('SIGINT');
    }
    if (lasting) {
      await said.until(() => lasting[1].test(all) || child.exitCode !== null, `${where}: ${command}`, 60_000);
      assert.match(all, lasting[1], `${where}: ${command}`);
    } else assert.equal(await within(ended, `${where}: ${command}`, () => all, 60_000), 0, `${where}: ${command}\n${all}`);
    const shown = await Promise.all(output.map((line) => this.#here(line)));
    assert.deepEqual(stdout.split('\n').slice(0, shown.length), shown, `${where}: what it prints`);
  }

  async stop() {
    await Promise.all(this.#running.splice(0).map((end) => end()));
  }

  /** `text` for this machine: free ports, hosts that exist, no address beyond loopback, and a small load. */
  async #here(text) {
    let here = text.replace(/cargo run --release -- /g, 'flamenco-webupdates ')
      .replace(/(--manager )http:\/\/\w[^ ]*/, `$1${this.manager}`)
      .replace(/(--listen )(0\.0\.0\.0)?:/g, `$1${LOOPBACK}:`).replace(/\/\/0\.0\.0\.0:/g, `//${LOOPBACK}:`)
      .replace(/\/\/(nats|broker|manager):/g, `//${LOOPBACK}:`).replace(/\b10\.0\.0\.\d+/g, LOOPBACK)
      .replace('/etc/farm/token', join(this.folder, 'token')).replace(/(CN=|DNS:|\/\/)farm\b/g, '$1localhost')
      .replace(/--clients 1000\b/, '--clients 20');
    // The defaults of these programs are the ports of the documentation.
    if (/^flamenco-webupdates (watch|simulate-browsers)/.test(here) && !here.includes('://')) here += ' http://127.0.0.1:8081';
    if (/^flamenco-webupdates simulate-browsers/.test(here)) here += ' --publish-url http://127.0.0.1:8082/api/events';
    const ports = /(?<=:)(80\d\d|8443|1883|4222)\b/g;
    for (const port of new Set(here.match(ports))) {
      if (!this.#ports.has(port)) this.#ports.set(port, String(await freePort()));
    }
    return here.replace(ports, (port) => this.#ports.get(port));
  }
}

describe('commands of the documentation', { skip: NO_NATS, timeout: 300_000, concurrency: true }, () => {
  for (const page of PAGES) {
    const wanted = blocks(page).filter(({ isMarked }) => !isMarked)
      .flatMap(({ line, commands }) => commands.map((command) => ({ ...command, where: `${page}:${line}` })))
      .filter(({ text }) => !isOfDevelopers(text));
    if (wanted.length === 0) continue;
    test(`${page}: each runs, or the page says that it was not run`, async (t) => {
      const manager = await Server.start({ args: ['--demo'] });
      t.after(() => manager.stop('SIGKILL'));
      const shell = new Shell(t, { manager, nats: await startNats(t) });
      // A reader has a server, and a certificate, before reading about them.
      const isFirst = ({ text }) => text.startsWith('openssl ');
      await shell.run({ text: 'flamenco-webupdates serve --demo', output: [], where: page });
      const [first, then] = [wanted.filter(isFirst), wanted.filter((command) => !isFirst(command))];
      for (const command of [...first, ...then]) await shell.run(command);
    });
  }

  test('every configuration file of the documentation is valid', async (t) => {
    const files = PAGES.flatMap((page) => {
      const found = readFileSync(join(ROOT, page), 'utf8').matchAll(/^ *```toml\n(.*?)^ *```/gms);
      return Array.from(found, ([, text]) => ({ page, text }));
    });
    assert.ok(files.length >= 2);
    const folder = mkdtempSync(join(tmpdir(), 'webupdates-toml-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    for (const { page, text } of files) {
      writeFileSync(join(folder, 'webupdates.toml'), text);
      const { code, stderr } = await run(['config', 'check', '--config', join(folder, 'webupdates.toml')]);
      assert.equal(code, 0, `${page}: ${stderr}`);
    }
  });
});
