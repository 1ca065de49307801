/**
 * CORE. What was emitted and is not yet stored: bounded in count and bytes, a lane for each key.
 *
 *   add ─► lane of the key: one at the publisher, the others wait ─► stored, or given up
 *
 * The events of a key are published one after the other, so their order holds whatever fails. A newer event of the
 * same key and name takes the place of the one that waits. When the queue is full the oldest waiting event that has a
 * name (progress) makes room; without one the new event is dropped. Nothing here waits or throws.
 */

export interface QueueBounds {
  readonly events: number;
  readonly bytes: number;
  /** Keys with an event at the publisher at a time. */
  readonly lanes: number;
  /** Events of one key at the publisher at a time. Beyond one, a refusal by the publisher may swap two of them. */
  readonly perKey: number;
}

/** What came of the events, since the beginning. */
export interface QueueCounts {
  /** Events that were given to it. */
  emitted: number;
  /** Stored, as the cluster said. */
  stored: number;
  /** Replaced by a newer one before they were sent. */
  conflated: number;
  /** Given up because the queue was full: progress, and all other events. */
  droppedProgress: number;
  droppedEvents: number;
  /** Given up by the publisher: refused, or not acknowledged in time (those may have been stored). */
  failed: number;
}

/** One event on its way. */
export interface Item {
  readonly key: string;
  readonly text: string;
  readonly name: string | undefined;
}

/** How a publish ended. "busy": it was not taken, and may be given again. */
export type Ending = "stored" | "failed" | "busy";

interface Waiting extends Item {
  readonly lane: Lane;
  readonly bytes: number;
  gone: boolean;
}

interface Lane {
  waiting: Waiting[];
  first: number; // of `waiting`; those before it have gone
  live: number; // of those from `first` on, the rest has gone
  sent: number;
  paused: boolean;
  listed: boolean; // in `ready`
  readonly named: Map<string, Waiting>;
}

/** Memory that an event takes besides its text, about. */
const ITEM_BYTES = 128;
const BUSY_PAUSE_MS = 100;
/** Places of a lane that may be empty besides half of it. */
const SPARE = 32;

export class EmitQueue {
  readonly counts: QueueCounts = { emitted: 0, stored: 0, conflated: 0, droppedProgress: 0, droppedEvents: 0, failed: 0 };
  private readonly lanes = new Map<string, Lane>();
  private readonly named = new Set<Waiting>(); // of all lanes, the oldest first
  private readonly ready: Lane[] = [];
  private readonly idle: (() => void)[] = [];
  private readonly timers = new Set<ReturnType<typeof setTimeout>>();
  private waitingEvents = 0;
  private waitingBytes = 0;
  private namedBytes = 0;
  private sentEvents = 0;
  private open = true;

  /** `send` publishes one event and never throws; `onDrop` hears of every event that is given up. */
  constructor(
    private readonly bounds: QueueBounds,
    private readonly send: (item: Item) => Promise<Ending>,
    private readonly onDrop: () => void,
  ) {}

  /** Events that wait or are at the publisher, and the bytes of those that wait. */
  get events(): number {
    return this.waitingEvents + this.sentEvents;
  }
  get bytes(): number {
    return this.waitingBytes;
  }

  add(item: Item): void {
    this.counts.emitted++;
    const lane = this.laneOf(item.key);
    const waiting: Waiting = { ...item, lane, bytes: 2 * item.text.length + ITEM_BYTES, gone: false };
    const older = item.name === undefined ? undefined : lane.named.get(item.name);
    if (older) {
      this.remove(older);
      this.counts.conflated++;
    }
    if (!this.open || !this.makeRoom(waiting)) {
      this.drop(waiting);
      this.forget(item.key, lane);
      return;
    }
    lane.waiting.push(waiting);
    this.account(waiting);
    this.compact(lane);
    this.list(lane);
    this.sendSome();
  }

  /** Fulfilled when nothing waits or is at the publisher. */
  flushed(): Promise<void> {
    if (this.events === 0) return Promise.resolve();
    return new Promise((resolve) => this.idle.push(resolve));
  }

  /** Gives up what waits; what is at the publisher ends there. */
  close(): void {
    this.open = false;
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    for (const lane of this.lanes.values()) {
      for (const waiting of lane.waiting.slice(lane.first)) {
        if (waiting.gone) continue;
        this.remove(waiting);
        this.drop(waiting);
      }
      lane.waiting.length = lane.first = 0;
    }
    this.wakeIdle();
  }

  // ---- room ----

  private fits(waiting: Waiting): boolean {
    return this.events < this.bounds.events && this.waitingBytes + waiting.bytes <= this.bounds.bytes;
  }

