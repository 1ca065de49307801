/**
 * The publisher over HTTP against a gateway that the test plays: what it sends, and what it makes of each answer.
 */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { openPublisher } from "../dist/server/index.js";

const json = (status, body, headers = {}) => ({ status, headers, body: JSON.stringify(body) });
const stored = (id = "e-1", more = {}) => json(200, { id, duplicate: false, ...more });
const error = (status, tag, headers) => json(status, { error: { tag, message: `${tag}, said the gateway` } }, headers);
const lost = { lost: true };

/** A gateway that gives these answers, and a publisher to it. `requests` is what was asked. */
async function play(answers, options, run) {
  const requests = [];
  let under = 0, most = 0;
  const server = createServer(async (request, response) => {
    most = Math.max(most, ++under);
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const url = new URL(request.url, "http://x");
    requests.push({ url: request.url, path: url.pathname, query: Object.fromEntries(url.searchParams), headers: request.headers,
      body: Buffer.concat(chunks), method: request.method, at: performance.now() });
    const answer = typeof answers === "function" ? await answers(requests.at(-1), requests.length) : answers[requests.length - 1];
    under--;
    if (!answer || answer.lost) return request.socket.destroy();
    response.writeHead(answer.status, { "Content-Type": "application/json", ...answer.headers }).end(answer.body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const publisher = await openPublisher({ url: `http://127.0.0.1:${server.address().port}/edge/`, ...options });
  try {
    await run(publisher, requests, () => most);
  } finally {
    await publisher.close(0);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

test("a publish is one POST with what was asked for", () => play([stored("e-7")], { token: "secret" }, async (publisher, requests) => {
  const published = await publisher.publish("upload:ü&1", { percent: 42 },
    { idempotencyKey: "key ü", conflate: "prozent ü", tags: ["a", "b ü"], to: ["x,y"], except: ["y", "z"] });
  assert.deepEqual(published, { id: "e-7", duplicate: false });
  const [{ method, path, query, headers, body }] = requests;
  assert.deepEqual([method, path], ["POST", "/edge/publish"]);
  assert.deepEqual(query, { key: "upload:ü&1", tags: "a,b ü", to: "x,y,", except: "y,z" });
  assert.match(requests[0].url, /&tags=a,b%20%C3%BC&to=x%2Cy,&except=y,z$/);
  assert.equal(Buffer.from(headers["idempotency-key"], "latin1").toString(), "key ü");
  assert.equal(Buffer.from(headers["stoa-conflate"], "latin1").toString(), "prozent ü");
  assert.equal(headers.authorization, "Bearer secret");
  assert.equal(body.toString(), '{"percent":42}');
}));

test("a batch is lines, an ephemeral event is sent once", () => play([
  stored("e-3", { first: "e-2", count: 2 }), error(503, "Busy", { "Retry-After": "1" }), lost,
], {}, async (publisher, requests) => {
  assert.deepEqual(await publisher.publishBatch("k", [1, { a: "\n" }]), { id: "e-3", first: "e-2", count: 2, duplicate: false });
  assert.equal(requests[0].headers["content-type"], "application/x-ndjson");
  assert.equal(requests[0].body.toString(), '1\n{"a":"\\n"}\n');
  await assert.rejects(publisher.publish("k", 1, { ephemeral: true }), { tag: "Busy", status: 503, retryAfter: 1000 });
  assert.equal(requests[1].headers["stoa-ephemeral"], "1");
  assert.equal(requests[1].headers["idempotency-key"], undefined);
  await assert.rejects(publisher.publish("k", 1, { ephemeral: true }), { tag: "Unknown" });
  assert.equal(requests.length, 3);
}));

test("what may or may not have been stored is asked again under the same key", () => play([
  lost, error(504, "Unknown"), error(502, "Http"), error(503, "Busy", { "Retry-After": "1" }), stored("e-9", { duplicate: true }),
], {}, async (publisher, requests) => {
  assert.deepEqual(await publisher.publish("k", 1), { id: "e-9", duplicate: true });
  const keys = new Set(requests.map(({ headers }) => headers["idempotency-key"]));
  assert.equal(keys.size, 1);
  assert.match([...keys][0], /^[0-9a-f-]{36}$/);
  assert.ok(requests[4].at - requests[3].at >= 990, "Retry-After is waited for");
  assert.equal(publisher.stats().resent, 4);
}));

test("a refusal is final, and the next of the key goes on", () => play([
  error(403, "Forbidden"), error(413, "TooLarge"), error(400, "BadRequest"), stored(),
], {}, async (publisher, requests) => {
  const all = await Promise.allSettled([1, 2, 3, 4].map((n) => publisher.publish("k", n)));
  assert.deepEqual(all.map(({ reason }) => reason && [reason.tag, reason.status, reason.message]),
    [["Forbidden", 403, "Forbidden, said the gateway"], ["TooLarge", 413, "TooLarge, said the gateway"],
      ["BadRequest", 400, "BadRequest, said the gateway"], undefined]);
  assert.deepEqual(requests.map(({ body }) => body.toString()), ["1", "2", "3", "4"]);
}));

test("a right that is withdrawn after a lost answer leaves it unknown", () => play([lost, error(403, "Forbidden")], {},
  (publisher) => assert.rejects(publisher.publish("k", 1), { tag: "Unknown" })));

test("a token that is refused is asked for anew, once", async () => {
  let asked = 0;
  const token = async () => `token ${++asked}`;
  await play([error(401, "TokenExpired"), stored(), stored()], { token }, async (publisher, requests) => {
    await publisher.publish("k", 1);
    await publisher.publish("k", 2);
    assert.deepEqual(requests.map(({ headers }) => headers.authorization), ["Bearer token 1", "Bearer token 2", "Bearer token 2"]);
  });
  await play(() => error(401, "Unauthorized"), { token }, async (publisher, requests) => {
    await assert.rejects(publisher.publish("k", 1), { tag: "Unauthorized", status: 401 });
    assert.equal(requests.length, 2);
  });
  let fails = 2;
  const flaky = () => { if (fails-- > 0) throw new Error("no"); return "token"; };
  await play([stored()], { token: flaky }, (publisher) => publisher.publish("k", 1));
});

test("of a key one request at a time, of all no more than `concurrency`", () => play(async () => {
  await new Promise((resolve) => setTimeout(resolve, 2));
  return stored();
}, { concurrency: 4 }, async (publisher, requests, most) => {
  await Promise.all(Array.from({ length: 20 }, (_, i) => [0, 1, 2, 3, 4].map((n) => publisher.publish(`k${i}`, n))).flat());
  assert.equal(most(), 4);
  for (let i = 0; i < 20; i++)
    assert.deepEqual(requests.filter(({ query }) => query.key === `k${i}`).map(({ body }) => Number(body)), [0, 1, 2, 3, 4]);
  const { inFlight, stored: count, queuedEvents } = publisher.stats();
  assert.deepEqual([inFlight, count, queuedEvents], [0, 100, 0]);
}));

test("what a header or a list cannot carry is refused at once", () => play([], {}, async (publisher, requests) => {
  for (const options of [{ idempotencyKey: "a\nb" }, { idempotencyKey: " a" }, { conflate: "a " }, { to: [""] }])
    await assert.rejects(publisher.publish("k", 1, options), { tag: "BadRequest" });
  await assert.rejects(publisher.publishBatch("k", [new Uint8Array([10])]), { tag: "BadRequest" });
  assert.equal(requests.length, 0);
  assert.equal(publisher.stats().queuedEvents, 0);
}));

test("a port that fetch never asks is no answer that was lost", async () => {
  const publisher = await openPublisher({ url: "http://127.0.0.1:9" });
  await assert.rejects(publisher.publish("k", 1, { timeout: 300 }), (error) => error.tag === "Unreachable" && /bad port/.test(error.message));
  await publisher.close(0);
});
