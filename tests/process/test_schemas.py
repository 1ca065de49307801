"""JSON Schemas of a room type at its four boundaries, through the surface, in Lua and in C; what the load refuses."""
import json
import pathlib
import signal
import tempfile

from cluster import Cluster, wait_until
from test_surface_cli import Stoa
from wire import Refused, WebSocket, http_request

ROOM = """#!room name=desk api=1
local room = require "room"
local M = {}
function M.identify(req)
  return { id = req.query.user, state = { user = req.query.user, level = tonumber(req.query.level) } }
end
function M.on_event(ctx, e)
  if e.kind == "say" then ctx:broadcast { said = e.text } end
  if e.kind == "odd" then
    local ok, err = pcall(ctx.broadcast, ctx, { odd = e.text })
    ctx.connection:send { said = tostring(ok) .. " " .. err.tag .. " " .. err.message }
    ok, err = pcall(ctx.connection.send, ctx.connection, { said = 1 })
    ctx.connection:send { said = tostring(ok) .. " " .. err.tag }
    ok, err = pcall(ctx.publish, ctx, "text")
    ctx.connection:send { said = tostring(ok) .. " " .. err.tag }
  end
end
function M.on_decode_error(ctx, raw, err)
  ctx.connection:send { said = "no: " .. err.tag .. " " .. err.message }
end
M.rpc = {
  put = function(ctx, input) ctx:save(input) return ctx:recall() end,
  try = function(ctx, input)
    local ok, err = pcall(ctx.save, ctx, input)
    return { ok = ok, tag = err and err.tag, message = err and err.message, state = ctx:recall() }
  end,
  level = function(ctx, input)
    local c = ctx.connections:by_id(input.id)
    local ok, err = pcall(c.set_state, c, { user = input.id, level = input.level })
    return { ok = ok, tag = err and err.tag, state = c.state }
  end,
}
return M
"""
SCHEMAS = {
    "state": {"type": "object", "properties": {"count": {"type": "integer", "minimum": 0}}, "required": ["count"], "additionalProperties": False},
    "connection": {"type": "object", "properties": {"user": {"type": "string"}, "level": {"enum": [1, 2, 3]}}, "required": ["user", "level"]},
    "event": {"$schema": "http://json-schema.org/draft-07/schema#",
              "oneOf": [{"properties": {"kind": {"const": "odd"}}, "required": ["kind"]},
                        {"properties": {"kind": {"const": "say"}, "text": {"type": "string", "maxLength": 20, "pattern": r"^(\w+ ?)+$"}},
                         "required": ["kind", "text"]}]},
    "broadcast": {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]},
}


def write(folder, schemas=SCHEMAS, handler="desk.lua", name="desk", **more):
    """The files of a room type; gives the line of its configuration."""
    for boundary, schema in schemas.items():
        (folder / f"{boundary}.json").write_text(schema if isinstance(schema, str) else json.dumps(schema))
    listed = ", ".join(f"{boundary}: {folder}/{boundary}.json" for boundary in schemas)
    return f"types: {{ {name}: {{ handler: {handler}, schemas: {{ {listed} }} }} }}\n"


def ask(c, path, body=None, method="POST", kind="desk"):
    status, _, text = http_request(c.base, method, f"/api/{kind}/{path}", None if body is None else json.dumps(body).encode())
    return status, json.loads(text)


def join(c, room, user, level):
    return WebSocket(c.base, f"/ws/desk/{room}?user={user}&level={level}")


