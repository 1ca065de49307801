"""What bad handlers cannot do: endless loops, memory bombs, crashes and throwing alarms, in real clusters. Others go on,
sockets stay, repeated offenders are quarantined and listed, and a restart does not forget it."""
import contextlib
import json
import os
import pathlib
import signal
import tempfile

from cluster import Cluster, free_port, monitor_get, wait_until
from test_surface_cli import Stoa, local_cluster, stoa_of
from wire import Refused, WebSocket, http_request

NOISY = """#!room name=noisy api=1
local M = {}
local kept = {}
function M.identify(req) while req.query.hang do end return {} end
function M.on_event(ctx, e)
  if e == "loop" then while true do end end
  if e == "loop in pcall" then while true do pcall(function() while true do end end) end end
  if e == "match" then return (("a"):rep(30000)):find(("a*"):rep(20) .. "b") end
  if e == "bomb" then local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1000) .. i end end
  if e == "hoard" then for i = 1, 1e9 do kept[#kept + 1] = ("y"):rep(1000000) .. i end end
  if e == "alarm" then ctx:schedule_in(1) return end
  ctx:broadcast({ heard = e })
end
function M.on_alarm(ctx) error("this alarm throws") end
M.rpc = { ping = function() return "pong" end,
          work = function() local n = 0 for i = 1, 500000 do n = n + i end return n end,
          mem = function(ctx) ctx.mem.n = (ctx.mem.n or 0) + 1 return ctx.mem.n end }
return M
"""


@contextlib.contextmanager
def noisy(bin_dir, more="", **options):
    with contextlib.ExitStack() as stack:
        c = Cluster(bin_dir, extra="types: {}\n", **options)
        path = c.dir / "noisy.lua"
        path.write_text(NOISY)
        c.config.write_text(c.config.read_text().replace("types: {}", f"types: {{ noisy: {{ handler: {path} }}{more} }}"))
        yield stack.enter_context(c)


def ask(c, key, verb, body=None, method="POST", timeout=60):
    """(status, JSON) of a route of /api/."""
    kind, name = key.split(":")
    status, _, text = http_request(c.gateways[0].base, method, f"/api/{kind}/{name}/{verb}",
                                   None if body is None else json.dumps(body).encode(), timeout=timeout)
    return status, json.loads(text)


def send(c, key, frame):
    return ask(c, key, "send", frame)


def join(c, key):
    kind, name = key.split(":")
    return WebSocket(c.gateways[0].base, f"/ws/{kind}/{name}")


def quarantined(c):
    def asked():
        status, _, text = http_request(c.gateways[0].base, "GET", "/quarantine")
        assert status == 200, text
        answer = json.loads(text)
        return answer if answer["complete"] else None
    return {row["key"]: row for row in wait_until("the shard answers", asked)["rooms"]}


def is_refused(answer):
    status, value = answer
    return status == 503 and value["error"]["tag"] == "RoomError" and "quarantined" in value["error"]["message"]


def spoil(c, key, frame, times=3):
    for _ in range(times):
        status, answer = send(c, key, frame)
        tag = answer["error"]["tag"]  # Unknown: it has run, or will, but a busy machine took its time
        assert (status, tag) in ((500, "RoomExecutionError"), (504, "Unknown")), answer


def test_stopped_again_and_again(bin_dir):
    """Three stops quarantine a room, and only it; it is listed, survives a restart, and is released."""
    with noisy(bin_dir) as c:
        shard, stoa = c.shards[0], stoa_of(c)
        bad, good = join(c, "noisy:bad"), join(c, "noisy:good")
        spoil(c, "noisy:bad", "loop")
        assert is_refused(send(c, "noisy:bad", "hello")) and is_refused(ask(c, "noisy:bad", "ping"))
        try:
            join(c, "noisy:bad")
            raise AssertionError("a quarantined room let somebody in")
        except Refused as refused:
            assert refused.status == 503 and b"quarantined" in refused.body, (refused.status, refused.body)
        row = quarantined(c)["noisy:bad"]
        assert row["type"] == "noisy" and not row["whole_type"] and "3 times" in row["why"] and "on_event" in row["why"], row
        assert shard.metric("stoa_rooms_quarantined") == 1 and shard.metric("stoa_handler_stops_total") == 3
        assert "room.quarantined" in shard.log_tail(50)
        status = stoa.out("status")
        assert "QUARANTINED" in status and "noisy:bad" in status and "3 times" in status, status
        good.send_json("hello")
        assert good.recv_json() == {"heard": "hello"}
        bad.send_json("into the void")
        wait_until("the frame is dropped", lambda: shard.metric("stoa_quarantined_frames_total") == 1)
        assert http_request(c.gateways[0].base, "POST", "/publish?key=noisy:bad", b'"a notice"')[0] == 200
        assert bad.recv_json() == "a notice"  # the socket stayed, and the log is published to
        shard.kill()
        shard.start().ready()
        wait_until("the quarantine is back", lambda: "noisy:bad" in quarantined(c))
        assert is_refused(send(c, "noisy:bad", "hello"))
        assert stoa.out("room", "release", "noisy:bad") == "true\n"
        assert quarantined(c) == {} and stoa.out("room", "release", "noisy:bad") == "false\n"
        assert send(c, "noisy:bad", "hello") == (200, {"ok": True})
        assert bad.recv_json() == {"heard": "hello"}
        assert "QUARANTINED" not in stoa.out("status")
        def knock():
            try:
                WebSocket(c.gateways[0].base, "/ws/noisy/door?hang=1")
            except Refused as refused:
                return refused.status == 503 and b"quarantined" in refused.body
            raise AssertionError("somebody came in")
        wait_until("the door is shut", knock, 300)
        assert "identify" in quarantined(c)["noisy:door"]["why"]
        bad.close()
        good.close()


