/** What the hooks are made of, without React and without a server: uploads from events, shared watches, paced reads. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { View } from "../dist/react/watch.js";
import { StateReader } from "../dist/react/state-reader.js";
import { uploadRatio, uploadReducer, WAITING } from "../dist/react/upload.js";

/** A client that notes what is subscribed and delivers what it is told to. */
function fakeClient() {
  const subscriptions = [];
  return {
    subscriptions,
    open: () => subscriptions.filter(({ closed }) => !closed).length,
    subscribe(key, options, handler) {
      if (key === "") throw new RangeError("a key has 1 to 256 bytes");
      const subscription = {
        key, options, closed: false,
        deliver: (...payloads) => payloads.forEach((data, i) => handler({ key, id: `e-${i}`, ts: 0, data })),
        close() { this.closed = true; },
      };
      subscriptions.push(subscription);
      return subscription;
    },
  };
}

/** Resolves when `view` tells of something, with its snapshot; what was told before counts. */
function watch(view) {
  const seen = [];
  let wake = () => {};
  const leave = view.subscribe(() => { seen.push(view.getSnapshot()); wake(); });
  return { seen, leave, async next() { while (!seen.length) await new Promise((resolve) => { wake = resolve; }); return seen.shift(); } };
}

const tick = () => new Promise((resolve) => setTimeout(resolve, 1));
const sum = { initial: 0, reducer: (state, { data }) => state + data };
const all = { replay: "all" };

test("an upload is read in each shape that is in use", () => {
  const enveloped = (type, data) => ({ type: "upload_event", payload: { type, data }, timestamp: "2026-01-01T00:00:00Z" });
  const shapes = {
    "Uploadista's envelope": [
      enveloped("upload-started", { id: "u", offset: 0, size: 200 }),
      enveloped("upload-progress", { id: "u", progress: 50, total: 200 }),
      enveloped("upload-complete", { id: "u", offset: 200, size: 200 })],
    "its inner event": [
      { type: "upload-started", data: { id: "u", size: 200 } },
      { type: "upload-progress", data: { id: "u", progress: 50, total: 200 } },
      { type: "upload-complete", data: { id: "u", size: 200 } }],
    "one flat object": [
      { type: "upload_started", uploadId: "u", totalBytes: 200 },
      { type: "upload_progress", uploadId: "u", progress: 0.25, bytesUploaded: 50, totalBytes: 200 },
      { type: "upload_complete", uploadId: "u", totalBytes: 200 }],
    "short names": [{ type: "started", size: 200 }, { type: "progress", progress: 50, total: 200 }, { type: "completed", size: 200 }],
  };
  for (const [shape, events] of Object.entries(shapes)) {
    const states = [];
    events.reduce((state, event) => { states.push(uploadReducer(state, event)); return states.at(-1); }, WAITING);
    assert.deepEqual(states, [
      { phase: "uploading", bytes: 0, total: 200, error: null },
      { phase: "uploading", bytes: 50, total: 200, error: null },
      { phase: "complete", bytes: 200, total: 200, error: null }], shape);
  }
});

test("a failed upload says why and keeps its bytes; what comes late changes nothing", () => {
  const half = uploadReducer(WAITING, { type: "upload-progress", data: { progress: 5, total: 10 } });
  const failed = uploadReducer(half, { type: "upload_event", payload: { type: "upload-failed", data: { id: "u", error: "disk full" } } });
  assert.deepEqual(failed, { phase: "failed", bytes: 5, total: 10, error: "disk full" });
  assert.equal(uploadReducer(failed, { type: "upload-progress", data: { progress: 7, total: 10 } }), failed);
  assert.equal(uploadReducer(half, { type: "upload-validation-failed", data: { reason: "checksum" } }).error, "checksum");
  assert.equal(uploadReducer(half, { type: "upload-failed" }).error, "the upload failed");
});

test("what is no event of an upload is passed over, as the very same state", () => {
  for (const payload of [null, 7, "x", [], {}, { type: 7 }, { type: "upload_event" }, { type: "upload_event", payload: 3 },
    { type: "flow_event", payload: { type: "node-start" } }, new Uint8Array(3)])
    assert.equal(uploadReducer(WAITING, payload), WAITING);
  assert.deepEqual(uploadReducer(WAITING, { type: "upload-progress", data: { progress: -1, total: "9" } }),
    { phase: "uploading", bytes: 0, total: 0, error: null });
});

