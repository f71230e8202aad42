// The page's files and the client modules, as the server gives them away.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { request, run, Server } from '../clients/support/server.mjs';

const source = (name) => readFileSync(new URL(`../../web/${name}`, import.meta.url), 'utf8');

async function serve(t, ...args) {
  const server = await Server.start({ args });
  t.after(() => server.stop());
  return { server, get: (path, options) => request(new URL(path, server.browsers), options) };
}

const TYPES = {
  'client.js': 'text/javascript; charset=utf-8',
  'client.d.ts': 'text/plain; charset=utf-8',
  'socket.io.js': 'text/javascript; charset=utf-8',
  'page.css': 'text/css; charset=utf-8',
  'page.js': 'text/javascript; charset=utf-8',
};

test('files come with their type and tag, and only once', async (t) => {
  const { server, get } = await serve(t);
  for (const [name, type] of Object.entries(TYPES)) {
    const path = `/webupdates/${name}`;
    const { status, headers, text } = await get(path);
    assert.deepEqual([status, headers['content-type'], text], [200, type, source(name)], name);
    assert.equal(headers['cache-control'], 'no-cache');
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers.vary, 'Accept-Encoding');
    const again = await get(path, { headers: { 'if-none-match': `"other", ${headers.etag}` } });
    assert.deepEqual([again.status, again.text, again.headers.etag], [304, '', headers.etag]);
    assert.equal((await get(path, { headers: { 'if-none-match': '"other"' } })).status, 200);
    const head = await get(path, { method: 'HEAD' });
    assert.deepEqual([head.status, head.text, head.headers['content-length']], [200, '', String(Buffer.byteLength(text))]);
    const posted = await get(path, { method: 'POST' });
    assert.deepEqual([posted.status, posted.headers.allow], [405, 'GET, HEAD']);
  }
  const page = await get('/webupdates/');
  assert.deepEqual([page.text, page.headers['content-type']], [source('index.html'), 'text/html; charset=utf-8']);
  assert.match(page.headers['content-security-policy'], /^default-src 'none'; script-src 'self'/);
  const { refused } = await server.stats();
  assert.ok(Object.values(refused).every((count) => count === 0), JSON.stringify(refused));
});

test('files are compressed for clients that take it', async (t) => {
  const { server } = await serve(t);
  const ask = (accepts) => new Promise((resolve) => {
    http.get(new URL('/webupdates/client.js', server.browsers), { headers: { 'accept-encoding': accepts }, agent: false }, async (answer) => {
      const chunks = [];
      for await (const chunk of answer) chunks.push(chunk);
      resolve({ headers: answer.headers, body: Buffer.concat(chunks) });
    });
  });
  const [gzip, plain] = [await ask('br, gzip;q=0.8'), await ask('gzip;q=0, identity')];
  assert.equal(gzip.headers['content-encoding'], 'gzip');
  assert.equal(String(gunzipSync(gzip.body)), source('client.js'));
  assert.ok(gzip.body.length <= 10_000, `${gzip.body.length} bytes`);
  assert.equal(plain.headers['content-encoding'], undefined);
  assert.equal(String(plain.body), source('client.js'));
  assert.notEqual(gzip.headers.etag, plain.headers.etag);
});

test('the root leads to the page, and the page to its folder', async (t) => {
  const { get } = await serve(t);
  for (const path of ['/', '/webupdates']) {
    const { status, headers } = await get(path);
    assert.deepEqual([status, headers.location], [307, 'webupdates/'], path);
  }
  assert.equal((await get('/nothing')).status, 404);
  assert.equal((await get('/webupdates/nothing')).status, 404);
  assert.equal((await get('/webupdates/../src/main.rs')).status, 404);
});

