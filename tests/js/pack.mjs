/**
 * What `npm pack` makes of each package: nothing but the built code, README.md and package.json; and it compiles in a
 * strict program of its own, with nothing else installed than what the package asks for.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

const client = path.resolve(import.meta.dirname, "../../client");
const packages = process.argv.slice(2);
const dir = mkdtempSync(path.join(os.tmpdir(), "stoa-pack-"));
let passed = 0, failed = 0;

function run(command, words, cwd) {
  const ran = spawnSync(command, words, { cwd, encoding: "utf8" });
  assert.equal(ran.status, 0, `${command} ${words.join(" ")}: ${ran.stdout}${ran.stderr}`);
  return ran.stdout;
}
function check(what, body) {
  try {
    body();
    passed++;
    console.log(`ok      ${what}`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${what}\n${error.message}`);
  }
}

/** A program that uses `entries` of packed packages and has `others` from the workspace installed. */
function consumer(name, { entries, others, source, types = [], dom = true }) {
  const at = path.join(dir, name);
  mkdirSync(path.join(at, "node_modules/@stoa"), { recursive: true });
  for (const entry of entries) symlinkSync(path.join(dir, "unpacked", entry, "package"), path.join(at, "node_modules/@stoa", entry));
  for (const other of others) {
    const target = path.join(at, "node_modules", other);
    mkdirSync(path.dirname(target), { recursive: true });
    symlinkSync(realpathSync(path.join(client, "node_modules", other)), target);
  }
  writeFileSync(path.join(at, "package.json"), JSON.stringify({ name, private: true, type: "module" }));
  writeFileSync(path.join(at, "program.tsx"), source);
  writeFileSync(path.join(at, "tsconfig.json"), JSON.stringify({
    compilerOptions: {
      target: "ES2022", module: "NodeNext", moduleResolution: "NodeNext", lib: dom ? ["ES2022", "DOM", "DOM.Iterable"] : ["ES2022"],
      strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: false, noEmit: true,
      jsx: "react-jsx", types, preserveSymlinks: true,
    },
    files: ["program.tsx"],
  }));
  run(path.join(client, "node_modules/.bin/tsc"), ["-p", at], at);
}

const names = new Map();
try {
  for (const folder of packages) {
    check(`${folder}: only what belongs there is packed`, () => {
      const [packed] = JSON.parse(run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", dir], path.join(client, folder)));
      const files = packed.files.map((file) => file.path);
      const strange = files.filter((file) => !/^(package\.json|README\.md|dist\/[a-z0-9/-]+\.(js|js\.map|d\.ts))$/.test(file));
      assert.deepEqual(strange, []);
      assert.deepEqual(files.filter((file) => /test|fixture|bench/.test(file)), []);
      for (const file of ["package.json", "README.md", "dist/index.js", "dist/index.d.ts"]) assert.ok(files.includes(file), `${file} is missing`);
      const sources = (file) => [".ts", ".tsx"].map((end) => path.join(client, folder, file.replace(/^dist/, "src").replace(/\.js$/, end)));
      const stale = files.filter((file) => file.endsWith(".js") && !sources(file).some(existsSync));
      assert.deepEqual(stale, [], "has no source any more");
      const short = packed.name.replace(/^@stoa\//, "");
      const unpacked = path.join(dir, "unpacked", short);
      mkdirSync(unpacked, { recursive: true });
      run("tar", ["xzf", path.join(dir, packed.filename), "-C", unpacked], dir);
      const manifest = JSON.parse(readFileSync(path.join(unpacked, "package/package.json"), "utf8"));
      assert.deepEqual(Object.keys(manifest.dependencies ?? {}).filter((name) => !name.startsWith("@stoa/")), [], "no runtime dependencies");
      for (const entry of Object.values(manifest.exports))
        for (const file of Object.values(entry)) assert.ok(files.includes(file.slice(2)), `exports name ${file}`);
      names.set(folder, short);
    });
  }
  check("@stoa/client compiles in a strict program with nothing else installed", () => consumer("plain", {
    entries: ["client"], others: [], source: `import { Stoa, MissedError, StoaError, type Event } from "@stoa/client";
const stoa = new Stoa("https://example.com", { token: async () => "t" });
export async function main(): Promise<void> {
  try {
    for await (const event of stoa.subscribe<{ n: number }>("key", { replay: "all" })) { const one: Event<{ n: number }> = event; one.data.n.toFixed(); }
  } catch (error) {
    if (error instanceof MissedError) error.from.trim();
    if (error instanceof StoaError) error.status.toFixed();
  }
}
` }));
  check("@stoa/client/react compiles beside React", () => consumer("react", {
    entries: ["client"], others: ["react", "react-dom", "@types/react", "@types/react-dom", "csstype"],
    source: `import { useEvents } from "@stoa/client/react";
export const hook = useEvents;
` }));
  check("@stoa/client/server compiles beside Node's types", () => consumer("server", {
    entries: ["client"], others: ["@types/node", "undici-types"], types: ["node"],
    source: `import * as server from "@stoa/client/server";
export const all = server;
` }));
  if (names.has("uploadista")) check("@stoa/uploadista compiles beside effect", () => consumer("uploadista", {
    entries: ["client", "uploadista"], others: ["effect", "@standard-schema/spec", "fast-check", "pure-rand", "@types/node", "undici-types"], types: ["node"],
    source: `import * as uploadista from "@stoa/uploadista";
export const all = uploadista;
` }));
  if (names.has("effect")) check("@stoa/effect compiles beside effect", () => consumer("effects", {
    entries: ["client", "effect"], others: ["effect", "@standard-schema/spec", "fast-check", "pure-rand", "@types/node", "undici-types"], types: ["node"],
    source: `import * as rooms from "@stoa/effect";
export const all = rooms;
` }));
  check("the packed code runs in Node", () => {
    const at = path.join(dir, "plain");
    writeFileSync(path.join(at, "program.mjs"), `import { Stoa } from "@stoa/client";
const stoa = new Stoa("http://127.0.0.1:12767", { reconnect: { min: 1, max: 2 } });
await stoa.publish("k", 1, { timeout: 2000 }).then(() => process.exit(1), (error) => process.exit(error.tag === "Unreachable" ? 0 : 1));
`);
    run(process.execPath, ["--preserve-symlinks", "program.mjs"], at);
  });
} finally {
  rmSync(dir, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
