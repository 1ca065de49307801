/**
 * What carries publishes to a cluster: ZeroMQ (zmq.ts) or HTTP (http.ts). publisher.ts has the
 * queue's bound, promises and statistics in front of either.
 */
import type { StoaError } from "../errors.js";
import type { TokenSource } from "../types.js";
import type { CurveOptions } from "./curve.js";
import type { WindowBounds } from "./lanes.js";
import type { Order, Outcome, Publish } from "./publish.js";

export interface BackendStats {
  /** Sent and without an answer. */
  inFlight: number;
  /** Transmissions beyond each event's first. */
  resent: number;
  /** Whether somebody takes events now. */
  connected: boolean;
  /** Who; null: nobody. */
  router: string | null;
}

export interface Backend {
  /** Takes the publish; `settle` is told its outcome, once, and not before this has returned. */
  submit(order: Order, settle: (outcome: Outcome) => void): Publish;
  /** Ends it now: as unknown where it may have been stored, else with this error. */
  giveUp(publish: Publish, error: StoaError): void;
  stats(): BackendStats;
  /** Ends everything pending as {@link giveUp} does, and the connections. */
  close(error: StoaError): void;
}

export interface ZmqSettings {
  readonly routers: readonly string[];
  readonly cluster: string;
  readonly name: string;
  readonly window: WindowBounds;
  readonly curve: CurveOptions | undefined;
  readonly onLog: ((line: string) => void) | undefined;
}

export interface HttpSettings {
  readonly url: URL;
  readonly token: TokenSource | undefined;
  readonly fetch: typeof fetch;
  readonly concurrency: number;
}