test("the ratio is within 0 and 1, and 1 only of what is whole", () => {
  assert.equal(uploadRatio(WAITING), 0);
  assert.equal(uploadRatio({ phase: "uploading", bytes: 5, total: 20, error: null }), 0.25);
  assert.equal(uploadRatio({ phase: "uploading", bytes: 30, total: 20, error: null }), 1);
  assert.equal(uploadRatio({ phase: "complete", bytes: 0, total: 0, error: null }), 1);
});

test("making a view and reading it opens nothing; the key null never does", async () => {
  const client = fakeClient();
  const cold = new View(client, "k", all, sum);
  assert.equal(cold.getSnapshot().status, "connecting");
  assert.equal(cold.getSnapshot(), cold.getSnapshot());
  assert.equal(cold.getServerSnapshot(), cold.getServerSnapshot());
  const idle = new View(client, null, all, sum);
  idle.subscribe(() => assert.fail("told"))();
  assert.deepEqual([idle.getSnapshot().status, idle.getSnapshot().state], ["idle", 0]);
  assert.equal(client.subscriptions.length, 0);
});

test("leaving and coming within a tick keeps the one subscription; a tick later it ends", async () => {
  const client = fakeClient();
  const view = new View(client, "k", all, sum);
  view.subscribe(() => {})();
  const watched = watch(view);
  await tick();
  assert.deepEqual([client.subscriptions.length, client.open()], [1, 1]);
  client.subscriptions[0].deliver(1, 2);
  assert.equal((await watched.next()).state, 3);
  watched.leave();
  assert.equal(client.open(), 1);
  await tick();
  assert.equal(client.open(), 0);
  const again = watch(view);
  assert.equal(view.getSnapshot().state, 0);
  assert.equal(client.subscriptions.length, 2);
  again.leave();
});

test("equal key, options and fold share a subscription, and who comes later has the state at once", async () => {
  const client = fakeClient();
  const first = watch(new View(client, "k", { replay: "all" }, sum));
  client.subscriptions[0].deliver(4);
  assert.equal((await first.next()).state, 4);
  const late = new View(client, "k", { replay: "all" }, sum);
  assert.equal(late.getSnapshot().state, 4);
  const second = watch(late);
  assert.equal(client.subscriptions.length, 1);
  first.leave();
  await tick();
  assert.equal(client.open(), 1);
  client.subscriptions[0].deliver(5);
  assert.equal((await second.next()).state, 9);
  second.leave();
});

test("another key, client, option or fold is another subscription", () => {
  const client = fakeClient(), other = fakeClient();
  const leave = [
    new View(client, "k", all, sum), new View(client, "l", all, sum), new View(client, "k", { replay: 3 }, sum),
    new View(client, "k", all, { ...sum, initial: 1 }), new View(client, "k", all, { ...sum, reducer: (n) => n }), new View(other, "k", all, sum),
  ].map((view) => view.subscribe(() => {}));
  assert.deepEqual([client.subscriptions.length, other.subscriptions.length], [5, 1]);
  leave.forEach((each) => each());
});

test("many events in one frame are told once, and the snapshot stands still until then", async () => {
  const client = fakeClient();
  const view = new View(client, "k", { replay: "all", keep: 3 }, sum);
  const watched = watch(view);
  const before = view.getSnapshot();
  client.subscriptions[0].deliver(...Array.from({ length: 10_000 }, () => 1));
  assert.equal(view.getSnapshot(), before);
  const after = await watched.next();
  assert.equal(after.state, 10_000);
  assert.equal(after.events.length, 3);
  assert.equal(watched.seen.length, 0);
  watched.leave();
});

test("the kept events are the newest, and the same list while none comes", async () => {
  const client = fakeClient();
  const view = new View(client, "k", { replay: 2, keep: 2 }, sum);
  const watched = watch(view);
  const [subscription] = client.subscriptions;
  subscription.deliver("a");
  assert.deepEqual((await watched.next()).events.map(({ data }) => data), ["a"]);
  subscription.deliver("b", "c", "d", "e", "f");
  const full = await watched.next();
  assert.deepEqual(full.events.map(({ data }) => data), ["e", "f"]);
  subscription.options.onStatus("reconnecting", {});
  const reconnecting = await watched.next();
  assert.equal(reconnecting.status, "reconnecting");
  assert.equal(reconnecting.events, full.events);
  watched.leave();
});

