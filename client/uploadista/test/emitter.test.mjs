// (A) the emitter's layer under a server that uses it as Uploadista's does, on a real cluster: what browsers see, what
// the server's own connections are sent, that no viewer hurts another, and an outage.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Effect, Layer, Logger, ManagedRuntime } from "effect";

import {
  eventEmitterService, eventSerializer, StoaBroadcaster, stoaDurableObjectNamespace, StoaEmitter, stoaEventEmitter, typedEmitter,
} from "../dist/index.js";
import { authYaml, mint, startCluster } from "../../js/test/cluster.mjs";
import { connection, makeUploads, progressOf, typeOf, viewer, waitUntil } from "./server.mjs";

let cluster;
before(async () => { cluster = await startCluster(); });
after(() => cluster.stop());

let keys = 0;
const newKey = () => `upload-${++keys}`;

/** The uploads of a server, on a layer, until `use` has ended. */
async function served(options, use) {
  const runtime = ManagedRuntime.make(stoaEventEmitter(options));
  const run = (effect) => runtime.runPromise(effect);
  try {
    return await use(await run(makeUploads), run);
  } finally {
    await runtime.dispose();
  }
}

async function eachWay(use) {
  await use({ url: cluster.url });
  await use({ url: cluster.url, routers: cluster.routerEndpoints, cluster: "test" });
}

test("a browser that comes late sees the start, the last progress, and the end, byte for byte", () => eachWay((options) =>
  served(options, async (uploads, run) => {
    const id = newKey();
    await run(uploads.create(id, 100));
    const early = await viewer(cluster, `/uploadista/ws/upload/${id}`);
    await waitUntil("the start is there", () => early.payloads().length === 1);
    for (const offset of [10, 20, 30]) {
      await run(uploads.write(id, offset, 100));
      await waitUntil("progress is there", () => progressOf(early.payloads().at(-1)) === offset);
    }
    const late = await viewer(cluster, `/uploadista/ws/upload/${id}`);
    await run(uploads.complete(id, 100));
    await waitUntil("both have the end", () => [early, late].every((one) => typeOf(one.payloads().at(-1) ?? '{"payload":{}}') === "upload-complete"));
    assert.deepEqual(early.payloads().map(typeOf), ["upload-started", ...Array(3).fill("upload-progress"), "upload-complete"]);
    assert.deepEqual(late.payloads(), early.payloads().filter((_, i) => i === 0 || i > 2));
    assert.deepEqual(late.frames.slice(0, 2).map((text) => JSON.parse(text).type), ["subscribed", "connection"]);
    await early.close();
    await late.close();
  })));

test("a server's own connections get what is retained and what comes; leaving touches no other", () => served({ url: cluster.url }, async (uploads, run) => {
  const id = newKey();
  await run(uploads.create(id, 100));
  const [live, gone, frozen, frozenGone] = [connection(), connection(), connection({ frozen: true }), connection({ frozen: true })];
  for (const one of [live, gone, frozen, frozenGone]) await run(uploads.opened(id, one));
  await run(uploads.opened(id, live)); // twice is once
  await waitUntil("all have the start", () => [live, gone, frozen, frozenGone].every((one) => one.texts.length === 1));
  gone.close();
  frozenGone.close();
  for (let left = 0; left < 2; left++) await run(uploads.closed(id)); // their server does not say who
  for (let refused = 0; refused < 5; refused++) await run(uploads.closed(id)); // ... and says it of refused ones too
  await run(uploads.complete(id, 100));
  await waitUntil("who stayed has the end", () => live.texts.length === 2 && frozen.texts.length === 2);
  assert.deepEqual(live.texts.map(typeOf), ["upload-started", "upload-complete"]);
  assert.deepEqual(frozen.texts, live.texts);
  assert.equal(gone.texts.length, 1);
}));

test("connections that may all have left are let go when nothing happens any more", async () => {
  const emitter = new StoaEmitter({ url: cluster.url, idle: 200 });
  const id = newKey();
  const [one, two] = [connection({ frozen: true }), connection({ frozen: true })];
  emitter.subscribe(id, one);
  emitter.subscribe(id, two);
  emitter.unsubscribe(id);
  emitter.unsubscribe(id, two);
  assert.equal(emitter.stats().viewers, 1);
  emitter.emit(id, "1");
  await waitUntil("it has the event", () => one.texts.length === 1);
  emitter.unsubscribe(id);
  await waitUntil("it is let go", () => emitter.stats().viewers === 0);
  emitter.unsubscribe(id);
  emitter.unsubscribe("never watched");
  await emitter.close();
});

