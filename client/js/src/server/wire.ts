/**
 * CORE. The bytes on the link between a publisher and a router, as docs/protocol.md has them: a
 * packet carries messages, a message is a head (msgpack) and a body (payloads, byte for byte).
 *
 * Written by hand: the first six elements of a head must stand at fixed width, which no msgpack
 * library does, and what a publisher reads (WELCOME, PACK, NACK, ERR) is a handful of integers and
 * texts. Every length from outside is compared with the bytes left before it is used.
 */
import { BODY_MAX_BYTES, HEAD_MAX_BYTES, PACKET_MAX_BYTES } from "./limits.js";

export const MSG = {
  HELLO: 1,
  WELCOME: 2,
  PING: 3,
  RESET: 4,
  GOODBYE: 5,
  ERR: 6,
  LOST: 7,
  PUB: 10,
  PACK: 11,
  NACK: 12,
} as const;

export const NACK = {
  BUSY: 1,
  RATE: 2,
  MOVED: 3,
  NOTOWNER: 4,
  FROZEN: 5,
  ORDER: 6,
  TOOBIG: 7,
  DENIED: 8,
  DISK: 9,
  STALE: 10,
  INVALID: 11,
} as const;

export const PUB_EPHEMERAL = 1;
export const ROLE_PUBLISHER = 1;

const MAGIC = 0x53; // 'S'
const VERSION = 1;
const SLOT_UNKNOWN = 0xffff;
const PACKET_HEADER_BYTES = 24;
const MESSAGE_HEADER_BYTES = 8;
const PREFIX_KEY = 26;
const PREFIX_ELEMENTS = 6;
const FIRST_BYTES = 4096;

/** What HELLO says of this publisher. */
export interface Self {
  readonly node: Buffer; // 16 bytes
  readonly boot: bigint;
  readonly cluster: bigint;
  readonly name: string;
  readonly version: string;
}

/** What a PUB is made of; the publisher's record of a publish has these. */
export interface PubFields {
  readonly key: Buffer;
  readonly messageId: Buffer; // 16 bytes
  readonly ephemeral: boolean;
  readonly conflate: Buffer;
  readonly filter: Buffer;
  readonly parts: readonly Buffer[];
}

/** Everything in it, once: for the windows. */
export function pubWireBytes(p: Omit<PubFields, "messageId">): number {
  let payload = 0;
  for (const part of p.parts) payload += part.length;
  return (
    128 + p.parts.length * 5 + p.key.length + p.conflate.length + p.filter.length + payload
  );
}

/** A packet being filled. One writer makes one packet after the other; each is memory of its own,
 * because ZeroMQ sends from where it lies. */
export class PacketWriter {
  private bytes: Buffer;
  private at = PACKET_HEADER_BYTES;
  private headAt = 0;
  /** Messages in it. */
  count = 0;

  constructor() {
    this.bytes = Buffer.allocUnsafe(FIRST_BYTES);
  }

  get size(): number {
    return this.at;
  }

  /** Drops what was put. */
  clear(): void {
    this.at = PACKET_HEADER_BYTES;
    this.count = 0;
  }

  /** Fills in the header and gives the packet away. */
  end(incarnation: bigint, counter: number): Buffer {
    const packet = this.bytes.subarray(0, this.at);
    packet.writeUInt8(MAGIC, 0);
    packet.writeUInt8(VERSION, 1);
    packet.writeUInt16LE(0, 2);
    packet.writeUInt32LE(this.count, 4);
    packet.writeBigUInt64LE(incarnation, 8);
    packet.writeBigUInt64LE(BigInt(counter), 16);
    this.bytes = Buffer.allocUnsafe(FIRST_BYTES);
    this.clear();
    return packet;
  }

