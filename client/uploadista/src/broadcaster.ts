/**
 * SHELL. A broadcaster in place of Redis: a channel is a key, what is published reaches every instance, in order, and
 * what came while an instance was cut off follows when it is back.
 *
 * A text travels as a JSON string, so that it arrives as it was whatever it is.
 */
import { StoaError, type Stoa, type Subscription } from "@stoa/client";

import { RareLog } from "./log.js";
import { checkConnect, connectReader, type ConnectOptions } from "./options.js";
import { Outbox, type EmitStats } from "./outbox.js";

export interface StoaBroadcasterOptions extends ConnectOptions {
  /** The key of a channel; default: the channel's name. */
  key?: ((channel: string) => string) | undefined;
}

export interface BroadcasterStats extends EmitStats {
  /** Gaps that a subscription was told of: this instance was cut off for longer than the key is retained. */
  readonly gaps: number;
}

/** Many uploads share a channel, so that many may be on their way at a time. */
const PER_CHANNEL = 64;

export class StoaBroadcaster {
  readonly ready: Promise<void>;
  private readonly outbox: Outbox;
  private readonly reader: Stoa;
  private readonly key: (channel: string) => string;
  private readonly log: RareLog;
  private readonly channels = new Map<string, Set<Subscription>>();
  private gaps = 0;

  constructor(options: StoaBroadcasterOptions) {
    checkConnect(options, true);
    this.log = new RareLog(options.onLog ?? ((line) => console.warn(line)));
    this.key = options.key ?? ((channel) => channel);
    this.outbox = new Outbox(options, PER_CHANNEL);
    this.ready = this.outbox.ready;
    this.reader = connectReader(options) as Stoa;
  }

  /** Returns at once. */
  publish(channel: string, text: string): void {
    this.outbox.add(this.key(channel), JSON.stringify(text), undefined);
  }

  /**
   * Calls the handler with every text from now on. Fulfilled when "now" has begun: what is published after that
   * reaches it. A handler that throws stops no other. Never rejects: a refusal is logged.
   */
  async subscribe(channel: string, handler: (text: string) => void): Promise<void> {
    const subscription = this.reader.subscribe(this.key(channel), {
      onMissed: (missed) => {
        this.gaps++;
        this.log.say(() => `${channel}: missed ${missed.from} to ${missed.to} (${missed.reason})`);
      },
      onError: (error) => this.log.say(() => `${channel}: ${error instanceof StoaError ? error.tag : error.name}: ${error.message}`),
    }, (event) => {
      try {
        if (typeof event.data === "string") handler(event.data);
      } catch (error) {
        this.log.say(() => `${channel}: a handler failed: ${String(error)}`);
      }
    });
    const subscriptions = this.channels.get(channel) ?? new Set();
    this.channels.set(channel, subscriptions.add(subscription));
    await subscription.ready.catch(() => undefined);
  }

  /** Ends all handlers of the channel. */
  unsubscribe(channel: string): void {
    for (const subscription of this.channels.get(channel) ?? []) subscription.close();
    this.channels.delete(channel);
  }

  stats(): BroadcasterStats {
    return { ...this.outbox.stats(), gaps: this.gaps };
  }

  flush(timeout?: number): Promise<boolean> {
    return this.outbox.flush(timeout);
  }

  async close(timeout?: number): Promise<void> {
    for (const channel of [...this.channels.keys()]) this.unsubscribe(channel);
    await this.outbox.close(timeout);
    this.reader.close();
  }
}
