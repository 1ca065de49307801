"""Histories of the checker's format (tests/check/history.h), and what the messages of this test carry."""
import json
import threading
import time

PUBLISHERS = 64  # at most; also the markers' is below
NUMBERS = 1 << 24


def has_batches(key):
    """Raw clients read only keys without: without ids the events of a batch cannot be told apart."""
    return int(key.rsplit(":", 1)[1]) % 2 == 1


def message(publisher, key, number):
    """The MSG of a publish: publisher, key and number in one. Keys end in their number."""
    return (int(key.rsplit(":", 1)[1]) * PUBLISHERS + publisher) * NUMBERS + number


def message_of(key, payload):
    return message(payload["p"], key, payload["n"])


class History:
    """Lines for one file; `now` is the clock of all (CLOCK_MONOTONIC, nanoseconds)."""

    def __init__(self, path):
        self.file = open(path, "w", buffering=1 << 16)
        self.lock = threading.Lock()

    @staticmethod
    def now():
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def write(self, op, t=None, **members):
        line = {"op": op, "t": self.now() if t is None else t, **{name.rstrip("_"): v for name, v in members.items() if v is not None}}
        text = json.dumps(line, separators=(",", ":")) + "\n"
        with self.lock:
            self.file.write(text)

    def close(self):
        with self.lock:
            self.file.close()
