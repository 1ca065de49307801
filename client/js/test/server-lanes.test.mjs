/**
 * The publisher's core against a shard that the test plays, with a clock of its own: links break, answers are lost and
 * late, publishes are refused, the shard forgets whom it knew, callers give up. Of every run: what was acknowledged is
 * stored, once, where it was said; what was refused is not; the events of a key lie in the order in which they were
 * submitted; and when the world is well again everything ends.
 */
import assert from "node:assert/strict";
import { test } from "node:test";

import { encode } from "@msgpack/msgpack";

import { StoaError } from "../dist/errors.js";
import { Lanes } from "../dist/server/lanes.js";
import { checkOrder, messageIdOf, Publish } from "../dist/server/publish.js";
import { FieldReader, MSG, NACK } from "../dist/server/wire.js";

const SEEDS = 250;

function randomness(seed) {
  let state = seed + 0x9e3779b9;
  const next = () => { // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, below: (n) => Math.floor(next() * n), random64: () => BigInt(Math.floor(next() * 2 ** 32)) * 2n ** 32n + 1n };
}

const fieldsOf = (...values) => new FieldReader(Buffer.concat(values.map((value) => Buffer.from(encode(value)))), 0, values.length);

/** What a shard does with a PUB. */
class Shard {
  rooms = new Map();

  room(key) {
    if (!this.rooms.has(key)) this.rooms.set(key, { log: [], ids: new Map(), pids: new Map(), floor: 0 });
    return this.rooms.get(key);
  }

  publish({ fields, pid, pseq, ts }) {
    if (fields.ephemeral) return { type: MSG.PACK, fields: [0, 0, 1, 0, 0] };
    const room = this.room(fields.key.toString());
    const id = fields.messageId.toString("hex");
    const last = room.pids.get(pid) ?? 0;
    const known = room.ids.get(id);
    if (known) {
      room.pids.set(pid, Math.max(last, pseq));
      return { type: MSG.PACK, fields: [7, known.seq, 1, 1, 0] };
    }
    if (ts <= room.floor) return { type: MSG.NACK, fields: [NACK.STALE, 0, 0, "", 0] };
    if (pseq !== last + 1) return { type: MSG.NACK, fields: [NACK.ORDER, 0, last + 1, "", 0] };
    room.pids.set(pid, pseq);
    room.log.push(id);
    room.ids.set(id, { seq: room.log.length, ts });
    return { type: MSG.PACK, fields: [7, room.log.length, 1, 0, 0] };
  }

  /** The idempotency window of its older half is over. */
  forget(room) {
    for (const [id, { ts }] of [...room.ids].slice(0, room.ids.size / 2)) {
      room.floor = Math.max(room.floor, ts);
      room.ids.delete(id);
    }
  }
}

class World {
  constructor(seed) {
    this.random = randomness(seed);
    this.shard = new Shard();
    this.now = 0;
    this.ill = true;
    this.link = null;
    this.submitted = new Map(); // key -> [{ id, outcome }]
    this.pending = new Set();
    this.lanes = new Lanes(this.random, { messages: 1 + this.random.below(40), bytes: Infinity }, (publish, outcome) => {
      this.pending.delete(publish);
      assert.equal(publish.record.outcome, undefined, "told once");
      publish.record.outcome = outcome;
    });
  }

  connect() {
    const link = { up: true, requests: [], answers: [], pub: (cid, fields, pid, pseq, ts) => link.requests.push({ cid, fields, pid, pseq, ts }) };
    this.link = link;
    this.lanes.use(link, { name: "", version: "", windowMessages: 256, windowBytes: 2 ** 20 }, this.now);
  }

  disconnect() {
    for (const request of this.link.requests) if (this.random.next() < 0.5) this.shard.publish(request); // but nobody hears of it
    this.link = null;
    this.lanes.use(null, null, this.now);
  }

  submit() {
    const key = `key${this.random.below(4)}`;
    const record = { id: undefined, outcome: undefined };
    if (!this.submitted.has(key)) this.submitted.set(key, []);
    const list = this.submitted.get(key);
    const timeout = this.random.next() < 0.2 ? 1 + this.random.below(3000) : 600_000;
    const order = checkOrder(key, [list.length], false, { ephemeral: this.random.next() < 0.1, timeout }, 1);
    const publish = new Publish(order, messageIdOf(`${key}/${list.length}`), () => {});
    record.id = order.ephemeral ? null : publish.messageId.toString("hex");
    publish.record = record;
    list.push(record);
    this.pending.add(publish);
    this.lanes.submit(publish, this.now);
  }

  /** The shard takes a request, or refuses it. */
  serve() {
    const request = this.link?.requests.shift();
    if (!request) return;
    const codes = [NACK.BUSY, NACK.RATE, NACK.MOVED, NACK.NOTOWNER, NACK.FROZEN, NACK.DISK];
    const answer = this.ill && this.random.next() < 0.1
      ? { type: MSG.NACK, fields: [codes[this.random.below(codes.length)], this.random.below(50), 0, "shard-1", 3] }
      : this.shard.publish(request);
    this.link.answers.push({ cid: request.cid, ...answer });
  }

  hear() {
    const answer = this.link?.answers.shift();
    if (answer) this.lanes.message(answer.type, BigInt(answer.cid), fieldsOf(...answer.fields), this.now);
  }

  trouble() {
    const what = this.random.below(7);
    if (what === 0 && this.link) this.disconnect();
    if (what === 1 && this.link) { // the router has lost its shard: some answers never come
      this.link.answers.length = 0;
      this.lanes.message(MSG.LOST, 0n, fieldsOf(0), this.now);
    }
    if (what === 2) for (const room of this.shard.rooms.values()) if (this.random.next() < 0.3) room.pids.clear();
    if (what === 3 && this.pending.size > 0) {
      const [publish] = [...this.pending].slice(this.random.below(this.pending.size));
      this.lanes.giveUp(publish, new StoaError("Aborted", 0, "gone"), this.now);
    }
    if (what === 4) this.now += this.random.below(8000);
    if (what === 6) for (const room of this.shard.rooms.values()) if (this.random.next() < 0.1) this.shard.forget(room);
    if (what === 5 && this.link) this.link.answers.shift(); // lost without a word: silence is noticed
  }

  step() {
    const what = this.random.next();
    if (!this.link && this.random.next() < 0.2) this.connect();
    if (this.ill && what < 0.02) this.trouble();
    else if (this.ill && what < 0.3) this.submit();
    else if (what < 0.6) this.serve();
    else this.hear();
    this.now += this.random.below(5);
    this.lanes.turn(this.now, 1_700_000_000_000 + this.now);
  }

  heal() {
    this.ill = false;
    for (let i = 0; this.pending.size > 0; i++) {
      assert.ok(i < 20_000, `${this.pending.size} never end`);
      this.step();
      // time passes where everybody waits for it
      if (i % 50 === 49) this.now = Math.max(this.now, Math.min(this.lanes.deadline(), this.now + 10_000));
    }
  }

  judge() {
    for (const [key, records] of this.submitted) {
      const { log } = this.shard.room(key);
      assert.equal(new Set(log).size, log.length, "stored twice");
      const stored = records.filter(({ id }) => id !== null && log.includes(id)).map(({ id }) => id);
      assert.deepEqual(log, stored, `order of ${key}`);
      for (const { id, outcome } of records) {
        assert.notEqual(outcome, undefined);
        if (id === null) continue;
        if (outcome.ok) assert.equal(outcome.id, `7-${log.indexOf(id) + 1}`);
        else if (outcome.error.tag !== "Unknown") assert.ok(!log.includes(id), `${outcome.error.tag}, and stored`);
      }
    }
    assert.equal(this.lanes.stats.inFlight, 0);
  }
}

test(`${SEEDS} runs with broken links, refusals and a shard that forgets`, () => {
  const seen = { ok: 0, duplicates: 0, tags: new Set() };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const world = new World(seed);
    try {
      for (let i = 0; i < 1500; i++) world.step();
      world.heal();
      world.judge();
    } catch (error) {
      error.message = `seed ${seed}: ${error.message}`;
      throw error;
    }
    for (const records of world.submitted.values())
      for (const { outcome } of records) {
        if (outcome.ok) seen.ok++; else seen.tags.add(outcome.error.tag);
        if (outcome.duplicate) seen.duplicates++;
      }
  }
  assert.ok(seen.ok > 10_000 && seen.duplicates > 100, "the runs have seen enough");
  assert.deepEqual([...seen.tags].filter((tag) => ["Unknown", "Aborted", "Unreachable"].includes(tag)).length, 3);
});
