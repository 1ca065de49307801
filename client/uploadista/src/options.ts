/**
 * What emitter and broadcaster take, and the publisher and reader that are made of it.
 */
import { Stoa, type TokenSource, type WebSocketConstructor } from "@stoa/client";
import { openPublisher, type PublisherOptions } from "@stoa/client/server";

/** What publishes; that of `@stoa/client/server` is one. Events of one key must be stored in the order of the calls. */
export interface EventPublisher {
  publish(
    key: string,
    payload: Uint8Array,
    options: { conflate?: string | undefined; timeout?: number | undefined },
  ): Promise<unknown>;
  close?(timeout?: number): Promise<unknown>;
}

export interface ConnectOptions {
  /** The gateway, "http://127.0.0.1:8080": for watching, and for publishing where there are no `routers`. */
  url?: string | URL | undefined;
  /** For the gateway. Publishing needs the right `publish`, watching `subscribe`. */
  token?: TokenSource | undefined;
  /** Publishes by ZeroMQ to these routers, "tcp://router-0:7100" (needs the package `zeromq`). */
  routers?: string | readonly string[] | undefined;
  /** The cluster's name, with `routers`. */
  cluster?: string | undefined;
  /** A publisher of your own instead; it is not closed here. */
  publisher?: EventPublisher | undefined;
  /** Default: `globalThis.WebSocket`, else the package `ws`; without either, event streams. */
  WebSocket?: WebSocketConstructor | undefined;
  /** What may wait: events (10,000) and about their memory in bytes (64 MiB). */
  maxQueue?: { readonly events?: number; readonly bytes?: number } | undefined;
  /** Milliseconds until an event that was not acknowledged is given up (300,000). */
  timeout?: number | undefined;
  /** Lines about what is dropped or failing, at most one a minute of each kind. Default: console.warn. */
  onLog?: ((line: string) => void) | undefined;
}

export const TIMEOUT_MS = 300_000;
export const QUEUE_EVENTS = 10_000;
export const QUEUE_BYTES = 64 * 1024 * 1024;

/** Checks what must be there. Throws a TypeError that says what to give. */
export function checkConnect(options: ConnectOptions, reads: boolean): void {
  if (!options.url && !options.routers && !options.publisher)
    throw new TypeError("give url (a gateway), routers (ZeroMQ) or publisher");
  if (reads && !options.url) throw new TypeError("give url (a gateway): what is published is read from there");
  if (options.url && !/^https?:$/.test(URL.canParse(options.url) ? new URL(options.url).protocol : ""))
    throw new TypeError("url: a gateway is wanted, like http://127.0.0.1:8080");
  for (const [name, value] of [["maxQueue.events", options.maxQueue?.events], ["maxQueue.bytes", options.maxQueue?.bytes],
    ["timeout", options.timeout]] as const)
    if (value !== undefined && !(value > 0)) throw new TypeError(`${name}: a number above 0 is wanted`);
}

/** Rejects when the options break a rule, or `routers` is given and the package `zeromq` is missing. */
export async function connectPublisher(options: ConnectOptions): Promise<EventPublisher> {
  if (options.publisher) return options.publisher;
  const { url, token, routers, cluster, timeout = TIMEOUT_MS } = options;
  const ours: PublisherOptions = routers ? { routers, cluster, timeout } : { url: url as string | URL, token, timeout };
  return openPublisher(ours);
}

export function connectReader(options: ConnectOptions): Stoa | undefined {
  if (!options.url) return undefined;
  return new Stoa(options.url, { token: options.token, WebSocket: options.WebSocket });
}
