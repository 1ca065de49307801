// The queue of emitted events, with a publisher that the tests play: order, conflation, what is dropped, and that
// every event is accounted for.
import assert from "node:assert/strict";
import { test } from "node:test";

import { conflateName, eventSerializer } from "../dist/events.js";
import { RareLog } from "../dist/log.js";
import { EmitQueue } from "../dist/queue.js";

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A queue whose publishes end when the test says so. */
function played({ events = 10, bytes = 1 << 20, lanes = 64, perKey = 1 } = {}) {
  const sent = [];
  const dropped = { count: 0 };
  const queue = new EmitQueue({ events, bytes, lanes, perKey },
    (item) => new Promise((resolve) => sent.push({ ...item, end: (how = "stored") => { resolve(how); return turn(); } })),
    () => dropped.count++);
  const add = (key, text, name) => queue.add({ key, text, name });
  const texts = () => sent.map((item) => item.text);
  return { queue, sent, dropped, add, texts };
}

function balanced(queue) {
  const { emitted, stored, conflated, droppedProgress, droppedEvents, failed } = queue.counts;
  assert.equal(emitted, stored + conflated + droppedProgress + droppedEvents + failed + queue.events, JSON.stringify(queue.counts));
}

test("the events of a key go out one after the other, keys side by side", async () => {
  const { queue, sent, add, texts } = played();
  for (const text of ["a1", "a2"]) add("a", text);
  add("b", "b1");
  assert.deepEqual(texts(), ["a1", "b1"]);
  await sent[0].end();
  assert.deepEqual(texts(), ["a1", "b1", "a2"]);
  await sent[1].end();
  await sent[2].end("failed");
  assert.equal(queue.events, 0);
  assert.deepEqual(queue.counts, { emitted: 3, stored: 2, conflated: 0, droppedProgress: 0, droppedEvents: 0, failed: 1 });
  await queue.flushed();
});

test("a newer progress takes the place of the one that waits, behind what came between", async () => {
  const { queue, sent, add, texts } = played();
  add("a", "start");
  add("a", "10 %", "p");
  add("a", "warning");
  add("a", "20 %", "p");
  add("b", "other", "p");
  add("a", "30 %", "p");
  for (let i = 0; i < 4; i++) await sent.at(i).end();
  assert.deepEqual(texts(), ["start", "other", "warning", "30 %"]);
  assert.equal(queue.counts.conflated, 2);
  balanced(queue);
  add("a", "40 %", "p"); // nothing waits: it goes
  add("a", "50 %", "p"); // that one is on its way: this waits behind it
  await sent.at(-1).end();
  assert.deepEqual(texts().slice(4), ["40 %", "50 %"]);
});

test("what was replaced or dropped takes no memory while the first of its key waits", async () => {
  const { queue, sent, add, texts } = played({ events: 100 });
  for (const text of ["on its way", "waits"]) add("a", text);
  for (let i = 0; i < 10_000; i++) add("a", `${i}`, "p");
  assert.ok(queue.lanes.get("a").waiting.length < 100);
  for (let i = 0; i < 10_000; i++) add("b", `${i}`, `p${i}`);
  assert.ok(queue.lanes.get("b").waiting.length < 250, `${queue.lanes.get("b").waiting.length}`);
  balanced(queue);
  while (queue.events > 0) await sent.find((item) => !item.ended && (item.ended = true)).end();
  assert.deepEqual(texts().filter((_, i) => sent[i].key === "a"), ["on its way", "waits"]);
  assert.equal(texts().at(-1), "9999");
});

test("when it is full progress makes room, the oldest first, then the newest event is dropped", async () => {
  const { queue, dropped, sent, add, texts } = played({ events: 5 });
  for (const key of ["a", "b"]) add(key, "start");
  add("a", "10 %", "p");
  add("b", "20 %", "p");
  add("a", "complete");
  add("b", "complete"); // a's progress goes
  assert.deepEqual({ ...queue.counts }, { emitted: 6, stored: 0, conflated: 0, droppedProgress: 1, droppedEvents: 0, failed: 0 });
  add("c", "start"); // b's progress goes
  add("c", "complete"); // none is left
  add("d", "5 %", "p");
  assert.equal(queue.counts.droppedProgress, 3);
  assert.equal(queue.counts.droppedEvents, 1);
  assert.equal(dropped.count, 4);
  assert.equal(queue.events, 5);
  balanced(queue);
  for (let i = 0; i < 5; i++) await sent[i].end();
  assert.deepEqual(texts(), ["start", "start", "start", "complete", "complete"]);
  balanced(queue);
});

