/**
 * SHELL. What a program holds: the bounded queue, promises and statistics in front of a backend.
 */
import { StoaError } from "../errors.js";
import type { Published, PublishedBatch, PublishOptions } from "../types.js";
import type { Backend } from "./backend.js";
import { checkOrder, orderBytes, type Order, type Outcome } from "./publish.js";

/** How a `tryPublish` ended. */
export type Ended =
  | { readonly published: PublishedBatch; readonly error?: undefined }
  | { readonly published?: undefined; readonly error: StoaError };

export interface TryPublishOptions extends Omit<PublishOptions, "signal"> {
  /** Told the outcome, once. What it throws is an uncaught exception. */
  onDone?: ((ended: Ended) => void) | undefined;
}

export interface PublisherStats {
  /** Events accepted and not yet reported, and what they take of `maxQueue.bytes`. */
  readonly queuedEvents: number;
  readonly queuedBytes: number;
  /** Publishes sent and without an answer. */
  readonly inFlight: number;
  /** Since it was opened: publishes stored (those that had been stored before are among them) ... */
  readonly stored: number;
  readonly duplicates: number;
  /** ... of unknown outcome, ... */
  readonly unknown: number;
  /** ... surely not stored, ... */
  readonly failed: number;
  /** ... refused at once because the queue was full. */
  readonly busy: number;
  /** Transmissions beyond each publish's first. */
  readonly resent: number;
  /** Whether a router or gateway takes events now, and which. */
  readonly connected: boolean;
  readonly router: string | null;
}

/** What was still under way when a publisher was closed. */
export interface Closed {
  /** Publishes that may have been stored: their promises were rejected with tag "Unknown". */
  readonly unknown: number;
  /** Publishes that surely were not: rejected with tag "Closed". */
  readonly unsent: number;
}

/** Publishes events; made by {@link openPublisher}. */
export interface Publisher extends AsyncDisposable {
  /**
   * Stores one event; fulfilled when it is on disk. `data` becomes JSON, a Uint8Array is stored byte for byte. Events
   * of one key are stored in the order of the calls. Rejects with a StoaError: "Busy" when the queue is full, "Unknown"
   * when it may have been stored (the same `idempotencyKey` again tells), anything else when it surely was not.
   */
  publish(key: string, data: unknown, options?: PublishOptions): Promise<Published>;
  /** Several events of one key, at most 256 and 1 MiB: all or none, contiguous. */
  publishBatch(key: string, data: readonly unknown[], options?: PublishOptions): Promise<PublishedBatch>;
  /** Never waits and rejects nothing: false when the queue is full. Throws when an argument breaks a rule. */
  tryPublish(key: string, data: unknown, options?: TryPublishOptions): boolean;
  /** Fulfilled when the queue is at most half full: to be awaited after "Busy". */
  drained(): Promise<void>;
  stats(): PublisherStats;
  /** Waits for everything accepted before it; false: it was not all reported within `timeout` milliseconds. */
  flush(timeout?: number): Promise<boolean>;
  /** Waits up to `timeout` milliseconds (5,000) for what is under way, ends the rest, and the connections. */
  close(timeout?: number): Promise<Closed>;
}

export interface QueueBounds {
  readonly events: number;
  readonly bytes: number;
}

interface Flusher {
  readonly before: number;
  left: number;
  done(): void;
}

const CLOSE_TIMEOUT_MS = 5000;

function closedError(): StoaError {
  return new StoaError("Closed", 0, "not stored: the publisher was closed");
}

export class BoundedPublisher implements Publisher {
  private events = 0;
  private bytes = 0;
  private pending = 0;
  private accepted = 0;
  private readonly counts = { stored: 0, duplicates: 0, unknown: 0, failed: 0, busy: 0 };
  private flushers: Flusher[] = [];
  private drainers: (() => void)[] = [];
  private closing: Promise<Closed> | null = null;

  constructor(
    private readonly backend: Backend,
    private readonly bounds: QueueBounds,
    private readonly timeout: number,
  ) {}

  async publish(key: string, data: unknown, options: PublishOptions = {}): Promise<Published> {
    const { id, duplicate } = await this.publishOrder(this.order(key, [data], false, options), options.signal);
    return { id, duplicate };
  }

  async publishBatch(key: string, data: readonly unknown[], options: PublishOptions = {}): Promise<PublishedBatch> {
    return await this.publishOrder(this.order(key, data, true, options), options.signal);
  }

