/** The published oRPC clients, of both generations, against a real cluster through a proxy that cuts connections. */
import assert from "node:assert/strict";
import http from "node:http";
import { after, before, test } from "node:test";
import * as client from "@orpc/client";
import { ClientRetryPlugin } from "@orpc/client/plugins";
import { StandardRPCJsonSerializer } from "@orpc/client/standard";
import { RPCLink } from "@orpc/client/websocket";
import * as oldClient from "@orpc/client-e1";
import { ClientRetryPlugin as OldRetryPlugin } from "@orpc/client-e1/plugins";
import { RPCLink as OldLink } from "@orpc/client-e1/websocket";
import { WebSocket } from "ws";
import { startCluster, waitUntil } from "../../../client/js/test/cluster.mjs";
import { startProxy } from "../../../client/js/test/proxy.mjs";
import { durable } from "./durable.mjs";
import { e1, e2, key } from "./tokens.mjs";

const orpc = { createORPCClient: client.createORPCClient, RPCLink, ClientRetryPlugin };
const oldOrpc = { createORPCClient: oldClient.createORPCClient, RPCLink: OldLink, ClientRetryPlugin: OldRetryPlugin };

const handler = `#!room name=orders api=1
local room = require "room"
local M = {}
M.rpc = {
  echo = function(ctx, input) return "Echo: " .. (input and input.text or "nothing") end,
  nothing = function(ctx) end,
  router = { add = function(ctx, input) return input.a + input.b end },
  count = function(ctx, input, yield)
    for i = 1, input.to do yield({ n = i }) end
    return { done = true }
  end,
  move = function(ctx, input) ctx:publish({ to = input.to, at = input.at }, { meta = ctx.meta }) end,
  shout = function(ctx, input) ctx:broadcast({ loud = input }) return true end,
  taken = function(ctx) room.error("TAKEN", { status = 409, message = "somebody has it", data = { by = "ann" } }) end,
  broken = function(ctx) error("a secret of the room") end,
  who = function(ctx)
    local all = {}
    for i, c in ipairs(ctx.connections:all()) do all[i] = { id = c.id, tags = c.tags, state = c.state } end
    return all
  end,
}
return M
`;

let cluster, proxy, url;
const opened = [];

before(async () => {
  process.env.STOA_ORPC_SIGNING_KEY = key;
  cluster = await startCluster({
    files: { "orders.lua": handler },
    yaml: "types:\n  orders: { handler: orders.lua }\nroutes:\n" +
      "  - { path: /iterator, dialect: orpc, key: \"{chn}\", types: [events, orders], retry: 20ms }\n",
  });
  proxy = await startProxy(cluster.port);
  url = `${proxy.url.replace("http", "ws")}/iterator`;
});

after(async () => {
  for (const one of opened) await one.close();
  await proxy?.close();
  await cluster?.stop();
});

async function open(options) {
  const one = await durable({ url, orpc, ...options });
  opened.push(one);
  return one;
}

/** The next `count` events. */
async function take(events, count) {
  const all = [];
  while (all.length < count) all.push((await events.next()).value);
  return all;
}

/** Publishes 150 events while connections are cut at random; what the iterator gives. */
async function underFire(channel, one) {
  const got = [];
  const reading = (async () => {
    for await (const event of one.events) {
      got.push(event.n);
      if (event.n === 150) return;
    }
  })();
  await cluster.publish(channel, { n: 1 });
  await waitUntil("the first event", () => got.length > 0);
  let cuts = 0;
  for (let n = 2; n <= 150; n++) {
    await cluster.publish(channel, { n });
    if (Math.random() < 0.1 || n % 50 === 0) {
      proxy.cut();
      cuts++;
    }
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 15));
  }
  await reading;
  assert.ok(cuts >= 3);
  assert.deepEqual(got, Array.from({ length: 150 }, (_, i) => i + 1));
}

test("150 events while the connection is cut at random: all, in order, once", { timeout: 120_000 }, async () => {
  await underFire("fire", await open({ id: "a", token: () => e2({ chn: "fire" }) }));
});

test("the first generation likewise", { timeout: 120_000 }, async () => {
  await underFire("old-fire", await open({ orpc: oldOrpc, token: () => e1({ chn: "old-fire" }) }));
});

