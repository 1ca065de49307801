"""Publishers whose every acknowledgement is kept, and the oracle that holds a log and its readers to them."""
import collections
import http.client
import json
import random
import subprocess
import threading
import time

from readers import MARKER, MISSED
from wire import http_request

NO_ANSWER = (OSError, http.client.HTTPException)
PACE_S = 0.005
Ack = collections.namedtuple("Ack", "publisher key number id duplicate submitted acknowledged")


class Ledger:
    """Acknowledgements, from all publishers."""

    def __init__(self):
        self.lock = threading.Condition()
        self.acks, self.problems = [], []

    def add(self, acks):
        with self.lock:
            self.acks += acks
            self.lock.notify_all()

    def problem(self, text):
        with self.lock:
            self.problems.append(text)
            self.lock.notify_all()

    def wait(self, count, deadline):
        """Until so many events are acknowledged."""
        with self.lock:
            while len(self.acks) < count:
                assert not self.problems, self.problems[:5]
                left = deadline - time.monotonic()
                assert left > 0, f"{len(self.acks)} of {count} events acknowledged in time"
                self.lock.wait(min(left, 1.0))

    def longest(self):
        """(longest time without any acknowledgement, longest from submission to acknowledgement), seconds."""
        times = sorted(ack.acknowledged for ack in self.acks)
        return max((b - a for a, b in zip(times, times[1:])), default=0.0), max(a.acknowledged - a.submitted for a in self.acks)


class Hammer(threading.Thread):
    """A publisher on libstoa: stoa-hammer, its lines read by this thread."""

    def __init__(self, ledger, binary, publisher, routers, cluster, events, prefix, keys, rate, timeout_s, log_path):
        super().__init__(daemon=True)
        self.ledger, self.publisher, self.prefix = ledger, publisher, prefix
        command = [binary, routers, cluster, publisher, events, keys, prefix, max(1, int(rate)), int(timeout_s * 1000)]
        with open(log_path, "ab") as log:
            self.child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=log)

    def run(self):
        for line in self.child.stdout:
            words = line.decode().split()
            if len(words) != 6:
                self.ledger.problem(f"publisher {self.publisher}: {line!r}")
                continue
            key, number, ident, duplicate, submitted, acknowledged = words
            self.ledger.add([Ack(self.publisher, self.prefix + key, int(number), ident, duplicate == "1",
                                 int(submitted) / 1000, int(acknowledged) / 1000)])
        if self.child.wait() != 0:
            self.ledger.problem(f"publisher {self.publisher} ended with {self.child.returncode}")

    def end(self):
        self.child.kill()
        self.child.wait()


class HttpPublisher(threading.Thread):
    """A publisher on POST /publish: what was not answered with 200 is repeated under the same Idempotency-Key,
    through the next gateway, until it is. Every second request is a batch."""

    def __init__(self, ledger, publisher, gateways, events, keys, rate, deadline):
        super().__init__(daemon=True)
        self.ledger, self.publisher, self.gateways, self.events, self.keys = ledger, publisher, gateways, events, keys
        self.rate, self.deadline = rate, deadline
        self.numbers = collections.Counter()
        self.random = random.Random(publisher)
        self.at, self.retries, self.connection, self.ended = publisher, 0, None, False

    def run(self):
        try:
            self.publish_all()
        except Exception as error:
            self.ledger.problem(f"publisher {self.publisher}: {error!r}")
        finally:
            if self.connection:
                self.connection.close()

    def end(self):
        self.ended = True
        self.join()

    def publish_all(self):
        began, done = time.monotonic(), 0
        while done < self.events and not self.ended:
            early = began + done / self.rate - time.monotonic()
            if early > 0:
                time.sleep(max(early, PACE_S))
            size = min(self.events - done, self.random.choice((1, self.random.randint(2, 16))))
            self.publish(self.random.choice(self.keys), size)
            done += size

    def publish(self, key, size):
        first = self.numbers[key] + 1
        self.numbers[key] += size
        body = "\n".join(json.dumps({"p": self.publisher, "n": n, "pad": "0" * 128}) for n in range(first, first + size))
        headers = {"Idempotency-Key": f"{self.publisher}/{first}"}
        if size > 1:
            headers["Content-Type"] = "application/x-ndjson"
        submitted = time.monotonic()
        answer = self.until_done(f"/publish?key={key}", body, headers)
        now = time.monotonic()
        epoch, last = answer["id"].split("-")
        self.ledger.add([Ack(self.publisher, key, first + i, f"{epoch}-{int(last) - size + 1 + i}", answer["duplicate"], submitted, now)
                         for i in range(size)])

    def until_done(self, target, body, headers):
        while not self.ended:
            assert time.monotonic() < self.deadline, f"{target}: never answered with 200"
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(*self.gateways[self.at % len(self.gateways)], timeout=60)
                self.connection.request("POST", target, body, headers)
                answer = self.connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    return json.loads(text)
                assert answer.status in (503, 504), (answer.status, text)
            except NO_ANSWER:
                self.connection.close()
                self.connection = None
                self.at += 1
            self.retries += 1
            time.sleep(PACE_S * min(self.retries, 10))
        raise AssertionError("ended by the test")


