"""Rooms asked through libstoa: every function, errors, streams, retries while processes are killed, and the command."""
import itertools
import json
import os
import pathlib
import queue
import random
import signal
import subprocess
import threading

from cluster import SANITIZED, Cluster, wait_until
from test_surface_cli import Stoa
from wire import Closed, WebSocket, http_request


EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
LEDGER = pathlib.Path(__file__).resolve().parent / "ledger.lua"
TYPES = f"types: {{ ledger: {{ handler: {LEDGER} }}, plain: {{}} }}\n"
OK, TIMEOUT, UNKNOWN, BUSY, TOO_LARGE, DENIED, DISK, MISSED, INVALID, NOMEM, CLOSED, ROOM = range(0, -12, -1)
BOTH = ("poll", "thread")


class Answer:
    def __init__(self, fields, items):
        self.code, self.items = int(fields[0]), items
        self.status, self.duplicate, self.tag, self.message, self.data = 0, 0, "", "", ""
        if len(fields) > 1:
            self.status, self.duplicate, self.tag, self.message, self.data = int(fields[1]), int(fields[2]), *fields[3:6]

    @property
    def value(self):
        assert self.code == OK, (self.code, self.tag, self.message)
        return json.loads(self.data)


class Asker:
    """bin/stoa-asker; ask() gives the Answer, begin() a handle for answer()."""

    def __init__(self, bin_dir, routers, mode="poll", cluster="test"):
        self.child = subprocess.Popen([str(pathlib.Path(bin_dir) / "stoa-asker"), routers, cluster, mode], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **SANITIZED})
        self.numbers, self.waiting, self.items, self.lock = itertools.count(1), {}, {}, threading.Lock()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.child.stdout:
            number, *fields = line.rstrip("\n").split("\t")
            if fields[0] == "item":
                self.items[number].append(json.loads(fields[1]))
            else:
                self.waiting[number].put(Answer(fields, self.items[number]))

    def begin(self, verb, key, name="", value=None, key_of_retry="", timeout_ms=0, how="a", raw=None):
        number = str(next(self.numbers))
        text = raw if raw is not None else "" if value is None else json.dumps(value)
        self.waiting[number], self.items[number] = queue.Queue(), []
        with self.lock:
            self.child.stdin.write("\t".join((number, how, verb, key, name, text, key_of_retry, str(timeout_ms))) + "\n")
            self.child.stdin.flush()
        return number

    def answer(self, number, within=90):
        try:
            answer = self.waiting[number].get(timeout=within)
        except queue.Empty:
            raise AssertionError(f"no outcome of {number} within {within} s") from None
        assert self.waiting[number].empty(), "told twice"
        return answer

    def ask(self, *words, how="w", **more):
        return self.answer(self.begin(*words, how=how, **more))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.child.stdin.close()
        status = self.child.wait(timeout=60)
        self.reader.join()
        told = self.child.stderr.read()
        self.child.stdout.close()
        self.child.stderr.close()
        assert kind is not None or status == 0, (status, told)


def routers_of(c):
    return ",".join(c.publish_endpoints)


def ended(socket):
    """The code with which the server closes it."""
    try:
        return f"not closed: {socket.recv()}"
    except Closed as closed:
        return closed.code


def test_every_verb(bin_dir):
    """Waiting and by callback, with the library's thread and without: the same answers."""
    with Cluster(bin_dir, shards=2, extra=TYPES) as c:
        for mode, how in itertools.product(BOTH, "wa"):
            key = f"ledger:{mode}-{how}"
            with Asker(bin_dir, routers_of(c), mode) as asker:
                def ask(*words, **more):
                    return asker.ask(*words, how=how, **more)
                assert ask("state", key).value is None
                assert [ask("call", key, "put").value for _ in range(3)] == [1, 2, 3]
                assert ask("send", key, value={"a": "ü\u0000"}).value is None
                assert ask("state", key).value == {"count": 3, "sent": [{"a": "ü\u0000"}]}
                assert ask("connections", key).value == []
                ann = WebSocket(c.base, f"/ws/ledger/{key[7:]}?user=ann")
                assert [row["id"] for row in ask("connections", key).value] == ["ann"]
                assert [row["id"] for row in ask("connections", key, "user:ann").value] == ["ann"]
                assert ask("connections", key, "user:bob").value == []
                assert ask("broadcast", key, value={"all": 1}).value is None
                assert ann.recv_json() == {"all": 1}
                assert ask("alarm", key).value is None
                assert ann.recv_json() == {"alarm": 3}
                assert ask("close", key, "4001").value is None
                assert ended(ann) == 4001
                wait_until("the room is empty", lambda: ask("connections", key).value == [])
                assert list(ask("purge", key).value) == ["purged"]
                assert ask("state", key).value is None
                assert ask("call", key, "nothing").value is None


