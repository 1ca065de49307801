/**
 * The bytes of the publisher for Node: against the example that the C programs print, against msgpack, and against
 * libxxhash. And its keys against `stoa keygen`.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";

import { decode } from "@msgpack/msgpack";

import { curveKeys } from "../dist/server/curve.js";
import { parseEndpoint, parseRouters } from "../dist/server/endpoint.js";
import { Heap, HeapNode } from "../dist/server/list.js";
import { messageIdOf } from "../dist/server/publish.js";
import { EMPTY, encodeFilter, Malformed, PacketWriter, readMessages, readPacketHeader } from "../dist/server/wire.js";
import { clusterId, xxh3 } from "../dist/server/xxh3.js";
import { bin, stoa } from "./cluster.mjs";

const text = (words) => Buffer.from(words, "utf8");

test("a PUB is the bytes of the protocol's example", () => {
  const printed = spawnSync(path.join(bin, "stoa-describe"), { encoding: "utf8" }).stdout;
  const example = printed.split("## Example")[1].split("```")[1];
  const wanted = example.split("\n").flatMap((line) => line.slice(0, 48).match(/\b[0-9a-f]{2}\b/g) ?? []).join("");
  const packet = new PacketWriter();
  packet.pub(7, {
    key: text("upload:abc123"),
    messageId: Buffer.from("000102030405060708090a0b0c0d0e0f", "hex"),
    ephemeral: false,
    conflate: text("percent"),
    filter: EMPTY,
    parts: [text('{"percent":42}')],
  }, 0x1122334455n, 1, 1700000000000);
  assert.equal(packet.end(0x0123456789abcdefn, 2).toString("hex"), wanted);
});

test("heads are msgpack, whatever their sizes", () => {
  const packet = new PacketWriter();
  const sizes = [0, 1, 31, 32, 127, 128, 255, 256, 65535, 65536, 100000];
  const publishes = sizes.map((size, i) => ({
    key: text("k".repeat(Math.max(1, Math.min(256, size)))),
    messageId: randomBytes(16),
    ephemeral: i % 2 === 1,
    conflate: text("c".repeat(Math.min(64, size))),
    filter: Buffer.alloc(Math.min(4096, size), 0xc0),
    parts: Array.from({ length: Math.min(256, size) || 1 }, (_, k) => Buffer.alloc(k === 0 ? size : 1, k)),
  }));
  publishes.forEach((publish, i) => packet.pub(i + 1, publish, 2n ** 64n - 1n, 10 ** i, 2 ** 40 + i));
  const bytes = packet.end(9n, 3);
  assert.deepEqual(readPacketHeader(bytes), { count: sizes.length, incarnation: 9n, counter: 3n });
  let at = 24;
  for (const [i, publish] of publishes.entries()) {
    const head = bytes.readUInt32LE(at), body = bytes.readUInt32LE(at + 4);
    const fields = decode(bytes.subarray(at + 8, at + 8 + head), { useBigInt64: true });
    assert.deepEqual(fields.slice(0, 6), [1, 10, BigInt(i + 1), 65535, 0n, publish.key.toString()]);
    assert.deepEqual(Buffer.from(fields[6]), publish.messageId);
    assert.equal(fields[7], 2n ** 64n - 1n);
    assert.equal(BigInt(fields[8]), BigInt(10 ** i));
    assert.equal(fields[9], i % 2);
    assert.equal(fields[10], publish.conflate.toString());
    assert.deepEqual(Buffer.from(fields[11]), publish.filter);
    assert.equal(Number(fields[12]), 2 ** 40 + i);
    assert.deepEqual(fields[13], publish.parts.map((part) => part.length));
    assert.deepEqual(bytes.subarray(at + 8 + head, at + 8 + head + body), Buffer.concat(publish.parts));
    at += 8 + head + body;
  }
  assert.equal(at, bytes.length);
});

test("filters are maps of the names that are given", () => {
  assert.equal(encodeFilter({}).length, 0);
  const many = Array.from({ length: 20 }, (_, i) => `tag ${i} ${"ü".repeat(i * 7)}`);
  assert.deepEqual(decode(encodeFilter({ tags: many, to: [] })), { to: [], tags: many });
  assert.deepEqual(decode(encodeFilter({ except: ["x".repeat(300)] })), { except: ["x".repeat(300)] });
});

test("what is cut off or made up is refused, never read past its end", () => {
  const packet = new PacketWriter();
  packet.hello({ node: randomBytes(16), boot: 1n, cluster: 2n, name: "me", version: "1" });
  const bytes = packet.end(1n, 1);
  const read = (packet) => {
    for (const message of readMessages(packet, readPacketHeader(packet).count))
      for (let i = 0; i < 3; i++) message.fields.big();
  };
  for (let size = 0; size < bytes.length; size++)
    assert.throws(() => read(bytes.subarray(0, size)), Malformed, `${size} bytes`);
  for (let i = 0; i < 5000; i++) {
    const bent = Buffer.from(bytes);
    for (let k = 0; k < 1 + i % 3; k++) bent[Math.floor(Math.random() * bent.length)] = Math.floor(Math.random() * 256);
    try { read(bent); } catch (error) { assert.ok(error instanceof Malformed, error); }
  }
});

test("a cluster's identity is XXH3 of its name", () => {
  assert.equal(clusterId("stoa"), 0x6345f2febc5a6602n);
  const printed = { // by libxxhash, seed 2, of abc...zabc...
    0: "f36cf7ecd1fcfda0", 1: "aa71cee2aadfd727", 4: "d852f779f9356fbc", 8: "0ff80b4374e6795a", 9: "ddbd0d7400088c67", 16: "e6f6a4abaac7b57d", 17: "56ac0a77ae3aac5b", 64: "6a57887d0e2c7bb1",
    128: "563f8765a033068f", 129: "624f0135a02801ac", 240: "1937f84c18491bc0",
  };
  for (const [size, hash] of Object.entries(printed)) {
    const name = Buffer.from(Array.from({ length: Number(size) }, (_, i) => 97 + i % 26));
    assert.equal(xxh3(name, 2n), BigInt(`0x${hash}`), `${size} bytes`);
  }
});

test("a message id is the beginning of the key's SHA-256", () => {
  assert.equal(messageIdOf("abc").toString("hex"), "ba7816bf8f01cfea414140de5dae2223");
});

test("a CURVE public key follows from the secret one", () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "stoa-js-"));
  try {
    const file = path.join(dir, "curve");
    const printed = stoa("keygen", file);
    const secretKey = readFileSync(file, "utf8").trim();
    const { publicKey, serverKey } = curveKeys({ secretKey });
    assert.ok(printed.includes(publicKey), "the one that stoa keygen prints");
    assert.equal(serverKey, publicKey);
    assert.throws(() => curveKeys({ secretKey, publicKey: "x".repeat(40) }), /not that of secretKey/);
    for (const bad of ["", "short", "é".repeat(40), secretKey.slice(1), 7])
      assert.throws(() => curveKeys({ secretKey: bad }), (error) =>
        /curve.secretKey: a CURVE key is 40 characters/.test(error.message) && !error.message.includes(secretKey.slice(1)));
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("endpoints are what libstoa takes", () => {
  assert.equal(parseEndpoint("host:7100"), "tcp://host:7100");
  assert.equal(parseEndpoint("tcp://[::1]:7100"), "tcp://[::1]:7100");
  assert.equal(parseEndpoint("ipc:///run/stoa/router"), "ipc:///run/stoa/router");
  for (const bad of ["host", "host:", ":7100", "host:0", "host:65536", "udp://host:1", "ipc://", `ipc:///${"x".repeat(107)}`,
    "a b:1", "::1:7100", "user@host:1", "x".repeat(400)])
    assert.throws(() => parseEndpoint(bad), { name: "StoaError", tag: "BadRequest" }, bad);
  assert.deepEqual(parseRouters(" a:1, b:2 ,"), ["tcp://a:1", "tcp://b:2"]);
  assert.throws(() => parseRouters(""), /no router given/);
  assert.throws(() => parseRouters(Array.from({ length: 17 }, (_, i) => `h:${i + 1}`)), /at most 16 routers/);
});

test("deadlines come in order, whatever is moved and removed", () => {
  const heap = new Heap();
  const nodes = Array.from({ length: 500 }, (_, i) => new HeapNode(i));
  for (const node of nodes) heap.set(node, Math.random());
  for (const node of nodes) if (node.owner % 3 === 0) heap.set(node, Math.random());
  for (const node of nodes) if (node.owner % 5 === 0) heap.remove(node);
  let last = -1, count = 0;
  for (let owner; (owner = heap.popDue(Infinity)) !== null; count++) {
    assert.ok(nodes[owner].due >= last && owner % 5 !== 0);
    last = nodes[owner].due;
  }
  assert.equal(count, 400);
  assert.equal(heap.next(), Infinity);
});
