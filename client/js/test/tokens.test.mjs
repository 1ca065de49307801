/** Tokens: asked for, renewed in place, refused; by a socket, by streams and by requests. */
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { Stoa, StoaError } from "../dist/index.js";
import { authYaml, mint, startCluster, waitUntil } from "./cluster.mjs";
import { startProxy } from "./proxy.mjs";

let cluster, proxy;
const clients = [];
let keys = 0;
const fresh = () => `key-${++keys}`;
const client = (options = {}) => {
  const stoa = new Stoa(proxy.url, { reconnect: { min: 10, max: 200 }, idle: 50, ...options });
  clients.push(stoa);
  return stoa;
};
const soon = (seconds) => Math.floor(Date.now() / 1000) + seconds;
const can = ["subscribe", "publish"];
const next = async (subscription) => (await subscription[Symbol.asyncIterator]().next()).value;

before(async () => {
  cluster = await startCluster({ yaml: authYaml });
  proxy = await startProxy(cluster.port);
});
afterEach(() => {
  for (const stoa of clients.splice(0)) stoa.close();
  proxy.refuseUpgrades = false;
});
after(async () => {
  await proxy?.close();
  await cluster?.stop();
});

test("a token opens its keys; others are refused one by one", async () => {
  const key = fresh(), other = fresh();
  const stoa = client({ token: mint({ key, can }) });
  const good = stoa.subscribe(key);
  await good.ready;
  const bad = stoa.subscribe(other);
  await assert.rejects(bad.ready, (error) => error instanceof StoaError && error.status === 403 && error.tag === "Forbidden");
  await assert.rejects(stoa.publish(other, 1), (error) => error.tag === "Forbidden");
  await stoa.publish(key, 1);
  assert.equal((await next(good)).data, 1);
});

test("a token that is refused ends the subscription, after one more was asked for", async () => {
  const forged = mint({ key: "k", can }, { key: "another secret, of somebody else entirely" });
  await assert.rejects(client({ token: forged }).subscribe("k").ready, (error) => error.status === 401 && error.tag === "Unauthorized");
  await assert.rejects(client({}).subscribe("k").ready, (error) => error.status === 401);
  let asked = 0;
  const stoa = client({ token: () => { asked++; return forged; } });
  const subscription = stoa.subscribe("k");
  await assert.rejects(next(subscription), (error) => error.status === 401 && !error.message.includes(forged));
  assert.equal(asked, 2);
  await assert.rejects(stoa.publish("k", 1), (error) => error.status === 401);
});

test("a token function that is refused once and then gives a good one", async () => {
  const key = fresh();
  let asked = 0;
  const stoa = client({ token: async () => (asked++ === 0 ? mint({ key, can, exp: soon(-10) }) : mint({ key, can })) });
  await stoa.subscribe(key).ready;
  assert.ok(asked >= 2);
  asked = 0;
  const other = client({ token: async () => (asked++ === 0 ? mint({ key, can }, { key: "wrong, yet long enough to be one" }) : mint({ key, can })) });
  assert.ok((await other.publish(key, 1)).id);
  assert.equal(asked, 2);
});

test("a token function that fails is asked again", async () => {
  const key = fresh();
  let asked = 0;
  const stoa = client({ token: async () => {
    if (asked++ < 2) throw new Error("the login service is away");
    return mint({ key, can });
  } });
  const errors = [];
  await stoa.subscribe(key, { onStatus: (status, detail) => { if (detail.error) errors.push(detail.error.message); } }).ready;
  assert.deepEqual(errors, ["the login service is away", "the login service is away"]);
});

for (const transport of ["websocket", "sse"]) {
  test(`renewed before it ends, by ${transport}: nothing is lost`, async () => {
    const key = fresh();
    let asked = 0;
    const stoa = client({ transport, token: () => { asked++; return mint({ key, can, exp: soon(4), id: "ann" }); } });
    const statuses = [];
    const subscription = stoa.subscribe(key, { onStatus: (status) => statuses.push(status) });
    await subscription.ready;
    const upgrades = proxy.upgrades();
    const until = Date.now() + 6_000; // longer than one token lives
    const seen = [];
    const reading = (async () => { for await (const event of subscription) seen.push(event.data); })();
    let sent = 0;
    while (Date.now() < until) {
      await cluster.publish(key, sent, { headers: { Authorization: `Bearer ${mint({ key, can })}` } });
      sent++;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await waitUntil("all came", () => seen.length === sent);
    subscription.close();
    await reading;
    assert.deepEqual(seen, Array.from({ length: sent }, (_, n) => n));
    assert.ok(asked >= 3, `asked ${asked} times`);
    if (transport === "websocket") {
      assert.deepEqual(statuses, ["live", "closed"]);
      assert.equal(proxy.upgrades(), upgrades);
    }
  });
}

test("a token that ends and cannot be renewed ends the subscription", async () => {
  const key = fresh();
  for (const transport of ["websocket", "sse"]) {
    const subscription = client({ transport, token: mint({ key, can, exp: soon(2) }) }).subscribe(key);
    await subscription.ready;
    await assert.rejects(next(subscription), (error) => error.status === 401 && error.tag === "TokenExpired");
  }
});

test("by streams: refusals end, key by key", async () => {
  proxy.refuseUpgrades = true;
  const key = fresh(), other = fresh();
  const stoa = client({ token: mint({ key, can }) });
  const good = stoa.subscribe(key), bad = stoa.subscribe(other);
  await good.ready;
  await assert.rejects(bad.ready, (error) => error.status === 403);
  await stoa.publish(key, "x");
  assert.equal((await next(good)).data, "x");
});

test("a revoked token ends its subscription, and its resume is refused", async () => {
  const key = fresh();
  const stoa = client({ token: mint({ key, can, jti: "r-1" }) });
  const subscription = stoa.subscribe(key);
  await subscription.ready;
  const answer = await fetch(`${cluster.url}/revoke`, {
    method: "POST", body: JSON.stringify({ jti: "r-1" }),
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${mint({ prefix: "", can: ["manage"] })}` },
  });
  assert.equal(answer.status, 200, await answer.text());
  await assert.rejects(next(subscription), (error) => error.status === 401);
  await assert.rejects(stoa.subscribe(key, { after: "0" }).ready, (error) => error.status === 401);
});

test("filters: an event is for whom it names", async () => {
  const key = fresh();
  const ann = client({ token: mint({ key, can, id: "ann", tags: ["staff"] }) });
  const bob = client({ token: mint({ key, can, id: "bob" }) });
  const seen = { ann: [], bob: [] };
  const live = [ann.subscribe(key, (event) => seen.ann.push(event.data)), bob.subscribe(key, (event) => seen.bob.push(event.data))];
  await Promise.all(live.map((one) => one.ready));
  await ann.publish(key, "staff", { tags: ["staff"] });
  await ann.publish(key, "bob", { to: ["bob"] });
  await ann.publish(key, "not bob", { except: ["bob"] });
  await ann.publish(key, "all");
  await waitUntil("both have the last one", () => seen.ann.includes("all") && seen.bob.includes("all"));
  assert.deepEqual(seen, { ann: ["staff", "not bob", "all"], bob: ["bob", "all"] });
});
