"use client";
// Uploads as state of a component.
import { useMemo, useSyncExternalStore } from "react";
import type { Event, Missed } from "../types.js";
import { View, type Fold, type HookStatus, type Snapshot } from "./watch.js";
import { useStoa } from "./provider.js";
import { useWatch, type KeyOrNone } from "./use-watch.js";
import { uploadRatio, uploadReducer, WAITING, type UploadProgress } from "./upload.js";

/** An upload, and what is known about the subscription that tells of it. */
export interface Upload extends UploadProgress {
  /** How much has arrived, 0 to 1. */
  readonly ratio: number;
  /** Why the upload failed, or why it cannot be watched (then `status` is `closed`); else null. */
  readonly error: string | null;
  readonly status: HookStatus;
  /** The last gap in its events, none of which a bar needs: progress is absolute. */
  readonly missed: Missed | null;
}

/** What was known stays true through a gap, unless the key began anew. */
const afterGap = ({ reason }: Missed, state: UploadProgress): UploadProgress =>
  reason === "purged" || reason === "epoch" ? WAITING : state;

const uploadFold: Fold<unknown, UploadProgress> = {
  initial: WAITING,
  reducer: (state, event: Event) => uploadReducer(state, event.data),
  onMissed: afterGap,
};

const everything = { replay: "all" } as const;

function asUpload({ state, status, error, missed }: Snapshot<unknown, UploadProgress>): Upload {
  return {
    phase: status === "idle" ? "idle" : state.phase,
    bytes: state.bytes,
    total: state.total,
    ratio: uploadRatio(state),
    error: state.error ?? error?.message ?? null,
    status,
    missed,
  };
}

/** How far the upload is whose events stand in the key `uploadId`. Late or early, it tells the same; null is `idle`. */
export function useUpload(uploadId: KeyOrNone): Upload {
  const snapshot = useWatch(useStoa(), uploadId, everything, uploadFold);
  return useMemo(() => asUpload(snapshot), [snapshot]);
}

/** `useUpload` for a list of any length, in its order: for totals. Shares the subscriptions of `useUpload`. */
export function useUploads(uploadIds: readonly string[]): readonly Upload[] {
  const client = useStoa();
  const views = useMemo(() => new Views(uploadIds.map((id) => new View(client, id, everything, uploadFold))),
    [client, JSON.stringify(uploadIds)]);
  return useSyncExternalStore(views.subscribe, views.getSnapshot, views.getServerSnapshot);
}

/** Several views as one: its snapshot is the same list as long as those of all of them are the same. */
class Views {
  #snapshots: readonly Snapshot<unknown, UploadProgress>[] = [];
  #uploads: readonly Upload[] = [];

  constructor(readonly views: readonly View<unknown, UploadProgress>[]) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    const leave = this.views.map((view) => view.subscribe(listener));
    return () => leave.forEach((each) => each());
  };

  readonly getSnapshot = (): readonly Upload[] => this.#list(this.views.map((view) => view.getSnapshot()));

  readonly getServerSnapshot = (): readonly Upload[] => this.#list(this.views.map((view) => view.getServerSnapshot()));

  #list(snapshots: readonly Snapshot<unknown, UploadProgress>[]): readonly Upload[] {
    const before = this.#snapshots;
    if (snapshots.length !== before.length || snapshots.some((snapshot, i) => snapshot !== before[i])) {
      const known = new Map(before.map((snapshot, i) => [snapshot, this.#uploads[i]]));
      this.#uploads = snapshots.map((snapshot) => known.get(snapshot) ?? asUpload(snapshot));
      this.#snapshots = snapshots;
    }
    return this.#uploads;
  }
}
