/** The hooks in Chromium, in Strict Mode, against real processes; what is subscribed is counted on the wire. */
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, test } from "node:test";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { authYaml, mint, startCluster, waitUntil } from "./cluster.mjs";

const COUNTER = `#!room name=counter api=1
local M = {}
local function add(ctx, by)
  local state = ctx:recall() or { total = 0 }
  state.total = state.total + by
  ctx:save(state)
  ctx:publish({ by = by })
  return state
end
function M.identify(req) return { id = "guest" } end
function M.on_event(ctx, e) add(ctx, e.by) end
M.rpc = { add = function(ctx, input) return add(ctx, input.by) end }
return M
`;

let cluster, browser, html;

before(async () => {
  const { outputFiles } = await build({
    entryPoints: [path.join(import.meta.dirname, "react/page.tsx")], bundle: true, write: false, format: "esm", target: "es2022",
    jsx: "automatic", jsxDev: true, define: { "process.env.NODE_ENV": '"development"' },
  });
  const script = outputFiles[0].text.replaceAll("</script", "<\\/script");
  html = `<!doctype html><html lang="en"><title>hooks</title><link rel="icon" href="data:,"><div id="root"></div><script type="module">${script}</script></html>`;
  cluster = await startCluster({
    shards: 2, gateways: 2,
    files: { "counter.lua": COUNTER, "page.html": html },
    yaml: `gateway: { page: page.html }
types:
  counter: { handler: counter.lua, presence: true }
  short: { retention: { count: 5 } }
routes: []
`,
  });
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
});
after(async () => {
  await browser?.close();
  await cluster?.stop();
});

/** A new page; `sent` has the frames that it sent, `sockets` counts the sockets it opened. */
async function open(url = cluster.url) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const tab = { page, context, sent: [], sockets: 0, complaints: [] };
  page.on("websocket", (socket) => {
    tab.sockets++;
    socket.on("framesent", ({ payload }) => tab.sent.push(JSON.parse(payload)));
  });
  page.on("console", (message) => { if (message.type() === "error") tab.complaints.push(message.text()); });
  page.on("pageerror", (error) => tab.complaints.push(String(error)));
  await page.goto(url);
  await page.waitForFunction(() => window.show !== undefined);
  tab.show = (...parts) => page.evaluate((wanted) => window.show(wanted), parts);
  tab.value = (name) => page.locator(`#${name}`).textContent().then(JSON.parse);
  /** The hook's result once it is as wished. */
  tab.until = (name, wish) => waitUntil(`${name}: ${wish}`, async () => {
    const value = await tab.value(name);
    return wish(value) && value;
  }).catch(async (error) => { throw new Error(`${error.message}: ${JSON.stringify(await tab.value(name))}`); });
  tab.subs = (key) => tab.sent.filter(({ sub }) => sub === key).length;
  tab.unsubs = (key) => tab.sent.filter(({ unsub }) => unsub === key).length;
  tab.close = () => context.close();
  return tab;
}

const live = ({ status }) => status === "live";
const log = async (key) => (await fetch(`${cluster.url}/log?key=${encodeURIComponent(key)}&limit=1000`)).json();
const total = async (key) => (await log(key)).events.reduce((sum, { data }) => sum + data.n, 0);

test("Strict Mode's double mount opens one subscription; so do several components that want the same", async () => {
  await cluster.publish("strict", { n: 1 });
  const tab = await open();
  await tab.show({ kind: "sum", name: "one", at: "strict" }, { kind: "sum", name: "two", at: "strict" });
  await tab.until("one", (value) => live(value) && value.state === 1);
  await cluster.publish("strict", { n: 2 });
  await tab.until("one", ({ state }) => state === 3);
  await tab.until("two", ({ state }) => state === 3);
  await tab.show({ kind: "sum", name: "two", at: "strict" }, { kind: "sum", name: "three", at: "strict" });
  await tab.until("three", ({ state }) => state === 3);
  assert.deepEqual([tab.sockets, tab.subs("strict"), tab.unsubs("strict")], [1, 1, 0]);
  assert.deepEqual(tab.complaints, []);
  await tab.close();
});

