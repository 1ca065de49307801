/** The example of docs/clients/orpc.md does what the page says. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { freePort, startCluster, waitUntil } from "../../../client/js/test/cluster.mjs";

const here = import.meta.dirname;
const page = readFileSync(path.join(here, "../../../docs/clients/orpc.md"), "utf8");
const blocks = Object.fromEntries([...page.matchAll(/^```\w+ (\S+)\n([\s\S]*?)^```$/gm)].map(([, name, text]) => [name, text]));

/** Runs one of the page's programs in `dir`; what it printed. */
function run(dir, name, env) {
  const child = spawn(process.execPath, [path.join(dir, name)], { env: { ...process.env, ...env } });
  const out = [];
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => out.push(bytes));
  const ended = new Promise((resolve) => child.on("exit", (code) => resolve([code, Buffer.concat(out).toString()])));
  return { child, ended };
}

test("the page's example", async () => {
  process.env.STOA_ORPC_SIGNING_KEY = "the key of the page";
  const cluster = await startCluster({ files: { "orders.lua": blocks["orders.lua"] }, yaml: blocks["stoa.yaml"] });
  const dir = mkdtempSync(path.join(here, ".page-")); // beside node_modules
  let server;
  try {
    for (const name of ["server.mjs", "client.mjs"]) writeFileSync(path.join(dir, name), blocks[name]);
    const port = await freePort(), app = `http://127.0.0.1:${port}`;
    server = run(dir, "server.mjs", { PORT: String(port), STOA_SERVER: cluster.url });
    await waitUntil("the server listens", () => fetch(`${app}/token`).then((answer) => answer.ok, () => false));
    const client = run(dir, "client.mjs", { APP: app, STOA_SERVER: cluster.url });
    const [code, printed] = await client.ended;
    assert.equal(printed, blocks.output);
    assert.equal(code, 0);
  } finally {
    server?.child.kill();
    rmSync(dir, { recursive: true, force: true });
    await cluster.stop();
  }
});
