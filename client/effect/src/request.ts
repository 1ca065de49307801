/**
 * One request to the gateway as an Effect: tried again while that is safe, aborted when its fiber
 * is interrupted.
 *
 *   503                        nothing ran: again after Retry-After
 *   504, lost on the way       maybe it ran: again, as a read or under the same idempotency key,
 *                              which answers what had run without running it twice
 *   everything else            the answer
 */
import { Clock, Duration, Effect, Random } from "effect";

import { Busy, failureOf, Unknown, Unreachable, type Failed, type RoomFailure } from "./errors.js";

const RETRY_MIN_MS = 50;
const RETRY_MAX_MS = 2000;
/** A gateway answers within 10 s. */
const ATTEMPT_TIMEOUT_MS = 15_000;
/** Errors of a connection that never stood: nothing was sent. */
const NOT_CONNECTED = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT", "bad port"]);

/** A token, or how to get one; asked before each request. */
export type Token = string | Effect.Effect<string, unknown>;

export interface Gateway {
  readonly base: URL;
  readonly token: Token | undefined;
  readonly fetch: typeof globalThis.fetch;
  readonly timeout: Duration.Duration;
}

export interface RoomRequest {
  readonly room: string;
  readonly id: string;
  readonly method: "GET" | "POST" | "DELETE";
  /** Behind /api/TYPE/ID. */
  readonly verb: string;
  readonly query?: Readonly<Record<string, string>>;
  /** JSON. */
  readonly body?: string;
  readonly idempotencyKey?: string;
}

/** What one try brought. `failed.maybe`: it may have run all the same. */
type Attempt =
  | { readonly value: unknown }
  | { readonly failure: RoomFailure; readonly again: boolean; readonly maybe: boolean };

function targetOf(base: URL, request: RoomRequest): URL {
  const path = `${base.pathname.replace(/\/$/, "")}/api/${encodeURIComponent(request.room)}/${encodeURIComponent(request.id)}`;
  const url = new URL(path + request.verb, base);
  for (const [name, value] of Object.entries(request.query ?? {})) url.searchParams.set(name, value);
  return url;
}

function failed(request: RoomRequest, status: number, message: string, more: { retryAfter?: number; cause?: unknown } = {}): Failed {
  return { room: request.room, id: request.id, status, message, ...more };
}

interface ErrorBody {
  readonly error?: { readonly tag?: unknown; readonly message?: unknown; readonly data?: unknown };
}

/** The answer of a gateway, or of a proxy in front of it. */
function judge(request: RoomRequest, status: number, retryAfter: string | null, text: string): Attempt {
  let body: unknown;
  try {
    body = text === "" ? null : JSON.parse(text);
  } catch {
    body = undefined;
  }
  if (status === 200 && body !== undefined) return { value: body };
  const told = (body as ErrorBody | null | undefined)?.error;
  const seconds = retryAfter === null ? NaN : Number(retryAfter);
  const fields = failed(
    request,
    status,
    typeof told?.message === "string" ? told.message : `the answer was ${status}, and not a gateway's`,
    Number.isFinite(seconds) ? { retryAfter: seconds * 1000 } : {},
  );
  if (typeof told?.tag !== "string") {
    const maybe = status === 200 || status >= 500;
    return maybe
      ? { failure: new Unknown(fields), again: true, maybe }
      : { failure: failureOf("BadRequest", fields, undefined), again: false, maybe };
  }
  return {
    failure: failureOf(told.tag, fields, told.data),
    again: status === 503 || status === 504,
    maybe: status === 504,
  };
}

/** A room's own error may have any status, 503 too; it ran. */
function ran(attempt: Attempt): boolean {
  return "failure" in attempt && attempt.failure._tag === "RoomRefusal";
}

