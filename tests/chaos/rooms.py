"""Rooms with a handler under attack: a room in Lua that keeps an account of every step and tells all sockets of it, members
that say frames, leave and come back, callers that ask again under the same id until they are answered, alarms.

What everybody saw goes into the history as rules R1 to R5 of tests/check/history.h want it; the account is the room's
state in the end. Members and callers live in a process of their own, a thread each.
"""
import http.client
import json
import multiprocessing
import os
import random
import socket
import threading
import time

from clients import CONNECT_S, GONE, IDLE_S, PONG_S, RETRY_S, LiveSocket
from cluster import wait_until
from history import History
from wire import Closed, Refused, http_request

ROOMS, MEMBERS_OF_A_ROOM, CALLERS_OF_A_ROOM = 6, 3, 1
PREFIX = "tally:"
SAY_S, CALL_S, VISIT_S = 1.0, 0.5, 30.0  # means
ANSWER_S, PATIENCE_S, BACKOFF_S = 5.0, 90.0, 0.1
LOOK_S = 0.25  # a member that hears nothing looks up
ARMS = 0.2  # share of the calls that set the alarm, for ALARM_MS at most
ALARM_MS = 5000
ALARM_LATE_MS = 20000  # one that is due so long before the end has run
NUMBERS = 1 << 24
KINDS = {"c": "connect", "x": "close", "s": "say", "k": "call", "a": "arm", "r": "alarm"}

LUA = """#!room name=tally api=1
local room = require "room"
local M = { on_duplicate = "replace" }

local function step(ctx, ...)
  local s = ctx:recall() or { n = 0, steps = "" }
  s.n = s.n + 1
  s.steps = s.steps .. table.concat({ ... }, " ") .. ";"
  ctx:save(s)
  ctx:broadcast { at = s.n }
  return s.n
end

local function who(ctx)
  return ctx.connection.tags[1]
end

function M.identify(req)
  return { id = req.query.name, tags = { req.query.name .. "-" .. req.query.visit } }
end

function M.on_connect(ctx)
  step(ctx, "c", who(ctx))
end

function M.on_close(ctx)
  step(ctx, "x", who(ctx))
end

function M.on_event(ctx, msg)
  step(ctx, "s", who(ctx), msg)
end

function M.on_alarm(ctx)
  step(ctx, "r", room.now_ms())
end

M.rpc = {
  add = function(ctx, input)
    return step(ctx, "k", input.msg)
  end,
  arm = function(ctx, input)
    local due = room.now_ms() + input.ms
    ctx:schedule_at(due)
    return step(ctx, "a", input.msg, due)
  end,
}

return M
"""


class Resident(threading.Thread):
    def __init__(self, shared, name, number, room, seed):
        super().__init__(daemon=True)
        self.shared, self.name_, self.room, self.key = shared, name, room, f"{PREFIX}{room}"
        self.random = random.Random(f"{seed}/{name}")
        self.next_msg, self.at, self.failure, self.tries = number * NUMBERS, number, None, 0

    def msg(self):
        self.next_msg += 1
        return self.next_msg

    def base(self):
        return self.shared.bases[self.at % len(self.shared.bases)]

    def write(self, op, who, **members):
        self.shared.history.write(op, who=who, key=self.key, **members)

    def back_off(self):
        self.at += 1
        time.sleep(RETRY_S[min(self.tries, len(RETRY_S) - 1)])
        self.tries += 1

    def run(self):
        try:
            self.work()
        except Exception as error:  # pylint: disable=broad-except
            self.failure = f"{self.name_}: {error!r}"


class Member(Resident):
    visit, inside, heard, ends = 0, False, 0, 0

    def work(self):
        while not self.shared.over:
            if not self.stay():
                self.back_off()

    def stay(self):
        """One visit. False: it was not let in."""
        self.visit += 1
        who = f"{self.name_}-{self.visit}"
        self.write("join", who)
        try:
            connection = LiveSocket(self.base(), f"/ws/tally/{self.room}?name={self.name_}&visit={self.visit}", timeout=CONNECT_S)
        except (*GONE, Refused) as error:
            self.write("leave", who)
            if isinstance(error, Refused) and error.status not in (502, 503, 504):
                raise
            return False
        self.write("joined", who)
        self.heard, self.inside, self.tries = 0, True, 0
        try:
            self.talk(connection, who, time.monotonic() + self.random.expovariate(1 / VISIT_S))
        except GONE:
            self.ends += 1
            self.at += 1
        finally:
            self.inside = False
            self.write("leave", who)
            connection.socket.close()
        return True

    def talk(self, connection, who, until):
        heard_at, asked, say_at = time.monotonic(), False, time.monotonic()
        while not self.shared.over:
            now = time.monotonic()
            if self.shared.stormy and now > until:
                return
            if self.shared.stormy and now >= say_at:
                say_at = now + self.random.expovariate(1 / SAY_S)
                msg = self.msg()
                self.write("say", who, msg=msg)
                connection.send_json(msg)
            if now - heard_at > (IDLE_S + PONG_S if asked else IDLE_S):
                if asked:
                    raise socket.timeout
                connection.send_frame(9, b"")
                asked = True
            try:
                _, opcode, payload = connection.frame(now + LOOK_S)
            except socket.timeout:
                continue
            if self.shared.over:
                return  # the account is read: what the first who go bring about is not in it
            heard_at, asked = time.monotonic(), False
            if opcode == 8:
                raise Closed(1005)
            if opcode == 9:
                connection.send_frame(10, payload)
            if opcode == 1:
                at = json.loads(payload)["at"]
                self.write("hear", who, at=at)
                self.heard = at


