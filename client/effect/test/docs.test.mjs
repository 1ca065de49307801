/**
 * docs/clients/durable-effect.md, followed to the letter: its files are written, started and run.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { WebSocket } from "ws";

import { root, startCluster, waitUntil } from "../../js/test/cluster.mjs";

const page = readFileSync(path.join(root, "docs/clients/durable-effect.md"), "utf8");
/** The fenced block of that file name, or of that language. */
const block = (name) => page.match(new RegExp(`^\`\`\`(?:\\w+ )?${name}\\n([^]*?)^\`\`\``, "m"))[1];

test("the page's example runs and prints what it says", async () => {
  const cluster = await startCluster({ yaml: block("stoa.yaml"), files: { "chat.lua": block("chat.lua") } });
  // within the package, so that @stoa/effect is found
  const dir = mkdtempSync(path.join(import.meta.dirname, "page-"));
  try {
    writeFileSync(path.join(dir, "backend.mjs"), block("backend.mjs"));
    const ann = new WebSocket(`${cluster.url.replace("http", "ws")}/ws/chat/lobby?userId=ann`);
    const frames = [];
    ann.on("message", (bytes) => frames.push(JSON.parse(bytes)._tag));
    await new Promise((resolve, reject) => ann.once("open", resolve).once("error", reject));
    const child = spawn(process.execPath, ["backend.mjs", cluster.url], { cwd: dir, stdio: ["ignore", "pipe", "inherit"] });
    let printed = "";
    child.stdout.on("data", (bytes) => { printed += bytes; });
    assert.equal(await new Promise((resolve) => child.once("exit", resolve)), 0);
    const wanted = block("text").trim().split("…").map((words) => words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("[^]*?");
    assert.match(printed.trim(), new RegExp(`^${wanted}$`));
    await waitUntil("ann's frames", () => frames.length === 3);
    assert.deepEqual(frames, ["Message", "Notice", "Idle"]);
    ann.close();
  } finally {
    rmSync(dir, { recursive: true });
    await cluster.stop();
  }
});
