/** Requests: what is tried again, what is told, and rooms with their methods, streams and presence. */
import assert from "node:assert/strict";
import http from "node:http";
import { after, afterEach, before, test } from "node:test";
import WebSocket from "ws";
import { Stoa, StoaError } from "../dist/index.js";
import { startCluster, waitUntil } from "./cluster.mjs";
import { startProxy } from "./proxy.mjs";

const TALLY = `#!room name=tally api=1
local room = require "room"
local M = {}
function M.identify(req) return { id = req.query.id or (req.client_state and req.client_state.id) or "someone" } end
function M.on_event(ctx, e)
  if e.leave then ctx.connection:close(4001, "bye") return end
  local total = (ctx:recall() or 0) + e.add
  ctx:save(total)
  ctx:publish { total = total, by = ctx.connection and ctx.connection.id or "nobody" }
end
M.rpc = {
  get = function(ctx) return { total = ctx:recall() or 0 } end,
  add = function(ctx, input)
    local total = (ctx:recall() or 0) + input.by
    ctx:save(total)
    return total
  end,
  count = function(ctx, input, yield)
    for n = 1, input.to do yield(n) end
    return "done"
  end,
  refuse = function(ctx) room.error("Sorry", { status = 418, message = "no tea" }) end,
}
return M
`;

let cluster, proxy;
const clients = [];
let keys = 0;
const fresh = () => `key-${++keys}`;
const client = (options = {}, url = proxy.url) => {
  const stoa = new Stoa(url, { reconnect: { min: 10, max: 100 }, idle: 50, ...options });
  clients.push(stoa);
  return stoa;
};

before(async () => {
  cluster = await startCluster({
    yaml: "types: { tally: { handler: tally.lua, presence: true } }\n",
    files: { "tally.lua": TALLY },
  });
  proxy = await startProxy(cluster.port);
});
afterEach(() => {
  for (const stoa of clients.splice(0)) stoa.close();
  proxy.refuseUpgrades = proxy.blackhole = false;
});
after(async () => {
  await proxy?.close();
  await cluster?.stop();
});

