/**
 * docs/clients/node.md, followed to the letter.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { root, startCluster } from "./cluster.mjs";

const page = readFileSync(path.join(root, "docs/clients/node.md"), "utf8");
/** The fenced block of that file name, or of that language. */
const block = (name) => page.match(new RegExp(`^\`\`\`(?:\\w+ )?${name}\\n([^]*?)^\`\`\``, "m"))[1];

for (const way of ["--url", "--routers"]) test(`the page's example runs with ${way}`, async () => {
  const cluster = await startCluster();
  // within the package, so that @stoa/client is found
  const dir = mkdtempSync(path.join(import.meta.dirname, "page-"));
  try {
    writeFileSync(path.join(dir, "publish.mjs"), block("publish.mjs"));
    const words = way === "--url" ? [way, cluster.url] : [way, cluster.routerEndpoints[0], "test"];
    const child = spawn(process.execPath, ["publish.mjs", ...words], { cwd: dir, stdio: ["ignore", "pipe", "inherit"] });
    let printed = "";
    child.stdout.on("data", (bytes) => { printed += bytes; });
    assert.equal(await new Promise((resolve) => child.once("exit", resolve)), 0);
    const wanted = block("text").trim().split("…").map((words) => words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("[^]*?");
    assert.match(printed.trim(), new RegExp(`^${wanted}$`));
    const { events } = await (await fetch(`${cluster.url}/log?key=upload:abc123`)).json();
    assert.equal(events.length, 12);
    assert.deepEqual(events.map(({ data }) => data.percent ?? data.type), ["started", 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, "complete"]);
  } finally {
    rmSync(dir, { recursive: true });
    await cluster.stop();
  }
});