test("after a gap the state is what the retained events say, or what onMissed makes of it", async () => {
  const client = fakeClient();
  const gap = { key: "k", from: "e-1", to: "e-9", reason: "expired" };
  const rebuilt = watch(new View(client, "k", all, sum));
  const kept = watch(new View(client, "k", all, { ...sum, onMissed: (missed, state) => state + 100 }));
  for (const subscription of client.subscriptions) {
    subscription.deliver(1, 2);
    subscription.options.onMissed(gap);
    subscription.deliver(5);
  }
  const { state, missed } = await rebuilt.next();
  assert.deepEqual([state, missed], [5, gap]);
  assert.equal((await kept.next()).state, 108);
  rebuilt.leave();
  kept.leave();
});

test("a refusal, a key that cannot be one and a reducer that throws are told as errors", async () => {
  const client = fakeClient();
  const refused = watch(new View(client, "k", all, sum));
  const refusal = new Error("no right");
  client.subscriptions[0].options.onError(refusal);
  assert.deepEqual(await refused.next().then(({ status, error }) => [status, error]), ["closed", refusal]);
  const impossible = watch(new View(client, "", all, sum));
  assert.match((await impossible.next()).error.message, /1 to 256 bytes/);
  const thrown = new Error("a bug");
  const broken = watch(new View(client, "k", all, { initial: 0, reducer: () => { throw thrown; } }));
  client.subscriptions[1].deliver(1, 2);
  assert.deepEqual(await broken.next().then(({ status, error }) => [status, error]), ["closed", thrown]);
  assert.equal(client.subscriptions[1].closed, true);
  for (const each of [refused, impossible, broken]) each.leave();
});

test("a new reducer folds what comes; who shared the old one keeps it", async () => {
  const client = fakeClient();
  const own = new View(client, "k", all, { initial: 0, reducer: (n, { data }) => n + data });
  const watched = watch(own);
  client.subscriptions[0].deliver(1);
  assert.equal((await watched.next()).state, 1);
  own.refold({ initial: 0, reducer: (n, { data }) => n + 10 * data });
  client.subscriptions[0].deliver(1);
  assert.equal((await watched.next()).state, 11);
  assert.equal(client.subscriptions.length, 1);
  watched.leave();

  const left = new View(client, "s", all, sum), stays = new View(client, "s", all, sum);
  const [one, two] = [watch(left), watch(stays)];
  assert.equal(client.subscriptions.length, 2);
  left.refold({ initial: 0, reducer: (n, { data }) => n - data });
  assert.equal(client.subscriptions.length, 3);
  for (const subscription of client.subscriptions.slice(1)) subscription.deliver(3);
  one.seen.length = 0;
  assert.deepEqual([(await one.next()).state, (await two.next()).state], [-3, 3]);
  one.leave();
  two.leave();
});

test("a state that is asked for often is read one at a time, and again for who asked meanwhile", async () => {
  let running = 0, most = 0, reads = 0;
  let release = () => {};
  const told = [];
  const reader = new StateReader(async () => {
    most = Math.max(most, ++running);
    const n = ++reads;
    await new Promise((resolve) => { release = resolve; });
    running--;
    if (n === 2) throw new Error("refused");
    return n;
  }, (result) => told.push(result), 5);
  const until = async (condition) => { while (!condition()) await tick(); };
  for (let i = 0; i < 10; i++) reader.ask();
  await until(() => running === 1);
  for (let i = 0; i < 10; i++) reader.ask();
  release();
  await until(() => told.length === 1 && running === 1);
  release();
  await until(() => told.length === 2);
  assert.deepEqual([most, reads, told[0], told[1].error.message], [1, 2, { state: 1 }, "refused"]);
  reader.ask();
  await until(() => running === 1);
  reader.close();
  release();
  await until(() => running === 0);
  reader.ask();
  await tick();
  assert.deepEqual([told.length, reads], [2, 3]);
});
