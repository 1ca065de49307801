"use client";
/**
 * @stoa/client/react: hooks for React 18 and newer. Nothing here touches `window` before a component is mounted in a
 * browser, so all of it renders on a server.
 */
export { StoaProvider, useStoa, type StoaProviderProps } from "./provider.js";
export { useEvents, type EventsOptions, type EventsResult, type ListOptions, type ReducerOptions } from "./use-events.js";
export {
  useRoom, type FoldStateOptions, type ReadStateOptions, type RoomOptions, type RoomResult,
} from "./use-room.js";
export { useUpload, useUploads, type Upload } from "./use-upload.js";
export { uploadReducer, type UploadPhase, type UploadProgress } from "./upload.js";
export type { HookStatus } from "./watch.js";
export type { StatusListener } from "./use-watch.js";
