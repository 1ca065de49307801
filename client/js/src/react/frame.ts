// When hooks are told that something changed: at most once a frame, however many events came in it.

const LONGEST_WAIT_MS = 100; // a hidden tab gets no animation frames; what it shows must still become true
const NO_FRAMES_WAIT_MS = 16; // where there are no animation frames at all

/** Calls `work` at the next frame. What it returns takes the call back. */
export function onNextFrame(work: () => void): () => void {
  const frames = typeof globalThis.requestAnimationFrame === "function";
  let frame: number | undefined;
  const run = () => {
    cancel();
    work();
  };
  const timer = setTimeout(run, frames ? LONGEST_WAIT_MS : NO_FRAMES_WAIT_MS);
  const cancel = () => {
    clearTimeout(timer);
    if (frame !== undefined) globalThis.cancelAnimationFrame(frame);
  };
  if (frames) frame = globalThis.requestAnimationFrame(run);
  return cancel;
}
