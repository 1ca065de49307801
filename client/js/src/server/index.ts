/**
 * @stoa/client/server: publishing from Node, through ZeroMQ (the package `zeromq`) by the rules of
 * libstoa, or over HTTP where no native module is wanted.
 */
import { StoaError } from "../errors.js";
import type { TokenSource } from "../types.js";
import type { CurveOptions } from "./curve.js";
import { parseRouters } from "./endpoint.js";
import { NAME_MAX_BYTES } from "./limits.js";
import { openHttp } from "./http.js";
import { BoundedPublisher, type Publisher } from "./publisher.js";
import { openZmq } from "./zmq.js";

export { StoaError } from "../errors.js";
export type { Published, PublishedBatch, PublishOptions, TokenSource } from "../types.js";
export type { CurveOptions } from "./curve.js";
export type { Closed, Ended, Publisher, PublisherStats, TryPublishOptions } from "./publisher.js";

/** What both ways take. */
export interface PublisherLimits {
  /** Milliseconds until a publish that was not acknowledged is reported (30,000). */
  timeout?: number | undefined;
  /** Events accepted and not yet reported (65,536), and their bytes (64 MiB); beyond either a publish is "Busy". */
  maxQueue?: { events?: number; bytes?: number } | undefined;
}

/** Through routers, by ZeroMQ. */
export interface ZmqPublisherOptions extends PublisherLimits {
  /** "tcp://host:7100", "host:7100" or "ipc:///path"; all are connected, one is used, another takes over. */
  routers: string | readonly string[];
  url?: undefined;
  /** The cluster's name ("stoa"). */
  cluster?: string | undefined;
  /** How the cluster's logs call this publisher ("node"). */
  name?: string | undefined;
  /** At most so much in flight, below what the router allows. */
  window?: { messages?: number; bytes?: number } | undefined;
  /** CURVE keys; not used for ipc. Without it links are in clear. */
  curve?: CurveOptions | undefined;
  /** One line about a router that is lost or refuses us. */
  onLog?: ((line: string) => void) | undefined;
}

/** Through a gateway, over HTTP. */
export interface HttpPublisherOptions extends PublisherLimits {
  /** The gateway: "http://127.0.0.1:8080". */
  url: string | URL;
  routers?: undefined;
  token?: TokenSource | undefined;
  /** Requests under way at a time (32); of one key always one. */
  concurrency?: number | undefined;
  /** Default: `globalThis.fetch`. */
  fetch?: typeof fetch | undefined;
}

export type PublisherOptions = ZmqPublisherOptions | HttpPublisherOptions;

const TIMEOUT_MS = 30000;
const QUEUE_EVENTS = 65536;
const QUEUE_BYTES = 64 * 1024 * 1024;
const CONCURRENCY = 32;

function positive(name: string, value: number | undefined, standard: number): number {
  if (value === undefined) return standard;
  if (typeof value === "number" && value > 0) return value;
  throw new StoaError("BadRequest", 0, `${name}: a number above 0 is wanted`);
}

function nameOf(field: string, text: string | undefined, standard: string): string {
  const name = text ?? standard;
  const size = typeof name === "string" ? Buffer.byteLength(name, "utf8") : 0;
  if (size > 0 && size <= (field === "name" ? NAME_MAX_BYTES : Infinity)) return name;
  throw new StoaError("BadRequest", 0, field === "name" ? "name: 1 to 64 bytes" : `${field}: a name is wanted`);
}

function gatewayOf(url: string | URL): URL {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed && /^https?:$/.test(parsed.protocol)) return parsed;
  throw new StoaError("BadRequest", 0, "url: a gateway is wanted, like http://127.0.0.1:8080");
}

/**
 * Opens a publisher. It connects in the background and opens without a cluster too; what is published meanwhile waits
 * in the queue. Rejects when an option breaks a rule, or when `routers` is given and the package `zeromq` is missing.
 */
export async function openPublisher(options: PublisherOptions): Promise<Publisher> {
  const timeout = positive("timeout", options.timeout, TIMEOUT_MS);
  const bounds = {
    events: positive("maxQueue.events", options.maxQueue?.events, QUEUE_EVENTS),
    bytes: positive("maxQueue.bytes", options.maxQueue?.bytes, QUEUE_BYTES),
  };
  if (options.routers === undefined && options.url === undefined)
    throw new StoaError("BadRequest", 0, "openPublisher: give routers (ZeroMQ) or url (HTTP)");
  if (options.routers !== undefined && options.url !== undefined)
    throw new StoaError("BadRequest", 0, "openPublisher: routers or url, not both");
  const backend =
    options.routers !== undefined
      ? await openZmq({
          routers: parseRouters(options.routers),
          cluster: nameOf("cluster", options.cluster, "stoa"),
          name: nameOf("name", options.name, "node"),
          window: {
            messages: positive("window.messages", options.window?.messages, Infinity),
            bytes: positive("window.bytes", options.window?.bytes, Infinity),
          },
          curve: options.curve,
          onLog: options.onLog,
        })
      : openHttp({
          url: gatewayOf(options.url),
          token: options.token,
          fetch: options.fetch ?? globalThis.fetch,
          concurrency: positive("concurrency", options.concurrency, CONCURRENCY),
        });
  return new BoundedPublisher(backend, bounds, timeout);
}
