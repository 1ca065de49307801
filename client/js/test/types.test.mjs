/** The types as a strict program sees them: what must not compile does not. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";

test("contracts are typed", () => {
  const ran = spawnSync("npx", ["tsc", "-p", path.join(import.meta.dirname, "types")], { encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stdout);
});
