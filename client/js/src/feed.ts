/**
 * What the server sends of one key: one `sub` of a socket, or one event stream, for one or more readers. It knows
 * its position, so that it goes on behind it on whatever carries it next.
 */
import { backoff } from "./backoff.js";
import { StoaError, type Missed } from "./errors.js";
import type { Hub } from "./hub.js";
import type { Reader } from "./reader.js";
import type { Event, Member, Refusal, StatusDetail } from "./types.js";

/** Where a feed begins. */
export interface Start {
  after?: string | undefined;
  replay?: "all" | "none" | number | undefined;
  state?: unknown;
  presence: boolean;
}

/** What brings a feed's frames: a socket, or an event stream of its own. */
export interface Carrier {
  readonly transport: "websocket" | "sse";
  begin(feed: Feed): void;
  /** Nothing more of it, please. */
  end(feed: Feed): void;
}

/** The frame that answers a `sub`, and that tells of a gap in mid-stream. */
export interface StatusFrame {
  sub: string;
  status?: "live" | "resumed" | "missed";
  missed?: Omit<Missed, "key">;
  head?: string;
  error?: Refusal;
}

export interface PresenceFrame {
  presence: string;
  members?: Member[];
  join?: Member;
  leave?: { id: string };
}

/** Codes by which a server ends a key for good; after all others it is tried again. */
const goesOn = (code: number, reason: string) =>
  code === 1001 || code === 1006 || code === 1011 || code === 1013 || (code === 1012 && reason !== "replaced");
/** Refusals that another try does not change. */
const final = (status: number) => status >= 400 && status < 500 && ![401, 408, 409, 425, 429].includes(status);

export class Feed {
  readonly readers = new Set<Reader>();
  carrier: Carrier | undefined;
  live = false;
  /** Behind this the next carrier resumes. */
  position: string | undefined;
  /** Others of the same key exist, which it may join once it has caught up with one. */
  twins = false;
  /** Nothing of what is retained is still to come, so a reader of what happens from now on may share it. */
  current = false;
  #head: string | undefined;
  #members: Map<string, Member> | undefined;
  #attempt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #renewed = false;
  #awaited = new Set<() => void>();

  constructor(readonly hub: Hub, readonly key: string, readonly start: Start) {
    this.position = start.after;
  }

  /** Whether a reader that begins now may share it. */
  suits(start: Start): boolean {
    return start.after === undefined && (start.replay === undefined || start.replay === "none" || start.replay === 0) &&
      start.state === undefined && this.start.state === undefined && (!start.presence || this.start.presence) &&
      (this.live ? this.current : this.position === undefined && this.start.replay === undefined);
  }

