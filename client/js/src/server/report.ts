/**
 * CORE. The words for how a publish can end badly, the same over ZeroMQ and HTTP.
 */
import { StoaError } from "../errors.js";
import type { Outcome } from "./publish.js";

/** Maybe stored. */
export function unknownOutcome(why: string, cause?: unknown): Outcome {
  const message = `${why}: maybe stored; retry with the same idempotency key to learn it`;
  return { ok: false, error: new StoaError("Unknown", 504, message, { cause }) };
}

export function unreachable(): StoaError {
  return new StoaError("Unreachable", 0, "not stored: the cluster was not reached in time; try again");
}