test("the key null does nothing until there is one", async () => {
  const tab = await open();
  await tab.show({ kind: "list", name: "list", at: null }, { kind: "upload", name: "upload", at: null }, { kind: "room", name: "room", at: null },
    { kind: "uploads", name: "uploads", at: [] });
  assert.deepEqual(await tab.until("list", () => true), { state: [], status: "idle", error: null, missed: null });
  assert.equal((await tab.value("upload")).phase, "idle");
  assert.equal((await tab.value("room")).status, "idle");
  assert.equal(await tab.page.evaluate(() => window.room.send({ by: 1 }).catch(({ tag }) => tag)), "Closed");
  assert.equal(tab.sockets, 0);
  await tab.show({ kind: "list", name: "list", at: "later" });
  await tab.until("list", live);
  assert.equal(tab.subs("later"), 1);
  await tab.close();
});

test("what is unmounted is unsubscribed; another key begins with nothing of the old one", async () => {
  await cluster.publish("first", { n: 1 });
  await cluster.publish("second", { n: 20 });
  const tab = await open();
  await tab.show({ kind: "sum", name: "sum", at: "first" }, { kind: "list", name: "other", at: "other" });
  await tab.until("sum", ({ state }) => state === 1);
  await tab.show({ kind: "sum", name: "sum", at: "second" }, { kind: "list", name: "other", at: "other" });
  await tab.until("sum", ({ state }) => state === 20);
  await waitUntil("the first key is left", () => tab.unsubs("first") === 1);
  await tab.show({ kind: "list", name: "other", at: "other" });
  await waitUntil("the second key is left", () => tab.unsubs("second") === 1);
  assert.deepEqual([tab.sockets, tab.subs("first"), tab.subs("second"), tab.subs("other"), tab.unsubs("other")], [1, 1, 1, 1, 0]);
  await tab.close();
});

test("many events are few renders, and the list has the last of them", async () => {
  const tab = await open();
  await tab.show({ kind: "list", name: "list", at: "many", limit: 3 });
  await tab.until("list", live);
  for (let first = 0; first < 2000; first += 250) {
    const lines = Array.from({ length: 250 }, (_, i) => JSON.stringify({ n: first + i })).join("\n");
    await cluster.publish("many", lines, { headers: { "Content-Type": "application/x-ndjson" } });
  }
  const { state } = await tab.until("list", (value) => value.state.at(-1)?.data.n === 1999);
  assert.deepEqual(state.map(({ data }) => data.n), [1997, 1998, 1999]);
  assert.equal(state[2].id, (await log("many")).head);
  const renders = await tab.page.evaluate(() => window.renders.list);
  assert.ok(renders < 400, `${renders} renders of 2000 events`);
  await tab.close();
});

test("offline and online again with a killed shard between: nothing lost, nothing twice", async () => {
  const tab = await open();
  await tab.show({ kind: "sum", name: "sum", at: "cut" }, { kind: "list", name: "list", at: "cut", limit: 1000 });
  await tab.until("sum", live);
  for (let n = 1; n <= 20; n++) await cluster.publish("cut", { n });
  await tab.context.setOffline(true);
  for (const shard of cluster.shards) await shard.kill();
  for (const shard of cluster.shards) await shard.start();
  for (let n = 21; n <= 40; n++) await cluster.publish("cut", { n });
  await tab.context.setOffline(false);
  await tab.until("sum", (value) => live(value) && value.state === 820);
  const { state } = await tab.until("list", (value) => value.state.length >= 40);
  assert.deepEqual(state.map(({ data }) => data.n), Array.from({ length: 40 }, (_, i) => i + 1));
  await tab.close();
});

test("a gap is told, and the state is what the retained events say", async () => {
  const [, gateway] = cluster.gateways;
  const tab = await open(gateway.url);
  await tab.show({ kind: "sum", name: "sum", at: "short:gap" });
  await tab.until("sum", live);
  for (let n = 1; n <= 3; n++) await cluster.publish("short:gap", { n });
  await tab.until("sum", ({ state }) => state === 6);
  await gateway.kill();
  for (let n = 4; n <= 30; n++) await cluster.publish("short:gap", { n });
  assert.equal(await total("short:gap"), 26 + 27 + 28 + 29 + 30);
  await gateway.start();
  const { missed } = await tab.until("sum", (value) => live(value) && value.state === 140);
  assert.deepEqual([missed.key, missed.reason], ["short:gap", "evicted"]);
  await tab.close();
});

