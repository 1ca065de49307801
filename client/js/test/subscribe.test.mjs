/** Subscriptions against real processes: order, resume, gaps, slow consumers, many keys on one socket. */
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { MissedError, Stoa, StoaError } from "../dist/index.js";
import { startCluster, stoa as command, waitUntil } from "./cluster.mjs";
import { startProxy } from "./proxy.mjs";

const YAML = `gateway: { limits: { keys_per_socket: 300 } }
types:
  short: { retention: { count: 5 } }
`;

let cluster, proxy;
const clients = [];
let keys = 0;
/** A key of its own for each test. */
const fresh = (prefix = "key") => `${prefix}-${++keys}`;
const client = (options = {}, url = proxy.url) => {
  const stoa = new Stoa(url, { reconnect: { min: 10, max: 200 }, idle: 50, ...options });
  clients.push(stoa);
  return stoa;
};
/** So many events of an iteration. */
async function take(subscription, count) {
  const events = [];
  if (count === 0) return events;
  for await (const event of subscription) if (events.push(event) === count) break;
  return events;
}
const numbers = (events) => events.map((event) => event.data.n);
const upTo = (count) => Array.from({ length: count }, (_, i) => i + 1);
async function publish(key, from, to) {
  for (let n = from; n <= to; n++) await cluster.publish(key, { n });
}

