/**
 * Lines that come at most once a minute, with the number of those that were held back.
 */
const EVERY_MS = 60_000;

export class RareLog {
  private due = -Infinity;
  private held = 0;

  constructor(
    private readonly write: (line: string) => void,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** `line` is asked for only when it is written. */
  say(line: () => string): void {
    const now = this.now();
    if (now < this.due) {
      this.held++;
      return;
    }
    const more = this.held > 0 ? ` (and ${this.held} more since the last line)` : "";
    this.due = now + EVERY_MS;
    this.held = 0;
    try {
      this.write(`stoa: ${line()}${more}`);
    } catch {
      // a logger that fails must not fail an upload
    }
  }
}
