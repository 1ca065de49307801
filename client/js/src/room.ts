/**
 * A room `type:id`, typed by its contract: what its readers get, what is sent to it, its state and its methods.
 */
import { StoaError } from "./errors.js";
import { encode, uniqueName, type Http, type Request } from "./http.js";
import { NO_SOCKET, type Hub } from "./hub.js";
import type { Asker } from "./lane.js";
import type { Stoa } from "./client.js";
import type {
  AnswerOf, CallArguments, Connection, Contract, EventOf, Handler, IdempotentOptions, LogOptions, LogPage, Member,
  MessageOf, MethodsOf, RequestOptions, StateOf, SubscribeOptions, Subscription,
} from "./types.js";

const TIMEOUT_MS = 30_000;
/** So many items of a stream may wait for who iterates it. */
const ITEMS_MAX = 10_000;

const idempotent = (options: IdempotentOptions): IdempotentOptions =>
  ({ ...options, idempotencyKey: options.idempotencyKey ?? uniqueName() });

export class Room<R extends Contract = Contract> {
  readonly key: string;
  #stoa: Stoa;
  #http: Http;
  #hub: Hub;

  /** @internal made by Stoa.room */
  constructor(stoa: Stoa, http: Http, hub: Hub, readonly type: string, readonly id: string) {
    this.key = `${type}:${id}`;
    this.#stoa = stoa;
    this.#http = http;
    this.#hub = hub;
  }

  /** The room's events. While subscribed, this client is one of the room's connections. */
  subscribe(options?: SubscribeOptions): Subscription<EventOf<R>>;
  subscribe(handler: Handler<EventOf<R>>): Subscription<EventOf<R>>;
  subscribe(options: SubscribeOptions, handler: Handler<EventOf<R>>): Subscription<EventOf<R>>;
  subscribe(first: SubscribeOptions | Handler<EventOf<R>> = {}, second?: Handler<EventOf<R>>): Subscription<EventOf<R>> {
    return typeof first === "function" ? this.#stoa.subscribe(this.key, first)
      : second ? this.#stoa.subscribe(this.key, first, second) : this.#stoa.subscribe(this.key, first);
  }