def test_errors(bin_dir):
    """Each with its code, and the room's with tag, message, status and data."""
    with Cluster(bin_dir, extra=TYPES) as c, Asker(bin_dir, routers_of(c)) as asker:
        for how in "wa":
            def refused(*words, code=ROOM, **more):
                answer = asker.ask(*words, how=how, **more)
                assert answer.code == code, (words, answer.code, answer.tag, answer.message)
                return answer
            sold = refused("call", "ledger:1", "fail", {"row": 7})
            assert (sold.status, sold.tag, sold.message, json.loads(sold.data)) == (410, "SoldOut", "no seat is left", {"row": 7})
            raised = refused("call", "ledger:1", "raise")
            assert (raised.status, raised.tag) == (500, "RoomExecutionError") and "secret" not in raised.message
            missing = refused("call", "ledger:1", "no_such")
            assert (missing.status, missing.tag) == (404, "NoSuchMethod")
            plain = refused("send", "plain:1", value=1)
            assert (plain.status, plain.tag) == (409, "NoHandler")
            refused("send", "ledger:1", raw="{not json", code=INVALID)
            refused("send", "ledger:1", raw="", code=INVALID)
            refused("call", "ledger:1", "", code=INVALID)
            refused("call", "$ledger:1", "put", code=INVALID)
            refused("close", "ledger:1", "42", code=INVALID)
            refused("call", "ledger:1", "put", key_of_retry="k" * 256, code=INVALID)
            slow = refused("call", "ledger:1", "wait", {"ms": 20000}, timeout_ms=300, code=UNKNOWN)
            assert (slow.status, slow.tag) == (504, "Unknown"), slow.message
            assert asker.ask("call", f"ledger:{how}", "put").value == 1  # another room goes on


def test_nobody_there(bin_dir):
    """Without a cluster nothing has run when the time is over; what is asked before it is up is answered then."""
    c = Cluster(bin_dir, extra=TYPES)
    try:
        for mode in BOTH:
            with Asker(bin_dir, routers_of(c), mode) as asker:
                for how in "wa":
                    late = asker.ask("call", "ledger:1", "put", how=how, timeout_ms=200)
                    assert (late.code, late.status, late.tag) == (TIMEOUT, 503, "Moving")
        with Asker(bin_dir, routers_of(c)) as asker:
            early = asker.begin("call", "ledger:1", "put", timeout_ms=60000)
            with c:
                assert asker.answer(early).value == 1
    finally:
        if c.dir.exists():
            c.__exit__(AssertionError)


def test_retries_are_answered(bin_dir):
    """The same key again, from another client, after the shard's death, and while the first still runs."""
    with Cluster(bin_dir, extra=TYPES) as c:
        with Asker(bin_dir, routers_of(c)) as one, Asker(bin_dir, routers_of(c), "thread") as two:
            first = one.ask("call", "ledger:1", "put", key_of_retry="a")
            assert (first.value, first.duplicate) == (1, 0)
            again = two.ask("call", "ledger:1", "put", key_of_retry="a")
            assert (again.value, again.duplicate) == (1, 1)
            status, headers, _ = http_request(c.base, "POST", "/api/ledger/1/put", headers={"Idempotency-Key": "a"})
            assert status == 200 and {k.lower(): v for k, v in dict(headers).items()}["stoa-duplicate"] == "1"
            refusal = one.ask("call", "ledger:1", "fail", {"row": 1}, key_of_retry="b")
            again = two.ask("call", "ledger:1", "fail", {"row": 2}, key_of_retry="b")
            assert (again.code, again.tag, again.data, again.duplicate) == (ROOM, "SoldOut", refusal.data, 1)
            c.shards[0].kill()
            c.shards[0].start().ready()
            assert (two.ask("call", "ledger:1", "put", key_of_retry="a").duplicate, one.ask("state", "ledger:1").value["count"]) == (1, 1)
            assert one.ask("call", "ledger:1", "wait", {"ms": 1500}, key_of_retry="c", timeout_ms=200).code == UNKNOWN
            assert one.ask("call", "ledger:1", "wait", {"ms": 9}, key_of_retry="c").value == 1500


