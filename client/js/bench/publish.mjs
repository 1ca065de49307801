/**
 * How many events a second one Node process has acknowledged, by ZeroMQ and over HTTP, against a cluster of its own.
 *
 *   npm run build -w js && STOA_BIN=build/bin node client/js/bench/publish.mjs [--events N] [--keys N] [--size BYTES]
 */
import { parseArgs } from "node:util";

import { openPublisher } from "../dist/server/index.js";
import { startCluster } from "../test/cluster.mjs";

const { values } = parseArgs({ options: {
  events: { type: "string", default: "200000" }, keys: { type: "string", default: "100" },
  size: { type: "string", default: "100" }, shards: { type: "string", default: "2" },
} });
const keys = Array.from({ length: Number(values.keys) }, (_, i) => `bench:${i}`);
const payload = { kind: "progress", text: "x".repeat(Math.max(0, Number(values.size) - 30)) };

async function run(name, publisher, events) {
  await publisher.publish("bench:warm", 1);
  const before = process.cpuUsage();
  const begin = performance.now();
  for (let i = 0; i < events; i++)
    while (!publisher.tryPublish(keys[i % keys.length], payload)) await publisher.drained();
  await publisher.flush();
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(before);
  const { stored, resent } = publisher.stats();
  if (stored !== events + 1) throw new Error(`${stored} of ${events} stored`);
  const cpu = (user + system) / events;
  console.log(`${name}: ${Math.round(events / seconds)} events/s acknowledged, ${cpu.toFixed(1)} us of this process's CPU each, ` +
    `${resent} sent again, peak ${Math.round(process.resourceUsage().maxRSS / 1024)} MiB`);
}

const cluster = await startCluster({ shards: Number(values.shards) });
try {
  const zmq = await openPublisher({ routers: cluster.routerEndpoints, cluster: "test", maxQueue: { events: 20_000 } });
  await run("ZeroMQ", zmq, Number(values.events));
  await zmq.close();
  const http = await openPublisher({ url: cluster.url, concurrency: 64, maxQueue: { events: 20_000 } });
  await run("HTTP", http, Math.ceil(Number(values.events) / 20));
  await http.close();
} finally {
  await cluster.stop();
}