/** A gateway of the test's own: answers what `answers` says, one after the other, and notes what it was asked. */
async function playGateway(...answers) {
  const asked = [];
  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (part) => { body += part; });
    request.on("end", () => {
      asked.push({ url: request.url, headers: request.headers, body });
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      if (answer === "reset") request.socket.resetAndDestroy();
      else if (answer !== "silence") response.writeHead(answer[0], answer[2] ?? {}).end(JSON.stringify(answer[1]));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`, asked,
    close: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}
const refusal = (tag) => ({ error: { tag, message: "words" } });

test("publish returns the id; the same idempotency key returns the same", async () => {
  const stoa = client();
  const key = fresh();
  const first = await stoa.publish(key, { n: 1 }, { idempotencyKey: "one" });
  assert.equal(first.duplicate, false);
  assert.deepEqual(await stoa.publish(key, { n: 1 }, { idempotencyKey: "one" }), { id: first.id, duplicate: true });
  const batch = await stoa.publishBatch(key, [{ n: 2 }, { n: 3 }]);
  assert.equal(batch.count, 2);
  const page = await stoa.log(key);
  assert.deepEqual(page.events.map((event) => event.data.n), [1, 2, 3]);
  assert.equal(page.head, batch.id);
  assert.equal(page.events[1].id, batch.first);
  assert.equal(page.more, false);
  assert.deepEqual((await stoa.log(key, { last: 1 })).events.map((event) => event.data.n), [3]);
  assert.equal((await stoa.log(key, { limit: 2 })).more, true);
});

test("history walks all pages", async () => {
  const stoa = client();
  const key = fresh();
  for (let i = 0; i < 5; i++) await stoa.publishBatch(key, Array.from({ length: 250 }, (_, n) => ({ n: i * 250 + n })));
  let expected = 0;
  for await (const event of stoa.history(key)) assert.equal(event.data.n, expected++);
  assert.equal(expected, 1250);
  let some = 0;
  for await (const event of stoa.history(key, { limit: 7 })) if (event.data.n === some++ && some === 20) break;
  assert.equal(some, 20);
});

test("publishes through a killed shard, a killed gateway and cuts: each once", async () => {
  const stoa = client();
  const key = fresh();
  const chaos = (async () => {
    await cluster.shards[0].kill();
    await cluster.shards[0].start();
    await cluster.gateways[0].kill();
    await cluster.gateways[0].start();
    for (let i = 0; i < 5; i++) {
      proxy.cut();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  const published = await Promise.all(Array.from({ length: 100 }, (_, n) => stoa.publish(key, { n })));
  await chaos;
  assert.equal(new Set(published.map(({ id }) => id)).size, 100);
  const { events } = await stoa.log(key, { limit: 1000 });
  assert.deepEqual(events.map((event) => event.data.n).sort((a, b) => a - b), Array.from({ length: 100 }, (_, n) => n));
});

test("503, 504, 429 and lost connections are tried again under one idempotency key", async () => {
  const gateway = await playGateway([503, refusal("Moving"), { "Retry-After": "0" }], [504, refusal("Unknown")], "reset",
    [429, refusal("RateLimited")], [200, { id: "a-1", duplicate: true }]);
  try {
    assert.deepEqual(await client({}, gateway.url).publish("k", 1, { tags: ["a", "b"], to: ["x"], except: ["y"], conflate: "c" }),
      { id: "a-1", duplicate: true });
    assert.equal(gateway.asked.length, 5);
    const names = new Set(gateway.asked.map(({ headers }) => headers["idempotency-key"]));
    assert.equal(names.size, 1);
    assert.match([...names][0], /^[0-9a-f]{32}$/);
    const query = new URL(gateway.asked[0].url, gateway.url).searchParams;
    assert.deepEqual([query.get("tags"), query.get("to"), query.get("except")], ["a,b", "x", "y"]);
    assert.equal(gateway.asked[0].headers["stoa-conflate"], "c");
  } finally {
    await gateway.close();
  }
});

test("Retry-After is waited for", async () => {
  const gateway = await playGateway([503, refusal("Busy"), { "Retry-After": "5" }]);
  try {
    await assert.rejects(client({}, gateway.url).publish("k", 1, { timeout: 500 }),
      (error) => error instanceof StoaError && error.tag === "Busy" && error.status === 503 && error.retryAfter === 5000);
    assert.equal(gateway.asked.length, 1);
  } finally {
    await gateway.close();
  }
});

test("4xx and 500 are told at once; no answer is Unknown, no gateway Unreachable", async () => {
  for (const [status, tag] of [[400, "BadKey"], [403, "Forbidden"], [409, "NoHandler"], [413, "TooLarge"], [500, "RoomError"]]) {
    const gateway = await playGateway([status, refusal(tag)]);
    await assert.rejects(client({}, gateway.url).publish("k", 1), (error) => error.tag === tag && error.status === status && error.message === "words");
    assert.equal(gateway.asked.length, 1);
    await gateway.close();
  }
  const page = await playGateway([418, "a proxy's page"]);
  await assert.rejects(client({}, page.url).publish("k", 1), (error) => error.tag === "BadAnswer" && error.status === 418);
  await page.close();
  const silent = await playGateway("silence");
  await assert.rejects(client({}, silent.url).publish("k", 1, { timeout: 100 }), (error) => error.tag === "Unknown" && error.status === 504);
  await silent.close();
  await assert.rejects(client({}, silent.url).publish("k", 1, { timeout: 100 }), (error) => error.tag === "Unreachable" && error.status === 0);
});

test("a signal ends a request with its reason", async () => {
  const gateway = await playGateway("silence");
  try {
    const stoa = client({}, gateway.url);
    const ending = new AbortController();
    const pending = stoa.publish("k", 1, { signal: ending.signal });
    await waitUntil("asked", () => gateway.asked.length === 1);
    ending.abort(new Error("enough"));
    await assert.rejects(pending, /enough/);
    await assert.rejects(stoa.log("k", { signal: AbortSignal.abort(new Error("never")) }), /never/);
  } finally {
    await gateway.close();
  }
});

test("what cannot be sent is refused here", async () => {
  await assert.rejects(client().publish("k", undefined), TypeError);
  await assert.rejects(client().publish("k", () => {}), TypeError);
  await assert.rejects(client().publish("k", 1, { to: [] }), TypeError);
  await assert.rejects(client().publish("k", 1, { tags: ["a,b"] }), TypeError);
  await assert.rejects(client().publishBatch("k", [new Uint8Array(1)]), TypeError);
  await assert.rejects(client().publish("k", new ArrayBuffer(2)), TypeError);
  await assert.rejects(client().publish("k", 1, { idempotencyKey: "a\nb" }), TypeError);
  await assert.rejects(client().publish("k", 1, { conflate: " a" }), TypeError);
  assert.throws(() => client().subscribe(undefined), TypeError);
  assert.throws(() => client().subscribe(7), TypeError);
  assert.throws(() => new Stoa("ftp://example.com"), TypeError);
});

test("names in any script are the same over HTTP and over a socket; slashes behind the address are none", async () => {
  const stoa = client({}, `${proxy.url}//`);
  const key = fresh();
  const { id } = await stoa.publish(key, 1, { idempotencyKey: "ключ 中", conflate: "进度" });
  const socket = new WebSocket(`${cluster.url.replace("http", "ws")}/stoa`, "stoa.v1");
  try {
    await new Promise((resolve) => { socket.onopen = resolve; });
    const answer = new Promise((resolve) => { socket.onmessage = ({ data }) => resolve(JSON.parse(data)); });
    socket.send(JSON.stringify({ pub: key, data: 1, ref: 1, idempotencyKey: "ключ 中" }));
    assert.deepEqual(await answer, { ref: 1, ok: { id, duplicate: true } });
  } finally {
    socket.close();
  }
  await stoa.publish(key, 2, { conflate: "进度" });
  for await (const event of stoa.subscribe(key, { replay: "all" })) {
    assert.equal(event.data, 2);
    break;
  }
});

