"""oRPC's durable iterators on a real cluster: refusals word for word, the stream over a killed shard and from one gateway to
the next, what is gone, rooms with methods. The published clients are in tests/js/orpc."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import tempfile
import time
import urllib.parse

from cluster import Cluster, wait_until
from wire import Closed, Refused, WebSocket, http_request, raw_exchange

KEY = "a signing key"
ROUTE = f'routes:\n  - {{ path: /iterator, dialect: orpc, key: "{{chn}}", signing_key: "{KEY}", types: [events, room] }}\n'
OPENED = '{"i":%s,"p":{"h":{"content-type":"text/event-stream"}}}'
EVENT = '{"i":%s,"t":3,"p":{"e":"message","d":{"json":%s},"m":{"id":"%d","retry":250}}}'


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(text, key):
    return base64url(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest())


def e2(key=KEY, **claims):
    text = json.dumps({"iat": int(time.time()), "exp": int(time.time()) + 600, **claims}, separators=(",", ":"))
    return f"{text}.{sign(text, key)}"


def e1(key=KEY, **claims):
    head = base64url(b'{"alg":"HS256"}') + "." + base64url(
        json.dumps({"rpc": [], "iat": int(time.time()), "exp": int(time.time()) + 600, **claims}).encode())
    return f"{head}.{sign(head, key)}"


def target(token, connection="a", path="/iterator"):
    named = f"id={connection}&" if connection is not None else ""
    return f"{path}?{named}token={urllib.parse.quote(token, safe='')}"


def request(number, procedure, body=None, last=None):
    payload = {"u": f"/{procedure}", "b": {} if body is None else {"json": body}}
    if last is not None:
        payload["h"] = {"last-event-id": last}
    return json.dumps({"i": number, "p": payload})


def subscribed(c, channel, last=None, base=None, **claims):
    socket = WebSocket(base or c.base, target(e2(chn=channel, **claims)))
    socket.send(request("1", "subscribe", last=last))
    assert socket.recv() == OPENED % '"1"'
    return socket


def publish(c, key, text, query=""):
    status, _, body = http_request(c.base, "POST", f"/publish?key={key}{query}", text.encode())
    assert status == 200, (status, body)


def refusal(base, address):
    try:
        WebSocket(base, address)
    except Refused as refused:
        assert refused.headers["content-type"].startswith("text/plain"), refused.headers
        return refused.status, refused.body.decode()
    raise AssertionError("let in")


def test_refusals(bin_dir):
    """Status and body of each, in the original's order; the last of repeated parameters counts; a + is a space."""
    with tempfile.TemporaryDirectory() as dir:
        secret = pathlib.Path(dir) / "key"
        secret.write_text(KEY + "\n")
        secret.chmod(0o600)
        routes = (f'routes:\n  - {{ path: "/of/{{house}}", dialect: orpc, key: "{{house}}:{{chn}}", signing_key_file: {secret} }}\n'
                  f'  - {{ path: /other, dialect: orpc, key: "{{chn}}" }}\n')
        with Cluster(bin_dir, extra=routes) as c:
            good, path = e2(chn="r"), "/of/x"
            assert refusal(c.base, path) == (401, "ID is required")
            assert refusal(c.base, target(good, None, path)) == (401, "ID is required")
            assert refusal(c.base, f"{path}?id=a") == (401, "Token is required")
            assert refusal(c.base, f"{path}?id=a&token=") == (401, "Token is required")
            for token in (good + "x", e2("another", chn="r"), e2(chn="r", exp=time.time() - 0.5), e2(chn=7), e2(chn="r", tags=None),
                          e2(chn="r", rpc=None), good[:-5], "a.b", "x" * 7000):
                assert refusal(c.base, target(token, path=path)) == (401, "Invalid Token"), token[:200]
            for token in (e1("another", chn="r"), e1(chn="r", exp=int(time.time()) - 1), "a.b.c"):
                assert refusal(c.base, target(token, None, path)) == (401, "Invalid Token"), token
            status, headers, body = http_request(c.base, "GET", target(good, path=path))
            assert (status, body) == (426, b"Expected WebSocket upgrade"), (status, body)
            for address in ("/iterator", "/other"):
                status, _, body = http_request(c.base, "GET", address)
                assert status == 503 and b"signing key" in body, (status, body)
            for address in (target(good, path=path), target(good, "", path), target(e1(chn="r"), None, path),
                            f"{path}?token=x&id=b&" + target(good).split("?")[1],
                            target(e2(chn="a b"), path=path).replace("%20", "+")):
                socket = WebSocket(c.base, address)
                assert socket.close(1000) == 1000


def test_key_of_the_environment(bin_dir):
    """/iterator is there without a route, by the variable or by the file that its twin names."""
    with tempfile.TemporaryDirectory() as dir:
        secret = pathlib.Path(dir) / "key"
        secret.write_text(KEY + "\n")
        for name, value in (("STOA_ORPC_SIGNING_KEY", KEY), ("STOA_ORPC_SIGNING_KEY_FILE", str(secret))):
            os.environ[name] = value
            try:
                with Cluster(bin_dir) as c:
                    socket = subscribed(c, "r")
                    publish(c, "r", "7")
                    assert socket.recv() == EVENT % ('"1"', 7, 1)
                    assert socket.close() == 1000
                    for process in c.all:
                        assert KEY not in process.log_tail(1000)
            finally:
                del os.environ[name]


