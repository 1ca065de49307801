// The React page as a person uses it: three uploads at once in one tab while another watches, the network switched
// off and on in Chromium (CDP), both shards killed meanwhile. Afterwards every bar says what GET /log says.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { bin, free_port, launch, root, stoa, wire } from "./lib.mjs";

const shots = process.env.STOA_SCREENSHOTS;
const built = spawnSync(path.join(root, "examples/react/build"), { encoding: "utf8", timeout: 300_000 });
assert.equal(built.status, 0, built.stderr + built.stdout);

const data = mkdtempSync(path.join(tmpdir(), "stoa-react-"));
let passed = 0;
const ok = (name) => { passed++; console.log(`ok   ${name}`); };
const gateway = await free_port(), service = await free_port();
const origin = `http://127.0.0.1:${gateway}`;

// Chromium's switch lets no new connection out, but leaves those that are open alone; a network that is gone does not.
// So each tab reaches gateway and upload service through wires of its own, which are cut with the switch. Whether the
// page hears of the cut while it is switched off is not said: it may take its sockets for open until it is on again.
const up = stoa("up", "-d", "--data", data, "--listen", `127.0.0.1:${gateway}`, "--page", path.join(root, "examples/react/dist/index.html"),
  "--with", `${path.join(bin, "stoa-upload")} --listen 127.0.0.1:${service} --directory uploads`);
assert.equal(up.status, 0, up.stderr + up.stdout);

const LONG = `${"slides of a long name ".repeat(7)}.bin`;
const SIZES = { "holiday film.bin": 12, [LONG]: 6, "archive.bin": 9 }, MIB = 1024 * 1024;
const files = Object.entries(SIZES).map(([name, size], i) => {
  const file = path.join(data, name);
  writeFileSync(file, Buffer.alloc(size * MIB, String(i)));
  return file;
});
const log = async (key) => (await (await fetch(`${origin}/log?key=${key}&limit=1000`)).json()).events.map((event) => event.data);

// What a tab shows, by upload.
const rows = (page) => page.locator("li[data-id]").evaluateAll((all) => Object.fromEntries(all.map((li) => [li.dataset.id, {
  phase: li.dataset.phase, bytes: Number(li.dataset.bytes), bar: li.querySelector("progress").value, name: li.querySelector("label").textContent,
}])));

// What the log says of an upload, read here once more and apart from the page's own code.
const truth = async (id) => {
  const row = { phase: "waiting", bytes: 0, total: 0 };
  for (const { payload } of await log(id)) {
    const { type, data: told } = payload;
    if (type === "upload-started") Object.assign(row, { phase: "uploading", total: told.size });
    if (type === "upload-progress") row.bytes = told.progress;
    if (type === "upload-complete") Object.assign(row, { phase: "complete", bytes: told.size });
    if (type === "upload-failed") row.phase = "failed";
  }
  return row;
};

