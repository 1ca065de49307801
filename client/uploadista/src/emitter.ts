/**
 * SHELL. The event emitter without Effect: what the layers, the Durable Object namespace and programs of other styles
 * share. Nothing of it throws or waits once it is made.
 */
import type { Stoa } from "@stoa/client";

import { conflateName } from "./events.js";
import { RareLog } from "./log.js";
import { checkConnect, connectReader, type ConnectOptions } from "./options.js";
import { Outbox, type EmitStats } from "./outbox.js";
import { Viewers, type WebSocketConnection } from "./viewers.js";

export interface StoaEmitterOptions extends ConnectOptions {
  /** Under which name a newer event of the key replaces an older one; default: upload-progress, by that name. */
  conflate?: ((text: string, key: string) => string | undefined) | undefined;
  /**
   * Milliseconds without an event after which connections are let go that may all have left: when `unsubscribe(key)`
   * was called as often as there are connections, none of which says that it is closed (600,000).
   */
  idle?: number | undefined;
}

export interface EmitterStats extends EmitStats {
  /** Connections that are sent events. */
  readonly viewers: number;
}

const IDLE_MS = 600_000;

export class StoaEmitter {
  /** Fulfilled when events can be published; rejected when they never can be (the package `zeromq` is missing). */
  readonly ready: Promise<void>;
  private readonly outbox: Outbox;
  private readonly reader: Stoa | undefined;
  private readonly viewers: Viewers | undefined;
  private readonly conflate: (text: string, key: string) => string | undefined;
  private readonly log: RareLog;

  /** Connects in the background. Throws a TypeError when the options lack something. */
  constructor(options: StoaEmitterOptions) {
    checkConnect(options, false);
    this.log = new RareLog(options.onLog ?? ((line) => console.warn(line)));
    this.conflate = options.conflate ?? conflateName;
    this.outbox = new Outbox(options, 1);
    this.ready = this.outbox.ready;
    this.reader = connectReader(options);
    this.viewers = this.reader && new Viewers(this.reader, options.idle ?? IDLE_MS, (line) => this.log.say(() => line));
  }

  /** Publishes the text under the key, in order with the key's others. Returns at once. */
  emit(key: string, text: string): void {
    let name: string | undefined;
    try {
      if (typeof text === "string") name = this.conflate(text, key);
    } catch (error) {
      this.log.say(() => `conflate failed: ${String(error)}`);
    }
    this.outbox.add(key, text, name);
  }

  /** Sends the key's retained events to the connection, then those to come. */
  subscribe(key: string, connection: WebSocketConnection): void {
    if (this.viewers) this.viewers.add(key, connection);
    else this.log.say(() => "a connection wants to watch a key: give url (a gateway) for that");
  }

  /** Ends it for this connection; without one, for those of the key that are closed. No other is touched. */
  unsubscribe(key: string, connection?: WebSocketConnection): void {
    this.viewers?.leave(key, connection);
  }

  stats(): EmitterStats {
    return { ...this.outbox.stats(), viewers: this.viewers?.count ?? 0 };
  }

  /** Whether everything that was emitted is stored, or given up and counted, within `timeout` milliseconds (5,000). */
  flush(timeout?: number): Promise<boolean> {
    return this.outbox.flush(timeout);
  }

  /** Flushes, then ends publishing and watching. Never rejects. */
  async close(timeout?: number): Promise<void> {
    this.viewers?.close();
    await this.outbox.close(timeout);
    this.reader?.close();
  }
}
