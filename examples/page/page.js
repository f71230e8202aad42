// Shows jobs as they change, and the tasks of the job that is selected.

const { updates } = await (await fetch('/server.json')).json();
const socket = window.io(updates, { transports: ['websocket', 'polling'], reconnectionDelay: 250, reconnectionDelayMax: 3000 });

const jobs = document.querySelector('#jobs');
const tasks = document.querySelector('#tasks');
const connection = document.querySelector('#connection');
let selected;

// Every session is in the room Jobs from the start. All other subscriptions end with their connection, so they are sent on each
// `connect`, which also follows a reconnect. What was missed meanwhile is the page's to fetch, from the Manager's API.
socket.on('connect', () => {
  connection.textContent = 'live';
  if (selected) subscribe('subscribe', selected);
});
socket.on('disconnect', () => (connection.textContent = 'reconnecting'));
// Refused for good: another protocol version, or an origin that the server does not allow.
socket.on('error', (reason) => (connection.textContent = `refused: ${reason}`));

socket.on('/jobs', (job) => {
  if (job.was_deleted) return document.getElementById(job.id)?.remove();
  const progress = job.steps_total ? `${job.steps_completed} of ${job.steps_total}` : '';
  const row = show(jobs, job.id, [job.name, job.status, progress]);
  row.onclick = () => select(job.id);
});
socket.on('/task', (task) => {
  if (task.job_id === selected) show(tasks, task.id, [task.name, task.status, task.activity]);
});

function select(job) {
  if (selected) {
    subscribe('unsubscribe', selected);
    document.getElementById(selected)?.setAttribute('aria-selected', 'false');
  }
  selected = job;
  document.getElementById(job).setAttribute('aria-selected', 'true');
  tasks.replaceChildren();
  subscribe('subscribe', job);
}

function subscribe(op, uuid) {
  socket.emit('/subscription', { op, type: 'job', uuid }, (answer) => {
    if (answer !== 'ok') console.warn(`${op} ${uuid}: ${answer}`);
  });
}

/** Adds or updates the row `id`. Text from the farm is set as text, never as HTML. */
function show(table, id, cells) {
  const row = document.getElementById(id) ?? table.insertRow();
  row.id = id;
  row.replaceChildren(...cells.map((text) => Object.assign(document.createElement('td'), { textContent: text ?? '' })));
  return row;
}