test('pages of Socket.IO 2 find their client, and nobody collides with it', async (t) => {
  const { get } = await serve(t);
  for (const path of ['/socket.io/socket.io.js', '/socket.io//./socket%2Eio.js', '/socket.io/socket.io.js?EIO=3&transport=polling']) {
    assert.equal((await get(path)).text, source('socket.io.js'), path);
  }
  assert.equal((await get('/socket.io/client.js')).text, source('client.js'));
  const { headers } = await get('/webupdates/client.js');
  assert.equal(headers['access-control-allow-origin'], '*');
  assert.match((await get('/socket.io/?EIO=3&transport=polling')).text, /^\d+:0\{"sid"/);
  assert.match((await get('/socket.io/page.js?EIO=3&transport=polling')).text, /^\d+:0\{"sid"/);
});

test('below another path everything is below it', async (t) => {
  const { get } = await serve(t, '--path', '/farm/updates');
  assert.equal((await get('/')).headers.location, 'farm/webupdates/');
  assert.match((await get('/farm/webupdates/')).text, /<meta name="socket-io" content="updates">/);
  assert.equal((await get('/farm/updates/socket.io.js')).text, source('socket.io.js'));
  assert.equal((await get('/socket.io/socket.io.js')).status, 404);
  assert.equal((await get('/webupdates/')).status, 404);
});

test('without the page the modules stay', async (t) => {
  const { get } = await serve(t, '--page', 'off');
  for (const path of ['/', '/webupdates/', '/webupdates/page.js']) assert.equal((await get(path)).status, 404, path);
  assert.equal((await get('/webupdates/client.js')).text, source('client.js'));
  assert.equal((await get('/socket.io/socket.io.js')).text, source('socket.io.js'));
});

/** The address of a Manager that answers everything with its path. */
async function manage(t) {
  const manager = http.createServer((incoming, answer) => {
    const version = { name: 'Flamenco', version: '3.2', shortversion: '3.2', git: '-' };
    answer.end(incoming.url === '/api/v3/version' ? JSON.stringify(version) : `the Manager's ${incoming.url}`);
  });
  await new Promise((resolve) => manager.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    manager.close();
    manager.closeAllConnections();
  });
  return `http://127.0.0.1:${manager.address().port}`;
}

test("in front of a Manager the root is the Manager's", async (t) => {
  const { get } = await serve(t, '--manager', await manage(t), '--task-logs', 'off');
  assert.equal((await get('/')).text, "the Manager's /");
  assert.equal((await get('/webupdates/nothing')).text, "the Manager's /webupdates/nothing");
  // The page asks the Manager's API, which is there.
  assert.equal((await get('/webupdates/')).text, source('index.html').replace('name="api" content="none"', 'name="api" content="api/v3"'));
});

/** A folder with a page of one's own, beside files that are nobody's business. */
function folder(t) {
  const home = mkdtempSync(join(tmpdir(), 'webupdates-static-'));
  t.after(() => rmSync(home, { recursive: true }));
  const own = join(home, 'own');
  mkdirSync(join(own, 'sub folder/inner'), { recursive: true });
  mkdirSync(join(own, '.git'));
  const files = {
    'secret.txt': 'secret', 'own/index.html': '<!doctype html>mine', 'own/style.css': 'b{}', 'own/app.js': '1', 'own/pïc.svg': '<svg/>',
    'own/sub folder/index.html': 'below', 'own/.env': 'secret', 'own/.git/config': 'secret', 'own/empty': '',
  };
  for (const [name, content] of Object.entries(files)) writeFileSync(join(home, name), content);
  symlinkSync('style.css', join(own, 'link.css'));
  symlinkSync('../secret.txt', join(own, 'out.txt'));
  symlinkSync('/', join(own, 'root'));
  symlinkSync('loop', join(own, 'loop'));
  return own;
}

test("a studio's own files are beside the page", async (t) => {
  const own = folder(t);
  const { get } = await serve(t, '--static', own);
  for (const [path, type, content] of [
    ['/static/', 'text/html; charset=utf-8', '<!doctype html>mine'],
    ['/static/index.html', 'text/html; charset=utf-8', '<!doctype html>mine'],
    ['/static/style.css', 'text/css; charset=utf-8', 'b{}'],
    ['/static/link.css', 'text/css; charset=utf-8', 'b{}'],
    ['/static/app.js', 'text/javascript; charset=utf-8', '1'],
    ['/static/p%C3%AFc.svg', 'image/svg+xml', '<svg/>'],
    ['/static/sub%20folder/', 'text/html; charset=utf-8', 'below'],
    ['/static/empty', 'application/octet-stream', ''],
  ]) {
    const { status, headers, text } = await get(path);
    assert.deepEqual([status, headers['content-type'], text], [200, type, content], path);
    assert.deepEqual([headers['cache-control'], headers['x-content-type-options']], ['no-cache', 'nosniff']);
    const again = await get(path, { headers: { 'if-none-match': headers.etag } });
    assert.deepEqual([again.status, again.text], [304, ''], path);
    const head = await get(path, { method: 'HEAD' });
    assert.deepEqual([head.status, head.headers['content-length'], head.text], [200, String(Buffer.byteLength(content)), ''], path);
  }
  writeFileSync(join(own, 'style.css'), 'i{color:red}');
  assert.equal((await get('/static/style.css')).text, 'i{color:red}');
  assert.equal((await get('/static/style.css', { headers: { range: 'bytes=2-6' } })).text, 'color');
  for (const [path, to] of [['/static', 'static/'], ['/static/sub%20folder', 'sub%20folder/']]) {
    const { status, headers } = await get(path);
    assert.deepEqual([status, headers.location], [307, to], path);
  }
  const posted = await get('/static/', { method: 'POST' });
  assert.deepEqual([posted.status, posted.headers.allow], [405, 'GET, HEAD']);
  assert.equal((await get('/')).headers.location, 'webupdates/');
});

test('nothing else of the disk is served', async (t) => {
  const { server } = await serve(t, '--static', folder(t));
  /** Asks for a path as it is: `request` would resolve it. */
  const ask = (path) => new Promise((resolve, reject) => {
    const socket = net.connect(server.browsers.port, '127.0.0.1', () => socket.write(`GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n`));
    let answer = '';
    socket.setEncoding('utf8').on('data', (text) => (answer += text)).on('end', () => resolve(answer)).on('error', reject);
  });
  for (const path of [
    '/static/../secret.txt', '/static/%2e%2e/secret.txt', '/static/..%2fsecret.txt', '/static/..%5csecret.txt', '/static/%252e%252e/secret.txt',
    '/static//../../../../../etc/passwd', '/static/out.txt', '/static/root/etc/passwd', '/static/loop', '/static/.env', '/static/.git/config',
    '/static/sub%20folder/.%2e/.env', '/static/style.css/', '/static/style.css%00.html', '/static/sub%20folder/inner/', '/static/nothing',
    `/static/${'a'.repeat(5000)}`, '/static/C:%5cWindows', '/static/style.css::$DATA',
  ]) {
    const answer = await ask(path);
    assert.match(answer, /^HTTP\/1\.1 404 /, path);
    assert.doesNotMatch(answer, /secret(?!\.txt)|root:/, path);
  }
});

test("a studio's own files hide nothing of the server's or the Manager's", async (t) => {
  const own = folder(t);
  for (const name of ['socket.io', 'api/v3', 'webupdates']) mkdirSync(join(own, name), { recursive: true });
  for (const name of ['api/v3/jobs', 'healthz', 'webupdates/client.js']) writeFileSync(join(own, name), 'mine');
  const { get } = await serve(t, '--static', own, '--manager', await manage(t), '--task-logs', 'off');
  assert.equal((await get('/api/v3/jobs')).text, "the Manager's /api/v3/jobs");
  assert.equal((await get('/')).text, "the Manager's /");
  assert.equal((await get('/webupdates/client.js')).text, source('client.js'));
  assert.match((await get('/healthz')).text, /^ok/);
  assert.match((await get('/socket.io/?EIO=3&transport=polling')).text, /^\d+:0\{"sid"/);
  assert.equal((await get('/static/socket.io/')).status, 404);
  assert.equal((await get('/static/')).text, '<!doctype html>mine');
  assert.equal((await get('/static/api/v3/jobs')).text, 'mine');
});

test('a folder of files is checked at the start, and may be all there is', async (t) => {
  const own = folder(t);
  const { get } = await serve(t, '--static', own, '--page', 'off', '--path', '/farm/socket.io');
  assert.equal((await get('/')).headers.location, 'farm/static/');
  assert.equal((await get('/farm/static/app.js')).text, '1');
  for (const wrong of [join(own, 'nothing'), join(own, 'app.js')]) {
    const { code, stderr } = await run(['serve', '--static', wrong]);
    assert.equal(code, 2);
    assert.match(stderr, /--static <DIR>/);
  }
});

test('nobody sees the page who may not see the farm', async (t) => {
  const login = http.createServer((_, answer) => answer.writeHead(401).end());
  await new Promise((resolve) => login.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    login.close();
    login.closeAllConnections();
  });
  const { get } = await serve(t, '--auth-url', `http://127.0.0.1:${login.address().port}/`);
  for (const path of ['/webupdates/', '/webupdates/client.js', '/socket.io/socket.io.js']) assert.equal((await get(path)).status, 401, path);
  assert.equal((await get('/webupdates/', { headers: { host: 'evil.example' } })).status, 421);
});