  /** Whether it would fit if nothing with a name waited. */
  private mayFit(waiting: Waiting): boolean {
    return this.events - this.named.size < this.bounds.events &&
      this.waitingBytes - this.namedBytes + waiting.bytes <= this.bounds.bytes;
  }

  private makeRoom(waiting: Waiting): boolean {
    if (!this.mayFit(waiting)) return false;
    for (const older of this.named) {
      if (this.fits(waiting)) break;
      this.remove(older);
      this.drop(older);
    }
    return this.fits(waiting);
  }

  private drop(waiting: Waiting): void {
    if (waiting.name === undefined) this.counts.droppedEvents++;
    else this.counts.droppedProgress++;
    this.onDrop();
  }

  private account(waiting: Waiting): void {
    this.waitingEvents++;
    this.waitingBytes += waiting.bytes;
    waiting.lane.live++;
    if (waiting.name === undefined) return;
    waiting.lane.named.set(waiting.name, waiting);
    this.named.add(waiting);
    this.namedBytes += waiting.bytes;
  }

  /** Takes one that waits out of the accounts; its place in the lane is passed over. */
  private remove(waiting: Waiting): void {
    waiting.gone = true;
    this.waitingEvents--;
    this.waitingBytes -= waiting.bytes;
    waiting.lane.live--;
    if (this.named.delete(waiting)) this.namedBytes -= waiting.bytes;
    if (waiting.name !== undefined && waiting.lane.named.get(waiting.name) === waiting) waiting.lane.named.delete(waiting.name);
  }

  // ---- lanes ----

  private laneOf(key: string): Lane {
    let lane = this.lanes.get(key);
    if (!lane) {
      lane = { waiting: [], first: 0, live: 0, sent: 0, paused: false, listed: false, named: new Map() };
      this.lanes.set(key, lane);
    }
    return lane;
  }

  private forget(key: string, lane: Lane): void {
    this.trim(lane);
    if (lane.sent === 0 && !lane.paused && lane.waiting.length === 0 && this.lanes.get(key) === lane) this.lanes.delete(key);
  }

  /** Passes over those that have gone, and gives their memory back now and then. */
  private trim(lane: Lane): void {
    while (lane.waiting[lane.first]?.gone) lane.first++;
    if (lane.first === lane.waiting.length || lane.first > 64 && lane.first * 2 > lane.waiting.length) {
      lane.waiting.splice(0, lane.first);
      lane.first = 0;
    }
  }

  /** So that those that were replaced or dropped take no memory while the first one waits. */
  private compact(lane: Lane): void {
    if (lane.waiting.length - lane.first <= 2 * lane.live + SPARE) return;
    lane.waiting = lane.waiting.filter((waiting, i) => i >= lane.first && !waiting.gone);
    lane.first = 0;
  }

  private list(lane: Lane): void {
    if (lane.listed || lane.paused || lane.sent >= this.bounds.perKey) return;
    lane.listed = true;
    this.ready.push(lane);
  }

  private sendSome(): void {
    while (this.open && this.ready.length > 0 && this.sentEvents < this.bounds.lanes * this.bounds.perKey) {
      const lane = this.ready.shift() as Lane;
      lane.listed = false;
      this.trim(lane);
      const waiting = lane.waiting[lane.first];
      if (!waiting) continue;
      this.remove(waiting);
      lane.sent++;
      this.sentEvents++;
      if (lane.waiting.length > lane.first + 1) this.list(lane);
      void this.send(waiting).then((ending) => this.ended(waiting, ending));
    }
  }

  private ended(waiting: Waiting, ending: Ending): void {
    const { lane } = waiting;
    lane.sent--;
    this.sentEvents--;
    if (ending === "stored") this.counts.stored++;
    else if (ending === "busy" && this.open) this.again(waiting);
    else {
      this.counts.failed++;
      this.onDrop();
    }
    this.trim(lane);
    if (lane.waiting.length > lane.first) this.list(lane);
    this.forget(waiting.key, lane);
    this.sendSome();
    if (this.events === 0) this.wakeIdle();
  }

  /** The publisher did not take it: it is the lane's first again, after a while. */
  private again(waiting: Waiting): void {
    const { lane } = waiting;
    const newer = waiting.name === undefined ? undefined : lane.named.get(waiting.name);
    if (newer) this.counts.conflated++;
    else {
      const back: Waiting = { ...waiting, gone: false };
      if (lane.first > 0) lane.waiting[--lane.first] = back;
      else lane.waiting.unshift(back);
      this.account(back);
    }
    lane.paused = true;
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      lane.paused = false;
      this.list(lane);
      this.sendSome();
      this.forget(waiting.key, lane);
    }, BUSY_PAUSE_MS);
    this.timers.add(timer);
  }

  private wakeIdle(): void {
    for (const resolve of this.idle.splice(0)) resolve();
  }
}
