/** Types of `client.js`. */

export interface JobUpdate {
  id: string;
  name?: string;
  updated: string;
  status: string;
  previous_status?: string;
  type: string;
  priority: number;
  refresh_tasks: boolean;
  steps_completed?: number;
  steps_total?: number;
  delete_requested_at?: string;
  /** If it is true, only `id` means anything. */
  was_deleted?: boolean;
}

export interface TaskUpdate {
  id: string;
  job_id: string;
  name: string;
  updated: string;
  status: string;
  previous_status?: string;
  activity: string;
  worker?: { name: string; uuid: string };
  steps_completed?: number;
  steps_total?: number;
}

export interface TaskLogUpdate {
  task_id: string;
  log: string;
}

export interface LastRenderedUpdate {
  job_id: string;
  /** An image is at `base + "/" + suffix` on the server's host. */
  thumbnail: { base: string; suffixes: string[] };
}

export interface WorkerUpdate {
  id: string;
  name: string;
  updated: string;
  last_seen?: string;
  status: string;
  previous_status?: string;
  status_change?: { status: string; is_lazy: boolean };
  version: string;
  deleted_at?: string;
  can_restart?: boolean;
}

export interface WorkerTagUpdate {
  tag: { id?: string; name: string; description?: string };
  was_deleted?: boolean;
}

export interface ChatMessage {
  name: string;
  text: string;
}

/** Payloads by the name of their event. */
export interface Payloads {
  '/jobs': JobUpdate;
  '/task': TaskUpdate;
  '/tasklog': TaskLogUpdate;
  '/last-rendered': LastRenderedUpdate;
  '/workers': WorkerUpdate;
  '/workertags': WorkerTagUpdate;
  '/lifecycle': { type: string };
  '/status': { status: string };
  '/message': ChatMessage;
}

export type EventName = keyof Payloads;

export type RoomName = 'Jobs' | 'Workers' | 'Last-Rendered' | 'Worker-Tags' | 'Chat' | `job-${string}` | `tasklog-${string}`;

/** The events of a room. `/lifecycle` and `/status` are the connection's, in whatever rooms it is. */
export type NamesIn<R extends RoomName> =
  R extends 'Jobs' ? '/jobs' :
  R extends 'Workers' ? '/workers' :
  R extends 'Last-Rendered' ? '/last-rendered' :
  R extends 'Worker-Tags' ? '/workertags' :
  R extends 'Chat' ? '/message' :
  R extends `job-${string}` ? '/task' | '/last-rendered' :
  R extends `tasklog-${string}` ? '/tasklog' : never;

/**
 * Why updates may be missing: an iterator's queue was full (`overflow`), the server cannot resume (`reconnect`), or did not
 * (the others).
 */
export type GapReason = 'overflow' | 'reconnect' | 'epoch' | 'too-old' | 'too-many' | 'not-followed';

/** An update as it came. */
export type Update<N extends EventName = EventName> = N extends EventName ? {
  name: N;
  payload: Payloads[N];
  /** Whether this is what was already so when the room was entered. */
  state: boolean;
  /** Set if updates before this one may be missing: what was derived from them may be outdated. */
  gap?: GapReason;
} : never;

/** How a room was entered. Its state, if the server sends it, has come before this. */
export interface Ready {
  /** Whether the server sends the state of a room. */
  state: boolean;
  /** Whether everything that was missed has been sent. */
  recovered: boolean;
}

export type Status = 'connecting' | 'live' | 'reconnecting' | 'closed';

export type TransportName = 'websocket' | 'polling';

export interface SocketOptions {
  /** Where Socket.IO lives; by default `socket.io` below the address. */
  path?: string;
  /** What is tried, in this order; by default the WebSocket first. */
  transports?: TransportName[];
  /** Further parameters of the handshake. */
  query?: Record<string, string>;
  /** Has long-polling send cookies to another origin. */
  withCredentials?: boolean;
  /** Milliseconds that a transport may take to connect (5000). */
  timeout?: number;
  /** Milliseconds that an acknowledgement may take (5000). */
  ackTimeout?: number;
  /** How many messages wait for a connection (64). */
  sendQueue?: number;
  /** When a lost connection is made again; `false` is never. */
  reconnect?: Reconnect | false;
}

export interface Reconnect {
  /** Milliseconds of the first delay (500); each further one doubles, up to `max` (5000). */
  min?: number;
  max?: number;
  /** How much of a delay is random, from 0 to 1 (1). */
  jitter?: number;
  /** How many attempts are made in a row (no limit). */
  attempts?: number;
}