class Caller(Resident):
    calls, connection, open = 0, None, False

    def work(self):
        while self.shared.stormy:
            time.sleep(self.random.expovariate(1 / CALL_S))
            self.open = True
            self.call()
            self.open = False

    def call(self):
        msg, arms = self.msg(), self.random.random() < ARMS
        body = json.dumps({"msg": msg, "ms": self.random.randrange(ALARM_MS)} if arms else {"msg": msg})
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.write("call", self.name_, msg=msg)
            at = self.tried("arm" if arms else "add", msg, body)
            if at is not None:
                break
            self.write("result", self.name_, msg=msg, result="unknown")
            assert time.monotonic() < deadline, f"call {msg} has no answer within {PATIENCE_S} s"
            time.sleep(BACKOFF_S)
        self.calls += 1
        self.write("result", self.name_, msg=msg, result="ack", at=at)

    def tried(self, method, msg, body):
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(*self.base(), timeout=ANSWER_S)
            self.connection.request("POST", f"/api/tally/{self.room}/{method}", body, {"Idempotency-Key": str(msg)})
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            if self.connection:
                self.connection.close()
            self.connection = None
            self.at += 1
            return None
        if answer.status == 200:
            return json.loads(text)
        assert answer.status in (503, 504), (answer.status, text)
        return None


class Shared:
    def __init__(self, bases, history):
        self.bases, self.history, self.stormy, self.over = bases, history, True, False


def _live(bases, path, seed, pipe, forget):
    """The process: told "begin", "calm", ("heard", {room: steps}) and "end"; says so when it is done."""
    forget()
    threading.stack_size(256 * 1024)
    shared = Shared(bases, History(path))
    members = [Member(shared, f"m{n}", n + 1, n % ROOMS, seed) for n in range(ROOMS * MEMBERS_OF_A_ROOM)]
    callers = [Caller(shared, f"caller{n}", 1 + len(members) + n, n % ROOMS, seed) for n in range(ROOMS * CALLERS_OF_A_ROOM)]
    pipe.recv()
    for one in (*members, *callers):
        one.start()
    pipe.recv()
    shared.stormy = False
    late = time.monotonic() + PATIENCE_S
    while time.monotonic() < late and (any(c.is_alive() for c in callers) or not all(m.inside or m.failure for m in members)):
        time.sleep(LOOK_S)
    pipe.send({m.name_: (m.room, m.visit) for m in members if m.inside})
    _, steps = pipe.recv()
    late = time.monotonic() + PATIENCE_S
    while time.monotonic() < late and any(m.inside and m.heard < steps[m.room] for m in members):
        time.sleep(LOOK_S)
    pipe.send("heard")
    pipe.recv()
    shared.over = True
    for one in members:
        one.join(IDLE_S + PONG_S)
    shared.history.close()
    pipe.send({"members": len(members), "visits": sum(m.visit for m in members), "ends": sum(m.ends for m in members),
               "calls": sum(c.calls for c in callers), "problems": [one.failure for one in (*members, *callers) if one.failure]})
    os._exit(0)


class Residents:
    """Made before the test has threads: it forks."""

    def __init__(self, bases, directory, seed, forget):
        fork = multiprocessing.get_context("fork")
        self.path, self.bases, self.inside, self.problems = directory / "history-rooms", bases, {}, []
        self.pipe, there = fork.Pipe()
        self.process = fork.Process(target=_live, args=(bases, self.path, seed, there, forget), daemon=True)
        self.process.start()
        there.close()

    def begin(self):
        self.pipe.send("begin")

    def calm(self):
        """Everybody is in, and every call is answered."""
        self.pipe.send("calm")
        self.inside = self.pipe.recv()

    def ask(self, room, what):
        status, _, body = http_request(self.bases[room % len(self.bases)], "GET", f"/api/tally/{room}/{what}")
        assert status == 200, (room, what, status, body)
        return json.loads(body)

    def settle(self):
        """Who is not there has left, and who is there has heard of it: then accounts do not change any more."""
        for room in range(ROOMS):
            there = {f"{name}-{visit}" for name, (where, visit) in self.inside.items() if where == room}
            try:
                wait_until("", lambda: {row["tags"][0] for row in self.ask(room, "connections")} == there, PATIENCE_S, pause=0.2)
            except AssertionError:
                self.problems.append(f"room {room} has others than {sorted(there)}: {self.ask(room, 'connections')}")
        self.pipe.send(("heard", [(self.ask(room, "state") or {"n": 0})["n"] for room in range(ROOMS)]))
        self.pipe.recv()

    def dump(self, history):
        """The accounts, as they stand when the deadline has passed."""
        for room in range(ROOMS):
            state, key = self.ask(room, "state") or {"n": 0, "steps": ""}, f"{PREFIX}{room}"
            steps = [text.split(" ") for text in state["steps"].split(";")[:-1]]
            assert len(steps) == state["n"], (room, state["n"], len(steps))
            for at, (kind, *words) in enumerate(steps, 1):
                who = words.pop(0) if kind in "cxs" else None
                msg = int(words.pop(0)) if kind in "ska" else None
                due = int(words.pop(0)) if kind in "ar" else None
                history.write("step", key=key, at=at, what=KINDS[kind], who=who, msg=msg, due=due)
            history.write("steps", key=key, at=state["n"], due=int(time.time() * 1000) - ALARM_LATE_MS)

    def end(self):
        self.pipe.send("end")
        result = self.pipe.recv()
        result["problems"] += self.problems
        self.process.join()
        return result
