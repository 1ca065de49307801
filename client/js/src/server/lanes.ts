/**
 * CORE. The publisher over ZeroMQ, without sockets and clocks: client/publisher*.c in TypeScript.
 * It keeps every publish until its outcome is known, sends it through one router, and again when
 * the answer was lost or a refusal was not final. Keys are independent; the events of one key are
 * stored in the order in which they were submitted.
 *
 *   queued --sent--> in flight --PACK--------------------------------------> stored
 *                    in flight --NACK TOOBIG INVALID DENIED----------------> refused for good
 *                    in flight --NACK STALE--------------------------------> unknown
 *                    in flight --NACK BUSY RATE MOVED NOTOWNER FROZEN DISK-> queued, after a while
 *                    in flight --NACK ORDER, LOST, link down, silence------> queued
 *   any --its time is over--> unknown if it may have been stored, else refused
 *
 * A key has a lane: a random pid, under which its publishes are numbered (pseq) as they are first
 * sent. A lane's queue is in order of submission; what is in flight is a prefix of it, and whenever
 * a publish goes back to queued, all behind it in its lane do too (go-back-N). The shard takes a
 * pseq only after the one before, so nothing overtakes. When a numbered publish leaves without
 * having been stored, or the shard expects a number that is not in the queue, the lane takes a new
 * pid and numbers anew from 1; message ids stay, so the shard recognises what it has already.
 *
 * An ephemeral publish has no number, is sent once, in its place in the lane, and waits for its
 * answer outside of it.
 */
import { StoaError } from "../errors.js";
import {
  LANE_IDLE_MS,
  LANES_IDLE_MAX,
  NAME_MAX_BYTES,
  PAUSE_WISH_MAX_MS,
  PUBLISH_RETRY_MAX_MS,
  PUBLISH_RETRY_MIN_MS,
  PUBLISH_SILENCE_MS,
  PUBLISH_WINDOW_PER_KEY,
  WINDOW_DEFAULT_BYTES,
  WINDOW_DEFAULT_MESSAGES,
} from "./limits.js";
import type { RouterInfo } from "./link.js";
import { Heap, HeapNode, ListNode } from "./list.js";
import type { Outcome, Publish } from "./publish.js";
import { unknownOutcome, unreachable } from "./report.js";
import { MSG, NACK, type FieldReader, type PubFields } from "./wire.js";

/** So many of a lane are sent before the next lane has its turn. */
const LANE_QUANTUM = 16;
const CID_MAX = 0x7fffffff;
const SHIFT_MAX = 6;

/** A link as the lanes see it. */
export interface LaneLink {
  readonly up: boolean;
  pub(cid: number, fields: PubFields, pid: bigint, pseq: number, ts: number, now: number): void;
}

export interface Randomness {
  random64(): bigint;
  /** A whole number from 0 up to and not including n. */
  below(n: number): number;
}

export interface WindowBounds {
  readonly messages: number;
  readonly bytes: number;
}

class Lane extends ListNode {
  /** Publishes in order of submission: in flight, then unsent. */
  readonly queue = new ListNode();
  /** The first unsent one; `queue` when there is none. */
  next: ListNode = this.queue;
  idle = false;
  ready = false;
  inFlight = 0; // with its ephemerals
  ephemerals = 0;
  attempts = 0; // refusals and losses since the last progress
  lastPseq = 0;
  resumeAt = 0; // sends nothing before; 0: no pause
  progressAt = 0; // last answer or, with nothing in flight before, transmission
  idleSince = 0;
  readonly timer = new HeapNode<Lane>(this);

  constructor(
    readonly keyText: string,
    public pid: bigint,
  ) {
    super();
  }

  /** The first publish, if it is in flight. */
  firstFlying(): Publish | null {
    return this.queue.after !== this.next ? (this.queue.after as Publish) : null;
  }

