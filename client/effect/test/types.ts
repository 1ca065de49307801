/**
 * What the compiler must accept and refuse; types.test.mjs runs it. Nothing of it is ever executed.
 */
import { Effect, Schema } from "effect";

import { defineRoom, Rooms, type RoomClient, type RunFailure } from "../dist/index.js";

const Chat = defineRoom("chat", {
  state: Schema.Struct({ createdAt: Schema.DateFromNumber }),
  connection: Schema.Struct({ userId: Schema.String }),
  event: Schema.TaggedStruct("Say", { text: Schema.String }),
  broadcast: Schema.TaggedStruct("Notice", { text: Schema.String }),
  methods: {
    say: { input: Schema.Struct({ text: Schema.String }), output: Schema.Struct({ status: Schema.Literal("ok") }) },
    count: { output: Schema.Number },
  },
});

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Success<E> = E extends Effect.Effect<infer A, infer _E, infer _R> ? A : never;
type Failure<E> = E extends Effect.Effect<infer _A, infer F, infer _R> ? F : never;
const same = <A, B>(_: Equal<A, B>): void => undefined;

export const program = Effect.gen(function* () {
  const rooms = yield* Rooms;
  const chat = rooms.room(Chat);

  const state = chat.getState("lobby");
  same<Success<typeof state>, { readonly createdAt: Date } | null>(true);
  const list = yield* chat.getConnections("lobby", "user:ann");
  same<(typeof list)[number]["state"], { readonly userId: string }>(true);
  const sent = chat.send("lobby", { _tag: "Say", text: "hello" });
  same<Success<typeof sent>, void>(true);
  same<Failure<typeof sent>, RunFailure>(true);
  yield* chat.broadcast("lobby", { _tag: "Notice", text: "x" });
  const answer = yield* chat.call("lobby", "say", { text: "x" }, { idempotencyKey: "k" });
  same<typeof answer, { readonly status: "ok" }>(true);
  const count = yield* chat.call("lobby", "count");
  same<typeof count, number>(true);

  // @ts-expect-error not what the event's schema says
  chat.send("lobby", { _tag: "Say" });
  // @ts-expect-error not what the broadcast's schema says
  chat.broadcast("lobby", { _tag: "Say", text: "x" });
  // @ts-expect-error no such method
  chat.call("lobby", "shout", {});
  // @ts-expect-error the input is missing
  chat.call("lobby", "say");
  // @ts-expect-error another input
  chat.call("lobby", "say", { words: "x" });

  const untyped: RoomClient = rooms.room("chat");
  const anything = yield* untyped.call("lobby", "whatever", [1, 2]);
  same<typeof anything, unknown>(true);
  const unknownState = yield* untyped.getState("lobby");
  same<typeof unknownState, unknown>(true);
  yield* untyped.send("lobby", "anything");

  return yield* sent.pipe(
    Effect.catchTags({
      RoomValidationError: (error) => Effect.succeed(error.message),
      RoomRefusal: (error) => Effect.succeed(error.code),
      Unknown: (error) => Effect.succeed(error.room),
    }),
  );
});

// @ts-expect-error a service is still needed
Effect.runPromise(program);
Effect.runPromise(program.pipe(Effect.provide(Rooms.layer({ url: "http://127.0.0.1:8080", timeout: "5 seconds" }))));
