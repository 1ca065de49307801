/**
 * The service: rooms by type, each with the verbs of Durable Object rooms.
 */
import { Context, Duration, Effect, Either, Layer, ParseResult, Schema } from "effect";

import type {
  BroadcastOf,
  CallArguments,
  ConnectionOf,
  EventOf,
  MethodName,
  OutputOf,
  RoomDefinition,
  RoomSchemas,
  StateOf,
} from "./contract.js";
import {
  BadRequest,
  NoSuchMethod,
  RoomValidationError,
  type RequestFailure,
  type RoomFailure,
  type RunFailure,
} from "./errors.js";
import { ask, type Gateway, type RoomRequest, type Token } from "./request.js";

/** An open connection of a room. */
export interface ConnectionInfo<State = unknown> {
  readonly id: string;
  readonly tags: ReadonlyArray<string>;
  readonly state: State;
}

/** Someone who is in a room whose type counts presence. */
export interface Member {
  readonly id: string;
  readonly state: unknown;
}

export interface RunOptions {
  /** 1 to 255 bytes: for five minutes the same key is answered again and runs nothing. Default: a random one. */
  readonly idempotencyKey?: string;
}

/** The rooms of one type. Each verb is about the room of that id, which comes into being by being spoken to. */
export interface RoomClient<S extends RoomSchemas = RoomSchemas> {
  readonly name: string;
  /** Runs the room's `on_event`; done when what it did is on disk. */
  send(id: string, event: EventOf<S>, options?: RunOptions): Effect.Effect<void, RunFailure>;
  /** The room's state, null when it has none. Runs nothing. */
  getState(id: string): Effect.Effect<StateOf<S> | null, RequestFailure>;
  /** Its open connections; with a tag those that have it. */
  getConnections(id: string, tag?: string): Effect.Effect<ReadonlyArray<ConnectionInfo<ConnectionOf<S>>>, RequestFailure>;
  /** To all its connections; runs nothing. */
  broadcast(id: string, message: BroadcastOf<S>, options?: RunOptions): Effect.Effect<void, RunFailure>;
  /** Runs `on_alarm` now, whether one was due or not. */
  fireAlarm(id: string, options?: RunOptions): Effect.Effect<void, RunFailure>;
  /** Runs a method that the room exports. Of one that streams, the array of its items. */
  call<N extends MethodName<S>>(
    id: string,
    method: N,
    ...rest: CallArguments<S, N, RunOptions>
  ): Effect.Effect<OutputOf<S, N>, RunFailure>;
  /** Closes its sockets, with a WebSocket close code (1000). */
  close(id: string, options?: { readonly code?: number }): Effect.Effect<void, RequestFailure>;
  /** Who is there, of types with presence. */
  getPresence(id: string): Effect.Effect<ReadonlyArray<Member>, RequestFailure>;
  /** Drops its state, its alarm and its retained events. */
  purge(id: string): Effect.Effect<void, RequestFailure>;
}

export interface RoomsService {
  /** Untyped: everything is `unknown` and passes as it is. */
  room(name: string): RoomClient;
  room<S extends RoomSchemas>(definition: RoomDefinition<S>): RoomClient<S>;
}

export interface RoomsOptions {
  /** A gateway: "http://127.0.0.1:8080". */
  readonly url: string | URL;
  /** A token with the rights `send`, `call` and `manage` where they are needed; or an Effect that gives one. */
  readonly token?: Token;
  /** For all tries of a request together (30 seconds). */
  readonly timeout?: Duration.DurationInput;
  /** Default: `globalThis.fetch`. */
  readonly fetch?: typeof globalThis.fetch;
}

const TIMEOUT = Duration.seconds(30);
/** Paths of the gateway's own: a method of such a name cannot be called. */
const RESERVED = new Set(["send", "broadcast", "alarm", "close", "state", "connections", "log", "presence"]);

// ---- what leaves and arrives, by its schema ----

type Where = Pick<RoomRequest, "room" | "id">;
type Given = Schema.Schema<unknown, unknown> | undefined;

function mismatch(where: Where, what: string, error: ParseResult.ParseError): RoomValidationError {
  return new RoomValidationError({
    ...where,
    status: 0,
    message: `${what}: ${ParseResult.TreeFormatter.formatErrorSync(error)}`,
    cause: error,
  });
}

function encode(where: Where, what: string, schema: Given, value: unknown): Effect.Effect<string | undefined, RoomFailure> {
  const encoded = schema ? Schema.encodeUnknownEither(schema)(value) : Either.right(value);
  if (Either.isLeft(encoded)) return Effect.fail(mismatch(where, what, encoded.left));
  return Effect.try({
    try: (): string | undefined => JSON.stringify(encoded.right),
    catch: (cause) => new BadRequest({ ...where, status: 0, message: `${what} is no JSON value`, cause }),
  });
}

/** The same, of what must be there. */
function encodeValue(where: Where, what: string, schema: Given, value: unknown): Effect.Effect<string, RoomFailure> {
  return Effect.flatMap(encode(where, what, schema, value), (text) =>
    text === undefined
      ? Effect.fail(new BadRequest({ ...where, status: 0, message: `${what} is no JSON value` }))
      : Effect.succeed(text));
}

function decode(where: Where, what: string, schema: Given, value: unknown): Effect.Effect<unknown, RoomValidationError> {
  if (!schema) return Effect.succeed(value);
  const decoded = Schema.decodeUnknownEither(schema)(value);
  return Either.isLeft(decoded) ? Effect.fail(mismatch(where, what, decoded.left)) : Effect.succeed(decoded.right);
}