test("a connection that throws is let go, the others stay", async () => {
  const emitter = new StoaEmitter({ url: cluster.url });
  const id = newKey(), good = connection(), bad = { ...connection(), readyState: 1, send() { throw new Error("broken"); } };
  emitter.subscribe(id, bad);
  emitter.subscribe(id, good);
  emitter.emit(id, "not json € \u0001");
  emitter.emit(id, '{"a":[1,2.5,"é"],"b":{"2":1}}');
  await waitUntil("the good one has both", () => good.texts.length === 2);
  assert.deepEqual(good.texts, ["not json € \u0001", '{"a":[1,2.5,"é"],"b":{"2":1}}']);
  assert.equal(emitter.stats().viewers, 1);
  await emitter.close();
});

test("events with types of their own", () => served({ url: cluster.url }, async (_, run) => {
  const emitter = new StoaEmitter({ url: cluster.url });
  const flows = typedEmitter(eventEmitterService(emitter), eventSerializer("flow_event"));
  const job = newKey(), socket = connection();
  await run(flows.subscribe(job, socket));
  await run(flows.emit(job, { eventType: "job-start", jobId: job }));
  await run(flows.emit(job, { eventType: "node-start", jobId: job, flowId: "f", nodeId: "n", nodeName: "N", nodeType: "input" }));
  await waitUntil("both are there", () => socket.texts.length === 2);
  assert.match(socket.texts[0], new RegExp(`^\\{"type":"flow_event","payload":\\{"eventType":"job-start","jobId":"${job}"\\},"timestamp":"`));
  await run(flows.unsubscribe(job, socket));
  assert.equal(emitter.stats().viewers, 0);
  await emitter.close();
}));

test("the services are found by the key of their tag, and the layer composes", async () => {
  const doubled = Layer.effectDiscard(Effect.flatMap(makeUploads, (uploads) => uploads.create(newKey(), 1)));
  await Effect.runPromise(Effect.scoped(Layer.build(doubled.pipe(Layer.provide(stoaEventEmitter({ url: cluster.url }))))));
});

test("options that lack something are refused when the emitter is made", async () => {
  assert.throws(() => new StoaEmitter({}), { name: "TypeError", message: /url.*routers.*publisher/ });
  assert.throws(() => new StoaEmitter({ url: "ftp://x" }), { name: "TypeError", message: /^url: / });
  assert.throws(() => new StoaEmitter({ url: cluster.url, maxQueue: { events: 0 } }), { name: "TypeError", message: /^maxQueue.events/ });
  await assert.rejects(Effect.runPromise(Effect.scoped(Layer.build(stoaEventEmitter({})))), /give url/);
});

test("what is no text, or cannot be made one, fails nothing either", async () => {
  const lines = [];
  const stored = [];
  const emitter = new StoaEmitter({ publisher: { publish: async (key, data) => { stored.push(String(data)); } }, onLog: (line) => lines.push(line) });
  const base = eventEmitterService(emitter);
  for (const [key, text] of [["k", undefined], ["k", null], ["k", 5], [undefined, "1"]]) await Effect.runPromise(base.emit(key, text));
  const event = { type: "upload-progress", data: { id: "k", progress: 1n, total: 2 } };
  await Effect.runPromise(typedEmitter(base, eventSerializer("upload_event")).emit("k", event).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))));
  const object = stoaDurableObjectNamespace(emitter).get({ name: "k" });
  for (const message of [undefined, 1n]) await object.emit(message);
  await Effect.runPromise(base.emit("k", "fine"));
  assert.equal(await emitter.flush(), true);
  assert.deepEqual(stored, ["fine"]);
  assert.deepEqual([emitter.stats().failed, emitter.stats().stored, lines.length], [6, 1, 1]);
  await emitter.close();
  const broadcaster = new StoaBroadcaster({ url: cluster.url, publisher: { publish: async () => {} }, onLog: (line) => lines.push(line) });
  broadcaster.publish("channel", undefined);
  assert.equal(broadcaster.stats().failed, 1);
  await broadcaster.close();
});

