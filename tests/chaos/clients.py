"""Subscribers that live through everything: raw, stoa.v1 and SSE clients that notice silence, go to another gateway,
resume where they were, and write down what they saw.

A process for each dialect, a thread for each socket. Sessions also end for no reason but a client's own. Some
stoa.v1 clients begin with nothing replayed. A client has seen the end when the marker of each key came.
"""
import http.client
import json
import multiprocessing
import os
import random
import socket
import struct
import threading
import time

from history import History, has_batches, message_of
from wire import Closed, EventStream, Refused, WebSocket, http_request

MARKER_PUBLISHER = 63
CONNECT_S, IDLE_S, PONG_S, SSE_IDLE_S = 3.0, 2.0, 3.0, 10.0
GONE = (OSError, Closed, http.client.HTTPException)
RETRY_S = (0.02, 0.05, 0.1, 0.2, 0.4)
KEYS_OF_A_SOCKET = 6  # of a stoa.v1 client
SESSION_S = 40.0  # mean of a session that nothing else ends


class Enough(Exception):
    """The client ends the session by itself."""


class LiveSocket(WebSocket):
    """Asks a silent server whether it is there."""

    def text(self, until):
        asked = False
        while True:
            if time.monotonic() > until:
                raise Enough
            try:
                _, opcode, payload = self.frame(time.monotonic() + (PONG_S if asked else IDLE_S))
            except socket.timeout:
                if asked:
                    raise
                self.send_frame(9, b"")
                asked = True
                continue
            asked = False
            if opcode == 1:
                return payload.decode()
            if opcode == 9:
                self.send_frame(10, payload)
            if opcode == 8:
                code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
                raise Closed(code, payload[2:].decode(errors="replace"))


class Client:
    def __init__(self, name, keys, bases, history, seed):
        self.name, self.keys, self.bases, self.history = name, keys, bases, history
        self.random = random.Random(seed)
        self.at = self.random.randrange(len(bases))
        self.last = {}  # where each key stands: an id, of raw clients the number in it
        self.left = set(keys)
        self.reconnects, self.refused, self.own_ends, self.failure = 0, 0, 0, None

    def run(self):
        tries = 0
        try:
            while True:
                if self.session():
                    tries = 0
                else:
                    time.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                    tries += 1
        except Exception as error:  # pylint: disable=broad-except
            self.failure = f"{self.name}: {error!r}"

    def session(self):
        """False: there was none."""
        base = self.bases[self.at % len(self.bases)]
        try:
            connection = self.open(base)
        except (*GONE, Refused) as error:
            if isinstance(error, Refused) and error.status not in (502, 503, 504):
                raise
            self.history.write("close", who=self.name)
            self.refused += 1
            self.at += 1
            return False
        try:
            self.read(connection, time.monotonic() + self.random.expovariate(1 / SESSION_S))
        except Enough:
            self.own_ends += 1
            self.at = self.random.randrange(len(self.bases))
        except GONE:
            self.reconnects += 1
            self.at += 1
        finally:
            self.history.write("close", who=self.name)
            self.shut(connection)
        return True

    def got(self, key, ident, payload):
        self.history.write("deliver", who=self.name, key=key, id=ident, msg=message_of(key, payload))
        self.last[key] = ident if ident is not None else self.last.get(key, 0) + 1
        if payload["p"] == MARKER_PUBLISHER:
            self.left.discard(key)

    def told_missed(self, key, missed, head=None):
        self.history.write("verdict", who=self.name, key=key, status="missed", from_=missed["from"], to=missed["to"],
                           reason=missed["reason"], head=head)
        self.last[key] = missed["to"]

    @staticmethod
    def shut(connection):
        connection.socket.close()


class RawClient(Client):
    """Raw frames have no ids: the position is counted, within the key's only epoch."""

    epoch = None

    def open(self, base):
        key = self.keys[0]
        if key in self.last:
            if self.epoch is None:
                self.learn_epoch(base)
            after = f"{self.epoch}-{self.last[key]}"
            self.history.write("subscribe", who=self.name, key=key, after=after)
            return LiveSocket(base, f"/events?key={key}&after={after}", timeout=CONNECT_S)
        self.history.write("subscribe", who=self.name, key=key, replay="all")
        return LiveSocket(base, f"/events?key={key}&replay=all", timeout=CONNECT_S)

    def learn_epoch(self, base):
        status, _, body = http_request(base, "GET", f"/log?key={self.keys[0]}&last=1", timeout=CONNECT_S)
        if status != 200:
            raise Refused(status, {}, body)
        self.epoch = json.loads(body)["head"].split("-")[0]

    def read(self, connection, until):
        key = self.keys[0]
        while True:
            try:
                self.got(key, None, json.loads(connection.text(until)))
            except Closed as end:
                if end.code in (4008, 4010):
                    _, since, upto, reason = end.reason.split()
                    self.told_missed(key, {"from": since, "to": upto, "reason": reason})
                    self.epoch, self.last[key] = upto.split("-")[0], int(upto.split("-")[1])
                raise


