// The upload service's HTTP interface (examples/upload): make an upload, then send the file's bytes; where the
// connection was lost, ask how far it came and go on. Progress does not come back on this way: it comes as events of
// the upload's key, to this tab and to every other.

/** Where the upload service answers: `?upload=URL`, this page's own origin, or the port that deploy/up gives it. */
async function findService(): Promise<string> {
  const beside = new URL("/", location.href);
  beside.port = "8070";
  for (const base of [new URLSearchParams(location.search).get("upload"), location.origin, beside.origin]) {
    if (!base) continue;
    const answer = await fetch(new URL("/uploads/health", base)).catch(() => null);
    if (answer?.ok) return base;
  }
  throw new Error("the upload service does not answer; deploy/up starts it on port 8070");
}

let service: Promise<string> | null = null;

/** A refusal of the service, which another try would not change. */
class Refusal extends Error {}

interface Answer {
  readonly id: string;
  readonly offset: number;
}

async function request(method: string, path: string, body?: Blob): Promise<Answer | null> {
  service ??= findService();
  const base = await service.catch((error: unknown) => {
    service = null; // the next try looks anew
    throw error;
  });
  const answer = await fetch(new URL(path, base), { method, ...(body && { body }) });
  if (answer.status === 409) return null; // what was lost is still being written: ask again where that ends
  const result = (await answer.json()) as Answer & { error?: string };
  if (!answer.ok) throw new Refusal(result.error ?? `the upload service answered ${answer.status}`);
  return result;
}

const RETRY_MS = 500;

/** A moment, or less: until the browser says that it has a network again. */
const aMoment = (): Promise<void> =>
  new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      removeEventListener("online", over);
      resolve();
    };
    const timer = setTimeout(over, RETRY_MS);
    addEventListener("online", over);
  });

/** Sends a file, through as many lost connections as it takes. Who watches the lobby has heard of it before its first byte. */
export async function uploadFile(file: File): Promise<void> {
  const made = await request("POST", `/uploads?${new URLSearchParams({ name: file.name, size: String(file.size) })}`);
  if (made === null) throw new Refusal("the upload service made no upload");
  const path = `/uploads/${made.id}`;
  for (let offset: number | undefined = 0; ; ) {
    try {
      offset ??= (await request("GET", path))?.offset;
      if (offset !== undefined && (await request("PATCH", `${path}?offset=${offset}`, file.slice(offset)))) return;
    } catch (error) {
      if (error instanceof Refusal) throw error;
    }
    offset = undefined;
    await aMoment();
  }
}

const MIB = 1024 * 1024;

/** Three files to try it with. */
export const sampleFiles = (): File[] =>
  ([["holiday.mov", 96], ["slides.pdf", 32], ["archive.zip", 64]] as const).map(
    ([name, size]) => new File(Array.from({ length: size }, () => new Uint8Array(MIB)), name),
  );