  /**
   * Says something to the room; fulfilled after the room's commit. While this client is subscribed to the room over a
   * socket it speaks as that connection, once: a lost answer is StoaError "Unknown". Else it speaks as nobody's
   * connection, and tries again under one idempotency key.
   */
  async send(message: MessageOf<R>, options: IdempotentOptions = {}): Promise<void> {
    const lane = options.idempotencyKey === undefined ? await this.#hub.laneOf(this.key) : undefined;
    if (!lane) {
      await this.#post("send", message, options);
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const settle = (then: () => void) => {
        clearTimeout(timer);
        options.signal?.removeEventListener("abort", abort);
        then();
      };
      const asker: Asker = { ok: () => settle(resolve), failed: (error) => settle(() => reject(error)) };
      const abort = () => {
        forget();
        settle(() => reject(options.signal?.reason as Error));
      };
      const timer = setTimeout(() => {
        forget();
        settle(() => reject(new StoaError("Unknown", 504, "no answer in time, so the room may have heard it")));
      }, options.timeout ?? TIMEOUT_MS);
      const forget = lane.ask({ send: this.key, event: message }, asker);
      if (options.signal?.aborted) abort();
      else options.signal?.addEventListener("abort", abort, { once: true });
    });
  }

  /**
   * Calls a method. What it returns is awaited; a streaming method's result is iterated at once instead, and its items
   * come as they are made. Awaited calls try again under one idempotency key.
   */
  call<M extends keyof MethodsOf<R> & string>(method: M, ...rest: CallArguments<MethodsOf<R>[M]>): AnswerOf<MethodsOf<R>[M]> {
    const [input, options = {}] = rest as [input?: unknown, options?: IdempotentOptions];
    return new Call(
      () => this.#post(encodeURIComponent(method), input ?? null, options),
      () => this.#stream(method, input ?? null, options),
    ) as unknown as AnswerOf<MethodsOf<R>[M]>;
  }

  /** The room's state; null: it has none. Needs the right `manage`, as all below but presence and log. */
  state(options: RequestOptions = {}): Promise<StateOf<R> | null> {
    return this.#http.json(this.#path("state"), options);
  }

  /** Its open connections. */
  connections({ tag, ...options }: RequestOptions & { tag?: string } = {}): Promise<Connection[]> {
    return this.#http.json(this.#path("connections"), { ...options, query: { tag } });
  }

  /** Who is in it, of a type with presence. */
  presence(options: RequestOptions = {}): Promise<Member[]> {
    return this.#http.json(this.#path("presence"), options);
  }

  /** Sends to its connections; not retained. */
  async broadcast(event: EventOf<R>, options: IdempotentOptions = {}): Promise<void> {
    await this.#post("broadcast", event, options);
  }

  /** Fires its alarm now. */
  async alarm(options: IdempotentOptions = {}): Promise<void> {
    await this.#http.json(this.#path("alarm"), { ...idempotent(options), method: "POST" });
  }

  /** Closes its connections. */
  async closeConnections(options: RequestOptions & { code?: number } = {}): Promise<void> {
    const { code, ...others } = options;
    await this.#http.json(this.#path("close"), { ...others, method: "POST", query: { code } });
  }

  /** Deletes its events and its state. */
  async purge(options: RequestOptions = {}): Promise<void> {
    const path = this.#path("").replace(/\/$/, "");
    await this.#http.json(path, { ...options, method: "DELETE" });
  }

  /** What is retained of its events. */
  log(options: LogOptions = {}): Promise<LogPage<EventOf<R>>> {
    return this.#stoa.log<EventOf<R>>(this.key, options);
  }

  #path(verb: string): string {
    return `/api/${encodeURIComponent(this.type)}/${encodeURIComponent(this.id)}/${verb}`;
  }

  async #post(verb: string, data: unknown, options: IdempotentOptions): Promise<unknown> {
    const { body, type } = encode(data);
    const request: Request = { ...idempotent(options), method: "POST", body, headers: { "Content-Type": type } };
    return this.#http.json(this.#path(verb), request);
  }

  /** What a streaming method yields, all together. */
  async #items(method: string, input: unknown, options: IdempotentOptions): Promise<unknown[]> {
    const answer = await this.#post(encodeURIComponent(method), input, options);
    return Array.isArray(answer) ? answer : [answer];
  }

  /** Item by item over a socket; without one, all together. */
  async *#stream(method: string, input: unknown, options: IdempotentOptions): AsyncGenerator<unknown, undefined, undefined> {
    const lane = this.#hub.lane();
    if (!lane) {
      yield* await this.#items(method, input, options);
      return undefined;
    }
    const items: unknown[] = [];
    let wake = () => {};
    let end: { error?: unknown } | undefined;
    const over = (error?: unknown) => {
      end ??= { error };
      wake();
    };
    const frame: Record<string, unknown> = { call: this.key, method, input };
    if (options.idempotencyKey !== undefined) frame["idempotencyKey"] = options.idempotencyKey;
    const forget = lane.ask(frame, {
      ok: () => over(),
      failed: over,
      item: (item) => {
        if (items.length >= ITEMS_MAX) over(new StoaError("TooSlow", 0, `more than ${ITEMS_MAX} items of the stream were waiting`));
        else if (!end) items.push(item);
        wake();
      },
    });
    const abort = () => over(options.signal?.reason);
    if (options.signal?.aborted) abort();
    options.signal?.addEventListener("abort", abort, { once: true });
    try {
      for (;;) {
        while (items.length > 0) yield items.shift();
        if (end) break;
        await new Promise<void>((resolve) => { wake = resolve; });
      }
      if (end.error instanceof StoaError && end.error.tag === NO_SOCKET) yield* await this.#items(method, input, options);
      else if (end.error !== undefined) throw end.error;
    } finally {
      options.signal?.removeEventListener("abort", abort);
      forget();
    }
    return undefined;
  }
}

/** A call that is made when it is awaited, or iterated; or a moment later if nobody cares for its answer. */
class Call implements PromiseLike<unknown>, AsyncIterable<unknown> {
  #answer: Promise<unknown> | undefined;
  #taken = false;

  constructor(readonly ask: () => Promise<unknown>, readonly stream: () => AsyncIterator<unknown>) {
    queueMicrotask(() => queueMicrotask(() => {
      if (!this.#taken) void this.#asked();
    }));
  }

  #asked(): Promise<unknown> {
    this.#taken = true;
    this.#answer ??= this.ask();
    return this.#answer;
  }

  then<A = unknown, B = never>(
    done?: ((value: unknown) => A | PromiseLike<A>) | null, failed?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#asked().then(done, failed);
  }

  catch<B = never>(failed?: ((error: unknown) => B | PromiseLike<B>) | null): Promise<unknown> {
    return this.#asked().catch(failed);
  }

  finally(done?: (() => void) | null): Promise<unknown> {
    return this.#asked().finally(done);
  }

  get [Symbol.toStringTag](): string {
    return "Promise";
  }

  [Symbol.asyncIterator](): AsyncIterator<unknown> {
    if (!this.#taken) {
      this.#taken = true;
      return this.stream();
    }
    const answer = this.#asked();
    return (async function* () {
      const items = await answer;
      yield* Array.isArray(items) ? items as unknown[] : [items];
    })();
  }
}