  /** Room for one more. After a second refusal in a row one publish alone finds out whether the
   * shard takes them again. */
  windowOpen(): boolean {
    return (
      this.inFlight < PUBLISH_WINDOW_PER_KEY &&
      (this.attempts <= 1 || this.inFlight === this.ephemerals)
    );
  }
}

export interface LanesStats {
  inFlight: number;
  resent: number;
}

export class Lanes {
  private readonly lanes = new Map<string, Lane>();
  private readonly flying = new Map<number, Publish>();
  private readonly ready = new ListNode();
  private readonly idle = new ListNode(); // longest idle first
  private readonly flights = new ListNode(); // ephemerals in flight
  private idleCount = 0;
  private readonly laneTimers = new Heap<Lane>();
  private readonly deadlines = new Heap<Publish>();
  private router: LaneLink | null = null;
  private windowMessages = 0;
  private windowBytes = 0;
  private flyingBytes = 0;
  private lastCid = 0;
  private now = 0;
  private wall = 0;
  readonly stats: LanesStats = { inFlight: 0, resent: 0 };

  constructor(
    private readonly random: Randomness,
    private readonly bounds: WindowBounds,
    /** Told of each publish whose outcome is known; must not call back. */
    private readonly done: (publish: Publish, outcome: Outcome) => void,
  ) {}

  // ---- what the shell tells ----

  submit(publish: Publish, now: number): void {
    this.now = now;
    const lane = this.open(publish.order.keyText);
    publish.lane = lane;
    lane.queue.push(publish);
    if (lane.next === lane.queue) lane.next = publish;
    this.deadlines.set(publish.deadline, now + publish.order.timeout);
    this.settle(lane);
  }

  /** Its caller has lost interest: it ends, as unknown where it may have been stored, else with
   * this error. */
  giveUp(publish: Publish, error: StoaError, now: number): void {
    if (publish.ended) return;
    this.now = now;
    publish.refusal = error;
    this.end(publish, this.overdue(publish));
  }

  /** The router to send through from now on; the answers of everything in flight are lost. */
  use(link: LaneLink | null, info: RouterInfo | null, now: number): void {
    this.now = now;
    this.router = link;
    this.lostAll();
    if (!info) return;
    this.windowMessages = Math.min(
      info.windowMessages || WINDOW_DEFAULT_MESSAGES,
      this.bounds.messages,
    );
    this.windowBytes = Math.min(info.windowBytes || WINDOW_DEFAULT_BYTES, this.bounds.bytes);
  }

  /** A message of the router in use. */
  message(type: number, cid: bigint, fields: FieldReader, now: number): void {
    this.now = now;
    if (type === MSG.LOST) {
      this.lostAll();
      return;
    }
    if (type !== MSG.PACK && type !== MSG.NACK) return;
    const publish = this.flying.get(Number(cid));
    if (!publish) return; // a transmission that was given up: it gets another answer
    if (type === MSG.PACK) this.packed(publish, fields);
    else this.refused(publish, fields);
  }

  /** Times out, and sends what may be sent. */
  turn(now: number, wall: number): void {
    this.now = now;
    this.wall = wall;
    this.expire();
    this.sendReady();
  }

  deadline(): number {
    const oldest = this.idle.alone ? Infinity : (this.idle.after as Lane).idleSince + LANE_IDLE_MS;
    return Math.min(this.deadlines.next(), this.laneTimers.next(), oldest);
  }

  /** Everything pending ends, as unknown or with this error; a key's in order of submission. */
  abandon(error: StoaError, now: number): void {
    this.now = now;
    this.router = null;
    while (!this.flights.alone) this.giveUp(this.flights.after as Publish, error, now);
    for (const lane of this.lanes.values())
      while (!lane.queue.alone) this.giveUp(lane.queue.after as Publish, error, now);
  }

  // ---- lanes ----

  private open(key: string): Lane {
    let lane = this.lanes.get(key);
    if (!lane) {
      lane = new Lane(key, this.newPid());
      this.lanes.set(key, lane);
    }
    return lane;
  }

