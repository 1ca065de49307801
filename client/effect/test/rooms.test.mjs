/**
 * The rooms of examples/chat and examples/poll, and one made for failures, through the Effect client against a real
 * cluster.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";

import { Effect, Exit, Fiber, Schema } from "effect";
import { WebSocket } from "ws";

import { defineRoom, makeRooms, RoomRefusal, Rooms } from "../dist/index.js";
import { freePort, root, startCluster, waitUntil } from "../../js/test/cluster.mjs";

const example = (name) => readFileSync(path.join(root, "examples", name), "utf8");
const lab = `#!room name=lab api=1
local room = require "room"
return {
  on_event = function(ctx, e)
    if e.fail == "raise" then error("boom") end
    if e.fail == "refuse" then room.error("NoSoup", { status = 409, message = "no soup today", data = { left = 0 } }) end
    if e.fail == "busy" then room.error("Later", { status = 503, message = "not now" }) end
    ctx:save((ctx:recall() or 0) + 1)
  end,
  on_alarm = function(ctx) ctx:save("alarm") end,
  rpc = {
    add = function(ctx, input) ctx:save((ctx:recall() or 0) + input.by) return { sum = ctx:recall() } end,
    wait = function(ctx) ctx:sleep(2000) end,
    count = function(ctx, input, yield) for i = 1, input do yield(i) end end,
  },
}
`;

let cluster, rooms;
before(async () => {
  cluster = await startCluster({ shards: 2,
    yaml: "types:\n  chat: { handler: chat.lua, presence: true }\n  poll: { handler: poll.lua }\n  lab: { handler: lab.lua }\n",
    files: { "chat.lua": example("chat/chat.lua"), "poll.lua": example("poll/poll.lua"), "lab.lua": lab } });
  rooms = makeRooms({ url: cluster.url });
});
after(() => cluster?.stop());

const run = (effect) => Effect.runPromise(effect);
/** The failure of an effect that must fail. */
const failure = (effect) => run(Effect.flip(effect));

/** A socket to a room; `frames` are what it got. */
async function join(room, id, query = "") {
  const socket = new WebSocket(`${cluster.url.replace("http", "ws")}/ws/${room}/${id}${query}`);
  socket.frames = [];
  socket.on("message", (bytes) => socket.frames.push(JSON.parse(bytes)));
  socket.ended = new Promise((resolve) => socket.once("close", (code) => resolve(code)));
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  return socket;
}

const Chat = defineRoom("chat", {
  state: Schema.Struct({ createdAt: Schema.DateFromNumber, messageCount: Schema.Int }),
  connection: Schema.Struct({ userId: Schema.String, joinedAt: Schema.Number }),
  event: Schema.Union(
    Schema.TaggedStruct("Say", { text: Schema.String.pipe(Schema.maxLength(20)) }), Schema.TaggedStruct("Typing", {})),
  broadcast: Schema.TaggedStruct("Notice", { text: Schema.String, at: Schema.DateFromNumber }),
  methods: { say: { input: Schema.Struct({ text: Schema.String }), output: Schema.Struct({ status: Schema.Literal("ok") }) } },
});

test("a chat, by its verbs", async () => {
  const chat = rooms.room("chat");
  assert.equal(await run(chat.getState("lobby")), null);
  assert.deepEqual(await run(chat.getConnections("lobby")), []);
  const ann = await join("chat", "lobby", "?userId=ann"), bob = await join("chat", "lobby", "?userId=bob");
  await run(chat.send("lobby", { _tag: "Say", text: "hello" }));
  await run(chat.broadcast("lobby", { _tag: "Notice" }));
  for (const socket of [ann, bob]) {
    await waitUntil("the frames", () => socket.frames.some((frame) => frame._tag === "Notice"));
    assert.deepEqual(socket.frames.filter((frame) => frame._tag === "Message").map(({ text, userId }) => [text, userId]), [["hello", "system"]]);
  }
  assert.deepEqual((await run(chat.getConnections("lobby"))).map(({ id, tags }) => [id, tags]), [["ann", ["user:ann"]], ["bob", ["user:bob"]]]);
  assert.deepEqual((await run(chat.getConnections("lobby", "user:bob"))).map(({ id }) => id), ["bob"]);
  assert.deepEqual((await run(chat.getPresence("lobby"))).map(({ id }) => id), ["ann", "bob"]);
  assert.deepEqual(await run(chat.call("lobby", "say", { text: "by call" })), { status: "ok" });
  assert.equal((await run(chat.getState("lobby"))).messageCount, 2);
  await run(chat.close("lobby", { code: 4000 }));
  assert.deepEqual(await Promise.all([ann.ended, bob.ended]), [4000, 4000]);
  await run(chat.purge("lobby"));
  assert.equal(await run(chat.getState("lobby")), null);
});

