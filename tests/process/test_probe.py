"""The probe of examples/, in Lua and in C, side by side in a real cluster: what comes over HTTP and on sockets is the
same, statuses, bodies, frames and closes. What each call of the host does is tested in memory (probe_test.lua)."""
import json
import pathlib
import re
from urllib.parse import quote

from cluster import Cluster
from test_room_c import library
from wire import Closed, Refused, WebSocket, http_request

PROBE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "probe"
TAGS = {"RoomError": 500, "UpgradeError": 500, "SendError": 500, "BroadcastError": 500, "AttachmentTooLargeError": 413,
        "RoomValidationError": 400, "RoomExecutionError": 500, "RoomNotFoundError": 404}
CHANCE = [(r'"(id|head|purged)": "[0-9a-z]+-[0-9a-z]+"', r'"\1": "ID"'), (r'"(now|alarm|ts)": \d{13}', r'"\1": 0'),
          (r'"slept": 3\d\d\b', '"slept": 300')]


class Twins:
    """Both rooms of one name: does the same to each, and wants the same back."""

    def __init__(self, c, lua, native, room):
        self.c, self.types, self.room, self.compared = c, (lua, native), room, 0

    def same(self, what, run):
        """run(type) for both; what it gives, which must be equal but for the type's name, ids and times."""
        values = []
        for name in self.types:
            text = json.dumps(run(name), sort_keys=True).replace(name, "PROBE")
            for pattern, instead in CHANCE:
                text = re.sub(pattern, instead, text)
            values.append(text)
        assert values[0] == values[1], f"{what}:\nLua: {values[0][:2000]}\nC:   {values[1][:2000]}"
        self.compared += 1
        return json.loads(values[0])

    def http(self, method, path, body=None, headers=None):
        """(status, JSON) of a route of the room; PROBE in the body stands for its type."""
        def run(name):
            text = None if body is None else (body if isinstance(body, str) else json.dumps(body)).replace("PROBE", name)
            status, _, answer = http_request(self.c.base, method, f"/api/{name}/{self.room}{path}",
                                             None if text is None else text.encode(), headers)
            return [status, json.loads(answer) if answer else None]
        return tuple(self.same((method, path, body), run))

    def call(self, act, body=None, **more):
        status, value = self.http("POST", f"/{act}", body, **more)
        assert status == 200, (act, body, status, value)
        return value

    def failing(self, status, tag, act, body=None):
        answer = self.http("POST", f"/{act}", body)
        assert answer[0] == status and answer[1]["error"]["tag"] == tag, (act, answer)
        return answer[1]["error"]

    def join(self, query=""):
        return Pair(self, {name: WebSocket(self.c.gateways[-1].base, f"/ws/{name}/{self.room}?{query}") for name in self.types})

    def refused(self, query):
        def run(name):
            try:
                WebSocket(self.c.base, f"/ws/{name}/{self.room}?{query}")
            except Refused as refused:
                return [refused.status, json.loads(refused.body)]
            raise AssertionError(f"{query} was let in")
        return tuple(self.same(query, run))


class Pair:
    """A socket in each of the two rooms."""

    def __init__(self, twins, sockets):
        self.twins, self.sockets = twins, sockets

    def say(self, act, body=None):
        for name, socket in self.sockets.items():
            socket.send(json.dumps({"act": act, **({} if body is None else {"with": body})}).replace("PROBE", name))

    def raw(self, frame):
        for socket in self.sockets.values():
            socket.send(frame)

    def binary(self, payload):
        for socket in self.sockets.values():
            socket.send_frame(2, payload)

    def hear(self, count=1):
        heard = self.twins.same("frames", lambda name: [self.sockets[name].recv_json() for _ in range(count)])
        return heard if count != 1 else heard[0]

    def text(self):
        return self.twins.same("a text", lambda name: self.sockets[name].recv())

    def closed(self):
        def run(name):
            try:
                return self.sockets[name].recv()
            except Closed as end:
                return [end.code, end.reason]
        return tuple(self.twins.same("a close", run))

    def close(self, code=1000):
        return self.twins.same("closing", lambda name: self.sockets[name].close(code))

    def drop(self):
        for socket in self.sockets.values():
            socket.drop()


