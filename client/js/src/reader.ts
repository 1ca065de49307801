/**
 * One subscription as its consumer sees it: a bounded queue in front of an iteration or a handler. What the feed
 * brings goes in at one end in order, events and notes (a gap, presence, the end) alike.
 */
import { MissedError, StoaError, type Missed } from "./errors.js";
import type { Event, Handler, Member, Presence, Status, StatusDetail, SubscribeOptions, Subscription } from "./types.js";

/** What stands among the events of a queue. */
class Note {
  constructor(
    readonly missed?: Missed,
    readonly presence?: Presence,
    readonly end?: { error: Error | undefined },
  ) {}
}

/** What a reader asks of whoever feeds it. */
export interface Feeder {
  /** The queue is full: nothing more until `resume`. */
  pause(reader: Reader): void;
  /** The queue has been taken. */
  resume(reader: Reader): void;
  /** It is over. */
  leave(reader: Reader): void;
}

type Taken = IteratorResult<Event, undefined>;
interface Waiter {
  resolve(result: Taken): void;
  reject(error: unknown): void;
}
const DONE: Taken = { value: undefined, done: true };

export class Reader implements Subscription {
  readonly ready: Promise<void>;
  readonly options: SubscribeOptions;
  status: Status = "connecting";
  lastId: string | undefined;
  paused = false;
  over = false;
  #handler: Handler<unknown> | undefined;
  #feeder: Feeder;
  #buffer: number;
  #bufferBytes: number;
  #queue: (Event | Note)[] = [];
  #sizes: number[] = [];
  #taken = 0; // of the queue, from its beginning
  #bytes = 0;
  #waiters: Waiter[] = [];
  #busy = false; // the handler's promise is pending
  #failure: { error: unknown } | undefined;
  #detail: StatusDetail = {}; // how the server ended it
  #transport: StatusDetail["transport"];
  #setReady!: { resolve(): void; reject(error: unknown): void };
  #abort = () => this.#finish({ error: this.options.signal?.reason }, true);