test("a page over plain http, which has no crypto.randomUUID, publishes too; a token function that has none says null", async () => {
  const there = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(crypto), "randomUUID");
  Object.defineProperty(crypto, "randomUUID", { value: undefined, configurable: true });
  const gateway = await playGateway([200, { id: "e-1", duplicate: false }]);
  try {
    await client({ token: () => null }, gateway.url).publish("k", 1);
    assert.ok(there && gateway.asked[0].headers["idempotency-key"].length >= 16);
    assert.equal(gateway.asked[0].headers.authorization, undefined);
  } finally {
    delete crypto.randomUUID;
    await gateway.close();
  }
});

test("a room: methods, errors, state, its log", async () => {
  const room = client().room("tally", fresh());
  assert.equal(await room.state(), null);
  assert.deepEqual(await room.call("get"), { total: 0 });
  assert.equal(await room.call("add", { by: 2 }), 2);
  assert.equal(await room.call("add", { by: 3 }, { idempotencyKey: "once" }), 5);
  assert.equal(await room.call("add", { by: 3 }, { idempotencyKey: "once" }), 5);
  assert.equal(await room.state(), 5);
  await assert.rejects(room.call("refuse"), (error) => error instanceof StoaError && error.tag === "Sorry" && error.status === 418);
  await assert.rejects(room.call("nonesuch"), (error) => error.tag === "NoSuchMethod" && error.status === 404);
  void room.call("add", { by: 1 }); // nobody waits for it
  await waitUntil("it was carried out", async () => await room.state() === 6);
  await assert.rejects(client().room("events", "x").send({ add: 1 }), (error) => error.tag === "NoHandler");
});

test("a send without a subscription is nobody's; with one it is that connection's", async () => {
  const stoa = client();
  const room = stoa.room("tally", fresh());
  await room.send({ add: 1 });
  const subscription = room.subscribe({ state: { id: "ann" } });
  const sent = room.send({ add: 2 }); // waits until it is subscribed
  const seen = [];
  for await (const event of subscription) {
    seen.push([event.data.total, event.data.by]);
    if (seen.length === 1) await sent.then(() => room.send({ add: 3 }));
    if (seen.length === 2) break;
  }
  assert.deepEqual(seen, [[3, "ann"], [6, "ann"]]);
  const { events } = await room.log();
  assert.deepEqual(events.map((event) => event.data.by), ["nobody", "ann", "ann"]);
});

test("a streaming method, item by item; without a socket all together", async () => {
  const room = client().room("tally", fresh());
  for (const options of [{}, { WebSocket: null }, { transport: "sse" }]) {
    const items = [];
    for await (const item of client(options).room("tally", room.id).call("count", { to: 300 })) items.push(item);
    assert.deepEqual(items.slice(0, 300), Array.from({ length: 300 }, (_, n) => n + 1));
  }
  for await (const item of room.call("count", { to: 300 })) if (item === 3) break;
  await assert.rejects(async () => {
    for await (const item of room.call("refuse")) assert.fail(item);
  }, (error) => error.tag === "Sorry");
  await assert.rejects(async () => {
    for await (const item of room.call("count", { to: 3 }, { signal: AbortSignal.abort(new Error("never")) })) assert.fail(item);
  }, /never/);
});

test("presence: the list, who joins, who leaves", async () => {
  const stoa = client(), other = client();
  const id = fresh();
  const story = [];
  const subscription = stoa.room("tally", id).subscribe(
    { state: { id: "ann" }, onPresence: ({ members, join, leave }) => story.push([members.map((m) => m.id).sort(), join?.id, leave?.id]) }, () => {});
  await subscription.ready;
  await waitUntil("ann is there", () => story.length > 0 && story.at(-1)[0].includes("ann"));
  const bob = other.room("tally", id).subscribe({ state: { id: "bob" } });
  await bob.ready;
  await waitUntil("bob came", () => story.at(-1)[1] === "bob");
  assert.deepEqual(story.at(-1)[0], ["ann", "bob"]);
  bob.close();
  await waitUntil("bob left", () => story.at(-1)[2] === "bob");
  assert.deepEqual(story.at(-1)[0], ["ann"]);
});

test("a room that closes a connection ends its subscription in order", async () => {
  const room = client().room("tally", fresh());
  let closed;
  const subscription = room.subscribe({ state: { id: "ann" }, onStatus: (status, detail) => { if (status === "closed") closed = detail; } });
  await subscription.ready;
  await room.send({ leave: true });
  assert.deepEqual(await subscription[Symbol.asyncIterator]().next(), { value: undefined, done: true });
  assert.deepEqual(closed, { code: 4001, reason: "bye" });
});
