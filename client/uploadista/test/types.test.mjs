// test/types/server.ts compiles under strict, against what is built.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { test } from "node:test";

test("a server in TypeScript compiles, and what is wrong does not", () => {
  const compiler = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  const ran = spawnSync(process.execPath, [compiler, "-p", path.join(import.meta.dirname, "types")], { encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stdout + ran.stderr);
});
