"use client";
// A view of a watch in a component.
import { useEffect, useMemo, useSyncExternalStore } from "react";
import type { Stoa } from "../index.js";
import type { StatusDetail } from "../types.js";
import { addressOf, View, type WatchOptions, type Fold, type HookStatus, type Snapshot } from "./watch.js";

/** Told of each status once it is rendered. */
export type StatusListener = (status: HookStatus, detail: StatusDetail) => void;

/** A key, or null (undefined is as good): not yet known, and nothing is subscribed. */
export type KeyOrNone = string | null | undefined;

/** Subscribes while the component is mounted. Another client, key or option begins anew; `key` null does nothing. */
export function useWatch<T, S>(client: Stoa, given: KeyOrNone, options: WatchOptions, fold: Fold<T, S>): Snapshot<T, S> {
  const key = given ?? null;
  const address = addressOf(key, options);
  // Whatever of `options` matters is in `address`; `fold` is brought up to date below.
  const view = useMemo(() => new View<T, S>(client, key, options, fold), [client, address]);
  useEffect(() => view.refold(fold));
  return useSyncExternalStore(view.subscribe, view.getSnapshot, view.getServerSnapshot);
}

/** Calls `listener` when the status changes. */
export function useStatusListener(
  { status, detail }: Pick<Snapshot<never, unknown>, "status" | "detail">,
  listener: StatusListener | undefined,
): void {
  useEffect(() => listener?.(status, detail), [status, detail]);
}