def test_boundaries(bin_dir):
    """Frames, direct sends, states, connections and what is sent: what does not fit is refused by name, with place and reason."""
    with tempfile.TemporaryDirectory(prefix="stoa-schemas-") as name:
        folder = pathlib.Path(name)
        (folder / "desk.lua").write_text(ROOM)
        with Cluster(bin_dir, extra=write(folder, handler=folder / "desk.lua")) as c:
            try:
                join(c, "a", "eve", 9)
                raise AssertionError("a connection of level 9")
            except Refused as no:
                assert no.status == 500 and b"RoomError" in no.body and b"/level" in no.body, (no.status, no.body)
            ann, bob = join(c, "a", "ann", 1), join(c, "a", "bob", 2)

            # events, as frames: what does not fit is not run, and on_decode_error is told why
            ann.send_json({"kind": "say", "text": "hello there"})
            assert ann.recv_json() == bob.recv_json() == {"said": "hello there"}
            for frame in ({"kind": "say", "text": 7}, {"kind": "shout"}, [1], {"kind": "say", "text": "x" * 21}):
                ann.send_json(frame)
                told = ann.recv_json()["said"]
                assert told.startswith("no: RoomValidationError ") and "schemas.event" in told, told
            ann.send("{")
            assert "no: RoomValidationError" in ann.recv_json()["said"]

            # ... and as direct sends
            assert ask(c, "a/send", {"kind": "say", "text": "direct"}) == (200, {"ok": True})
            assert ann.recv_json() == bob.recv_json() == {"said": "direct"}
            status, answer = ask(c, "a/send", {"kind": "say"})
            assert status == 400 and answer["error"]["tag"] == "RoomValidationError" and "schemas.event" in answer["error"]["message"], answer

            # what is sent
            ann.send_json({"kind": "odd", "text": "x"})
            told = ann.recv_json()["said"]
            assert told.startswith("false BroadcastError ") and "'said'" in told, told
            assert [ann.recv_json()["said"] for _ in range(2)] == ["false SendError", "false BroadcastError"]
            assert ask(c, "a/broadcast", {"said": "all"}) == (200, {"ok": True})
            assert ann.recv_json() == bob.recv_json() == {"said": "all"}  # bob got nothing that does not fit
            status, answer = ask(c, "a/broadcast", {"say": "all"})
            assert status == 400 and answer["error"]["tag"] == "RoomValidationError", answer

            # the room's state: nothing has changed
            assert ask(c, "a/put", {"count": 1}) == (200, {"count": 1})
            status, answer = ask(c, "a/try", {"count": -1})
            assert status == 200 and not answer["ok"] and answer["tag"] == "RoomError" and "/count" in answer["message"], answer
            assert answer["state"] == {"count": 1}
            assert ask(c, "a/put", {"count": 1, "more": 2})[0] == 500
            assert ask(c, "a/state", method="GET") == (200, {"count": 1})

            # a connection's
            assert ask(c, "a/level", {"id": "bob", "level": 3}) == (200, {"ok": True, "state": {"user": "bob", "level": 3}})
            status, answer = ask(c, "a/level", {"id": "bob", "level": 4})
            assert answer == {"ok": False, "tag": "RoomError", "state": {"user": "bob", "level": 3}}, answer
            ann.close()
            bob.close()


def test_pattern_that_explodes(bin_dir):
    """A frame made to keep a pattern busy costs a bounded time; the room and its neighbours go on."""
    event = {"properties": {"text": {"pattern": "^(a+)+$"}}}
    with tempfile.TemporaryDirectory(prefix="stoa-schemas-") as name:
        folder = pathlib.Path(name)
        (folder / "desk.lua").write_text(ROOM)
        with Cluster(bin_dir, extra=write(folder, {"event": event}, folder / "desk.lua")) as c:
            ann, bob = join(c, "a", "ann", 1), join(c, "b", "bob", 1)
            ann.send_json({"kind": "say", "text": "a" * 100000 + "!"})
            assert "takes too long" in ann.recv_json()["said"]
            ann.send_json({"kind": "say", "text": "a" * 20})
            assert ann.recv_json() == {"said": "a" * 20}
            bob.send_json({"kind": "say", "text": "aaa"})
            assert bob.recv_json() == {"said": "aaa"}
            ann.close()
            bob.close()


def test_room_in_c(bin_dir):
    """A library's rooms have the same boundaries."""
    counter = pathlib.Path(bin_dir).resolve().parent / "rooms" / "counter.so"
    event = {"properties": {"add": {"type": "integer", "maximum": 10}}, "required": ["add"]}
    broadcast = {"properties": {"count": {"maximum": 12}}}
    with tempfile.TemporaryDirectory(prefix="stoa-schemas-") as name:
        folder = pathlib.Path(name)
        with Cluster(bin_dir, extra=write(folder, {"event": event, "broadcast": broadcast}, counter, "counter")) as c:
            assert ask(c, "a/send", {"add": 10}, kind="counter") == (200, {"ok": True})
            status, answer = ask(c, "a/send", {"add": 11}, kind="counter")
            assert status == 400 and "at /add: " in answer["error"]["message"], answer
            status, answer = ask(c, "a/send", {"add": 9}, kind="counter")  # 19 would be told to all
            assert status == 500 and answer["error"]["tag"] in ("BroadcastError", "RoomExecutionError"), answer


