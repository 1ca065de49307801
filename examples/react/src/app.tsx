// The page: what is uploaded now, by whomever. Each bar is `useUpload` of its own key; the list of them is
// `useEvents` of the key `uploads`; one socket carries all.
import { useState, type ChangeEvent, type DragEvent } from "react";
import { useEvents, useUpload, useUploads, type HookStatus } from "@stoa/client/react";
import { formatBytes, formatRatio } from "./format.js";
import { sampleFiles, uploadFile } from "./service.js";

interface Announced {
  readonly type: "upload-created";
  readonly id: string;
  readonly name: string;
  readonly size: number;
}

const NONE: readonly Announced[] = [];

/** Newest first. Told twice, it is there once. */
const announce = (all: readonly Announced[], { data }: { readonly data: Announced }): readonly Announced[] =>
  data.type === "upload-created" && !all.some(({ id }) => id === data.id) ? [data, ...all] : all;

const ofLobby = { reducer: announce, initial: NONE };

export function App() {
  const lobby = useEvents<Announced, readonly Announced[]>("uploads", ofLobby);
  const [notice, setNotice] = useState("");
  const upload = (files: Iterable<File>) => {
    setNotice("");
    for (const file of files)
      uploadFile(file).catch((error: Error) => setNotice(`${file.name}: ${error.message}`));
  };
  return (
    <main>
      <header>
        <svg viewBox="0 0 16 16" aria-hidden="true">
          <path d="M1 5 8 1l7 4v1H1zM2 7h2v6H2zm5 0h2v6H7zm5 0h2v6h-2zM1 14h14v1H1z" />
        </svg>
        <div>
          <h1>Uploads, live</h1>
          <p>React hooks on a Stoa gateway. Open a second tab: both tell the same.</p>
        </div>
        <Link status={lobby.status} />
      </header>
      <Drop onFiles={upload} />
      {(notice || lobby.error) && (
        <p className="notice" role="alert">
          {notice || lobby.error?.message}
        </p>
      )}
      <Totals uploads={lobby.state} />
      {lobby.state.length === 0 ? (
        <p className="empty">{lobby.status === "live" ? "Nothing here yet." : "Asking the gateway…"}</p>
      ) : (
        <ul>
          {lobby.state.map((announced) => (
            <Row key={announced.id} {...announced} />
          ))}
        </ul>
      )}
    </main>
  );
}

const LINK_WORDS: Record<HookStatus, string> = {
  idle: "off",
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  paused: "catching up",
  closed: "closed",
};

function Link({ status }: { status: HookStatus }) {
  return (
    <span className="link" role="status" data-state={status}>
      {LINK_WORDS[status]}
    </span>
  );
}

function Drop({ onFiles }: { onFiles(files: Iterable<File>): void }) {
  const [over, setOver] = useState(false);
  const hover = (event: DragEvent) => {
    event.preventDefault();
    setOver(event.type === "dragover");
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    onFiles(event.dataTransfer.files);
  };
  const choose = (event: ChangeEvent<HTMLInputElement>) => {
    onFiles([...(event.target.files ?? [])]);
    event.target.value = "";
  };
  return (
    <section className={over ? "drop over" : "drop"} onDragOver={hover} onDragLeave={hover} onDrop={drop}>
      <label>
        <input type="file" multiple onChange={choose} />
        <strong>Drop files here, or choose some</strong>
      </label>
      <button type="button" onClick={() => onFiles(sampleFiles())}>
        Send three sample files
      </button>
    </section>
  );
}

/** All uploads in one line. Watches the keys that the rows watch too: one subscription each, not two. */
function Totals({ uploads }: { uploads: readonly Announced[] }) {
  const states = useUploads(uploads.map(({ id }) => id));
  if (uploads.length === 0) return null;
  const bytes = states.reduce((sum, state) => sum + state.bytes, 0);
  const total = uploads.reduce((sum, { size }) => sum + size, 0);
  const count = (phase: string) => states.filter((state) => state.phase === phase).length;
  const complete = count("complete");
  const failed = count("failed");
  const ratio = total > 0 ? Math.min(bytes / total, 1) : 1;
  return (
    <section className="totals" aria-label="All uploads" data-bytes={bytes} data-total={total}>
      <p>
        <strong>{formatRatio(ratio)}</strong>
        <span>
          {complete} of {uploads.length} complete{failed > 0 && `, ${failed} failed`}
        </span>
        <span className="figure">
          {formatBytes(bytes)} of {formatBytes(total)}
        </span>
      </p>
      <progress value={ratio} max={1} aria-label="All uploads" />
    </section>
  );
}

const PHASE_WORDS = {
  idle: "not watched",
  waiting: "waiting for the first byte",
  uploading: "uploading",
  complete: "complete",
  failed: "failed",
} as const;

function Row({ id, name, size }: Announced) {
  const { phase, bytes, total, ratio, error } = useUpload(id);
  return (
    <li data-id={id} data-phase={phase} data-bytes={bytes}>
      <div className="line">
        <label htmlFor={id}>{name}</label>
        <span className="figure">
          {formatBytes(bytes)} of {formatBytes(total || size)} · {formatRatio(ratio)}
        </span>
      </div>
      <progress id={id} value={ratio} max={1} />
      <span className="phase">{error ? `failed: ${error}` : PHASE_WORDS[phase]}</span>
    </li>
  );
}
