/**
 * Requests to a gateway: tries again what may be tried again until the time is over, and says what is known then.
 */
import { backoff, pause, type Bounds } from "./backoff.js";
import { StoaError } from "./errors.js";
import type { Tokens } from "./token.js";
import type { IdempotentOptions, Refusal } from "./types.js";

const TIMEOUT_MS = 30_000;
/** A try that is silent for so long is given up for another one. */
const TRY_MS = 10_000;

export interface Request extends IdempotentOptions {
  method?: string;
  query?: Record<string, string | number | undefined>;
  headers?: Record<string, string>;
  body?: string | Uint8Array;
}

/** A body as it is sent: bytes as they are, everything else as JSON. */
export function encode(data: unknown): { body: string | Uint8Array; type: string } {
  if (data instanceof Uint8Array) return { body: data, type: "application/octet-stream" };
  const bytes = data instanceof ArrayBuffer || ArrayBuffer.isView(data); // of which JSON makes something else
  const body = bytes ? undefined : JSON.stringify(data);
  if (body === undefined) throw new TypeError("data must be a JSON value or a Uint8Array");
  return { body, type: "application/json" };
}

/** A name that nobody else gives. `crypto.randomUUID` is not there on pages over plain http. */
export function uniqueName(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A header's value as fetch takes it: a character for each byte of UTF-8. */
export function headerText(name: string, text: string): string {
  if (/[\u0000-\u001f\u007f]/.test(text) || String(text).trim() !== String(text)) throw new TypeError(`${name}: no control characters, and no spaces at its ends`);
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
}

/** The error that a refused answer tells. */
export async function refusalOf(answer: Response): Promise<StoaError> {
  const text = await answer.text().catch(() => "");
  let refusal: Refusal = { tag: "BadAnswer", message: `status ${answer.status}, not from a gateway?` };
  try {
    const told = (JSON.parse(text) as { error?: Refusal }).error;
    if (typeof told?.tag === "string") refusal = told;
  } catch {
    // a proxy's page: the status says what there is to say
  }
  const seconds = Number(answer.headers.get("Retry-After") ?? NaN);
  return new StoaError(refusal.tag, answer.status, refusal.message, Number.isFinite(seconds) ? { retryAfter: seconds * 1000 } : {});
}

/** Whether a network error tells that nothing was sent; only Node says so. "bad port": one that fetch never asks. */
function unsent(error: unknown): boolean {
  const { code, message } = (error as { cause?: { code?: unknown; message?: unknown } }).cause ?? {};
  return code === "ECONNREFUSED" || code === "ENOTFOUND" || code === "EAI_AGAIN" || message === "bad port";
}

/** Rejected when the signal says so. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}

const again = (status: number) => status === 429 || status === 503 || status === 504;

export class Http {
  constructor(
    readonly base: URL,
    readonly tokens: Tokens,
    readonly fetch: typeof globalThis.fetch,
    readonly bounds: Bounds,
  ) {}

  url(path: string, query: Request["query"] = {}): URL {
    const url = new URL(this.base.pathname.replace(/\/+$/, "") + path, this.base);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value));
    return url;
  }

  /** One try. A refusal is an answer like any other. */
  async once(path: string, request: Request, token: string | undefined): Promise<Response> {
    const headers: Record<string, string> = { ...request.headers };
    if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
    const init: RequestInit = { method: request.method ?? "GET", headers };
    if (request.body !== undefined) init.body = request.body as string | Uint8Array<ArrayBuffer>;
    if (request.signal) init.signal = request.signal;
    return this.fetch(this.url(path, request.query), init);
  }

  /** The answer's JSON. Throws StoaError, or the signal's reason. */
  async json<T>(path: string, given: Request = {}): Promise<T> {
    const { idempotencyKey: name, headers } = given;
    const request = name === undefined ? given : { ...given, headers: { ...headers, "Idempotency-Key": headerText("idempotencyKey", name) } };
    const deadline = Date.now() + (request.timeout ?? TIMEOUT_MS);
    let maybe = false; // a try may have been carried out without our having heard of it
    let renewed = false;
    let last: StoaError | undefined;
    for (let attempt = 0; ; attempt++) {
      const left = deadline - Date.now();
      if (left <= 0) throw Http.#outcome(maybe, last);
      const tried = await this.#try<T>(path, request, Math.min(left, TRY_MS));
      if ("value" in tried) return tried.value;
      last = tried.error;
      maybe ||= tried.maybe;
      if (last.status === 401 && this.tokens.renewable && !renewed) {
        renewed = true;
        await this.tokens.fresh();
        continue;
      }
      if (last.status !== 0 && !again(last.status)) throw last;
      const wait = Math.max(backoff(attempt, this.bounds), last.retryAfter ?? 0);
      if (Date.now() + wait >= deadline) throw Http.#outcome(maybe, last);
      await pause(wait, request.signal ?? undefined);
    }
  }

  async #try<T>(path: string, request: Request, ms: number): Promise<{ value: T } | { error: StoaError; maybe: boolean }> {
    const ending = new AbortController();
    const abort = () => ending.abort(request.signal?.reason);
    if (request.signal?.aborted) throw request.signal.reason;
    request.signal?.addEventListener("abort", abort, { once: true });
    const timer = setTimeout(() => ending.abort(), ms);
    let sent = false;
    try {
      const token = await Promise.race([this.tokens.current(), aborted(ending.signal)]);
      sent = true;
      const answer = await this.once(path, { ...request, signal: ending.signal }, token);
      if (!answer.ok) return { error: await refusalOf(answer), maybe: answer.status === 504 };
      const text = await answer.text();
      return { value: (text === "" ? undefined : JSON.parse(text)) as T };
    } catch (error) {
      if (request.signal?.aborted) throw request.signal.reason;
      const what = sent ? `no answer from ${this.base.host}; is the gateway running?` : "there is no token: the function for it failed, or took too long";
      return { error: new StoaError("Unreachable", 0, what, { cause: error }), maybe: sent && !unsent(error) };
    } finally {
      clearTimeout(timer);
      request.signal?.removeEventListener("abort", abort);
    }
  }

  static #outcome(maybe: boolean, last: StoaError | undefined): StoaError {
    if (!maybe && last) return last;
    return new StoaError("Unknown", 504, "no answer in time, so it may have happened: try again with the same idempotencyKey and learn",
      { cause: last });
  }
}
