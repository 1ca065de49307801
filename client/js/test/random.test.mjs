/**
 * Many readers of a few keys that begin anywhere, end anywhere, dawdle and share, while connections are cut, upgrades
 * refused, gateways and shards killed. What each saw must be a stretch of the log without a gap or a duplicate. The dice
 * are those of $SEED, which a failure tells.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Stoa } from "../dist/index.js";
import { startCluster } from "./cluster.mjs";
import { startProxy } from "./proxy.mjs";

const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
const MS = Number(process.env.MS ?? 8_000);

/** Dice: xorshift. */
function dice(seed) {
  let state = (seed ^ 0x9e3779b9) | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

test(`random readers of a random world (SEED=${SEED})`, async () => {
  const roll = dice(SEED);
  const cluster = await startCluster({ shards: 2, yaml: "types: { events: { retention: { count: 1000000, bytes: 1GiB } } }\n" });
  const proxy = await startProxy(cluster.port);
  const keys = ["a", "b", "c"];
  const clients = Array.from({ length: 3 }, () => new Stoa(proxy.url, { reconnect: { min: 5, max: 100 }, idle: 20 }));
  const publisher = new Stoa(proxy.url, { reconnect: { min: 5, max: 100 } });
  const sent = new Map(keys.map((key) => [key, 0]));
  const end = Date.now() + MS;
  let over = false;

  const publishing = keys.map(async (key) => {
    while (Date.now() < end) {
      const count = 1 + roll(20), from = sent.get(key);
      sent.set(key, from + count);
      await publisher.publishBatch(key, Array.from({ length: count }, (_, i) => ({ n: from + i + 1 })), { timeout: 60_000 });
      await sleep(roll(20));
    }
  });
  let readers = 0;
  const reading = Array.from({ length: 8 }, async () => {
    while (Date.now() < end) {
      readers++;
      const key = keys[roll(3)], stoa = clients[roll(3)];
      const kind = roll(3), limit = 1 + roll(300), slow = roll(4) === 0;
      const log = kind === 1 ? await publisher.log(key, { limit: 1000, timeout: 60_000 }) : undefined;
      const middle = log?.events[roll(Math.max(1, log.events.length))];
      const options = { buffer: slow ? 10 : 1000, signal: AbortSignal.timeout(1000 + roll(3000)) };
      if (kind === 0) options.replay = "all";
      else if (middle) options.after = middle.id;
      const seen = [];
      try {
        for await (const event of stoa.subscribe(key, options)) {
          seen.push(event.data.n);
          if (seen.length === limit) break;
          if (slow && roll(10) === 0) await sleep(roll(10));
        }
      } catch (error) {
        if (error !== options.signal.reason) throw error;
      }
      if (seen.length === 0) continue;
      if (kind === 0) assert.equal(seen[0], 1);
      else if (middle) assert.equal(seen[0], middle.data.n + 1);
      for (let i = 1; i < seen.length; i++)
        assert.equal(seen[i], seen[i - 1] + 1, `${key}: ${seen[i - 1]} is followed by ${seen[i]} (${JSON.stringify({ kind, slow, at: i })})`);
    }
  });
  const harm = (async () => {
    while (!over) {
      await sleep(50 + roll(400));
      const what = roll(10);
      if (what < 6) proxy.cut();
      else if (what === 6) proxy.refuseUpgrades = !proxy.refuseUpgrades;
      else {
        const victim = what === 7 ? cluster.gateways[0] : cluster.shards[roll(2)];
        await victim.kill();
        await victim.start();
      }
    }
  })();
  try {
    await Promise.all([...publishing, ...reading]);
    assert.ok(readers > 8);
    for (const key of keys) {
      const log = [];
      for await (const event of publisher.history(key)) log.push(event.data.n);
      assert.deepEqual(log, Array.from({ length: sent.get(key) }, (_, n) => n + 1), key);
    }
  } finally {
    over = true;
    await harm;
    for (const stoa of [...clients, publisher]) stoa.close();
    await proxy.close();
    await cluster.stop();
  }
});