def cluster(bin_dir):
    handlers = {"probe_lua": PROBE / "probe.lua", "probe_c": library(bin_dir, "probe"),
                "strict_lua": PROBE / "strict.lua", "strict_c": library(bin_dir, "strict")}
    types = ", ".join(f"{name}: {{ handler: {path} }}" for name, path in handlers.items())
    return Cluster(bin_dir, shards=2, gateways=2, extra=f"types: {{ {types} }}\n")


def probe(c, room):
    return Twins(c, "probe_lua", "probe_c", room)


def test_state_and_values(bin_dir):
    """State, memory, values as they are, streams; PUT through HTTP and read back over HTTP."""
    with cluster(bin_dir) as c:
        t = probe(c, "values")
        assert t.http("GET", "/state") == (200, None)
        assert t.call("update", {"by": 1}) is False
        t.call("save", {"state": {"n": 1}})
        assert t.call("update", {"by": 41}) is True and t.http("GET", "/state") == (200, {"n": 42})
        value = {"most": 2 ** 63 - 1, "least": -2 ** 63, "exact": 9007199254740993, "half": 0.5, "none": None, "list": [],
                 "object": {}, "nested": [[], {}, None, [[True, False]]], "text": "a\0\"\\\n\U0001F600\u2028\u00e9", "": "no name"}
        assert t.call("echo", value) == value
        t.call("save", {"state": value})
        assert t.call("recall") == value and t.http("GET", "/state") == (200, value)
        assert t.call("echo") is None and t.call("echo", []) == [] and t.call("bytes", {"hex": "61ff62"}) == "a\ufffdb"
        assert t.call("size", {"text": "a\0\u00e9\U0001F600"}) == 8
        assert t.call("count_to", {"n": 2, "last": "end"}) == [{"i": 1}, {"i": 2}, "end"]
        assert t.call("count_to", {"n": 2}) == [{"i": 1}, {"i": 2}]
        assert t.call("router.ping") == "pong" and t.call("random") is True
        assert t.call("print", {"text": "a line"}) is None
        t.call("save_bytes", {"bytes": 2 ** 21})
        t.failing(500, "RoomError", "save_bytes", {"bytes": 2 ** 21 + 1})
        t.failing(500, "RoomError", "save", {"state": {"bad": True}})
        t.call("remember", {"text": "kept"})
        assert t.call("memory") == "kept"
        t.call("publish", {"message": {"n": 1}})
        t.call("publish", {"message": "x", "conflate": "k"})
        assert [e["data"] for e in t.call("events")] == [{"n": 1}, "x"]
        assert [e["data"] for e in t.http("GET", "/log")[1]["events"]] == [{"n": 1}, "x"]
        t.failing(400, "BadId", "events", {"after": "no id"})
        assert t.http("DELETE", "")[0] == 200 and t.http("GET", "/state") == (200, None) and t.call("events") == []
        once = {"Idempotency-Key": "once"}
        t.call("save", {"state": {"n": 1}})
        assert t.call("update", {"by": 1}, headers=once) is t.call("update", {"by": 1}, headers=once) is True
        assert t.call("recall") == {"n": 2}
        return f"{t.compared} answers are the same"


