// The example of docs/clients/uploadista.md, run as it stands there.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { root, startCluster } from "../../js/test/cluster.mjs";

test("the example of the documentation prints what it says", async () => {
  const page = readFileSync(path.join(root, "docs/clients/uploadista.md"), "utf8");
  const file = path.join(import.meta.dirname, `example-${process.pid}.mjs`); // where its imports are found
  const cluster = await startCluster();
  try {
    writeFileSync(file, page.match(/^```js\n([^]*?)^```$/m)[1]);
    const child = spawn(process.execPath, [file, cluster.url], { stdio: ["ignore", "pipe", "pipe"] });
    let out = "", errors = "";
    child.stdout.on("data", (part) => { out += part; });
    child.stderr.on("data", (part) => { errors += part; });
    assert.equal(await new Promise((resolve) => child.once("close", resolve)), 0, errors);
    assert.deepEqual(out.trim().split("\n").map((line) => line.trim()),
      ["subscribed", "connection", "upload-started", "upload-progress 300", "upload-complete"]);
  } finally {
    rmSync(file, { force: true });
    await cluster.stop();
  }
});