def test_reload(bin_dir):
    """A reload takes new schemas without the sockets noticing; a broken one is named and changes nothing."""
    with tempfile.TemporaryDirectory(prefix="stoa-schemas-") as name:
        folder = pathlib.Path(name)
        (folder / "desk.lua").write_text(ROOM)
        with Cluster(bin_dir, extra=write(folder, {"event": SCHEMAS["event"]}, folder / "desk.lua")) as c:
            shard = c.shards[0]

            def reload(event):
                before = shard.log_path.read_text().count(".reload")
                write(folder, {"event": event})
                shard.child.send_signal(signal.SIGHUP)
                wait_until("reloaded", lambda: shard.log_path.read_text().count(".reload") > before)
                return shard.log_path.read_text().splitlines()[-1]
            ann = join(c, "a", "ann", 1)
            ann.send_json({"kind": "say", "text": "x" * 21})
            assert "no: " in ann.recv_json()["said"]
            said = reload({"properties": {"text": {"maxlength": 5}}})
            assert "types.desk.schemas.event" in said and "unknown keyword `maxlength`" in said, said
            ann.send_json({"kind": "say", "text": "x" * 21})
            assert "no: " in ann.recv_json()["said"]  # the old one holds
            said = reload({"properties": {"text": {"maxLength": 30}}})
            assert "event.json is loaded" in said, said
            ann.send_json({"kind": "say", "text": "x" * 21})
            assert ann.recv_json() == {"said": "x" * 21}
            ann.close()


def test_refused(bin_dir):
    """stoa config check and stoa room check name file, place and reason; a shard does not start with such a schema."""
    with tempfile.TemporaryDirectory(prefix="stoa-schemas-") as name:
        folder = pathlib.Path(name)
        (folder / "desk.lua").write_text(ROOM)
        stoa = Stoa(bin_dir, cwd=name)
        config = folder / "stoa.yaml"
        config.write_text("types: { desk: { handler: desk.lua, schemas: { event: event.json, state: state.json } } }\n")
        write(folder, {"event": SCHEMAS["event"]})
        assert "types.desk.schemas.state: state.json: No such file" in stoa("config", "check", status=1).stderr
        write(folder)
        assert "fine" in stoa.out("config", "check")
        told = stoa.out("room", "check", "desk.lua")
        assert "schemas.event: event.json\n" in told and "schemas.state: state.json\n" in told and "broadcast" not in told, told
        assert json.loads(stoa.out("room", "check", "--json", "desk.lua"))["schemas"] == {"event": "event.json", "state": "state.json"}
        assert "fine" in stoa.out("room", "check", "event.json")
        for schema, why in (("{", "it is not JSON"), ('{"typ":1}', "at the root: unknown keyword `typ`"),
                            ('{"items":{"$ref":"http://127.0.0.1/x.json"}}', "at /items/$ref: it refers to a schema of the same file"),
                            ('{"properties":{"a":{"pattern":"("}}}', "at /properties/a/pattern: the pattern `(` does not compile")):
            write(folder, {"event": schema})
            for words in (("config", "check"), ("room", "check", "desk.lua"), ("room", "check", "event.json")):
                said = stoa(*words, status=1).stderr
                assert "event.json: " + why in said, (words, said)
        shard = Stoa(bin_dir, cwd=name)
        shard.path += "-shard"
        assert "event.json: at /properties/a/pattern" in shard("--config", config, "--data", folder / "data", status=1).stderr
        config.write_text("types: { desk: { schemas: { event: event.json } } }\n")
        assert "stoa.yaml:1: types.desk.schemas.event: a type without a handler" in stoa("config", "check", status=1).stderr
