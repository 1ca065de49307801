/**
 * One WebSocket (stoa.v1) that carries many feeds, connected again whenever it is lost while somebody needs it.
 */
import { backoff, within } from "./backoff.js";
import { StoaError } from "./errors.js";
import type { Carrier, Feed, PresenceFrame, StatusFrame } from "./feed.js";
import type { Hub } from "./hub.js";
import type { Event, Refusal, WebSocketLike } from "./types.js";

/** gateway.limits.keys_per_socket, by default. */
const KEYS_PER_SOCKET = 1_000;
/** An upgrade that takes longer has failed. */
const UPGRADE_MS = 10_000;
/** A socket that held so long begins anew with the shortest pause. */
const STABLE_MS = 5_000;
/** An answer to a new token is not waited for any longer. */
const RENEWAL_MS = 5_000;
/** Pongs are due sooner when there is reason to doubt the connection. */
const DOUBT_MS = 3_000;
const TIMER_MAX_MS = 2_000_000_000;
const SILENCE_PARTS = 5;

/** What waits for an answer under its number. */
export interface Asker {
  ok(value: unknown): void;
  item?(value: unknown): void;
  failed(error: StoaError): void;
}

interface Frame extends Partial<StatusFrame>, Partial<PresenceFrame> {
  key?: string;
  id?: string;
  ts?: number;
  data?: unknown;
  base64?: string;
  unsub?: string;
  code?: number;
  reason?: string;
  ref?: number;
  ok?: unknown;
  item?: unknown;
}

