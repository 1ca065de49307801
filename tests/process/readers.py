"""Subscribers that survive their gateway: they reconnect to the next one and resume from where they were.

One process for each dialect, a thread for each socket. What each key's reader was given is compared with the
log afterwards, so a reader keeps everything: events, misses that it was told, and every connection with its
beginning, its end and the reason. A reader ends at the event whose payload is MARKER.
"""
import json
import multiprocessing
import threading
import time

from wire import Closed, EventStream, Refused, WebSocket, http_request

MARKER = {"marker": True}
MISSED = "missed"
RETRY_S = (0.02, 0.05, 0.1, 0.2, 0.4)
KEYS_PER_V1_SOCKET = 25


class ToldMissed(Exception):
    """A raw socket was closed with 4010 or 4008."""


class Reader:
    """What its keys' readers got: `events` is {key: [(id or None, payload) or (MISSED, {"from","to","reason"})]}, and
    `last` where each key stands: an id, of raw readers the number in it."""

    def __init__(self, keys, gateways, first):
        self.keys, self.gateways, self.at = keys, gateways, first
        self.events = {key: [] for key in keys}
        self.last = {}
        self.missed, self.sessions, self.refused = 0, [], 0
        self.failure = None
        self.left = set(keys)

    def run(self, deadline):
        tries = 0
        while self.left:
            if time.monotonic() > deadline:
                counts = {key: len(self.events[key]) for key in sorted(self.left)[:5]}
                self.failure = f"no marker in time for {len(self.left)} keys, so far {counts}; last sessions {self.sessions[-3:]}"
                return
            gateway, began = self.at % len(self.gateways), time.monotonic()
            try:
                connection = self.open(self.gateways[gateway])
            except (OSError, Closed, Refused, ValueError) as error:
                self.refused += 1
                self.at += 1
                if isinstance(error, Refused) and error.status != 503:
                    self.failure = f"gateway {gateway}: {error}"
                    return
                time.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1
                continue
            tries = 0
            try:
                self.read(connection, deadline)
            except ToldMissed:
                pass
            except (OSError, Closed, ValueError) as error:
                self.sessions.append((gateway, began, time.monotonic(), repr(error)))
                self.at += 1
            finally:
                self.shut(connection)

    def got(self, key, ident, payload):
        if payload == MARKER:
            self.left.discard(key)
        self.events[key].append((ident, payload))
        self.last[key] = ident if ident is not None else self.last.get(key, 0) + 1

    def told_missed(self, key, missed):
        self.missed += 1
        self.events[key].append((MISSED, missed))
        self.last[key] = missed["to"]

    @staticmethod
    def left_s(deadline):
        return max(0.1, deadline - time.monotonic())


class RawReader(Reader):
    """Raw frames have no ids: the position is counted, within the key's only epoch."""

    def open(self, base):
        key = self.keys[0]
        where = "replay=all"
        if key in self.last:
            status, _, body = http_request(base, "GET", f"/log?key={key}&last=1")
            if status != 200:
                raise Closed(status, "no log")
            where = f"after={json.loads(body)['head'].split('-')[0]}-{self.last[key]}"
        return WebSocket(base, f"/events?key={key}&{where}")

    def read(self, connection, deadline):
        while self.left:
            try:
                self.got(self.keys[0], None, json.loads(connection.recv(self.left_s(deadline))))
            except Closed as end:
                if end.code not in (4008, 4010):
                    raise
                word, since, upto, reason = end.reason.split()
                assert word == "missed", end.reason
                self.told_missed(self.keys[0], {"from": since, "to": upto, "reason": reason})
                self.last[self.keys[0]] = int(upto.split("-")[1])
                raise ToldMissed from None

    @staticmethod
    def shut(connection):
        connection.socket.close()


class SseReader(Reader):
    def open(self, base):
        key = self.keys[0]
        stream = EventStream(base, f"/events?key={key}&replay=all", {"Last-Event-ID": self.last[key]} if key in self.last else None)
        if stream.status != 200:
            stream.close()
            raise Refused(stream.status, {}, b"")
        return stream

    def read(self, connection, deadline):
        connection.connection.sock and connection.connection.sock.settimeout(self.left_s(deadline))
        while self.left:
            event, ident, data = connection.next()
            if event == "missed":
                self.told_missed(self.keys[0], json.loads(data))
                assert ident == self.last[self.keys[0]], (ident, data)
                continue
            assert ident is not None, "an event without id"
            self.got(self.keys[0], ident, json.loads(data))

    @staticmethod
    def shut(connection):
        connection.close()


class V1Reader(Reader):
    def subscribe(self, connection, key):
        connection.send_json({"sub": key, "after": self.last[key]} if key in self.last else {"sub": key, "replay": "all"})

    def open(self, base):
        connection = WebSocket(base, "/stoa", subprotocol="stoa.v1")
        for key in self.keys:
            self.subscribe(connection, key)
        return connection

    def read(self, connection, deadline):
        while self.left:
            frame = connection.recv_json(self.left_s(deadline))
            if "key" in frame:
                self.got(frame["key"], frame["id"], frame["data"])
            elif "error" in frame:
                self.refused += 1
                if "sub" not in frame or frame["error"].get("status") != 503:
                    self.failure = f"told {frame}"
                    self.left.clear()
                    return
                self.subscribe(connection, frame["sub"])
            elif frame.get("status") == "missed":
                self.told_missed(frame["sub"], frame["missed"])
            elif "unsub" in frame:
                self.failure = f"the server ended a subscription: {frame}"
                self.left.clear()
                return

    @staticmethod
    def shut(connection):
        connection.socket.close()


def _dialect(kind, keys, gateways, deadline, answer):
    """The process of a dialect: runs its readers to the end and sends what they got."""
    threading.stack_size(256 * 1024)
    size = KEYS_PER_V1_SOCKET if kind is V1Reader else 1
    readers = [kind(keys[n:n + size], gateways, n // size) for n in range(0, len(keys), size)]
    threads = [threading.Thread(target=reader.run, args=(deadline,), daemon=True) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer.send([vars(reader) for reader in readers])
    answer.close()


class Audience:
    """Readers of every key in every dialect; `with` ends them. Made before the test has threads: it forks."""

    def __init__(self, keys, gateways, within_s, kinds=(RawReader, SseReader, V1Reader)):
        fork = multiprocessing.get_context("fork")
        deadline = time.monotonic() + within_s
        self.parts = []
        for kind in kinds:
            here, there = fork.Pipe(duplex=False)
            process = fork.Process(target=_dialect, args=(kind, keys, gateways, deadline, there), daemon=True)
            process.start()
            there.close()
            self.parts.append((kind.__name__, process, here))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _, process, here in self.parts:
            here.close()
            process.kill()
            process.join()

    def results(self):
        """{dialect: [reader as a dict]}, once all have ended."""
        return {name: here.recv() for name, _, here in self.parts}
