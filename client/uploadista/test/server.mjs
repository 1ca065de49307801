// What the tests share: viewers as browsers are, connections as Uploadista's servers hand them over, and pieces of a
// server that use the services as theirs does.
import WebSocket from "ws";

import { Context, Effect } from "effect";

export { waitUntil } from "../../js/test/cluster.mjs";

/** A WebSocket that keeps its frames; fulfilled when it is open. */
export async function viewer(cluster, target) {
  const socket = new WebSocket(cluster.url.replace("http", "ws") + target);
  const frames = [];
  socket.on("message", (data) => frames.push(data.toString()));
  const closed = new Promise((resolve) => socket.once("close", (code, reason) => resolve({ code, reason: reason.toString() })));
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const payloads = () => frames.filter((text) => !/^\{"type":"(subscribed|connection)"/.test(text));
  return { socket, frames, payloads, closed, close: () => { socket.close(); return closed; } };
}

let connections = 0;
/** A server's end of a browser's socket. `frozen`: readyState never changes, as in Hono and Fastify. */
export function connection({ frozen = false } = {}) {
  const texts = [];
  let state = 1;
  const one = {
    id: `conn_${++connections}`,
    texts,
    send(text) {
      if (typeof text !== "string") throw new TypeError("text is sent");
      if (state === 1) texts.push(text);
    },
    close() { state = 3; },
  };
  Object.defineProperty(one, "readyState", frozen ? { value: 1 } : { get: () => state });
  return one;
}

// Tags of the server's own: services are found by the key of their tag.
const BaseEventEmitter = Context.GenericTag("BaseEventEmitter");
const EventBroadcaster = Context.GenericTag("EventBroadcaster");

/** Uploads as Uploadista's server runs them: it watches by the service, and a failing emitter fails the upload. */
export const makeUploads = Effect.gen(function* () {
  const emitter = yield* BaseEventEmitter;
  const emit = (id, event) => emitter.emit(id, JSON.stringify({ type: "upload_event", payload: event, timestamp: new Date().toISOString() }));
  return {
    create: (id, size) => emit(id, { type: "upload-started", data: { id, offset: 0, storage: { id: "local", type: "file" }, size } }),
    write: (id, progress, total) => emit(id, { type: "upload-progress", data: { id, progress, total } }).pipe(Effect.catchAll(() => Effect.void)),
    complete: (id, size) => emit(id, { type: "upload-complete", data: { id, offset: size, storage: { id: "local", type: "file" }, size } }),
    opened: (id, socket) => emitter.subscribe(id, socket),
    closed: (id) => emitter.unsubscribe(id),
  };
});

/** Uploadista's WebSocket emitter in short: one channel, every instance filters by key. */
export const makeBroadcastEmitter = Effect.gen(function* () {
  const broadcaster = yield* EventBroadcaster;
  const watching = new Map();
  yield* broadcaster.subscribe("uploadista:events", (text) => {
    const { eventKey, message } = JSON.parse(text);
    for (const socket of watching.get(eventKey) ?? []) socket.send(message);
  });
  return {
    emit: (eventKey, message) => broadcaster.publish("uploadista:events", JSON.stringify({ eventKey, message })),
    subscribe: (key, socket) => Effect.sync(() => void watching.set(key, [...watching.get(key) ?? [], socket])),
  };
});

/** Uploadista's Durable Object emitter in short. */
export const makeObjectEmitter = (durableObject) => {
  const stub = (key) => durableObject.get(durableObject.idFromName(key));
  return {
    emit: (key, message) => Effect.tryPromise(() => stub(key).emit(message)),
    subscribe: (key, socket) => Effect.tryPromise(() => stub(key).subscribe(socket)),
    unsubscribe: (key) => Effect.tryPromise(() => stub(key).unsubscribe()),
  };
};

export const typeOf = (text) => JSON.parse(text).payload.type;
export const progressOf = (text) => JSON.parse(text).payload.data.progress;