def test_streams(bin_dir):
    """Items come one by one and in order before the outcome; without a taker they are one array."""
    with Cluster(bin_dir, extra=TYPES) as c:
        for mode, how in itertools.product(BOTH, "wa"):
            with Asker(bin_dir, routers_of(c), mode) as asker:
                whole = asker.ask("call", "ledger:1", "list", {"n": 3}, how=how)
                assert whole.value == [{"n": 1, "pad": ""}, {"n": 2, "pad": ""}, {"n": 3, "pad": ""}, "end"] and whole.items == []
                taken = asker.ask("call", "ledger:1", "list", {"n": 500, "pad": 1000}, how=how + "i")
                assert taken.value == "end" and [item["n"] for item in taken.items] == list(range(1, 501))
                slow = asker.begin("call", "ledger:1", "list", {"n": 3, "ms": 300}, how=how + "i")
                wait_until("the first item is there before the end",
                           lambda: asker.items[slow] or not asker.waiting[slow].empty(), pause=0.001)
                assert asker.waiting[slow].empty() and len(asker.answer(slow).items) == 3
                single = asker.ask("call", "ledger:2", "put", how=how + "i")
                assert single.code == OK and single.items == []
        with Asker(bin_dir, routers_of(c)) as asker:
            cut = asker.begin("call", "ledger:1", "list", {"n": 40, "ms": 100}, how="ai", timeout_ms=60000)
            wait_until("an item", lambda: asker.items[cut])
            c.shards[0].kill()
            c.shards[0].start().ready()
            end = asker.answer(cut)
            assert end.code == MISSED and json.loads(end.data) == "end", (end.code, end.tag, end.message)


def test_count_survives_kills(bin_dir):
    """Clients ask with an id until they are answered, while shards and routers are killed: each id counts once."""
    kills, keys, clients, at_once = 40, 6, 3, 40
    victims, killed = random.Random(7), []
    answers, problems = {key: {} for key in range(keys)}, []

    def answered():
        return sum(map(len, answers.values()))

    def ask_all(asker, pending):
        """Each of {id: key} until it is answered."""
        while pending:
            begun = {name: asker.begin("call", f"ledger:{key}", "put", key_of_retry=name, timeout_ms=2000) for name, key in pending.items()}
            for name, number in begun.items():
                answer = asker.answer(number)
                if answer.code != OK:
                    assert answer.code in (TIMEOUT, UNKNOWN), (answer.code, answer.tag, answer.message)
                    continue
                assert answers[pending[name]].setdefault(name, answer.value) == answer.value, name
                del pending[name]

    with Cluster(bin_dir, shards=2, routers=2, extra=TYPES) as c:
        def client(n):
            """Two clients ask under the same ids, so that some are asked by both at once."""
            try:
                with Asker(bin_dir, routers_of(c), BOTH[n % 2]) as asker:
                    for batch in itertools.count():
                        ask_all(asker, {f"{n // 2}-{batch}-{i}": i % keys for i in range(at_once)})
                        if len(killed) >= kills:
                            return
            except BaseException as problem:
                problems.append(problem)
        threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        while len(killed) < kills and not problems:
            victim = victims.choice([*c.shards, *c.routers])
            victim.kill(signal.SIGKILL)
            victim.start().ready()
            killed.append(victim.name)
            before = answered()
            wait_until("answers go on after a kill", lambda: problems or answered() >= before + 5, 60)
        for thread in threads:
            thread.join()
        assert not problems, problems
        with Asker(bin_dir, routers_of(c)) as asker:
            for key, ids in answers.items():
                count = asker.ask("state", f"ledger:{key}").value["count"]
                assert count == len(ids) and sorted(ids.values()) == list(range(1, count + 1)), (key, count, len(ids))
    return f"{answered()} ids, {kills} kills"


