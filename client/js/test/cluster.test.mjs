/** The tests' own cluster: starts, survives a killed shard, stops in order. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startCluster, stoa } from "./cluster.mjs";

test("a cluster of the tests", async () => {
  const cluster = await startCluster({ gateways: 2 });
  try {
    const id = await cluster.publish("a", { n: 1 });
    await cluster.shards[0].kill();
    await cluster.shards[0].start();
    const log = stoa("--server", cluster.gateways[1].url, "log", "a");
    assert.equal(log, `${id}\t{"n":1}\n`);
  } finally {
    await cluster.stop();
  }
});