def until_published(gateways, key, payload, idempotency, deadline):
    """One event, through whichever gateway answers."""
    publisher = HttpPublisher(Ledger(), 0, gateways, 1, [key], 1, deadline)
    try:
        return publisher.until_done(f"/publish?key={key}", json.dumps(payload), {"Idempotency-Key": idempotency})
    finally:
        if publisher.connection:
            publisher.connection.close()


def publish_markers(gateways, keys, deadline):
    for key in keys:
        until_published(gateways, key, MARKER, "marker", deadline)


def read_log(base, key, may_miss=False):
    """All that is retained: [(id, payload)]."""
    events, after = [], "0"
    while True:
        status, _, body = http_request(base, "GET", f"/log?key={key}&after={after}&limit=1000")
        assert status == 200, (key, status, body)
        page = json.loads(body)
        assert may_miss or "missed" not in page, (key, page["missed"])
        events += [(event["id"], event["data"]) for event in page["events"]]
        if not page["more"]:
            assert not events or events[-1][0] == page["head"], (key, events[-1][0], page["head"])
            return events
        after = events[-1][0]


def check_logs(logs, ledger):
    """Nothing acknowledged is missing or elsewhere, nothing is twice, each publisher's events are in its order."""
    for key, events in logs.items():
        assert len({ident.split("-")[0] for ident, _ in events}) <= 1, f"{key}: more than one history"
        seqs = [int(ident.split("-")[1]) for ident, _ in events]
        assert seqs == list(range(1, len(seqs) + 1)), f"{key}: ids with gaps"
        last = collections.Counter()
        for ident, payload in events:
            if payload == MARKER:
                continue
            publisher, number = payload["p"], payload["n"]
            assert number == last[publisher] + 1, f"{key} {ident}: number {number} of publisher {publisher} after {last[publisher]}"
            last[publisher] = number
    at = {key: dict(events) for key, events in logs.items()}
    for ack in ledger.acks:
        stored = at[ack.key].get(ack.id)
        assert stored is not None, f"acknowledged and not there: {ack}"
        assert (stored["p"], stored["n"]) == (ack.publisher, ack.number), f"acknowledged as another event: {ack}, {stored}"
    assert len({(a.publisher, a.key, a.number) for a in ledger.acks}) == len(ledger.acks), "acknowledged twice"


def check_readers(results, logs):
    """Every reader got exactly the log, and was told of no gap."""
    for dialect, readers in results.items():
        for reader in readers:
            assert reader["failure"] is None, f"{dialect} {reader['keys'][:2]}: {reader['failure']}"
            assert not reader["missed"], f"{dialect} {reader['keys'][:2]}: told of gaps where there are none"
            for key, got in reader["events"].items():
                log = logs[key]
                if dialect == "RawReader":
                    same = [payload for _, payload in got] == [payload for _, payload in log]
                else:
                    same = got == log
                assert same, f"{dialect} {key}: {difference(got, log)}; sessions {reader['sessions']}"


def check_gaps(results, truth, heads, kept):
    """Where a log keeps only its last `kept` events: what a reader got and what it was told to be missing make up the
    whole history, each event once, in order. `truth` is {key: {number of the id: (publisher, number)}}."""
    gaps = 0
    for dialect, readers in results.items():
        for reader in readers:
            assert reader["failure"] is None, f"{dialect} {reader['keys'][:2]}: {reader['failure']}"
            for key, got in reader["events"].items():
                gaps += check_tiles(f"{dialect} {key}", got, truth[key], heads[key], kept)
    return gaps


def check_tiles(who, got, truth, head, kept):
    at, gaps = None, 0
    for ident, payload in got:
        if ident == MISSED:
            since, upto = (int(payload[end].split("-")[1]) for end in ("from", "to"))
            assert at is None or since == at, f"{who}: told {payload} when it was at {at}"
            assert since < upto <= head - kept, f"{who}: told {payload}, the head is {head}"
            at, gaps = upto, gaps + 1
            continue
        at = at + 1 if at is not None else int(ident.split("-")[1]) if ident else 1
        assert ident is None or int(ident.split("-")[1]) == at, f"{who}: {ident} where {at} follows"
        mine = None if payload == MARKER else (payload["p"], payload["n"])
        assert mine == truth.get(at), f"{who}: at {at} {mine} instead of {truth.get(at)}"
    assert at == head, f"{who}: ends at {at}, the head is {head}"
    return gaps


def difference(got, log):
    """Where a reader's events leave the log."""
    for n, (mine, theirs) in enumerate(zip(got, log)):
        if mine[1] != theirs[1] or (mine[0] is not None and mine[0] != theirs[0]):
            return f"at {n} of {len(log)} (got {len(got)}): {short(mine)} where the log has {short(theirs)}"
    return f"got {len(got)} events, the log has {len(log)}"


def short(event):
    ident, payload = event
    return ident, {k: v for k, v in payload.items() if k != "pad"}


def check_sessions(results, kills):
    """A socket ended only because its gateway was killed; `kills` is {gateway: [times]}."""
    reconnects = 0
    for dialect, readers in results.items():
        for reader in readers:
            for gateway, began, ended, why in reader["sessions"]:
                assert any(began <= t <= ended for t in kills.get(gateway, ())), \
                    f"{dialect} {reader['keys'][0]}: a socket of gateway {gateway} ended without need: {why}, open {ended - began:.3f} s"
                reconnects += 1
    return reconnects
