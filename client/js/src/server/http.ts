/**
 * SHELL. Publishing over HTTP, where no native module is wanted: the same rules as lanes.ts with
 * POST /publish for a transmission. Keys are independent; of one key one request is under way at a
 * time, so its events are stored in the order in which they were submitted. Every event goes under
 * an idempotency key, its own where the caller gave none, so a retry never doubles it.
 *
 *   200                      stored
 *   503, 429                 not stored: again after Retry-After
 *   504, 5xx, lost on the way  maybe stored: again under the same key
 *   401                      the token is asked for anew, once
 *   other 4xx                refused for good
 */
import { randomUUID } from "node:crypto";

import { StoaError } from "../errors.js";
import { Tokens } from "../token.js";
import type { Backend, BackendStats, HttpSettings } from "./backend.js";
import { PAUSE_WISH_MAX_MS, PUBLISH_RETRY_MAX_MS, PUBLISH_RETRY_MIN_MS } from "./limits.js";
import { ListNode } from "./list.js";
import { Publish, type Order, type Outcome } from "./publish.js";
import { unknownOutcome, unreachable } from "./report.js";
import { EMPTY } from "./wire.js";

/** A gateway answers within 10 s. */
const ATTEMPT_TIMEOUT_MS = 15000;
const SHIFT_MAX = 6;
/** Errors of a connection that never stood: nothing was sent. */
const NOT_CONNECTED = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT", "bad port"]);

/** The queue of one key. */
class Line extends ListNode {
  readonly queue = new ListNode();
  busy = false; // a request is under way, or a pause
  attempts = 0; // failures since the last success
  pause: ReturnType<typeof setTimeout> | null = null;
  abort: AbortController | null = null;
  refreshed = false;

  constructor(readonly keyText: string) {
    super();
  }

  get first(): Publish | null {
    return this.queue.alone ? null : (this.queue.after as Publish);
  }
}

/** What one request brought. */
type Answer =
  | { readonly is: "final"; readonly outcome: Outcome }
  | { readonly is: "again"; readonly maybe: boolean; readonly error: StoaError; readonly wait: number };

class HttpBackend implements Backend {
  private readonly lines = new Map<string, Line>();
  private readonly ready = new ListNode();
  private readonly tokens: Tokens;
  private running = 0;
  private resent = 0;
  private reached = false;
  private closed = false;
  private readonly timers = new Map<Publish, ReturnType<typeof setTimeout>>();

  constructor(private readonly settings: HttpSettings) {
    this.tokens = new Tokens(settings.token);
  }

  submit(order: Order, settle: (outcome: Outcome) => void): Publish {
    checkHeaders(order);
    const publish = new Publish(order, EMPTY, settle);
    let line = this.lines.get(order.keyText);
    if (!line) {
      line = new Line(order.keyText);
      this.lines.set(order.keyText, line);
    }
    publish.lane = line;
    publish.deadline.due = performance.now() + order.timeout;
    line.queue.push(publish);
    this.timers.set(publish, setTimeout(() => this.overdue(publish), order.timeout));
    if (line.first === publish && !line.busy) this.ready.push(line);
    queueMicrotask(() => this.startSome());
    return publish;
  }

  giveUp(publish: Publish, error: StoaError): void {
    if (publish.ended) return;
    publish.refusal = error;
    this.overdue(publish);
  }

  stats(): BackendStats {
    const router = this.settings.url.origin;
    return { inFlight: this.running, resent: this.resent, connected: this.reached, router: this.reached ? router : null };
  }

  close(error: StoaError): void {
    this.closed = true;
    for (const line of this.lines.values()) while (line.first) this.giveUp(line.first, error);
    this.lines.clear();
  }

  // ---- who is next ----

  private startSome(): void {
    while (!this.closed && this.running < this.settings.concurrency && !this.ready.alone) {
      const line = this.ready.after as Line;
      line.leave();
      const publish = line.first;
      if (publish) void this.attempt(line, publish);
      else this.lines.delete(line.keyText);
    }
  }

  /** The line goes on with its first, or ends. */
  private next(line: Line): void {
    line.busy = false;
    if (line.first && line.alone) this.ready.push(line);
    else if (!line.first) this.lines.delete(line.keyText);
    this.startSome();
  }

