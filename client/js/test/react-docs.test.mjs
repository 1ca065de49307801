/** What docs/clients/react.md shows is compiled under strict, bundled, and used in Chromium against real processes. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { root, startCluster } from "./cluster.mjs";

const here = import.meta.dirname;
const text = readFileSync(path.join(root, "docs/clients/react.md"), "utf8");
const files = Object.fromEntries([...text.matchAll(/^```tsx (\S+)\n(.*?)^```$/gms)].map(([, name, body]) => [name, body]));

const bundle = async (contents) => (await build({
  stdin: { contents, loader: "tsx", resolveDir: here }, bundle: true, write: false, minify: true, format: "esm", target: "es2022",
  jsx: "automatic", define: { "process.env.NODE_ENV": '"production"' }, external: contents.includes("createRoot") ? [] : ["react"],
})).outputFiles[0].text;
const html = async (name) => `<!doctype html><html lang="en"><title>${name}</title><link rel="icon" href="data:,"><div id="root"></div>` +
  `<script type="module">${(await bundle(files[name])).replaceAll("</script", "<\\/script")}</script></html>`;

let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
});
after(() => browser?.close());

/** Opens the page `url` in `count` tabs that know nothing of each other. */
const open = (url, count) => Promise.all(Array.from({ length: count }, async () => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(url);
  return page;
}));

test("every example compiles under strict", async () => {
  assert.deepEqual(Object.keys(files), ["app.tsx", "chat.tsx"]);
  const place = mkdtempSync(path.join(here, "react/docs-")); // beneath node_modules and the tsconfig
  try {
    for (const [name, body] of Object.entries(files)) writeFileSync(path.join(place, name), body);
    writeFileSync(path.join(place, "tsconfig.json"), JSON.stringify({ extends: "../tsconfig.json", include: ["*.tsx"] }));
    const compiler = path.join(root, "client/node_modules/typescript/bin/tsc");
    await promisify(execFile)(process.execPath, [compiler, "-p", place]).catch(({ stdout }) => assert.fail(stdout));
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
});

test("app.tsx: a bar that moves, notes in every tab", async () => {
  const cluster = await startCluster({ yaml: "gateway: { page: page.html }\n", files: { "page.html": await html("app.tsx") } });
  try {
    const tell = (type, data) => cluster.publish("u1", { type: "upload_event", payload: { type, data: { id: "u1", ...data } } });
    await tell("upload-started", { size: 400 });
    await tell("upload-progress", { progress: 100, total: 400 });
    const [one, two] = await open(`${cluster.url}/?upload=u1`, 2);
    for (const page of [one, two]) await page.getByText("100 of 400 bytes").waitFor();
    await one.fill("input", "looks good");
    await one.click("button");
    for (const page of [one, two]) await page.getByText("me: looks good").waitFor();
    await tell("upload-failed", { error: "disk full" });
    for (const page of [one, two]) await page.getByRole("alert").getByText("disk full").waitFor();
    assert.equal(await two.locator("progress").evaluate((bar) => bar.value), 0.25);
    assert.equal(await two.getByRole("status").textContent(), "live");
    for (const page of [one, two]) await page.context().close();
  } finally {
    await cluster.stop();
  }
});

test("chat.tsx: a room's events, who is there, its state, a message and a method", async () => {
  const cluster = await startCluster({
    files: { "page.html": await html("chat.tsx"), "chat.lua": readFileSync(path.join(root, "examples/chat/chat.lua"), "utf8") },
    yaml: "gateway: { page: page.html }\ntypes: { chat: { handler: chat.lua, presence: true } }\n",
  });
  try {
    const [one, two] = await open(cluster.url, 2);
    for (const page of [one, two]) await page.getByText("live, 1 here").waitFor();
    await one.fill("input", "hello");
    await one.getByText("Say").click();
    for (const page of [one, two]) await page.getByText("anon: hello").waitFor();
    await two.getByText("Tea").click();
    for (const page of [one, two]) await page.getByText("system: the kettle is on").waitFor();
    for (const page of [one, two]) await page.getByText("2 messages so far").waitFor();
    for (const page of [one, two]) await page.context().close();
  } finally {
    await cluster.stop();
  }
});

test("it is as small as the page says", async () => {
  const script = await bundle(`export * from "@stoa/client/react";`);
  const told = Number(text.match(/(\d+) kB of script, compressed/)[1]);
  const size = Math.ceil(gzipSync(script).length / 1000);
  assert.ok(size <= told, `${size} kB`);
});
