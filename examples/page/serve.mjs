// Serves the page, the client library and the address of the web-update server.
//
//   node serve.mjs [URL of the server] [port]

import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { createRequire } from 'node:module';

const [updates = 'http://127.0.0.1:8081', port = '8090'] = process.argv.slice(2);
const here = (name) => new URL(name, import.meta.url);

const FILES = {
  '/': ['text/html; charset=utf-8', here('index.html')],
  '/page.js': ['text/javascript; charset=utf-8', here('page.js')],
  '/socket.io.js': ['text/javascript; charset=utf-8', createRequire(import.meta.url).resolve('socket.io-client/dist/socket.io.js')],
};

const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, 'http://page');
  if (pathname === '/server.json') {
    response.setHeader('content-type', 'application/json').end(JSON.stringify({ updates }));
  } else if (FILES[pathname]) {
    const [type, file] = FILES[pathname];
    response.setHeader('content-type', type).end(await readFile(file));
  } else {
    response.writeHead(404).end('not found\n');
  }
});
server.listen(Number(port), '127.0.0.1', () => console.log(`page http://127.0.0.1:${server.address().port}`));