test("schemas encode what leaves and decode what arrives", async () => {
  const chat = rooms.room(Chat);
  const ann = await join("chat", "typed", "?userId=ann");
  await run(chat.send("typed", { _tag: "Say", text: "hello" }));
  const state = await run(chat.getState("typed"));
  assert.ok(state.createdAt instanceof Date && state.messageCount === 1);
  assert.equal((await run(chat.getConnections("typed")))[0].state.userId, "ann");
  const at = new Date(1700000000000);
  await run(chat.broadcast("typed", { _tag: "Notice", text: "x", at }));
  await waitUntil("the notice", () => ann.frames.some((frame) => frame.at === 1700000000000));
  const wrong = await failure(chat.send("typed", { _tag: "Say", text: "x".repeat(21) }));
  assert.equal(wrong._tag, "RoomValidationError");
  assert.match(wrong.message, /^event: .*text/s);
  assert.deepEqual([wrong.room, wrong.id, wrong.status], ["chat", "typed", 0]);
  assert.equal((await failure(chat.call("typed", "say", {})))._tag, "RoomValidationError");
  assert.equal((await failure(chat.call("typed", "shout", {})))._tag, "NoSuchMethod");
  assert.equal((await run(chat.getState("typed"))).messageCount, 1, "nothing of it was sent");
  const Other = defineRoom("chat", { state: Schema.Struct({ topic: Schema.String }) });
  const mismatch = await failure(rooms.room(Other).getState("typed"));
  assert.equal(mismatch._tag, "RoomValidationError");
  assert.match(mismatch.message, /^state: .*topic/s);
  assert.equal(await run(rooms.room(Other).getState("never touched")), null);
  ann.close();
});

test("a poll: its alarm fires now", async () => {
  const poll = rooms.room("poll");
  const voter = await join("poll", "lunch", "?user=bob");
  await run(poll.send("lunch", { choice: "pie" }));
  const { closes } = await run(poll.call("lunch", "close_in", { seconds: 3600 }));
  assert.ok(closes > Date.now());
  await run(poll.fireAlarm("lunch"));
  assert.equal(await voter.ended, 1000);
  assert.deepEqual(await run(poll.getState("lunch")), { votes: { "by post": "pie" }, over: true });
  const refused = await failure(poll.call("lunch", "close_in", { seconds: "soon" }));
  assert.deepEqual([refused._tag, refused.code, refused.status, refused.message], ["RoomRefusal", "BadInput", 400, "seconds is a whole number"]);
});

test("failures have the server's tags", async () => {
  const one = rooms.room("lab");
  const tags = {};
  for (const [name, effect] of Object.entries({
    raise: one.send("a", { fail: "raise" }),
    refuse: one.send("a", { fail: "refuse" }),
    later: one.send("a", { fail: "busy" }),
    method: one.call("a", "nothing"),
    reserved: one.call("a", "state"),
    type: rooms.room("nothing").send("a", 1),
    state: rooms.room("nothing").getState("a"),
    json: one.send("a", undefined),
    id: one.send("", 1),
    key: one.send("a", {}, { idempotencyKey: "x".repeat(256) }),
    large: one.send("a", "x".repeat(600_000)),
    decode: rooms.room("chat").send("a", { _tag: "Shout" }),
  })) tags[name] = await failure(effect);
  assert.deepEqual(Object.fromEntries(Object.entries(tags).map(([name, error]) => [name, error._tag])), {
    raise: "RoomExecutionError", refuse: "RoomRefusal", later: "RoomRefusal", method: "NoSuchMethod", reserved: "NoSuchMethod",
    type: "NoHandler", state: "NoSuchType", json: "BadRequest", id: "BadRequest", key: "BadRequest", large: "TooLarge",
    decode: "RoomValidationError",
  });
  const refused = tags.refuse;
  assert.ok(refused instanceof RoomRefusal && refused instanceof Error);
  assert.deepEqual([refused.code, refused.status, refused.message, refused.data], ["NoSoup", 409, "no soup today", { left: 0 }]);
  assert.equal(await run(one.send("a", { fail: "raise" }).pipe(Effect.catchTag("RoomExecutionError", () => Effect.succeed("caught")))), "caught");
});

test("a streaming method's items are an array", async () => {
  assert.deepEqual(await run(rooms.room("lab").call("s", "count", 3)), [1, 2, 3]);
});

