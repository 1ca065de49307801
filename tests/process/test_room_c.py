"""Rooms in C: the counter of examples/ in a real cluster, as a shared library that the shards open."""
import json
import pathlib
import shutil
import signal
import subprocess
import threading

from cluster import Cluster, wait_until
from wire import Refused, WebSocket, http_request


def library(bin_dir, name="counter"):
    return pathlib.Path(bin_dir).resolve().parent / "rooms" / f"{name}.so"


def types(path, more=""):
    return f"types: {{ counter: {{ handler: {path}{more} }} }}\n"


def ask(c, path, body=None, method="POST", headers=None, gateway=0):
    """(status, JSON) of a route of /api/counter/."""
    status, _, text = http_request(c.gateways[gateway].base, method, f"/api/counter/{path}",
                                   None if body is None else json.dumps(body).encode(), headers)
    return status, json.loads(text)


def call(c, path, body=None, **more):
    status, value = ask(c, path, body, **more)
    assert status == 200, (path, status, value)
    return value


def join(c, room, name, gateway=0):
    socket = WebSocket(c.gateways[gateway].base, f"/ws/counter/{room}" + (f"?name={name}" if name is not None else ""))
    return socket, socket.recv_json()["count"]


def test_counter(bin_dir):
    """Frames, direct sends and methods; who one is; what is refused says why."""
    with Cluster(bin_dir, extra=types(library(bin_dir)), gateways=2) as c:
        assert call(c, "a/state", method="GET") is None and call(c, "a/get") == 0
        ann, count = join(c, "a", "ann")
        assert count == 0
        bob, count = join(c, "a", "b%20%C3%A9", gateway=1)
        assert count == 0
        ann.send_json({"add": 2})
        assert ann.recv_json() == bob.recv_json() == {"count": 2}
        for junk in ("hello", "{}", '{"add":1.5}', '{"add":"1"}', '{"add":1'):
            bob.send(junk)  # nobody is told; the socket stays
        bob.send_json({"add": -5})
        assert ann.recv_json() == bob.recv_json() == {"count": -3}
        assert ask(c, "a/send", {"add": 1}) == (200, {"ok": True})
        assert ann.recv_json() == bob.recv_json() == {"count": -2}
        assert ask(c, "a/send", {"plus": 1})[0] == 400
        assert call(c, "a/add", {"by": 40}, gateway=1) == 38
        assert ann.recv_json() == bob.recv_json() == {"count": 38}
        status, answer = ask(c, "a/add", {"by": 10 ** 12})
        assert status == 409 and answer["error"]["tag"] == "OutOfRange", answer
        status, answer = ask(c, "a/add", {"by": "1"})
        assert status == 400 and answer["error"] == {"tag": "RoomValidationError", "message": "`by` is a whole number"}, answer
        assert ask(c, "a/fly")[0] == 404
        assert call(c, "a/connections", method="GET") == [
            {"id": "ann", "tags": [], "state": {"added": 2}}, {"id": "b \u00e9", "tags": [], "state": {"added": -5}}]
        try:
            join(c, "a", "")
            raise AssertionError("an empty name was let in")
        except Refused as refused:
            assert refused.status == 400 and b"name must not be empty" in refused.body, (refused.status, refused.body)
        ann.send("ping")  # the table's auto_response, by the gateway
        assert ann.recv() == "pong"
        assert ask(c, "a/alarm") == (200, {"ok": True})
        assert ann.recv_json() == bob.recv_json() == {"count": 0}
        assert ask(c, "a", method="DELETE")[0] == 200
        assert call(c, "a/state", method="GET") is None
        ann.close()
        bob.close()


def test_counter_waits(bin_dir):
    """A run that sleeps lets others pass; siblings answer across shards."""
    with Cluster(bin_dir, extra=types(library(bin_dir)), shards=2) as c:
        ann, _ = join(c, "w", "ann")
        later = []
        thread = threading.Thread(target=lambda: later.append(call(c, "w/add_later", {"by": 100, "ms": 1500})))
        thread.start()
        adds = 0
        while thread.is_alive():
            adds += 1
            assert call(c, "w/add") in (adds, adds + 100)
        thread.join()
        assert adds > 1 and 101 <= later[0] <= adds + 100 and call(c, "w/get") == adds + 100, (adds, later)
        assert ask(c, "w/add_later", {"ms": 30_001})[0] == 500
        for n in range(8):  # on whatever shard they are
            assert call(c, f"s{n}/copy", {"from": "w"}) == adds + 100
            assert call(c, f"t{n}/copy", {"from": f"never{n}"}) == 0
        assert call(c, "w/copy", {"from": "w"}) == adds + 100  # itself
        ann.drop()


def test_counter_shard_killed(bin_dir):
    """kill -9 of the shard under load: nothing that was answered is lost, nothing is done twice, sockets stay."""
    with Cluster(bin_dir, extra=types(library(bin_dir))) as c:
        ann, _ = join(c, "k", "ann")
        total = 0
        for kill in range(3):
            for n in range(30):
                if n == 15:
                    c.shards[0].kill()
                    c.shards[0].start()
                ann.send_json({"add": 1})
                total += 1
            c.shards[0].ready()
        counts = [ann.recv_json(timeout=60)["count"] for _ in range(total)]
        assert counts == list(range(1, total + 1)), counts
        assert call(c, "k/get") == total
        assert call(c, "k/connections", method="GET")[0]["state"] == {"added": total}
        key = {"Idempotency-Key": "once"}
        assert call(c, "k/add", {"by": 5}, headers=key) == total + 5
        c.shards[0].kill()
        c.shards[0].start().ready()
        assert call(c, "k/add", {"by": 5}, headers=key) == total + 5  # the answer that it got
        assert call(c, "k/get") == total + 5
        ann.close()


