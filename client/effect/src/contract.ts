/**
 * What a room type speaks, as schemas: what is sent is encoded by them before it leaves, what is
 * answered is decoded, and a mismatch is a RoomValidationError. All of them are optional; what has
 * none is `unknown` and passes as it is.
 */
import type { Schema } from "effect";

/** Any schema that needs no service. */
type AnySchema = Schema.Schema.AnyNoContext;

/** A method's input and what it returns. */
export interface MethodSchemas {
  readonly input?: AnySchema;
  readonly output?: AnySchema;
}

export interface RoomSchemas {
  /** The room's state, as `getState` reads it. */
  readonly state?: AnySchema;
  /** A connection's state. */
  readonly connection?: AnySchema;
  /** What `send` sends. */
  readonly event?: AnySchema;
  /** What `broadcast` sends. */
  readonly broadcast?: AnySchema;
  /** What `call` calls. Without it every method may be called, with anything. */
  readonly methods?: { readonly [name: string]: MethodSchemas };
}

/** A room type with its schemas; made by {@link defineRoom}. */
export interface RoomDefinition<S extends RoomSchemas = RoomSchemas> {
  readonly name: string;
  readonly schemas: S;
}

/** Names a room type of the configuration, and says what it speaks. */
export function defineRoom<const S extends RoomSchemas>(name: string, schemas: S): RoomDefinition<S> {
  return { name, schemas };
}

type TypeOf<X> = [X] extends [Schema.Schema<infer A, infer _I, never>] ? A : unknown;
type Field<S, N extends string> = S extends { readonly [K in N]: infer X extends AnySchema } ? TypeOf<X> : unknown;

export type StateOf<S extends RoomSchemas> = Field<S, "state">;
export type ConnectionOf<S extends RoomSchemas> = Field<S, "connection">;
export type EventOf<S extends RoomSchemas> = Field<S, "event">;
export type BroadcastOf<S extends RoomSchemas> = Field<S, "broadcast">;

type MethodsOf<S extends RoomSchemas> = S extends { readonly methods: infer M extends object } ? M : never;
/** The methods that may be called. */
export type MethodName<S extends RoomSchemas> = [MethodsOf<S>] extends [never] ? string : keyof MethodsOf<S> & string;
type MethodOf<S extends RoomSchemas, N extends string> = [MethodsOf<S>] extends [never]
  ? unknown
  : N extends keyof MethodsOf<S>
    ? MethodsOf<S>[N]
    : unknown;
export type InputOf<S extends RoomSchemas, N extends string> = Field<MethodOf<S, N>, "input">;
export type OutputOf<S extends RoomSchemas, N extends string> = Field<MethodOf<S, N>, "output">;
/** What `call` takes behind the method's name: a method of a known input needs it. */
export type CallArguments<S extends RoomSchemas, N extends string, Options> =
  unknown extends InputOf<S, N>
    ? [input?: unknown, options?: Options]
    : [input: InputOf<S, N>, options?: Options];
