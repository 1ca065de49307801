// What the events of an upload say about it: a pure reducer, without React and without a connection.
//
// Three shapes are read, because all three are in use: Uploadista's envelope
// `{type:"upload_event", payload:{type, data}}`, its inner event alone `{type, data}`, and one flat object
// (`{type:"upload_progress", bytesUploaded, totalBytes}`). Whatever else the key carries is passed over.

/** Where an upload is: no id, nothing heard yet, bytes on their way, or how it ended. */
export type UploadPhase = "idle" | "waiting" | "uploading" | "complete" | "failed";

/** An upload as its events tell it. */
export interface UploadProgress {
  readonly phase: UploadPhase;
  /** Bytes that have arrived at the upload service. */
  readonly bytes: number;
  /** Size of the whole file in bytes; 0 while unknown. */
  readonly total: number;
  /** Why it failed, in the words of the upload service; null unless `phase` is `failed`. */
  readonly error: string | null;
}

/** An upload of which nothing is known yet. */
export const WAITING: UploadProgress = { phase: "waiting", bytes: 0, total: 0, error: null };

type Fields = Readonly<Record<string, unknown>>;

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const firstCount = (data: Fields, ...names: readonly string[]): number | undefined => {
  for (const name of names) {
    const value = data[name];
    if (typeof value === "number" && Number.isFinite(value) && value >= 0) return value;
  }
  return undefined;
};

const firstText = (data: Fields, ...names: readonly string[]): string | undefined => {
  for (const name of names) {
    const value = data[name];
    if (typeof value === "string" && value !== "") return value;
  }
  return undefined;
};

/** The name of an event without what its writers disagree about: `upload_progress` is `progress`. */
const plainName = (type: unknown): string =>
  typeof type === "string" ? type.replaceAll("_", "-").replace(/^upload-/, "") : "";

/** The event within whichever of the three shapes `payload` has; null when it has none of them. */
function readUploadEvent(payload: unknown): { name: string; data: Fields } | null {
  if (!isFields(payload)) return null;
  const inner = payload["type"] === "upload_event" ? payload["payload"] : payload;
  if (!isFields(inner)) return null;
  return { name: plainName(inner["type"]), data: isFields(inner["data"]) ? inner["data"] : inner };
}

function progressed(state: UploadProgress, data: Fields): UploadProgress {
  if (state.phase === "complete" || state.phase === "failed") return state;
  const bytes = firstCount(data, "bytesUploaded", "progress") ?? state.bytes;
  const total = firstCount(data, "totalBytes", "total") ?? state.total;
  return { phase: "uploading", bytes, total, error: null };
}

/** The upload after one more event; the very same object when the event says nothing about it. */
export function uploadReducer(state: UploadProgress, payload: unknown): UploadProgress {
  const event = readUploadEvent(payload);
  if (event === null) return state;
  const { name, data } = event;
  switch (name) {
    case "started":
      return {
        phase: "uploading",
        bytes: firstCount(data, "offset", "bytesUploaded") ?? 0,
        total: firstCount(data, "size", "totalBytes", "total") ?? 0,
        error: null,
      };
    case "progress":
      return progressed(state, data);
    case "complete":
    case "completed": {
      const total = firstCount(data, "size", "totalBytes", "total") ?? Math.max(state.total, state.bytes);
      return { phase: "complete", bytes: total, total, error: null };
    }
    case "failed":
    case "error":
    case "validation-failed":
      return {
        ...state,
        phase: "failed",
        error: firstText(data, "error", "reason", "message") ?? "the upload failed",
      };
    default:
      return state;
  }
}

/** How much of it is there, 0 to 1; a complete upload is 1 even when it is empty. */
export const uploadRatio = ({ phase, bytes, total }: UploadProgress): number =>
  phase === "complete" ? 1 : total > 0 ? Math.min(bytes / total, 1) : 0;
