/**
 * CORE. One publish on its way, and the check of what callers give: the rules of client/publish.c
 * and of the gateway's POST /publish, so that what is refused is refused before it waits.
 */
import { createHash } from "node:crypto";

import { StoaError } from "../errors.js";
import type { PublishOptions } from "../types.js";
import {
  BATCH_MAX_BYTES,
  BATCH_MAX_EVENTS,
  CONFLATE_MAX_BYTES,
  FILTER_MAX_BYTES,
  IDEMPOTENCY_KEY_MAX_BYTES,
  KEY_MAX_BYTES,
  PAYLOAD_HARD_MAX_BYTES,
} from "./limits.js";
import { HeapNode, ListNode } from "./list.js";
import { EMPTY, encodeFilter, pubWireBytes, type FilterNames, type PubFields } from "./wire.js";

/** How a publish ended. `stored: "maybe"`: the same idempotency key again tells. */
export type Outcome =
  | {
      readonly ok: true;
      readonly id: string | null;
      readonly first: string | null;
      readonly count: number;
      readonly duplicate: boolean;
    }
  | { readonly ok: false; readonly error: StoaError };

/** What a caller wants published, checked. */
export interface Order {
  readonly keyText: string;
  readonly key: Buffer;
  readonly parts: readonly Buffer[];
  /** Given as a batch: all or none. */
  readonly batch: boolean;
  readonly idempotencyKey: string | undefined;
  readonly conflateText: string | undefined;
  readonly conflate: Buffer;
  readonly ephemeral: boolean;
  readonly names: FilterNames;
  readonly filter: Buffer;
  readonly timeout: number;
}

/** What this costs in memory besides its bytes, about. */
const RECORD_BYTES = 512;

/** What it takes of the queue's bound. */
export function orderBytes(order: Order): number {
  return RECORD_BYTES + pubWireBytes(order);
}

/** One publish until its outcome is known; a node of its lane's queue. */
export class Publish extends ListNode implements PubFields {
  readonly key: Buffer;
  readonly messageId: Buffer;
  readonly conflate: Buffer;
  readonly filter: Buffer;
  readonly parts: readonly Buffer[];
  readonly ephemeral: boolean;
  /** What it takes of the queue's bound. */
  readonly bytes: number;
  readonly wireBytes: number;
  readonly deadline = new HeapNode<Publish>(this);

  /** Where it waits; the publisher's own. */
  lane: object | null = null;
  /** Of the transmission that is in flight; 0: none. */
  cid = 0;
  /** Under the lane's present pid; 0: not numbered. */
  pseq = 0;
  /** Wall clock of the first transmission. */
  ts = 0;
  /** Transmissions, for the statistics. */
  sent = 0;
  /** An earlier transmission's answer was lost: maybe stored. */
  uncertain = false;
  /** The last refusal; what the error is when its time is over. */
  refusal: StoaError | null = null;
  /** Its outcome is known. */
  ended = false;

  constructor(
    readonly order: Order,
    messageId: Buffer,
    readonly settle: (outcome: Outcome) => void,
  ) {
    super();
    this.key = order.key;
    this.messageId = messageId;
    this.conflate = order.conflate;
    this.filter = order.filter;
    this.parts = order.parts;
    this.ephemeral = order.ephemeral;
    this.wireBytes = pubWireBytes(order);
    this.bytes = orderBytes(order);
  }
}

/** The message id that an idempotency key stands for, the same in every client and gateway. */
export function messageIdOf(idempotencyKey: string): Buffer {
  return createHash("sha256").update(idempotencyKey, "utf8").digest().subarray(0, 16);
}

// ---- checking ----

function refuse(tag: string, message: string): never {
  throw new StoaError(tag, 0, message);
}

/** A text that is UTF-8 as it is: half of a surrogate pair would become another character. */
function wellFormed(text: string): boolean {
  return !/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text);
}

