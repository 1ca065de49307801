/** docs/clients/javascript.md and README.md, followed to the letter: programs are run, snippets are compiled. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { freePort, root, secret, startCluster, waitUntil } from "./cluster.mjs";

const page = readFileSync(path.join(root, "docs/clients/javascript.md"), "utf8");
const readme = readFileSync(path.join(root, "client/js/README.md"), "utf8");
const block = (name) => page.match(new RegExp(`^\`\`\`(?:\\w+ )?${name}\\n([^]*?)^\`\`\``, "m"))[1];
/** A folder within the package, so that @stoa/client is found, with those files of the page. */
function folder(...names) {
  const dir = mkdtempSync(path.join(import.meta.dirname, "page-"));
  for (const name of names) writeFileSync(path.join(dir, name), block(name));
  return dir;
}
function run(dir, ...words) {
  const child = spawn(process.execPath, words, { cwd: dir, stdio: ["ignore", "pipe", "inherit"] });
  child.printed = "";
  child.stdout.on("data", (bytes) => { child.printed += bytes; });
  child.ended = new Promise((resolve) => child.once("exit", resolve));
  return child;
}

test("the first example runs and prints what it says", async () => {
  const cluster = await startCluster();
  const dir = folder("progress.mjs");
  try {
    const child = run(dir, "progress.mjs", cluster.url);
    assert.equal(await child.ended, 0);
    assert.deepEqual(child.printed.trim().split("\n").map((line) => line.trim()), block("text").trim().split("\n"));
  } finally {
    rmSync(dir, { recursive: true });
    await cluster.stop();
  }
});

test("a backend and a viewer, and a gateway that is killed meanwhile", async () => {
  const cluster = await startCluster({ yaml: block("stoa.yaml"), files: { secret } });
  const dir = folder("backend.mjs", "viewer.mjs");
  writeFileSync(path.join(dir, "secret"), secret);
  const children = [];
  try {
    const at = await freePort();
    children.push(run(dir, "backend.mjs", cluster.url, String(at)));
    const say = (status) => fetch(`http://127.0.0.1:${at}/status?is=${status}`, { method: "POST" }).then((answer) => answer.ok, () => false);
    await waitUntil("the backend listens", () => say("ordered"));
    const viewer = run(dir, "viewer.mjs", cluster.url, `http://127.0.0.1:${at}`);
    children.push(viewer);
    await waitUntil("the viewer sees it", () => viewer.printed.includes("ordered"));
    await cluster.gateways[0].kill();
    const paid = say("paid"); // tried again until the gateway is back
    await cluster.gateways[0].start();
    assert.ok(await paid);
    assert.ok(await say("delivered"));
    assert.equal(await viewer.ended, 0);
    assert.deepEqual(viewer.printed.trim().split("\n"), ["ordered", "paid", "delivered"]);
  } finally {
    for (const child of children) child.kill();
    rmSync(dir, { recursive: true });
    await cluster.stop();
  }
});

test("the snippets compile in a strict program", () => {
  const dir = folder();
  try {
    const snippets = [page, readme].flatMap((text) => [...text.matchAll(/^```ts\n([^]*?)^```/gm)].map((found) => found[1]));
    assert.ok(snippets.length > 5);
    for (const [i, text] of snippets.entries()) {
      const begin = (text.includes("from \"@stoa/client\"") ? "" : "import { Stoa } from \"@stoa/client\";\n") +
        (text.includes("new Stoa(") ? "" : "declare const stoa: Stoa;\n");
      writeFileSync(path.join(dir, `snippet${i}.ts`), `${begin}${text}\nexport {};\n`);
    }
    writeFileSync(path.join(dir, "tsconfig.json"), JSON.stringify({
      extends: "../../../tsconfig.base.json", compilerOptions: { noEmit: true, noUnusedLocals: false }, include: ["."],
    }));
    const ran = spawnSync("npx", ["tsc", "-p", dir], { encoding: "utf8" });
    assert.equal(ran.status, 0, ran.stdout);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
