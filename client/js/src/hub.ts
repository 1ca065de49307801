/**
 * Which feed a reader gets, and what carries it: sockets that many feeds share, or event streams where upgrades are
 * refused. A socket carries a key once, so a second reader that begins elsewhere has a feed on another socket until
 * it has caught up with the first one; then they are one again.
 */
import type { Bounds } from "./backoff.js";
import { StoaError } from "./errors.js";
import { Feed, type Start } from "./feed.js";
import { refusalOf, type Http } from "./http.js";
import { Lane } from "./lane.js";
import type { Feeder, Reader } from "./reader.js";
import { EventStream } from "./stream.js";
import type { Tokens } from "./token.js";
import type { StoaOptions, WebSocketConstructor } from "./types.js";

/** So many upgrades must fail, while requests get through, before event streams are used. */
const FAILED_UPGRADES = 2;
/** Meanwhile an upgrade is tried so often. */
const TRIAL_MS = 60_000;
const PROBE_MS = 10_000;
/** The tag of what failed because streams took the place of sockets. */
export const NO_SOCKET = "NoSocket";

/** What a request found out after a failed upgrade. */
interface Found {
  what: "fine" | "refused" | "forbidden" | "unreachable";
  error: StoaError;
}

export class Hub implements Feeder {
  readonly idleMs: number;
  readonly pingMs: number;
  readonly pongMs: number;
  #options: StoaOptions;
  #feeds = new Map<string, Set<Feed>>();
  #of = new Map<Reader, Feed>();
  #paused = new Map<Reader, Start>();
  #lanes: Lane[] = [];
  #streams: "never" | "now" | "no";
  #failed = 0;
  #trial: ReturnType<typeof setInterval> | undefined;
  #listening = false;
  #webSocket: Promise<WebSocketConstructor | null> | undefined;

  constructor(readonly http: Http, readonly tokens: Tokens, readonly bounds: Bounds, options: StoaOptions) {
    this.#options = options;
    this.idleMs = options.idle ?? 5_000;
    this.pingMs = options.ping ?? 25_000;
    this.pongMs = options.pong ?? 10_000;
    this.#streams = options.transport === "websocket" ? "never" : options.transport === "sse" ? "now" : "no";
  }

  // ---- readers ----

  attach(reader: Reader, start: Start): void {
    const feeds = this.#feeds.get(reader.key);
    for (const feed of feeds ?? []) {
      if (!feed.suits(start)) continue;
      this.#of.set(reader, feed);
      feed.add(reader);
      return;
    }
    const feed = new Feed(this, reader.key, start);
    feed.readers.add(reader);
    this.#of.set(reader, feed);
    if (feeds) feeds.add(feed);
    else this.#feeds.set(reader.key, new Set([feed]));
    this.#count(reader.key);
    this.#listen(true);
    this.place(feed);
  }

  pause(reader: Reader): void {
    const feed = this.#of.get(reader);
    if (!feed) return;
    const { position, start } = feed;
    this.#paused.set(reader, { ...start, after: position, replay: position === undefined ? start.replay : undefined });
    this.#detach(reader);
  }

  resume(reader: Reader): void {
    const start = this.#paused.get(reader);
    this.#paused.delete(reader);
    if (!start) return;
    reader.tell("connecting");
    this.attach(reader, start);
  }

  leave(reader: Reader): void {
    this.#paused.delete(reader);
    this.#detach(reader);
  }

