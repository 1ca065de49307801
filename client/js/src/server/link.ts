/**
 * CORE. One link to a router, seen from the side that connects: the state machine of proto/hub.h
 * without sockets and clocks. Times are milliseconds of a monotonic clock, and arguments.
 *
 *   down --connected--> HELLO sent --WELCOME--> up
 *   up --silence, a gap in the counters, RESET, GOODBYE, disconnected, a send that failed--> down;
 *   while the socket is connected, HELLO with a new incarnation: at once (after GOODBYE: in
 *   LINK_HEARTBEAT_MS), then every LINK_HEARTBEAT_MS.
 *
 * What was sent over a link that went down, and not answered, may be lost: onDown tells.
 */
import {
  LINK_DEAD_MS,
  LINK_HEARTBEAT_MS,
  LINK_RESET_INTERVAL_MS,
  NAME_MAX_BYTES,
  PACKET_TARGET_BYTES,
} from "./limits.js";
import {
  Malformed,
  MSG,
  PacketWriter,
  readMessages,
  readPacketHeader,
  type FieldReader,
  type PubFields,
  type Self,
} from "./wire.js";

/** What a WELCOME says. */
export interface RouterInfo {
  readonly name: string;
  readonly version: string;
  readonly windowMessages: number;
  readonly windowBytes: number;
}

export interface LinkHandler {
  onUp(info: RouterInfo): void;
  onDown(): void;
  /** A message that is not about the link. `fields` are to be read at once. */
  onMessage(type: number, cid: bigint, fields: FieldReader): void;
  /** The router refuses this publisher, and why. */
  onRefused(why: string): void;
}

export interface LinkPorts {
  /** Sends one packet. A failure is told later, by {@link Link.sendFailed}. */
  send(packet: Buffer): void;
  random64(): bigint;
}

type State = "down" | "helloSent" | "up";

const ERROR_TEXT_MAX_BYTES = 256;

export class Link {
  private state: State = "down";
  private isConnected = false;
  private incarnation = 0n;
  private sent = 0;
  private received = 0n;
  private heardAt = 0;
  private sentAt = 0;
  private helloAt = -Infinity;
  private helloDue = 0;
  private closed = false;
  private readonly out = new PacketWriter();

  constructor(
    private readonly self: Self,
    private readonly ports: LinkPorts,
    private readonly handler: LinkHandler,
  ) {}

  get up(): boolean {
    return this.state === "up";
  }

  /** When {@link tick} is due. */
  deadline(): number {
    if (this.closed) return Infinity;
    if (this.state === "up")
      return Math.min(this.heardAt + LINK_DEAD_MS, this.sentAt + LINK_HEARTBEAT_MS);
    return this.isConnected ? this.helloDue : Infinity;
  }

  // ---- from the socket ----

  connected(now: number): void {
    this.down(now);
    this.isConnected = true;
    this.hello(now);
  }

  disconnected(now: number): void {
    this.isConnected = false;
    this.down(now);
  }

  sendFailed(now: number): void {
    if (this.state !== "down") this.down(now);
  }

  packet(packet: Buffer, now: number): void {
    if (this.closed || this.state === "down") return; // about an incarnation that is over
    try {
      this.arrived(packet, now);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this.down(now);
    }
  }

  /** Heartbeats and death; to be called when {@link deadline} has come, early is fine. */
  tick(now: number): void {
    if (this.closed) return;
    if (this.state === "up" && now - this.heardAt >= LINK_DEAD_MS) this.down(now);
    if (this.state === "up" && now - this.sentAt >= LINK_HEARTBEAT_MS) {
      if (this.out.count === 0) this.out.ping();
      this.flush(now);
    }
    if (this.isConnected && this.state !== "up" && now >= this.helloDue) this.hello(now);
  }

  // ---- sending ----

  /** Queues one publish; it leaves with {@link flush}, or at once when the packet is large. */
  pub(cid: number, fields: PubFields, pid: bigint, pseq: number, ts: number, now: number): void {
    this.out.pub(cid, fields, pid, pseq, ts);
    if (this.out.size >= PACKET_TARGET_BYTES) this.flush(now);
  }

  flush(now: number): void {
    if (this.out.count === 0) return;
    this.sentAt = now;
    this.ports.send(this.out.end(this.incarnation, ++this.sent));
  }

  /** Says that nothing more comes; the link is silent from then on. */
  goodbye(now: number): void {
    if (this.state === "up") {
      this.out.goodbye();
      this.flush(now);
    }
    this.closed = true;
    this.down(now);
  }

  // ---- state ----

  private hello(now: number): void {
    this.incarnation = this.ports.random64() || 1n;
    this.sent = 0;
    this.received = 0n;
    this.heardAt = now;
    this.helloAt = now;
    this.helloDue = now + LINK_HEARTBEAT_MS;
    this.state = "helloSent";
    this.out.clear();
    this.out.hello(this.self);
    this.flush(now);
  }

  private down(now: number, helloIn = 0): void {
    const wasUp = this.state === "up";
    this.state = "down";
    this.out.clear();
    this.helloDue = Math.max(now + helloIn, this.helloAt + LINK_RESET_INTERVAL_MS);
    if (wasUp) this.handler.onDown();
  }

  // ---- what arrives ----

  private arrived(packet: Buffer, now: number): void {
    const header = readPacketHeader(packet);
    if (header.incarnation !== this.incarnation) return;
    if (header.counter === 0n) {
      for (const m of readMessages(packet, header.count)) {
        if (m.type === MSG.RESET) this.down(now);
        else if (m.type === MSG.ERR) this.refused(m.fields);
        return;
      }
      return;
    }
    if (header.counter !== this.received + 1n) {
      this.down(now); // packets were lost
      return;
    }
    this.received = header.counter;
    this.heardAt = now;
    for (const m of readMessages(packet, header.count)) {
      this.message(m.type, m.cid, m.fields, now);
      if (!this.up) return;
    }
  }

  private message(type: number, cid: bigint, fields: FieldReader, now: number): void {
    if (this.state === "helloSent") {
      if (type === MSG.WELCOME) this.welcome(fields);
      else this.down(now);
      return;
    }
    switch (type) {
      case MSG.PING:
      case MSG.HELLO:
      case MSG.WELCOME:
      case MSG.RESET:
        return;
      case MSG.GOODBYE:
        this.down(now, LINK_HEARTBEAT_MS);
        return;
      case MSG.ERR:
        this.refused(fields);
        return;
      default:
        this.deliver(type, cid, fields);
    }
  }

  /** A message whose fields cannot be read has no effect; what asked for it goes out again. */
  private deliver(type: number, cid: bigint, fields: FieldReader): void {
    try {
      this.handler.onMessage(type, cid, fields);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
    }
  }

  private refused(fields: FieldReader): void {
    fields.number();
    this.handler.onRefused(fields.text(ERROR_TEXT_MAX_BYTES));
  }

  private welcome(fields: FieldReader): void {
    fields.number(); // role
    fields.bin(16);
    fields.big(); // boot
    fields.big(); // version of the ring
    const windowMessages = fields.number();
    const windowBytes = fields.number();
    fields.number(); // idempotency window
    const name = fields.text(NAME_MAX_BYTES);
    const version = fields.text(NAME_MAX_BYTES);
    this.state = "up";
    this.handler.onUp({ name, version, windowMessages, windowBytes });
  }
}