def test_errors(bin_dir):
    """Every tag with its status, over HTTP, from the room itself and through another one; refusals of upgrades."""
    with cluster(bin_dir) as c:
        t = probe(c, "errors")
        for tag, status in TAGS.items():
            hidden = "the room's handler failed; the shard's log says how"
            error = t.failing(status, tag, "raise", {"tag": tag, "message": "said so"})
            assert error["message"] == (hidden if tag == "RoomExecutionError" else "said so"), error
            away = {"type": "PROBE", "id": "other", "method": "raise", "input": {"tag": tag, "message": "said so"}}
            t.failing(status, tag, "room_call", away)
            assert t.call("try", {"act": "room_call", "with": away})["tag"] == tag
        own = {"code": "Own", "status": 418, "message": "tea", "data": {"pot": []}}
        error = t.failing(418, "Own", "fail_with", own)
        assert error["message"] == "tea", error
        t.failing(500, "Own", "fail_with", {"code": "Own"})
        t.failing(404, "NoSuchMethod", "fly")
        t.failing(500, "RoomExecutionError", "fail")
        t.failing(400, "RoomValidationError", "send", {"wrong": 1})
        t.failing(500, "RoomExecutionError", "send", {"act": "fail"})
        t.failing(404, "NoAct", "send", {"act": "fly"})
        assert t.http("POST", "/send", {"act": "fail_with", "with": {"code": "Handled", "message": "m"}})[0] == 200
        assert t.http("POST", "/echo", "no JSON")[0] == 400
        t.failing(404, "RoomNotFoundError", "room_state", {"type": "nowhere", "id": "x"})
        t.failing(500, "RoomError", "room_state", {"type": "PROBE", "id": ""})
        t.failing(500, "RoomError", "sleep", {"ms": 30001})
        t.failing(500, "RoomError", "wake_at", {"at": 8640000000000001})
        t.failing(500, "BroadcastError", "tell", {"message": {"bad": True}})
        t.failing(500, "BroadcastError", "tell_bytes", {"bytes": 524289})
        for query, status in (("refuse=451", 451), ("broken=1", 500), ("ask=refuse", 403), ("ask=fail", 500),
                              ("state=" + quote('{"bad":true}'), 500), ("tags=" + "x" * 257, 400)):
            assert t.refused(query)[0] == status, query
        assert t.call("count") == 0
        return f"{t.compared} answers are the same"


def test_sockets(bin_dir):
    """Who is told what, who closes whom, frames that do not decode, two gateways and two shards."""
    with cluster(bin_dir) as c:
        t = probe(c, "sockets")
        ann = t.join("id=ann&tags=red&state=" + quote('{"n":1}'))
        bob = t.join("id=bob&tags=red,blue")
        assert ann.hear()["hello"] == "ann" and bob.hear()["hello"] == "bob"
        ann.say("me")
        assert ann.hear()["result"]["connection"] == {"id": "ann", "open": True, "state": {"n": 1}, "tags": ["red"]}
        assert [row["id"] for row in t.http("GET", "/connections")[1]] == ["ann", "bob"]
        assert [row["id"] for row in t.http("GET", "/connections?tag=blue")[1]] == ["bob"]
        for name, body in (("all", None), ("by_tag", {"tag": "blue"}), ("by_id", {"id": "bob"}), ("filter", {"prefix": "a"}),
                           ("count", None), ("count", {"tag": "red"})):
            t.call(name, body)
        for act in ("tell", "publish"):
            for options, to_ann, to_bob in (({}, 1, 1), ({"tags": "blue"}, 0, 1), ({"to": ["ann"]}, 1, 0), ({"except": "ann"}, 0, 1),
                                            ({"to": []}, 0, 0)):
                t.call(act, {"message": [act, options], **options})
                assert not to_ann or ann.hear() == [act, options]
                assert not to_bob or bob.hear() == [act, options]
        t.call("publish", {"message": "now", "ephemeral": True})
        assert ann.hear() == bob.hear() == "now"
        ann.say("tell", {"message": "others", "not_me": True})
        assert bob.hear() == "others" and ann.hear()["did"] == "tell"
        t.call("send_to", {"id": "bob", "message": {"only": "bob"}})
        assert bob.hear() == {"only": "bob"}
        t.http("POST", "/broadcast", {"from": "outside"})
        t.call("room_tell", {"type": "PROBE", "id": "sockets", "message": "to itself"})
        assert ann.hear(2) == bob.hear(2) == [{"from": "outside"}, "to itself"]
        ann.say("set_bytes", {"bytes": 2048})
        assert ann.hear()["did"] == "set_bytes"
        t.failing(413, "AttachmentTooLargeError", "set_bytes", {"id": "ann", "bytes": 2049})
        for frame in ("no JSON", '{"act":1}', "null", ""):
            ann.raw(frame)
            assert ann.hear()["undecoded"] == frame
        ann.binary(b"\xff\xfe")
        assert ann.hear()["tag"] == "RoomValidationError"
        ann.raw("fail")
        assert ann.hear() == bob.hear() == {"handled": "decode_error", "message": "on_decode_error fails"}
        ann.raw("ping")
        assert ann.text() == "pong"
        t.call("shut", {"id": "bob", "code": 4001, "reason": "out"})
        assert bob.closed() == (4001, "out")
        assert ann.hear() == {"left": "bob", "code": 4001, "reason": "out", "clean": True, "replaced": False, "recovered": False}
        eve = t.join("id=eve")
        eve.hear()
        assert eve.close(4010) == 4010 and ann.hear()["code"] == 4010
        dan = t.join("id=dan")
        dan.hear()
        dan.drop()
        assert ann.hear() == {"left": "dan", "code": 1006, "reason": "", "clean": False, "replaced": False, "recovered": False}
        assert ann.close() == 1000
        return f"{t.compared} answers are the same"


