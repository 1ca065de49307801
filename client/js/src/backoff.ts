/**
 * How long to wait before the next try: random, up to a bound that doubles with each one.
 */
export interface Bounds {
  readonly min: number;
  readonly max: number;
}

/** Milliseconds before try number `attempt` (0 is the first one after a failure). */
export function backoff(attempt: number, { min, max }: Bounds, random: () => number = Math.random): number {
  const bound = Math.min(max, min * 2 ** Math.min(attempt + 1, 30));
  return min + random() * Math.max(0, bound - min);
}

/** A pause that an abort ends at once, with the signal's reason. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}

/** A promise's value, or undefined after so many milliseconds. */
export function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<undefined>((resolve) => { timer = setTimeout(resolve, ms, undefined); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