test("a refusal, and a reducer that throws, end the hook with an error", async () => {
  const tab = await open();
  await tab.show({ kind: "list", name: "refused", at: "$reserved" }, { kind: "throwing", name: "broken", at: "strict" });
  const refused = await tab.until("refused", ({ status }) => status === "closed");
  assert.equal(refused.error.tag, "BadKey");
  const broken = await tab.until("broken", ({ status }) => status === "closed");
  assert.equal(broken.error.message, "a bug in the reducer");
  await tab.close();
});

test("a room: its state, its events, who is there, a message and a method", async () => {
  const tab = await open();
  await tab.show({ kind: "room", name: "room", at: "a" });
  await tab.until("room", (value) => live(value) && value.members?.length === 1);
  await tab.page.evaluate(() => window.room.send({ by: 5 }));
  assert.deepEqual(await tab.page.evaluate(() => window.room.call("add", { by: 2 })), { total: 7 });
  const room = await tab.until("room", ({ state, events }) => state?.total === 7 && events.length === 2);
  assert.deepEqual(room.events.map(({ data }) => data), [{ by: 5 }, { by: 2 }]);
  assert.deepEqual([room.error, room.members.map(({ id }) => id)], [null, ["guest"]]);
  await tab.show({ kind: "room", name: "room", at: "b" });
  const other = await tab.until("room", live);
  assert.deepEqual(other.events, []);
  assert.deepEqual(tab.complaints, []);
  await tab.close();
});

test("uploads, one by one and as a list, share their subscriptions", async () => {
  const tell = (id, type, data) => cluster.publish(id, { type: "upload_event", payload: { type, data: { id, ...data } } });
  const tab = await open();
  await tab.show({ kind: "uploads", name: "all", at: ["u1", "u2"] }, { kind: "upload", name: "one", at: "u1" });
  assert.deepEqual((await tab.until("all", (all) => all.every(live))).map(({ phase }) => phase), ["waiting", "waiting"]);
  await tell("u1", "upload-started", { size: 200 });
  await tell("u1", "upload-progress", { progress: 50, total: 200 });
  await tell("u2", "upload-failed", { error: "disk full" });
  const one = await tab.until("one", ({ bytes }) => bytes === 50);
  assert.deepEqual(one, { phase: "uploading", bytes: 50, total: 200, ratio: 0.25, error: null, status: "live", missed: null });
  const [u1, u2] = await tab.until("all", ([, second]) => second.phase === "failed");
  assert.deepEqual([u1, u2.error], [one, "disk full"]);
  await tell("u1", "upload-complete", { size: 200 });
  assert.equal((await tab.until("one", ({ phase }) => phase === "complete")).ratio, 1);
  await tab.show({ kind: "uploads", name: "all", at: ["u2", "u1", "u3"] });
  await tab.until("all", (all) => all.length === 3 && all.every(live));
  assert.deepEqual(["u1", "u2", "u3"].map(tab.subs), [1, 1, 1]);
  await tab.close();
});

test("a page rendered on a server is taken over without a word of complaint", async () => {
  await cluster.publish("hydrated", { n: 8 });
  const tab = await open();
  await tab.page.evaluate((parts) => window.hydrate(parts), [{ kind: "sum", name: "sum", at: "hydrated" }, { kind: "upload", name: "upload", at: null }]);
  await tab.until("sum", ({ state }) => state === 8);
  assert.equal(tab.subs("hydrated"), 1);
  assert.deepEqual(tab.complaints, []);
  await tab.close();
});

test("without a right the hook says so; with a token it goes", async () => {
  const guarded = await startCluster({ yaml: `gateway: { page: page.html }\n${authYaml}`, files: { "page.html": html } });
  try {
    const tab = await open(guarded.url);
    await tab.page.evaluate((token) => window.useToken(token), mint({ key: "mine" }));
    await tab.show({ kind: "list", name: "mine", at: "mine" }, { kind: "list", name: "other", at: "other" });
    await tab.until("mine", live);
    const refused = await tab.until("other", ({ status }) => status === "closed");
    assert.deepEqual([refused.error.name, refused.error.tag, refused.error.status], ["StoaError", "Forbidden", 403]);
    assert.equal((await tab.value("mine")).status, "live");
    await tab.close();
  } finally {
    await guarded.stop();
  }
});
