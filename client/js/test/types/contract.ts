/** What the types allow and refuse; compiled, never run. */
import { MissedError, Stoa, StoaError, type Event, type Subscription } from "@stoa/client";

interface Chat {
  event: { text: string; by: string };
  message: { text: string };
  state: { messages: number };
  methods: {
    rename(input: { to: string }): { was: string };
    count(): number;
    search(input?: { words: string }): string[];
    later(input: { seconds: number }): Promise<Date>;
    tail(input: { last: number }): AsyncIterable<{ text: string }>;
  };
}

const same = <A>(value: A, _: A extends unknown ? (value: A) => void : never) => value;

export async function typed(stoa: Stoa): Promise<void> {
  const room = stoa.room<Chat>("chat", "lobby");
  await room.send({ text: "hello" });
  // @ts-expect-error a message has a text
  await room.send({ words: "hello" });
  // @ts-expect-error an event is not a message
  await room.send(1);

  const { was } = await room.call("rename", { to: "agora" });
  same(was, (_: string) => {});
  // @ts-expect-error an input is needed
  await room.call("rename");
  // @ts-expect-error of this shape
  await room.call("rename", { too: "agora" });
  // @ts-expect-error there is no such method
  await room.call("renamed", { to: "agora" });
  const count: number = await room.call("count");
  await room.call("count", undefined, { signal: AbortSignal.timeout(1000) });
  // @ts-expect-error it takes nothing
  await room.call("count", { of: "words" });
  const found: string[] = await room.call("search");
  await room.call("search", { words: "hello" }, { idempotencyKey: "k", timeout: 1000 });
  const date: Date = await room.call("later", { seconds: 1 });
  for await (const line of room.call("tail", { last: count })) same(line.text, (_: string) => {});
  // @ts-expect-error a stream is iterated, not awaited for one value
  const text: { text: string } = await room.call("tail", { last: 1 });

  const state = await room.state();
  // @ts-expect-error there may be none
  same(state.messages, (_: number) => {});
  same(state?.messages, (_: number | undefined) => {});

  for await (const event of room.subscribe({ replay: "all" })) {
    same(event.data.by, (_: string) => {});
    // @ts-expect-error an event has no such member
    event.data.from;
    // @ts-expect-error nor is it changed
    event.data = { text: "", by: "" };
  }
  room.subscribe((event) => same(event.data.text, (_: string) => {})).close();

  const loose = stoa.room("any", "thing");
  const answer: unknown = await loose.call("whatever", { any: "input" });
  await loose.call("nothing");
  void [found, date, text, answer];
}

export async function untyped(stoa: Stoa): Promise<void> {
  const subscription: Subscription<{ n: number }> = stoa.subscribe<{ n: number }>("key", { replay: 10, after: undefined });
  for await (const event of subscription) {
    const one: Event<{ n: number }> = event;
    const id: string | undefined = one.id;
    same(one.data.n, (_: number) => {});
    void id;
  }
  for await (const event of stoa.subscribe("key")) {
    // @ts-expect-error what it is must be said
    event.data.n;
  }
  // @ts-expect-error "some" is not how much
  stoa.subscribe("key", { replay: "some" });
  stoa.subscribe<{ n: number }>("key", { onMissed: ({ from, to, reason }) => console.log(from, to, reason === "purged") }, async (event) => {
    same(event.data.n, (_: number) => {});
  });
  const { id, duplicate } = await stoa.publish("key", { any: "thing" }, { to: ["ann"], except: ["bob"], tags: ["admin"], ephemeral: true });
  same(id, (_: string | null) => {});
  same(duplicate, (_: boolean) => {});
  // @ts-expect-error a list of names
  await stoa.publish("key", {}, { to: "ann" });
  const page = await stoa.log<{ n: number }>("key", { last: 3 });
  same(page.events[0]?.data.n, (_: number | undefined) => {});
  try {
    for await (const event of stoa.history<string>("key")) same(event.data, (_: string) => {});
  } catch (error) {
    if (error instanceof MissedError) same(error.to, (_: string) => {});
    if (error instanceof StoaError) same(error.status, (_: number) => {});
  }
  new Stoa("https://example.com", { token: async () => "token", transport: "sse", WebSocket: null });
  new Stoa("https://example.com", { WebSocket, fetch });
  // @ts-expect-error a number is no token
  new Stoa("https://example.com", { token: 1 });
}
