/**
 * SHELL. The queue with a publisher behind it, which is opened in the background: what is emitted meanwhile waits.
 */
import { RareLog } from "./log.js";
import { connectPublisher, QUEUE_BYTES, QUEUE_EVENTS, TIMEOUT_MS, type ConnectOptions, type EventPublisher } from "./options.js";
import { EmitQueue, type Ending, type Item, type QueueCounts } from "./queue.js";

/** How many events were emitted, and what came of them. */
export interface EmitStats extends Readonly<QueueCounts> {
  /** Now waiting or on their way, and about the memory of those that wait. */
  readonly queuedEvents: number;
  readonly queuedBytes: number;
}

const LANES = 64;
const CLOSE_TIMEOUT_MS = 5000;

export class Outbox {
  /** Rejected when no publisher can be had; every event is then dropped, and counted. */
  readonly ready: Promise<void>;
  private readonly queue: EmitQueue;
  private readonly opening: Promise<EventPublisher>;
  private readonly drops: RareLog;
  private readonly failures: RareLog;
  private readonly timeout: number;
  private readonly own: boolean;

  constructor(options: ConnectOptions, perKey: number) {
    const write = options.onLog ?? ((line: string) => console.warn(line));
    this.drops = new RareLog(write);
    this.failures = new RareLog(write);
    this.timeout = options.timeout ?? TIMEOUT_MS;
    this.own = !options.publisher;
    this.queue = new EmitQueue(
      {
        events: options.maxQueue?.events ?? QUEUE_EVENTS,
        bytes: options.maxQueue?.bytes ?? QUEUE_BYTES,
        lanes: LANES,
        perKey,
      },
      (item) => this.publish(item),
      () => this.drops.say(() => this.dropLine()),
    );
    this.opening = connectPublisher(options);
    this.ready = this.opening.then(() => undefined);
    this.ready.catch((error: unknown) => this.failures.say(() => `nothing can be published: ${reasonOf(error)}`));
  }

  /** A key or a text that is none, which types do not keep from happening, is counted as failed. */
  add(key: unknown, text: unknown, name: string | undefined): void {
    if (typeof key === "string" && typeof text === "string") {
      this.queue.add({ key, text, name });
      return;
    }
    this.queue.counts.emitted++;
    this.queue.counts.failed++;
    this.failures.say(() => `an event was not stored: its key is a ${typeof key}, its text a ${typeof text}; strings are wanted`);
  }

  stats(): EmitStats {
    return { ...this.queue.counts, queuedEvents: this.queue.events, queuedBytes: this.queue.bytes };
  }

  /** Whether everything was published or given up within so many milliseconds. */
  async flush(timeout = CLOSE_TIMEOUT_MS): Promise<boolean> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<boolean>((resolve) => (timer = setTimeout(() => resolve(false), timeout)));
    try {
      return await Promise.race([this.queue.flushed().then(() => true), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Flushes, gives up the rest, and closes the publisher if it was opened here. Never rejects. */
  async close(timeout = CLOSE_TIMEOUT_MS): Promise<void> {
    const end = performance.now() + timeout;
    await this.flush(timeout);
    this.queue.close();
    const publisher = await this.opening.catch(() => undefined);
    if (this.own) await publisher?.close?.(Math.max(0, end - performance.now())).catch(() => undefined);
  }

  private dropLine(): string {
    const { droppedProgress, droppedEvents, failed } = this.queue.counts;
    return `events are dropped: ${droppedProgress} of progress and ${droppedEvents} others as the queue was full, ` +
      `${failed} failed; ${this.queue.events} wait`;
  }

  private async publish(item: Item): Promise<Ending> {
    try {
      const publisher = await this.opening;
      await publisher.publish(item.key, Buffer.from(item.text, "utf8"), { conflate: item.name, timeout: this.timeout });
      return "stored";
    } catch (error) {
      if ((error as { tag?: unknown } | null)?.tag === "Busy") return "busy";
      this.failures.say(() => `an event was not stored: ${reasonOf(error)}`);
      return "failed";
    }
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