def test_time_of_a_turn(bin_dir):
    """A second of the processor is for one turn: a shard that has worked for longer in all stops nobody, nor after a reload."""
    with noisy(bin_dir) as c:
        shard = c.shards[0]

        def worked_s():
            words = pathlib.Path(f"/proc/{shard.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        for reload in (False, True):
            if reload:
                (c.dir / "noisy.lua").write_text(NOISY + "-- anew\n")
                shard.child.send_signal(signal.SIGHUP)
                wait_until("it is loaded", lambda: "is loaded" in shard.log_path.read_text())
            begun = worked_s()
            while worked_s() < begun + 2:
                assert ask(c, "noisy:busy", "work") == (200, 125000250000)


def test_hoard_of_the_file(bin_dir):
    """What a file's own locals hoard stops one segment, not all rooms of the type: the state is made anew."""
    with noisy(bin_dir) as c:
        assert [ask(c, "noisy:good", "mem")[1] for _ in range(3)] == [1, 2, 3]
        for n in range(20):  # a slow machine stops a segment for its time first; what it kept stays
            spoil(c, f"noisy:bad-{n}", "hoard", 1)
            wait_until("others are answered", lambda: ask(c, "noisy:good", "ping") == (200, "pong"), 300)
            if "room.memory_full" in c.shards[0].log_path.read_text():
                break
        assert ask(c, "noisy:good", "mem") == (200, 1)  # as after hibernation
        assert send(c, "noisy:bad-0", "hello") == (200, {"ok": True})


def test_quiet_rooms_go_on(bin_dir):
    """An endless loop, a memory bomb, a bad pattern and a throwing alarm, while a hundred quiet rooms are all answered."""
    with noisy(bin_dir) as c:
        shard = c.shards[0]
        quiet = [join(c, f"noisy:quiet-{n}") for n in range(100)]
        bad = {frame: join(c, f"noisy:bad-{n}") for n, frame in enumerate(("loop", "loop in pcall", "match", "bomb", "alarm"))}
        for turn in range(3):
            for frame, socket in bad.items():
                socket.send_json(frame)
            for n, socket in enumerate(quiet):
                socket.send_json([turn, n])
            for n, socket in enumerate(quiet):
                assert socket.recv_json(timeout=120) == {"heard": [turn, n]}
        names = {f"noisy:bad-{n}" for n in range(4)}
        wait_until("the bad ones are quarantined", lambda: set(quarantined(c)) == names, 120)
        wait_until("the alarm failed", lambda: 'stoa_handler_errors_total{type="noisy",phase="alarm"} ' in metrics(shard)
                   and shard_metric(shard, 'stoa_handler_errors_total{type="noisy",phase="alarm"}') >= 1)
        assert shard.metric("stoa_handler_stops_total") == 12
        assert shard_metric(shard, 'stoa_handler_errors_total{type="noisy",phase="event"}') == 12
        assert shard_metric(shard, 'stoa_handler_seconds_count{type="noisy",phase="event"}') >= 300
        assert shard_metric(shard, "stoa_alarms_dead") == 0  # it is tried again
        for n, socket in enumerate(quiet):
            socket.send_json("still here")
            assert socket.recv_json(timeout=60) == {"heard": "still here"}
        for socket in quiet + list(bad.values()):
            socket.close()


def metrics(process):
    return monitor_get(process.monitor, "/metrics")[1]


def shard_metric(process, sample):
    for line in metrics(process).splitlines():
        if line.startswith(sample + " "):
            return float(line.rsplit(" ", 1)[1])
    return None


def bad_library(bin_dir):
    return pathlib.Path(bin_dir).resolve().parent / "rooms" / "bad.so"


def fire(c, key, frame):
    """A frame that nobody answers, on a socket of its own that stays."""
    socket = join(c, key)
    socket.send_json(frame)
    return socket


def test_endless_c_room(bin_dir):
    """A C room that does not come back ends its process within seconds and begins in quarantine; sockets stay."""
    with Cluster(bin_dir, extra=f"types: {{ bad: {{ handler: {bad_library(bin_dir)} }} }}\n") as c:
        shard = c.shards[0]
        good = join(c, "bad:good")
        socket = fire(c, "bad:endless", "hang")
        shard.child.wait(timeout=300)
        assert shard.child.returncode == -signal.SIGABRT, shard.child.returncode
        log = shard.log_tail(30)
        assert "room.stuck" in log and "bad:endless" in log and "phase=event" in log, log
        shard.start().ready()
        row = wait_until("it is quarantined", lambda: quarantined(c).get("bad:endless"))
        assert not row["whole_type"] and "did not come back" in row["why"], row
        assert is_refused(wait_until("it answers", lambda: (lambda a: a if a[0] == 503 and "quarantined" in str(a) else None)(ask(c, "bad:endless", "count"))))
        assert ask(c, "bad:other", "count") == (200, 1)
        good.send_json("hello")
        assert good.recv_json() == "hello"
        shard.kill()
        shard.start().ready()
        wait_until("it still is", lambda: "bad:endless" in quarantined(c))
        assert stoa_of(c).out("room", "release", "bad:endless") == "true\n"
        assert ask(c, "bad:endless", "count") == (200, 1)
        socket.send_json("back")
        assert socket.recv_json() == "back"
        socket.close()
        good.close()


def test_crashing_c_rooms(bin_dir):
    """A room that crashes its shard is tried again, but not for ever; several rooms of a type take the type along."""
    with Cluster(bin_dir, extra=f"types: {{ bad: {{ handler: {bad_library(bin_dir)} }} }}\n") as c:
        shard = c.shards[0]
        good = join(c, "bad:good")
        socket = fire(c, "bad:a", "crash")  # the gateway sends the frame again until somebody takes it
        for _ in range(3):  # it may come so soon that no probe finds the shard ready in between
            assert shard.child.wait(timeout=300) != 0
            shard.start()
        shard.ready()
        assert "the code of a room ends the process: bad:a" in shard.log_path.read_text(errors="replace")
        row = wait_until("it is quarantined", lambda: quarantined(c).get("bad:a"))
        assert not row["whole_type"] and "3 times" in row["why"], row
        wait_until("the frame is dropped", lambda: shard.metric("stoa_quarantined_frames_total") == 1)
        good.send_json("hello")
        assert good.recv_json() == "hello"
        others = []
        for name in "bcd":
            others.append(fire(c, f"bad:{name}", "crash"))
            shard.child.wait(timeout=300)
            others[-1].drop()  # so that it is not sent again
            shard.start().ready()
        row = wait_until("the type is quarantined", lambda: next((r for r in quarantined(c).values() if r["whole_type"]), None))
        assert row["key"] == "bad:d" and is_refused(ask(c, "bad:other", "count")), row
        stoa = stoa_of(c)
        assert stoa.out("room", "release", "bad:d") == "true\n"
        assert ask(c, "bad:other", "count") == (200, 1) and is_refused(ask(c, "bad:a", "count"))
        good.send_json("hello")
        assert good.recv_json() == "hello"
        socket.close()
        good.close()


def test_killed_from_outside(bin_dir):
    """Who is killed while a room runs is not the room's fault."""
    with Cluster(bin_dir, extra=f"types: {{ bad: {{ handler: {bad_library(bin_dir)} }} }}\n") as c:
        shard = c.shards[0]
        for _ in range(4):
            socket = fire(c, "bad:a", "hang")
            wait_until("it runs", lambda: (c.dir / "shard-0" / "running").read_bytes()[4] == 1)  # the state of guard.h
            shard.kill()
            socket.drop()
            shard.start().ready()
            assert ask(c, "bad:b", "count") == (200, 1)
        assert quarantined(c) == {}


def test_reload_is_whole(bin_dir):
    """What a shard would refuse is not taken by the others either; the reason has file and line; then it is taken."""
    with tempfile.TemporaryDirectory(prefix="stoa-reload-") as name:
        folder, port = pathlib.Path(name), free_port()
        stoa = Stoa(bin_dir, cwd=folder, STOA_SERVER=f"http://127.0.0.1:{port}")
        room, config = folder / "room.lua", folder / "stoa.yaml"
        room.write_text('#!room name=r api=1\nreturn { rpc = { f = function() return 1 end } }\n')
        text = f"gateway: {{ listen: 127.0.0.1:{port} }}\ntypes: {{ r: {{ handler: {room} }} }}\n"
        config.write_text(text)

        def origin():
            return http_request(("127.0.0.1", port), "GET", "/log?key=a", headers={"Origin": "https://app.example"})[0]
        with local_cluster(stoa, "d", "--shards", "1"):
            assert stoa.out("room", "call", "r:1", "f") == "1\n" and origin() == 403
            room.write_text('#!room name=r api=1\nreturn { rpc = { f = function() return 2 end }\n')
            config.write_text(text.replace("gateway: {", "gateway: { origins: ['https://app.example'],"))
            ran = stoa("reload", "--data", "d", status=1)
            assert ran.stderr.startswith("stoa reload: nothing was applied: ") and "room.lua:" in ran.stderr, ran.stderr
            assert origin() == 403 and stoa.out("room", "call", "r:1", "f") == "1\n"
            room.write_text('#!room name=r api=1\nreturn { rpc = { f = function() return 2 end } }\n')
            assert "gateway.origins" in stoa.out("reload", "--data", "d")
            assert origin() == 200 and stoa.out("room", "call", "r:1", "f") == "2\n"
