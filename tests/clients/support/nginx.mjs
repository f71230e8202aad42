// nginx with the configuration that docs/deployment.md gives, on ports of this machine.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LOOPBACK } from './server.mjs';
import { eventually } from './wait.mjs';

/** The program; `./test` installs what is missing. */
const NGINX = process.env.NGINX;

export const NO_NGINX = NGINX ? false : 'no nginx: set NGINX to one, as `./test` does';

const [SITE, SEVERAL] = readFileSync(new URL('../../../docs/deployment.md', import.meta.url), 'utf8')
  .split('```nginx\n').slice(1).map((rest) => rest.split('```')[0]);

/** `text` with `to` in the place of `from`, which must be there: else the page has changed, and with it what is tested. */
function replace(text, from, to) {
  assert.ok(text.includes(from), `${from} in docs/deployment.md`);
  return text.replaceAll(from, to);
}

/**
 * Starts it in front of `servers`, until `t` ends. `path` is where they are found; `readTimeout` takes the place of the 60 s
 * of the documentation.
 */
export async function startNginx(t, servers, { path, readTimeout } = {}) {
  const home = mkdtempSync(join(tmpdir(), 'webupdates-nginx-'));
  t.after(() => rmSync(home, { recursive: true, force: true }));
  const [port, tlsPort] = await Promise.all([freePort(), freePort()]);
  const [certificate, key] = [join(home, 'farm.pem'), join(home, 'farm.key')];
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=farm.example',
    '-keyout', key, '-out', certificate,
  ], { stdio: 'pipe' });

  let site = SITE;
  if (servers.length > 1) site = site.replace(/upstream webupdates \{.*?\n\}\n/s, SEVERAL);
  for (const [turn, server] of servers.entries()) site = replace(site, `server 127.0.0.1:${8081 + 2 * turn};`, `server ${server.browsers.host};`);
  site = replace(site, 'listen 80;', `listen ${LOOPBACK}:${port};`);
  site = replace(site, 'listen 443 ssl;', `listen ${LOOPBACK}:${tlsPort} ssl;`);
  site = replace(site, '/etc/ssl/certs/farm.pem', certificate);
  site = replace(site, '/etc/ssl/private/farm.key', key);
  if (path) site = replace(site, 'location /socket.io/', `location ${path}/`);
  if (readTimeout) site = replace(site, 'proxy_read_timeout 60s', `proxy_read_timeout ${readTimeout}`);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${home}/${kind};`).join(' ');
  const configuration = join(home, 'nginx.conf');
  writeFileSync(configuration, `
    ${process.getuid() === 0 ? 'user root;' : ''} daemon off; pid ${home}/pid; error_log stderr warn;
    events { worker_connections 1024; }
    http { access_log off; ${temporary}
    ${site} }`);

  const program = spawn(NGINX, ['-p', home, '-c', configuration, '-e', 'stderr'], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  program.stderr.setEncoding('utf8').on('data', (text) => (said += text));
  const ended = once(program, 'close');
  const kill = () => program.kill('SIGKILL');
  process.on('exit', kill);
  t.after(async () => {
    program.kill('SIGTERM');
    await ended;
    process.off('exit', kill);
  });
  await eventually(() => answers(port), (is) => is || program.exitCode !== null, 'nginx to listen');
  assert.equal(program.exitCode, null, said);
  return { http: `http://${LOOPBACK}:${port}`, https: `https://${LOOPBACK}:${tlsPort}` };
}

async function freePort() {
  const listener = net.createServer().listen(0, LOOPBACK);
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  return port;
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, LOOPBACK, () => resolve(true)).on('error', () => resolve(false));
    socket.on('close', () => {}).on('connect', () => socket.destroy());
  });
}
