"""Sockets of rooms with handlers, as the gateway keeps them: what a refusal looks like, what comes with the 101, how an end is
told to the room, what a full room does to who talks to it, and what a slow reader gets."""
import contextlib
import json
import pathlib
import signal
import tempfile
import threading
import time

from cluster import Cluster, wait_until
from wire import Closed, EventStream, Refused, WebSocket, http_request

ROOM = """#!room name=echo api=1
local room = require "room"
local M = { max_connection_state = 16384 }

function M.identify(req)
  if req.query.no then
    return room.refuse(403, "not you")
  end
  return { id = req.query.id or "anon", tags = { "t:" .. (req.query.id or "") }, state = { agent = req.headers["user-agent"], said = req.client_state } }
end

function M.on_connect(ctx)
  ctx.connection:send { hello = ctx.connection.id, state = ctx.connection.state }
  if ctx.connection.id == "short" then
    ctx.connection:close(4001, "go away")
  end
end

function M.on_event(ctx, e)
  if e.close then
    ctx.connection:send { last = true }
    ctx.connection:close(e.close, "as you wish")
  elseif e.to then
    ctx:broadcast({ said = e.said }, { to = e.to })
  elseif e.keep then
    ctx:publish { kept = e.keep }
  else
    ctx:broadcast(e)
  end
end

function M.on_close(ctx, info)
  ctx:save { code = info.code, reason = info.reason, clean = info.clean }
end

return M
"""


@contextlib.contextmanager
def cluster_of(bin_dir, **more):
    with tempfile.TemporaryDirectory(prefix="stoa-room-") as folder:
        path = pathlib.Path(folder) / "echo.lua"
        path.write_text(ROOM)
        with Cluster(bin_dir, extra=f"types: {{ echo: {{ handler: {path}, retention: {{ bytes: 256MiB }} }} }}\n", **more) as c:
            yield c


def state_of(c, room):
    return json.loads(http_request(c.base, "GET", f"/api/echo/{room}/state")[2])


def join(c, room, who="ann", **more):
    one = WebSocket(c.base, f"/ws/echo/{room}?id={who}", **more)
    assert one.recv_json()["hello"] == who
    return one


def test_in_and_out(bin_dir):
    """Refused with the room's status; the first frame comes with the 101; the room hears how each one ended."""
    with cluster_of(bin_dir) as c:
        try:
            WebSocket(c.base, "/ws/echo/r?no=1")
            raise AssertionError("let in")
        except Refused as end:
            assert end.status == 403 and json.loads(end.body)["error"]["message"] == "not you", end.body
        ann = WebSocket(c.base, "/ws/echo/r?id=ann", headers={"User-Agent": "T/1"})
        assert ann.recv_json() == {"hello": "ann", "state": {"agent": "T/1"}}
        ann.socket.sendall(bytes([0x88, 0x85, 0, 0, 0, 0, 0x0F, 0xA1]) + b"bye")  # 4001 "bye"
        try:
            ann.recv()
        except Closed as end:
            assert end.code == 4001
        wait_until("the room heard", lambda: state_of(c, "r") == {"code": 4001, "reason": "bye", "clean": True})
        join(c, "s").drop()
        wait_until("the room heard", lambda: (state_of(c, "s") or {}).get("clean") is False and state_of(c, "s")["code"] == 1006)
        bob = join(c, "t", "bob")
        bob.send_json({"close": 4005})
        assert bob.recv_json() == {"last": True}
        try:
            bob.recv()
            raise AssertionError("not closed")
        except Closed as end:
            assert (end.code, end.reason) == (4005, "as you wish")
        wait_until("the room heard", lambda: state_of(c, "t") == {"code": 4005, "reason": "as you wish", "clean": True})
        short = join(c, "u", "short")
        try:
            short.recv()
            raise AssertionError("not closed")
        except Closed as end:
            assert (end.code, end.reason) == (4001, "go away")


def test_one_socket_many_rooms(bin_dir):
    """stoa.v1: rooms are joined by sub, left by unsub; what is for one connection reaches no other; events are kept, the rest is not."""
    with cluster_of(bin_dir) as c:
        one = WebSocket(c.base, "/stoa?id=one", "stoa.v1")
        one.send_json({"sub": "echo:a", "state": {"n": 1}})
        assert one.recv_json()["status"] == "live"
        first = one.recv_json()
        assert first["data"] == {"hello": "one", "state": {"said": {"n": 1}}} and "id" not in first, first
        one.send_json({"sub": "plain"})
        assert one.recv_json()["sub"] == "plain"
        one.send_json({"send": "echo:a", "event": {"x": 1}, "ref": 1})
        both = [one.recv_json(), one.recv_json()]
        assert {"ref": 1, "ok": None} in both and any(f.get("data") == {"x": 1} for f in both), both
        ann = join(c, "a")
        one.send_json({"send": "echo:a", "event": {"to": "one", "said": "secret"}})
        assert one.recv_json()["data"] == {"said": "secret"}
        one.send_json({"send": "echo:a", "event": {"keep": 7}})
        kept = one.recv_json()
        assert kept["data"] == {"kept": 7} and kept["id"], kept
        assert ann.recv_json() == {"kept": 7}
        late = WebSocket(c.base, "/ws/echo/a?id=late&replay=all")
        assert [late.recv_json(), late.recv_json()["hello"]] == [{"kept": 7}, "late"]
        stream = EventStream(c.base, "/api/echo/a/events?replay=all")
        assert json.loads(stream.next()[2]) == {"kept": 7}
        one.send_json({"send": "echo:a", "event": {"close": 4006}})
        assert one.recv_json()["data"] == {"last": True}
        assert one.recv_json() == {"unsub": "echo:a", "code": 4006, "reason": "as you wish"}
        one.send_json({"ping": 1})
        assert one.recv_json() == {"pong": 1}