class SseClient(Client):
    def open(self, base):
        key = self.keys[0]
        after = self.last.get(key)
        if after:
            self.history.write("subscribe", who=self.name, key=key, after=after)
        else:
            self.history.write("subscribe", who=self.name, key=key, replay="all")
        stream = EventStream(base, f"/events?key={key}&replay=all", {"Last-Event-ID": after} if after else None, timeout=CONNECT_S)
        if stream.status != 200:
            stream.close()
            raise Refused(stream.status, stream.headers, b"")
        self.socket_of(stream).settimeout(SSE_IDLE_S)
        return stream

    @staticmethod
    def socket_of(stream):
        return stream.connection.sock or stream.answer.fp.raw._sock  # pylint: disable=protected-access

    def read(self, connection, until):
        key = self.keys[0]
        while time.monotonic() < until:
            event, ident, data = connection.next()
            if event == "missed":
                self.told_missed(key, json.loads(data))
            else:
                self.got(key, ident, json.loads(data))
        raise Enough

    @staticmethod
    def shut(connection):
        connection.answer.close()
        connection.close()


class V1Client(Client):
    def __init__(self, *args):
        super().__init__(*args)
        self.replay = "none" if self.random.random() < 0.3 else "all"

    def subscribe(self, connection, key):
        start = {"after": self.last[key]} if key in self.last else {"replay": self.replay}
        self.history.write("subscribe", who=self.name, key=key, **start)
        connection.send_json({"sub": key, **start})

    def open(self, base):
        connection = LiveSocket(base, "/stoa", subprotocol="stoa.v1", timeout=CONNECT_S)
        for key in self.keys:
            self.subscribe(connection, key)
        return connection

    def read(self, connection, until):
        while True:
            frame = json.loads(connection.text(until))
            if "key" in frame:
                self.got(frame["key"], frame["id"], frame["data"])
            elif frame.get("status") == "missed":
                self.told_missed(frame["sub"], frame["missed"], frame["head"])
            elif "status" in frame:
                key = frame["sub"]
                self.history.write("verdict", who=self.name, key=key, status=frame["status"], head=frame["head"])
                if key not in self.last and self.replay == "none":
                    self.last[key] = frame["head"]
            elif "error" in frame and frame["error"].get("status") in (503, 504) and "sub" in frame:
                self.refused += 1
                self.history.write("close", who=self.name, key=frame["sub"])
                self.subscribe(connection, frame["sub"])
            else:
                raise ValueError(f"told {frame}")


def _dialect(kind, name, groups, bases, path, seed, pipe, forget):
    """A process: runs its clients, says "seen" when all have seen the end, and on "end" what they met."""
    forget()
    threading.stack_size(256 * 1024)
    history = History(path)
    clients = [kind(f"{name}-{n}", keys, bases, history, f"{seed}/{name}/{n}") for n, keys in enumerate(groups)]
    for client in clients:
        threading.Thread(target=client.run, daemon=True).start()
    said = False
    while not pipe.poll(0.05):
        if not said and all(not client.left or client.failure for client in clients):
            pipe.send("seen")
            said = True
    history.close()
    behind = [f"{c.name} still waits for {sorted(c.left)[:4]}" for c in clients if c.left and not c.failure]
    pipe.send({"clients": len(clients), "reconnects": sum(c.reconnects for c in clients), "own_ends": sum(c.own_ends for c in clients),
               "refused": sum(c.refused for c in clients), "problems": [c.failure for c in clients if c.failure] + behind})
    os._exit(0)


class Audience:
    """The clients of all dialects. Made before the test has threads: it forks."""

    def __init__(self, keys, bases, directory, seed, forget, raw, v1, sse):
        fork = multiprocessing.get_context("fork")
        picks = random.Random(f"{seed}/audience")

        without = [key for key in keys if not has_batches(key)]
        groups = {"raw": [[without[n % len(without)]] for n in range(raw)], "sse": [[picks.choice(keys)] for _ in range(sse)],
                  "v1": [picks.sample(keys, KEYS_OF_A_SOCKET) for _ in range(v1)]}
        self.parts = []
        for kind, name in ((RawClient, "raw"), (V1Client, "v1"), (SseClient, "sse")):
            here, there = fork.Pipe()
            path = directory / f"history-{name}"
            process = fork.Process(target=_dialect, args=(kind, name, groups[name], bases, path, seed, there, forget), daemon=True)
            process.start()
            there.close()
            self.parts.append((name, process, here, path))

    def wait_seen(self, deadline):
        """Until every client has seen the end; False: not in time."""
        return all([here.poll(max(0, deadline - time.monotonic())) and here.recv() == "seen" for _, _, here, _ in self.parts])

    def end(self):
        """{dialect: what its clients met}."""
        results = {}
        for name, process, here, _ in self.parts:
            here.send("end")
            results[name] = here.recv()
            if results[name] == "seen":
                results[name] = here.recv()
            process.join()
        return results