before(async () => {
  cluster = await startCluster({ yaml: YAML, gateways: 2 });
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

test("what is retained comes first, then what happens, each once and in order", async () => {
  const key = fresh();
  await publish(key, 1, 3);
  const subscription = client().subscribe(key, { replay: "all" });
  await subscription.ready;
  await publish(key, 4, 6);
  const events = await take(subscription, 6);
  assert.deepEqual(numbers(events), upTo(6));
  assert.equal(new Set(events.map((event) => event.id)).size, 6);
  for (const event of events) {
    assert.equal(event.key, key);
    assert.ok(Math.abs(event.ts - Date.now()) < 60_000);
  }
  assert.equal(subscription.lastId, events[5].id);
  assert.equal(subscription.status, "closed");
});

test("after, replay N and replay none begin where they say", async () => {
  const key = fresh();
  await publish(key, 1, 5);
  const stoa = client();
  const page = await stoa.log(key);
  assert.deepEqual(numbers(await take(stoa.subscribe(key, { after: page.events[2].id }), 2)), [4, 5]);
  assert.deepEqual(numbers(await take(stoa.subscribe(key, { replay: 2 }), 2)), [4, 5]);
  const none = stoa.subscribe(key);
  await none.ready;
  await publish(key, 6, 6);
  assert.deepEqual(numbers(await take(none, 1)), [6]);
});

test("a handler gets the events in order, one after the other while it is busy", async () => {
  const key = fresh();
  const seen = [];
  let inside = 0;
  const subscription = client().subscribe(key, async (event) => {
    assert.equal(++inside, 1);
    await new Promise((resolve) => setTimeout(resolve, 1));
    inside--;
    seen.push(event.data.n);
  });
  await subscription.ready;
  await publish(key, 1, 10);
  await waitUntil("all seen", () => seen.length === 10);
  assert.deepEqual(seen, upTo(10));
  subscription.close();
});

test("bytes, ephemerals and odd keys", async () => {
  const key = fresh("ключ/ x?&:#%41");
  const stoa = client();
  const subscription = stoa.subscribe(key, { replay: "all" });
  await subscription.ready;
  await stoa.publish(key, new Uint8Array([0, 255, 128]));
  const { id } = await stoa.publish(key, "text", { ephemeral: true });
  assert.equal(id, null);
  await stoa.publish(key, null);
  const [bytes, ephemeral, nothing] = await take(subscription, 3);
  assert.deepEqual(bytes.data, new Uint8Array([0, 255, 128]));
  assert.equal(ephemeral.data, "text");
  assert.ok(!("id" in ephemeral));
  assert.equal(nothing.data, null);
  assert.ok(nothing.id);
});

test("many keys share one socket, which is closed when nobody needs it", async () => {
  const stoa = client();
  const before = proxy.upgrades();
  const names = Array.from({ length: 200 }, () => fresh());
  const subscriptions = names.map((key) => stoa.subscribe(key));
  await Promise.all(subscriptions.map((one) => one.ready));
  await Promise.all(names.map((key, n) => cluster.publish(key, { n })));
  for (const [n, one] of subscriptions.entries()) assert.deepEqual(numbers(await take(one, 1)), [n]);
  assert.equal(proxy.upgrades() - before, 1);
  await waitUntil("the socket is closed", async () => await cluster.gateways[0].metric("stoa_sockets") === 0);
});

test("more keys than a socket takes have another one", async () => {
  const stoa = client();
  const before = proxy.upgrades();
  const names = Array.from({ length: 700 }, () => fresh());
  const subscriptions = names.map((key) => stoa.subscribe(key));
  await Promise.all(subscriptions.map((one) => one.ready));
  assert.equal(proxy.upgrades() - before, 3);
  await cluster.publish(names[699], { n: 1 });
  assert.deepEqual(numbers(await take(subscriptions[699], 1)), [1]);
});

test("a handler that throws ends its own subscription", async () => {
  const key = fresh();
  const stoa = client();
  const beside = stoa.subscribe(key, { replay: "all" });
  await beside.ready;
  const error = new Promise((resolve) => stoa.subscribe(key, { replay: "all", onError: resolve }, () => { throw new Error("in the handler"); }));
  await publish(key, 1, 1);
  assert.equal((await error).message, "in the handler");
  await publish(key, 2, 2);
  assert.deepEqual(numbers(await take(beside, 2)), [1, 2]);
});

test("readers of one key share it; one that begins elsewhere joins when it has caught up", async () => {
  const key = fresh();
  await publish(key, 1, 3);
  const stoa = client();
  const live = stoa.subscribe(key);
  await live.ready;
  const before = proxy.upgrades();
  const alike = stoa.subscribe(key);
  await alike.ready;
  assert.equal(proxy.upgrades(), before);
  const all = stoa.subscribe(key, { replay: "all" });
  await all.ready;
  assert.equal(proxy.upgrades(), before + 1);
  await waitUntil("one socket again", async () => await cluster.gateways[0].metric("stoa_sockets") === 1);
  await publish(key, 4, 6);
  assert.deepEqual(numbers(await take(all, 6)), upTo(6));
  assert.deepEqual(numbers(await take(live, 3)), [4, 5, 6]);
  assert.deepEqual(numbers(await take(alike, 3)), [4, 5, 6]);
});

test("subscribed, unsubscribed and subscribed at once is one subscription", async () => {
  const key = fresh();
  const stoa = client();
  const before = proxy.upgrades();
  stoa.subscribe(key, { replay: "all" }).close();
  const second = stoa.subscribe(key, { replay: "all" });
  await second.ready;
  second.close();
  const third = stoa.subscribe(key, { replay: "all" }); // its predecessor's end is not confirmed yet
  await third.ready;
  await publish(key, 1, 2);
  assert.deepEqual(numbers(await take(third, 2)), [1, 2]);
  assert.equal(proxy.upgrades() - before, 1);
});

test("connections that are cut at random: every event once, in order", async () => {
  const key = fresh();
  const stoa = client();
  const statuses = [];
  const subscription = stoa.subscribe(key, { replay: "all", onStatus: (status) => statuses.push(status) });
  await subscription.ready;
  const reading = take(subscription, 150);
  for (let n = 1; n <= 150; n++) {
    await cluster.publish(key, { n });
    if (Math.random() < 0.1) proxy.cut();
  }
  assert.deepEqual(numbers(await reading), upTo(150));
  assert.equal(statuses[0], "live");
  assert.equal(statuses.at(-1), "closed");
});

test("what is published while the connection is lost is not lost, even before the first event", async () => {
  const key = fresh();
  const subscription = client().subscribe(key);
  await subscription.ready;
  proxy.blackhole = true;
  proxy.cut();
  await publish(key, 1, 3);
  proxy.blackhole = false;
  proxy.cut();
  assert.deepEqual(numbers(await take(subscription, 3)), [1, 2, 3]);
});

test("a silent connection is found out by a ping", async () => {
  const key = fresh();
  const subscription = client({ ping: 100, pong: 100 }).subscribe(key);
  await subscription.ready;
  const lost = new Promise((resolve) => {
    const beside = subscription.options;
    beside.onStatus = (status, detail) => { if (status === "reconnecting") resolve(detail.error); };
  });
  proxy.blackhole = true; // nothing is reset: only silence tells
  assert.match((await lost).message, /has not answered/);
  proxy.blackhole = false;
  proxy.cut();
  await publish(key, 1, 1);
  assert.deepEqual(numbers(await take(subscription, 1)), [1]);
});

test("a shard and a gateway that are killed", async () => {
  const key = fresh();
  const subscription = client().subscribe(key, { replay: "all" });
  await subscription.ready;
  const reading = take(subscription, 40);
  for (let n = 1; n <= 40; n++) {
    if (n === 10 || n === 30) {
      await cluster.shards[0].kill();
      await cluster.shards[0].start();
    }
    if (n === 20) {
      await cluster.gateways[0].kill();
      await cluster.gateways[0].start();
    }
    await waitUntil(`published ${n}`, () => cluster.publish(key, { n }, { headers: { "Idempotency-Key": `n-${n}` } }).catch(() => null));
  }
  assert.deepEqual(numbers(await reading), upTo(40));
});

test("a gap throws MissedError, behind what came before it", async () => {
  const key = fresh("short:gap");
  const stoa = client();
  await publish(key, 1, 1);
  const { head } = await stoa.log(key);
  await publish(key, 2, 10);
  const subscription = stoa.subscribe(key, { after: head });
  await assert.rejects(take(subscription, 5), (error) => {
    assert.ok(error instanceof MissedError);
    assert.deepEqual([error.key, error.from, error.reason], [key, head, "evicted"]);
    return true;
  });
  assert.equal(subscription.status, "closed");
  const { missed } = await stoa.log(key, { after: head });
  assert.equal(missed.reason, "evicted");
  assert.deepEqual(numbers(await take(stoa.subscribe(key, { after: missed.to }), 5)), [6, 7, 8, 9, 10]);
});

test("onMissed is told in order, and it goes on", async () => {
  const key = fresh("short:told");
  const stoa = client();
  const story = [];
  await publish(key, 1, 1);
  const subscription = stoa.subscribe(key, { after: "0", onMissed: ({ reason }) => story.push(reason) });
  await take({ [Symbol.asyncIterator]: () => ({ next: () => subscription[Symbol.asyncIterator]().next() }) }, 1)
    .then((events) => story.push(...numbers(events)));
  await cluster.gateways[0].kill();
  await Promise.all(upTo(9).map((n) => fetch(`${cluster.gateways[1].url}/publish?key=${key}`, { method: "POST", body: `{"n":${n + 1}}` })));
  await cluster.gateways[0].start();
  for await (const event of subscription) {
    story.push("event");
    if (story.length === 7) break;
    assert.ok(event.id);
  }
  assert.deepEqual(story, [1, "evicted", "event", "event", "event", "event", "event"]);
});

test("a purge in mid-stream is a gap", async () => {
  const key = fresh();
  const stoa = client();
  await publish(key, 1, 3);
  const subscription = stoa.subscribe(key, { replay: "all" });
  const iterator = subscription[Symbol.asyncIterator]();
  assert.equal((await iterator.next()).value.data.n, 1);
  await subscription.ready;
  const { head } = await stoa.log(key);
  await waitUntil("all three came", () => subscription.waiting === 2);
  await cluster.gateways[0].kill();
  await fetch(`${cluster.gateways[1].url}/publish?key=${key}`, { method: "POST", body: `{"n":4}` });
  await fetch(`${cluster.gateways[1].url}/log?key=${key}`, { method: "DELETE" });
  await cluster.gateways[0].start();
  assert.equal((await iterator.next()).value.data.n, 2);
  assert.equal((await iterator.next()).value.data.n, 3);
  await assert.rejects(iterator.next(), (error) => error instanceof MissedError && error.reason === "purged" && error.from === head);
  assert.deepEqual(await iterator.next(), { value: undefined, done: true });
});

test("a gap ends a subscription with a handler by onError", async () => {
  const key = fresh("short:handler");
  const stoa = client();
  await publish(key, 1, 10);
  const first = (await stoa.log(key)).events[0].id;
  await publish(key, 11, 20);
  const error = await new Promise((resolve) => stoa.subscribe(key, { after: first, onError: resolve }, () => assert.fail("an event")));
  assert.ok(error instanceof MissedError);
});

test("a slow consumer: bounded here, and nothing is lost", async () => {
  const key = fresh();
  const stoa = client();
  const statuses = [];
  const slow = stoa.subscribe(key, { replay: "all", buffer: 20, onStatus: (status) => statuses.push(status) });
  const fast = stoa.subscribe(key, { replay: "all" });
  await Promise.all([slow.ready, fast.ready]);
  await stoa.publishBatch(key, upTo(250).map((n) => ({ n })));
  await stoa.publishBatch(key, upTo(250).map((n) => ({ n: n + 250 })));
  assert.deepEqual(numbers(await take(fast, 500)), upTo(500));
  await waitUntil("paused", () => slow.status === "paused");
  assert.equal(slow.waiting, 21);
  const taken = [];
  for await (const event of slow) {
    taken.push(event.data.n);
    assert.ok(slow.waiting <= 42, `${slow.waiting} waiting`);
    if (taken.length === 500) break;
    if (taken.length % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assert.deepEqual(taken, upTo(500));
  assert.ok(statuses.filter((status) => status === "paused").length > 1);
});

test("abort signals, close and break end it", async () => {
  const key = fresh();
  const stoa = client();
  const ending = new AbortController();
  const subscription = stoa.subscribe(key, { signal: ending.signal });
  await subscription.ready;
  const next = subscription[Symbol.asyncIterator]().next();
  ending.abort(new Error("enough"));
  await assert.rejects(next, /enough/);
  assert.equal(subscription.status, "closed");
  await assert.rejects(take(stoa.subscribe(key, { signal: AbortSignal.abort(new Error("never")) }), 1), /never/);
  const closed = stoa.subscribe(key);
  const pending = closed[Symbol.asyncIterator]().next();
  closed.close();
  assert.deepEqual(await pending, { value: undefined, done: true });
  const handled = stoa.subscribe(key, { signal: AbortSignal.timeout(20), onError: (error) => assert.fail(error) }, () => {});
  await waitUntil("its signal ended it", () => handled.status === "closed");
  const last = stoa.subscribe(key);
  await last.ready;
  stoa.close();
  assert.equal(last.status, "closed");
  assert.throws(() => stoa.subscribe(key), /closed/);
});

test("a refused key ends with the server's tag; the others go on", async () => {
  const stoa = client();
  const key = fresh();
  const good = stoa.subscribe(key);
  await good.ready;
  const bad = stoa.subscribe("$reserved");
  await assert.rejects(bad.ready, (error) => error instanceof StoaError && error.tag === "BadKey" && error.status === 400);
  await assert.rejects(take(bad, 1), (error) => error.tag === "BadKey");
  await assert.rejects(take(stoa.subscribe(key, { after: "nonsense" }), 1), (error) => error.tag === "BadId");
  await publish(key, 1, 1);
  assert.deepEqual(numbers(await take(good, 1)), [1]);
});

test("without upgrades it streams: the same events, gaps and bytes", async () => {
  proxy.refuseUpgrades = true;
  const stoa = client();
  const key = fresh(), typed = fresh("short:sse");
  await publish(key, 1, 2);
  const transports = [];
  const subscription = stoa.subscribe(key, { replay: "all", onStatus: (status, detail) => { if (status === "live") transports.push(detail.transport); } });
  const live = stoa.subscribe(key), other = stoa.subscribe(typed);
  await Promise.all([subscription.ready, live.ready, other.ready]);
  assert.deepEqual(transports, ["sse"]);
  proxy.blackhole = true;
  proxy.cut(); // before live got its first event
  await publish(key, 3, 4);
  proxy.blackhole = false;
  proxy.cut();
  await stoa.publish(key, new Uint8Array([255, 0]));
  const events = await take(subscription, 5);
  assert.deepEqual(numbers(events.slice(0, 4)), upTo(4));
  assert.deepEqual(events[4].data, new Uint8Array([255, 0]));
  assert.deepEqual(numbers((await take(live, 3)).slice(0, 2)), [3, 4]);
  await publish(typed, 1, 10);
  assert.deepEqual(numbers(await take(other, 10)), upTo(10));
  const first = (await stoa.log(typed)).events[0].id;
  await publish(typed, 11, 20);
  await assert.rejects(take(stoa.subscribe(typed, { after: first }), 1), (error) => error instanceof MissedError && error.reason === "evicted");
});

test("transport: websocket does not fall back; WebSocket: null streams at once", async () => {
  const key = fresh();
  await publish(key, 1, 1);
  proxy.refuseUpgrades = true;
  const patient = client({ transport: "websocket" }).subscribe(key, { replay: "all" });
  const before = proxy.upgrades();
  await waitUntil("it keeps trying", () => proxy.upgrades() - before > 4);
  proxy.refuseUpgrades = false;
  assert.deepEqual(numbers(await take(patient, 1)), [1]);
  const upgrades = proxy.upgrades();
  assert.deepEqual(numbers(await take(client({ WebSocket: null }).subscribe(key, { replay: "all" }), 1)), [1]);
  assert.equal(proxy.upgrades(), upgrades);
});

test("another program sees what this one publishes", async () => {
  const key = fresh();
  const { id } = await client().publish(key, { n: 1 });
  assert.equal(command("--server", cluster.url, "log", key), `${id}\t{"n":1}\n`);
});