  #detach(reader: Reader): void {
    const feed = this.#of.get(reader);
    this.#of.delete(reader);
    feed?.readers.delete(reader);
    if (feed?.readers.size === 0) this.#forget(feed);
  }

  #forget(feed: Feed): void {
    const feeds = this.#feeds.get(feed.key);
    feeds?.delete(feed);
    if (feeds?.size === 0) this.#feeds.delete(feed.key);
    this.#count(feed.key);
    feed.drop();
    if (this.#feeds.size === 0) this.#listen(false);
  }

  /** Makes one of two feeds of a key that are at the same place. */
  merge(feed: Feed): void {
    for (const other of this.#feeds.get(feed.key) ?? []) {
      const same = other !== feed && other.live && feed.live && other.position === feed.position && feed.position !== undefined;
      if (!same || other.start.state !== undefined || feed.start.state !== undefined) continue;
      if (other.start.presence !== feed.start.presence) continue;
      other.current ||= feed.current;
      for (const reader of [...feed.readers]) {
        feed.readers.delete(reader);
        other.readers.add(reader);
        this.#of.set(reader, other);
      }
      this.#forget(feed);
      return;
    }
  }

  #count(key: string): void {
    const feeds = this.#feeds.get(key);
    for (const feed of feeds ?? []) feed.twins = feeds!.size > 1;
  }

  // ---- what carries them ----

  /** Gives a feed a carrier. */
  place(feed: Feed): void {
    if (this.#streams === "now") new EventStream(this).begin(feed);
    else this.#laneFor(feed.key).begin(feed);
  }

  #laneFor(key: string): Lane {
    const fits = this.#lanes.find((lane) => !lane.feeds.has(key) && lane.feeds.size < lane.limit);
    if (fits) return fits;
    const lane = new Lane(this);
    this.#lanes.push(lane);
    return lane;
  }

  /** A socket to ask something on; undefined: there is none to be had. */
  lane(): Lane | undefined {
    if (this.#streams === "now") return undefined;
    const open = this.#lanes.find((lane) => lane.state === "open") ?? this.#lanes[0];
    if (open) return open;
    const lane = new Lane(this);
    this.#lanes.push(lane);
    return lane;
  }

  /** The socket by which this key is subscribed, once it is; undefined: it is not, or not over a socket. */
  async laneOf(key: string): Promise<Lane | undefined> {
    await undefined; // a subscription that was made just now begins
    for (;;) {
      const [feed] = this.#feeds.get(key) ?? [];
      if (!feed) return undefined;
      if (feed.live) return feed.carrier instanceof Lane ? feed.carrier : undefined;
      await feed.settled();
    }
  }

  /** A socket that nobody needs any more. */
  retire(lane: Lane): void {
    this.#lanes = this.#lanes.filter((other) => other !== lane);
    lane.close();
  }

  /** A socket is open: if streams were used in its place, their feeds return. */
  opened(): void {
    this.#failed = 0;
    if (this.#streams !== "now" || this.#options.transport === "sse") return;
    this.#streams = "no";
    clearInterval(this.#trial);
    for (const feeds of this.#feeds.values()) {
      for (const feed of feeds) {
        if (!(feed.carrier instanceof EventStream)) continue;
        feed.carrier.end();
        feed.live = false;
        this.place(feed);
      }
    }
  }

  /** An upgrade was refused although requests get through. Whether that is enough. */
  upgradeFailed(): boolean {
    this.#failed++;
    return this.#streams !== "never" && this.#failed >= FAILED_UPGRADES;
  }

  /** From now on each feed has a stream of its own. */
  useStreams(failed: Lane): void {
    if (this.#streams === "never") {
      for (const feed of [...failed.feeds.values()]) {
        feed.fail(new StoaError("Unreachable", 0, "there is no WebSocket here: pass one, or install the package ws"));
      }
      this.retire(failed);
      return;
    }
    this.#streams = "now";
    const feeds = this.#lanes.flatMap((lane) => [...lane.feeds.values()]);
    for (const lane of this.#lanes) {
      lane.feeds.clear();
      lane.close(new StoaError(NO_SOCKET, 0, "there is no WebSocket here"));
    }
    this.#lanes = [];
    for (const feed of feeds) this.place(feed);
    clearInterval(this.#trial);
    this.#trial = setInterval(() => this.#tryAgain(), TRIAL_MS);
    (this.#trial as { unref?: () => void }).unref?.();
  }

  /** Whether sockets are let through by now. */
  #tryAgain(): void {
    if (this.#options.transport === "sse" || this.#lanes.length > 0 || this.#feeds.size === 0) return;
    const lane = new Lane(this);
    this.#lanes.push(lane);
    lane.wake();
  }

  /** What makes sockets; null: nothing here does. */
  webSocket(): Promise<WebSocketConstructor | null> {
    this.#webSocket ??= findWebSocket(this.#options.WebSocket);
    return this.#webSocket;
  }

  /** A request with the same token, to learn what a failed upgrade does not tell. */
  async probe(key: string, token: string | undefined): Promise<Found> {
    let renewed = false;
    for (;;) {
      const ending = new AbortController();
      const timer = setTimeout(() => ending.abort(), PROBE_MS);
      try {
        const answer = await this.http.once("/log", { query: { key, limit: 1 }, signal: ending.signal }, token);
        const error = await refusalOf(answer);
        if (error.status === 401 && this.tokens.renewable && !renewed) {
          renewed = true;
          token = await this.tokens.fresh();
          continue;
        }
        if (error.status === 401 || error.tag === "OriginRefused") return { what: "refused", error };
        if (error.status === 403) return { what: "forbidden", error };
        return { what: error.status >= 500 || error.status === 429 ? "unreachable" : "fine", error };
      } catch (cause) {
        return { what: "unreachable", error: new StoaError("Unreachable", 0, `no answer from ${this.http.base.host}`, { cause }) };
      } finally {
        clearTimeout(timer);
      }
    }
  }

  /** Gets a new token and gives it to all sockets. */
  async renew(): Promise<void> {
    const token = await this.tokens.fresh();
    if (token !== undefined) await Promise.all(this.#lanes.map((lane) => lane.renew(token)));
  }

  // ---- the world ----

  close(): void {
    for (const reader of [...this.#of.keys(), ...this.#paused.keys()]) reader.close();
    for (const lane of [...this.#lanes]) this.retire(lane);
    clearInterval(this.#trial);
    this.#listen(false);
  }

  #wake = () => {
    for (const lane of this.#lanes) lane.wake();
    if (this.#streams === "now") this.#tryAgain();
    for (const feeds of this.#feeds.values()) {
      for (const feed of feeds) {
        feed.wake();
        if (feed.carrier instanceof EventStream) feed.carrier.wake();
      }
    }
  };
  /** A cut socket says nothing until it is missed: nobody waits for that to learn that the network is gone. */
  #cut = () => {
    const error = new StoaError("Closed", 0, "the browser is offline");
    for (const lane of [...this.#lanes]) lane.cut(error);
    for (const feeds of this.#feeds.values()) for (const feed of feeds) if (feed.carrier instanceof EventStream) feed.carrier.cut(error);
  };
  #visible = () => {
    if (document.visibilityState === "visible") this.#wake();
  };

  /** Browsers tell when the network is gone, and when it, or the user, is back. */
  #listen(on: boolean): void {
    if (on === this.#listening) return;
    this.#listening = on;
    const turn = on ? "addEventListener" : "removeEventListener";
    if (typeof addEventListener === "function") {
      globalThis[turn]("online", this.#wake);
      globalThis[turn]("offline", this.#cut);
    }
    if (typeof document !== "undefined") document[turn]("visibilitychange", this.#visible);
  }
}

async function findWebSocket(given: WebSocketConstructor | null | undefined): Promise<WebSocketConstructor | null> {
  if (given !== undefined) return given;
  const global = (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
  if (global) return global;
  const name = "ws"; // not a dependency, and nothing for bundlers to find
  try {
    return ((await import(/* @vite-ignore */ /* webpackIgnore: true */ name)) as { WebSocket: WebSocketConstructor }).WebSocket;
  } catch {
    return null;
  }
}
