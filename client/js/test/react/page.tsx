/** The page of react-browser.test.mjs: shows the hooks' results as JSON, in whatever arrangement the test asks for. */
import { StrictMode, useEffect, type ReactNode } from "react";
import { createRoot, hydrateRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server.browser";
import { Stoa } from "@stoa/client";
import { StoaProvider, useEvents, useRoom, useUpload, useUploads } from "@stoa/client/react";

/** What a test can ask to be shown, by `kind`. */
type Part = { readonly name: string } & (
  | { readonly kind: "list" | "sum" | "throwing"; readonly at: string | null; readonly limit?: number; readonly replay?: number }
  | { readonly kind: "upload"; readonly at: string | null }
  | { readonly kind: "uploads"; readonly at: readonly string[] }
  | { readonly kind: "room"; readonly at: string | null }
);

interface Counter {
  event: { by: number };
  message: { by: number };
  state: { total: number };
  methods: { add(input: { by: number }): { total: number } };
}

declare global {
  interface Window {
    show(parts: readonly Part[]): void;
    hydrate(parts: readonly Part[]): void;
    useToken(token: string): void;
    renders: Record<string, number>;
    room: ReturnType<typeof useRoom<Counter>>;
  }
}

const plain = (_name: string, value: unknown) =>
  value instanceof Error ? { ...value, name: value.name, message: value.message } : value;

function Output({ name, value }: { name: string; value: unknown }) {
  window.renders[name] = (window.renders[name] ?? 0) + 1;
  return <output id={name}>{JSON.stringify(value, plain)}</output>;
}

const add = (sum: number, { data }: { data: { n: number } }) => sum + data.n;
const fail = (): number => {
  throw new RangeError("a bug in the reducer");
};

function List({ name, at, limit, replay }: { name: string; at: string | null; limit?: number | undefined; replay?: number | undefined }) {
  return <Output name={name} value={useEvents(at, { limit, replay })} />;
}
function Sum({ name, at, broken }: { name: string; at: string | null; broken: boolean }) {
  return <Output name={name} value={useEvents(at, { initial: 0, reducer: broken ? fail : add })} />;
}
function Upload({ name, at }: { name: string; at: string | null }) {
  return <Output name={name} value={useUpload(at)} />;
}
function Uploads({ name, at }: { name: string; at: readonly string[] }) {
  return <Output name={name} value={useUploads(at)} />;
}
function Room({ name, at }: { name: string; at: string | null }) {
  const room = useRoom<Counter>("counter", at, { presence: true });
  useEffect(() => {
    window.room = room;
  });
  return <Output name={name} value={room} />;
}

function show(part: Part): ReactNode {
  const { name } = part;
  switch (part.kind) {
    case "list":
      return <List key={name} name={name} at={part.at} limit={part.limit} replay={part.replay} />;
    case "sum":
    case "throwing":
      return <Sum key={name} name={name} at={part.at} broken={part.kind === "throwing"} />;
    case "upload":
      return <Upload key={name} name={name} at={part.at} />;
    case "uploads":
      return <Uploads key={name} name={name} at={part.at} />;
    case "room":
      return <Room key={name} name={name} at={part.at} />;
  }
}

window.renders = {};
const place = document.getElementById("root")!;
let token: string | undefined;
let client = new Stoa(location.origin);
window.useToken = (given) => {
  token = given;
  client = new Stoa(location.origin, { token: () => token });
};
const whole = (parts: readonly Part[]) => (
  <StrictMode>
    <StoaProvider client={client}>{parts.map(show)}</StoaProvider>
  </StrictMode>
);
let root: Root | undefined;
window.show = (parts) => (root ??= createRoot(place)).render(whole(parts));
window.hydrate = (parts) => {
  place.innerHTML = renderToString(whole(parts));
  root = hydrateRoot(place, whole(parts), { onRecoverableError: (error) => console.error(error) });
};
