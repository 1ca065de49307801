// The chat as two people use it in Chromium: typing, talking, leaving, coming back; every shard is killed with
// SIGKILL in the middle: no socket closes, nothing said is lost or comes twice.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { free_port, launch, root, stoa } from "./lib.mjs";

const data = mkdtempSync(path.join(tmpdir(), "stoa-chat-"));
let passed = 0;
const ok = (name) => { passed++; console.log(`ok   ${name}`); };
const port = await free_port();
const up = stoa("up", "-d", "--data", data, "--listen", `127.0.0.1:${port}`, "--config", path.join(root, "examples/chat/stoa.yaml"));
assert.equal(up.status, 0, up.stderr + up.stdout);
let browser;
try {
  browser = await launch();
  const open = async (user, room = "lobby") => {
    const context = await browser.newContext({ viewport: { width: 900, height: 620 } });
    const page = await context.newPage();
    page.sockets_closed = 0;
    page.on("websocket", (socket) => socket.on("close", () => page.sockets_closed++));
    await page.goto(`http://127.0.0.1:${port}/?room=${room}&user=${user}`);
    await page.locator("#link[data-state=live]").waitFor();
    return page;
  };
  const say = async (page, text) => { await page.fill("#text", text); await page.press("#text", "Enter"); };
  const hears = (page, text) => page.locator(".message", { hasText: text }).waitFor();
  const people = (page, names) => page.waitForFunction((wanted) =>
    [...document.querySelectorAll("#people li")].map((li) => li.textContent).join() === wanted, names.join());

  const ann = await open("ann"), zoe = await open("zoe");
  for (const page of [ann, zoe]) await people(page, ["ann", "zoe"]);
  ok("two people see each other");
  await ann.fill("#text", "hello zoe");
  await zoe.locator("#typing", { hasText: "ann is typing" }).waitFor();
  await ann.press("#text", "Enter");
  for (const page of [ann, zoe]) await hears(page, "hello zoe");
  ok("typing is seen, then what was said");

  const pids = execFileSync("pgrep", ["-f", `stoa-shard.*${data}`], { encoding: "utf8" }).trim().split("\n");
  assert.equal(pids.length, 2);
  for (const pid of pids) process.kill(Number(pid), "SIGKILL");
  for (let i = 0; i < 5; i++) await say(zoe, `while it is dead ${i}`);
  for (const page of [ann, zoe]) {
    await hears(page, "while it is dead 4");
    const said = await page.locator(".message").evaluateAll((all) => all.map((message) => message.lastChild.textContent));
    assert.deepEqual(said, ["hello zoe", ...[0, 1, 2, 3, 4].map((i) => `while it is dead ${i}`)]);
    assert.equal(page.sockets_closed, 0);
  }
  ok("every shard killed: no socket closed, nothing lost, nothing twice, one order");

  const elsewhere = await open("max", "garden");
  await people(elsewhere, ["max"]);
  assert.equal(await elsewhere.locator(".message").count(), 0);
  ok("another room is another room");
  await zoe.context().close();
  await ann.locator(".note", { hasText: "zoe left" }).waitFor();
  await people(ann, ["ann"]);
  const back = await open("zoe");
  for (const page of [ann, back]) await people(page, ["ann", "zoe"]);
  ok("leaving and coming back is seen");
  const joined = await ann.locator(".note", { hasText: "zoe joined" }).count();
  const tab = await open("zoe");
  await people(tab, ["ann", "zoe"]);
  await tab.context().close();
  await say(back, "still here");
  await hears(ann, "still here");
  await people(ann, ["ann", "zoe"]);
  assert.equal(await ann.locator(".note", { hasText: "zoe joined" }).count(), joined);
  assert.equal(await ann.locator(".note", { hasText: "zoe left" }).count(), 1);
  ok("a second tab of somebody is nobody new");
  console.log(`${passed} passed, 0 failed`);
} catch (error) {
  console.log(`FAIL ${error.stack}`);
  console.log(spawnSync("bash", ["-c", `tail -n 15 ${data}/logs/*`], { encoding: "utf8" }).stdout);
  console.log(`${passed} passed, 1 failed`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  const down = stoa("down", "--data", data);
  if (down.status !== 0) { console.log(down.stderr); process.exitCode = 1; }
  rmSync(data, { recursive: true, force: true });
}
