/**
 * SHELL. The ZeroMQ sockets under a publisher: one DEALER to each router, its monitor, and the
 * loop that turns links and lanes. The package `zeromq` is loaded when a publisher is opened, so
 * that who publishes over HTTP does not need it.
 *
 * The first handshake that succeeds makes its router the one in use; another takes over when it is
 * lost. libzmq reconnects by itself after a lost connection, but not after a refused key or a
 * protocol error: a dialer that has shown no sign of life for a while is opened anew.
 */
import { randomFillSync } from "node:crypto";

import type * as ZeroMQ from "zeromq";

import { StoaError } from "../errors.js";
import type { Backend, BackendStats, ZmqSettings } from "./backend.js";
import { curveKeys, type CurveKeys } from "./curve.js";
import { Lanes } from "./lanes.js";
import { LINK_DEAD_MS, LINK_HWM_PACKETS, PACKET_MAX_BYTES } from "./limits.js";
import { Link, type RouterInfo } from "./link.js";
import { messageIdOf, Publish, type Order, type Outcome } from "./publish.js";
import type { Self } from "./wire.js";
import { clusterId, XXH3_MAX_BYTES } from "./xxh3.js";

const RECONNECT_MIN_MS = 50;
const RECONNECT_MAX_MS = 1000;
const CONNECT_TIMEOUT_MS = 3000;
const HANDSHAKE_TIMEOUT_MS = 5000;
const REDIAL_AFTER_MS = 1000; // after a refusal
const REDIAL_SILENT_MS = 8000; // connecting, and nothing heard from libzmq
const RANDOM_POOL_BYTES = 4096;
const VERSION = "0.1.0";

type Zmq = typeof ZeroMQ;

async function load(): Promise<Zmq> {
  try {
    return await import("zeromq");
  } catch (cause) {
    throw new StoaError(
      "MissingPackage",
      0,
      'publishing by ZeroMQ needs the package "zeromq": npm install zeromq@6, or give { url } to publish over HTTP',
      { cause },
    );
  }
}

/** Random bytes in portions: a call for 16 of them costs more than they do. */
class RandomPool {
  private readonly pool = Buffer.alloc(RANDOM_POOL_BYTES);
  private at = RANDOM_POOL_BYTES;

  private take(size: number): Buffer {
    if (this.at + size > RANDOM_POOL_BYTES) {
      randomFillSync(this.pool);
      this.at = 0;
    }
    this.at += size;
    return this.pool.subarray(this.at - size, this.at);
  }

  bytes(size: number): Buffer {
    return Buffer.from(this.take(size));
  }

  random64(): bigint {
    return this.take(8).readBigUInt64LE();
  }

  below(n: number): number {
    return Math.floor(Math.random() * n);
  }
}

/** What a dialer tells the publisher. */
interface DialerOwner {
  readonly zmq: Zmq;
  readonly self: Self;
  readonly random: RandomPool;
  readonly curve: CurveKeys | null;
  log(line: string): void;
  linkUp(dialer: Dialer, info: RouterInfo): void;
  linkDown(dialer: Dialer): void;
  message(dialer: Dialer, type: number, cid: bigint, fields: Parameters<Lanes["message"]>[2]): void;
  wake(): void;
}

/** One router: a socket, opened anew when need be, and the link over it. */
class Dialer {
  readonly link: Link;
  info: RouterInfo | null = null;
  private socket: ZeroMQ.Dealer | null = null;
  private connected = false;
  private refused = false;
  private redialAt = 0;

  constructor(
    private readonly owner: DialerOwner,
    readonly endpoint: string,
  ) {
    const ports = {
      send: (packet: Buffer) => this.send(packet),
      random64: () => owner.random.random64(),
    };
    this.link = new Link(owner.self, ports, {
      onUp: (info) => {
        this.info = info;
        this.refused = false;
        owner.linkUp(this, info);
      },
      onDown: () => owner.linkDown(this),
      onMessage: (type, cid, fields) => owner.message(this, type, cid, fields),
      onRefused: (why) => this.complain(why),
    });
  }

  /** When {@link tick} is due. */
  deadline(): number {
    return Math.min(this.link.deadline(), this.connected ? Infinity : this.redialAt);
  }

  tick(now: number): void {
    if (!this.connected && now >= this.redialAt) this.redial(now);
    this.link.tick(now);
  }

