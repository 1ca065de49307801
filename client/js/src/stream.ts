/**
 * One key as an event stream (SSE) by fetch, so that the token goes in a header: for networks that let no WebSocket
 * through. It resumes behind the feed's position whenever it is lost.
 */
import { backoff, pause } from "./backoff.js";
import { StoaError, type MissedReason } from "./errors.js";
import type { Carrier, Feed } from "./feed.js";
import { refusalOf } from "./http.js";
import type { Hub } from "./hub.js";
import { bytesOf } from "./lane.js";
import type { Event } from "./types.js";

/** The server says something every 15 s; a stream that is silent for so long is lost. */
const SILENCE_MS = 40_000;
const TIMER_MAX_MS = 2_000_000_000;

/** One event of a stream. */
export interface Block {
  id?: string;
  event: string;
  data: string;
}

/** Takes the text of a stream as it comes, and gives its events. */
export class Parser {
  #rest = "";
  #id: string | undefined;
  #event = "";
  #data: string[] = [];
  /** The id that was set last. */
  lastId: string | undefined;

  /** `each` gets the events that this text completes. */
  take(text: string, each: (block: Block) => void): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) this.#line(line.endsWith("\r") ? line.slice(0, -1) : line, each);
  }

  #line(line: string, each: (block: Block) => void): void {
    if (line === "") {
      const id = this.#id;
      if (id !== undefined) this.lastId = id;
      if (this.#data.length > 0 || this.#event !== "" || id !== undefined)
        each({ ...(id === undefined ? {} : { id }), event: this.#event || "message", data: this.#data.join("\n") });
      this.#id = undefined;
      this.#event = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "id") this.#id = value;
    else if (name === "event") this.#event = value;
    else if (name === "data") this.#data.push(value);
  }
}

/** Where a key's stream is: a type with rules of its own is not served by /events. */
export function streamPath(key: string): { path: string; key: string | undefined } {
  const colon = key.indexOf(":");
  if (colon <= 0 || colon === key.length - 1) return { path: "/events", key };
  const [type, id] = [key.slice(0, colon), key.slice(colon + 1)];
  return { path: `/api/${encodeURIComponent(type)}/${encodeURIComponent(id)}/events`, key: undefined };
}

export class EventStream implements Carrier {
  readonly transport = "sse";
  #hub: Hub;
  #feed: Feed | undefined;
  #ending = new AbortController();
  #connection = new AbortController();
  #waking = new AbortController();

  constructor(hub: Hub) {
    this.#hub = hub;
  }

  begin(feed: Feed): void {
    feed.carrier = this;
    this.#feed = feed;
    void this.#run(feed);
  }

  end(): void {
    this.#feed = undefined;
    this.#ending.abort();
    this.#connection.abort();
  }

  /** The network is gone: what it was reading is lost. */
  cut(error: StoaError): void {
    this.#connection.abort(error);
  }

  /** Tries again at once. */
  wake(): void {
    this.#waking.abort();
  }

  async #run(feed: Feed): Promise<void> {
    for (let attempt = 0; this.#feed === feed;) {
      let error: Error;
      try {
        const before = Date.now();
        error = await this.#connect(feed);
        if (Date.now() - before > SILENCE_MS / 8) attempt = 0;
      } catch (failure) {
        error = failure instanceof Error ? failure : new Error(String(failure));
      }
      if (this.#feed !== feed) return;
      if (error instanceof StoaError && error.status >= 400) {
        this.#feed = undefined;
        feed.refused(error);
        return;
      }
      feed.lost(error);
      this.#waking = new AbortController();
      const over = AbortSignal.any?.([this.#waking.signal, this.#ending.signal]) ?? this.#waking.signal;
      await pause(backoff(attempt++, this.#hub.bounds), over).catch(() => {});
    }
  }

  /** Until the stream is over; why. */
  async #connect(feed: Feed): Promise<Error> {
    const token = await this.#hub.tokens.fresh();
    const { path, key } = streamPath(feed.key);
    const query = { key, after: feed.position, replay: feed.position === undefined ? feed.start.replay : undefined };
    const connection = this.#connection = new AbortController();
    if (this.#feed !== feed) return new Error("ended");
    let renewal: ReturnType<typeof setTimeout> | undefined, silence: ReturnType<typeof setTimeout> | undefined;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(new StoaError("Closed", 0, "the stream fell silent")), SILENCE_MS);
    };
    try {
      listen();
      const answer = await this.#hub.http.once(path, { query, headers: { Accept: "text/event-stream" }, signal: connection.signal }, token);
      if (!answer.ok || !answer.body) return await refusalOf(answer);
      const renewIn = this.#hub.tokens.renewIn(token);
      if (renewIn !== undefined && renewIn < TIMER_MAX_MS)
        renewal = setTimeout(() => connection.abort(new StoaError("TokenExpired", 0, "the token is renewed")), renewIn);
      feed.began();
      await this.#read(feed, answer.body, listen);
      return new StoaError("Closed", 0, "the stream has ended");
    } catch (error) {
      return connection.signal.aborted ? connection.signal.reason as Error : error as Error;
    } finally {
      clearTimeout(renewal);
      clearTimeout(silence);
      connection.abort();
    }
  }

  async #read(feed: Feed, body: ReadableStream<Uint8Array>, listen: () => void): Promise<void> {
    const reader = body.getReader();
    const text = new TextDecoder();
    const parser = new Parser();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      listen();
      parser.take(text.decode(value, { stream: true }), (block) => {
        if (this.#feed === feed) this.#block(feed, block);
      });
    }
  }

  #block(feed: Feed, { id, event, data }: Block): void {
    if (event === "missed") {
      const { from, to, reason } = JSON.parse(data) as { from: string; to: string; reason: MissedReason };
      feed.missed({ from, to, reason });
    } else if (event === "end") {
      this.#connection.abort(new StoaError("TokenExpired", 0, "the token has ended"));
    } else if (data === "" && event === "message") {
      if (id !== undefined) feed.position ??= id; // where it began
    } else {
      const payload = event === "base64" ? bytesOf(data) : parsed(data);
      const told: Event = { key: feed.key, ts: Date.now(), data: payload };
      feed.event(id === undefined ? told : { ...told, id }, data.length);
    }
  }
}

/** As over a WebSocket: JSON as its value, any other text as its bytes. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return new TextEncoder().encode(text);
  }
}