def test_full_room(bin_dir):
    """A shard that stands still: who talks is not read, so that nothing piles up; nothing is lost when it goes on."""
    with cluster_of(bin_dir) as c:
        ann = join(c, "full")
        count, text = 3000, "x" * 16000
        sent = [0]

        def talk():
            for n in range(count):
                ann.send_json({"n": n, "text": text})
                sent[0] += 1

        before = c.gateways[0].rss_kib()
        c.shards[0].child.send_signal(signal.SIGSTOP)
        thread = threading.Thread(target=talk)
        try:
            thread.start()
            seen = -1
            while seen != sent[0]:  # until the kernel takes no more
                seen = sent[0]
                time.sleep(0.5)
            assert seen < count, "everything was read"
            assert c.gateways[0].rss_kib() - before < 16 * 1024
        finally:
            c.shards[0].child.send_signal(signal.SIGCONT)
        got = [ann.recv_json(timeout=60)["n"] for _ in range(count)]
        assert got == list(range(count))
        thread.join()
        assert ann.close() == 1000
        return f"{seen} of {count} taken while the shard stood still"


def test_slow_reader(bin_dir):
    """Who does not read for a while gets every broadcast later, in order, as long as the room's retention holds them."""
    with cluster_of(bin_dir) as c:
        slow, ann = join(c, "slow", "slow"), join(c, "slow")
        count, text = 1500, "y" * 16000
        for n in range(count):
            ann.send_json({"n": n, "text": text})
            if n % 50 == 49:
                while ann.recv_json(timeout=60)["n"] != n:
                    pass
        wait_until("the gateway holds back", lambda: c.gateways[0].metric("stoa_lagging_sockets") > 0)
        assert [slow.recv_json(timeout=60)["n"] for _ in range(count)] == list(range(count))


LEAVERS = """#!room name=leavers api=1
local M = {}

function M.identify(req)
  return { id = req.query.id }
end

function M.on_connect(ctx)
  ctx.connection:send { hello = ctx.connection.id }
end

function M.on_close(ctx, info)
  local left = ctx:recall() or {}
  table.insert(left, { ctx.connection.id, info.code, info.clean, info.recovered })
  ctx:save(left)
end

return M
"""


def test_gateway_starts_anew(bin_dir):
    """Two gateways are killed and one is started again: what it had ends, once, while the other's is still waited for, although
    that joined first. What the new process has is another thing."""
    with tempfile.TemporaryDirectory(prefix="stoa-room-") as folder:
        path = pathlib.Path(folder) / "leavers.lua"
        path.write_text(LEAVERS)
        with Cluster(bin_dir, gateways=3, extra=f"types: {{ leavers: {{ handler: {path} }} }}\n") as c:
            def join(number, who):
                one = WebSocket(c.gateways[number].base, f"/ws/leavers/r?id={who}")
                assert one.recv_json() == {"hello": who}
                return one

            def ask(what):
                return json.loads(http_request(c.gateways[2].base, "GET", f"/api/leavers/r/{what}")[2])
            sockets = [join(1, "waited"), join(0, "ann"), join(0, "bob"), join(2, "here")]
            for number in (0, 1):
                c.gateways[number].kill(signal.SIGKILL)
            c.gateways[0].start().ready()
            wait_until("those of the killed process have left", lambda: ask("state") and len(ask("state")) >= 2)
            assert ask("state") == [["ann", 1006, False, True], ["bob", 1006, False, True]], ask("state")
            sockets.append(join(0, "ann"))
            assert [row["id"] for row in ask("connections")] == ["waited", "here", "ann"]
            assert "shard.gateway_replaced" in c.shards[0].log_path.read_text()
            c.gateways[1].start().ready()
            wait_until("the other's has left, too", lambda: len(ask("state")) == 3)
            assert ask("state")[2] == ["waited", 1006, False, True], ask("state")
            assert [row["id"] for row in ask("connections")] == ["here", "ann"]
