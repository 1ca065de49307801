/**
 * How many events a second the client takes in Node.
 *   node bench/receive.mjs [--events N]
 * replay: N retained events of one key, over stoa.v1, iterated and by a handler; live: batches published meanwhile.
 * frames: the same frames from a bare server in another process, so that the gateway is no limit.
 */
import { spawn } from "node:child_process";
import { startCluster } from "../test/cluster.mjs";
import { Stoa } from "../dist/index.js";

const EVENTS = process.argv.includes("--events") ? Number(process.argv[process.argv.indexOf("--events") + 1]) : 200_000;
const BATCH = 250;
const payload = (n) => ({ type: "progress", upload: "abc123", bytes: n * 65536, total: 1048576000 });

if (process.argv[2] === "--serve") {
  const { WebSocketServer } = await import("ws");
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "stoa.v1" }, () => process.send(server.address().port));
  server.on("connection", (socket) => socket.on("message", (text) => {
    const { sub } = JSON.parse(text);
    if (!sub) return;
    socket.send(JSON.stringify({ sub, status: "resumed", head: `e-${EVENTS}` }));
    let n = 0;
    const some = () => { // as fast as they are taken
      while (n < EVENTS && socket.bufferedAmount < 1 << 20) {
        n++;
        socket.send(JSON.stringify({ key: sub, id: `e-${n}`, ts: 1700000000000 + n, data: payload(n) }));
      }
      if (n < EVENTS) setImmediate(some);
    };
    some();
  }));
} else {
  const report = (what, count, since, cpu) => {
    const seconds = (performance.now() - since) / 1000, used = process.cpuUsage(cpu);
    console.log(`${what.padEnd(24)} ${Math.round(count / seconds)} events/s (${((used.user + used.system) / count).toFixed(2)} us of CPU each)`);
  };
  const iterate = async (what, stoa, key, options, count) => {
    const since = performance.now(), cpu = process.cpuUsage();
    let n = 0;
    for await (const event of stoa.subscribe(key, options)) if (++n === count || event.data.bytes < 0) break;
    report(what, count, since, cpu);
  };
  const handle = async (what, stoa, key, options, count) => {
    const since = performance.now(), cpu = process.cpuUsage();
    let n = 0;
    await new Promise((resolve) => stoa.subscribe(key, options, () => { if (++n === count) resolve(); }));
    report(what, count, since, cpu);
  };

  const server = spawn(process.execPath, [import.meta.filename, "--serve", "--events", String(EVENTS)], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const port = await new Promise((resolve) => server.once("message", resolve));
  for (let round = 0; round < 2; round++) {
    const bare = new Stoa(`http://127.0.0.1:${port}`, { buffer: EVENTS + 1, bufferBytes: 1e9 });
    await iterate("frames, iterated", bare, "a", { replay: "all" }, EVENTS);
    await handle("frames, handler", bare, "b", { replay: "all" }, EVENTS);
    bare.close();
  }
  server.kill();

  const cluster = await startCluster({ yaml: "types: { events: { retention: { age: 1h, count: 2000000, bytes: 1GiB } } }\n" });
  try {
    const stoa = new Stoa(cluster.url, { buffer: EVENTS + 1, bufferBytes: 1e9 });
    const batches = Array.from({ length: Math.ceil(EVENTS / BATCH) }, (_, b) => Array.from({ length: BATCH }, (_, i) => payload(b * BATCH + i)));
    const count = batches.length * BATCH;
    let live;
    await new Promise((ready) => {
      live = handle("gateway, live", stoa, "bench", { onStatus: ready }, count);
    });
    const queue = [...batches];
    await Promise.all(Array.from({ length: 8 }, async () => {
      for (let batch = queue.shift(); batch; batch = queue.shift()) await stoa.publishBatch("bench", batch);
    }));
    await live;
    await iterate("gateway, replay iterated", stoa, "bench", { replay: "all" }, count);
    await handle("gateway, replay handler", stoa, "bench", { replay: "all" }, count);
    stoa.close();
  } finally {
    await cluster.stop();
  }
}
