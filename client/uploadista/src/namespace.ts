/**
 * The shape of a Durable Object namespace, for code that was written against Uploadista's Durable Object emitter.
 */
import { StoaEmitter, type StoaEmitterOptions } from "./emitter.js";
import type { WebSocketConnection } from "./viewers.js";

/** What stands for a DurableObjectId. */
export interface ObjectId {
  readonly name: string;
  toString(): string;
  equals(other: ObjectId): boolean;
}

/** What stands for a DurableObjectStub: its methods return promises that are never rejected. */
export interface EventEmitterStub {
  readonly id: ObjectId;
  readonly name: string;
  /** A text as it is; anything else as JSON. Fulfilled when it was taken, which is at once. */
  emit(message: unknown): Promise<void>;
  /** With a connection it is sent the key's events; the original does nothing. */
  subscribe(connection?: WebSocketConnection): Promise<void>;
  /** The original closes every socket of the key; here only this connection leaves, or those that are closed. */
  unsubscribe(connection?: WebSocketConnection): Promise<void>;
}

export interface EventEmitterNamespace {
  idFromName(name: string): ObjectId;
  get(id: ObjectId): EventEmitterStub;
  /** The emitter behind it: its statistics, and its end. */
  readonly emitter: StoaEmitter;
}

class NamedId implements ObjectId {
  constructor(readonly name: string) {}
  toString(): string {
    return this.name;
  }
  equals(other: ObjectId): boolean {
    return other.name === this.name;
  }
}

/** undefined: it has none, and is counted as failed. */
function textOf(message: unknown): string | undefined {
  try {
    return typeof message === "string" ? message : JSON.stringify(message);
  } catch {
    return undefined;
  }
}

/** In place of `env.EVENT_EMITTER`: each name is a key. */
export function stoaDurableObjectNamespace(options: StoaEmitterOptions | StoaEmitter): EventEmitterNamespace {
  const emitter = options instanceof StoaEmitter ? options : new StoaEmitter(options);
  return {
    emitter,
    idFromName: (name) => new NamedId(name),
    get: (id) => ({
      id,
      name: id.name,
      emit: async (message) => emitter.emit(id.name, textOf(message) as string),
      subscribe: async (connection) => {
        if (connection) emitter.subscribe(id.name, connection);
      },
      unsubscribe: async (connection) => emitter.unsubscribe(id.name, connection),
    }),
  };
}