  hello(self: Self): void {
    this.begin(MSG.HELLO, 0, 8, EMPTY);
    this.uint(ROLE_PUBLISHER);
    this.bin(self.node);
    this.u64(self.boot);
    this.u64(self.cluster);
    this.uint(1); // proto_max
    this.uint(0); // caps
    this.str(Buffer.from(self.name, "utf8"));
    this.str(Buffer.from(self.version, "utf8"));
    this.finish(0);
  }

  ping(): void {
    this.begin(MSG.PING, 0, 0, EMPTY);
    this.finish(0);
  }

  goodbye(): void {
    this.begin(MSG.GOODBYE, 0, 0, EMPTY);
    this.finish(0);
  }

  pub(cid: number, p: PubFields, pid: bigint, pseq: number, ts: number): void {
    this.begin(MSG.PUB, cid, 8, p.key);
    this.bin(p.messageId);
    if (pid === 0n) this.uint(0);
    else this.u64(pid);
    this.uint(pseq);
    this.uint(p.ephemeral ? PUB_EPHEMERAL : 0);
    this.str(p.conflate);
    this.bin(p.filter);
    this.uint(ts);
    this.array(p.parts.length);
    for (const part of p.parts) this.uint(part.length);
    let body = 0;
    for (const part of p.parts) {
      this.raw(part);
      body += part.length;
    }
    this.finish(body);
  }

  // ---- one message ----

  private begin(type: number, cid: number, fields: number, key: Buffer): void {
    this.room(MESSAGE_HEADER_BYTES + PREFIX_KEY + 3 + key.length);
    this.headAt = this.at + MESSAGE_HEADER_BYTES;
    const b = this.bytes;
    let at = this.headAt;
    b[at] = 0xdc;
    b.writeUInt16BE(PREFIX_ELEMENTS + fields, at + 1);
    b[at + 3] = VERSION;
    b[at + 4] = type;
    b[at + 5] = 0xcf;
    b.writeUInt32BE(0, at + 6);
    b.writeUInt32BE(cid, at + 10);
    b[at + 14] = 0xcd;
    b.writeUInt16BE(SLOT_UNKNOWN, at + 15);
    b[at + 17] = 0xcf;
    b.writeUInt32BE(0, at + 18);
    b.writeUInt32BE(0, at + 22);
    at += PREFIX_KEY;
    if (key.length < 256) {
      b[at] = 0xd9;
      b[at + 1] = key.length;
      at += 2;
    } else {
      b[at] = 0xda;
      b.writeUInt16BE(key.length, at + 1);
      at += 3;
    }
    this.at = at;
    this.raw(key);
  }

  private finish(body: number): void {
    const head = this.at - this.headAt - body;
    this.bytes.writeUInt32LE(head, this.headAt - 8);
    this.bytes.writeUInt32LE(body, this.headAt - 4);
    this.count++;
  }

