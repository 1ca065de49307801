"""Rates of types: what one socket says to one room, and all that comes to a room. A rate of a few an hour lets exactly one pass,
however slow the machine is; bursts are held against rates that no test outlasts."""
import contextlib
import json
import pathlib
import signal
import tempfile

from cluster import Cluster, monitor_get, wait_until
from test_surface_cli import stoa_of
from wire import Closed, WebSocket, http_request

ROOM = """#!room name=echo api=1
local M = {}

function M.identify(req)
  return { id = req.query.id or "anon" }
end

function M.on_event(ctx, e)
  local state = ctx:recall() or { heard = 0 }
  state.heard = state.heard + 1
  ctx:save(state)
  ctx:broadcast(e)
end

function M.on_close(ctx, info)
  local state = ctx:recall() or { heard = 0 }
  state.code, state.clean = info.code, info.clean
  ctx:save(state)
end

M.rpc = {
  heard = function(ctx)
    return (ctx:recall() or { heard = 0 }).heard
  end,
}

return M
"""

# One frame of a socket; one event of a room; each with both ways to end; and one with room for a burst.
RATES = {
    "one": "{ connection: 6/h }",
    "oned": "{ connection: 6/h, over: drop }",
    "full": "{ room: 6/h }",
    "fulld": "{ room: 6/h, over: drop }",
    "burst": "{ connection: 5/s, over: drop }",
    "free": "{ connection: 0, room: 0 }",
}


@contextlib.contextmanager
def cluster_of(bin_dir, rates=RATES, events=""):
    with tempfile.TemporaryDirectory(prefix="stoa-room-") as folder:
        path = pathlib.Path(folder) / "echo.lua"
        path.write_text(ROOM)

        def types(rates, events=""):
            lines = [f"  {name}: {{ handler: {path}, rate: {rate} }}\n" for name, rate in rates.items()]
            return "types:\n" + "".join(lines) + (f"  events: {{ rate: {events} }}\n" if events else "")
        with Cluster(bin_dir, extra=types(rates, events)) as c:
            c.types = types
            yield c


def ask(c, method, path, body=None, key=None):
    status, headers, text = http_request(c.base, method, path, None if body is None else json.dumps(body).encode(),
                                         {"Idempotency-Key": key} if key else {})
    return status, headers, json.loads(text)


def limited(answer, seconds):
    """429, and when to come back: the bucket of one is full again in ten minutes, less what has passed since."""
    status, headers, body = answer
    assert status == 429 and body["error"]["tag"] == "RateLimited", answer
    assert seconds - 60 <= int(headers["retry-after"]) <= seconds, headers


def join(c, room, who="ann"):
    return WebSocket(c.base, f"/ws/{room}?id={who}")


def state(c, room):
    return ask(c, "GET", f"/api/{room}/state")[2]


def samples(process, name):
    lines = monitor_get(process.monitor, "/metrics")[1].splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)}


def refused(c):
    return samples(c.gateways[0], "stoa_refused_total")['stoa_refused_total{tag="RateLimited"}']


def test_socket_is_closed(bin_dir):
    """The second frame closes the socket it came by, 1008; the room hears of it, others hear nothing of it."""
    with cluster_of(bin_dir) as c:
        ann, bob, far = join(c, "one/r"), join(c, "one/r", "bob"), join(c, "one/s")
        ann.send("1")
        assert ann.recv() == bob.recv() == "1"
        ann.send("2")
        try:
            ann.recv()
            raise AssertionError("still open")
        except Closed as end:
            assert end.code == 1008 and "too much" in end.reason, (end.code, end.reason)
        bob.send("3")  # each has a rate of its own
        assert bob.recv() == "3"
        far.send("4")
        assert far.recv() == "4"
        wait_until("on_close has run", lambda: state(c, "one/r").get("code"))
        assert state(c, "one/r") == {"heard": 2, "code": 1008, "clean": True}
        assert refused(c) == 1
        assert samples(c.gateways[0], "stoa_closes_total")['stoa_closes_total{code="1008"}'] == 1
        again = join(c, "one/r")  # a new socket begins with a full bucket
        again.send("5")
        assert again.recv() == bob.recv() == "5"


