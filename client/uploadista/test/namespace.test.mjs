// (C) the namespace in place of Durable Objects, under an emitter as Uploadista's.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Effect } from "effect";

import { stoaDurableObjectNamespace } from "../dist/index.js";
import { startCluster } from "../../js/test/cluster.mjs";
import { connection, makeObjectEmitter, viewer, waitUntil } from "./server.mjs";

let cluster;
before(async () => { cluster = await startCluster(); });
after(() => cluster.stop());

test("an emitter that was written for Durable Objects", async () => {
  const namespace = stoaDurableObjectNamespace({ url: cluster.url });
  const emitter = makeObjectEmitter(namespace);
  const browser = await viewer(cluster, "/uploadista/ws/upload/u1");
  const sockets = [connection(), connection()];
  for (const socket of sockets) await Effect.runPromise(emitter.subscribe("u1", socket));
  await Effect.runPromise(emitter.emit("u1", '{"n":1}'));
  await Effect.runPromise(emitter.emit("u2", '{"n":2}'));
  await namespace.get(namespace.idFromName("u1")).emit({ n: 3 });
  await waitUntil("everybody has both", () => browser.payloads().length === 2 && sockets.every(({ texts }) => texts.length === 2));
  for (const texts of [browser.payloads(), ...sockets.map((socket) => socket.texts)]) assert.deepEqual(texts, ['{"n":1}', '{"n":3}']);
  sockets[0].close();
  await Effect.runPromise(emitter.unsubscribe("u1")); // the original would close everybody's socket
  await Effect.runPromise(emitter.emit("u1", '{"n":4}'));
  await waitUntil("who stayed has it", () => browser.payloads().length === 3 && sockets[1].texts.length === 3);
  assert.equal(sockets[0].texts.length, 2);
  const id = namespace.idFromName("u1");
  assert.ok(id.equals(namespace.idFromName("u1")) && !id.equals(namespace.idFromName("u2")) && String(id) === "u1");
  assert.equal(namespace.emitter.stats().stored, 4);
  await browser.close();
  await namespace.emitter.close();
});
