/** The hooks on a server: they render their first state, open nothing, and need no window. And their types. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import path from "node:path";
import { Writable } from "node:stream";
import { test } from "node:test";
import { promisify } from "node:util";
import { createElement as h } from "react";
import { renderToPipeableStream, renderToString } from "react-dom/server";
import { StoaProvider, useEvents, useRoom, useStoa, useUpload, useUploads } from "../dist/react/index.js";

const refusing = {
  subscribe: () => assert.fail("a subscription on a server"),
  room: (type, id) => ({ key: `${type}:${id}`, send: assert.fail, call: assert.fail, state: assert.fail }),
};

function Everything() {
  const sum = useEvents("k", { initial: 7, reducer: (n) => n + 1 });
  const list = useEvents("k");
  const none = useEvents(null);
  const room = useRoom("chat", "lobby", { presence: true });
  const upload = useUpload("u");
  const nothing = useUpload(null);
  const uploads = useUploads(["a", "b"]);
  return h("pre", null, JSON.stringify([
    sum.state, sum.status, list.state, none.status, room.state, room.status, room.members,
    upload.phase, upload.ratio, upload.status, nothing.phase, uploads.map(({ phase }) => phase),
  ]));
}

const rendered = [7, "connecting", [], "idle", null, "connecting", null, "waiting", 0, "connecting", "idle", ["waiting", "waiting"]];
const text = (html) => JSON.parse(html.replace(/<[^>]*>/g, "").replaceAll("&quot;", '"'));

test("every hook renders its first state and opens nothing", () => {
  assert.equal(typeof globalThis.window, "undefined");
  assert.deepEqual(text(renderToString(h(StoaProvider, { client: refusing }, h(Everything)))), rendered);
});

test("undefined is no key yet, as null is", () => {
  const Later = () => h("pre", null, JSON.stringify([useEvents(undefined), useUpload(undefined), useRoom("chat", undefined)].map(({ status }) => status)));
  assert.deepEqual(text(renderToString(h(StoaProvider, { client: refusing }, h(Later)))), ["idle", "idle", "idle"]);
});

test("streaming too", async () => {
  let html = "";
  await new Promise((resolve, reject) => {
    const page = new Writable({ write: (chunk, _encoding, done) => { html += chunk; done(); } }).on("finish", resolve);
    renderToPipeableStream(h(StoaProvider, { client: refusing }, h(Everything)), { onError: reject }).pipe(page);
  });
  assert.deepEqual(text(html), rendered);
});

test("a provider with an address, or without, makes a client that stays quiet", () => {
  const Show = () => h("b", null, useStoa().url);
  assert.match(renderToString(h(StoaProvider, { url: "https://stoa.example/base" }, h(Show))), /https:\/\/stoa\.example\/base/);
  assert.match(renderToString(h(StoaProvider, null, h(Everything))), /waiting/);
});

test("a hook without a provider says what is missing", () => {
  assert.throws(() => renderToString(h(Everything)), /there is no <StoaProvider> above/);
});

test("the types hold under strict", async () => {
  const here = import.meta.dirname, run = promisify(execFile);
  const compiler = path.join(here, "../../node_modules/typescript/bin/tsc");
  const checked = run(process.execPath, [compiler, "-p", path.join(here, "react/tsconfig.json")]);
  await checked.catch((failure) => assert.fail(failure.stdout));
});
