/**
 * Publishing from Node against real clusters, by ZeroMQ and over HTTP: order, idempotency across every way there is
 * to publish, the bounded queue, ends, CURVE, and nothing lost or doubled while processes are killed.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { openPublisher } from "../dist/server/index.js";
import { authYaml, freePort, mint, startCluster, stoa, waitUntil } from "./cluster.mjs";

/** Everything that is retained of a key. */
async function logOf(cluster, key) {
  const events = [];
  for (let after = "0"; ;) {
    const answer = await fetch(`${cluster.url}/log?key=${encodeURIComponent(key)}&after=${after}&limit=1000`);
    const page = await answer.json();
    assert.equal(page.missed, undefined);
    events.push(...page.events);
    if (!page.more) return events;
    after = events.at(-1).id;
  }
}

/** The same tests for both ways. */
for (const way of ["ZeroMQ", "HTTP"]) describe(`by ${way}`, () => {
  let cluster, publisher;
  const open = (options = {}) => openPublisher(way === "HTTP" ? { url: cluster.url, ...options }
    : { routers: cluster.routerEndpoints, cluster: "test", ...options });
  before(async () => {
    cluster = await startCluster({ shards: 2 });
    publisher = await open();
  });
  after(async () => {
    assert.deepEqual(await publisher?.close(), { unknown: 0, unsent: 0 });
    await cluster?.stop();
  });

  test("an event is stored as it was given, and says where", async () => {
    const first = await publisher.publish("one", { percent: 1 });
    assert.match(first.id, /^[0-9a-z]+-1$/);
    assert.equal(first.duplicate, false);
    const raw = await publisher.publish("one", new Uint8Array([0, 255, 10]));
    assert.match(raw.id, /-2$/);
    const batch = await publisher.publishBatch("one", [1, "two", null]);
    assert.deepEqual({ ...batch, first: batch.first.split("-")[1], id: batch.id.split("-")[1] },
      { first: "3", id: "5", count: 3, duplicate: false });
    assert.deepEqual(await publisher.publish("one", {}, { ephemeral: true }), { id: null, duplicate: false });
    const events = await logOf(cluster, "one");
    assert.deepEqual(events.map((event) => event.base64 ?? event.data), [{ percent: 1 }, "AP8K", 1, "two", null]);
    assert.equal(events[0].id, first.id);
    await publisher.publish("one", 6, { conflate: "percent" });
    assert.equal((await logOf(cluster, "one")).at(-1).conflate, "percent");
  });

  test("events of a key are stored in the order of the calls", async () => {
    const keys = Array.from({ length: 20 }, (_, i) => `order:${i} ü&=`);
    const each = way === "HTTP" ? 25 : 200;
    await Promise.all(Array.from({ length: each }, (_, i) => keys.map((key) => publisher.publish(key, i))).flat());
    const wanted = Array.from({ length: each }, (_, i) => i);
    for (const key of keys) assert.deepEqual((await logOf(cluster, key)).map((event) => event.data), wanted);
    assert.equal(publisher.stats().queuedEvents, 0);
    assert.equal(publisher.stats().queuedBytes, 0);
  });

  test("what breaks a rule is refused by name, and nothing waits for it", async () => {
    const refused = (tag, words, key, data, options) =>
      assert.rejects(publisher.publish(key, data, options), (error) => error.tag === tag && words.test(error.message));
    await refused("BadKey", /1 to 256 bytes/, "", 1);
    await refused("BadKey", /1 to 256 bytes/, "k".repeat(257), 1);
    await refused("BadKey", /control/, "a\nb", 1);
    await refused("BadKey", /control/, "a\ud800b", 1);
    await refused("BadKey", /system's own/, "$stoa:revoked", 1);
    await refused("BadRequest", /JSON value/, "k", undefined);
    await refused("BadRequest", /idempotencyKey/, "k", 1, { idempotencyKey: "" });
    await refused("BadRequest", /idempotencyKey/, "k", 1, { idempotencyKey: "é".repeat(128) });
    await refused("BadRequest", /conflate/, "k", 1, { conflate: "c".repeat(65) });
    await refused("BadRequest", /tags/, "k", 1, { tags: "admins" });
    await refused("TooLarge", /4 KiB/, "k", 1, { to: ["x".repeat(5000)] });
    await refused("BadRequest", /timeout/, "k", 1, { timeout: -1 });
    await refused("TooLarge", /1 MiB/, "k", new Uint8Array(1024 * 1024 + 1));
    await assert.rejects(publisher.publishBatch("k", []), { tag: "BadRequest" });
    await assert.rejects(publisher.publishBatch("k", Array(257).fill(0)), { tag: "TooLarge" });
    assert.throws(() => publisher.tryPublish("", 1), { tag: "BadKey" });
    // what only the cluster knows
    await assert.rejects(publisher.publish("k", new Uint8Array(600 * 1024)), { tag: "TooLarge", status: 413 });
    assert.equal((await logOf(cluster, "k")).length, 0);
    await publisher.publish("k", "the next");
    assert.equal((await logOf(cluster, "k")).length, 1);
  });

  test("large events go through the window one by one", async () => {
    const each = 400 * 1024, count = 12;
    const sent = await Promise.all(Array.from({ length: count }, (_, i) => publisher.publish("large", new Uint8Array(each).fill(65 + i))));
    assert.deepEqual(sent.map(({ id }) => Number(id.split("-")[1])), Array.from({ length: count }, (_, i) => i + 1));
    assert.deepEqual((await logOf(cluster, "large")).map((event) => [Buffer.from(event.base64, "base64").length, Buffer.from(event.base64, "base64")[0]]),
      Array.from({ length: count }, (_, i) => [each, 65 + i]));
  });

  test("an aborted publish is not stored when it was not sent", async () => {
    await assert.rejects(publisher.publish("aborted", 1, { signal: AbortSignal.abort(new Error("no")) }), { message: "no" });
    const abort = new AbortController();
    const late = publisher.publish("aborted", 2, { signal: abort.signal });
    abort.abort(new Error("changed my mind"));
    await assert.rejects(late, { message: "changed my mind" });
    await publisher.publish("aborted", 3);
    assert.deepEqual((await logOf(cluster, "aborted")).map((event) => event.data), [3]);
  });

  test("tryPublish says how it ended, once", async () => {
    const ended = [];
    for (let i = 0; i < 50; i++)
      assert.equal(publisher.tryPublish("tried", i, { onDone: (end) => ended.push([i, end]) }), true);
    assert.equal(await publisher.flush(30_000), true);
    await waitUntil("all are told", () => ended.length === 50);
    assert.deepEqual(ended.map(([i]) => i), Array.from({ length: 50 }, (_, i) => i));
    assert.ok(ended.every(([, end]) => end.error === undefined && end.published.id.endsWith(`-${end.published.id.split("-")[1]}`)));
  });

  test("while the shards stand still the queue fills, and no further", async () => {
    const bounded = await open({ maxQueue: { events: 300, bytes: 64 * 1024 } });
    await bounded.publish("full", "before");
    for (const shard of cluster.shards) shard.child.kill("SIGSTOP");
    try {
      let accepted = 0;
      while (bounded.tryPublish("full", { n: accepted })) accepted++;
      assert.ok(accepted > 10 && accepted <= 300);
      await assert.rejects(bounded.publish("full", 1), (error) => error.tag === "Busy" && /maxQueue/.test(error.message));
      for (let i = 0; i < 10_000; i++) assert.equal(bounded.tryPublish("full", { n: i }), false);
      const { queuedEvents, queuedBytes, busy } = bounded.stats();
      assert.equal(queuedEvents, accepted);
      assert.ok(queuedBytes <= 64 * 1024, `${queuedBytes} bytes`);
      assert.equal(busy, 10_002);
    } finally {
      for (const shard of cluster.shards) shard.child.kill("SIGCONT");
    }
    await bounded.drained();
    assert.equal(await bounded.flush(30_000), true);
    const events = await logOf(cluster, "full");
    assert.deepEqual(events.slice(1).map((event) => event.data.n), Array.from({ length: events.length - 1 }, (_, i) => i));
    assert.deepEqual(await bounded.close(), { unknown: 0, unsent: 0 });
  });

  test("what is under way at the end is told apart: unknown, or surely not stored", async () => {
    const closing = await open(way === "HTTP" ? { concurrency: 1 } : { window: { messages: 1 } });
    await closing.publish("end", "before");
    for (const shard of cluster.shards) shard.child.kill("SIGSTOP");
    let sent, waits;
    try {
      sent = closing.publish("end", "sent", { idempotencyKey: `end by ${way}` });
      waits = closing.publish("end", "waits");
      sent.catch(() => {});
      waits.catch(() => {});
      await waitUntil("one is in flight", () => closing.stats().inFlight === 1);
      assert.equal(await closing.flush(50), false);
      assert.deepEqual(await closing.close(50), { unknown: 1, unsent: 1 });
    } finally {
      for (const shard of cluster.shards) shard.child.kill("SIGCONT");
    }
    await assert.rejects(sent, (error) => error.tag === "Unknown" && /same idempotency key/.test(error.message));
    await assert.rejects(waits, { tag: "Closed" });
    await assert.rejects(closing.publish("end", 1), { tag: "Closed" });
    const again = await publisher.publish("end", "sent", { idempotencyKey: `end by ${way}` });
    const events = await logOf(cluster, "end");
    assert.deepEqual(events.map((event) => event.data), ["before", "sent"]);
    assert.equal(again.id, events[1].id);
  });

  test("time that is over: unknown where it was sent, else not stored", async () => {
    const port = await freePort();
    const nobody = await openPublisher(way === "HTTP" ? { url: `http://127.0.0.1:${port}` } : { routers: `127.0.0.1:${port}` });
    await assert.rejects(nobody.publish("k", 1, { timeout: 500 }), (error) => error.tag === "Unreachable" && /not stored/.test(error.message));
    assert.equal(nobody.stats().connected, false);
    await nobody.close(0);
    for (const shard of cluster.shards) shard.child.kill("SIGSTOP");
    try {
      await assert.rejects(publisher.publish("late", 1, { timeout: 300 }), { tag: "Unknown" });
    } finally {
      for (const shard of cluster.shards) shard.child.kill("SIGCONT");
    }
    await publisher.publish("late", 2);
    assert.equal((await logOf(cluster, "late")).at(-1).data, 2);
  });
});

test("one idempotency key is one event, whoever comes with it", async () => {
  const cluster = await startCluster({ shards: 2 });
  const zmq = await openPublisher({ routers: cluster.routerEndpoints, cluster: "test" });
  const http = await openPublisher({ url: cluster.url });
  try {
    const ways = {
      zmq: (key, id) => zmq.publish(key, 1, { idempotencyKey: id }),
      http: (key, id) => http.publish(key, 1, { idempotencyKey: id }),
      cli: async (key, id) => ({ id: stoa("publish", "-s", cluster.url, "-k", id, key, "1").trim() }),
      libstoa: async (key, id) => ({ id: stoa("publish", "--config", cluster.config, "--router", cluster.routerEndpoints[0], "-k", id, key, "1").trim() }),
    };
    const id = "order 4711/ü";
    for (const [name, first] of Object.entries(ways)) {
      const original = await first(name, id);
      for (const [other, again] of Object.entries(ways)) {
        const answer = await again(name, id);
        assert.equal(answer.id, original.id, `${name}, then ${other}`);
        if (answer.duplicate !== undefined) assert.equal(answer.duplicate, true);
      }
      assert.equal((await logOf(cluster, name)).length, 1);
    }
  } finally {
    await Promise.all([zmq.close(), http.close()]);
    await cluster.stop();
  }
});

test("tags, to and except say who sees an event, whatever way it came", async () => {
  const cluster = await startCluster({ yaml: authYaml });
  const publishers = {
    zmq: await openPublisher({ routers: cluster.routerEndpoints, cluster: "test" }),
    http: await openPublisher({ url: cluster.url, token: async () => mint({ prefix: "", can: ["publish"] }) }),
  };
  try {
    for (const [key, publisher] of Object.entries(publishers)) {
      await publisher.publish(key, "all");
      await publisher.publish(key, "staff", { tags: ["staff", "owners, all of them"] });
      await publisher.publish(key, "ann", { to: ["ann, the one"] });
      await publisher.publish(key, "not ann", { except: ["ann, the one"] });
      await publisher.publish(key, "nobody", { to: [] });
      const seen = async (claims) => {
        const answer = await fetch(`${cluster.url}/log?key=${key}`, { headers: { Authorization: `Bearer ${mint({ key, ...claims })}` } });
        return (await answer.json()).events.map((event) => event.data);
      };
      assert.deepEqual(await seen({ id: "ann, the one" }), ["all", "ann"], key);
      assert.deepEqual(await seen({ id: "bob", tags: ["staff"] }), ["all", "staff", "not ann"], key);
      assert.deepEqual(await seen({ id: "zoe", tags: ["owners, all of them"] }), ["all", "staff", "not ann"], key);
      assert.deepEqual(await seen({ id: "root", can: ["subscribe", "manage"] }), ["all", "staff", "ann", "not ann", "nobody"], key);
    }
    const reader = await openPublisher({ url: cluster.url, token: mint({ prefix: "", can: ["subscribe"] }) });
    await assert.rejects(reader.publish("http", 1), { tag: "Forbidden", status: 403 });
    await reader.close();
  } finally {
    await Promise.all(Object.values(publishers).map((publisher) => publisher.close()));
    await cluster.stop();
  }
});

for (const way of ["ZeroMQ", "HTTP"]) test(`by ${way}: killed shards, routers and gateways lose nothing that was acknowledged, and double nothing`, async () => {
  const cluster = await startCluster({ shards: 2, routers: 2, yaml: "types: { events: { retention: { count: 100000 } } }\n" });
  const publisher = await openPublisher(way === "HTTP" ? { url: cluster.url, timeout: 60_000, concurrency: 64 }
    : { routers: cluster.routerEndpoints, cluster: "test", timeout: 60_000 });
  const keys = 100, each = way === "HTTP" ? 20 : 100;
  const acked = new Map(), problems = [];
  const rounds = 8;
  let over = false, killed = 0;
  try {
    const killing = (async () => {
      const victims = way === "HTTP" ? ["shards", "gateways"] : ["shards", "routers"];
      for (; !over && killed < rounds; ) {
        const list = cluster[victims[killed % 2]];
        const victim = list[(killed >> 1) % list.length];
        await victim.kill();
        killed++;
        await victim.start();
      }
    })();
    await Promise.all(Array.from({ length: keys }, async (_, k) => {
      const key = `kill:${k}`;
      for (let i = 0; i < each; i += 5) { // five at a time, so that go-back-N has something to go back over
        await waitUntil("the next one is killed", () => killed >= Math.floor(i / each * rounds));
        await Promise.all([0, 1, 2, 3, 4].map((n) => publisher.publish(key, { i: i + n })
          .then(({ id }) => acked.set(`${key}/${i + n}`, id), (error) => problems.push(error))));
      }
    }));
    over = true;
    await killing;
    assert.deepEqual(problems, []);
    assert.equal(acked.size, keys * each);
    assert.equal(killed, rounds);
    for (let k = 0; k < keys; k++) {
      const events = await logOf(cluster, `kill:${k}`);
      assert.deepEqual(events.map((event) => event.data.i), Array.from({ length: each }, (_, i) => i));
      for (const event of events) assert.equal(acked.get(`kill:${k}/${event.data.i}`), event.id);
    }
    assert.ok(publisher.stats().resent > 0, "something had to be sent again");
  } finally {
    over = true;
    await publisher.close();
    await cluster.stop();
  }
});

test("another router takes over, and a router that comes back is used again", async () => {
  const cluster = await startCluster({ routers: 2 });
  const publisher = await openPublisher({ routers: cluster.routerEndpoints, cluster: "test" });
  try {
    await publisher.publish("k", 0);
    for (let round = 0; round < 2; round++) {
      const { router } = publisher.stats();
      const victim = cluster.routers[cluster.routerEndpoints.indexOf(router)];
      await victim.kill();
      await publisher.publish("k", round);
      assert.notEqual(publisher.stats().router, router);
      await victim.start();
    }
  } finally {
    await publisher.close();
    await cluster.stop();
  }
});

test("over tcp with CURVE; another key, or none, is told and stores nothing", async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "stoa-js-"));
  stoa("keygen", path.join(dir, "cluster"));
  stoa("keygen", path.join(dir, "own"));
  const secretOf = (name) => readFileSync(path.join(dir, name), "utf8").trim();
  const { curveKeys } = await import("../dist/server/curve.js");
  const serverKey = curveKeys({ secretKey: secretOf("cluster") }).publicKey;
  const own = curveKeys({ secretKey: secretOf("own") }).publicKey;
  const cluster = await startCluster({ tcp: true,
    yaml: `  curve: { secret_file: "${path.join(dir, "cluster")}", required: true, allowed: ["${own}"] }\n` });
  const routers = cluster.routerEndpoints;
  try {
    for (const curve of [{ secretKey: secretOf("cluster") }, { secretKey: secretOf("own"), serverKey }]) {
      const publisher = await openPublisher({ routers, cluster: "test", curve });
      assert.match((await publisher.publish("k", 1)).id, /-\d+$/);
      await publisher.close();
    }
    stoa("keygen", path.join(dir, "stranger"));
    for (const curve of [{ secretKey: secretOf("stranger"), serverKey }, undefined]) {
      const lines = [];
      const publisher = await openPublisher({ routers, cluster: "test", curve, onLog: (line) => lines.push(line) });
      const refused = assert.rejects(publisher.publish("k", 2, { timeout: 20_000 }), { tag: "Closed" });
      await waitUntil("the refusal is told", () => lines.length > 0);
      assert.ok(!lines.join().includes(secretOf("stranger")));
      await publisher.close(0);
      await refused;
    }
    assert.deepEqual((await logOf(cluster, "k")).map((event) => event.data), [1, 1]);
  } finally {
    await cluster.stop();
    rmSync(dir, { recursive: true });
  }
});