  close(): void {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  private options(): Record<string, unknown> {
    const id = this.owner.random.bytes(12);
    id[0] = (id[0] as number) | 1; // a leading zero is libzmq's own
    const options: Record<string, unknown> = {
      routingId: id.toString("hex").slice(0, 24),
      linger: 0,
      sendTimeout: 0,
      sendHighWaterMark: LINK_HWM_PACKETS,
      receiveHighWaterMark: LINK_HWM_PACKETS,
      maxMessageSize: PACKET_MAX_BYTES + 1024,
      tcpMaxRetransmitTimeout: LINK_DEAD_MS,
      handshakeInterval: HANDSHAKE_TIMEOUT_MS,
      tcpKeepalive: 1,
      tcpKeepaliveIdle: 15,
      tcpKeepaliveInterval: 5,
      tcpKeepaliveCount: 3,
      immediate: true,
      reconnectInterval: RECONNECT_MIN_MS,
      reconnectMaxInterval: RECONNECT_MAX_MS,
      connectTimeout: CONNECT_TIMEOUT_MS,
    };
    if (this.endpoint.includes("[")) options["ipv6"] = true; // names must not resolve to ::1 first
    const curve = this.owner.curve;
    if (curve && !this.endpoint.startsWith("ipc:")) {
      options["curveSecretKey"] = curve.secretKey;
      options["curvePublicKey"] = curve.publicKey;
      options["curveServerKey"] = curve.serverKey;
    }
    return options;
  }

  private redial(now: number): void {
    this.close();
    this.redialAt = now + REDIAL_SILENT_MS;
    const socket = new this.owner.zmq.Dealer(this.options());
    this.socket = socket;
    this.watch(socket);
    void this.receive(socket);
    socket.connect(this.endpoint);
  }

  private watch(socket: ZeroMQ.Dealer): void {
    const on = (does: (now: number) => void) => () => {
      if (this.socket !== socket) return;
      does(performance.now());
      this.owner.wake();
    };
    const failed = (what: string) =>
      on((now) => {
        this.lost(now);
        this.redialAt = now + REDIAL_AFTER_MS;
        this.complain(what);
      });
    const alive = on((now) => {
      if (!this.refused) this.redialAt = now + REDIAL_SILENT_MS;
    });
    socket.events.on("connect", alive);
    socket.events.on("connect:delay", alive);
    socket.events.on("connect:retry", alive);
    socket.events.on(
      "handshake",
      on((now) => {
        this.connected = true;
        this.link.connected(now);
      }),
    );
    socket.events.on(
      "disconnect",
      on((now) => {
        this.lost(now);
        this.redialAt = now + REDIAL_SILENT_MS;
      }),
    );
    socket.events.on("handshake:error:auth", failed("the router does not allow our key"));
    socket.events.on(
      "handshake:error:protocol",
      failed("the router does not speak as we do (CURVE on one side only?)"),
    );
    socket.events.on(
      "handshake:error:other",
      failed(
        "the connection ended within the handshake (is our key in the router's cluster.curve.allowed " +
          "or cluster.peers, and curve.serverKey the router's?)",
      ),
    );
  }

  private lost(now: number): void {
    this.connected = false;
    this.link.disconnected(now);
  }

  private complain(what: string): void {
    if (!this.refused) this.owner.log(`router ${this.endpoint}: ${what}`);
    this.refused = true;
  }

  private async receive(socket: ZeroMQ.Dealer): Promise<void> {
    try {
      for await (const parts of socket) {
        if (this.socket !== socket) return;
        const packet = parts[0];
        if (packet) this.link.packet(packet, performance.now());
        this.owner.wake();
      }
    } catch (error) {
      if (this.socket !== socket) return; // closed by us
      this.complain(error instanceof Error ? error.message : String(error));
      this.lost(performance.now());
      this.owner.wake();
    }
  }

  private send(packet: Buffer): void {
    const socket = this.socket;
    if (!socket) return;
    socket.send(packet).catch(() => {
      if (this.socket !== socket) return;
      this.link.sendFailed(performance.now());
      this.owner.wake();
    });
  }
}

class ZmqBackend implements Backend, DialerOwner {
  readonly random = new RandomPool();
  readonly self: Self;
  readonly curve: CurveKeys | null;
  private readonly dialers: Dialer[];
  private readonly lanes: Lanes;
  private router: Dialer | null = null;
  private ended: { publish: Publish; outcome: Outcome }[] = [];
  private timer: ReturnType<typeof setTimeout> | null = null;
  private timerDue = Infinity;
  private woken = false;
  private closed = false;

