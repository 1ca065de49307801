/**
 * Types under `strict`: test/types.ts says what must compile and what must not.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { test } from "node:test";

test("the types accept and refuse what they should", () => {
  const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  const ran = spawnSync(process.execPath, [tsc, "-p", path.join(import.meta.dirname, "tsconfig.json")], { encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stdout);
});