def test_rates(bin_dir):
    """More than a type's rate takes longer, and runs once; with no time for that nothing runs."""
    with Cluster(bin_dir, extra=f"types: {{ ledger: {{ handler: {LEDGER}, rate: {{ room: 20/s }} }} }}\n") as c, \
            Asker(bin_dir, routers_of(c)) as asker:
        begun = [asker.begin("call", "ledger:1", "put") for _ in range(50)]
        assert sorted(asker.answer(number).value for number in begun) == list(range(1, 51))
        hasty = [asker.answer(number) for number in [asker.begin("call", "ledger:1", "put", timeout_ms=500) for _ in range(60)]]
        kinds = [(answer.code, answer.status, answer.tag) for answer in hasty]
        done, maybe, late = kinds.count((OK, 200, "")), kinds.count((UNKNOWN, 504, "Unknown")), kinds.count((TIMEOUT, 429, "RateLimited"))
        assert late and done + maybe + late == len(hasty), kinds
        assert 50 + done <= asker.ask("state", "ledger:1").value["count"] <= 50 + done + maybe


def test_example(bin_dir):
    """examples/asker beside the rooms that it asks: what it prints, and that a second run counts nothing."""
    rooms = pathlib.Path(bin_dir).resolve().parent / "rooms"
    types = f"types: {{ counter: {{ handler: {rooms / 'counter.so'} }}, poll: {{ handler: {EXAMPLES / 'poll' / 'poll.lua'} }} }}\n"
    with Cluster(bin_dir, extra=types) as c:
        def run():
            ran = subprocess.run([str(pathlib.Path(bin_dir) / "stoa-example-asker"), routers_of(c), "counter:visits", "poll:lunch"],
                                 capture_output=True, text=True, timeout=60, env={**os.environ, **SANITIZED, "STOA_CLUSTER": "test"})
            assert ran.returncode == 0 and ran.stderr == "", (ran.returncode, ran.stderr)
            return sorted(ran.stdout.splitlines())
        refused = 'counter:visits: OutOfRange (409): the counter ends at 1000000000000 {"by":1000000000000}'
        closing = "the poll ends at a time that is known: 1"
        assert run() == sorted(["counter:visits: 2", "counter:visits: 2 (had been done)", refused, closing])
        assert run() == sorted(["counter:visits: 2 (had been done)"] * 2 + [refused, closing])


def test_command(bin_dir):
    """stoa room with --router says what it says through a gateway."""
    with Cluster(bin_dir, extra=TYPES) as c:
        (c.dir / "cli.yaml").write_text("cluster: { name: test }\n")
        stoa = Stoa(bin_dir, STOA_SERVER="http://%s:%d" % c.base, STOA_CONFIG=str(c.dir / "cli.yaml"))

        def both(*words, **more):
            there = stoa("room", "--router", routers_of(c), *words, **more)
            here = stoa("room", *words, **more)
            assert there.stderr == here.stderr, (there.stderr, here.stderr)
            return there.stdout, here.stdout
        assert both("call", "ledger:1", "put") == ("1\n", "2\n")
        assert both("call", "-k", "mine", "ledger:1", "put") == ("3\n", "3\n")
        assert both("send", "ledger:1", '{"x":1}') == ('{"ok":true}\n',) * 2
        assert both("send", "-k", "k", "ledger:1", "-", input="2") == ('{"ok":true}\n', '{"ok":true,"duplicate":true}\n')
        assert both("broadcast", "ledger:1", "3") == ('{"ok":true}\n',) * 2
        assert both("alarm", "ledger:1") == ('{"ok":true}\n',) * 2
        state = both("state", "ledger:1")
        assert state[0] == state[1] and json.loads(state[0])["sent"] == [{"x": 1}, {"x": 1}, 2]
        ann = WebSocket(c.base, "/ws/ledger/1?user=ann")
        rows = both("connections", "ledger:1")
        assert rows[0] == rows[1] and rows[0].startswith('ann\t["user:ann"]\t'), rows
        assert both("connections", "-t", "no", "ledger:1") == ("", "")
        assert both("close", "-c", "4000", "ledger:1") == ("{}\n",) * 2
        assert ended(ann) == 4000
        both("call", "ledger:1", "fail", '{"row":1}', status=1)
        both("call", "ledger:1", "no_such", status=1)
        assert "NoHandler" in stoa("room", "--router", routers_of(c), "send", "plain:1", "1", status=1).stderr
        purged = both("purge", "ledger:1")
        assert purged[0] == purged[1] and list(json.loads(purged[0])) == ["purged"], purged
        late = stoa("room", "--router", f"ipc://{c.dir}/nobody", "--timeout", "0.3", "state", "ledger:1", status=1)
        assert "Moving" in late.stderr