  constructor(
    readonly zmq: Zmq,
    private readonly settings: ZmqSettings,
  ) {
    this.curve = curveKeys(settings.curve);
    if (Buffer.byteLength(settings.cluster, "utf8") > XXH3_MAX_BYTES)
      throw new StoaError("BadRequest", 0, `cluster: a name of at most ${XXH3_MAX_BYTES} bytes`);
    this.self = {
      node: this.random.bytes(16),
      boot: this.random.random64(),
      cluster: clusterId(settings.cluster),
      name: settings.name,
      version: VERSION,
    };
    this.lanes = new Lanes(this.random, settings.window, (publish, outcome) => {
      this.ended.push({ publish, outcome });
    });
    this.dialers = settings.routers.map((endpoint) => new Dialer(this, endpoint));
    this.wake();
  }

  // ---- Backend ----

  submit(order: Order, settle: (outcome: Outcome) => void): Publish {
    const messageId =
      order.idempotencyKey === undefined ? this.random.bytes(16) : messageIdOf(order.idempotencyKey);
    const publish = new Publish(order, messageId, settle);
    this.lanes.submit(publish, performance.now());
    this.wake();
    return publish;
  }

  giveUp(publish: Publish, error: StoaError): void {
    this.lanes.giveUp(publish, error, performance.now());
    this.report();
    this.wake();
  }

  stats(): BackendStats {
    return {
      ...this.lanes.stats,
      connected: this.router !== null,
      router: this.router ? this.router.endpoint : null,
    };
  }

  close(error: StoaError): void {
    if (this.closed) return;
    const now = performance.now();
    this.closed = true;
    for (const dialer of this.dialers) dialer.link.goodbye(now);
    this.lanes.abandon(error, now);
    this.report();
    if (this.timer) clearTimeout(this.timer);
    // The goodbyes have a turn of the loop to leave before the sockets end.
    setImmediate(() => {
      for (const dialer of this.dialers) dialer.close();
    });
  }

  // ---- DialerOwner ----

  log(line: string): void {
    this.settings.onLog?.(line);
  }

  linkUp(dialer: Dialer, info: RouterInfo): void {
    if (!this.router) this.use(dialer, info);
  }

  linkDown(dialer: Dialer): void {
    if (dialer !== this.router) return;
    const at = this.dialers.indexOf(dialer);
    const others = [...this.dialers.slice(at + 1), ...this.dialers.slice(0, at)];
    const other = others.find((one) => one.link.up);
    this.use(other ?? null, other?.info ?? null);
    if (!other && !this.closed) this.log(`router ${dialer.endpoint}: lost, and no other is there; events wait`);
  }

  message(dialer: Dialer, ...rest: [number, bigint, Parameters<Lanes["message"]>[2]]): void {
    if (dialer === this.router) this.lanes.message(...rest, performance.now());
  }

  /** One turn of the loop at the end of this turn of Node's, however often it is asked for. */
  wake(): void {
    if (this.woken || this.closed) return;
    this.woken = true;
    setImmediate(() => {
      this.woken = false;
      if (!this.closed) this.turn();
    });
  }

  private use(dialer: Dialer | null, info: RouterInfo | null): void {
    this.router = dialer;
    this.lanes.use(dialer?.link ?? null, info, performance.now());
  }

  // ---- the loop ----

  private turn(): void {
    const now = performance.now();
    for (const dialer of this.dialers) dialer.tick(now);
    this.lanes.turn(now, Date.now());
    for (const dialer of this.dialers) if (dialer.link.up) dialer.link.flush(now);
    this.report();
    this.arm();
  }

  private report(): void {
    while (this.ended.length > 0) {
      const ended = this.ended;
      this.ended = [];
      for (const { publish, outcome } of ended) publish.settle(outcome);
    }
  }

  /** One timer, moved only to be earlier: a turn that finds nothing due costs little. */
  private arm(): void {
    let due = this.lanes.deadline();
    for (const dialer of this.dialers) due = Math.min(due, dialer.deadline());
    if (this.timer && this.timerDue <= due) return;
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
    this.timerDue = due;
    if (due === Infinity) return;
    this.timer = setTimeout(
      () => {
        this.timer = null;
        this.timerDue = Infinity;
        if (!this.closed) this.turn();
      },
      Math.max(0, due - performance.now()),
    );
  }
}

/** Opens the sockets; connects in the background. */
export async function openZmq(settings: ZmqSettings): Promise<Backend> {
  return new ZmqBackend(await load(), settings);
}
