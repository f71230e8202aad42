// A client of socket.io-client 2 that loses no event, whatever becomes of its connection.
//
//   node resume.mjs http://127.0.0.1:8081 Jobs Chat
//
// Prints one line of JSON per event. `"state": true` marks what was known before the client came.

import io from 'socket.io-client';

const [url = 'http://127.0.0.1:8081', ...rooms] = process.argv.slice(2);
if (rooms.length === 0) rooms.push('Jobs');

/** The token of the last event that was handled; null at first. Store it to survive a restart of this program. */
let token = null;

const socket = io(url, { query: { resume: '1' }, reconnectionDelay: 250, reconnectionDelayMax: 3000 });

// Every connection begins in no room: say what is wanted, and where the last one ended.
socket.on('connect', () => {
  socket.emit('/resume', { token, rooms, state: true }, (answer) => {
    // A text says what is wrong with the request.
    if (typeof answer !== 'object') throw new Error(answer);
    // If not everything could be sent again, the state has been, so what was shown before is out of date.
    if (!answer.recovered) console.error(answer.reason ? `state anew: ${answer.message}` : 'connected');
    token = answer.token;
  });
});

// The client calls this for every packet, so it sees each argument of each event.
const { onevent } = socket;
socket.onevent = (packet) => {
  onevent.call(socket, packet);
  const [name, payload, mark] = packet.data;
  console.log(JSON.stringify({ name, payload, ...(mark?.state && { state: true }) }));
  // Last: an event whose handling failed comes again.
  if (typeof mark === 'string') token = mark;
};
