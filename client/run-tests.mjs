/**
 * Runs the test/**.test.mjs of a package (or those whose name contains an argument) with node:test, one file after the
 * other, and ends with "N passed, N failed". The programs are those of $STOA_BIN (build/bin).
 */
import { readdirSync } from "node:fs";
import path from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";

/** `folder`: the package's test/; `timeout`: of one file, milliseconds. */
export function runTests(folder, timeout) {
  process.chdir(path.join(folder, "..")); // run from anywhere
  const words = process.argv.slice(2);
  const files = readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith(".test.mjs") && (!words.length || words.some((word) => name.includes(word))))
    .sort().map((name) => path.join(folder, name));
  let passed = 0, failed = 0;
  const tests = run({ files, concurrency: 1, timeout });
  const counted = (event) => event.details?.type !== "suite";
  tests.on("test:pass", (event) => { if (counted(event)) passed++; });
  tests.on("test:fail", (event) => { if (counted(event)) failed++; });
  tests.compose(spec).pipe(process.stdout);
  tests.on("end", () => setImmediate(() => {
    console.log(`${passed} passed, ${failed} failed`);
    process.exitCode = failed || !passed ? 1 : 0;
  }));
}
