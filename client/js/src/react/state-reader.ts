// Reads of something that changes more often than one wants to ask: one at a time, and at most one in an interval.

/** Asked as often as one likes, it reads once for all who asked before it began. */
export class StateReader<S> {
  #asked = false;
  #reading = false;
  #readAt = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #end = new AbortController();

  constructor(
    private readonly read: (signal: AbortSignal) => Promise<S>,
    private readonly tell: (result: { state: S } | { error: Error }) => void,
    private readonly intervalMs: number,
  ) {}

  ask(): void {
    this.#asked = true;
    this.#schedule();
  }

  /** Nothing is told any more. */
  close(): void {
    this.#end.abort();
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (!this.#asked || this.#reading || this.#timer !== undefined || this.#end.signal.aborted) return;
    const wait = Math.max(0, this.#readAt + this.intervalMs - Date.now());
    this.#timer = setTimeout(() => void this.#run(), wait);
  }

  async #run(): Promise<void> {
    this.#timer = undefined;
    this.#asked = false;
    this.#reading = true;
    this.#readAt = Date.now();
    const result = await this.read(this.#end.signal).then(
      (state) => ({ state }),
      (thrown: unknown) => ({ error: thrown instanceof Error ? thrown : new Error(String(thrown)) }),
    );
    this.#reading = false;
    if (this.#end.signal.aborted) return;
    this.tell(result);
    this.#schedule();
  }
}
