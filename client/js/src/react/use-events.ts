"use client";
// Events of a key as state of a component.
import { useMemo } from "react";
import type { Event, Missed } from "../types.js";
import type { Fold, HookStatus } from "./watch.js";
import { useStoa } from "./provider.js";
import { useWatch, useStatusListener, type KeyOrNone, type StatusListener } from "./use-watch.js";

/** Where to begin, and whom to tell. A change of `after`, `replay` or `limit` subscribes anew. */
export interface EventsOptions {
  /** Begin behind this id; `"0"` is everything that is retained. Wins over `replay`. */
  readonly after?: string | undefined;
  /** How much of what is retained comes first. Default: all of it, or with a list as many as `limit`. */
  readonly replay?: "all" | "none" | number | undefined;
  readonly onStatus?: StatusListener | undefined;
}

/** Events become a state, as with `useReducer`. */
export interface ReducerOptions<T, S> extends EventsOptions {
  /** The state before the first event. */
  readonly initial: S;
  /** Pure. The one of the newest render folds the events to come. */
  readonly reducer: (state: S, event: Event<T>) => S;
  /**
   * The state from which what is still retained is folded after a gap. Default: `initial`, so that the state is what
   * the retained events say; `(missed, state) => state` goes on with what was known.
   */
  readonly onMissed?: ((missed: Missed, state: S) => S) | undefined;
  readonly limit?: undefined;
}

/** The last events, as a list. */
export interface ListOptions extends EventsOptions {
  /** How many are kept (100). */
  readonly limit?: number | undefined;
  readonly initial?: undefined;
  readonly reducer?: undefined;
}

/** A state, and what is known about it. */
export interface EventsResult<S> {
  readonly state: S;
  readonly status: HookStatus;
  /** Why it is `closed`: a refusal (StoaError), or what the reducer threw. */
  readonly error: Error | null;
  /** The last gap: events that nobody can give any more. The state was rebuilt without them. */
  readonly missed: Missed | null;
}

const DEFAULT_LIMIT = 100;

const nothing: Fold<never, null> = { initial: null, reducer: () => null };

/**
 * Subscribes to `key` while the component is mounted and folds its events with `reducer`; without one, the state is
 * the list of the last `limit` events. Renders at most once a frame. `key` null does nothing; another key begins with
 * `initial`. What is shared, and what a gap does, is in docs/clients/react.md.
 */
export function useEvents<T = unknown>(key: KeyOrNone, options?: ListOptions): EventsResult<readonly Event<T>[]>;
export function useEvents<T, S>(key: KeyOrNone, options: ReducerOptions<T, S>): EventsResult<S>;
export function useEvents<T, S>(
  key: KeyOrNone,
  options: ListOptions | ReducerOptions<T, S> = {},
): EventsResult<S | readonly Event<T>[]> {
  const { after, replay, onStatus } = options;
  const asList = options.reducer === undefined;
  const keep = asList ? options.limit ?? DEFAULT_LIMIT : undefined;
  const fold = (asList ? nothing : options) as Fold<T, S>;
  const snapshot = useWatch<T, S>(useStoa(), key, { after, replay: replay ?? keep ?? "all", keep }, fold);
  useStatusListener(snapshot, onStatus);
  return useMemo(() => {
    const { state, events, status, error, missed } = snapshot;
    return { state: asList ? events : state, status, error, missed };
  }, [snapshot, asList]);
}