const wires = [], tabs = [];
let browser;
try {
  browser = await launch();
  const context = await browser.newContext({ viewport: { width: 900, height: 760 } });
  const open = async () => {
    const page = await context.newPage();
    const [to_gateway, to_service] = [await wire(gateway), await wire(service)];
    wires.push(to_gateway, to_service);
    const tab = { page, subs: [], complaints: [], patches: 0, cdp: await context.newCDPSession(page) };
    tabs.push(tab);
    page.on("request", (request) => { if (request.method() === "PATCH") tab.patches++; });
    page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => {
      const { sub } = JSON.parse(payload);
      if (sub) tab.subs.push(sub);
    }));
    page.on("pageerror", (error) => tab.complaints.push(String(error)));
    await page.goto(`${to_gateway.url}/?upload=${encodeURIComponent(to_service.url)}`);
    await page.locator(".link[data-state=live]").waitFor();
    await tab.cdp.send("Network.enable");
    tab.network = async (offline) => {
      await tab.cdp.send("Network.emulateNetworkConditions", { offline, latency: 5, downloadThroughput: -1, uploadThroughput: 1.5 * MIB });
      if (offline) for (const line of [to_gateway, to_service]) line.cut();
    };
    tab.moved = (from) => page.waitForFunction((n) => Number(document.querySelector(".totals")?.dataset.bytes ?? 0) > n, from, { timeout: 60_000 });
    return tab;
  };
  const [one, two] = [await open(), await open()];
  await one.network(false);
  await one.page.locator("input[type=file]").setInputFiles(files);
  await Promise.all([one.moved(2 * MIB), two.moved(2 * MIB)]);
  for (const { page } of [one, two]) await page.waitForFunction(() =>
    document.querySelectorAll("li[data-id]").length === 3 && [...document.querySelectorAll("progress")].every((bar) => bar.value > 0));
  ok("three bars move at once, in both tabs");
  if (shots) await two.page.screenshot({ path: path.join(shots, "react-moving.png") });
  const ids = Object.keys(await rows(one.page));
  assert.deepEqual([...one.subs].sort(), ["uploads", ...ids].sort());
  ok("one subscription for each bar and one for the list, though the total watches the bars' keys too");

  // The tab that watches and the one that sends lose their network, one after the other; meanwhile both shards die.
  await two.network(true);
  await two.page.waitForFunction(() => !navigator.onLine);
  const seen = await rows(two.page);
  await one.moved(Object.values(seen).reduce((sum, { bytes }) => sum + bytes, 0) + 3 * MIB);
  const sum = async ({ page }) => Object.values(await rows(page)).reduce((all, { bytes }) => all + bytes, 0);
  assert.ok(await sum(two) + 2 * MIB < await sum(one), "the tab that is off stands still");
  await one.network(true);
  await one.page.waitForFunction(() => !navigator.onLine);
  const pids = execFileSync("pgrep", ["-f", `stoa-shard.*${data}`], { encoding: "utf8" }).trim().split("\n");
  assert.equal(pids.length, 2);
  for (const pid of pids) process.kill(Number(pid), "SIGKILL");
  if (shots) await one.page.screenshot({ path: path.join(shots, "react-offline.png") });
  assert.equal(one.patches, 3);
  await one.network(false);
  await two.network(false);
  ok("network off in both tabs, both shards killed, network on");

  for (const { page } of [one, two]) await page.waitForFunction(() =>
    document.querySelectorAll("li[data-phase=complete]").length === 3, null, { timeout: 90_000 });
  for (const { page, complaints, subs } of [one, two]) {
    await page.locator(".link[data-state=live]").waitFor();
    for (const key of ["uploads", ...ids]) assert.ok(subs.filter((sub) => sub === key).length >= 2, `${key} was not resumed`);
    const now = await rows(page);
    assert.deepEqual(Object.keys(now).sort(), [...ids].sort());
    for (const [id, row] of Object.entries(now)) {
      const { phase, bytes, total } = await truth(id);
      assert.deepEqual(row, { phase, bytes, bar: bytes / total, name: row.name });
      assert.ok(bytes === SIZES[row.name] * MIB && bytes >= seen[id].bytes, JSON.stringify([row, seen[id]]));
      const sent = readFileSync(path.join(data, row.name)), stored = readFileSync(path.join(data, "uploads", id));
      assert.equal(createHash("sha256").update(stored).digest("hex"), createHash("sha256").update(sent).digest("hex"));
    }
    assert.equal(await page.locator(".totals").getAttribute("data-bytes"), String(27 * MIB));
    assert.equal(await page.locator("[role=alert]").count(), 0);
    assert.deepEqual(complaints, []);
  }
  assert.ok(one.patches >= 6, `${one.patches} PATCHes: the uploads went on where they were`);
  ok("all complete: each bar is what the log says, each file what was sent");
  if (shots) await two.page.screenshot({ path: path.join(shots, "react-complete.png") });

  const late = await open();
  await late.page.waitForFunction(() => document.querySelectorAll("li[data-phase=complete]").length === 3);
  ok("a tab opened late says the same");
  const labels = await late.page.locator("progress").evaluateAll((all) => all.map((bar) => bar.labels[0]?.textContent ?? bar.ariaLabel));
  assert.deepEqual([...labels].sort(), ["All uploads", ...Object.keys(SIZES)].sort());
  for (const width of [900, 390]) {
    await late.page.setViewportSize({ width, height: 760 });
    assert.equal(await late.page.evaluate(() => document.documentElement.scrollWidth), width);
  }
  ok("every bar has a name, and a long one stays within its card");
  console.log(`${passed} passed, 0 failed`);
} catch (error) {
  console.log(`FAIL ${error.stack}`);
  for (const { page, complaints } of tabs) console.log(await page.locator("main").innerText().catch(String), complaints);
  console.log(spawnSync("bash", ["-c", `tail -n 15 ${data}/logs/*`], { encoding: "utf8" }).stdout);
  console.log(`${passed} passed, 1 failed`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  for (const line of wires) line.close();
  const down = stoa("down", "--data", data);
  if (down.status !== 0) { console.log(down.stderr); process.exitCode = 1; }
  rmSync(data, { recursive: true, force: true });
}
