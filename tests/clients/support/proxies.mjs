// Proxies with the configurations that the documentation gives, on ports of this machine.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort, listening } from './listening.mjs';
import { LOOPBACK } from './server.mjs';

/** The programs; `./test` installs what is missing. */
const { NGINX, HAPROXY } = process.env;

export const NO_NGINX = NGINX ? false : 'no nginx: set NGINX to one, as `./test` does';
export const NO_HAPROXY = HAPROXY ? false : 'no HAProxy: set HAPROXY to one, as `./test` does';

/** The blocks in `language` of a page. */
function blocks(page, language) {
  const text = readFileSync(new URL(`../../../docs/${page}`, import.meta.url), 'utf8');
  return text.split(`\`\`\`${language}\n`).slice(1).map((rest) => rest.split('```')[0]);
}

const [SITE, SEVERAL] = blocks('deployment.md', 'nginx');
const [HAPROXY_SITE] = blocks('deployment.md', 'haproxy');
const [BEFORE_FLAMENCO] = blocks('flamenco.md', 'nginx');
const [NGINX_OF_NODES] = blocks('cluster.md', 'nginx');
const [HAPROXY_OF_NODES] = blocks('cluster.md', 'haproxy');

/** `text` with the second of each pair in the place of the first, which must be there: else the page has changed, and with it what is tested. */
function replace(text, ...pairs) {
  return pairs.reduce((text, [from, to]) => {
    assert.ok(text.includes(from), `${from} in the documentation`);
    return text.replaceAll(from, to);
  }, text);
}

/** A folder for a proxy, with a certificate: in `farm.pem` also its key. */
function home(t) {
  const folder = mkdtempSync(join(tmpdir(), 'webupdates-proxy-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [certificate, key] = [join(folder, 'farm.pem'), join(folder, 'farm.key')];
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=farm.example',
    '-keyout', key, '-out', certificate,
  ], { stdio: 'pipe' });
  writeFileSync(certificate, readFileSync(certificate, 'utf8') + readFileSync(key, 'utf8'));
  return { folder, certificate, key };
}

const urls = (port, tlsPort) => ({ http: `http://${LOOPBACK}:${port}`, https: `https://${LOOPBACK}:${tlsPort}` });

function runNginx(t, { folder, certificate, key }, site, [port, tlsPort]) {
  return runSites(t, folder, port, replace(
    site, ['listen 80;', `listen ${LOOPBACK}:${port};`], ['listen 443 ssl;', `listen ${LOOPBACK}:${tlsPort} ssl;`],
    ['/etc/ssl/certs/farm.pem', certificate], ['/etc/ssl/private/farm.key', key],
  ));
}

async function runSites(t, folder, port, sites) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(' ');
  const configuration = join(folder, 'nginx.conf');
  writeFileSync(configuration, `
    ${process.getuid() === 0 ? 'user root;' : ''} daemon off; pid ${folder}/pid; error_log stderr warn;
    events { worker_connections 1024; }
    http { access_log off; ${temporary}
    ${sites} }`);
  await listening(t, NGINX, ['-p', folder, '-c', configuration, '-e', 'stderr'], port);
}

/**
 * Starts nginx as docs/deployment.md says in front of `servers`, until `t` ends. `path` is where they are found; `readTimeout` takes
 * the place of the 60 s of the documentation.
 */
export async function startNginx(t, servers, { path, readTimeout } = {}) {
  const ports = [await freePort(), await freePort()];
  let site = servers.length > 1 ? SITE.replace(/upstream webupdates \{.*?\n\}\n/s, SEVERAL) : SITE;
  site = replace(site, ...servers.map((server, turn) => [`server 127.0.0.1:${8081 + 2 * turn};`, `server ${server.browsers.host};`]));
  if (path) site = replace(site, ['location /socket.io/', `location ${path}/`]);
  if (readTimeout) site = replace(site, ['proxy_read_timeout 60s', `proxy_read_timeout ${readTimeout}`]);
  await runNginx(t, home(t), site, ports);
  return urls(...ports);
}

/** Starts nginx as docs/flamenco.md says, beside a site that answers for all other names, as that of Debian does. */
export async function startNginxBeforeFlamenco(t, server) {
  const port = await freePort();
  const other = `server { listen ${LOOPBACK}:${port} default_server; server_name _; return 200 "Welcome to nginx!"; }`;
  const site = replace(BEFORE_FLAMENCO, ['listen 80;', `listen ${LOOPBACK}:${port};`], ['127.0.0.1:8081', server.browsers.host]);
  // Debian reads conf.d before its sites.
  await runSites(t, home(t).folder, port, `${site}\n${other}`);
  return urls(port).http;
}

/** Starts HAProxy as docs/deployment.md says. */
export async function startHaproxy(t, server) {
  const port = await freePort();
  await runHaproxy(t, home(t), replace(HAPROXY_SITE, ['127.0.0.1:8081', server.browsers.host]), [port]);
  return urls(port).http;
}

/** Starts the proxy of docs/cluster.md in front of the nodes farm-1 and farm-2. `manager` is where it takes their events. */
export const PROXIES_OF_NODES = {
  nginx: { skip: NO_NGINX, start: (t, nodes) => beforeNodes(t, nodes, NGINX_OF_NODES, runNginx) },
  HAProxy: { skip: NO_HAPROXY, start: (t, nodes) => beforeNodes(t, nodes, HAPROXY_OF_NODES, runHaproxyWithTls) },
};

async function beforeNodes(t, nodes, text, run) {
  const ports = [await freePort(), await freePort(), await freePort()];
  const configuration = replace(
    text, ...nodes.flatMap(({ browsers, manager }, turn) => [[`10.0.0.${11 + turn}:8081`, browsers.host], [`10.0.0.${11 + turn}:8082`, manager.host]]),
    ['10.0.0.9:8082', `${LOOPBACK}:${ports[2]}`],
  );
  await run(t, home(t), configuration, ports);
  return { ...urls(...ports), manager: new URL(`http://${LOOPBACK}:${ports[2]}`) };
}

async function runHaproxy(t, { folder }, configuration, [port]) {
  const file = join(folder, 'haproxy.cfg');
  writeFileSync(file, replace(configuration, ['bind :80\n', `bind ${LOOPBACK}:${port}\n`]));
  await listening(t, HAPROXY, ['-db', '-f', file], port);
}

function runHaproxyWithTls(t, home, configuration, ports) {
  return runHaproxy(t, home, replace(
    configuration, ['bind :443 ssl', `bind ${LOOPBACK}:${ports[1]} ssl`], ['/etc/haproxy/farm.pem', home.certificate],
  ), ports);
}
