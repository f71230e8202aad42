// A client of socket.io-client for Node and Bun, driven by lines of JSON: commands on stdin, what happens on stdout.
//
//   bridge.cjs MODULE URL TRANSPORT       TRANSPORT: websocket, polling or upgrade

const [module_, url, transport] = process.argv.slice(2);
const io = require(module_);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const transports = transport === 'upgrade' ? ['polling', 'websocket'] : [transport];
const socket = (io.io ?? io)(url, { transports, reconnectionDelay: 250, reconnectionDelayMax: 1000, forceNew: true });
socket.on('connect', () => say({ fact: 'connect' }));
socket.on('disconnect', (reason) => say({ fact: 'disconnect', reason: String(reason) }));
for (const name of ['error', 'connect_error']) {
  socket.on(name, (error) => say({ fact: 'error', message: error?.message ?? String(error) }));
}
for (const name of ['/jobs', '/message']) socket.on(name, (payload) => say({ event: [name, payload] }));

require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { emit, close } = JSON.parse(line);
  if (close) process.exit(0);
  socket.emit(...emit, (answer) => say({ ack: answer }));
});