test("the first generation is given what was stored since its token", async () => {
  await cluster.publish("early", { n: 1 });
  const one = await open({ orpc: oldOrpc, token: () => e1({ chn: "early" }) });
  assert.deepEqual(await take(one.events, 1), [{ n: 1 }]);
});

test("typed values arrive as they are", async () => {
  const one = await open({ id: "a", token: () => e2({ chn: "typed" }) });
  const value = {
    at: new Date("2026-11-21T18:00:00.000Z"), big: 12345678901234567890n, set: new Set(["a", new Date(0)]),
    map: new Map([["k", 1n]]), nan: NaN, link: new URL("https://a.example/x"), list: [undefined, /a\/b/gi],
  };
  const [json, meta] = new StandardRPCJsonSerializer().serialize(value);
  await cluster.publish("typed", { json, meta }, { headers: { "Stoa-Format": "orpc" } });
  const [got] = await take(one.events, 1);
  assert.deepEqual(got, value);
  const { id, retry } = client.getEventMeta(got);
  assert.deepEqual({ id, retry }, { id: "1", retry: 20 });
  const log = await fetch(`${cluster.url}/log?key=typed`).then((answer) => answer.json());
  assert.equal(log.events[0].data.big, "12345678901234567890", "others read the plain value");
});

test("methods: allowed, nested, streaming, denied, failing", async () => {
  const rpc = ["echo", "nothing", "router", "count", "taken", "broken", "who"];
  const one = await open({
    id: "conn-1",
    token: () => e2({ chn: "orders:1", tags: ["vip"], att: { user: "ann" }, rpc }),
  });
  assert.equal(await one.call(["echo"], { text: "Hello" }), "Echo: Hello");
  assert.equal(await one.call(["echo"]), "Echo: nothing");
  assert.equal(await one.call(["nothing"]), undefined);
  assert.equal(await one.call(["router", "add"], { a: 1, b: 2 }), 3);
  assert.deepEqual(await one.call(["who"]), [{ id: "conn-1", tags: ["vip"], state: { user: "ann" } }]);
  const items = [];
  const stream = await one.call(["count"], { to: 3 });
  for (let next = await stream.next(); ; next = await stream.next()) {
    if (next.done) { assert.deepEqual(next.value, { done: true }); break; }
    items.push(next.value.n);
  }
  assert.deepEqual(items, [1, 2, 3]);
  const fails = (path, wanted) => assert.rejects(one.call(path, {}), (error) => {
    assert.ok(error instanceof client.ORPCError);
    const { code, status, message, data, defined } = error;
    assert.deepEqual({ code, status, message, data, defined }, { data: undefined, defined: false, ...wanted });
    return true;
  });
  await fails(["shout"], { code: "FORBIDDEN", status: 403, message: "Method \"shout\" is not allowed." });
  await fails(["taken"], { code: "TAKEN", status: 409, message: "somebody has it", data: { by: "ann" } });
  await fails(["broken"], { code: "INTERNAL_SERVER_ERROR", status: 500, message: "Internal server error" });
  await fails(["router", "missing"], { code: "INTERNAL_SERVER_ERROR", status: 500, message: "Internal server error" });
  await assert.rejects(one.peer.nothing({}), { code: "NOT_FOUND", status: 404 });
});

test("a method hands on its input as it was typed", async () => {
  const one = await open({ id: "a", token: () => e2({ chn: "orders:typed", rpc: ["move"] }) });
  const input = { to: new Set([1n]), at: new Date(7) };
  await one.call(["move"], input);
  assert.deepEqual(await take(one.events, 1), [input]);
  await one.call(["move"], { to: "x", at: "y" });
  assert.deepEqual(await take(one.events, 1), [{ to: "x", at: "y" }]);
});

test("what a method broadcasts reaches the streams, before its own answer", async () => {
  const token = () => e2({ chn: "orders:2", rpc: ["shout"] });
  const [a, b] = [await open({ id: "a", token }), await open({ id: "b", token })];
  assert.equal(await a.call(["shout"], "hi"), true);
  for (const one of [a, b]) assert.deepEqual(await take(one.events, 1), [{ loud: "hi" }]);
});

