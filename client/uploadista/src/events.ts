/**
 * CORE. Uploadista's events and the envelope that its clients read, in types of our own: the package needs no
 * `@uploadista/core`.
 */

/** A file as Uploadista's servers describe it; more members may stand there. */
export interface UploadFile {
  readonly id: string;
  readonly offset: number;
  readonly storage: { readonly id: string; readonly type: string; readonly [more: string]: unknown };
  readonly size?: number;
  readonly [more: string]: unknown;
}

/** The flow that an upload is part of. */
export interface FlowOf {
  readonly flowId: string;
  readonly nodeId: string;
  readonly jobId: string;
}

/** What happens to one upload; its key is the upload's id as it is. `progress` and `total` are bytes. */
export type UploadEvent = (
  | { readonly type: "upload-started" | "upload-complete"; readonly data: UploadFile }
  | { readonly type: "upload-progress"; readonly data: { readonly id: string; readonly progress: number; readonly total: number } }
  | { readonly type: "upload-failed"; readonly data: { readonly id: string; readonly error: string } }
  | {
      readonly type: "upload-validation-success";
      readonly data: { readonly id: string; readonly validationType: "checksum" | "mimetype"; readonly algorithm?: string };
    }
  | {
      readonly type: "upload-validation-failed";
      readonly data: { readonly id: string; readonly reason: string; readonly expected: string; readonly actual: string };
    }
  | { readonly type: "upload-validation-warning"; readonly data: { readonly id: string; readonly message: string } }
) & { readonly flow?: FlowOf };

/** What happens to a job; its key is the job's id as it is. Told apart by `eventType`, not by `type`. */
export interface FlowEvent {
  readonly eventType:
    | "job-start" | "job-end"
    | "flow-start" | "flow-end" | "flow-error" | "flow-pause" | "flow-cancel"
    | "node-start" | "node-end" | "node-pause" | "node-resume" | "node-error" | "node-stream" | "node-response";
  readonly jobId: string;
  readonly [more: string]: unknown;
}

/** Makes the text of an event. */
export interface Serializer<Event> {
  eventToMessage(event: Event): string;
}

/** The envelope that Uploadista's clients read: `{"type":…,"payload":…,"timestamp":…}`. */
export function eventSerializer(type: "upload_event"): Serializer<UploadEvent>;
export function eventSerializer(type: "flow_event"): Serializer<FlowEvent>;
export function eventSerializer<Event>(type: "upload_event" | "flow_event"): Serializer<Event> {
  return {
    eventToMessage: (payload) => JSON.stringify({ type, payload, timestamp: new Date().toISOString() }),
  };
}

const PROGRESS = "upload-progress";

/** Under which name a newer event of the same key replaces this one; undefined: each of them counts. */
export function conflateName(text: string): string | undefined {
  if (!text.includes(PROGRESS)) return undefined;
  try {
    const envelope = JSON.parse(text) as { payload?: { type?: unknown } } | null;
    return envelope?.payload?.type === PROGRESS ? PROGRESS : undefined;
  } catch {
    return undefined;
  }
}
