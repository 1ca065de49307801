/**
 * The client: what a program makes one of, and asks for everything.
 */
import { MissedError, type Missed } from "./errors.js";
import { encode, headerText, Http, uniqueName, type Request } from "./http.js";
import { Hub } from "./hub.js";
import { bytesOf } from "./lane.js";
import { Reader } from "./reader.js";
import { Room } from "./room.js";
import { Tokens } from "./token.js";
import type {
  Contract, Event, Handler, LogOptions, LogPage, Published, PublishedBatch, PublishOptions, StoaOptions, SubscribeOptions,
  Subscription,
} from "./types.js";

const RECONNECT = { min: 250, max: 10_000 };

/** An event as GET /log gives it. */
type Logged = { id: string; ts: number } & ({ data: unknown } | { base64: string });
/** A page as GET /log gives it. */
type Page = { key: string; head: string; events: Logged[]; missed?: Omit<Missed, "key">; more: boolean };

export class Stoa {
  readonly url: string;
  #http: Http;
  #hub: Hub;
  #options: StoaOptions;
  #closed = false;

  /** Connects when something is asked of it. `url`: a gateway, `https://…`; in browsers it may be relative. */
  constructor(url: string | URL, options: StoaOptions = {}) {
    const base = new URL(url, (globalThis as { location?: { href: string } }).location?.href);
    base.protocol = base.protocol.replace(/^ws/, "http");
    if (base.protocol !== "http:" && base.protocol !== "https:") throw new TypeError(`a gateway's address begins with http: or https:, not ${base.protocol}`);
    this.url = base.href;
    this.#options = options;
    const bounds = { ...RECONNECT, ...options.reconnect };
    const tokens = new Tokens(options.token);
    this.#http = new Http(base, tokens, options.fetch ?? ((...request) => globalThis.fetch(...request)), bounds);
    this.#hub = new Hub(this.#http, tokens, bounds, options);
  }

  /**
   * The events of a key, each once and in order, across lost connections. Iterate it, or give a handler. It begins now,
   * not with the iteration; what comes meanwhile waits.
   */
  subscribe<T = unknown>(key: string, options?: SubscribeOptions): Subscription<T>;
  subscribe<T = unknown>(key: string, handler: Handler<T>): Subscription<T>;
  subscribe<T = unknown>(key: string, options: SubscribeOptions, handler: Handler<T>): Subscription<T>;
  subscribe<T = unknown>(key: string, first: SubscribeOptions | Handler<T> = {}, second?: Handler<T>): Subscription<T> {
    if (this.#closed) throw new TypeError("this client was closed");
    if (typeof key !== "string") throw new TypeError(`a key is a string, not ${typeof key}`);
    const [given, handler] = typeof first === "function" ? [{}, first] : [first, second];
    const { buffer = this.#options.buffer, bufferBytes = this.#options.bufferBytes } = given;
    const reader = new Reader(key, { ...given, buffer, bufferBytes }, handler as Handler<unknown> | undefined, this.#hub);
    const replay = given.replay === "none" || given.replay === 0 || given.after !== undefined ? undefined : given.replay;
    const start = { after: given.after, replay, state: given.state, presence: given.onPresence !== undefined };
    queueMicrotask(() => { // who closes it at once asks for nothing
      if (reader.over) return;
      if (this.#closed) reader.close();
      else this.#hub.attach(reader, start);
    });
    return reader as unknown as Subscription<T>;
  }

  /**
   * Appends an event: fulfilled once it is on disk. Tries again under one idempotency key while the outcome is not
   * known. `data`: a JSON value, or a Uint8Array that is stored as it is.
   */
  async publish(key: string, data: unknown, options: PublishOptions = {}): Promise<Published> {
    const { body, type } = encode(data);
    return this.#http.json<Published>("/publish", publication(key, body, type, options));
  }

  /** Appends events, all or none. */
  async publishBatch(key: string, data: readonly unknown[], options: PublishOptions = {}): Promise<PublishedBatch> {
    const lines = data.map((one) => {
      if (one instanceof Uint8Array) throw new TypeError("a batch takes JSON values");
      return encode(one).body as string;
    });
    return this.#http.json<PublishedBatch>("/publish", publication(key, lines.join("\n") + "\n", "application/x-ndjson", options));
  }

  /** A page of what is retained. */
  async log<T = unknown>(key: string, options: LogOptions = {}): Promise<LogPage<T>> {
    const { after, limit, last, ...others } = options;
    const page = await this.#http.json<Page>("/log", { ...others, query: { key, after, limit, last } });
    const events = page.events.map((one): Event<T> => "base64" in one
      ? { key, id: one.id, ts: one.ts, data: bytesOf(one.base64) as T }
      : { key, id: one.id, ts: one.ts, data: one.data as T });
    const found = { key, head: page.head, events, more: page.more };
    return page.missed ? { ...found, missed: { key, ...page.missed } } : found;
  }

  /** All that is retained, page by page. A gap throws MissedError. */
  async *history<T = unknown>(key: string, options: Omit<LogOptions, "last"> = {}): AsyncGenerator<Event<T>, undefined, undefined> {
    for (let after = options.after; ;) {
      const page = await this.log<T>(key, { limit: 1000, ...options, after });
      if (page.missed) throw new MissedError(page.missed);
      yield* page.events;
      after = page.events.at(-1)?.id;
      if (!page.more || after === undefined) return undefined;
    }
  }

  /** The room `type:id`. */
  room<R extends Contract = Contract>(type: string, id: string): Room<R> {
    return new Room<R>(this, this.#http, this.#hub, type, id);
  }

  /** Ends all subscriptions and connections. Iterations end without an error. */
  close(): void {
    this.#closed = true;
    this.#hub.close();
  }
}

/** A filter's names as they stand in a query. */
function names(what: string, list: readonly string[] | undefined): string | undefined {
  if (list === undefined) return undefined;
  if (list.length === 0) throw new TypeError(`${what}: name somebody, or leave it out for everybody`);
  for (const name of list) if (name === "" || name.includes(",")) throw new TypeError(`${what}: a name is not empty and has no comma`);
  return list.join(",");
}

function publication(key: string, body: string | Uint8Array, type: string, options: PublishOptions): Request {
  const { conflate, ephemeral, tags, to, except, idempotencyKey = uniqueName(), ...others } = options;
  const headers: Record<string, string> = { "Content-Type": type };
  if (conflate !== undefined) headers["Stoa-Conflate"] = headerText("conflate", conflate);
  if (ephemeral) headers["Stoa-Ephemeral"] = "1";
  const query = { key, tags: names("tags", tags), to: names("to", to), except: except?.length ? names("except", except) : undefined };
  return { ...others, method: "POST", idempotencyKey, headers, query, body };
}
