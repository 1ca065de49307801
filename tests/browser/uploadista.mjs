// Uploadista's browser client, as far as it is known, in Chromium against the gateway: a late viewer, a flow with its
// two sockets, viewers that leave and one that is refused, ping; every frame passes the client's own check.
import assert from "node:assert/strict";
import { createHmac, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { free_port, launch, stoa } from "./lib.mjs";
import { stock_client } from "./uploadista_client.mjs";

const data = mkdtempSync(path.join(tmpdir(), "stoa-uploadista-"));
let passed = 0;
const ok = (name) => { passed++; console.log(`ok   ${name}`); };
const port = await free_port(), url = `http://127.0.0.1:${port}`;
const secret = randomBytes(32).toString("hex");
const config = path.join(data, "stoa.yaml");
writeFileSync(config, `auth: { mode: token, keys: [ { kid: k, alg: HS256, secret: "${secret}" } ] }\n`);
const token = (claims) => {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const head = `${part({ alg: "HS256", kid: "k" })}.${part({ exp: Math.floor(Date.now() / 1000) + 600, ...claims })}`;
  return `${head}.${createHmac("sha256", secret).update(head).digest("base64url")}`;
};
const writer = token({ prefix: "", can: ["publish"] });
const publish = async (key, type, payload, conflate) => {
  const answer = await fetch(`${url}/publish?key=${key}`, {
    method: "POST", body: JSON.stringify({ type, payload, timestamp: new Date().toISOString() }),
    headers: { Authorization: `Bearer ${writer}`, ...conflate && { "Stoa-Conflate": conflate } } });
  assert.equal(answer.status, 200, await answer.text());
};
const upload = (id, type, more) => publish(id, "upload_event", { type, data: { id, ...more } }, type === "upload-progress" ? type : undefined);
const file = (offset) => ({ offset, size: 100, storage: { id: "local", type: "file" } });

const up = stoa("up", "-d", "--data", path.join(data, "data"), "--listen", `127.0.0.1:${port}`, "--config", config);
assert.equal(up.status, 0, up.stderr + up.stdout);
let browser;
try {
  browser = await launch();
  const page = await browser.newPage();
  await page.goto(`${url}/`);
  await page.evaluate(`window.stock_client = ${stock_client}`);
  const made = (name, claims) => page.evaluate(([name, url, token]) => { window[name] = stock_client(url, token); }, [name, url, claims && token(claims)]);
  const does = (name, verb, ...words) => page.evaluate(([name, verb, words]) => window[name][verb](...words), [name, verb, words]);
  const events = (name) => page.evaluate((name) => window[name].events, name);
  const has = (name, wanted) => page.waitForFunction(([name, wanted]) =>
    window[name].events.map((one) => one.type ?? one.eventType).join() === wanted, [name, wanted.join()]);

  await upload("u1", "upload-started", file(0));
  for (const progress of [10, 20, 30]) await upload("u1", "upload-progress", { progress, total: 100 });
  for (const name of ["ann", "zoe"]) await made(name, { key: "u1" });
  assert.equal(await does("ann", "open_upload", "u1"), true);
  await has("ann", ["upload-started", "upload-progress"]);
  assert.equal((await events("ann"))[1].data.progress, 30);
  ok("who connects late sees upload-started, and the last progress");

  await does("zoe", "open_upload", "u1");
  await has("zoe", ["upload-started", "upload-progress"]);
  await made("eve");
  await made("bob", { key: "u2" });
  for (const [name, how] of [["eve", "cookies"], ["bob", "token"]]) {
    await does(name, "open_upload", "u1");
    await page.waitForFunction((name) => window[name].closed["upload/u1"], name);
    assert.deepEqual(await page.evaluate((name) => [window[name].closed["upload/u1"], JSON.parse(window[name].frames[0]).code, window[name].events.length], name),
      [{ code: 4001, reason: `Authentication failed: invalid or expired ${how}` }, "AUTH_FAILED", 0]);
  }
  await does("zoe", "close", "upload/u1");
  await page.waitForFunction(() => window.zoe.closed["upload/u1"]);
  await upload("u1", "upload-progress", { progress: 70, total: 100 });
  await upload("u1", "upload-complete", file(100));
  await has("ann", ["upload-started", "upload-progress", "upload-progress", "upload-complete"]);
  assert.equal((await events("zoe")).length, 2);
  assert.equal((await page.evaluate(() => window.zoe.closed["upload/u1"])).code, 1005);
  ok("a viewer that leaves and those that are refused cut off nobody");

  for (const eventType of ["job-start", "flow-start", "node-start"])
    await publish("job-1", "flow_event", { eventType, jobId: "job-1", flowId: "f", nodeId: "n", nodeName: "N", nodeType: "input" });
  await made("job", { key: ["job-1", "in-1"] });
  await does("job", "open_flow", "job-1");
  await does("job", "open_upload", "in-1");
  await upload("in-1", "upload-started", file(0));
  await publish("job-1", "flow_event", { eventType: "flow-end", jobId: "job-1", flowId: "f" });
  await page.waitForFunction(() => window.job.events.length === 5);
  const seen = await events("job");
  assert.deepEqual(seen.flatMap((one) => one.eventType ?? []), ["job-start", "flow-start", "node-start", "flow-end"]);
  assert.deepEqual(seen.flatMap((one) => one.eventType ? [] : one.type), ["upload-started"]);
  await does("job", "ping", "job-1");
  await page.waitForFunction(() => window.job.frames.some((text) => JSON.parse(text).type === "pong"));
  ok("a flow from its first event, its file's upload beside it, and a pong");

  for (const name of ["ann", "zoe", "job"]) assert.deepEqual(await page.evaluate((name) => window[name].errors, name), []);
  ok("every frame passed the client's check");
  console.log(`${passed} passed, 0 failed`);
} catch (error) {
  console.log(`FAIL ${error.stack}`);
  console.log(`${passed} passed, 1 failed`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  const down = stoa("down", "--data", path.join(data, "data"));
  if (down.status !== 0) { console.log(down.stderr); process.exitCode = 1; }
  rmSync(data, { recursive: true, force: true });
}