/** Listeners by the name of what they listen to. */
export interface Events<E> {
  /** Calls `listener` with each event until the function that is returned is called. */
  on<N extends keyof E>(name: N, listener: (event: E[N]) => void): () => void;
  off<N extends keyof E>(name: N, listener: (event: E[N]) => void): void;
  /** Resolves with the next event. */
  once<N extends keyof E>(name: N): Promise<E[N]>;
}

export interface Marks {
  /** Updates may be missing from here on. */
  gap: GapReason;
  /** The room has been entered. */
  ready: Ready;
}

/**
 * A room of the farm, from when it is asked for until it is left. An iterator over it holds up to `queue` updates that have not
 * been taken; if one more comes, they are dropped, and that one has `gap` set to `overflow`.
 */
export interface Room<R extends RoomName> extends Events<{ [N in NamesIn<R>]: Update<N> } & Marks>, AsyncIterable<Update<NamesIn<R>>> {
  readonly name: R;
  /** Asks for the room's state once more, where the server has it; resolves when it has come. */
  refresh(): Promise<void>;
  /** Leaves the room; its iterators end. */
  leave(): void;
}

export type ConnectionEvents = { [N in EventName]: Update<N> } & Marks & {
  /** Any of the updates. */
  update: Update;
  status: Status;
  /** The next attempt to connect is made in `delay` milliseconds. */
  waiting: { attempt: number; delay: number };
  /** An attempt to connect failed. */
  failed: Error;
  /** The server refused or sent something that cannot be used. */
  error: unknown;
};

/** A connection to a farm. Iterating over it gives every update that comes, whichever room it is of. */
export interface Connection extends Events<ConnectionEvents>, AsyncIterable<Update> {
  readonly status: Status;
  readonly transport: TransportName | undefined;
  /** Whether the server is known to send what was missed, and the state of a room. */
  readonly resumes: boolean;
  /**
   * Enters a room, and stays in it through reconnects until it is left, or a `for await` loop over it is.
   *
   * `state` says whether the room's state is wanted (it is), `queue` how many updates its iterators hold.
   */
  room<R extends RoomName>(name: R, options?: { state?: boolean; queue?: number }): Room<R>;
  /** Sends an event, or keeps it until there is a connection; throws if too many wait. */
  emit(name: string, ...args: unknown[]): void;
  /**
   * Sends an event and resolves with its acknowledgement. Rejects with a `ConnectionError` if that does not come within `timeout`
   * milliseconds, or the connection is lost first: whether the event arrived is unknown then. It is never sent twice.
   */
  request(name: string, argument: unknown, options?: { timeout?: number }): Promise<unknown>;
  /** Closes the connection for good; its iterators end. */
  close(): void;
}

export interface ConnectOptions extends SocketOptions {
  /** How many updates an iterator holds that have not been taken (10 000). */
  queue?: number;
}

/** Connects to a farm: `url` is the server's address, by default the page's own. */
export declare function connect(url?: string | URL, options?: ConnectOptions): Connection;

/** The connection was lost, or something did not come in time. */
export declare class ConnectionError extends Error {}

export interface SocketEvents {
  status: Status;
  connect: { attempts: number };
  disconnect: string;
  failed: Error;
  waiting: { attempt: number; delay: number };
  attempt: number;
  /** All attempts that may be made have been. */
  exhausted: number;
  /** An event's name and arguments, and what answers it if the server asks for that. */
  event: { args: any[]; answer?: (...args: unknown[]) => void };
  error: unknown;
  ping: undefined;
  pong: undefined;
}

/** A Socket.IO 2 connection to namespace `/`, which comes back by itself: what a `Connection` is made of. */
export declare class Socket implements Events<SocketEvents> {
  constructor(url: string | URL, options?: SocketOptions);
  readonly status: Status;
  readonly id: string | undefined;
  readonly transport: TransportName | undefined;
  /** Whether a disconnect packet of the server ends it for good, as it does for socket.io-client 2 (no). */
  obeysDisconnect: boolean;
  on<N extends keyof SocketEvents>(name: N, listener: (event: SocketEvents[N]) => void): () => void;
  off<N extends keyof SocketEvents>(name: N, listener: (event: SocketEvents[N]) => void): void;
  once<N extends keyof SocketEvents>(name: N): Promise<SocketEvents[N]>;
  open(): void;
  close(reason?: string): void;
  emit(name: string, ...args: unknown[]): void;
  request(name: string, args: unknown[], timeout?: number): Promise<any[]>;
}