function notReached(request: RoomRequest, host: string, error: unknown): Attempt {
  const { code, message } = (error as { cause?: { code?: unknown; message?: unknown } }).cause ?? {};
  const why = message === "bad port" ? message : String(code); // a port that fetch never asks
  const maybe = !NOT_CONNECTED.has(why);
  const words = maybe ? `${host} did not answer` : `${host} was not reached (${why}): nothing ran`;
  return { failure: new Unreachable(failed(request, 0, words, { cause: error })), again: true, maybe };
}

async function fetchOnce(
  gateway: Gateway,
  request: RoomRequest,
  token: string | undefined,
  milliseconds: number,
  signal: AbortSignal,
): Promise<Attempt> {
  const headers: Record<string, string> = {};
  if (token !== undefined) headers["authorization"] = `Bearer ${token}`;
  if (request.body !== undefined) headers["content-type"] = "application/json";
  if (request.idempotencyKey !== undefined)
    headers["idempotency-key"] = String.fromCharCode(...new TextEncoder().encode(request.idempotencyKey));
  const ending = new AbortController();
  const end = (): void => ending.abort();
  const timer = setTimeout(end, milliseconds);
  signal.addEventListener("abort", end, { once: true });
  try {
    const answer = await gateway.fetch(targetOf(gateway.base, request), {
      method: request.method,
      headers,
      redirect: "error",
      signal: ending.signal,
      ...(request.body === undefined ? {} : { body: request.body }),
    });
    return judge(request, answer.status, answer.headers.get("retry-after"), await answer.text());
  } catch (error) {
    return notReached(request, gateway.base.host, error);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
  }
}

function tokenOf(gateway: Gateway, request: RoomRequest): Effect.Effect<string | undefined, RoomFailure> {
  const { token } = gateway;
  if (token === undefined || typeof token === "string") return Effect.succeed(token);
  return Effect.mapError(token, (cause) =>
    failureOf("Unauthorized", failed(request, 0, "no token could be had: nothing ran", { cause }), undefined));
}

/** What is told when the time is over. */
function outOfTime(request: RoomRequest, maybe: boolean, last: RoomFailure | null): RoomFailure {
  if (!maybe) return last ?? new Busy(failed(request, 0, "the time was over before it began: nothing ran"));
  const how = request.method === "GET" ? "" : "; maybe it ran: the same idempotencyKey again tells";
  return new Unknown(failed(request, 504, `no answer in time${how}`, { cause: last }));
}

const delayOf = (attempt: number, wished: number | undefined): Effect.Effect<number> =>
  Effect.map(Random.next, (random) => {
    if (wished !== undefined && wished > 0) return wished * (1 + random / 4);
    return (Math.min(RETRY_MIN_MS * 2 ** attempt, RETRY_MAX_MS) / 2) * (1 + random);
  });

/** The JSON that the gateway answers. */
export const ask = (gateway: Gateway, request: RoomRequest): Effect.Effect<unknown, RoomFailure> =>
  Effect.gen(function* () {
    const deadline = (yield* Clock.currentTimeMillis) + Duration.toMillis(gateway.timeout);
    let maybe = false;
    let last: RoomFailure | null = null;
    for (let attempt = 0; ; attempt++) {
      const left = deadline - (yield* Clock.currentTimeMillis);
      if (left <= 0) return yield* Effect.fail(outOfTime(request, maybe, last));
      const token = yield* tokenOf(gateway, request);
      const brought = yield* Effect.promise((signal) =>
        fetchOnce(gateway, request, token, Math.min(left, ATTEMPT_TIMEOUT_MS), signal));
      if ("value" in brought) return brought.value;
      if (!brought.again || ran(brought)) return yield* Effect.fail(brought.failure);
      maybe ||= brought.maybe && request.method !== "GET";
      last = brought.failure;
      const delay = yield* delayOf(attempt, last.retryAfter);
      if ((yield* Clock.currentTimeMillis) + delay >= deadline) return yield* Effect.fail(outOfTime(request, maybe, last));
      yield* Effect.sleep(delay);
    }
  });
