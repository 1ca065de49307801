/**
 * Layers for Uploadista's servers. A service is known by its tag's key, so these tags are those of `@uploadista/core`
 * without that package; and their types are such that a layer of ours is one of theirs for the compiler, too.
 */
import { Context, Effect, Layer, type Scope } from "effect";

import { StoaBroadcaster, type StoaBroadcasterOptions } from "./broadcaster.js";
import { StoaEmitter, type StoaEmitterOptions } from "./emitter.js";
import type { Serializer } from "./events.js";
import type { WebSocketConnection } from "./viewers.js";

/** Uploadista's service `BaseEventEmitter`, with effects that never fail and never wait. */
export interface BaseEventEmitter {
  readonly subscribe: (key: string, connection: WebSocketConnection) => Effect.Effect<void>;
  readonly unsubscribe: (key: string, connection?: WebSocketConnection) => Effect.Effect<void>;
  readonly emit: (key: string, text: string) => Effect.Effect<void>;
}
/** What stands for the service in types: every service that is declared by a tag class of this key. */
export type BaseEventEmitterId = Context.TagClassShape<"BaseEventEmitter", unknown>;
export const BaseEventEmitter = Context.GenericTag<BaseEventEmitterId, BaseEventEmitter>("BaseEventEmitter");

/** Uploadista's service `EventBroadcaster`. */
export interface EventBroadcaster {
  readonly publish: (channel: string, text: string) => Effect.Effect<void>;
  /** Done when everything that is published from now on reaches the handler. */
  readonly subscribe: (channel: string, handler: (text: string) => void) => Effect.Effect<void>;
  readonly unsubscribe: (channel: string) => Effect.Effect<void>;
}
/** As {@link BaseEventEmitterId}. */
export type EventBroadcasterId = Context.TagClassShape<"EventBroadcaster", unknown>;
export const EventBroadcaster = Context.GenericTag<EventBroadcasterId, EventBroadcaster>("EventBroadcaster");

/** The same with events in place of texts, as `UploadEventEmitter` and `FlowEventEmitter` are. */
export interface TypedEventEmitter<Event> {
  readonly subscribe: (key: string, connection: WebSocketConnection) => Effect.Effect<void>;
  readonly unsubscribe: (key: string, connection?: WebSocketConnection) => Effect.Effect<void>;
  readonly emit: (key: string, event: Event) => Effect.Effect<void>;
}

/** The service of an emitter. */
export function eventEmitterService(emitter: StoaEmitter): BaseEventEmitter {
  return {
    subscribe: (key, connection) => Effect.sync(() => emitter.subscribe(key, connection)),
    unsubscribe: (key, connection) => Effect.sync(() => emitter.unsubscribe(key, connection)),
    emit: (key, text) => Effect.sync(() => emitter.emit(key, text)),
  };
}

/** An emitter of events, each made a text by the serializer. An event of which it makes none is logged, and fails nothing. */
export function typedEmitter<Event>(base: BaseEventEmitter, serializer: Serializer<Event>): TypedEventEmitter<Event> {
  return {
    subscribe: base.subscribe,
    unsubscribe: base.unsubscribe,
    emit: (key, event) => Effect.try(() => serializer.eventToMessage(event)).pipe(
      Effect.matchEffect({
        onFailure: ({ error }) => Effect.logWarning(`stoa: an event of ${key} was not emitted: ${String(error)}`),
        onSuccess: (text) => base.emit(key, text),
      }),
    ),
  };
}

/** Opened with the layer's scope and closed with it. */
function opened<T extends { ready: Promise<void>; close(): Promise<void> }>(open: () => T): Effect.Effect<T, never, Scope.Scope> {
  const made = Effect.sync(open).pipe(Effect.tap((one) => Effect.promise(() => one.ready)));
  return Effect.acquireRelease(made, (one) => Effect.promise(() => one.close()));
}

/**
 * In place of `webSocketEventEmitter(…)`: the server option `eventEmitter`. Given options it is opened and closed with
 * the layer; building that dies when they break a rule. Given an emitter, it stays the caller's, to ask and to close.
 */
export function stoaEventEmitter(options: StoaEmitterOptions | StoaEmitter): Layer.Layer<BaseEventEmitterId> {
  const emitter = options instanceof StoaEmitter ? Effect.succeed(options) : opened(() => new StoaEmitter(options));
  return Layer.scoped(BaseEventEmitter, Effect.map(emitter, eventEmitterService));
}

/** In place of `redisEventBroadcaster(…)`: the server option `eventBroadcaster`. */
export function stoaEventBroadcaster(options: StoaBroadcasterOptions | StoaBroadcaster): Layer.Layer<EventBroadcasterId> {
  const broadcaster = options instanceof StoaBroadcaster ? Effect.succeed(options) : opened(() => new StoaBroadcaster(options));
  return Layer.scoped(EventBroadcaster, Effect.map(broadcaster, (one) => ({
    publish: (channel: string, text: string) => Effect.sync(() => one.publish(channel, text)),
    subscribe: (channel: string, handler: (text: string) => void) => Effect.promise(() => one.subscribe(channel, handler)),
    unsubscribe: (channel: string) => Effect.sync(() => one.unsubscribe(channel)),
  })));
}
