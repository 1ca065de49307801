/**
 * @stoa/client: subscribe, publish, rooms; in browsers and Node.
 */
import type {
  AnswerOf, CallArguments, Connection, Contract, EventOf, Handler, IdempotentOptions, LogOptions, LogPage, Member, MessageOf,
  MethodsOf, Published, PublishedBatch, PublishOptions, RequestOptions, StateOf, StoaOptions, SubscribeOptions, Subscription,
} from "./types.js";

export { MissedError, StoaError } from "./errors.js";
export type * from "./types.js";

/** A room `type:id`, typed by its contract. */
export declare class Room<R extends Contract = Contract> {
  readonly key: string;
  readonly type: string;
  readonly id: string;
  subscribe(options?: SubscribeOptions): Subscription<EventOf<R>>;
  subscribe(handler: Handler<EventOf<R>>): Subscription<EventOf<R>>;
  subscribe(options: SubscribeOptions, handler: Handler<EventOf<R>>): Subscription<EventOf<R>>;
  send(message: MessageOf<R>, options?: IdempotentOptions): Promise<void>;
  call<M extends keyof MethodsOf<R> & string>(
    method: M, ...rest: CallArguments<MethodsOf<R>[M]>
  ): AnswerOf<MethodsOf<R>[M]>;
  state(options?: RequestOptions): Promise<StateOf<R> | null>;
  connections(options?: RequestOptions & { tag?: string }): Promise<Connection[]>;
  presence(options?: RequestOptions): Promise<Member[]>;
  broadcast(event: EventOf<R>, options?: IdempotentOptions): Promise<void>;
  alarm(options?: IdempotentOptions): Promise<void>;
  log(options?: LogOptions): Promise<LogPage<EventOf<R>>>;
}

export declare class Stoa {
  readonly url: string;
  constructor(url: string | URL, options?: StoaOptions);
  subscribe<T = unknown>(key: string, options?: SubscribeOptions): Subscription<T>;
  subscribe<T = unknown>(key: string, handler: Handler<T>): Subscription<T>;
  subscribe<T = unknown>(key: string, options: SubscribeOptions, handler: Handler<T>): Subscription<T>;
  publish(key: string, data: unknown, options?: PublishOptions): Promise<Published>;
  publishBatch(key: string, data: readonly unknown[], options?: PublishOptions): Promise<PublishedBatch>;
  log<T = unknown>(key: string, options?: LogOptions): Promise<LogPage<T>>;
  room<R extends Contract = Contract>(type: string, id: string): Room<R>;
  close(): void;
}
