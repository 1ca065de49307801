/**
 * SHELL. Connections of an Uploadista server that watch keys: each has a subscription of its own, so that none can
 * end another's.
 *
 * Uploadista's servers call `unsubscribe(key)` when any connection of the key closes, or was refused, and do not say
 * which. So only what is known to be closed is ended by that; a connection whose `readyState` is a frozen copy (Hono,
 * Fastify) never says so. It is let go when there were as many such calls as connections and nothing has happened on
 * the key for a while: the sends until then go to a closed socket, which is harmless.
 */
import { StoaError, type Stoa, type Subscription } from "@stoa/client";

/** A connection as an Uploadista server hands it over. */
export interface WebSocketConnection {
  readonly id: string;
  readonly readyState: number;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

interface Viewer {
  readonly connection: WebSocketConnection;
  readonly subscription: Subscription;
}

interface Watched {
  readonly viewers: Map<WebSocketConnection, Viewer>;
  left: number; // unsubscribe(key) without a connection
  timer: ReturnType<typeof setTimeout> | undefined;
}

const OPEN = 1;

/** An event's text: as it was emitted, if JSON.stringify wrote that or it is no JSON. */
function textOf(data: unknown): string {
  return data instanceof Uint8Array ? new TextDecoder().decode(data) : JSON.stringify(data);
}

export class Viewers {
  private readonly keys = new Map<string, Watched>();

  constructor(
    private readonly reader: Stoa,
    private readonly idleMs: number,
    private readonly onLog: (line: string) => void,
  ) {}

  get count(): number {
    let count = 0;
    for (const watched of this.keys.values()) count += watched.viewers.size;
    return count;
  }

  /** Sends the key's retained events to the connection, then those to come. The same connection again changes nothing. */
  add(key: string, connection: WebSocketConnection): void {
    let watched = this.keys.get(key);
    if (!watched) {
      watched = { viewers: new Map(), left: 0, timer: undefined };
      this.keys.set(key, watched);
    }
    if (watched.viewers.has(connection)) return;
    const subscription = this.reader.subscribe(key, {
      replay: "all",
      onMissed: (missed) => this.onLog(`a viewer has missed events ${missed.from} to ${missed.to} (${missed.reason})`),
      onError: (error) => {
        this.onLog(`a viewer's events ended: ${error instanceof StoaError ? error.tag : error.name}: ${error.message}`);
        this.remove(key, connection);
      },
    }, (event) => {
      if (watched.timer) this.wait(key, watched);
      if (connection.readyState > OPEN) {
        this.remove(key, connection);
        return;
      }
      try {
        connection.send(textOf(event.data));
      } catch {
        this.remove(key, connection); // the connection is broken; its server closes it
      }
    });
    watched.viewers.set(connection, { connection, subscription });
  }

  /** With a connection: that one. Without: those that are known to be closed. */
  leave(key: string, connection?: WebSocketConnection): void {
    const watched = this.keys.get(key);
    if (!watched) return;
    if (connection) {
      this.remove(key, connection);
      return;
    }
    watched.left++;
    for (const one of watched.viewers.keys()) {
      if (one.readyState <= OPEN) continue;
      watched.left--;
      this.remove(key, one);
    }
    if (watched.left >= watched.viewers.size && this.keys.has(key)) this.wait(key, watched);
  }

  close(): void {
    for (const [key, watched] of this.keys) for (const one of watched.viewers.keys()) this.remove(key, one);
  }

  private wait(key: string, watched: Watched): void {
    clearTimeout(watched.timer);
    watched.timer = setTimeout(() => {
      for (const one of watched.viewers.keys()) this.remove(key, one);
    }, this.idleMs);
    watched.timer.unref();
  }

  private remove(key: string, connection: WebSocketConnection): void {
    const watched = this.keys.get(key);
    const viewer = watched?.viewers.get(connection);
    if (!watched || !viewer) return;
    watched.viewers.delete(connection);
    viewer.subscription.close();
    if (watched.viewers.size > 0) return;
    clearTimeout(watched.timer);
    this.keys.delete(key);
  }
}
