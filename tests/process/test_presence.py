"""Presence: who is in a room, as stoa.v1 tells it in order with the events, as HTTP and the command list it; over two tabs of one
person, a killed shard, a killed gateway and a client that falls silent."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from cluster import Cluster, wait_until
from test_surface_cli import stoa_of
from wire import Closed, WebSocket, http_request

ROOM = """#!room name=den api=1
local M = {}

function M.identify(req)
  local said = req.client_state
  return { id = said and said.id or req.query.id or "anon", state = { name = said and said.name or "?" } }
end

function M.on_connect(ctx)
  ctx:publish { came = ctx.connection.id }
end

function M.on_event(ctx, e)
  if e.close then
    ctx.connection:close(e.close, "as you wish")
  else
    ctx:publish(e)
  end
end

function M.on_close(ctx, info)
  ctx:publish { went = ctx.connection.id, recovered = info.recovered }
end

return M
"""
SILENT_CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
from wire import WebSocket
one = WebSocket((sys.argv[2], int(sys.argv[3])), "/ws/den/a?id=sleeper")
print("in", flush=True)
one.recv(timeout=600)
"""


@contextlib.contextmanager
def cluster_of(bin_dir, **more):
    with tempfile.TemporaryDirectory(prefix="stoa-presence-") as folder:
        path = pathlib.Path(folder) / "den.lua"
        path.write_text(ROOM)
        types = f"den: {{ handler: {path}, presence: true }}, mute: {{ handler: {path} }}"
        with Cluster(bin_dir, extra=f"types: {{ {types} }}\n", **more) as c:
            yield c


def member(who, name="?"):
    return {"id": who, "state": {"name": name}}


class Watcher:
    """A stoa.v1 socket in one room, who keeps what it is told of it, events as what they say."""

    def __init__(self, base, who, key="den:a", presence=True, name=None):
        self.key = key
        self.socket = WebSocket(base, "/stoa", "stoa.v1")
        frame = {"sub": key, "state": {"id": who, **({"name": name} if name else {})}}
        self.socket.send_json({**frame, "presence": True} if presence else frame)
        first = self.socket.recv_json()
        assert first["sub"] == key and first["status"] == "live", first

    def next(self, timeout=None):
        frame = self.socket.recv_json(timeout)
        if "presence" in frame:
            assert frame.pop("presence") == self.key, frame
            return frame
        assert frame["key"] == self.key, frame
        return frame["data"]

    def until(self, last, timeout=None):
        """What comes up to `last`, which is the last of it."""
        seen = [self.next(timeout)]
        while seen[-1] != last:
            seen.append(self.next(timeout))
        return seen

    def send(self, event):
        self.socket.send_json({"send": self.key, "event": event})


def presence_of(c, target="/api/den/a/presence"):
    status, _, body = http_request(c.base, "GET", target)
    assert status == 200, body
    return json.loads(body)


def test_members_join_leave(bin_dir):
    """The members first, then who comes and goes, between the events as they happened; nothing of it on raw sockets or without asking."""
    with cluster_of(bin_dir) as c:
        ann = Watcher(c.base, "ann", name="Ann")
        assert ann.next() == {"came": "ann"}
        assert ann.next() == {"members": [member("ann", "Ann")]}
        bob = WebSocket(c.base, "/ws/den/a?id=bob")
        assert bob.recv_json() == {"came": "bob"}
        assert [ann.next(), ann.next()] == [{"came": "bob"}, {"join": member("bob")}]
        deaf = Watcher(c.base, "deaf", presence=False)
        zoe = Watcher(c.base, "zoe", name="Zoe")
        assert zoe.until({"members": [member("ann", "Ann"), member("bob"), member("deaf"), member("zoe", "Zoe")]})[:-1] == [{"came": "zoe"}]
        assert ann.until({"join": member("zoe", "Zoe")}) == [{"came": "deaf"}, {"join": member("deaf")}, {"came": "zoe"}, {"join": member("zoe", "Zoe")}]
        bob.send_json({"n": 1})
        bob.send_json({"close": 4000})
        for one in (ann, zoe):
            assert one.until({"leave": {"id": "bob"}}) == [{"n": 1}, {"went": "bob", "recovered": False}, {"leave": {"id": "bob"}}]
        zoe.socket.send_json({"unsub": "den:a"})
        assert ann.until({"leave": {"id": "zoe"}})[0] == {"went": "zoe", "recovered": False}
        assert [deaf.next() for _ in range(5)] == [{"came": "deaf"}, {"came": "zoe"}, {"n": 1}, {"went": "bob", "recovered": False},
                                                   {"went": "zoe", "recovered": False}]
        seen = []
        with contextlib.suppress(Closed):
            while True:
                seen.append(bob.recv_json())
        assert seen == [{"came": "deaf"}, {"came": "zoe"}, {"n": 1}], seen
        assert presence_of(c) == [member("ann", "Ann"), member("deaf")]


def test_two_tabs(bin_dir):
    """Two connections of one id are one member: the first is its join and gives the state, the last its leave."""
    with cluster_of(bin_dir) as c:
        eve = Watcher(c.base, "eve")
        eve.until({"members": [member("eve")]})
        first, second = Watcher(c.base, "ann", name="one"), Watcher(c.base, "ann", name="two")
        assert first.until({"members": [member("eve"), member("ann", "one")]})
        assert second.until({"members": [member("eve"), member("ann", "one")]})
        assert eve.until({"came": "ann"}) and eve.next() == {"join": member("ann", "one")} and eve.next() == {"came": "ann"}
        assert presence_of(c) == [member("eve"), member("ann", "one")]
        first.socket.drop()
        assert eve.next() == {"went": "ann", "recovered": False}
        wait_until("the other tab is the member", lambda: presence_of(c) == [member("eve"), member("ann", "two")])
        second.socket.close()
        assert [eve.next(), eve.next()] == [{"went": "ann", "recovered": False}, {"leave": {"id": "ann"}}]
        eve.socket.send_json({"sub": "den:a", "presence": True, "state": {"id": "eve", "name": "again"}})
        assert eve.socket.recv_json()["status"] == "live"
        assert eve.until({"members": [member("eve", "again")]})