  constructor(readonly key: string, options: SubscribeOptions, handler: Handler<unknown> | undefined, feeder: Feeder) {
    this.options = options;
    this.#handler = handler;
    this.#feeder = feeder;
    this.#buffer = options.buffer ?? 10_000;
    this.#bufferBytes = options.bufferBytes ?? 16 * 1024 * 1024;
    this.ready = new Promise((resolve, reject) => { this.#setReady = { resolve, reject }; });
    this.ready.catch(() => {}); // who does not ask is told by the iteration, or by onError
    if (options.signal?.aborted) this.#abort();
    else options.signal?.addEventListener("abort", this.#abort, { once: true });
  }

  // ---- from the feed ----

  /** An event; `size` is about what it takes in memory. */
  push(event: Event, size: number): void {
    if (this.over) return;
    const waiter = this.#waiters.length > 0 && this.#taken === this.#queue.length ? this.#waiters.shift() : undefined;
    if (waiter) {
      if (event.id !== undefined) this.lastId = event.id;
      waiter.resolve({ value: event, done: false });
      return;
    }
    this.#queue.push(event);
    this.#sizes.push(size);
    this.#bytes += size;
    if (this.#handler) this.#drain();
    if (!this.paused && !this.over && (this.waiting > this.#buffer || this.#bytes > this.#bufferBytes)) {
      this.paused = true;
      this.tell("paused");
      this.#feeder.pause(this);
    }
  }

  missed(missed: Missed): void {
    this.#note(new Note(missed));
  }

  presence(members: readonly Member[], change: Partial<Presence>): void {
    if (this.options.onPresence) this.#note(new Note(undefined, { members, ...change }));
  }

  /** Behind all that waits: it is over, by an error or in order. */
  end(error: Error | undefined, detail: StatusDetail = {}): void {
    if (this.over) return;
    this.#detail = detail;
    this.#setReady.reject(error ?? new StoaError("Closed", 0, detail.reason || "the server ended the subscription"));
    this.#feeder.leave(this);
    this.#note(new Note(undefined, undefined, { error }));
  }

  tell(status: Status, detail: StatusDetail = {}): void {
    const same = status === this.status && (status === "live" ? detail.transport === this.#transport : status !== "reconnecting");
    if (this.status === "closed" || same) return;
    this.status = status;
    if (status === "live") this.#transport = detail.transport;
    if (status === "live") this.#setReady.resolve();
    try {
      this.options.onStatus?.(status, detail);
    } catch (error) {
      void Promise.reject(error); // the program's own mistake: unhandled, and nothing of ours stops
    }
  }

  /** How many events and notes have not been taken. */
  get waiting(): number {
    return this.#queue.length - this.#taken;
  }

  // ---- to the consumer ----

  close(): void {
    this.#finish(undefined, true);
  }

  [Symbol.asyncIterator](): AsyncIterator<Event, undefined, undefined> {
    if (this.#handler) throw new TypeError("a subscription with a handler is not iterated");
    return {
      next: () => this.#next(),
      return: () => {
        this.close();
        return Promise.resolve(DONE);
      },
    };
  }

  #next(): Promise<Taken> {
    try {
      while (this.#taken < this.#queue.length) {
        const item = this.#shift();
        if (!(item instanceof Note)) return Promise.resolve({ value: item, done: false });
        this.#heed(item);
      }
    } catch (error) {
      this.#finish({ error }, true);
    }
    if (this.#failure) {
      const { error } = this.#failure;
      this.#failure = undefined; // told once, as by a generator
      return Promise.reject(error);
    }
    if (this.over) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => { this.#waiters.push({ resolve, reject }); });
  }

  #shift(): Event | Note {
    const item = this.#queue[this.#taken]!;
    this.#bytes -= this.#sizes[this.#taken]!;
    this.#taken++;
    if (this.#taken === this.#queue.length) {
      this.#queue = [];
      this.#sizes = [];
      this.#taken = 0;
    } else if (this.#taken >= 1024 && this.#taken * 2 >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#taken);
      this.#sizes = this.#sizes.slice(this.#taken);
      this.#taken = 0;
    }
    if (!(item instanceof Note) && item.id !== undefined) this.lastId = item.id;
    if (this.paused && !this.over && this.waiting * 2 <= this.#buffer && this.#bytes * 2 <= this.#bufferBytes) {
      this.paused = false;
      this.#feeder.resume(this);
    }
    return item;
  }

  /** What a note asks for; throws what ends the subscription. */
  #heed(note: Note): void {
    if (note.missed) {
      if (!this.options.onMissed) throw new MissedError(note.missed);
      this.lastId = note.missed.to;
      this.options.onMissed(note.missed);
    } else if (note.presence) {
      this.options.onPresence?.(note.presence);
    } else {
      this.#finish(note.end?.error && { error: note.end.error }, true);
    }
  }

  #note(note: Note): void {
    if (this.over) return;
    this.#queue.push(note);
    this.#sizes.push(0);
    if (this.#handler) this.#drain();
    while (this.#waiters.length > 0 && this.waiting > 0) {
      const waiter = this.#waiters.shift()!;
      this.#next().then(waiter.resolve, waiter.reject);
    }
  }

  /** Gives the handler what waits, until it is busy. */
  #drain(): void {
    const handler = this.#handler!;
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.#taken < this.#queue.length && !this.over) {
        const item = this.#shift();
        if (item instanceof Note) {
          this.#heed(item);
          continue;
        }
        const pending = handler(item);
        if (typeof (pending as PromiseLike<unknown> | undefined | null)?.then === "function") {
          (pending as PromiseLike<unknown>).then(() => {
            this.#busy = false;
            this.#drain();
          }, (error: unknown) => this.#finish({ error }, true));
          return;
        }
      }
    } catch (error) {
      this.#finish({ error }, true);
    }
    this.#busy = false;
  }

  /** The end, now: what waits is dropped. */
  #finish(failure: { error: unknown } | undefined, leave: boolean): void {
    if (this.over) return;
    this.over = true;
    this.#queue = [];
    this.#sizes = [];
    this.#taken = this.#bytes = 0;
    this.options.signal?.removeEventListener("abort", this.#abort);
    if (leave) this.#feeder.leave(this);
    const error = failure?.error;
    this.#setReady.reject(error ?? new StoaError("Closed", 0, "the subscription was closed"));
    this.tell("closed", failure && error instanceof Error ? { ...this.#detail, error } : this.#detail);
    if (this.#handler) {
      const deliberate = this.options.signal?.aborted && error === this.options.signal.reason;
      if (failure && !deliberate) this.#report(error);
      return;
    }
    const [first, ...others] = this.#waiters.splice(0);
    if (failure && first) first.reject(error);
    else if (first) first.resolve(DONE);
    else if (failure) this.#failure = failure;
    for (const other of others) other.resolve(DONE);
  }

  #report(error: unknown): void {
    if (this.options.onError) this.options.onError(error instanceof Error ? error : new Error(String(error)));
    else void Promise.reject(error); // unhandled, so that nobody overlooks it
  }
}
