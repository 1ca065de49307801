"""Nothing acknowledged is lost, twice or out of order while every process is killed; every reader gets the log."""
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from cluster import Cluster, free_port, monitor_get, wait_until
from load import Ack, Hammer, HttpPublisher, Ledger, check_gaps, check_logs, check_readers, check_sessions, publish_markers, read_log
from readers import MISSED, Audience
from wire import http_request

KEYS = 200
ALL_KEYS = [f"d:{k}" for k in range(KEYS)]
ROUNDS = 4
WITHIN_S = 220
IN_TURN = ("shard-0", "router-0", "gateway-0", "shard-1", "router-1", "gateway-1")


def is_sanitized(bin_dir):
    return b"__asan_init" in (pathlib.Path(bin_dir) / "stoa-shard").read_bytes()


class Supervised:
    """`stoa up` in a directory of its own: 2 routers, 2 shards, 2 gateways; killed processes come back."""

    def __init__(self, bin_dir, extra=""):
        self.extra = extra
        self.stoa = pathlib.Path(bin_dir).resolve() / "stoa"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="stoa-test-"))
        self.data = self.dir / "data"

    def __enter__(self):
        try:
            port = free_port(2)
            self.gateways = [("127.0.0.1", port), ("127.0.0.1", port + 1)]
            config = self.dir / "stoa.yaml"
            config.write_text("cluster: { name: durable }\n" + self.extra)
            up = subprocess.run([self.stoa, "up", "-d", "--routers", "2", "--shards", "2", "--gateways", "2", "--config", config,
                                 "--data", self.data, "--listen", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=150)
            assert up.returncode == 0, up.stderr + up.stdout
        except BaseException:
            self.__exit__(AssertionError)
            raise
        self.routers = ",".join(f"ipc://{self.data}/run/router-{n}" for n in range(2))
        return self

    def __exit__(self, kind, *_):
        down = subprocess.run([self.stoa, "down", "--data", self.data], capture_output=True, text=True, timeout=150)
        if kind is not None:
            for path in sorted(self.data.glob("logs/*.log")):
                print(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-12:]), flush=True)
        reports = [path.name for path in self.data.glob("logs/*.log") if "Sanitizer" in path.read_text(errors="replace")]
        shutil.rmtree(self.dir, ignore_errors=True)
        if kind is None:
            assert down.returncode == 0, down.stderr + down.stdout
            assert not reports, f"sanitizer reports in {reports}"

    def processes(self):
        with contextlib.suppress(json.JSONDecodeError):  # it is written anew while we read
            return {p["name"]: p for p in json.loads((self.data / "run/cluster.json").read_text())["processes"]}
        return {}

    def running(self, name, other_than):
        """The process of this name when it is ready and not the one that was killed."""
        p = self.processes().get(name)
        if p and p["pid"] and p["pid"] != other_than and monitor_get(int(p["monitor"].split(":")[1]), "/readyz")[0] == 200:
            return p
        return None