def test_asked_from_outside(bin_dir):
    """GET and the command list the members; types that do not count any say so, in the sub, over HTTP and in the configuration."""
    with cluster_of(bin_dir) as c:
        assert presence_of(c) == [] and presence_of(c, "/presence?key=den:a") == []
        ann = Watcher(c.base, "ann", name="Ann")
        ann.until({"members": [member("ann", "Ann")]})
        for target in ("/api/den/a/presence", "/presence?key=den:a"):
            assert presence_of(c, target) == [member("ann", "Ann")]
        stoa = stoa_of(c)
        assert stoa.out("room", "presence", "den:a") == 'ann\t{"name":"Ann"}\n'
        assert json.loads(stoa.out("room", "presence", "--json", "den:a")) == member("ann", "Ann")
        for target in ("/api/mute/a/presence", "/presence?key=mute:a"):
            status, _, body = http_request(c.base, "GET", target)
            assert status == 404 and "do not count members" in json.loads(body)["error"]["message"], body
        ann.socket.send_json({"sub": "mute:a", "presence": True})
        refused = ann.socket.recv_json()
        assert refused["sub"] == "mute:a" and refused["error"]["tag"] == "BadRequest" and "presence" in refused["error"]["message"], refused
        ann.socket.send_json({"sub": "den:b", "presence": 1})
        refused = ann.socket.recv_json()
        assert refused["sub"] == "den:b" and refused["error"] == {"tag": "BadRequest", "message": "presence: true or false", "status": 400}, refused


def test_shard_killed(bin_dir):
    """kill -9 of the shard under sockets that stay: nobody leaves, nobody joins; who comes and goes afterwards is told."""
    with cluster_of(bin_dir) as c:
        ann, bob = Watcher(c.base, "ann"), Watcher(c.base, "bob")
        ann.until({"join": member("bob")})
        bob.until({"members": [member("ann"), member("bob")]})
        for round_number in range(3):
            c.shards[0].kill()
            c.shards[0].start()
            ann.send({"round": round_number})
            assert ann.next() == {"round": round_number} and bob.next() == {"round": round_number}
        zoe = Watcher(c.base, "zoe")
        zoe.until({"members": [member("ann"), member("bob"), member("zoe")]})
        assert ann.until({"join": member("zoe")}) == [{"came": "zoe"}, {"join": member("zoe")}]
        c.shards[0].kill()
        zoe.socket.drop()  # while nobody counts
        c.shards[0].start()
        bob.until({"join": member("zoe")})
        with concurrent.futures.ThreadPoolExecutor() as pool:  # both are read: who is not answers no ping
            for told in [pool.submit(one.until, {"leave": {"id": "zoe"}}) for one in (ann, bob)]:
                assert told.result() == [{"went": "zoe", "recovered": True}, {"leave": {"id": "zoe"}}], told.result()
        assert presence_of(c) == [member("ann"), member("bob")]


def test_gateway_killed(bin_dir):
    """Who was at a gateway that died leaves, recovered, each once; who is at another stays and is told."""
    with cluster_of(bin_dir, gateways=2) as c:
        ann = Watcher(c.gateways[1].base, "ann")
        ann.until({"members": [member("ann")]})
        lost = [WebSocket(c.base, f"/ws/den/a?id=p{i}") for i in range(3)]
        for one in lost:
            one.recv_json()
        ann.until({"join": member("p2")})
        c.gateways[0].kill()
        c.gateways[0].start()  # a new boot: the old one's connections are gone
        seen = [ann.next() for _ in range(6)]
        assert sorted(m["leave"]["id"] for m in seen if "leave" in m) == ["p0", "p1", "p2"], seen
        assert [m["recovered"] for m in seen if "went" in m] == [True] * 3, seen
        wait_until("the gateway is back", lambda: presence_of(c) == [member("ann")])


def test_silent_client(bin_dir):
    """A client that is stopped, its connection still open, leaves when it has not answered for two pings of 5 s (of 25 s elsewhere)."""
    with cluster_of(bin_dir) as c:
        ann = Watcher(c.base, "ann")
        ann.until({"members": [member("ann")]})
        command = [sys.executable, "-c", SILENT_CLIENT, os.path.dirname(__file__), *map(str, c.base)]
        sleeper = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert sleeper.stdout.readline() == "in\n"
            ann.until({"join": member("sleeper")})
            sleeper.send_signal(signal.SIGSTOP)
            assert ann.until({"leave": {"id": "sleeper"}}, timeout=20) == [{"went": "sleeper", "recovered": False}, {"leave": {"id": "sleeper"}}]
            unread = Watcher(c.base, "unread")  # of stoa.v1: nobody reads it, so nobody answers its pings
            ann.until({"join": member("unread")})
            assert ann.until({"leave": {"id": "unread"}}, timeout=20) == [{"went": "unread", "recovered": False}, {"leave": {"id": "unread"}}]
            unread.socket.drop()
        finally:
            sleeper.kill()
            sleeper.wait()
            sleeper.stdout.close()
