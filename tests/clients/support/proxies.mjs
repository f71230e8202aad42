// Proxies with the configurations that the documentation gives, on ports of this machine.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { freePort, listening } from './listening.mjs';
import { LOOPBACK } from './server.mjs';

/** The programs; `./test` installs what is missing. */
const { NGINX, HAPROXY, CADDY, APACHE } = process.env;

export const NO_NGINX = NGINX ? false : 'no nginx: set NGINX to one, as `./test` does';
const NO_HAPROXY = HAPROXY ? false : 'no HAProxy: set HAPROXY to one, as `./test` does';
const NO_CADDY = CADDY ? false : 'no Caddy: set CADDY to one, as `./test` does';
const NO_APACHE = APACHE ? false : 'no Apache: set APACHE to one, as `./test` does';

/** The blocks in `language` of a page. */
function blocks(page, language) {
  const text = readFileSync(new URL(`../../../docs/${page}`, import.meta.url), 'utf8');
  return text.split(`\`\`\`${language}\n`).slice(1).map((rest) => rest.split('```')[0]);
}

const [SITE, SEVERAL] = blocks('deployment.md', 'nginx');
const [HAPROXY_SITE] = blocks('deployment.md', 'haproxy');
const [CADDY_SITE] = blocks('deployment.md', 'caddy');
const [APACHE_SITE] = blocks('deployment.md', 'apache');
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

/**
 * Start a proxy as docs/deployment.md says in front of `server`, until `t` ends. `path` is what it passes on; `timeout` takes the place
 * of the minute of the documentation.
 */
export const PROXIES = {
  HAProxy: { skip: NO_HAPROXY, start: (t, server, options) => beforeOne(t, server, HAPROXY_SITE, runHaproxy, options) },
  Caddy: { skip: NO_CADDY, start: (t, server, options) => beforeOne(t, server, CADDY_SITE, runCaddy, options) },
  Apache: { skip: NO_APACHE, start: (t, server, options) => beforeOne(t, server, APACHE_SITE, runApache, options) },
};

async function beforeOne(t, server, text, run, { path, timeout } = {}) {
  const ports = [await freePort(), await freePort()];
  let site = replace(text, ['127.0.0.1:8081', server.browsers.host]);
  if (path) site = replace(site, ['/socket.io/', path]);
  if (timeout) site = site.replaceAll(/(timeout (client|server) |timeout=)60/g, `$1${timeout}`);
  await run(t, home(t), site, ports);
  return urls(...ports);
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

async function runCaddy(t, { folder, certificate, key }, site, [port, tlsPort]) {
  const file = join(folder, 'Caddyfile');
  const at = (address, ...lines) => replace(site, ['farm.example {', [`${address} {`, `bind ${LOOPBACK}`, ...lines].join('\n    ')]);
  const options = ['{', 'admin off', 'auto_https off', `storage file_system ${folder}`].join('\n    ');
  writeFileSync(file, `${options}\n}\n${at(`http://:${port}`)}\n${at(`https://:${tlsPort}`, `tls ${certificate} ${key}`)}`);
  await listening(t, CADDY, ['run', '--adapter', 'caddyfile', '--config', file], tlsPort);
}

/** The modules that Debian enables, as far as they matter here, and those of the documentation. */
const APACHE_MODULES = [
  'mpm_event', 'authz_core', 'authz_host', 'alias', 'autoindex', 'deflate', 'dir', 'filter', 'mime', 'negotiation', 'reqtimeout', 'setenvif',
  'headers', 'proxy', 'proxy_http',
];

async function runApache(t, { folder }, site, [port]) {
  const file = join(folder, 'apache.conf');
  const modules = [join(dirname(APACHE), 'usr'), '/usr'].map((root) => `${root}/lib/apache2/modules`).find(existsSync);
  // Apache's processes give their rights away.
  chmodSync(folder, 0o755);
  writeFileSync(file, `
    ServerRoot ${folder}
    DefaultRuntimeDir ${folder}
    PidFile ${folder}/pid
    ErrorLog ${folder}/error.log
    LogLevel warn
    ${APACHE_MODULES.map((name) => `LoadModule ${name}_module ${modules}/mod_${name}.so`).join('\n')}
    ${process.getuid() === 0 ? 'User www-data\nGroup www-data' : ''}
    ServerName ${LOOPBACK}
    TypesConfig /dev/null
    # As in Debian.
    RequestReadTimeout header=20-40,minrate=500
    RequestReadTimeout body=10,minrate=500
    AddOutputFilterByType DEFLATE text/html text/plain text/css text/javascript application/javascript
    Listen ${LOOPBACK}:${port}
    ${replace(site, ['*:80>', `${LOOPBACK}:${port}>`])}`);
  await listening(t, APACHE, ['-D', 'FOREGROUND', '-f', file], port);
}