test("an emitter that can never publish drops and counts, says so once, and fails nothing", async () => {
  const lines = [];
  const publisher = { publish: async () => { throw new Error("refused for good"); } };
  const emitter = new StoaEmitter({ publisher, onLog: (line) => lines.push(line) });
  for (let i = 0; i < 100; i++) emitter.emit(`k${i}`, "1");
  emitter.subscribe("k1", connection());
  assert.equal(await emitter.flush(), true);
  assert.equal(emitter.stats().failed, 100);
  assert.deepEqual(lines.filter((line) => line.includes("refused for good")).length, 1);
  assert.equal(lines.filter((line) => line.includes("give url")).length, 1);
  await emitter.close();
});

test("its token needs the rights; viewers of others are not let in", async () => {
  const guarded = await startCluster({ yaml: authYaml });
  const emitter = new StoaEmitter({ url: guarded.url, token: () => mint({ prefix: "", can: ["publish", "subscribe"] }) });
  try {
    const socket = connection();
    emitter.subscribe("u1", socket);
    emitter.emit("u1", '{"n":1}');
    const own = await viewer(guarded, `/uploadista/ws/upload/u1?token=${mint({ key: "u1" })}`);
    const refused = await viewer(guarded, `/uploadista/ws/upload/u1?token=${mint({ key: "u2" })}`);
    assert.deepEqual(await refused.closed, { code: 4001, reason: "Authentication failed: invalid or expired token" });
    emitter.emit("u1", '{"n":2}');
    await waitUntil("both have both", () => socket.texts.length === 2 && own.payloads().length === 2);
    assert.deepEqual(socket.texts, ['{"n":1}', '{"n":2}']);
    await own.close();
    assert.equal(emitter.stats().failed, 0);
  } finally {
    await emitter.close();
    await guarded.stop();
  }
});

test("the gateway is gone under load: uploads go on, what is lost is counted, and after it all is well", async () => {
  const lines = [], sizes = { events: 300, bytes: 1 << 20 };
  const emitter = new StoaEmitter({ url: cluster.url, maxQueue: sizes, onLog: (line) => lines.push(line) });
  const [gateway] = cluster.gateways, ids = Array.from({ length: 20 }, newKey);
  const runtime = ManagedRuntime.make(stoaEventEmitter(emitter));
  const uploads = runtime.runSync(makeUploads);
  let offset = 0;
  const load = (rounds) => {
    for (let round = 0; round < rounds; round++, offset++)
      for (const id of ids) assert.equal(runtime.runSync(uploads.write(id, offset, 1e9)), undefined); // runSync: it does not wait
  };
  try {
    for (const id of ids) runtime.runSync(uploads.create(id, 1e9));
    load(50);
    await waitUntil("some is stored", () => emitter.stats().stored > 20);
    const killed = gateway.kill();
    load(100);
    await killed;
    load(100);
    assert.ok(emitter.stats().queuedEvents <= sizes.events);
    for (let i = 0; i < 2000; i++) runtime.runSync(uploads.create(`${ids[i % 20]}-child-${i}`, 1)); // more than fits
    const full = emitter.stats();
    assert.ok(full.droppedEvents > 1000 && full.queuedEvents === sizes.events, JSON.stringify(full));
    assert.ok(full.droppedProgress >= 20, JSON.stringify(full)); // progress made room first
    await gateway.start();
    assert.equal(await emitter.flush(60_000), true);
    load(10);
    for (const id of ids) runtime.runSync(uploads.complete(id, 1e9));
    assert.equal(await emitter.flush(60_000), true);
    const { emitted, stored, conflated, droppedProgress, droppedEvents, failed, queuedEvents } = emitter.stats();
    assert.equal(emitted, stored + conflated + droppedProgress + droppedEvents + failed);
    assert.deepEqual([queuedEvents, failed], [0, 0]);
    assert.equal(emitted, 20 + 260 * 20 + 2000 + 20);
    assert.equal(lines.filter((line) => line.includes("events are dropped")).length, 1, lines.join("\n"));
    for (const id of ids) {
      const seen = await viewer(cluster, `/uploadista/ws/upload/${id}?conflate=none`);
      await waitUntil("the end is there", () => seen.payloads().some((text) => typeOf(text) === "upload-complete"));
      const texts = seen.payloads(), offsets = texts.filter((text) => typeOf(text) === "upload-progress").map(progressOf);
      assert.equal(typeOf(texts[0]), "upload-started");
      assert.equal(typeOf(texts.at(-1)), "upload-complete");
      assert.deepEqual(offsets, [...new Set(offsets)].sort((a, b) => a - b)); // in order, each once
      assert.equal(offsets.at(-1), offset - 1); // the last one is never the one that was left out
      await seen.close();
    }
  } finally {
    await runtime.dispose();
    await emitter.close();
  }
});