  private newPid(): bigint {
    return this.random.random64() || 1n;
  }

  private forget(lane: Lane): void {
    lane.leave();
    this.idleCount--;
    this.laneTimers.remove(lane.timer);
    this.lanes.delete(lane.keyText);
  }

  /** After any change: whether it is ready, idle, and when its timer goes. */
  private settle(lane: Lane): void {
    this.setIdle(lane, lane.queue.alone && lane.inFlight === 0);
    const unsent = lane.next !== lane.queue;
    if (!lane.idle) this.setReady(lane, unsent && lane.resumeAt === 0 && lane.windowOpen());
    this.arm(lane);
  }

  private setIdle(lane: Lane, idle: boolean): void {
    if (lane.idle === idle) return;
    lane.leave();
    lane.idle = idle;
    lane.ready = false;
    if (!idle) {
      this.idleCount--;
      return;
    }
    lane.idleSince = this.now;
    this.idleCount++;
    this.idle.push(lane);
  }

  private setReady(lane: Lane, ready: boolean): void {
    if (lane.ready === ready) return;
    lane.ready = ready;
    lane.leave();
    if (ready) this.ready.push(lane);
  }

  /** The timer may be early, never late: it looks again when it fires. */
  private arm(lane: Lane): void {
    let due = Infinity;
    if (lane.resumeAt !== 0) due = lane.resumeAt;
    if (lane.firstFlying()) due = Math.min(due, lane.progressAt + PUBLISH_SILENCE_MS);
    if (due === Infinity && lane.idle) this.laneTimers.remove(lane.timer);
    else if (due !== Infinity && (lane.timer.index < 0 || lane.timer.due > due))
      this.laneTimers.set(lane.timer, due);
  }

  // ---- sending ----

  /** The window lets one through when nothing is in flight, however large. */
  private windowOpen(publish: Publish): boolean {
    return (
      this.flying.size < this.windowMessages &&
      (this.flying.size === 0 || this.flyingBytes + publish.wireBytes <= this.windowBytes)
    );
  }

  private sendReady(): void {
    while (this.router && !this.ready.alone) {
      const lane = this.ready.after as Lane;
      const stopped = this.sendSome(lane, this.router);
      if (!stopped) {
        lane.leave(); // to the end of the line
        lane.ready = false;
      }
      this.settle(lane);
      if (stopped) return;
    }
  }

  /** Whether the publisher's window stopped it. */
  private sendSome(lane: Lane, router: LaneLink): boolean {
    for (let i = 0; i < LANE_QUANTUM && lane.next !== lane.queue && lane.windowOpen(); i++) {
      const publish = lane.next as Publish;
      if (!this.windowOpen(publish)) return true;
      this.sendOne(lane, publish, router);
    }
    return false;
  }

  private sendOne(lane: Lane, publish: Publish, router: LaneLink): void {
    if (!lane.firstFlying()) lane.progressAt = this.now;
    lane.next = publish.after;
    if (publish.ts === 0) publish.ts = this.wall;
    if (publish.ephemeral) {
      publish.leave();
      this.flights.push(publish);
      lane.ephemerals++;
    } else if (publish.pseq === 0) {
      publish.pseq = ++lane.lastPseq;
    }
    if (publish.sent++ > 0) this.stats.resent++;
    this.flightBegin(lane, publish);
    const pid = publish.ephemeral ? 0n : lane.pid;
    router.pub(publish.cid, publish, pid, publish.pseq, publish.ts, this.now);
  }

  private flightBegin(lane: Lane, publish: Publish): void {
    do this.lastCid = (this.lastCid % CID_MAX) + 1;
    while (this.flying.has(this.lastCid));
    publish.cid = this.lastCid;
    this.flying.set(publish.cid, publish);
    this.flyingBytes += publish.wireBytes;
    lane.inFlight++;
    this.stats.inFlight = this.flying.size;
  }

