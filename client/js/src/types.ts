/**
 * The public types: events, subscriptions, options, contracts of rooms.
 */
import type { Missed } from "./errors.js";

/** What a key's readers get. */
export interface Event<T = unknown> {
  readonly key: string;
  /** Where it stands in the key's order. Absent: ephemeral, a broadcast or for this connection alone; never replayed. */
  readonly id?: string;
  /** When it was published, in milliseconds since 1970 (over SSE: when it arrived). */
  readonly ts: number;
  /** The payload: the JSON value as it was published; what is not JSON arrives as a Uint8Array. */
  readonly data: T;
}

/** Someone who is in a room whose type counts presence. */
export interface Member {
  readonly id: string;
  readonly state: unknown;
}

/** Who is there now, and what changed. Neither `join` nor `leave`: the list was given anew. */
export interface Presence {
  readonly members: readonly Member[];
  readonly join?: Member;
  readonly leave?: { readonly id: string };
}

/**
 * "connecting": before the first answer. "live": subscribed. "reconnecting": the connection is lost, or the key is
 * tried again. "paused": the consumer is behind by more than `buffer`; what it has not taken waits on the server.
 * "closed": over, by close(), a signal, the room or an error.
 */
export type Status = "connecting" | "live" | "reconnecting" | "paused" | "closed";

/** More about a status. */
export interface StatusDetail {
  /** "live": by what. */
  readonly transport?: "websocket" | "sse";
  /** "reconnecting" or "closed": why. */
  readonly error?: Error;
  /** "closed" by the room or the server: its close code and words. */
  readonly code?: number;
  readonly reason?: string;
}

/** Where a subscription begins and whom it tells. */
export interface SubscribeOptions {
  /** Resume behind this id; "0" is everything that is retained. Wins over `replay`. */
  after?: string | undefined;
  /** How much of what is retained comes first: everything, nothing (the default) or the last N. */
  replay?: "all" | "none" | number | undefined;
  /** Ends the subscription; an iteration then throws the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Told of a gap, in order with the events; then it goes on. Without it a gap ends the subscription with MissedError. */
  onMissed?: ((missed: Missed) => void) | undefined;
  onStatus?: ((status: Status, detail: StatusDetail) => void) | undefined;
  /** Asks who is there, of types with presence; told in order with the events. Over a WebSocket only. */
  onPresence?: ((presence: Presence) => void) | undefined;
  /** Where a callback subscription's end by an error goes (MissedError, StoaError). Without it, it is an unhandled rejection. */
  onError?: ((error: Error) => void) | undefined;
  /** Goes to the room's `identify`. Over a WebSocket only. */
  state?: unknown;
  /** How many events may wait for a slow consumer (10,000) ... */
  buffer?: number | undefined;
  /** ... and how many characters of them (16 Mi). Beyond either it is unsubscribed and resumes when they are taken. */
  bufferBytes?: number | undefined;
}

/** One reader of a key: iterate it once, or give a handler. */
export interface Subscription<T = unknown> extends AsyncIterable<Event<T>> {
  readonly key: string;
  readonly status: Status;
  /** The id of the last event that was taken: where `after` resumes. */
  readonly lastId: string | undefined;
  /** Fulfilled when it is live for the first time; rejected when it ends before. */
  readonly ready: Promise<void>;
  /** Ends it; what waits is dropped. An iteration ends without an error. */
  close(): void;
  [Symbol.asyncIterator](): AsyncIterator<Event<T>, undefined, undefined>;
}

/** Called for each event, in order. While a promise it returned is pending, further events wait. */
export type Handler<T> = (event: Event<T>) => unknown;

/** What any request takes. */
export interface RequestOptions {
  signal?: AbortSignal | undefined;
  /** Milliseconds for all tries together (30,000). */
  timeout?: number | undefined;
}

/** What changes something takes: tried again under one key, it happens once. */
export interface IdempotentOptions extends RequestOptions {
  /** 1 to 255 bytes; a random one by default, so that the client's own tries never double an event. */
  idempotencyKey?: string | undefined;
}

export interface PublishOptions extends IdempotentOptions {
  /** A later event of this name replaces this one for those who catch up. */
  conflate?: string | undefined;
  /** Not retained: for who is there now. */
  ephemeral?: boolean | undefined;
  /** Only connections with one of these tags, ... */
  tags?: readonly string[] | undefined;
  /** ... or of these ids, ... */
  to?: readonly string[] | undefined;
  /** ... but none of these ids. */
  except?: readonly string[] | undefined;
}

