/** What the hooks promise to the type checker; compiled under `strict` by react-server.test.mjs, never run. */
import type { Event, Member, Stoa } from "@stoa/client";
import {
  StoaProvider, useEvents, useRoom, useStoa, useUpload, useUploads, type HookStatus, type Upload, type UploadPhase,
} from "@stoa/client/react";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_same: Equal<A, B>): void => {};

interface Tick { readonly price: number }
interface Chat {
  event: { _tag: "Message"; text: string };
  message: { _tag: "Say"; text: string };
  state: { count: number };
  methods: { rename(input: { name: string }): boolean; count(): number; history(input: number): AsyncIterable<string> };
}

export function Events({ id }: { id: string | null }) {
  const list = useEvents<Tick>(id, { limit: 5 });
  same<typeof list.state, readonly Event<Tick>[]>(true);
  same<typeof list.status, HookStatus>(true);
  same<typeof list.error, Error | null>(true);
  const unknown = useEvents("k");
  same<typeof unknown.state, readonly Event<unknown>[]>(true);

  const sum = useEvents("k", { initial: 0, reducer: (state: number, event: Event<Tick>) => state + event.data.price });
  same<typeof sum.state, number>(true);
  const map = useEvents<Tick, ReadonlyMap<string, Tick>>("k", {
    initial: new Map(), reducer: (state, { id: at, data }) => new Map(state).set(at ?? "", data), onMissed: (_missed, state) => state,
  });
  same<typeof map.state, ReadonlyMap<string, Tick>>(true);
  // @ts-expect-error a key is a text or null
  useEvents(7);
  // @ts-expect-error a reducer needs what to begin with
  useEvents("k", { reducer: (state: number) => state });
  // @ts-expect-error the reducer's state is that of initial
  useEvents<Tick, number>("k", { initial: 0, reducer: () => "x" });
  // @ts-expect-error a list has a limit, a fold has not
  useEvents<Tick, number>("k", { initial: 0, reducer: (state) => state, limit: 3 });
  return null;
}

export function Room() {
  const room = useRoom<Chat>("chat", "lobby", { presence: true });
  same<typeof room.state, { count: number } | null>(true);
  same<typeof room.events, readonly Event<Chat["event"]>[]>(true);
  same<typeof room.members, readonly Member[] | null>(true);
  const sent: Promise<void> = room.send({ _tag: "Say", text: "hello" });
  const renamed: Promise<boolean> = room.call("rename", { name: "garden" });
  const count: Promise<number> = room.call("count");
  const history: AsyncIterable<string> = room.call("history", 3);
  // @ts-expect-error no message of this contract
  void room.send({ _tag: "Shout" });
  // @ts-expect-error no method of this contract
  void room.call("drop");
  const folded = useRoom<Chat, string[]>("chat", "lobby", { initial: [], reducer: (said, { data }) => [...said, data.text] });
  same<typeof folded.state, string[]>(true);
  // @ts-expect-error a folded state is not read
  useRoom<Chat, number>("chat", "lobby", { initial: 0, reducer: (n) => n + 1, readState: true });
  void [sent, renamed, count, history];
  return null;
}

export function Uploads({ client }: { client: Stoa }) {
  const upload = useUpload("u");
  same<typeof upload, Upload>(true);
  same<typeof upload.phase, UploadPhase>(true);
  same<typeof upload.error, string | null>(true);
  const uploads = useUploads(["u", "v"]);
  same<typeof uploads, readonly Upload[]>(true);
  same<ReturnType<typeof useStoa>, Stoa>(true);
  return (
    <>
      <StoaProvider client={client}>{upload.error}</StoaProvider>
      <StoaProvider url="https://stoa.example" options={{ token: () => "t" }} />
      <StoaProvider />
      {/* @ts-expect-error a client has an address already */}
      <StoaProvider client={client} url="https://stoa.example" />
    </>
  );
}