// ---- verbs ----

interface ErasedSchemas {
  readonly state?: Given;
  readonly connection?: Given;
  readonly event?: Given;
  readonly broadcast?: Given;
  readonly methods?: Readonly<Record<string, { readonly input?: Given; readonly output?: Given }>>;
}

/** Without the types that the schemas infer; {@link RoomClient} says what each verb takes and gives. */
class Client {
  constructor(
    private readonly gateway: Gateway,
    readonly name: string,
    private readonly schemas: ErasedSchemas,
  ) {}

  private where(id: string): Where {
    return { room: this.name, id };
  }

  private read(id: string, verb: string, query: Record<string, string> = {}): Effect.Effect<unknown, RoomFailure> {
    return this.ask(verb, { ...this.where(id), method: "GET", verb: `/${verb}`, query });
  }

  private run(id: string, verb: string, body: string | undefined, options: RunOptions = {}): Effect.Effect<unknown, RoomFailure> {
    return Effect.suspend(() => {
      const idempotencyKey = options.idempotencyKey ?? globalThis.crypto.randomUUID();
      const wanted: RoomRequest = { ...this.where(id), method: "POST", verb: `/${encodeURIComponent(verb)}`, idempotencyKey };
      return this.ask(verb, body === undefined ? wanted : { ...wanted, body });
    });
  }

  private ask(name: string, request: RoomRequest): Effect.Effect<unknown, RoomFailure> {
    return Effect.suspend(() => {
      const problem = problemOf(request);
      if (problem) return Effect.fail(new BadRequest({ ...this.where(request.id), status: 0, message: problem }));
      return ask(this.gateway, request);
    }).pipe(Effect.withSpan(`stoa.room.${name}`, { attributes: { room: this.name, id: request.id } }));
  }

  send = (id: string, event: unknown, options?: RunOptions) =>
    encodeValue(this.where(id), "event", this.schemas.event, event).pipe(
      Effect.flatMap((body) => this.run(id, "send", body, options)),
      Effect.asVoid,
    );

  broadcast = (id: string, message: unknown, options?: RunOptions) =>
    encodeValue(this.where(id), "broadcast", this.schemas.broadcast, message).pipe(
      Effect.flatMap((body) => this.run(id, "broadcast", body, options)),
      Effect.asVoid,
    );

  getState = (id: string) =>
    Effect.flatMap(this.read(id, "state"), (state) =>
      state === null ? Effect.succeed(null) : decode(this.where(id), "state", this.schemas.state, state));

  getConnections = (id: string, tag?: string) =>
    Effect.flatMap(this.read(id, "connections", tag === undefined ? {} : { tag }), (list) =>
      Effect.forEach(list as ReadonlyArray<ConnectionInfo>, (one) =>
        Effect.map(decode(this.where(id), "connection", this.schemas.connection, one.state), (state) => ({ ...one, state }))));

  fireAlarm = (id: string, options?: RunOptions) => Effect.asVoid(this.run(id, "alarm", undefined, options));

  call = (id: string, method: string, input?: unknown, options?: RunOptions) => {
    const { methods } = this.schemas;
    if (RESERVED.has(method) || (methods && !Object.hasOwn(methods, method)))
      return Effect.fail(new NoSuchMethod({ ...this.where(id), status: 0, message: `no method can be called "${method}"` }));
    const schemas = methods?.[method];
    return encode(this.where(id), "input", schemas?.input, input).pipe(
      Effect.flatMap((body) => this.run(id, method, body, options)),
      Effect.flatMap((output) => decode(this.where(id), "output", schemas?.output, output)),
    );
  };

  close = (id: string, options: { readonly code?: number } = {}) => {
    const query: Record<string, string> = options.code === undefined ? {} : { code: String(options.code) };
    return Effect.asVoid(this.ask("close", { ...this.where(id), method: "POST", verb: "/close", query }));
  };

  getPresence = (id: string) => this.read(id, "presence");

  purge = (id: string) => Effect.asVoid(this.ask("purge", { ...this.where(id), method: "DELETE", verb: "" }));
}

/** What the path of a request cannot carry. */
function problemOf(request: RoomRequest): string | null {
  if (typeof request.id !== "string" || request.id === "") return "id: a text is wanted";
  if (request.id === "." || request.id === "..") return "id: . and .. are no ids over HTTP";
  const key = request.idempotencyKey;
  if (key === undefined) return null;
  const size = new TextEncoder().encode(key).length;
  if (size < 1 || size > 255 || /[\u0000-\u001f\u007f]/.test(key) || key.trim() !== key)
    return "idempotencyKey: 1 to 255 bytes, no control characters, no spaces at its ends";
  return null;
}

// ---- the service ----

/** Rooms of a gateway, without a layer. */
export function makeRooms(options: RoomsOptions): RoomsService {
  const gateway: Gateway = {
    base: new URL(options.url),
    token: options.token,
    fetch: options.fetch ?? ((...words) => globalThis.fetch(...words)),
    timeout: Duration.decode(options.timeout ?? TIMEOUT),
  };
  const room = (which: string | RoomDefinition): unknown =>
    typeof which === "string" ? new Client(gateway, which, {}) : new Client(gateway, which.name, which.schemas as ErasedSchemas);
  return { room: room as RoomsService["room"] };
}

/** The rooms of a gateway: `const rooms = yield* Rooms`. */
export class Rooms extends Context.Tag("@stoa/effect/Rooms")<Rooms, RoomsService>() {
  static layer(options: RoomsOptions): Layer.Layer<Rooms> {
    return Layer.sync(Rooms, () => makeRooms(options));
  }
}