def test_frames_are_dropped(bin_dir):
    """With `over: drop` the frames are counted and nobody hears them; the socket goes on."""
    with cluster_of(bin_dir) as c:
        ann, bob = join(c, "oned/r"), join(c, "oned/r", "bob")
        for text in ("1", "2", "3"):
            ann.send(text)
        assert ann.recv() == bob.recv() == "1"
        wait_until("two are dropped", lambda: c.gateways[0].metric("stoa_dropped_frames_total") == 2)
        bob.send("4")
        assert ann.recv() == bob.recv() == "4"
        assert state(c, "oned/r")["heard"] == 2
        assert ask(c, "POST", "/api/oned/r/send", 5)[0] == 200  # no socket's
        assert ann.recv() == "5"


def test_burst(bin_dir):
    """A second's worth may come at once; what is over is dropped, and then there is more again."""
    with cluster_of(bin_dir) as c:
        ann = join(c, "burst/r")
        for n in range(100):
            ann.send(str(n))
        assert [ann.recv() for _ in range(5)] == ["0", "1", "2", "3", "4"]
        wait_until("the rest is judged", lambda: c.gateways[0].metric("stoa_dropped_frames_total") + state(c, "burst/r")["heard"] == 100)
        assert c.gateways[0].metric("stoa_dropped_frames_total") > 0

        def passes():
            ann.send('"later"')
            return state(c, "burst/r")["heard"] > 5
        wait_until("there is more", passes)


def test_v1(bin_dir):
    """stoa.v1: the frame is answered; the key ends with 1008 unless its type drops; the socket and its other keys go on."""
    with cluster_of(bin_dir) as c:
        socket = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
        for key in ("one:r", "oned:r", "free:r"):
            socket.send_json({"sub": key})
            assert socket.recv_json()["status"] == "live"

        def say(verb, key, **more):
            socket.send_json({verb: key, "ref": 7, **more})

        def is_refused():
            frame = socket.recv_json()
            assert frame["ref"] == 7 and (frame["error"]["tag"], frame["error"]["status"]) == ("RateLimited", 429), frame
        say("send", "oned:r", event=1)
        assert {"ref": 7, "ok": None} in [socket.recv_json(), socket.recv_json()]
        for verb, more in (("send", {"event": 2}), ("call", {"method": "heard"}), ("pub", {"data": 3})):
            say(verb, "oned:r", **more)
            is_refused()
        say("call", "one:r", method="heard")
        assert socket.recv_json() == {"ref": 7, "ok": 0}
        say("pub", "one:r", data=1)
        is_refused()
        frame = socket.recv_json()
        assert frame["unsub"] == "one:r" and frame["code"] == 1008 and frame["reason"], frame
        say("send", "one:r", event=1)  # not subscribed any more: no fuller a bucket
        is_refused()
        socket.send_json({"send": "one:other", "event": 1, "ref": 8})  # never subscribed: a rate all the same
        assert socket.recv_json() == {"ref": 8, "ok": {"ok": True}}
        say("send", "one:other", event=2)
        is_refused()
        for n in range(50):
            socket.send_json({"pub": "free:r", "data": n})
        assert [socket.recv_json()["data"] for _ in range(50)] == list(range(50))
        wait_until("on_close has run", lambda: (state(c, "one/r") or {}).get("code") == 1008)
        assert refused(c) == 6
        socket.close()