export function checkKey(key: string): Buffer {
  if (typeof key !== "string") refuse("BadKey", 'key: a text is wanted, like "upload:abc123"');
  const bytes = Buffer.from(key, "utf8");
  const control = /[\u0000-\u001f\u007f-\u009f]/.test(key);
  if (bytes.length === 0 || bytes.length > KEY_MAX_BYTES || control || !wellFormed(key))
    refuse("BadKey", "key: 1 to 256 bytes of UTF-8 without control characters");
  if (key.startsWith("$")) refuse("BadKey", "key: what begins with $ is the system's own");
  return bytes;
}

/** The payload as it is stored: bytes stay as they are, anything else becomes JSON. */
export function payloadOf(data: unknown): Buffer {
  if (data instanceof Uint8Array)
    return Buffer.from(data); // a copy: the caller may reuse his
  const text: string | undefined = JSON.stringify(data);
  if (text === undefined)
    refuse("BadRequest", "data: a JSON value or a Uint8Array is wanted; undefined and functions are none");
  return Buffer.from(text, "utf8");
}

function checkNames(name: string, list: readonly string[] | undefined): void {
  if (list === undefined) return;
  if (!Array.isArray(list) || list.some((one) => typeof one !== "string" || !wellFormed(one)))
    refuse("BadRequest", `${name}: a list of texts is wanted`);
}

function checkFilter(options: PublishOptions): { names: FilterNames; filter: Buffer } {
  const names = { except: options.except, to: options.to, tags: options.tags };
  checkNames("except", names.except);
  checkNames("to", names.to);
  checkNames("tags", names.tags);
  const filter = encodeFilter(names);
  if (filter.length > FILTER_MAX_BYTES)
    refuse("TooLarge", "tags, to and except together are at most 4 KiB; give many readers a tag");
  return { names, filter };
}

function checkConflate(conflate: string | undefined): Buffer {
  if (conflate === undefined) return EMPTY;
  const bytes = Buffer.from(String(conflate), "utf8");
  const fits = typeof conflate === "string" && bytes.length > 0 && wellFormed(conflate);
  if (!fits || bytes.length > CONFLATE_MAX_BYTES)
    refuse("BadRequest", "conflate: 1 to 64 bytes of UTF-8");
  return bytes;
}

function checkIdempotencyKey(key: string | undefined): void {
  if (key === undefined) return;
  const size = typeof key === "string" ? Buffer.byteLength(key, "utf8") : 0;
  if (size === 0 || size > IDEMPOTENCY_KEY_MAX_BYTES || !wellFormed(key))
    refuse("BadRequest", "idempotencyKey: 1 to 255 bytes");
}

function checkSizes(parts: readonly Buffer[]): void {
  if (parts.length === 0) refuse("BadRequest", "a batch has at least one event");
  let sum = 0;
  for (const part of parts) {
    if (part.length > PAYLOAD_HARD_MAX_BYTES)
      refuse("TooLarge", "an event is at most 1 MiB (512 KiB unless the cluster is configured so)");
    sum += part.length;
  }
  if (parts.length > BATCH_MAX_EVENTS || sum > BATCH_MAX_BYTES)
    refuse("TooLarge", "a batch is at most 256 events and 1 MiB");
}

/** Throws a StoaError that says which argument breaks which rule. */
export function checkOrder(
  key: string,
  data: readonly unknown[],
  batch: boolean,
  options: PublishOptions,
  defaultTimeout: number,
): Order {
  const keyBytes = checkKey(key);
  const conflate = checkConflate(options.conflate);
  checkIdempotencyKey(options.idempotencyKey);
  const { names, filter } = checkFilter(options);
  const timeout = options.timeout ?? defaultTimeout;
  if (!(timeout > 0)) refuse("BadRequest", "timeout: milliseconds, more than 0");
  const parts = data.map(payloadOf);
  checkSizes(parts);
  return {
    keyText: key,
    key: keyBytes,
    parts,
    batch,
    idempotencyKey: options.idempotencyKey,
    conflateText: options.conflate,
    conflate,
    ephemeral: options.ephemeral === true,
    names,
    filter,
    timeout,
  };
}