/** The bytes of a base64 text. */
export function bytesOf(base64: string): Uint8Array {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export class Lane implements Carrier {
  readonly transport = "websocket";
  /** Of feeds that it carries, or will once it is open. */
  readonly feeds = new Map<string, Feed>();
  state: "closed" | "connecting" | "open" | "waiting" = "closed";
  /** How many keys it takes; the gateway may say that it is fewer. */
  limit = KEYS_PER_SOCKET;
  #hub: Hub;
  #socket: WebSocketLike | undefined;
  /** Keys whose end the server has not confirmed yet, and how often: what comes of them until then is old. */
  #ending = new Map<string, number>();
  #askers = new Map<number, Asker>();
  #waiting = new Set<() => void>();
  #ref = 0;
  #attempt = 0;
  #openedAt = 0;
  #heard = false;
  #silent = 0;
  #pulse: ReturnType<typeof setInterval> | undefined;
  #pong: ReturnType<typeof setTimeout> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;
  #upgrade: ReturnType<typeof setTimeout> | undefined;

  constructor(hub: Hub) {
    this.#hub = hub;
  }

  // ---- feeds ----

  begin(feed: Feed): void {
    feed.carrier = this;
    this.feeds.set(feed.key, feed);
    this.#wanted();
    if (this.state === "open") this.#send(feed.frame());
  }

  end(feed: Feed): void {
    if (this.feeds.get(feed.key) !== feed) return;
    this.feeds.delete(feed.key);
    if (this.state === "open") {
      this.#ending.set(feed.key, (this.#ending.get(feed.key) ?? 0) + 1);
      this.#send({ unsub: feed.key });
    }
    this.#rest();
  }

  // ---- questions ----

  /** Sends a frame with a number of its own once it is open; what was sent is answered, or Unknown. Returns how to give up. */
  ask(frame: Record<string, unknown>, asker: Asker): () => void {
    const ref = ++this.#ref;
    const send = () => {
      this.#waiting.delete(send);
      this.#send({ ...frame, ref });
    };
    this.#askers.set(ref, asker);
    if (this.state === "open") send();
    else this.#waiting.add(send);
    this.#wanted();
    return () => {
      this.#askers.delete(ref);
      this.#waiting.delete(send);
      this.#rest();
    };
  }

  get used(): boolean {
    return this.feeds.size > 0 || this.#askers.size > 0;
  }

  /** A sign that the network may be another one now. */
  wake(): void {
    if (this.state === "waiting" || this.state === "closed") void this.#connect();
    else if (this.state === "open") this.#ping(DOUBT_MS);
  }

  /** A sign that the network is gone. */
  cut(error: StoaError): void {
    if (this.state === "open") this.#lost(error);
  }

  /** Ends it for good; who waits for an answer is told why. */
  close(error = new StoaError("Closed", 0, "the client was closed")): void {
    this.#drop(1000);
    this.state = "closed";
    clearTimeout(this.#retry);
    clearTimeout(this.#idle);
    this.#unanswered(error);
  }

  /** Sends the token in place of the one it was opened with; a refusal makes it connect anew. */
  async renew(token: string): Promise<void> {
    if (this.state !== "open") return;
    let forget = () => {};
    const answered = new Promise<boolean>((resolve) => {
      forget = this.ask({ token }, { ok: () => resolve(true), failed: () => resolve(false) });
    });
    const taken = await within(answered, RENEWAL_MS);
    forget();
    if (this.state !== "open") return;
    if (taken === false) this.#lost(new StoaError("Unauthorized", 401, "the new token was refused in place"));
    else this.#renewLater(token);
  }

  // ---- connecting ----

  #wanted(): void {
    clearTimeout(this.#idle);
    this.#idle = undefined;
    if (this.state === "closed") void this.#connect();
  }

  #rest(): void {
    if (this.used || this.#idle !== undefined) return;
    this.#idle = setTimeout(() => {
      this.#idle = undefined;
      this.#hub.retire(this);
    }, this.state === "open" ? this.#hub.idleMs : 0);
  }

  async #connect(): Promise<void> {
    clearTimeout(this.#retry);
    this.state = "connecting";
    let token: string | undefined;
    let socket: WebSocketLike;
    try {
      token = await this.#hub.tokens.fresh();
      const constructor = await this.#hub.webSocket();
      if ((this.state as string) !== "connecting") return; // closed meanwhile
      if (!constructor) {
        this.#hub.useStreams(this);
        return;
      }
      const url = this.#hub.http.url("/stoa", { token });
      url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
      socket = new constructor(url.href, ["stoa.v1"]);
    } catch (error) {
      if ((this.state as string) === "connecting") this.#later(error instanceof Error ? error : new Error(String(error)), 0);
      return;
    }
    this.#socket = socket;
    this.#upgrade = setTimeout(() => void this.#refused(token), UPGRADE_MS);
    socket.onopen = () => this.#opened(token);
    socket.onerror = () => {};
    socket.onclose = () => void this.#refused(token);
  }

  #opened(token: string | undefined): void {
    const socket = this.#socket!;
    clearTimeout(this.#upgrade);
    this.state = "open";
    this.#openedAt = Date.now();
    this.#hub.opened();
    socket.onmessage = (message: { data: unknown }) => {
      if (typeof message.data === "string") this.#frame(message.data);
    };
    socket.onclose = ({ code = 1006, reason = "" }: { code?: number; reason?: string }) =>
      this.#lost(new StoaError("Closed", 0, `the connection was lost: ${code} ${reason}`.trim()));
    this.#heard = true;
    this.#pulse = setInterval(() => this.#listen(), this.#hub.pingMs / SILENCE_PARTS);
    this.#renewLater(token);
    for (const feed of this.feeds.values()) this.#send(feed.frame());
    for (const send of [...this.#waiting]) send();
    this.#rest();
  }

  /** The upgrade failed: a request learns why, for browsers do not tell. */
  async #refused(token: string | undefined): Promise<void> {
    this.#drop();
    this.state = "waiting";
    const key = this.feeds.keys().next().value ?? "-";
    const found = await this.#hub.probe(key, token);
    if (this.state !== "waiting") return;
    const { error } = found;
    if (found.what === "refused") {
      this.#fail(error);
    } else if (found.what === "forbidden") {
      this.feeds.get(key)?.fail(error);
      this.#later(error, 0);
    } else if (found.what === "fine" && this.#hub.upgradeFailed()) {
      this.#hub.useStreams(this);
    } else {
      this.#later(error, error.retryAfter ?? 0);
    }
  }

  #later(error: Error, atLeast: number): void {
    this.state = "waiting";
    for (const feed of this.feeds.values()) feed.lost(error);
    if (!this.used) {
      this.#hub.retire(this);
      return;
    }
    this.#retry = setTimeout(() => void this.#connect(), Math.max(atLeast, backoff(this.#attempt++, this.#hub.bounds)));
  }

  #lost(error: Error): void {
    if (Date.now() - this.#openedAt >= STABLE_MS) this.#attempt = 0;
    this.#drop();
    this.#unanswered(new StoaError("Unknown", 504, "the connection was lost before the answer, so it may have happened"));
    this.#later(error, 0);
  }

  /** It ends for all that it carries. */
  #fail(error: StoaError): void {
    for (const feed of [...this.feeds.values()]) feed.fail(error);
    this.#unanswered(error);
    this.#hub.retire(this);
  }

  #unanswered(error: StoaError): void {
    const askers = [...this.#askers.values()];
    this.#askers.clear();
    this.#waiting.clear();
    for (const asker of askers) asker.failed(error);
  }

  /** Lets go of the socket; nothing of it is heard any more. */
  #drop(code?: number): void {
    const socket = this.#socket;
    this.#socket = undefined;
    clearTimeout(this.#upgrade);
    clearInterval(this.#pulse);
    clearTimeout(this.#pong);
    clearTimeout(this.#renewal);
    this.#pong = undefined;
    this.#ending.clear();
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close(code);
    } catch {
      // it was closed already
    }
  }

  // ---- frames ----

  #send(frame: Record<string, unknown>): void {
    this.#socket?.send(JSON.stringify(frame));
  }

  #frame(text: string): void {
    this.#heard = true;
    let frame: Frame;
    try {
      frame = JSON.parse(text) as Frame;
    } catch {
      this.#lost(new StoaError("BadAnswer", 0, "a frame that is not JSON: is this a gateway?"));
      return;
    }
    if (frame.key !== undefined) {
      if (this.#ending.size > 0 && this.#ending.has(frame.key)) return;
      this.feeds.get(frame.key)?.event(frame.base64 === undefined ? frame as Event : this.#binary(frame), text.length);
    } else if (frame.ref !== undefined) {
      this.#answer(frame);
    } else if (frame.sub !== undefined) {
      this.#subscribed(frame as StatusFrame);
    } else if (frame.unsub !== undefined) {
      this.#unsubscribed(frame.unsub, frame.code, frame.reason ?? "");
    } else if (frame.presence !== undefined) {
      if (!this.#ending.has(frame.presence)) this.feeds.get(frame.presence)?.presence(frame as PresenceFrame);
    }
  }

  #binary(frame: Frame): Event {
    const event = { key: frame.key!, ts: frame.ts ?? 0, data: bytesOf(frame.base64!) };
    return frame.id === undefined ? event : { ...event, id: frame.id };
  }

  #subscribed(frame: StatusFrame): void {
    const feed = this.feeds.get(frame.sub);
    if (!feed || this.#ending.has(frame.sub)) return;
    if (!frame.error) {
      feed.status(frame);
      return;
    }
    this.feeds.delete(frame.sub);
    if (frame.error.tag === "BadRequest" && frame.error.message.startsWith("too many keys")) {
      this.limit = Math.max(1, this.feeds.size);
      this.#hub.place(feed);
    } else {
      feed.status(frame);
    }
    this.#rest();
  }

  #unsubscribed(key: string, code: number | undefined, reason: string): void {
    const awaited = this.#ending.get(key) ?? 0;
    if (awaited > 0) {
      if (code !== undefined) return; // the server was faster; the confirmation follows
      if (awaited > 1) this.#ending.set(key, awaited - 1);
      else this.#ending.delete(key);
      return;
    }
    const feed = this.feeds.get(key);
    if (!feed || code === undefined) return;
    this.feeds.delete(key);
    feed.ended(code, reason);
    this.#rest();
  }

  #answer(frame: Frame): void {
    const asker = this.#askers.get(frame.ref!);
    if (!asker) return;
    if (frame.item !== undefined) {
      asker.item?.(frame.item);
      return;
    }
    this.#askers.delete(frame.ref!);
    const error: Refusal | undefined = frame.error;
    if (error) asker.failed(new StoaError(error.tag, error.status ?? 0, error.message));
    else asker.ok(frame.ok);
    this.#rest();
  }

  // ---- whether anybody is there ----

  #listen(): void {
    this.#silent = this.#heard ? 0 : this.#silent + 1;
    this.#heard = false;
    if (this.#silent >= SILENCE_PARTS) this.#ping(this.#hub.pongMs);
  }

  #ping(ms: number): void {
    if (this.#pong !== undefined) return;
    this.#heard = false;
    this.#silent = 0;
    this.#send({ ping: 1 });
    this.#pong = setTimeout(() => {
      this.#pong = undefined;
      if (!this.#heard) this.#lost(new StoaError("Closed", 0, `the server has not answered for ${ms} ms`));
    }, Math.min(ms, this.#hub.pongMs));
  }

  #renewLater(token: string | undefined): void {
    clearTimeout(this.#renewal);
    const wait = this.#hub.tokens.renewIn(token);
    if (wait === undefined || wait > TIMER_MAX_MS) return;
    this.#renewal = setTimeout(() => {
      this.#hub.renew().catch(() => this.#renewLater(token));
    }, wait);
  }
}

