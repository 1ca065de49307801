"use client";
// A room as state of a component.
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { StoaError } from "../errors.js";
import type { Room } from "../index.js";
import type { Contract, Event, EventOf, Member, Missed, StateOf } from "../types.js";
import type { Fold, HookStatus } from "./watch.js";
import { useStoa } from "./provider.js";
import { StateReader } from "./state-reader.js";
import { useWatch, useStatusListener, type KeyOrNone, type StatusListener } from "./use-watch.js";

/** What is subscribed of a room. A change of any of these but `onStatus` subscribes anew. */
export interface RoomOptions {
  readonly after?: string | undefined;
  /** How much of what is retained comes first. Default: `limit` events, or with a reducer all of it. */
  readonly replay?: "all" | "none" | number | undefined;
  /** How many events are kept in `events` (100). */
  readonly limit?: number | undefined;
  /** Asks who is there; for types that count presence. */
  readonly presence?: boolean | undefined;
  /** Goes to the room's `identify`. */
  readonly connectionState?: unknown;
  readonly onStatus?: StatusListener | undefined;
}

/** The room's state as the room itself keeps it: read from it. */
export interface ReadStateOptions extends RoomOptions {
  /** false: never read; for tokens without the right `manage`, which a read needs. */
  readonly readState?: boolean | undefined;
  readonly initial?: undefined;
  readonly reducer?: undefined;
}

/** The room's state as its events tell it: folded here. */
export interface FoldStateOptions<E, S> extends RoomOptions {
  readonly initial: S;
  readonly reducer: (state: S, event: Event<E>) => S;
  readonly onMissed?: ((missed: Missed, state: S) => S) | undefined;
  readonly readState?: undefined;
}

export interface RoomResult<R extends Contract, S> {
  /** Folded by the reducer; without one, what the room said last when it was asked, null before. */
  readonly state: S;
  /** The last events, oldest first. */
  readonly events: readonly Event<EventOf<R>>[];
  /** Runs the room's `on_event` with a message. */
  readonly send: Room<R>["send"];
  /** Calls a method of the room. */
  readonly call: Room<R>["call"];
  readonly status: HookStatus;
  /** Why the subscription is `closed`, or why the state could not be read. */
  readonly error: Error | null;
  readonly missed: Missed | null;
  /** Who is there; null until that is known, and without `presence`. */
  readonly members: readonly Member[] | null;
}

const DEFAULT_LIMIT = 100;

/** Between two reads of a room's state by one component, however many events come. */
const READ_INTERVAL_MS = 1000;

const nothing: Fold<never, null> = { initial: null, reducer: () => null };

/** Watches the room `type:id` while the component is mounted; `id` null does nothing. */
export function useRoom<R extends Contract = Contract>(
  type: string, id: KeyOrNone, options?: ReadStateOptions,
): RoomResult<R, StateOf<R> | null>;
export function useRoom<R extends Contract, S>(
  type: string, id: KeyOrNone, options: FoldStateOptions<EventOf<R>, S>,
): RoomResult<R, S>;
export function useRoom<R extends Contract, S>(
  type: string, id: KeyOrNone, options: ReadStateOptions | FoldStateOptions<EventOf<R>, S> = {},
): RoomResult<R, S | StateOf<R> | null> {
  const client = useStoa();
  const room = useMemo(() => (id === null || id === undefined ? null : client.room<R>(type, id)), [client, type, id]);
  const folded = options.reducer !== undefined;
  const { after, presence, connectionState, limit = DEFAULT_LIMIT, onStatus } = options;
  const replay = options.replay ?? (folded ? "all" : limit);
  const fold = (folded ? options : nothing) as Fold<EventOf<R>, S>;
  const snapshot = useWatch(client, room?.key ?? null, { after, replay, keep: limit, presence, connectionState }, fold);
  useStatusListener(snapshot, onStatus);
  const read = useReadState(folded || options.readState === false ? null : room, snapshot.status === "live", snapshot.events);
  const send = useCallback<Room<R>["send"]>((...message) => (room ? room.send(...message) : Promise.reject(noRoom())), [room]);
  const call = useCallback<Room<R>["call"]>((...words) => {
    if (room === null) throw noRoom();
    return room.call(...words);
  }, [room]);
  return useMemo(() => {
    const { events, status, missed, members } = snapshot;
    return {
      state: folded ? snapshot.state : read.state,
      error: snapshot.error ?? read.error,
      events, send, call, status, missed, members,
    };
  }, [snapshot, folded, read, send, call]);
}

const noRoom = (): StoaError => new StoaError("Closed", 0, "useRoom has no room while its id is null");

interface ReadState<R extends Contract> {
  readonly room: Room<R> | null;
  readonly state: StateOf<R> | null;
  readonly error: Error | null;
}

const NOT_READ: ReadState<never> = { room: null, state: null, error: null };

/** The room's state: read when the room is live, and again after events. */
function useReadState<R extends Contract>(room: Room<R> | null, live: boolean, events: readonly unknown[]): ReadState<R> {
  const [read, setRead] = useState<ReadState<R>>(NOT_READ);
  const reader = useRef<StateReader<StateOf<R> | null> | null>(null);
  useEffect(() => {
    if (room === null || !live) return;
    const opened = new StateReader(
      (signal) => room.state({ signal }),
      (result) => setRead((before) => ({ ...(before.room === room ? before : NOT_READ), error: null, ...result, room })),
      READ_INTERVAL_MS,
    );
    reader.current = opened;
    return () => opened.close();
  }, [room, live]);
  useEffect(() => reader.current?.ask(), [room, live, events]);
  return read.room === room ? read : NOT_READ;
}