  add(reader: Reader): void {
    this.readers.add(reader);
    if (!this.live || !this.carrier) return;
    reader.tell("live", { transport: this.carrier.transport });
    if (this.#members) reader.presence([...this.#members.values()], {});
  }

  /** The frame that begins it, or makes it go on. */
  frame(): Record<string, unknown> {
    const frame: Record<string, unknown> = { sub: this.key };
    if (this.position !== undefined) frame["after"] = this.position;
    else if (this.start.replay !== undefined) frame["replay"] = this.start.replay;
    if (this.start.state !== undefined) frame["state"] = this.start.state;
    if (this.start.presence) frame["presence"] = true;
    return frame;
  }

  // ---- from the carrier ----

  event(event: Event, size: number): void {
    if (event.id !== undefined) {
      this.position = event.id;
      if (!this.current) this.current = event.id === this.#head;
    }
    for (const reader of this.readers) reader.push(event, size);
    if (this.twins) this.hub.merge(this);
  }

  status(frame: StatusFrame): void {
    if (frame.error) {
      const { tag, status = 0, message } = frame.error;
      this.refused(new StoaError(tag, status, message));
      return;
    }
    this.#head = frame.head;
    if (frame.status === "missed" && frame.missed) this.missed(frame.missed);
    else if (frame.status === "live" && frame.head !== undefined) this.position ??= frame.head;
    this.began(frame.status === "live" || this.position === frame.head);
  }

  /** It is subscribed: what comes now is in order behind its position. */
  began(current = false): void {
    this.current = current;
    this.#attempt = 0;
    this.#renewed = false;
    if (!this.live) {
      this.live = true;
      for (const reader of this.readers) reader.tell("live", { transport: this.carrier!.transport });
    }
    for (const tell of [...this.#awaited]) tell();
    if (this.twins) this.hub.merge(this);
  }

  /** Until it is live or over. */
  settled(): Promise<void> {
    if (this.live || this.readers.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const tell = () => {
        this.#awaited.delete(tell);
        resolve();
      };
      this.#awaited.add(tell);
    });
  }

  missed({ from, to, reason }: Omit<Missed, "key">): void {
    this.position = to;
    const missed: Missed = { key: this.key, from, to, reason };
    for (const reader of this.readers) reader.missed(missed);
  }

  presence(frame: PresenceFrame): void {
    if (frame.members) {
      this.#members = new Map(frame.members.map((member) => [member.id, member]));
      this.#tellMembers({});
    } else if (this.#members && frame.join) {
      this.#members.set(frame.join.id, frame.join);
      this.#tellMembers({ join: frame.join });
    } else if (this.#members && frame.leave) {
      this.#members.delete(frame.leave.id);
      this.#tellMembers({ leave: frame.leave });
    }
  }

  /** Nothing comes until its carrier, or another one, has begun it again. */
  lost(error: Error): void {
    this.live = false;
    for (const reader of this.readers) reader.tell("reconnecting", { error });
  }

  /** The server ended this key alone. */
  ended(code: number, reason: string): void {
    this.carrier = undefined;
    if (goesOn(code, reason)) {
      this.again(new StoaError("Closed", 0, `the server ended the key: ${code} ${reason}`));
    } else if (code === 1008 && this.hub.tokens.renewable && !this.#renewed) {
      this.#renew(new StoaError("Forbidden", 403, reason));
    } else {
      const error = code === 1008 ? new StoaError("Forbidden", 403, reason) : undefined;
      this.fail(error, { code, reason });
    }
  }

  /** It is over for all of its readers. */
  fail(error: Error | undefined, detail: StatusDetail = {}): void {
    for (const reader of [...this.readers]) reader.end(error, detail);
  }

  /** Nobody reads it any more. */
  drop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.carrier?.end(this);
    this.carrier = undefined;
    for (const tell of [...this.#awaited]) tell();
  }

  /** The server refused it: for good, until there is a new token, or for now. */
  refused(error: StoaError): void {
    this.carrier = undefined;
    if (final(error.status)) this.fail(error);
    else if (error.status !== 401) this.again(error);
    else if (this.hub.tokens.renewable && !this.#renewed) this.#renew(error);
    else this.fail(error);
  }

  /** Without a carrier: a further try after a while. */
  again(error: Error): void {
    this.lost(error);
    const atLeast = error instanceof StoaError ? error.retryAfter ?? 0 : 0;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#retry(), Math.max(atLeast, backoff(this.#attempt++, this.hub.bounds)));
  }

  /** Tries at once what waits for a further try. */
  wake(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#retry();
  }

  /** With a new token it may be allowed. */
  #renew(error: StoaError): void {
    this.#renewed = true;
    this.lost(error);
    this.hub.renew().then(() => this.#retry(), (failure: unknown) => {
      this.again(failure instanceof Error ? failure : error);
    });
  }

  #retry(): void {
    this.#timer = undefined;
    if (this.readers.size > 0 && !this.carrier) this.hub.place(this);
  }

  #tellMembers(change: { join?: Member; leave?: { id: string } }): void {
    const members = [...this.#members!.values()];
    for (const reader of this.readers) reader.presence(members, change);
  }
}