def start_publishers(ledger, bin_dir, dir, routers, cluster, gateways, events, rate, libstoa, http, keys=ALL_KEYS):
    """`events` in all, at `rate` in all."""
    count = libstoa + http
    shares = [events // count + (n < events % count) for n in range(count)]
    hammer = pathlib.Path(bin_dir) / "stoa-hammer"
    deadline = time.monotonic() + WITHIN_S
    publishers = [Hammer(ledger, hammer, n, routers, cluster, shares[n], "d:", len(keys), rate / count, WITHIN_S, dir / f"hammer-{n}.log")
                  for n in range(libstoa)]
    publishers += [HttpPublisher(ledger, n, gateways, shares[n], keys, rate / count, deadline) for n in range(libstoa, count)]
    for publisher in publishers:
        publisher.start()
    return publishers


class Killer:
    def __init__(self, cluster):
        self.cluster = cluster
        self.last = {}
        self.count = collections.Counter()
        self.gateways = collections.defaultdict(list)

    def kill(self, *names):
        """Kills these at once, each when it has come back from the last time."""
        victims = [wait_until(f"{name} is back", lambda n=name: self.cluster.running(n, self.last.get(n)), 60) for name in names]
        for victim in victims:
            role, index = victim["name"].split("-")
            if role == "gateway":
                self.gateways[int(index)].append(time.monotonic())
            os.kill(victim["pid"], signal.SIGKILL)
            self.last[victim["name"]] = victim["pid"]
            self.count[role] += 1

    def wait_all(self):
        for name in IN_TURN:
            wait_until(f"{name} is back", lambda n=name: self.cluster.running(n, self.last.get(n)), 60)


def test_the_oracle_objects(bin_dir):
    """Each promise broken in a made-up log, ledger or reader is found: what follows would not pass unseen."""
    def event(seq, publisher, number, epoch="e"):
        return f"{epoch}-{seq}", {"p": publisher, "n": number}

    def reader(got, **more):
        return {"RawReader": [{"keys": ["k"], "failure": None, "missed": 0, "sessions": [], "events": {"k": got}, **more}]}
    good = [event(1, 0, 1), event(2, 1, 1), event(3, 0, 2)]
    ledger = Ledger()
    ledger.add([Ack(0, "k", 2, "e-3", False, 0.0, 1.0)])
    check_logs({"k": good}, ledger)
    check_readers(reader(good), {"k": good})
    check_sessions(reader(good, sessions=[(0, 1.0, 2.0, "")]), {0: [1.5]})
    truth = {"k": {1: (0, 1), 2: (1, 1), 3: (0, 2)}}
    assert check_gaps(reader([event(1, 0, 1), (MISSED, {"from": "e-1", "to": "e-2"}), event(3, 0, 2)]), truth, {"k": 3}, 1) == 1
    broken = {
        "a gap": lambda: check_logs({"k": [good[0], good[2]]}, ledger),
        "two histories": lambda: check_logs({"k": [good[0], good[1], event(3, 0, 2, "f")]}, ledger),
        "lost": lambda: check_logs({"k": good[:2]}, ledger),
        "twice": lambda: check_logs({"k": [*good, event(4, 1, 1)]}, ledger),
        "out of order": lambda: check_logs({"k": [event(1, 0, 2), event(2, 1, 1), event(3, 0, 1)]}, ledger),
        "another id": lambda: check_logs({"k": [good[0], event(2, 0, 2), event(3, 1, 1)]}, ledger),
        "read twice": lambda: check_readers(reader([*good, good[2]]), {"k": good}),
        "read in another order": lambda: check_readers(reader([good[1], good[0], good[2]]), {"k": good}),
        "not read": lambda: check_readers(reader(good[:2]), {"k": good}),
        "told of a gap": lambda: check_readers(reader(good, missed=1), {"k": good}),
        "a gap untold": lambda: check_gaps(reader([event(1, 0, 1), event(3, 0, 2)]), truth, {"k": 3}, 1),
        "a gap too wide": lambda: check_gaps(reader([event(1, 0, 1), (MISSED, {"from": "e-1", "to": "e-3"})]), truth, {"k": 3}, 1),
        "a gap from elsewhere": lambda: check_gaps(reader([(MISSED, {"from": "e-0", "to": "e-2"}), event(2, 1, 1)]), truth, {"k": 3}, 1),
        "ended alone": lambda: check_sessions(reader(good, sessions=[(0, 1.0, 2.0, "")]), {0: [2.5], 1: [1.5]}),
    }
    for what, check in broken.items():
        try:
            check()
        except AssertionError:
            continue
        raise AssertionError(f"the oracle let pass: {what}")
    return f"{len(broken)} ways to break a promise"


def test_killed_in_turn(bin_dir):
    """Every process is killed in turn, alone, then with a neighbour, at last all at once; publishers stay."""
    slow = is_sanitized(bin_dir)
    events, rate = (20000, 500) if slow else (100000, 2500)
    keys = ALL_KEYS
    victims = [[name] for name in IN_TURN] * (ROUNDS - 1)
    victims += [[name, IN_TURN[(n + 2) % len(IN_TURN)]] for n, name in enumerate(IN_TURN)]
    victims.append(list(IN_TURN))
    with Supervised(bin_dir) as c, Audience(keys, c.gateways, WITHIN_S) as audience:
        ledger, killer, deadline = Ledger(), Killer(c), time.monotonic() + WITHIN_S
        publishers = start_publishers(ledger, bin_dir, c.dir, c.routers, "durable", c.gateways, events, rate, libstoa=5, http=3)
        try:
            for n, names in enumerate(victims):
                ledger.wait(events * (n + 1) // (len(victims) + 2), deadline)
                killer.kill(*names)
            ledger.wait(events, deadline)
            published = time.monotonic()
            for publisher in publishers:
                publisher.join(30)
            assert not ledger.problems, ledger.problems[:5]
        finally:
            for publisher in publishers:
                publisher.end()
        killer.wait_all()
        publish_markers(c.gateways, keys, deadline)
        results = audience.results()
        caught_up = time.monotonic()
        logs = {key: read_log(c.gateways[0], key) for key in keys}
        for key in keys[::10]:
            assert read_log(c.gateways[1], key) == logs[key], f"{key}: two gateways, two logs"
        check_logs(logs, ledger)
        assert sum(len(log) for log in logs.values()) == events + KEYS
        check_readers(results, logs)
        reconnects = check_sessions(results, killer.gateways)
        pause, slowest = ledger.longest()
        recognised = sum(ack.duplicate for ack in ledger.acks)
        return (f"{events} events, {KEYS} keys, 8 publishers; kills {dict(killer.count)}; longest pause of acks {pause:.2f} s, slowest ack "
                f"{slowest:.2f} s; {recognised} found stored on a retry; {reconnects} reconnects, {sum(r['refused'] for l in results.values() for r in l)} "
                f"refused meanwhile; all delivered {caught_up - published:.2f} s after the last ack")


def connections(base, key):
    status, _, body = http_request(base, "GET", f"/connections?key={key}")
    return json.loads(body) if status == 200 else []


def test_gaps_are_told_as_they_are(bin_dir):
    """A log that keeps three events: who comes back is told exactly what it did not get, whoever was killed."""
    slow, kept = is_sanitized(bin_dir), 3
    events, rate = (6000, 500) if slow else (20000, 2000)
    keys = [f"d:{k}" for k in range(20)]
    victims = [[name] for name in IN_TURN] + [["shard-0", "gateway-0"], ["shard-1", "gateway-1"]]
    with Supervised(bin_dir, f"types: {{ events: {{ retention: {{ count: {kept} }} }} }}\n") as c, Audience(keys, c.gateways, WITHIN_S) as audience:
        ledger, killer, deadline = Ledger(), Killer(c), time.monotonic() + WITHIN_S
        for key in keys:  # a raw reader that comes late could not count
            wait_until(f"{key} has a reader of each dialect", lambda k=key: len(connections(c.gateways[0], k)) == 3)
        publishers = start_publishers(ledger, bin_dir, c.dir, c.routers, "durable", c.gateways, events, rate, 3, 1, keys)
        try:
            for n, names in enumerate(victims):
                ledger.wait(events * (n + 1) // (len(victims) + 2), deadline)
                killer.kill(*names)
            ledger.wait(events, deadline)
            for publisher in publishers:
                publisher.join(30)
            assert not ledger.problems, ledger.problems[:5]
        finally:
            for publisher in publishers:
                publisher.end()
        killer.wait_all()
        publish_markers(c.gateways, keys, deadline)
        results = audience.results()
        truth = {key: {} for key in keys}
        for ack in ledger.acks:
            number = int(ack.id.split("-")[1])
            assert number not in truth[ack.key], f"{ack.id} is acknowledged twice"
            truth[ack.key][number] = (ack.publisher, ack.number)
        heads = {key: len(truth[key]) + 1 for key in keys}
        for key in keys:
            ids = [int(ident.split("-")[1]) for ident, _ in read_log(c.gateways[0], key, may_miss=True)]
            assert ids == list(range(heads[key] - kept + 1, heads[key] + 1)), (key, ids, heads[key])
        gaps = check_gaps(results, truth, heads, kept)
        assert gaps > 0, "nobody was away long enough"
        reconnects = check_sessions(results, killer.gateways)
        return f"{events} events, kills {dict(killer.count)}, {reconnects} reconnects, {gaps} gaps told"


def stopped_and_continued(bin_dir, victim, witnesses, more_while_stopped):
    """A process under SIGSTOP until its silence took its links down, then SIGCONT: no socket ends, nothing is missed."""
    events, rate = (4000, 500) if is_sanitized(bin_dir) else (12000, 2000)
    keys = ALL_KEYS
    with Cluster(bin_dir, shards=2, routers=2, gateways=2) as c, Audience(keys, [g.base for g in c.gateways], WITHIN_S) as audience:
        ledger, deadline = Ledger(), time.monotonic() + WITHIN_S
        others = [g.base for g in c.gateways if g is not victim(c)]
        publishers = start_publishers(ledger, bin_dir, c.dir, ",".join(c.publish_endpoints), "test", others, events, rate, libstoa=6, http=2)
        try:
            ledger.wait(events // 10, deadline)
            links = [p.metric("stoa_links") for p in witnesses(c)]
            victim(c).child.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            try:
                wait_until("the silence is noticed", lambda: all(p.metric("stoa_links") < n for p, n in zip(witnesses(c), links)))
                ledger.wait(len(ledger.acks) + (events // 10 if more_while_stopped else 0), deadline)
            finally:
                victim(c).child.send_signal(signal.SIGCONT)
            stopped = time.monotonic() - began
            ledger.wait(events, deadline)
            for publisher in publishers:
                publisher.join(30)
            assert not ledger.problems, ledger.problems[:5]
        finally:
            for publisher in publishers:
                publisher.end()
        publish_markers([g.base for g in c.gateways], keys, deadline)
        results = audience.results()
        logs = {key: read_log(c.base, key) for key in keys}
        check_logs(logs, ledger)
        assert sum(len(log) for log in logs.values()) == events + KEYS
        check_readers(results, logs)
        check_sessions(results, {})
        pause, slowest = ledger.longest()
        return f"{events} events, stopped {stopped:.2f} s; longest pause of acks {pause:.2f} s, slowest ack {slowest:.2f} s"


def test_gateway_stopped_and_continued(bin_dir):
    return stopped_and_continued(bin_dir, lambda c: c.gateways[0], lambda c: c.shards, more_while_stopped=True)


def test_shard_stopped_and_continued(bin_dir):
    return stopped_and_continued(bin_dir, lambda c: c.shards[0], lambda c: [*c.gateways, *c.routers], more_while_stopped=False)


def test_router_stopped_and_continued(bin_dir):
    return stopped_and_continued(bin_dir, lambda c: c.routers[0], lambda c: c.shards, more_while_stopped=True)