def test_room_by_http(bin_dir):
    """All that comes to a room counts; what is known already and what only reads does not; other rooms are not concerned."""
    with cluster_of(bin_dir) as c:
        assert ask(c, "POST", "/api/full/r/send", 1, key="a")[0] == 200
        limited(ask(c, "POST", "/api/full/r/send", 2, key="b"), 600)
        limited(ask(c, "POST", "/api/full/r/heard"), 600)
        limited(ask(c, "POST", "/api/full/r/broadcast", 2), 600)
        limited(ask(c, "POST", "/publish?key=full:r", 2), 600)
        assert ask(c, "POST", "/api/full/r/send", 1, key="a")[2] == {"ok": True, "duplicate": True}
        assert state(c, "full/r") == {"heard": 1}
        assert ask(c, "GET", "/api/full/r/connections")[0] == 200
        assert ask(c, "POST", "/api/full/other/send", 1)[0] == 200
        assert refused(c) == 4
        assert samples(c.shards[0], "stoa_publish_total")['stoa_publish_total{result="rate"}'] == 1


def test_room_by_sockets(bin_dir):
    """A frame too many for the room: raw is closed or dropped, stoa.v1 is told and stays."""
    with cluster_of(bin_dir) as c:
        for type_name, stays in (("full", False), ("fulld", True)):
            ann, bob = join(c, f"{type_name}/r"), join(c, f"{type_name}/r", "bob")
            one = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
            one.send_json({"sub": f"{type_name}:r"})
            assert one.recv_json()["status"] == "live"
            ann.send("1")
            assert ann.recv() == bob.recv() == "1" and one.recv_json()["data"] == 1
            bob.send("2")
            if stays:
                wait_until("dropped", lambda: c.gateways[0].metric("stoa_dropped_frames_total") == 1)
            else:
                try:
                    bob.recv()
                    raise AssertionError("still open")
                except Closed as end:
                    assert end.code == 1008, end.code
            for ref in (1, 2):
                one.send_json({"send": f"{type_name}:r", "event": 3, "ref": ref})
                frame = one.recv_json()
                assert frame["ref"] == ref and frame["error"]["tag"] == "RateLimited", frame
            assert state(c, f"{type_name}/r")["heard"] == 1
            one.close()
        assert refused(c) == 5


def test_publishers(bin_dir):
    """Keys without code have rates as well; a publisher of the library waits for its turn, and loses nothing."""
    with cluster_of(bin_dir, events="{ room: 2/s }") as c:
        status = [ask(c, "POST", "/publish?key=k", n)[0] for n in range(40)]
        assert status[:2] == [200, 200] and status.count(429) > 20 and set(status) == {200, 429}, status
        stoa = stoa_of(c, STOA_ROUTER=c.publish_endpoints[0], STOA_CONFIG=str(c.config))
        for n in range(5):
            stoa.out("publish", "lines", str(n))
        events = ask(c, "GET", "/log?key=lines")[2]["events"]
        assert [event["data"] for event in events] == list(range(5)), events


def test_reload(bin_dir):
    """SIGHUP applies another rate to rooms and sockets that are there."""
    with cluster_of(bin_dir) as c:
        ann = join(c, "oned/r")
        ann.send("1")
        assert ann.recv() == "1"
        ann.send("2")
        assert ask(c, "POST", "/api/full/r/send", 1)[0] == 200
        limited(ask(c, "POST", "/api/full/r/send", 2), 600)
        wait_until("dropped", lambda: c.gateways[0].metric("stoa_dropped_frames_total") == 1)
        before = c.config.read_text().split("types:")[0]
        c.config.write_text(before + c.types({**RATES, "oned": "{ over: drop }", "full": "{ room: 0 }"}))
        for process in (c.shards[0], c.gateways[0]):
            process.child.send_signal(signal.SIGHUP)
        wait_until("the room takes more", lambda: ask(c, "POST", "/api/full/r/send", 3)[0] == 200)

        def heard():
            ann.send("4")
            return state(c, "oned/r")["heard"] > 1
        wait_until("the socket may say more", heard)
        assert ann.recv() == "4"
