// The demo as a person uses it: a real file dropped into a page in Chromium moves the bar in two tabs; the shards
// are killed with SIGKILL and the upload's connection is cut in the middle; a tab closed and opened again shows the truth.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { bin, free_port, launch, root, wire } from "./lib.mjs";

const shots = process.env.STOA_SCREENSHOTS;
const data = mkdtempSync(path.join(tmpdir(), "stoa-demo-"));
let passed = 0;
const ok = (name) => { passed++; console.log(`ok   ${name}`); };
const gateway = await free_port(), service = await free_port();
const line = await wire(service);
const page_url = `http://127.0.0.1:${gateway}/?upload=${encodeURIComponent(line.url)}`;
const up = spawnSync(path.join(bin, "stoa"), ["up", "-d", "--data", data, "--listen", `127.0.0.1:${gateway}`,
  "--page", path.join(root, "examples/upload/page.html"),
  "--with", `${path.join(bin, "stoa-upload")} --listen 127.0.0.1:${service} --directory uploads`], { encoding: "utf8", timeout: 120_000 });
assert.equal(up.status, 0, up.stderr + up.stdout);
let browser;
try {
  browser = await launch();
  const context = await browser.newContext({ viewport: { width: 900, height: 700 } });
  const open = async () => {
    const page = await context.newPage();
    await page.goto(page_url);
    await page.locator('#link[data-state="live"]').waitFor();
    return page;
  };
  const [one, two] = [await open(), await open()];
  ok("two tabs are live");

  // A name that fits no line is cut, and the page stays as wide as its window.
  const long = `${"a long name ".repeat(12)}.bin`;
  await one.locator("#file").setInputFiles({ name: long, mimeType: "text/plain", buffer: Buffer.from("x") });
  await two.locator('li[data-phase="complete"]').waitFor();
  for (const width of [900, 390]) {
    await two.setViewportSize({ width, height: 700 });
    assert.equal(await two.evaluate(() => document.documentElement.scrollWidth), width);
  }
  ok("a long name stays within its card");

  // A file large enough that the upload takes some seconds at the rate given to the browser's network.
  const file = path.join(data, "holiday film.bin"), size = 12 * 1024 * 1024;
  writeFileSync(file, Buffer.alloc(size, "stoa"));
  const cdp = await context.newCDPSession(one);
  await cdp.send("Network.enable");
  await cdp.send("Network.emulateNetworkConditions", { offline: false, latency: 5, downloadThroughput: -1, uploadThroughput: 2 * 1024 * 1024 });
  await one.locator("#file").setInputFiles(file);
  const bytes = (page) => page.locator("li[data-id]").first().evaluate((li) => Number(li.dataset.bytes));
  const moved = (page, from) => page.waitForFunction((n) => Number(document.querySelector("li[data-id]")?.dataset.bytes ?? 0) > n, from);
  await Promise.all([moved(one, 0), moved(two, 0)]);
  ok("the bar moves in both tabs");
  if (shots) await two.screenshot({ path: path.join(shots, "moving.png") });

  const pids = execFileSync("pgrep", ["-f", `stoa-shard.*${data}`], { encoding: "utf8" }).trim().split("\n");
  assert.equal(pids.length, 2);
  const before = await bytes(two);
  for (const pid of pids) process.kill(Number(pid), "SIGKILL");
  await two.close();
  await moved(one, before + 1024 * 1024);
  assert.equal(await one.locator("#link").getAttribute("data-state"), "live");
  ok("both shards killed in the middle: the bar goes on, the socket stayed open");

  const at = await bytes(one);
  line.cut();
  await one.locator("#notice", { hasText: "the connection was lost" }).waitFor();
  await moved(one, at);
  ok("the upload's connection cut: it goes on where it was");

  const late = await open();
  await moved(late, 0);
  assert.equal(await late.locator("li[data-id] .name").first().textContent(), "holiday film.bin");
  ok("a tab opened late shows the upload where it is");
  for (const page of [one, late]) await page.locator('li[data-phase="complete"]').nth(1).waitFor({ timeout: 60_000 });
  for (const page of [one, late]) assert.equal(await bytes(page), size);
  ok("complete in every tab");
  await late.close();
  const again = await open();
  await again.locator('li[data-phase="complete"]').nth(1).waitFor();
  assert.equal(await bytes(again), size);
  assert.equal(await again.locator("li[data-id]").count(), 2);
  ok("closed and opened again: the truth");
  if (shots) await again.screenshot({ path: path.join(shots, "complete.png") });
  assert.deepEqual(readFileSync(path.join(data, "uploads", await again.locator("li[data-id]").first().getAttribute("data-id"))), readFileSync(file));
  ok("the file is what was sent");
  assert.equal(await one.locator("#notice").isVisible(), false, await one.locator("#notice").textContent());
  console.log(`${passed} passed, 0 failed`);
} catch (error) {
  console.log(`FAIL ${error.stack}`);
  for (const name of ["stoa-shard", "stoa-gateway"]) console.log(spawnSync("bash", ["-c", `tail -n 15 ${data}/logs/*`], { encoding: "utf8" }).stdout, name);
  console.log(`${passed} passed, 1 failed`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  line.close();
  const down = spawnSync(path.join(bin, "stoa"), ["down", "--data", data], { encoding: "utf8", timeout: 120_000 });
  if (down.status !== 0) { console.log(down.stderr); process.exitCode = 1; }
  rmSync(data, { recursive: true, force: true });
}