  private async attempt(line: Line, publish: Publish): Promise<void> {
    line.busy = true;
    this.running++;
    const abort = (line.abort = new AbortController());
    publish.cid = 1; // under way
    if (publish.sent++ > 0) this.resent++;
    const late = setTimeout(() => abort.abort(), ATTEMPT_TIMEOUT_MS);
    const answer = await this.ask(line, publish, abort.signal);
    clearTimeout(late);
    this.running--;
    line.abort = null;
    if (!publish.ended) this.answered(line, publish, answer);
    if (!line.pause) this.next(line);
    else this.startSome();
  }

  private answered(line: Line, publish: Publish, answer: Answer): void {
    publish.cid = 0;
    if (answer.is === "final") {
      line.attempts = 0;
      line.refreshed = false;
      this.end(publish, answer.outcome);
      return;
    }
    if (answer.maybe) publish.uncertain = true;
    publish.refusal = answer.error;
    if (publish.ephemeral) {
      this.overdue(publish);
      return;
    }
    if (answer.error.status === 401) {
      if (line.refreshed) {
        this.overdue(publish);
        return;
      }
      line.refreshed = true;
    }
    this.sleep(line, publish, answer.wait);
  }

  /** Until the next try, unless that would come too late. */
  private sleep(line: Line, publish: Publish, wished: number): void {
    const most = Math.min(PUBLISH_RETRY_MIN_MS << Math.min(line.attempts, SHIFT_MAX), PUBLISH_RETRY_MAX_MS);
    const own = (most / 2) * (1 + Math.random());
    const delay = wished > 0 ? Math.min(wished, PAUSE_WISH_MAX_MS) * (1 + Math.random() / 4) : own;
    line.attempts++;
    if (performance.now() + delay >= publish.deadline.due) {
      this.overdue(publish);
      return;
    }
    line.pause = setTimeout(() => {
      line.pause = null;
      this.next(line);
    }, delay);
  }

  // ---- one request ----

  private async ask(line: Line, publish: Publish, signal: AbortSignal): Promise<Answer> {
    let token: string | undefined;
    try {
      token = await (line.refreshed ? this.tokens.fresh() : this.tokens.current());
    } catch (cause) {
      const error = new StoaError("Unauthorized", 0, "not stored: the token function failed", { cause });
      return { is: "again", maybe: false, error, wait: 0 };
    }
    try {
      const response = await this.send(publish, token, signal);
      this.reached = true;
      return await answerOf(response, publish);
    } catch (error) {
      this.reached = false;
      const code = codeOf(error);
      const maybe = !NOT_CONNECTED.has(code);
      const words = maybe
        ? "the connection to the gateway was lost before the answer came"
        : `not stored: the gateway was not reached (${code}); try again`;
      return { is: "again", maybe, error: new StoaError("Unreachable", 0, words, { cause: error }), wait: 0 };
    }
  }

  private async send(publish: Publish, token: string | undefined, signal: AbortSignal): Promise<Response> {
    const order = publish.order;
    const headers: Record<string, string> = {
      "content-type": order.batch ? "application/x-ndjson" : "application/octet-stream",
    };
    if (!order.ephemeral) headers["idempotency-key"] = headerText(idempotencyKeyOf(publish));
    if (order.conflateText !== undefined) headers["stoa-conflate"] = headerText(order.conflateText);
    if (order.ephemeral) headers["stoa-ephemeral"] = "1";
    if (token !== undefined) headers["authorization"] = `Bearer ${token}`;
    return await this.settings.fetch(targetOf(this.settings.url, order), {
      method: "POST",
      headers,
      body: bodyOf(order),
      redirect: "error",
      signal,
    });
  }

  // ---- ends ----

  private overdue(publish: Publish): void {
    const maybe = publish.cid !== 0 || publish.uncertain;
    const line = publish.lane as Line;
    const under = publish.cid !== 0;
    this.end(
      publish,
      maybe
        ? unknownOutcome("no answer came in time", publish.refusal ?? undefined)
        : { ok: false, error: publish.refusal ?? unreachable() },
    );
    if (under) {
      line.abort?.abort();
      return;
    }
    if (!line.pause || line.first) return;
    clearTimeout(line.pause);
    line.pause = null;
    this.next(line);
  }

