/**
 * A cluster of real processes in a temporary directory, for the tests of every package under client/.
 * Every process is a child of the test and dies with it; readiness is asked of the monitor listener.
 *
 *   const cluster = await startCluster({ shards: 2, yaml: "types: …", files: { "room.lua": "…" } });
 *   cluster.url                                   // http://127.0.0.1:PORT of the first gateway
 *   await cluster.shards[0].kill();  await cluster.shards[0].start();     // also routers, gateways
 *   await cluster.stop();                         // fails when a process ended badly
 */
import { spawn, spawnSync } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";

export const root = path.resolve(import.meta.dirname, "../../..");
export const bin = path.resolve(process.env.STOA_BIN ?? path.join(root, "build/bin"));

// Below the range of ports that outgoing connections get; the name keeps it from other tests until this process ends.
const listening = (where) => new Promise((resolve) => {
  const server = createServer().once("error", () => resolve(null)).listen(where, () => resolve(server.unref()));
});
const take = async (port) => {
  if (!await listening({ path: `\0stoa-test-port-${port}` })) return false;
  const server = await listening({ port, host: "127.0.0.1" });
  return server !== null && new Promise((resolve) => { server.close(() => resolve(true)); });
};
/** The first of so many in a row. */
export async function freePort(count = 1) {
  for (;;) {
    const port = 12768 + Math.floor(Math.random() * 20000);
    let taken = 0;
    while (taken < count && await take(port + taken)) taken++;
    if (taken === count) return port;
  }
}