test("a token is renewed on the same socket, and its rights with it", async () => {
  let rpc = ["echo"], fetched = 0;
  const one = await open({
    id: "a",
    refresh: 2,
    token: () => {
      fetched++;
      return e2({ chn: "orders:3", rpc, exp: Math.floor(Date.now() / 1000) + (fetched === 1 ? 4 : 3600) });
    },
  });
  let closes = 0;
  one.socket.addEventListener("close", () => closes++);
  assert.equal(await one.call(["echo"], { text: "a" }), "Echo: a");
  rpc = ["nothing"];
  await waitUntil("the token is renewed", () => one.renewed() === 1);
  await assert.rejects(one.call(["echo"], { text: "a" }), { code: "FORBIDDEN" });
  assert.equal(await one.call(["nothing"]), undefined);
  await assert.rejects(one.peer.updateToken({ token: e2({ chn: "orders:3" }, "another key") }),
    { code: "UNAUTHORIZED", status: 401, message: "Invalid Token" });
  await assert.rejects(one.peer.updateToken({ token: e2({ chn: "orders:4" }) }),
    { code: "UNAUTHORIZED", message: "Updated token must have the same channel with the original token" });
  assert.equal(closes, 0);
});

/** How an upgrade ends: status and body of the refusal. */
function refusal(query) {
  const headers = { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==" };
  return new Promise((resolve, reject) => {
    const request = http.get(`${cluster.url}/iterator${query}`, { headers, agent: false }, (answer) => {
      let body = "";
      answer.on("data", (bytes) => { body += bytes; });
      answer.on("end", () => resolve([answer.statusCode, body]));
    });
    request.on("upgrade", () => reject(new Error("let in")));
    request.on("error", reject);
  });
}

test("a forged token is refused", async () => {
  const forged = encodeURIComponent(e2({ chn: "fire", rpc: ["echo"] }, "another key"));
  assert.deepEqual(await refusal(`?id=a&token=${forged}`), [401, "Invalid Token"]);
  assert.deepEqual(await refusal(`?token=${e1({ chn: "fire" }, "another key")}`), [401, "Invalid Token"]);
  assert.deepEqual(await refusal("?id=a"), [401, "Token is required"]);
  assert.deepEqual(await refusal(""), [401, "ID is required"]);
});

test("a socket whose token ends is closed 1008, though nobody says a word", async () => {
  const token = encodeURIComponent(e2({ chn: "fire", exp: Math.floor(Date.now() / 1000) + 1 }));
  const socket = new WebSocket(`${url}?id=a&token=${token}`);
  assert.equal(socket.extensions, "");
  const [code, reason] = await new Promise((resolve) => socket.on("close", (...how) => resolve(how)));
  assert.deepEqual([code, reason.toString()], [1008, "Token expired"]);
});

test("filters: tags, targets, exclude; live and from the log", async () => {
  const as = (id, tags) => open({ id, token: () => e2({ chn: "few", tags }) });
  const [ann, bob] = [await as("ann", ["staff"]), await as("bob", ["guest"])];
  await cluster.publish("few", { n: 1 });
  await cluster.publish("few", { n: 2 }, { query: "&tags=staff" });
  await cluster.publish("few", { n: 3 }, { query: "&targets=bob" });
  await cluster.publish("few", { n: 4 }, { query: "&exclude=bob" });
  await cluster.publish("few", { n: 5 });
  const numbers = async (one, count) => (await take(one.events, count)).map((event) => event.n);
  assert.deepEqual(await numbers(ann, 4), [1, 2, 4, 5]);
  assert.deepEqual(await numbers(bob, 3), [1, 3, 5]);
  const log = await bob.peer.subscribe({}, { lastEventId: "0" });
  assert.deepEqual((await take(log, 3)).map((event) => event.n), [1, 3, 5]);
});

test("what is no longer retained is told by the next event", async () => {
  for (let n = 1; n <= 3; n++) await cluster.publish("gone", { n });
  await fetch(`${cluster.url}/log?key=gone`, { method: "DELETE" });
  await cluster.publish("gone", { n: 4 });
  const one = await open({ id: "a", token: () => e2({ chn: "gone" }) });
  const events = await one.peer.subscribe({}, { lastEventId: "1" });
  const [event] = await take(events, 1);
  assert.equal(event.n, 4);
  assert.match(client.getEventMeta(event).comments[0], /^missed \S+-1 \S+-3 purged$/);
});
