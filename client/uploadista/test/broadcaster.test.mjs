// (B) the broadcaster's layer in place of Redis, under a WebSocket emitter as Uploadista's: two instances, every text
// as it was, and a gateway that is gone for a while.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ManagedRuntime } from "effect";

import { StoaBroadcaster, stoaEventBroadcaster } from "../dist/index.js";
import { startCluster } from "../../js/test/cluster.mjs";
import { connection, makeBroadcastEmitter, waitUntil } from "./server.mjs";

let cluster;
before(async () => { cluster = await startCluster({ gateways: 2 }); });
after(() => cluster.stop());

test("two instances of a server: an event reaches the viewers of both, across a gateway that was gone", async () => {
  const runtimes = cluster.gateways.map(({ url }) => ManagedRuntime.make(stoaEventBroadcaster({ url })));
  try {
    const [one, two] = await Promise.all(runtimes.map((runtime) => runtime.runPromise(makeBroadcastEmitter)));
    const sockets = [connection(), connection(), connection()];
    runtimes[0].runSync(one.subscribe("u1", sockets[0]));
    runtimes[1].runSync(two.subscribe("u1", sockets[1]));
    runtimes[1].runSync(two.subscribe("u2", sockets[2]));
    const wanted = [];
    const emit = (count) => {
      for (let i = 0; i < count; i++) {
        wanted.push(JSON.stringify({ n: wanted.length, text: "é\u2028\"\\" }));
        runtimes[0].runSync(one.emit("u1", wanted.at(-1)));
      }
    };
    emit(100);
    await waitUntil("both have all", () => sockets.slice(0, 2).every(({ texts }) => texts.length === 100));
    await cluster.gateways[1].kill();
    emit(100);
    await cluster.gateways[1].start();
    emit(1);
    await waitUntil("both have all", () => sockets.slice(0, 2).every(({ texts }) => texts.length === 201));
    for (const { texts } of sockets.slice(0, 2)) assert.deepEqual(texts, wanted);
    assert.deepEqual(sockets[2].texts, []);
  } finally {
    for (const runtime of runtimes) await runtime.dispose();
  }
});

test("any text arrives as it was; a handler that throws stops no other; unsubscribe ends them", async () => {
  const lines = [];
  const broadcaster = new StoaBroadcaster({ url: cluster.url, onLog: (line) => lines.push(line) });
  const got = [], odd = ["", "plain", "{\"a\": 1.50}", "null", "\u0000\u{1F600}", "x".repeat(100_000)];
  await broadcaster.subscribe("c", () => { throw new Error("mine"); });
  await broadcaster.subscribe("c", (text) => got.push(text));
  for (const text of odd) broadcaster.publish("c", text);
  await waitUntil("all are there", () => got.length === odd.length);
  assert.deepEqual(got, odd);
  assert.deepEqual(lines, ["stoa: c: a handler failed: Error: mine"]);
  broadcaster.unsubscribe("c");
  broadcaster.unsubscribe("never");
  broadcaster.publish("c", "after");
  assert.equal(await broadcaster.flush(), true);
  assert.equal(got.length, odd.length);
  assert.deepEqual([broadcaster.stats().stored, broadcaster.stats().gaps], [odd.length + 1, 0]);
  await broadcaster.close();
});

test("it needs a gateway to read from", () => {
  assert.throws(() => new StoaBroadcaster({ routers: cluster.routerEndpoints }), { name: "TypeError", message: /give url/ });
});