  private flightEnd(lane: Lane, publish: Publish): void {
    if (publish.cid === 0) return;
    this.flying.delete(publish.cid);
    publish.cid = 0;
    this.flyingBytes -= publish.wireBytes;
    lane.inFlight--;
    this.stats.inFlight = this.flying.size;
  }

  // ---- ways back ----

  /** The publish and all in flight behind it become unsent, and those behind it uncertain; itself
   * too if its answer is `lost`. */
  private goBack(lane: Lane, from: Publish, lost: boolean): void {
    for (let at: ListNode = from; at !== lane.next; at = at.after) {
      const publish = at as Publish;
      this.flightEnd(lane, publish);
      if (lost || publish !== from) publish.uncertain = true;
    }
    lane.next = from;
  }

  private numberAnew(lane: Lane): void {
    const first = lane.firstFlying();
    if (first) this.goBack(lane, first, true);
    for (let at = lane.queue.after; at !== lane.queue; at = at.after) {
      const publish = at as Publish;
      if (publish.pseq === 0 && !publish.ephemeral) break; // nothing behind it has a number
      publish.pseq = 0;
    }
    lane.pid = this.newPid();
    lane.lastPseq = 0;
  }

  /** Sends nothing for a while: as long as the refusal said, 0: by the lane's own schedule. */
  private pause(lane: Lane, wished: number): void {
    const most = Math.min(
      PUBLISH_RETRY_MIN_MS << Math.min(lane.attempts, SHIFT_MAX),
      PUBLISH_RETRY_MAX_MS,
    );
    let delay = most / 2 + this.random.below(most / 2 + 1);
    if (wished > 0) {
      delay = Math.min(wished, PAUSE_WISH_MAX_MS);
      delay += this.random.below(delay / 4 + 1);
    }
    lane.attempts++;
    lane.resumeAt = this.now + delay;
  }

  private lostAll(): void {
    while (!this.flights.alone) {
      const publish = this.flights.after as Publish;
      this.end(publish, unknownOutcome("the link to the cluster was lost before the answer came"));
    }
    if (this.flying.size === 0) return;
    for (const lane of this.lanes.values()) {
      const first = lane.firstFlying();
      if (!first) continue;
      this.goBack(lane, first, true);
      this.settle(lane);
    }
  }

  // ---- answers ----

  private packed(publish: Publish, fields: FieldReader): void {
    const epoch = fields.big();
    const seq = fields.big();
    const count = fields.number();
    const duplicate = fields.number() !== 0;
    const lane = publish.lane as Lane;
    lane.attempts = 0;
    lane.progressAt = this.now;
    const history = epoch === 0n ? null : epoch.toString(36);
    this.end(publish, {
      ok: true,
      id: history === null ? null : `${history}-${seq}`,
      first: history === null ? null : `${history}-${seq - BigInt(Math.max(count, 1)) + 1n}`,
      count,
      duplicate,
    });
  }

  private refused(publish: Publish, fields: FieldReader): void {
    const code = fields.number();
    const retryAfter = fields.number();
    const expected = fields.number();
    fields.text(NAME_MAX_BYTES); // the owner's name: the router's affair
    const lane = publish.lane as Lane;
    lane.progressAt = this.now;
    const final = finalOutcome(code, publish);
    if (final) {
      this.end(publish, final);
      return;
    }
    if (code === NACK.ORDER) {
      this.outOfOrder(lane, publish, expected);
      return;
    }
    publish.refusal = refusalOf(code);
    this.goBack(lane, publish, false);
    this.pause(lane, retryAfter);
    this.settle(lane);
  }

