/**
 * The token: asked for once for all who need it at the same time, and again shortly before it ends.
 */
import type { TokenSource } from "./types.js";

/** Tokens are renewed so long before they end; those that live shorter, halfway. */
const AHEAD_MS = 30_000;
/** ... but not more often than this. */
const RENEWAL_MIN_MS = 1_000;
/** A token that ends within this is not used for a new request. */
const NEARLY_OVER_MS = 2_000;

/** When a JWT ends, in milliseconds since 1970; undefined: it does not say. Nothing is verified here. */
export function expiryOf(token: string): number | undefined {
  try {
    const text = atob((token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/"));
    const { exp } = JSON.parse(text) as { exp?: unknown };
    return typeof exp === "number" ? exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}

export class Tokens {
  #source: TokenSource | undefined;
  #now: string | undefined;
  #asking: Promise<string | undefined> | undefined;

  constructor(source: TokenSource | undefined) {
    this.#source = source;
    if (typeof source === "string") this.#now = source;
  }

  /** Whether another one may be had when one is refused. */
  get renewable(): boolean {
    return typeof this.#source === "function";
  }

  /** A token for a new connection: the function is asked each time. */
  fresh(): Promise<string | undefined> {
    const source = this.#source;
    if (typeof source !== "function") return Promise.resolve(this.#now);
    this.#asking ??= (async () => source())().then((token) => (this.#now = token ?? undefined))
      .finally(() => { this.#asking = undefined; });
    return this.#asking;
  }

  /** A token for a request: the last one unless it is about to end. */
  current(): Promise<string | undefined> {
    const end = this.#now === undefined ? undefined : expiryOf(this.#now);
    const over = end !== undefined && end - Date.now() < NEARLY_OVER_MS;
    return this.#now === undefined || over ? this.fresh() : Promise.resolve(this.#now);
  }

  /** Milliseconds until this token should be renewed; undefined: never. */
  renewIn(token: string | undefined): number | undefined {
    const end = token === undefined || !this.renewable ? undefined : expiryOf(token);
    if (end === undefined) return undefined;
    const left = end - Date.now();
    return left - AHEAD_MS >= RENEWAL_MIN_MS ? left - AHEAD_MS : Math.max(RENEWAL_MIN_MS, left / 2);
  }
}
