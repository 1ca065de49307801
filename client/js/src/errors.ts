/**
 * What can go wrong, as errors: a refusal (StoaError) and a gap (MissedError).
 */

/** Why something can no longer be given in full. */
export type MissedReason = "expired" | "evicted" | "slow" | "purged" | "epoch";

/** A range of events that cannot be given any more: after `from`, up to and including `to`. */
export interface Missed {
  readonly key: string;
  readonly from: string;
  readonly to: string;
  readonly reason: MissedReason;
}

/**
 * Thrown by an iteration without `onMissed`: everything after `from` up to and including `to` is gone.
 * What is still retained can be read with `subscribe(key, { after: error.to })`.
 */
export class MissedError extends Error implements Missed {
  override readonly name = "MissedError";
  readonly key: string;
  readonly from: string;
  readonly to: string;
  readonly reason: MissedReason;

  constructor(missed: Missed) {
    super(`events of ${missed.key} after ${missed.from} up to ${missed.to} are gone (${missed.reason}); ` +
      "load the present state and subscribe after " + missed.to + ", or pass onMissed");
    this.key = missed.key;
    this.from = missed.from;
    this.to = missed.to;
    this.reason = missed.reason;
  }
}

/** A refusal or failure, by the server's tag ("Forbidden", "NoHandler", "Busy" ...) or one of the client's own. */
export class StoaError extends Error {
  override readonly name = "StoaError";
  /**
   * The server's tag. The client's own: "Unknown" (no answer in time: it may have happened), "Unreachable" (no
   * answer, and nothing was sent), "Closed" (the client or the subscription was closed), "BadAnswer".
   */
  readonly tag: string;
  /** The HTTP status; 0 where no server answered. */
  readonly status: number;
  /** Milliseconds after which a further try makes sense, when the server said so. */
  readonly retryAfter?: number;

  constructor(tag: string, status: number, message: string, options: { retryAfter?: number; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.tag = tag;
    this.status = status;
    if (options.retryAfter !== undefined) this.retryAfter = options.retryAfter;
  }
}
