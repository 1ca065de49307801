/** The client in Chromium: offline and online, hidden and visible, frozen, without upgrades, from another origin. */
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { authYaml, mint, startCluster, waitUntil } from "./cluster.mjs";
import { startProxy } from "./proxy.mjs";

let cluster, proxy, browser, context, page;
let key, keys = 0;
const token = mint({ prefix: "", can: ["subscribe", "publish"] });

before(async () => {
  const { outputFiles } = await build({
    stdin: { contents: "import * as client from './dist/index.js'; Object.assign(window, client);", resolveDir: path.resolve(import.meta.dirname, "..") },
    bundle: true, write: false, format: "esm", target: "es2022", platform: "browser", logLevel: "error",
  });
  assert.doesNotMatch(outputFiles[0].text, /require\(|node:/);
  const html = `<!doctype html><html lang="en"><title>client</title><link rel="icon" href="data:,"><script type="module">${outputFiles[0].text}</script></html>`;
  cluster = await startCluster({ gateways: 2, yaml: `gateway: { page: page.html }\n${authYaml}`, files: { "page.html": html } });
  proxy = await startProxy(cluster.port);
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
});
beforeEach(async () => {
  await context?.close();
  proxy.refuseUpgrades = false;
  key = `key-${++keys}`;
  context = await browser.newContext();
  page = await context.newPage();
});
after(async () => {
  await browser?.close();
  await proxy?.close();
  await cluster?.stop();
});

/** Opens the page and subscribes in it; what it sees is in window.seen, its statuses in window.statuses. */
async function open(from, to, options = {}) {
  await page.goto(from);
  await page.waitForFunction(() => window.Stoa !== undefined);
  await page.evaluate(async ([url, of, given]) => {
    Object.assign(window, { seen: [], statuses: [] });
    window.stoa = new window.Stoa(url, given);
    const options = { replay: "all", onStatus: (status, detail) => window.statuses.push(detail.transport ?? status) };
    await window.stoa.subscribe(of, options, (event) => window.seen.push(event.data)).ready;
  }, [to, key, { token, ...options }]);
}
const publish = (data) => cluster.publish(key, data, { headers: { Authorization: `Bearer ${token}` } });
const sees = (wanted) => waitUntil(`seen: ${JSON.stringify(wanted)}`, async () => {
  const seen = await page.evaluate(() => window.seen);
  return JSON.stringify(seen) === JSON.stringify(wanted);
});
const status = (wanted) => waitUntil(`the status ${wanted}`, () => page.evaluate((of) => window.statuses.at(-1) === of, wanted));
/** So long that nothing but an event of the browser can be what made it connect. */
const NEVER = { reconnect: { min: 600_000, max: 600_000 } };

test("offline and online: connected again at once, nothing lost", async () => {
  await publish(1);
  await open(proxy.url, proxy.url, NEVER);
  await publish(2);
  await sees([1, 2]);
  await context.setOffline(true);
  proxy.cut();
  await status("reconnecting");
  await publish(3);
  await context.setOffline(false);
  await sees([1, 2, 3]);
  await status("websocket");
});

for (const transport of ["websocket", "sse"]) {
  test(`offline is told at once, though nothing was cut; online again: ${transport}`, async () => {
    await open(proxy.url, proxy.url, { ...NEVER, transport });
    await context.setOffline(true);
    await status("reconnecting");
    await publish(1);
    await context.setOffline(false);
    await sees([1]);
    await status(transport);
  });
}

test("hidden and visible again: connected at once", async () => {
  await open(proxy.url, proxy.url, NEVER);
  const show = (state) => page.evaluate((now) => {
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => now });
    document.dispatchEvent(new window.Event("visibilitychange"));
  }, state);
  await show("hidden");
  proxy.cut();
  await status("reconnecting");
  await publish(1);
  await show("visible");
  await sees([1]);
});

test("a page that was frozen goes on where it was", async () => {
  await open(proxy.url, proxy.url);
  await publish(1);
  await sees([1]);
  const session = await context.newCDPSession(page);
  await session.send("Page.setWebLifecycleState", { state: "frozen" });
  proxy.cut();
  await publish(2);
  await session.send("Page.setWebLifecycleState", { state: "active" });
  await publish(3);
  await sees([1, 2, 3]);
});

test("without upgrades it streams", async () => {
  proxy.refuseUpgrades = true;
  await publish(1);
  await open(proxy.url, proxy.url);
  await status("sse");
  await publish(2);
  proxy.cut();
  await publish(3);
  await sees([1, 2, 3]);
});

test("back to a socket when upgrades are let through: nothing lost, nothing twice", async () => {
  proxy.refuseUpgrades = true;
  await open(proxy.url, proxy.url);
  await publish(1);
  await sees([1]);
  const look = () => page.evaluate(() => document.dispatchEvent(new window.Event("visibilitychange")));
  const upgrades = proxy.upgrades();
  await look();
  await waitUntil("it tried", () => proxy.upgrades() > upgrades);
  await publish(2);
  proxy.refuseUpgrades = false;
  await waitUntil("by a socket", async () => {
    await look();
    return page.evaluate(() => window.statuses.at(-1) === "websocket");
  });
  await publish(3);
  await sees([1, 2, 3]);
  assert.deepEqual(await page.evaluate(() => window.statuses.slice(window.statuses.indexOf("sse"))), ["sse", "websocket"]);
});

test("a forged token: the page learns 401 although browsers do not tell why an upgrade failed", async () => {
  await page.goto(proxy.url);
  await page.waitForFunction(() => window.Stoa !== undefined);
  const forged = mint({ prefix: "" }, { key: "another secret, of somebody else entirely" });
  const error = await page.evaluate(async ([url, of, given]) => new window.Stoa(url, { token: given }).subscribe(of).ready
    .then(() => null, ({ tag, status }) => ({ tag, status })), [proxy.url, key, forged]);
  assert.deepEqual(error, { tag: "Unauthorized", status: 401 });
});

test("from another origin: socket, stream, publish and log", async () => {
  const [here, there] = [cluster.gateways[1].url, cluster.gateways[0].url];
  await open(here, there);
  const published = await page.evaluate(([of]) => window.stoa.publish(of, "x", { conflate: "c" }), [key]);
  await sees(["x"]);
  const page1 = await page.evaluate(([of]) => window.stoa.log(of), [key]);
  assert.equal(page1.head, published.id);
  await open(here, there, { transport: "sse" });
  await sees(["x"]);
});
