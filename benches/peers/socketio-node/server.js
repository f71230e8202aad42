'use strict';
// socket.io 2.5.1 as its documentation sets it up: one process, the default WebSocket engine, compression off.
const http = require('http');
const socketio = require('socket.io');

const server = http.createServer((request, response) => {
  if (request.method !== 'POST' || request.url !== '/api/events') return answer(response, 404, { error: 'not found' });
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    let events;
    try {
      const body = JSON.parse(Buffer.concat(parts));
      events = Array.isArray(body) ? body : [body];
    } catch (error) {
      return answer(response, 400, { error: error.message });
    }
    for (const event of events) io.to('Jobs').emit('/jobs', event.payload);
    answer(response, 200, { accepted: events.length });
  });
});

const io = socketio(server, { transports: ['polling', 'websocket'], perMessageDeflate: false, serveClient: false });
io.on('connection', (socket) => socket.join('Jobs'));

server.keepAliveTimeout = 0; // The publisher may be quiet for longer than the default of five seconds.
server.listen({ host: '127.0.0.1', port: Number(process.argv[2] || 0), backlog: 4096 }, () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  console.log(`listening browsers=${url} manager=${url}`);
});

function answer(response, status, body) {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}