  tryPublish(key: string, data: unknown, options: TryPublishOptions = {}): boolean {
    const order = this.order(key, [data], false, options);
    if (this.closing) throw closedError();
    const { onDone } = options;
    if (!this.fits(order)) return false;
    this.accept(order, (outcome) => {
      if (onDone) queueMicrotask(() => onDone(outcome.ok ? { published: publishedOf(outcome) } : { error: outcome.error }));
    });
    return true;
  }

  drained(): Promise<void> {
    if (this.halfEmpty() || this.closing) return Promise.resolve();
    return new Promise((resolve) => this.drainers.push(resolve));
  }

  stats(): PublisherStats {
    return { queuedEvents: this.events, queuedBytes: this.bytes, ...this.counts, ...this.backend.stats() };
  }

  flush(timeout?: number): Promise<boolean> {
    if (this.pending === 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      const flusher: Flusher = { before: this.accepted, left: this.pending, done: () => finish(true) };
      const timer = timeout === undefined ? undefined : setTimeout(() => finish(false), timeout);
      const finish = (all: boolean): void => {
        clearTimeout(timer);
        this.flushers = this.flushers.filter((one) => one !== flusher);
        resolve(all);
      };
      this.flushers.push(flusher);
    });
  }

  close(timeout = CLOSE_TIMEOUT_MS): Promise<Closed> {
    this.closing ??= this.closeNow(timeout);
    return this.closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async closeNow(timeout: number): Promise<Closed> {
    await this.flush(timeout);
    const { unknown, failed } = this.counts;
    this.backend.close(closedError());
    this.wakeDrainers();
    return { unknown: this.counts.unknown - unknown, unsent: this.counts.failed - failed };
  }

  private order(key: string, data: readonly unknown[], batch: boolean, options: PublishOptions): Order {
    return checkOrder(key, data, batch, options, this.timeout);
  }

  private async publishOrder(order: Order, signal: AbortSignal | undefined): Promise<PublishedBatch> {
    signal?.throwIfAborted();
    if (this.closing) throw closedError();
    if (!this.fits(order))
      throw new StoaError("Busy", 0, "not stored: the publisher's queue is full (maxQueue); await drained() and try again");
    const outcome = await new Promise<Outcome>((resolve) => {
      const publish = this.accept(order, (outcome) => {
        signal?.removeEventListener("abort", abort);
        resolve(outcome);
      });
      const abort = (): void => this.backend.giveUp(publish, new StoaError("Aborted", 0, "not stored: aborted"));
      signal?.addEventListener("abort", abort, { once: true });
    });
    if (outcome.ok) return publishedOf(outcome);
    if (signal?.aborted && outcome.error.tag === "Aborted") throw signal.reason;
    throw outcome.error;
  }

  // ---- the queue ----

  private fits(order: Order): boolean {
    const fits = this.events + order.parts.length <= this.bounds.events && this.bytes + orderBytes(order) <= this.bounds.bytes;
    if (!fits) this.counts.busy++;
    return fits;
  }

  private accept(order: Order, settle: (outcome: Outcome) => void): ReturnType<Backend["submit"]> {
    const serial = this.accepted + 1;
    const publish = this.backend.submit(order, (outcome) => {
      this.count(outcome);
      this.events -= order.parts.length;
      this.bytes -= publish.bytes;
      this.pending--;
      settle(outcome);
      if (this.drainers.length > 0 && this.halfEmpty()) this.wakeDrainers();
      for (const flusher of this.flushers) if (serial <= flusher.before && --flusher.left === 0) flusher.done();
    });
    this.accepted = serial;
    this.events += order.parts.length;
    this.bytes += publish.bytes;
    this.pending++;
    return publish;
  }

  private count(outcome: Outcome): void {
    if (outcome.ok) this.counts.stored++;
    if (outcome.ok && outcome.duplicate) this.counts.duplicates++;
    if (!outcome.ok && outcome.error.tag === "Unknown") this.counts.unknown++;
    if (!outcome.ok && outcome.error.tag !== "Unknown") this.counts.failed++;
  }

  private halfEmpty(): boolean {
    return this.events <= this.bounds.events / 2 && this.bytes <= this.bounds.bytes / 2;
  }

  private wakeDrainers(): void {
    const drainers = this.drainers;
    this.drainers = [];
    for (const drainer of drainers) drainer();
  }
}

function publishedOf(outcome: Extract<Outcome, { ok: true }>): PublishedBatch {
  const { id, first, count, duplicate } = outcome;
  return { id, first, count, duplicate };
}