  private outOfOrder(lane: Lane, publish: Publish, expected: number): void {
    if (expected > publish.pseq) {
      /* The shard has taken this number, and numbers are never used twice, but it no longer knows
       * the id: stored once, and sending it under another number might store it again. */
      this.end(publish, unknownOutcome("the cluster no longer knows this event's id"));
      return;
    }
    const from = expected > 0 ? this.findNumbered(lane, expected) : null;
    if (from) this.goBack(lane, from, true);
    else this.numberAnew(lane);
    if (lane.attempts > 0) this.pause(lane, 0);
    else lane.attempts = 1;
    this.settle(lane);
  }

  private findNumbered(lane: Lane, pseq: number): Publish | null {
    for (let at = lane.queue.after; at !== lane.queue; at = at.after)
      if ((at as Publish).pseq === pseq) return at as Publish;
    return null;
  }

  // ---- time and ends ----

  private overdue(publish: Publish): Outcome {
    if (publish.cid !== 0 || publish.uncertain)
      return unknownOutcome("no answer came in time");
    return { ok: false, error: publish.refusal ?? unreachable() };
  }

  private laneDue(lane: Lane): void {
    const first = lane.firstFlying();
    if (lane.resumeAt !== 0 && lane.resumeAt <= this.now) lane.resumeAt = 0;
    if (first && this.now - lane.progressAt >= PUBLISH_SILENCE_MS) {
      this.goBack(lane, first, true);
      lane.progressAt = this.now;
    }
    this.settle(lane);
  }

  private expire(): void {
    for (let due; (due = this.deadlines.popDue(this.now)); ) this.end(due, this.overdue(due));
    for (let due; (due = this.laneTimers.popDue(this.now)); ) this.laneDue(due);
    while (!this.idle.alone) {
      const oldest = this.idle.after as Lane;
      if (this.idleCount <= LANES_IDLE_MAX && this.now - oldest.idleSince < LANE_IDLE_MS) break;
      this.forget(oldest);
    }
  }

  private end(publish: Publish, outcome: Outcome): void {
    const lane = publish.lane as Lane;
    const numbered = publish.pseq !== 0;
    if (publish.ephemeral && publish.cid !== 0) lane.ephemerals--;
    this.flightEnd(lane, publish);
    if (lane.next === publish) lane.next = publish.after;
    publish.leave();
    this.deadlines.remove(publish.deadline);
    publish.lane = null;
    publish.ended = true;
    this.done(publish, outcome);
    if (numbered && !outcome.ok) this.numberAnew(lane); // the shard may wait for its number for ever
    this.settle(lane);
  }
}

/** The outcome that a refusal means when it is final; null: it is not. Rights change: what is
 * denied now may have been stored by a transmission whose answer was lost. */
function finalOutcome(code: number, publish: Publish): Outcome | null {
  switch (code) {
    case NACK.TOOBIG:
      return failed("TooLarge", 413, "an event, or the batch, is larger than the cluster takes");
    case NACK.DENIED:
      if (publish.uncertain) return unknownOutcome("the right to publish there was withdrawn meanwhile");
      return failed("Forbidden", 403, "this publisher may not publish to that key");
    case NACK.INVALID:
      return failed("BadRequest", 400, "the cluster does not understand this publish: is it older?");
    case NACK.STALE:
      return unknownOutcome("its idempotency window is over");
    default:
      return publish.ephemeral ? { ok: false, error: refusalOf(code) } : null;
  }
}

function failed(tag: string, status: number, message: string): Outcome {
  return { ok: false, error: new StoaError(tag, status, message) };
}

function refusalOf(code: number): StoaError {
  switch (code) {
    case NACK.DISK:
      return new StoaError("DiskFull", 503, "not stored: the cluster's disk is full; try later");
    case NACK.RATE:
      return new StoaError("RateLimited", 429, "not stored: more than the room's rate; try later");
    case NACK.MOVED:
    case NACK.NOTOWNER:
    case NACK.FROZEN:
      return new StoaError("Moving", 503, "not stored: nobody owned the key in time; try later");
    default:
      return new StoaError("Busy", 503, "not stored: the room had no room for more; try later");
  }
}