  private room(more: number): void {
    if (this.at + more <= this.bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, this.at + more));
    this.bytes.copy(larger, 0, 0, this.at);
    this.bytes = larger;
  }

  // ---- msgpack, each value in its shortest form ----

  private raw(bytes: Buffer): void {
    this.room(bytes.length);
    bytes.copy(this.bytes, this.at);
    this.at += bytes.length;
  }

  private u64(value: bigint): void {
    this.room(9);
    this.bytes[this.at] = 0xcf;
    this.bytes.writeBigUInt64BE(value, this.at + 1);
    this.at += 9;
  }

  private uint(value: number): void {
    this.room(9);
    const b = this.bytes;
    if (value < 0x80) {
      b[this.at++] = value;
    } else if (value < 0x100) {
      b[this.at] = 0xcc;
      b[this.at + 1] = value;
      this.at += 2;
    } else if (value < 0x10000) {
      b[this.at] = 0xcd;
      b.writeUInt16BE(value, this.at + 1);
      this.at += 3;
    } else if (value < 0x100000000) {
      b[this.at] = 0xce;
      b.writeUInt32BE(value, this.at + 1);
      this.at += 5;
    } else {
      b[this.at] = 0xcf;
      b.writeUInt32BE(Math.floor(value / 0x100000000), this.at + 1);
      b.writeUInt32BE(value % 0x100000000, this.at + 5);
      this.at += 9;
    }
  }

  private str(text: Buffer): void {
    this.room(3);
    if (text.length < 32) {
      this.bytes[this.at++] = 0xa0 | text.length;
    } else {
      this.bytes[this.at] = 0xd9; // names and conflate values: at most 64 bytes
      this.bytes[this.at + 1] = text.length;
      this.at += 2;
    }
    this.raw(text);
  }

  private bin(bytes: Buffer): void {
    this.room(3);
    if (bytes.length < 256) {
      this.bytes[this.at] = 0xc4;
      this.bytes[this.at + 1] = bytes.length;
      this.at += 2;
    } else {
      this.bytes[this.at] = 0xc5;
      this.bytes.writeUInt16BE(bytes.length, this.at + 1);
      this.at += 3;
    }
    this.raw(bytes);
  }

  private array(count: number): void {
    this.room(3);
    if (count < 16) {
      this.bytes[this.at++] = 0x90 | count;
    } else {
      this.bytes[this.at] = 0xdc;
      this.bytes.writeUInt16BE(count, this.at + 1);
      this.at += 3;
    }
  }
}

export const EMPTY = Buffer.alloc(0);

// ---- filters ----

/** Whom an event is for; names are texts. */
export interface FilterNames {
  readonly except?: readonly string[] | undefined;
  readonly to?: readonly string[] | undefined;
  readonly tags?: readonly string[] | undefined;
}

function filterText(out: Buffer[], text: string): void {
  const bytes = Buffer.from(text, "utf8");
  const n = bytes.length;
  if (n < 32) out.push(Buffer.from([0xa0 | n]));
  else if (n < 256) out.push(Buffer.from([0xd9, n]));
  else out.push(Buffer.from([0xda, n >> 8, n & 0xff]));
  out.push(bytes);
}

/** The map {except, to, tags} of those that are given; no bytes: everybody. */
export function encodeFilter(names: FilterNames): Buffer {
  const given = (["except", "to", "tags"] as const).filter((name) => names[name] !== undefined);
  if (given.length === 0) return EMPTY;
  const out: Buffer[] = [Buffer.from([0x80 | given.length])];
  for (const name of given) {
    const list = names[name] ?? [];
    filterText(out, name);
    out.push(
      list.length < 16
        ? Buffer.from([0x90 | list.length])
        : Buffer.from([0xdc, (list.length >> 8) & 0xff, list.length & 0xff]),
    );
    for (const text of list) filterText(out, text);
  }
  return Buffer.concat(out);
}

// ---- reading ----

/** A message, read as far as a publisher has use for it. */
export interface Incoming {
  readonly type: number;
  readonly cid: bigint;
  readonly fields: FieldReader;
}

export interface PacketHeader {
  readonly count: number;
  readonly incarnation: bigint;
  readonly counter: bigint;
}

/** The bytes are not what the protocol says. */
export class Malformed extends Error {}

export function readPacketHeader(packet: Buffer): PacketHeader {
  if (packet.length < PACKET_HEADER_BYTES || packet.length > PACKET_MAX_BYTES)
    throw new Malformed("size of the packet");
  if (packet[0] !== MAGIC || packet[1] !== VERSION || packet.readUInt16LE(2) !== 0)
    throw new Malformed("first bytes of the packet");
  const count = packet.readUInt32LE(4);
  if (count > (packet.length - PACKET_HEADER_BYTES) / MESSAGE_HEADER_BYTES)
    throw new Malformed("count of messages");
  return {
    count,
    incarnation: packet.readBigUInt64LE(8),
    counter: packet.readBigUInt64LE(16),
  };
}