def test_crash(bin_dir):
    """A room that crashes takes its shard's process and nothing else: sockets stay, what was answered is there."""
    with Cluster(bin_dir, extra=types(library(bin_dir, "crash"))) as c:
        ann, bob = (WebSocket(c.base, "/ws/counter/c") for _ in range(2))
        ann.send_json({"n": 1})
        assert ann.recv_json() == bob.recv_json() == {"n": 1}
        answers = []
        thread = threading.Thread(target=lambda: answers.append(ask(c, "c/crash")))
        thread.start()
        assert c.shards[0].child.wait(timeout=60) == -signal.SIGABRT
        ann.send_json({"n": 2})  # while nobody is there
        c.shards[0].start().ready()
        assert ann.recv_json() == bob.recv_json() == {"n": 2}
        assert call(c, "c/state", method="GET") == {"n": 2}
        thread.join()
        assert answers == [(200, "survived")], answers  # asked again, as nothing of the first time is there
        assert ann.close() == bob.close() == 1000


def test_refused_libraries(bin_dir):
    """What is no room is refused at start: one line with the file and the reason."""
    with Cluster(bin_dir) as c:
        text = c.dir / "text.so"
        text.write_text("this is no library")
        for path, words in ((library(bin_dir, "missing"), "No such file"), (text, "text.so"),
                            (library(bin_dir, "refused/plugin_none"), "no symbol stoa_room_plugin"),
                            (library(bin_dir, "refused/plugin_old"), "ABI 8"),
                            (library(bin_dir, "refused/plugin_null"), "build it anew")):
            config = c.dir / "bad.yaml"
            config.write_text(c.config.read_text() + types(path))
            shard = subprocess.run([c.bin / "stoa-shard", "--config", config, "--index", "0", "--data", c.dir / "bad"],
                                   capture_output=True, text=True, timeout=60)
            assert shard.returncode in (1, 2), (path, shard)
            line = shard.stderr.strip().splitlines()[-1]
            assert str(path) in line and words in line, (path, shard.stderr)


def test_library_replaced(bin_dir):
    """A new library under a new name is taken at a reload; sockets and state stay."""
    with Cluster(bin_dir) as c:
        first, second = c.dir / "one.so", c.dir / "two.so"
        shutil.copy(library(bin_dir), first)
        shutil.copy(library(bin_dir), second)
        with open(second, "ab") as file:  # what has the same bytes is not loaded anew
            file.write(b"another version")
        plain = c.config.read_text()
        c.config.write_text(plain + types(first))
        for process in c.all:
            process.stop()
            process.start()
        for process in c.all:
            process.ready()
        ann, _ = join(c, "r", "ann")
        assert call(c, "r/add", {"by": 3}) == 3 and ann.recv_json() == {"count": 3}
        c.config.write_text(plain + types(second))
        c.shards[0].child.send_signal(signal.SIGHUP)
        mapped = f"/proc/{c.shards[0].child.pid}/maps"
        wait_until("the new library", lambda: "two.so" in pathlib.Path(mapped).read_text())
        ann.send_json({"add": 4})
        assert ann.recv_json() == {"count": 7}
        assert call(c, "r/get") == 7
        wait_until("the old one goes", lambda: "one.so" not in pathlib.Path(mapped).read_text())
        ann.close()


def test_library_replaced_in_place(bin_dir):
    """A new library under the old name is taken, too, and so is the next; one that does not load is refused, and said so."""
    with Cluster(bin_dir) as c:
        path = c.dir / "room.so"

        def put(name):
            shutil.copy(library(bin_dir, name), c.dir / "next.so")
            (c.dir / "next.so").rename(path)  # what is mapped must not change under the shard
            c.shards[0].child.send_signal(signal.SIGHUP)

        def refused():
            status, _, text = http_request(c.gateways[0].base, "GET", "/quarantine")
            assert status == 200, text
            return json.loads(text)["refused"]
        shutil.copy(library(bin_dir), path)
        c.config.write_text(c.config.read_text() + types(path))
        for process in c.all:
            process.stop()
            process.start()
        for process in c.all:
            process.ready()
        assert call(c, "r/add", {"by": 3}) == 3
        for _ in range(2):
            put("crash")  # its method `add` is none
            wait_until("the other one", lambda: ask(c, "r/add", {"by": 1})[0] == 404)
            put("refused/plugin_none")
            (row,) = wait_until("the refusal", refused)
            assert row["name"] == "shard-0" and "no symbol stoa_room_plugin" in row["why"], row
            assert ask(c, "r/add", {"by": 1})[0] == 404
            put("counter")
            wait_until("the first one again", lambda: ask(c, "r/add", {"by": 0})[0] == 200)
            assert refused() == []
        assert call(c, "r/get") >= 3