test("a cluster of another name is refused, and the log line says so", async () => {
  const cluster = await startCluster({ gateways: 0 });
  const lines = [];
  const publisher = await openPublisher({ routers: cluster.routerEndpoints, onLog: (line) => lines.push(line) });
  try {
    await waitUntil("the refusal is told", () => lines.some((line) => /foreign cluster/.test(line)));
  } finally {
    await publisher.close();
    await cluster.stop();
  }
});

test("options that break a rule are refused by name", async () => {
  const refused = (options, words) => assert.rejects(openPublisher(options), (error) => error.tag === "BadRequest" && words.test(error.message));
  await refused({}, /routers .* or url/);
  await refused({ routers: "a:1", url: "http://x" }, /not both/);
  await refused({ url: "ftp://x" }, /a gateway is wanted/);
  await refused({ url: "x" }, /a gateway is wanted/);
  await refused({ routers: "a:1", timeout: 0 }, /timeout/);
  await refused({ routers: "a:1", maxQueue: { events: "many" } }, /maxQueue.events/);
  await refused({ routers: "a:1", name: "n".repeat(65) }, /name/);
  await refused({ routers: "a:1", cluster: "" }, /cluster/);
});

test("without the package zeromq the error says what to install; HTTP needs none", () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "stoa-js-"));
  try {
    cpSync(path.resolve(import.meta.dirname, "../dist"), path.join(dir, "dist"), { recursive: true });
    writeFileSync(path.join(dir, "package.json"), '{ "type": "module" }');
    writeFileSync(path.join(dir, "try.mjs"), `import { openPublisher } from "./dist/server/index.js";
      await openPublisher({ url: "http://127.0.0.1:8080" });
      await openPublisher({ routers: "a:1" }).catch((error) => console.log(error.tag, error.message));\n`);
    const ran = spawnSync(process.execPath, ["try.mjs"], { cwd: dir, encoding: "utf8" });
    assert.match(ran.stdout, /^MissingPackage .*npm install zeromq@6/, ran.stderr);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("an idle publisher does not keep what it has no need of", async () => {
  // a process that closes its publisher ends by itself
  const cluster = await startCluster();
  try {
    const script = `import { openPublisher } from ${JSON.stringify(path.resolve(import.meta.dirname, "../dist/server/index.js"))};
      for (const options of [{ routers: ${JSON.stringify(cluster.routerEndpoints)}, cluster: "test" }, { url: "${cluster.url}" }]) {
        const publisher = await openPublisher(options);
        await publisher.publish("k", 1);
        await publisher.close();
      }
      console.log("done");`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    let printed = "";
    child.stdout.on("data", (bytes) => { printed += bytes; });
    const code = await new Promise((resolve) => child.once("exit", resolve));
    assert.equal(printed.trim(), "done");
    assert.equal(code, 0);
  } finally {
    await cluster.stop();
  }
});