/** The messages of a packet, one by one; a message whose prefix is not as it must be is skipped. */
export function* readMessages(packet: Buffer, count: number): Generator<Incoming> {
  let at = PACKET_HEADER_BYTES;
  for (let i = 0; i < count; i++) {
    if (packet.length - at < MESSAGE_HEADER_BYTES) throw new Malformed("size of a message");
    const headSize = packet.readUInt32LE(at);
    const bodySize = packet.readUInt32LE(at + 4);
    at += MESSAGE_HEADER_BYTES;
    if (headSize > HEAD_MAX_BYTES || bodySize > BODY_MAX_BYTES)
      throw new Malformed("size of a message");
    if (headSize + bodySize > packet.length - at) throw new Malformed("size of a message");
    const head = packet.subarray(at, at + headSize);
    at += headSize + bodySize;
    const message = readHead(head);
    if (message) yield message;
  }
  if (at !== packet.length) throw new Malformed("bytes behind the last message");
}

function readHead(head: Buffer): Incoming | null {
  if (head.length < PREFIX_KEY + 2 || head[0] !== 0xdc || head[3] !== VERSION) return null;
  if (head[5] !== 0xcf || head[14] !== 0xcd || head[17] !== 0xcf) return null;
  const elements = head.readUInt16BE(1);
  let at = PREFIX_KEY;
  if (head[at] === 0xd9) at += 2 + (head[at + 1] as number);
  else if (head[at] === 0xda && head.length >= PREFIX_KEY + 3) at += 3 + head.readUInt16BE(at + 1);
  else return null;
  if (elements < PREFIX_ELEMENTS || at > head.length) return null;
  return {
    type: head[4] as number,
    cid: head.readBigUInt64BE(6),
    fields: new FieldReader(head, at, elements - PREFIX_ELEMENTS),
  };
}

/** The fields of a head in order. A missing one has its zero value; another type than asked for is
 * {@link Malformed}. */
export class FieldReader {
  constructor(
    private readonly bytes: Buffer,
    private at: number,
    private left: number,
  ) {}

  private next(): number {
    this.left--;
    const byte = this.bytes[this.at++];
    if (byte === undefined) throw new Malformed("a field is missing");
    return byte;
  }

  private take(size: number): Buffer {
    if (size > this.bytes.length - this.at) throw new Malformed("a field is cut off");
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }

  /** An integer that is not negative; exact up to 64 bits. */
  big(): bigint {
    if (this.left === 0) return 0n;
    const form = this.next();
    if (form < 0x80) return BigInt(form);
    switch (form) {
      case 0xcc:
        return BigInt(this.take(1).readUInt8());
      case 0xcd:
        return BigInt(this.take(2).readUInt16BE());
      case 0xce:
        return BigInt(this.take(4).readUInt32BE());
      case 0xcf:
        return this.take(8).readBigUInt64BE();
      default:
        throw new Malformed("an integer is wanted");
    }
  }

  /** The same where what is beyond 2^53 may be rounded. */
  number(): number {
    if (this.left === 0) return 0;
    const first = this.bytes[this.at];
    if (first !== undefined && first < 0x80) return this.next();
    return Number(this.big());
  }

  text(max: number): string {
    if (this.left === 0) return "";
    const form = this.next();
    let size: number;
    if (form >= 0xa0 && form <= 0xbf) size = form & 0x1f;
    else if (form === 0xd9) size = this.take(1).readUInt8();
    else if (form === 0xda) size = this.take(2).readUInt16BE();
    else throw new Malformed("a text is wanted");
    if (size > max) throw new Malformed("a text is too long");
    return this.take(size).toString("utf8");
  }

  bin(max: number): Buffer {
    if (this.left === 0) return EMPTY;
    const form = this.next();
    let size: number;
    if (form === 0xc4) size = this.take(1).readUInt8();
    else if (form === 0xc5) size = this.take(2).readUInt16BE();
    else throw new Malformed("bytes are wanted");
    if (size > max) throw new Malformed("too many bytes");
    return this.take(size);
  }
}