export interface Published {
  /** null: ephemeral. */
  readonly id: string | null;
  /** It had been stored by an earlier try. */
  readonly duplicate: boolean;
}

export interface PublishedBatch extends Published {
  readonly first: string | null;
  readonly count: number;
}

export interface LogOptions extends RequestOptions {
  /** Behind this id; "0" (the default) is everything that is retained. */
  after?: string | undefined;
  /** At most so many (100; at most 1,000). */
  limit?: number | undefined;
  /** The last so many instead. */
  last?: number | undefined;
}

/** A page of what is retained, oldest first. */
export interface LogPage<T = unknown> {
  readonly key: string;
  readonly head: string;
  readonly events: readonly Event<T>[];
  /** There is a gap between `after` and the first of these. */
  readonly missed?: Missed;
  /** There is more: ask again with `after` = the last event's id. */
  readonly more: boolean;
}

/**
 * What a room type speaks. `event`: what its readers get; `message`: what is sent to it; `state`: what `state()`
 * returns; `methods`: functions of one input; a streaming method returns an AsyncIterable.
 */
export interface Contract {
  event?: unknown;
  message?: unknown;
  state?: unknown;
  methods?: { [name: string]: (input: never) => unknown };
}

export type EventOf<R extends Contract> = R extends { event: infer E } ? E : unknown;
export type MessageOf<R extends Contract> = R extends { message: infer M } ? M : unknown;
export type StateOf<R extends Contract> = R extends { state: infer S } ? S : unknown;
/** The methods; of a contract without any, each name is one of unknown input and result. */
export type MethodsOf<R extends Contract> = R extends { methods: infer M extends object }
  ? M
  : Record<string, (input?: unknown) => unknown>;
/** What a call of a method takes behind its name: the input, where the method has one, and options. */
export type CallArguments<F> = F extends (...input: infer I) => unknown
  ? I extends []
    ? [input?: undefined, options?: IdempotentOptions]
    : I extends [infer One]
      ? [input: One, options?: IdempotentOptions]
      : [input?: I[0], options?: IdempotentOptions]
  : never;
/** What a call of a method returns. */
export type AnswerOf<F> = F extends (...input: never[]) => infer O
  ? O extends AsyncIterable<infer Item>
    ? AsyncIterable<Item>
    : Promise<Awaited<O>>
  : never;

/** A connection of a room. */
export interface Connection {
  readonly id: string;
  readonly tags: readonly string[];
  readonly state: unknown;
}

/** A token, or how to get one. The function is asked before each connection and 30 s before `exp`. */
export type TokenSource = string | (() => string | null | undefined | Promise<string | null | undefined>);

/** The part of a WebSocket that is used; `globalThis.WebSocket` and that of the package `ws` are ones. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

export interface StoaOptions {
  token?: TokenSource | undefined;
  /** Default: `globalThis.WebSocket`; in Node without one, the package `ws` if it is installed. `null`: SSE only. */
  WebSocket?: WebSocketConstructor | null | undefined;
  /** Default: `globalThis.fetch`. */
  fetch?: typeof fetch | undefined;
  /** "auto" (default): a WebSocket, and SSE after two upgrades that failed. */
  transport?: "auto" | "websocket" | "sse" | undefined;
  /** Milliseconds between tries to connect: random up to a bound that doubles, within these (250 to 10,000). */
  reconnect?: { min?: number; max?: number } | undefined;
  /** Milliseconds after which a socket without subscriptions is closed (5,000). */
  idle?: number | undefined;
  /** Milliseconds of silence after which the server is asked whether it is there (25,000) ... */
  ping?: number | undefined;
  /** ... and within which it must answer (10,000). */
  pong?: number | undefined;
  /** Default `buffer` and `bufferBytes` of subscriptions. */
  buffer?: number | undefined;
  bufferBytes?: number | undefined;
}

/** A refusal by the server, as it stands in frames and answers. */
export interface Refusal {
  readonly tag: string;
  readonly message: string;
  readonly status?: number;
}

export type { Missed, MissedReason } from "./errors.js";
