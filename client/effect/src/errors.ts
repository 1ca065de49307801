/**
 * What can go wrong, as tagged errors. The tags are the server's, and those of Durable Object rooms
 * where they have the same meaning, so `Effect.catchTag` works across processes.
 */
import { Data } from "effect";

/** What every failure tells. */
export interface Failed {
  readonly message: string;
  /** The room's type and id. */
  readonly room: string;
  readonly id: string;
  /** The HTTP status; 0: nobody answered, or it was refused here. */
  readonly status: number;
  /** Milliseconds after which another try makes sense, when the server said so. */
  readonly retryAfter?: number;
  readonly cause?: unknown;
}

/** The room could not work on what it keeps: storage, state, alarm. */
export class RoomError extends Data.TaggedError("RoomError")<Failed> {}
/** An event, message, input, state or answer is not what its schema asks for. */
export class RoomValidationError extends Data.TaggedError("RoomValidationError")<Failed> {}
/** The room's handler failed; the shard's log says how. */
export class RoomExecutionError extends Data.TaggedError("RoomExecutionError")<Failed> {}
/** The room said no, by `room.error(code, …)`: `code`, and `data` when it added some. */
export class RoomRefusal extends Data.TaggedError("RoomRefusal")<
  Failed & { readonly code: string; readonly data?: unknown }
> {}
/** A message to one connection could not be sent. */
export class SendError extends Data.TaggedError("SendError")<Failed> {}
/** A broadcast could not be sent. */
export class BroadcastError extends Data.TaggedError("BroadcastError")<Failed> {}
/** A connection could not be let in. */
export class UpgradeError extends Data.TaggedError("UpgradeError")<Failed> {}
/** A connection's state is larger than `max_connection_state`. */
export class AttachmentTooLargeError extends Data.TaggedError("AttachmentTooLargeError")<Failed> {}
/** The configuration declares no such room type. */
export class NoSuchType extends Data.TaggedError("NoSuchType")<Failed> {}
/** The room exports no such method. */
export class NoSuchMethod extends Data.TaggedError("NoSuchMethod")<Failed> {}
/** The room's type has no handler. */
export class NoHandler extends Data.TaggedError("NoHandler")<Failed> {}
/** An argument breaks a rule: the id, an idempotency key, what is no JSON. */
export class BadRequest extends Data.TaggedError("BadRequest")<Failed> {}
/** What was sent is larger than `gateway.limits.message`. */
export class TooLarge extends Data.TaggedError("TooLarge")<Failed> {}
/** No token, or one that the gateway does not accept. */
export class Unauthorized extends Data.TaggedError("Unauthorized")<Failed> {}
/** The token is not valid any more. */
export class TokenExpired extends Data.TaggedError("TokenExpired")<Failed> {}
/** The token's rights do not allow it. */
export class Forbidden extends Data.TaggedError("Forbidden")<Failed> {}
/** More than the type's rate; nothing ran. */
export class RateLimited extends Data.TaggedError("RateLimited")<Failed> {}
/** Nobody took it until the time was over; nothing ran. */
export class Busy extends Data.TaggedError("Busy")<Failed> {}
/** No gateway was reached; nothing ran. */
export class Unreachable extends Data.TaggedError("Unreachable")<Failed> {}
/** No answer in time: maybe it ran. The same `idempotencyKey` again, within 5 minutes, tells. */
export class Unknown extends Data.TaggedError("Unknown")<Failed> {}

/** What any request may meet. */
export type RequestFailure =
  | Unauthorized
  | TokenExpired
  | Forbidden
  | NoSuchType
  | NoHandler
  | BadRequest
  | RateLimited
  | Busy
  | Unreachable
  | Unknown
  | RoomError
  | RoomValidationError;

/** What running the room's code may meet besides. */
export type RunFailure =
  | RequestFailure
  | RoomExecutionError
  | RoomRefusal
  | SendError
  | BroadcastError
  | UpgradeError
  | AttachmentTooLargeError
  | NoSuchMethod
  | TooLarge;

/** Everything. */
export type RoomFailure = RunFailure;

type Constructor = new (fields: Failed) => RoomFailure;

const classes: Record<string, Constructor> = {
  RoomError,
  RoomValidationError,
  RoomExecutionError,
  SendError,
  BroadcastError,
  UpgradeError,
  AttachmentTooLargeError,
  NoSuchType,
  NoSuchMethod,
  NoHandler,
  BadRequest,
  BadKey: BadRequest,
  BadId: BadRequest,
  NotFound: BadRequest,
  MethodNotAllowed: BadRequest,
  UnsupportedType: BadRequest,
  TooLarge,
  Unauthorized,
  TokenExpired,
  Forbidden,
  OriginRefused: Forbidden,
  RateLimited,
  Busy,
  Moving: Busy,
  DiskFull: Busy,
  Draining: Busy,
  Unknown,
};

/** The failure that a refused request means. A tag that is none of the server's is the room's own. */
export function failureOf(tag: string, fields: Failed, data: unknown): RoomFailure {
  const known = Object.hasOwn(classes, tag) ? classes[tag] : undefined;
  if (known) return new known(fields);
  return new RoomRefusal({ ...fields, code: tag, ...(data === undefined ? {} : { data }) });
}