test("bytes are bounded too, and what can never fit drives nothing out", async () => {
  const { queue, add } = played({ bytes: 4000, events: 1000 });
  add("a", "start");
  add("a", "x".repeat(1000), "p");
  add("b", "start");
  add("b", "y".repeat(4000));
  assert.equal(queue.counts.droppedEvents, 1);
  assert.equal(queue.counts.droppedProgress, 0);
  add("b", "z".repeat(1800));
  assert.equal(queue.counts.droppedProgress, 1);
  assert.ok(queue.bytes <= 4000);
  balanced(queue);
});

test("what the publisher did not take is tried again before the rest of the key", async () => {
  const { queue, sent, add, texts } = played();
  add("a", "1");
  add("a", "2");
  await sent[0].end("busy");
  assert.deepEqual(texts(), ["1"]);
  while (sent.length < 2) await turn();
  await sent[1].end();
  assert.deepEqual(texts(), ["1", "1", "2"]);
  add("a", "10 %", "p");
  await sent[2].end();
  add("a", "20 %", "p");
  await sent[3].end("busy"); // a newer one waits: this one need not
  while (sent.length < 5) await turn();
  assert.deepEqual(texts().slice(3), ["10 %", "20 %"]);
  await sent[4].end();
  assert.equal(queue.events, 0);
  balanced(queue);
});

test("closing gives up what waits and leaves what is on its way", async () => {
  const { queue, sent, add } = played();
  add("a", "1");
  add("a", "2");
  add("a", "3", "p");
  queue.close();
  add("b", "late");
  assert.equal(queue.counts.droppedEvents, 2);
  assert.equal(queue.counts.droppedProgress, 1);
  await sent[0].end("busy");
  assert.equal(queue.counts.failed, 1);
  balanced(queue);
  await queue.flushed();
  assert.equal(sent.length, 1);
});

test("many keys, any endings: order per key, bounds, and every event accounted for", async () => {
  let seed = 7;
  const dice = (n) => { seed = (seed * 1103515245 + 12345) & 0x7fffffff; return (seed >>> 8) % n; };
  const { queue, sent, add } = played({ events: 40, bytes: 12_000, lanes: 4 });
  let open = 0;
  for (let i = 0; i < 20_000; i++) {
    add(`k${dice(12)}`, `${i}`, dice(3) === 0 ? "p" : undefined);
    assert.ok(queue.events <= 40 && queue.bytes <= 12_000);
    if (dice(4) === 0) while (open < sent.length) await sent[open++].end(dice(8) === 0 ? "failed" : "stored");
    if (i % 500 === 0) balanced(queue);
  }
  while (open < sent.length) await sent[open++].end();
  await queue.flushed();
  balanced(queue);
  const last = new Map();
  for (const { key, text } of sent) {
    assert.ok(Number(text) > (last.get(key) ?? -1), `${key}: ${text} after ${last.get(key)}`);
    last.set(key, Number(text));
  }
  assert.equal(queue.lanes.size, 0);
});

test("progress is known by its payload, whatever stands around it", () => {
  const upload = eventSerializer("upload_event");
  const text = upload.eventToMessage({ type: "upload-progress", data: { id: "u", progress: 1, total: 2 } });
  assert.match(text, /^\{"type":"upload_event","payload":\{"type":"upload-progress","data":\{"id":"u","progress":1,"total":2\}\},"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"\}$/);
  assert.equal(conflateName(text), "upload-progress");
  assert.equal(conflateName(upload.eventToMessage({ type: "upload-failed", data: { id: "u", error: "upload-progress" } })), undefined);
  assert.equal(conflateName(eventSerializer("flow_event").eventToMessage({ eventType: "node-end", jobId: "j", nodeId: "upload-progress" })), undefined);
  for (const odd of ["", "upload-progress", "null", '"upload-progress"', '{"payload":null,"x":"upload-progress"}']) assert.equal(conflateName(odd), undefined);
});

test("a line comes at most once a minute, with the number of those held back", () => {
  let now = 0;
  const lines = [];
  const log = new RareLog((line) => lines.push(line), () => now);
  for (now = 0; now < 130_000; now += 1000) log.say(() => `at ${now}`);
  assert.deepEqual(lines, ["stoa: at 0", "stoa: at 60000 (and 59 more since the last line)", "stoa: at 120000 (and 59 more since the last line)"]);
  new RareLog(() => { throw new Error("a broken logger"); }).say(() => "x");
});