test("one idempotency key runs once; without one each call does", async () => {
  const one = rooms.room("lab");
  const options = { idempotencyKey: "order 4711 ü" };
  assert.deepEqual(await run(one.call("i", "add", { by: 1 }, options)), { sum: 1 });
  assert.deepEqual(await run(one.call("i", "add", { by: 1 }, options)), { sum: 1 });
  const again = one.call("i", "add", { by: 1 });
  assert.deepEqual([await run(again), await run(again)], [{ sum: 2 }, { sum: 3 }]);
});

test("a killed shard is waited for, and what it had done is not done twice", async () => {
  const one = rooms.room("lab");
  let over = false;
  const counting = [0, 1, 2, 3].map(async (k) => {
    let done = 0;
    for (; !over || done < 10; done++) await run(one.call(`kill${k}`, "add", { by: 1 }));
    return done;
  });
  for (const shard of cluster.shards) {
    await shard.kill();
    await shard.start();
  }
  over = true;
  const done = await Promise.all(counting);
  for (let k = 0; k < 4; k++) assert.equal(await run(one.getState(`kill${k}`)), done[k]);
});

test("the time is over: unknown where it may have run, else not", async () => {
  const short = makeRooms({ url: cluster.url, timeout: "300 millis" });
  const unknown = await failure(short.room("lab").call("t", "wait"));
  assert.equal(unknown._tag, "Unknown");
  assert.match(unknown.message, /same idempotencyKey/);
  for (const port of [await freePort(), 9]) { // 9: one that fetch never asks
    const nobody = makeRooms({ url: `http://127.0.0.1:${port}`, timeout: "300 millis" });
    const unreached = await failure(nobody.room("lab").send("t", {}));
    assert.equal(unreached._tag, "Unreachable");
    assert.match(unreached.message, /nothing ran/);
  }
});

/** A gateway that gives these answers; `requests` is what was asked. */
async function play(answers, go) {
  const requests = [];
  const server = createServer((request, response) => {
    requests.push({ url: request.url, method: request.method, headers: request.headers, at: performance.now() });
    request.once("aborted", () => { requests.aborted = true; });
    response.once("close", () => { if (!response.writableEnded) requests.aborted = true; });
    const answer = answers[requests.length - 1];
    if (!answer) return;
    if (answer === "lost") return void request.socket.destroy();
    response.writeHead(answer[0], { "Content-Type": "application/json", ...answer[2] }).end(JSON.stringify(answer[1]));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await go(`http://127.0.0.1:${server.address().port}/edge/`, requests);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

test("what is asked, and asked again, stands under one key", () => play([
  [503, { error: { tag: "Moving", message: "m" } }, { "Retry-After": "0.2" }], "lost", [504, { error: { tag: "Unknown", message: "m" } }], [200, 7],
], async (url, requests) => {
  const chat = makeRooms({ url, token: Effect.succeed("secret") }).room("chat");
  assert.equal(await run(chat.call("a b/ü", "do it", { x: 1 })), 7);
  assert.equal(requests.length, 4);
  assert.ok(requests.every(({ url: at, method }) => at === "/edge/api/chat/a%20b%2F%C3%BC/do%20it" && method === "POST"));
  assert.equal(new Set(requests.map(({ headers }) => headers["idempotency-key"])).size, 1);
  assert.ok(requests.every(({ headers }) => headers.authorization === "Bearer secret"));
  assert.ok(requests[1].at - requests[0].at >= 199, "Retry-After is waited for");
}));

test("an interrupted effect aborts its request", () => play([], async (url, requests) => {
  const fiber = Effect.runFork(makeRooms({ url }).room("chat").getState("a"));
  await waitUntil("it was asked", () => requests.length === 1);
  const exit = await run(Fiber.interrupt(fiber));
  assert.ok(Exit.isInterrupted(exit));
  await waitUntil("the request is gone", () => requests.aborted);
}));

test("refusals of rights are told at once", () => play([
  [401, { error: { tag: "TokenExpired", message: "m" } }], [403, { error: { tag: "Forbidden", message: "m" } }],
  [429, { error: { tag: "RateLimited", message: "m" } }, { "Retry-After": "3" }], [404, "a proxy's page"],
], async (url) => {
  const chat = makeRooms({ url }).room("chat");
  const tags = [];
  for (let i = 0; i < 4; i++) tags.push(await failure(chat.getState("a")));
  assert.deepEqual(tags.map((error) => [error._tag, error.status, error.retryAfter]),
    [["TokenExpired", 401, undefined], ["Forbidden", 403, undefined], ["RateLimited", 429, 3000], ["BadRequest", 404, undefined]]);
}));

test("the service is a layer", async () => {
  const program = Effect.gen(function* () {
    const rooms = yield* Rooms;
    return yield* rooms.room("chat").getState("layer");
  });
  assert.equal(await run(program.pipe(Effect.provide(Rooms.layer({ url: cluster.url })))), null);
});