/** Asks until `condition` returns something true, which is returned; fails by name after `deadline` ms. */
export async function waitUntil(what, condition, deadline = 30_000) {
  const end = Date.now() + deadline;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${deadline} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The command line `stoa`; throws when it fails. Returns what it printed. */
export function stoa(...words) {
  const ran = spawnSync(path.join(bin, "stoa"), words, { encoding: "utf8", timeout: 60_000 });
  if (ran.status !== 0) throw new Error(`stoa ${words[0]} ended with ${ran.status}: ${ran.stderr}`);
  return ran.stdout;
}

const alive = new Set();
process.once("exit", () => { for (const child of alive) child.kill("SIGKILL"); });

class Process {
  constructor(cluster, name, words, monitor) {
    Object.assign(this, { name, words, monitor, dir: cluster.dir, log: path.join(cluster.dir, `${name}.log`) });
  }

  /** Starts it and waits until it is ready. */
  async start() {
    this.launch();
    await this.ready();
    return this;
  }

  launch() {
    const log = openSync(this.log, "a");
    this.child = spawn(this.words[0], this.words.slice(1), { cwd: this.dir, stdio: ["ignore", log, log] });
    closeSync(log);
    const child = this.child;
    alive.add(child);
    this.ended = new Promise((resolve) => {
      child.once("error", (error) => { alive.delete(child); resolve(error.message); });
      child.once("exit", (code, signal) => { alive.delete(child); resolve(signal ?? code); });
    });
  }

  async ready() {
    let over;
    this.ended.then((how) => { over = how; });
    await waitUntil(`${this.name} is ready`, async () => {
      if (over !== undefined) throw new Error(`${this.name} ended (${over}):\n${this.tail()}`);
      return fetch(`http://127.0.0.1:${this.monitor}/readyz`).then((answer) => answer.ok, () => false);
    });
  }

  /** Ends it at once, without a word to anybody. */
  async kill(signal = "SIGKILL") {
    this.child.kill(signal);
    return this.ended;
  }

  /** Ends it in order; the exit code. */
  async stop() {
    if (!this.child || !alive.has(this.child)) return 0;
    this.child.kill("SIGTERM");
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 75_000);
    const how = await this.ended;
    clearTimeout(timer);
    return how;
  }

  /** Sum of a metric over its labels. */
  async metric(name) {
    const text = await fetch(`http://127.0.0.1:${this.monitor}/metrics`).then((answer) => answer.text());
    return text.split("\n").filter((line) => line.split(/[{ ]/)[0] === name)
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }

  tail(lines = 20) {
    return existsSync(this.log) ? readFileSync(this.log, "utf8").split("\n").slice(-lines - 1).join("\n") : "";
  }
}

/** `yaml` follows the section `cluster` of the configuration; `files` are written beside it. `tcp`: no ipc links. */
export async function startCluster({ shards = 1, routers = 1, gateways = 1, yaml = "", files = {}, tcp = false, name = "test" } = {}) {
  const dir = mkdtempSync(path.join(os.tmpdir(), "stoa-js-"));
  const cluster = { dir, shards: [], routers: [], gateways: [], config: path.join(dir, "stoa.yaml") };
  mkdirSync(path.join(dir, "run"), { mode: 0o700 });
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
    writeFileSync(path.join(dir, name), text);
  }
  const place = async (role, i) => tcp ? `127.0.0.1:${await freePort(2)}` : `ipc://${dir}/run/${role}-${i}`;
  const places = (role, count) => Promise.all(Array.from({ length: count }, (_, i) => place(role, i)));
  const quoted = (list) => list.map((at) => JSON.stringify(at)).join(", ");
  const shardAt = await places("shard", shards), routerAt = await places("router", routers);
  cluster.routerEndpoints = routerAt;
  cluster.configure = (text) => writeFileSync(cluster.config,
    `cluster:\n  name: ${name}\n  routers: [${quoted(routerAt)}]\n  shards: [${quoted(shardAt)}]\n${text}`);
  cluster.configure(yaml);
  const add = async (role, index, ...words) => {
    const monitor = await freePort();
    const command = [path.join(bin, `stoa-${role}`), "--config", cluster.config, "--index", String(index),
      "--monitor", `127.0.0.1:${monitor}`, ...words];
    const process = new Process(cluster, `${role}-${index}`, command, monitor);
    cluster[`${role}s`].push(process);
    return process;
  };
  for (const [i, at] of shardAt.entries()) await add("shard", i, "--data", path.join(dir, `shard-${i}`), "--listen", at);
  for (let i = 0; i < routers; i++) await add("router", i);
  for (let i = 0; i < gateways; i++) {
    const port = await freePort();
    const gateway = await add("gateway", i, "--listen", `127.0.0.1:${port}`);
    Object.assign(gateway, { port, url: `http://127.0.0.1:${port}` });
  }
  const all = [...cluster.shards, ...cluster.routers, ...cluster.gateways];
  cluster.url = cluster.gateways[0]?.url;
  cluster.port = cluster.gateways[0]?.port;
  /** Publishes over HTTP, apart from the client under test; the id. */
  cluster.publish = async (key, data, { headers = {}, query = "" } = {}) => {
    const body = data instanceof Uint8Array || typeof data === "string" && headers["Content-Type"] ? data : JSON.stringify(data);
    const answer = await fetch(`${cluster.url}/publish?key=${encodeURIComponent(key)}${query}`, { method: "POST", body, headers });
    if (!answer.ok) throw new Error(`publish: ${answer.status} ${await answer.text()}`);
    return (await answer.json()).id;
  };
  cluster.stop = async () => {
    const bad = [];
    for (const process of all.toReversed?.() ?? [...all].reverse()) {
      const how = await process.stop();
      if (how !== 0 && how !== "SIGKILL") bad.push(`${process.name} ended with ${how}:\n${process.tail(40)}`);
    }
    rmSync(dir, { recursive: true, force: true });
    if (bad.length) throw new Error(bad.join("\n"));
  };
  try {
    for (const process of all) process.launch();
    for (const process of all) await process.ready();
  } catch (error) {
    for (const process of all) if (process.child) await process.kill();
    rmSync(dir, { recursive: true, force: true });
    throw error;
  }
  return cluster;
}

/** Secret of the tests' tokens, and the configuration that makes gateways ask for them. */
export const secret = randomBytes(32).toString("hex");
export const authYaml = `auth:\n  mode: token\n  keys: [ { kid: "test", alg: HS256, secret: "${secret}" } ]\n`;

/** A token (HS256). Without `exp` in the claims it holds for an hour. */
export function mint(claims, { key = secret, kid = "test" } = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const head = `${part({ alg: "HS256", typ: "JWT", kid })}.${part({ exp: Math.floor(Date.now() / 1000) + 3600, ...claims })}`;
  return `${head}.${createHmac("sha256", key).update(head).digest("base64url")}`;
}
