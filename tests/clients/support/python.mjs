// python-socketio's clients, behind as much of the face of a socket.io-client as the scenarios look at.

import { spawn } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** A Python that has what requirements.txt asks for; `./test` makes one. */
const PYTHON = process.env.CLIENTS_PYTHON;

export const NO_PYTHON = PYTHON ? false : 'no Python client: set CLIENTS_PYTHON to a Python with tests/clients/requirements.txt';

/** All clients of this process live in one Python. */
let interpreter;

class Interpreter {
  sockets = new Map();
  #process;

  constructor() {
    const program = fileURLToPath(new URL('python_client.py', import.meta.url));
    this.#process = spawn(PYTHON, [program], { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: this.#process.stdout }).on('line', (line) => {
      const { client, ...told } = JSON.parse(line);
      this.sockets.get(client)?.hear(told);
    });
    // It must not keep this process alive: at the end of stdin it goes.
    for (const handle of [this.#process, this.#process.stdin, this.#process.stdout]) handle.unref();
  }

  tell(command) {
    this.#process.stdin.write(`${JSON.stringify(command)}\n`);
  }
}

/** As `io(url, options)`. */
export function connect(url, { transports, reconnection = true, reconnectionDelay = 1000, reconnectionDelayMax = 5000 }) {
  interpreter ??= new Interpreter();
  const socket = new PythonSocket(interpreter);
  const options = { reconnection, reconnection_delay: reconnectionDelay / 1000, reconnection_delay_max: reconnectionDelayMax / 1000, randomization_factor: 0 };
  socket.command({ do: 'open', url, transports, options });
  return socket;
}

class PythonSocket {
  #number;
  #interpreter;
  #acks = new Map();
  #asked = 0;
  #facts = new EventEmitter();

  constructor(interpreter) {
    this.#interpreter = interpreter;
    this.#number = interpreter.sockets.size;
    interpreter.sockets.set(this.#number, this);
  }

  command(command) {
    this.#interpreter.tell({ client: this.#number, ...command });
  }

  hear({ fact, event, ack, args }) {
    if (fact) {
      this.#facts.emit(fact);
    } else if (event) {
      this.onevent({ data: event });
    } else {
      this.#acks.get(ack)(...args);
      this.#acks.delete(ack);
    }
  }

  onevent() {}

  on(fact, listener) {
    this.#facts.on(fact, listener);
  }

  once(fact, listener) {
    this.#facts.once(fact, listener);
  }

  emit(...args) {
    const ack = typeof args.at(-1) === 'function' ? this.#asked++ : null;
    if (ack !== null) this.#acks.set(ack, args.pop());
    this.command({ do: 'send', args, ack });
  }

  close() {
    this.command({ do: 'close' });
  }
}