def test_time_and_rooms(bin_dir):
    """Alarms, sleeps, other rooms wherever they are, streams of stoa.v1, a shard that is killed."""
    with cluster(bin_dir) as c:
        t = probe(c, "time")
        ann = t.join("id=ann")
        ann.hear()
        t.call("wake_in", {"ms": 50})
        assert ann.hear() == {"alarm": 0, "failure": None, "next": None}
        t.call("wake_at", {"at": 1})
        assert ann.hear()["failure"] is None
        t.call("wake_in", {"ms": 3600000})
        assert t.http("POST", "/alarm")[0] == 200 and ann.hear()["next"] is None and t.call("next_wake") is None
        t.call("save", {"state": {"fails": 1}})
        t.call("wake_in", {"ms": 1})
        assert [frame["failure"] for frame in ann.hear(2)] == [None, "the alarm fails"]  # after some two seconds
        ann.say("sleep", {"ms": 300})
        ann.say("count")
        assert [frame["did"] for frame in ann.hear(2)] == ["count", "sleep"]
        for n in range(6):  # on whatever shard they are
            away = {"type": "PROBE", "id": f"away{n}"}
            assert t.call("room_state", away) is None
            t.call("room_send", {**away, "event": {"act": "save", "with": {"state": {"n": n}}}})
            assert t.call("room_state", away) == t.call("room_call", {**away, "method": "recall"}) == {"n": n}
        t.failing(404, "NoSuchMethod", "room_call", {**away, "method": "fly"})

        def stream(name):
            socket = WebSocket(c.base, "/stoa", "stoa.v1")
            socket.send_json({"call": f"{name}:time", "method": "count_to", "input": {"n": 3, "last": "end"}, "ref": 7})
            frames = [socket.recv_json() for _ in range(4)]
            socket.close()
            return frames
        assert t.same("a stream", stream) == [{"ref": 7, "item": {"i": i}} for i in (1, 2, 3)] + [{"ref": 7, "ok": "end"}]
        t.call("save", {"state": "kept"})
        t.call("remember", {"text": "gone"})
        for shard in c.shards:
            shard.kill()
            shard.start()
        for shard in c.shards:
            shard.ready()
        ann.say("steps", [{"act": "recall"}, {"act": "memory"}, {"act": "count"}])
        assert ann.hear() == {"did": "steps", "result": ["kept", None, 1]}
        assert ann.close() == 1000
        return f"{t.compared} answers are the same"


def test_strict(bin_dir):
    """rollback and exclusive."""
    with cluster(bin_dir) as c:
        t = Twins(c, "strict_lua", "strict_c", "s")
        ann = t.join()
        t.failing(500, "RoomExecutionError", "fail")
        assert t.http("GET", "/state") == (200, None)
        t.failing(500, "RoomExecutionError", "fail_later")
        assert t.http("GET", "/state") == (200, {"n": 1}) and ann.hear() == "a trace"
        for socket in ann.sockets.values():
            for _ in range(3):
                socket.send_json({"ms": 50})
        assert ann.hear(3) == [2, 3, 4] and t.http("GET", "/state") == (200, {"n": 4})
        ann.close()