  private end(publish: Publish, outcome: Outcome): void {
    if (publish.ended) return;
    publish.ended = true;
    publish.cid = 0;
    publish.leave();
    clearTimeout(this.timers.get(publish));
    this.timers.delete(publish);
    publish.settle(outcome);
  }
}

// ---- requests and answers ----

const generated = new WeakMap<Publish, string>();

function idempotencyKeyOf(publish: Publish): string {
  if (publish.order.idempotencyKey !== undefined) return publish.order.idempotencyKey;
  let key = generated.get(publish);
  if (key === undefined) {
    key = randomUUID();
    generated.set(publish, key);
  }
  return key;
}

/** A header's value as fetch takes it: a character for each byte of UTF-8. */
function headerText(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

/** What a header, or a list in a query, cannot carry. */
function checkHeaders(order: Order): void {
  for (const [name, text] of [["idempotencyKey", order.idempotencyKey], ["conflate", order.conflateText]] as const)
    if (text !== undefined && (/[\u0000-\u001f\u007f]/.test(text) || text.trim() !== text))
      throw new StoaError("BadRequest", 0, `${name}: over HTTP no control characters, and no spaces at its ends`);
  for (const name of ["tags", "to", "except"] as const)
    if (order.names[name]?.includes("")) throw new StoaError("BadRequest", 0, `${name}: over HTTP a name is not empty`);
  if (order.batch && order.parts.some((part) => part.length === 0 || part.includes(0x0a)))
    throw new StoaError("BadRequest", 0, "over HTTP an event of a batch is not empty and has no line feed");
}

function targetOf(url: URL, order: Order): string {
  let query = `key=${encodeURIComponent(order.keyText)}`;
  for (const name of ["tags", "to", "except"] as const) {
    const list = order.names[name];
    if (!list) continue;
    // A bare comma says that encoded ones belong to the names; of one name it stands behind it.
    query += `&${name}=${list.map(encodeURIComponent).join(",")}${list.length === 1 ? "," : ""}`;
  }
  return `${url.origin}${url.pathname.replace(/\/$/, "")}/publish?${query}`;
}

function bodyOf(order: Order): Uint8Array<ArrayBuffer> {
  const parts = order.batch ? order.parts.flatMap((part) => [part, LINE_FEED]) : order.parts;
  const body = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    body.set(part, at);
    at += part.length;
  }
  return body;
}

const LINE_FEED = Buffer.from("\n");

/** Why a connection failed: a code of the system's, or "bad port", one that fetch never asks. */
function codeOf(error: unknown): string {
  const cause = error instanceof Error ? (error.cause as { code?: unknown; message?: unknown } | undefined) : undefined;
  if (cause?.message === "bad port") return "bad port";
  return typeof cause?.code === "string" ? cause.code : "";
}

interface AnswerBody {
  id?: string | null;
  first?: string;
  count?: number;
  duplicate?: boolean;
  error?: { tag?: string; message?: string };
}

async function answerOf(response: Response, publish: Publish): Promise<Answer> {
  const text = await response.text();
  let body: AnswerBody = {};
  try {
    body = JSON.parse(text) as AnswerBody;
  } catch {
    if (response.status === 200) throw new TypeError("the answer is not JSON");
  }
  if (response.status === 200) {
    const id = body.id ?? null;
    const count = body.count ?? publish.parts.length;
    return {
      is: "final",
      outcome: { ok: true, id, first: body.first ?? id, count, duplicate: body.duplicate === true },
    };
  }
  const wait = Math.max(0, Number(response.headers.get("retry-after") ?? 0) * 1000 || 0);
  const tag = body.error?.tag ?? `Http${response.status}`;
  const message = body.error?.message ?? `the answer was ${response.status}`;
  const error = new StoaError(tag, response.status, message, wait > 0 ? { retryAfter: wait } : {});
  if (response.status === 503 || response.status === 429) return { is: "again", maybe: false, error, wait };
  if (response.status === 401) return { is: "again", maybe: false, error, wait: 1 };
  if (response.status >= 500) return { is: "again", maybe: true, error, wait };
  if (publish.uncertain && response.status === 403)
    return { is: "final", outcome: unknownOutcome("the right to publish there was withdrawn meanwhile", error) };
  return { is: "final", outcome: { ok: false, error } };
}

/** Connects when there is something to publish. */
export function openHttp(settings: HttpSettings): Backend {
  return new HttpBackend(settings);
}