def test_no_compression_and_close(bin_dir):
    with Cluster(bin_dir, extra=ROUTE) as c:
        head = (f"GET {target(e2(chn='r'))} HTTP/1.1\r\nHost: {c.base[0]}:{c.base[1]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n")
        answer = raw_exchange(c.base, head.encode(), until_close=False)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        assert b"extensions" not in answer.lower() and b"protocol:" not in answer.lower(), answer
        socket = subscribed(c, "r")
        socket.send_frame(2, request("2", "nothing").encode())
        assert socket.recv() == '{"i":"2","p":{"s":404,"b":"No procedure matched"}}'
        socket.send_frame(2, request("3", "subscribe").encode() + b"\xff\x00bytes")
        assert socket.recv() == OPENED % '"3"'
        assert socket.close(1000) == 1000


def test_shard_returns(bin_dir):
    """The shard is killed under a stream: the socket stays, and every event comes once, in order."""
    with Cluster(bin_dir, extra=ROUTE) as c:
        socket = subscribed(c, "r")
        publish(c, "r", "1")
        c.shards[0].kill()
        c.shards[0].start()
        c.shards[0].ready()
        for number in range(2, 13):
            wait_until("the publish is stored", lambda n=number: http_request(
                c.base, "POST", "/publish?key=r", str(n), {"Idempotency-Key": f"k{n}"})[0] == 200)
        for number in range(1, 13):
            assert socket.recv() == EVENT % ('"1"', number, number)
        socket.close()


def test_from_gateway_to_gateway(bin_dir):
    """What a client missed meanwhile is there at the next gateway, by number and not by text."""
    with Cluster(bin_dir, gateways=2, extra=ROUTE) as c:
        first = subscribed(c, "r")
        for number in range(1, 9):
            publish(c, "r", str(number))
            assert first.recv() == EVENT % ('"1"', number, number)
        first.drop()
        for number in range(9, 13):
            publish(c, "r", str(number))
        second = subscribed(c, "r", last="8", base=c.gateways[1].base)
        for number in range(9, 13):
            assert second.recv() == EVENT % ('"1"', number, number)
        second.close()


def test_what_is_gone(bin_dir):
    """Told by the next event, since unchanged clients know no other way; an id of another history gets all there is."""
    with Cluster(bin_dir, extra=ROUTE + "types:\n  events: { retention: { count: 3 } }\n") as c:
        for number in range(1, 9):
            publish(c, "r", str(number))
        socket = subscribed(c, "r", last="2")
        event = socket.recv_json()
        assert event["p"]["d"] == {"json": 6} and event["p"]["m"]["id"] == "6", event
        (comment,) = event["p"]["m"]["comments"]
        word, start, end, reason = comment.split()
        assert (word, start.split("-")[1], end.split("-")[1], reason) == ("missed", "2", "5", "evicted"), comment
        assert socket.recv() == EVENT % ('"1"', 7, 7)
        socket.close()
        socket = subscribed(c, "r", last="1000")
        assert [socket.recv_json()["p"]["m"]["id"] for _ in range(3)] == ["6", "7", "8"]
        socket.close()


ROOM = """#!room name=room api=1
local room = require "room"
local M = {}
function M.on_connect(ctx)
  if ctx.connection.tags[1] == "banned" then room.refuse(403, "not you") end
  ctx.connection:send({ hello = ctx.connection.id, att = ctx.connection.state })
end
M.rpc = {
  say = function(ctx, input) ctx:publish({ said = input }) end,
  out = function(ctx, input) for _, c in ipairs(ctx.connections:all()) do c:close(4321, "out") end end,
}
return M
"""


def test_rooms(bin_dir):
    """A subscriber is a connection of the room: known by its id, tags and att; sent to, closed, refused."""
    with tempfile.TemporaryDirectory() as dir:
        (pathlib.Path(dir) / "room.lua").write_text(ROOM)
        with Cluster(bin_dir, extra=ROUTE + f"types:\n  room: {{ handler: {dir}/room.lua }}\n") as c:
            socket = subscribed(c, "room:1", rpc=["say", "out"], att={"user": "ann"})
            assert socket.recv() == '{"i":"1","t":3,"p":{"e":"message","d":{"json":{"att":{"user":"ann"},"hello":"a"}}}}'
            socket.send(request(7, "call", {"path": ["say"], "input": [1]}))
            event = socket.recv_json()  # before the call's own answer; what was sent to one has taken the first id
            assert (event["i"], event["p"]["d"], event["p"]["m"]["id"]) == ("1", {"json": {"said": [1]}}, "2"), event
            assert socket.recv() == '{"i":7,"p":{"b":{}}}'
            banned = WebSocket(c.base, target(e2(chn="room:1", tags=["banned"]), "b"))
            banned.send(request(1, "subscribe"))
            answer = banned.recv_json()
            assert answer["i"] == 1 and answer["p"]["s"] == 403 and answer["p"]["b"]["json"]["message"] == "not you", answer
            banned.send(request(2, "call", {"path": ["say"]}))
            assert banned.recv_json()["p"]["b"]["json"]["code"] == "FORBIDDEN"
            banned.close()
            socket.send(request(8, "call", {"path": ["out"]}))
            try:
                while True:
                    socket.recv()
            except Closed as end:
                assert (end.code, end.reason) == (4321, "out"), end
