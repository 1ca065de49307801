"""The contract with users, line by line: routes, parameters, headers, errors, dialects, monitors.

One function a section. What other suites test with more force (order, kills, RFC 6455, drains) is only touched here.
"""
import base64
import concurrent.futures
import json
import os
import pathlib
import re
import socket
import subprocess
import time

from cluster import Cluster, monitor_get, wait_until
from wire import Closed, EventStream, Refused, WebSocket, http_request, raw_exchange

ID = r"[0-9a-z]+-[1-9][0-9]*"
NDJSON = {"Content-Type": "application/x-ndjson"}
FEW = """types:
  few: { retention: { count: 10 } }
routes:
  - { path: "/progress/{id}", key: "upload:{id}", replay: all }
  - { path: "/jobs/{team}/{job}/events", key: "{team}/{job}" }
  - { path: "/kinds/{id}", key: "few:{id}" }
"""


class Asker:
    """Requests to one gateway; answers are checked on the way: every error has the contract's body."""

    def __init__(self, base):
        self.base = base

    def __call__(self, method, target, body=None, **headers):
        return http_request(self.base, method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def json(self, method, target, body=None, **headers):
        status, got, text = self(method, target, body, **headers)
        assert status == 200, (method, target, status, text)
        assert got["content-type"] == "application/json", (method, target, got)
        return json.loads(text)

    def refused(self, status, tag, method, target, body=None, **headers):
        answer = self(method, target, body, **headers)
        check_error(answer, status, tag, (method, target))
        return answer[1]

    def publish(self, key, body=b"1", **headers):
        return self.json("POST", f"/publish?key={key}", body, **headers)


def check_error(answer, status, tag, what):
    got, headers, body = answer
    assert got == status, (what, got, body)
    assert headers["content-type"] == "application/json", (what, headers)
    found = json.loads(body)
    assert set(found) == {"error"} and set(found["error"]) == {"tag", "message"}, (what, body)
    assert found["error"]["tag"] == tag and len(found["error"]["message"]) > 10, (what, body)
    if status in (429, 503):
        assert int(headers["retry-after"]) >= 1, (what, headers)


def v1(c, **more):
    return WebSocket(c.base, "/stoa", subprotocol="stoa.v1", **more)


def upgrade_refused(base, target, status, tag, **more):
    try:
        WebSocket(base, target, **more)
    except Refused as refused:
        check_error((refused.status, refused.headers, refused.body), status, tag, target)
        return
    raise AssertionError(f"{target} was upgraded")


def ended(ws):
    """(code, reason) of the Close frame, after whatever comes before it."""
    try:
        while True:
            ws.recv()
    except Closed as end:
        return end.code, end.reason


# ---- routes ----


def test_publish(bin_dir):
    with Cluster(bin_dir, shards=2) as c:
        ask = Asker(c.base)
        first = ask.publish("a", b"hi")
        assert set(first) == {"id", "duplicate"} and re.fullmatch(ID, first["id"]) and first["duplicate"] is False, first
        epoch = first["id"].split("-")[0]
        # the body byte for byte, whatever it is said to be
        bodies = [b"", b"\x00\xff\xfe", b'{"a" : 1}  ', b"a=b&c=d", "grüße".encode(), b"1,2\n"]
        kinds = ["text/plain", "application/octet-stream", "application/json", "application/x-www-form-urlencoded", "x/y", "image/png"]
        for body, kind in zip(bodies, kinds):
            ask.publish("bytes", body, Content_Type=kind)
        for event, body in zip(ask.json("GET", "/log?key=bytes&after=0")["events"], bodies):
            assert set(event) == {"id", "ts", "data"} or set(event) == {"id", "ts", "base64"}, event
            assert ("data" in event) == (body == bodies[2]), event
            if "base64" in event:
                assert base64.b64decode(event["base64"]) == body, event
        text = http_request(c.base, "GET", "/log?key=bytes&after=0")[2]
        assert b'"data":{"a" : 1}' in text, text  # verbatim, not re-encoded
        # idempotency: 1 to 255 bytes, the original's answer, whatever the second body
        once = ask.publish("a", b"1", Idempotency_Key="k" * 255)
        again = ask.publish("a", b"2", Idempotency_Key="k" * 255)
        assert again == {"id": once["id"], "duplicate": True}, again
        ask.refused(400, "BadRequest", "POST", "/publish?key=a", b"1", Idempotency_Key="k" * 256)
        ask.refused(400, "BadRequest", "POST", "/publish?key=a", b"1", Idempotency_Key="")
        assert ask.publish("other", b"1", Idempotency_Key="k" * 255)["duplicate"] is False  # remembered per key
        # ephemeral
        assert ask.publish("a", b"1", Stoa_Ephemeral="1") == {"id": None, "duplicate": False}
        assert ask.publish("a")["id"] == f"{epoch}-3"
        # batches: all or none
        batch = ask.publish("b", b"1\n\n2\r\n3", **{"Content-Type": "application/x-ndjson; charset=utf-8"})
        assert set(batch) == {"id", "duplicate", "first", "count"} and batch["count"] == 3, batch
        assert batch["first"].endswith("-1") and batch["id"].endswith("-3"), batch
        ask.refused(400, "BadRequest", "POST", "/publish?key=b", b"4\nnot json\n5\n", **NDJSON)
        ask.refused(400, "BadRequest", "POST", "/publish?key=b", b"\n\n", **NDJSON)
        ask.refused(413, "TooLarge", "POST", "/publish?key=b", b"1\n" * 257, **NDJSON)
        ask.refused(413, "TooLarge", "POST", "/publish?key=b", (b'"' + b"x" * 400000 + b'"\n') * 3, **NDJSON)  # over 1 MiB
        assert ask.publish("b256", b"1\n" * 256, **NDJSON)["count"] == 256
        twice = ask.publish("b", b"6\n7\n", Idempotency_Key="batch", **NDJSON)
        assert ask.publish("b", b"6\n7\n", Idempotency_Key="batch", **NDJSON) == {**twice, "duplicate": True}
        assert ask.publish("b", b"8\n9\n", Stoa_Ephemeral="1", **NDJSON)["id"] is None
        assert [e["data"] for e in ask.json("GET", "/log?key=b&after=0")["events"]] == [1, 2, 3, 6, 7]
        # sizes: 524288 bytes pass, one more does not
        ask.publish("big", b"x" * 524288)
        ask.refused(413, "TooLarge", "POST", "/publish?key=big", b"x" * 524289)
        ask.refused(413, "TooLarge", "POST", "/publish?key=big", b'"' + b"x" * 524287 + b'"\n1\n', **NDJSON)
        assert len(ask.json("GET", "/log?key=big&last=5")["events"]) == 1
        # headers that are wrong
        twice = b"POST /publish?key=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n" + b"Idempotency-Key: %d\r\n" * 2 % (1, 2)
        assert raw_exchange(c.base, twice + b"\r\n1").startswith(b"HTTP/1.1 400 "), "two idempotency keys"
        ask.refused(400, "BadRequest", "POST", "/publish?key=a", b"1", Stoa_Conflate="c" * 65)
        ask.refused(400, "BadRequest", "POST", "/publish?key=a", b"1", Stoa_Ephemeral="yes")
        for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
            status, headers, _ = ask(method, "/publish?key=a")
            assert status == 405 and "POST" in headers["allow"], (method, status, headers)


def test_keys_of_requests(bin_dir):
    with Cluster(bin_dir) as c:
        ask = Asker(c.base)
        good = ["x" * 256, "a%2Fb", "a%20b", "%C3%BC", "%F0%9F%98%80", "a:b:c", "%25", "a%26b%3D", "a+b"]
        for key in good:
            ask.publish(key)
        assert ask.json("GET", "/log?key=a%2520b")["events"] == []  # decoded once
        bad = ["", "x" * 257, "%C3%BC" * 128 + "x", "%00", "a%0Ab", "a%7F", "%ff", "%C3", "%ED%A0%80", "%24x", "%24stoa%3Arevoked", "%zz", "%4"]
        for key in bad:
            for method, target in (("POST", f"/publish?key={key}"), ("GET", f"/log?key={key}"), ("GET", f"/events?key={key}"),
                                   ("GET", f"/connections?key={key}"), ("POST", f"/close?key={key}"), ("DELETE", f"/log?key={key}"),
                                   ("GET", f"/presence?key={key}")):
                ask.refused(400, "BadKey", method, target)
        ask.refused(400, "BadKey", "POST", "/publish", b"1")
        for target in (f"/ws/t/{'x' * 255}", "/ws/t/", "/ws/t/%00", "/ws/%24t/x", "/ws/t/%ff"):
            upgrade_refused(c.base, target, 400, "BadKey")
        ask.refused(400, "BadKey", "GET", "/events?key=a&key=b")
        for target in ("/events?key=a&uploadId=b", "/events?uploadId=a&jobId=b"):
            ask.refused(400, "BadRequest", "GET", target)
            upgrade_refused(c.base, target, 400, "BadRequest")
        for name in ("key", "uploadId", "jobId"):
            ws = WebSocket(c.base, f"/events?{name}=the%2Fone&replay=none")
            ask.publish("the%2Fone", b'"x"')
            assert ws.recv() == '"x"'
            ws.close()
        listed = ask.json("GET", "/keys?limit=1000")
        assert "a/b" in [k["key"] for k in listed["keys"]] and "ü" in [k["key"] for k in listed["keys"]], listed


def test_log_and_keys(bin_dir):
    with Cluster(bin_dir, shards=2) as c:
        ask = Asker(c.base)
        assert ask.json("GET", "/log?key=unborn") == {"key": "unborn", "head": "0", "events": [], "more": False}
        ids = []
        for n in range(0, 1200, 240):
            ids += [ask.publish("long", b"".join(b"%d\n" % m for m in range(n, n + 240)), **NDJSON)["first"]]
        epoch = ids[0].split("-")[0]
        got = ask.json("GET", "/log?key=long")
        assert set(got) == {"key", "head", "events", "more"} and got["head"] == f"{epoch}-1200", got
        assert len(got["events"]) == 100 and got["more"] is True and got["events"][0]["data"] == 0
        got = ask.json("GET", "/log?key=long&limit=1000&after=0")
        assert [e["data"] for e in got["events"]] == list(range(1000)) and got["more"] is True
        got = ask.json("GET", f"/log?key=long&limit=1000&after={epoch}-1000")
        assert [e["data"] for e in got["events"]] == list(range(1000, 1200)) and got["more"] is False
        assert [e["data"] for e in ask.json("GET", "/log?key=long&last=2")["events"]] == [1198, 1199]
        assert len(ask.json("GET", "/log?key=long&last=1000")["events"]) == 1000
        for query in ("limit=0", "limit=1001", "limit=x", "limit=-1", "last=0", "last=1001", "limit="):
            ask.refused(400, "BadRequest", "GET", f"/log?key=long&{query}")
        for after in ("x", "1-", "-1", f"{epoch}-", f"{epoch}-x", f"{epoch}-1-1", "", "%00", "Z" * 99):
            ask.refused(400, "BadId", "GET", f"/log?key=long&after={after}")
        status, headers, body = ask("GET", "/log?key=long&limit=3&after=0", Accept="application/x-ndjson")
        assert status == 200 and headers["content-type"] == "application/x-ndjson", headers
        assert [json.loads(line)["data"] for line in body.splitlines()] == [0, 1, 2] and body.endswith(b"\n"), body
        status, headers, body = ask("HEAD", "/log?key=long")
        assert status == 200 and body == b"" and int(headers["content-length"]) > 100, headers
        ask.publish("conf", b"1", Stoa_Conflate="c")
        event = ask.json("GET", "/log?key=conf")["events"][0]
        assert set(event) == {"id", "ts", "data", "conflate"} and event["conflate"] == "c", event
        assert abs(event["ts"] - time.time() * 1000) < 60000, event  # milliseconds of the wall clock
        # the other history: an id above the head, or of another epoch
        missed = ask.json("GET", f"/log?key=conf&after={event['id'].split('-')[0]}-9")["missed"]
        assert set(missed) == {"from", "to", "reason"} and missed["reason"] == "epoch", missed
        assert ask.json("GET", f"/log?key=conf&after={epoch}-1")["missed"]["reason"] == "epoch"
        # purge
        status, _, _ = ask("DELETE", "/log?key=conf")
        assert status == 200
        assert ask.json("GET", "/log?key=conf&after=0")["missed"] == {"from": "0", "to": event["id"], "reason": "purged"}
        assert ask.publish("conf")["id"] == event["id"].replace("-1", "-2")  # ids go on
        # keys
        for n in range(5):
            ask.publish(f"p:{n}")
        page = ask.json("GET", "/keys?prefix=p:&limit=2")
        assert [k["key"] for k in page["keys"]] == ["p:0", "p:1"] and page["more"] is True, page
        page = ask.json("GET", "/keys?prefix=p:&after=p:3")
        assert [k["key"] for k in page["keys"]] == ["p:4"] and page["more"] is False, page
        for query in ("limit=0", "limit=x"):
            ask.refused(400, "BadRequest", "GET", f"/keys?{query}")


def test_rooms_over_http(bin_dir):
    with Cluster(bin_dir, gateways=2, extra=FEW) as c:
        ask = Asker(c.base)
        ask.publish("few:1", b'{"n":1}')
        api = "/api/few/1"
        assert ask.json("GET", f"{api}/log?after=0")["events"][0]["data"] == {"n": 1}
        assert ask.json("GET", f"{api}/connections") == []
        here, there = WebSocket(c.base, "/ws/few/1"), WebSocket(c.gateways[1].base, "/ws/few/1")
        def both():
            found = ask.json("GET", "/connections?key=few:1")
            return found if len(found) == 2 else None
        found = wait_until("both gateways' sockets are listed", both)
        assert all(set(one) == {"id", "tags", "state"} and one["tags"] == [] and one["id"] for one in found), found
        assert len({one["id"] for one in found}) == 2, found
        assert ask.json("GET", "/connections?key=few:1&tag=x") == []  # nobody has tags
        assert ask("POST", f"{api}/close?code=4321")[0] == 200
        assert ended(here)[0] == 4321 and ended(there)[0] == 4321
        one = WebSocket(c.gateways[1].base, "/ws/few/1?replay=1")
        assert one.recv_json() == {"n": 1}
        assert ask("POST", "/close?key=few:1")[0] == 200
        assert ended(one)[0] == 1000
        for code in ("999", "1005", "1006", "1015", "5000", "x", ""):
            ask.refused(400, "BadRequest", "POST", f"/close?key=few:1&code={code}")
        # what needs a handler
        for method, verb in (("POST", "send"), ("POST", "broadcast"), ("GET", "state"), ("GET", "presence"), ("POST", "alarm"), ("POST", "any")):
            ask.refused(409, "NoHandler", method, f"{api}/{verb}", b"{}")
        ask.refused(409, "NoHandler", "POST", "/api/nobody/1/send", b"{}")
        ask.refused(409, "NoHandler", "POST", "/api/nobody/1/broadcast", b"{}")
        ask.refused(404, "NoSuchType", "POST", "/api/nobody/1/any", b"{}")
        ask.refused(404, "NoSuchType", "GET", "/api/nobody/1/state")
        for method, path in (("GET", "/send"), ("POST", "/state"), ("POST", "/connections"), ("GET", "/close"), ("DELETE", "/log"), ("GET", ""),
                             ("POST", ""), ("PUT", "/send")):
            assert "allow" in ask.refused(405, "MethodNotAllowed", method, f"{api}{path}", b"{}" if method == "POST" else None)
        assert ask("DELETE", api)[0] == 200
        assert ask.json("GET", f"{api}/log?after=0")["missed"]["reason"] == "purged"
        # an undeclared type is events with the key type:id, and paths are decoded once
        ask.publish("free:a%2Fb", b'"z"')
        assert ask.json("GET", "/api/free/a%2Fb/log?after=0")["key"] == "free:a/b"
        assert WebSocket(c.base, "/ws/free/a%2Fb?replay=all").recv() == '"z"'
        for target in ("/", "/nothing", "/ws", "/ws/", "/ws/a", "/api/", "/api/a", "/api/a/b/c/d", "/ws/a/b/c", "/events/", "/Events?key=a"):
            ask.refused(404, "NotFound", "GET", target)


def test_types_of_routes(bin_dir):
    """A route serves the types it names; /events the type events; /ws, /api and /stoa every one."""
    with Cluster(bin_dir, extra=FEW) as c:
        ask = Asker(c.base)
        first = ask.publish("few:1", b'"one"')["id"]
        for target in ("/events?key=few:1", "/events?uploadId=few%3A1", "/kinds/1"):
            upgrade_refused(c.base, target, 403, "Forbidden")
            ask.refused(403, "Forbidden", "GET", target)
        assert WebSocket(c.base, "/ws/few/1?replay=all").recv() == '"one"'
        socket_v1 = v1(c)
        socket_v1.send_json({"sub": "few:1", "replay": "all"})
        assert socket_v1.recv_json()["head"] == first and socket_v1.recv_json()["data"] == "one"
        stream = EventStream(c.base, "/api/few/1/events?replay=all")
        assert stream.status == 200 and stream.next() == ("message", first, '"one"')
        for key in ("few", "fewer:1", "events:1", ":few", "unknown:1"):
            ask.publish(key, b'"two"')
            assert WebSocket(c.base, f"/events?key={key}&replay=all").recv() == '"two"', key
        # configured routes
        ask.publish("upload:a/b", b'"three"')
        assert WebSocket(c.base, "/progress/a%2Fb").recv() == '"three"'  # the route's own replay
        quiet = WebSocket(c.base, "/progress/a%2Fb?replay=none")
        ask.publish("upload:a/b", b'"four"')
        assert quiet.recv() == '"four"'
        assert EventStream(c.base, "/progress/a%2Fb").next()[2] == '"three"'
        ask.publish("red/7", b'"five"')
        assert EventStream(c.base, "/jobs/red/7/events?replay=all").next()[2] == '"five"'
        ask.refused(426, "UpgradeRequired", "GET", "/progress/x", Accept="text/html")
        ask.refused(405, "MethodNotAllowed", "POST", "/progress/x", b"1")
        ask.refused(400, "BadKey", "GET", "/progress/%00")
        for target in ("/progress/", "/progress/a/b", "/progress", "/jobs/red/events", "/jobs/red/7/event"):
            ask.refused(404, "NotFound", "GET", target)


def test_upgrades_and_streams(bin_dir):
    with Cluster(bin_dir) as c:
        ask = Asker(c.base)
        assert ask.refused(426, "UpgradeRequired", "GET", "/ws/t/1")["upgrade"] == "websocket"
        assert ask.refused(426, "UpgradeRequired", "GET", "/stoa")["upgrade"] == "websocket"
        for accept in ("application/json", "text/html, image/*;q=0.8", "text/event-streams"):
            ask.refused(426, "UpgradeRequired", "GET", "/events?key=e", Accept=accept)
        upgrade_refused(c.base, "/stoa", 400, "BadRequest")
        upgrade_refused(c.base, "/stoa", 400, "BadRequest", subprotocol="stoa.v2")
        assert WebSocket(c.base, "/stoa", subprotocol="other, stoa.v1").subprotocol == "stoa.v1"
        for target in ("/events?key=e&after=zz", "/ws/e/1?after=1-"):
            upgrade_refused(c.base, target, 400, "BadId")
        for target in ("/events?key=e&replay=some", "/events?key=e&replay=-1", "/events?key=e&replay="):
            upgrade_refused(c.base, target, 400, "BadRequest")
            ask.refused(400, "BadRequest", "GET", target)
        ask.refused(400, "BadId", "GET", "/events?key=e", Last_Event_ID="zz")
        ids = [ask.publish("e", b'{"n":%d}' % n)["id"] for n in range(5)]
        # Last-Event-ID wins over after, after over replay; after=0 is everything
        for target, headers, first in ((f"/events?key=e&after={ids[0]}&replay=all", {}, 1), ("/events?key=e&after=0", {}, 0),
                                       (f"/events?key=e&after={ids[0]}&replay=1", {"Last-Event-ID": ids[2]}, 3),
                                       ("/events?key=e&replay=2", {}, 3), ("/events?key=e&replay=99", {}, 0), ("/events?key=e&replay=all", {}, 0)):
            stream = EventStream(c.base, target, headers)
            assert [stream.next()[1] for _ in range(5 - first)] == ids[first:], target
            assert stream.retry == 1000
            stream.close()
        for accept in ("*/*", "text/*", "text/html;q=0.9, text/event-stream", ""):
            status, headers = stream_head(c.base, accept)
            assert status == 200 and headers["content-type"] == "text/event-stream" and headers["cache-control"] == "no-store", headers
            assert headers["x-accel-buffering"] == "no", headers
        # payloads that no line may forge, and bytes that are no text
        payloads = ["a\nb\r\nc\rd", "", ":x", "id: 9-9", "\n\n", "data: x"]
        stream = EventStream(c.base, "/events?key=lines")
        assert stream.status == 200
        wait_until("the stream is subscribed", lambda: ask.json("GET", "/connections?key=lines"))
        for payload in payloads:
            ask.publish("lines", payload.encode())
        for payload in payloads:
            event, ident, data = stream.next()
            assert event == "message" and re.fullmatch(ID, ident) and data == payload.replace("\r\n", "\n").replace("\r", "\n"), (payload, data)
        ask.publish("lines", b"\xff\x00")
        event, ident, data = stream.next()
        assert event == "base64" and base64.b64decode(data) == b"\xff\x00" and ident
        ask.publish("lines", b"gone", Stoa_Ephemeral="1")
        event, ident, data = stream.next()
        assert event == "message" and ident is None and data == "gone"


def stream_head(base, accept):
    line = f"Accept: {accept}\r\n" if accept else ""
    answer = raw_exchange(base, f"GET /events?key=head HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode(), until_close=False)
    head = answer.split(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(head[0].split()[1]), {k.lower(): v.strip() for k, _, v in (h.partition(":") for h in head[1:])}


# ---- origins ----


def test_origins(bin_dir):
    with Cluster(bin_dir) as c:
        ask = Asker(c.base)
        for origin in ("http://localhost:3000", "https://localhost", "http://127.0.0.1:5173", "http://[::1]:80", "http://app.localhost"):
            status, headers, _ = ask("POST", "/publish?key=o", b"1", Origin=origin)
            assert status == 200 and headers["access-control-allow-origin"] == origin, (origin, headers)
            assert headers["access-control-expose-headers"] == "Retry-After" and headers["vary"] == "Origin", headers
            WebSocket(c.base, "/ws/o/1", headers={"Origin": origin}).close()
        for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://evil.example/localhost", "http://127.evil.example", "x"):
            for method, target in (("GET", "/log?key=o"), ("POST", "/publish?key=o"), ("DELETE", "/log?key=o"), ("OPTIONS", "/publish"),
                                   ("GET", "/events?key=o"), ("GET", "/status"), ("GET", "/nothing"), ("GET", "/")):
                headers = ask.refused(403, "OriginRefused", method, target, Origin=origin)
                assert "access-control-allow-origin" not in headers, headers
            upgrade_refused(c.base, "/stoa", 403, "OriginRefused", subprotocol="stoa.v1", headers={"Origin": origin})
        for host in ("evil.example", "evil.example:8080", "localhost.evil.example", "0.0.0.0"):
            ask.refused(403, "OriginRefused", "POST", "/publish?key=o", b"1", Host=host)
            ask.refused(403, "OriginRefused", "GET", "/events?key=o", Host=host)
        for host in ("localhost", "127.0.0.1:1", "[::1]:8080", "LOCALHOST:8080"):
            assert ask("GET", "/log?key=o", Host=host)[0] == 200, host
        for target, methods in (("/publish", "POST"), ("/log", "GET, HEAD, DELETE"), ("/events", "GET"), ("/api/a/b/send", "POST"), ("/keys", "GET")):
            status, headers, body = ask("OPTIONS", target, Origin="http://localhost:1", Access_Control_Request_Method="POST")
            assert status == 204 and body == b"" and headers["access-control-max-age"] == "600", (target, status, headers)
            for method in methods.split(", "):
                assert method in headers["access-control-allow-methods"].split(", "), (target, headers)
            for name in ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Stoa-Conflate", "Stoa-Ephemeral"):
                assert name in headers["access-control-allow-headers"].split(", "), headers
        twice = b"GET /log?key=o HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: http://localhost\r\nOrigin: https://evil.example\r\n\r\n"
        assert raw_exchange(c.base, twice).startswith(b"HTTP/1.1 403 "), "two origins"
        # errors and streams carry the permission too: a page must be able to read them
        status, headers, _ = ask("GET", "/log?key=", Origin="http://localhost:1")
        assert status == 400 and headers["access-control-allow-origin"] == "http://localhost:1", headers
        stream = EventStream(c.base, "/events?key=o", {"Origin": "http://localhost:1"})
        assert stream.headers["access-control-allow-origin"] == "http://localhost:1", stream.headers
    with Cluster(bin_dir, extra="gateway: { origins: ['https://app.example.com', 'http://localhost:1'] }\n") as c:
        ask = Asker(c.base)
        assert ask("GET", "/log?key=o", Origin="https://app.example.com")[0] == 200
        assert ask("GET", "/log?key=o")[0] == 200
        for origin in ("http://app.example.com", "https://app.example.com:8443", "http://localhost:2", "https://app.example.com.evil.example"):
            ask.refused(403, "OriginRefused", "GET", "/log?key=o", Origin=origin)
    with Cluster(bin_dir, extra="gateway: { origins: ['*'] }\n") as c:
        status, headers, _ = Asker(c.base)("GET", "/log?key=o", Origin="https://anybody.example")
        assert status == 200 and headers["access-control-allow-origin"] == "*", headers


# ---- missed ----


def test_missed(bin_dir):
    with Cluster(bin_dir, extra="types: { events: { retention: { count: 10 } }, short: { retention: { age: 1s } } }\n") as c:
        ask = Asker(c.base)
        ids = [ask.publish("m", b"%d" % n)["id"] for n in range(15)]
        gap = {"from": ids[1], "to": ids[4], "reason": "evicted"}
        got = ask.json("GET", f"/log?key=m&after={ids[1]}")
        assert got["missed"] == gap and [e["id"] for e in got["events"]] == ids[5:], got
        assert "missed" not in ask.json("GET", f"/log?key=m&after={ids[4]}")
        assert "missed" not in ask.json("GET", "/log?key=m&last=100")
        line = http_request(c.base, "GET", f"/log?key=m&after={ids[1]}", headers={"Accept": "application/x-ndjson"})[2].splitlines()[0]
        assert json.loads(line) == {"missed": gap}, line
        ws = v1(c)
        ws.send_json({"sub": "m", "after": ids[1]})
        assert ws.recv_json() == {"sub": "m", "status": "missed", "missed": gap, "head": ids[14]}
        assert [ws.recv_json()["id"] for _ in range(10)] == ids[5:]
        stream = EventStream(c.base, f"/events?key=m&after={ids[1]}")
        event, ident, data = stream.next()
        assert (event, ident, json.loads(data)) == ("missed", ids[4], gap)
        assert [stream.next()[1] for _ in range(10)] == ids[5:]
        assert ended(WebSocket(c.base, f"/events?key=m&after={ids[1]}")) == (4010, f"missed {ids[1]} {ids[4]} evicted")
        whole = WebSocket(c.base, "/events?key=m&after=0")  # asks for what is gone, too
        assert ended(whole) == (4010, f"missed 0 {ids[4]} evicted")
        # replay=all is what is retained, and loses nothing
        assert WebSocket(c.base, "/events?key=m&replay=all").recv() == "5"
        # age, exact on reading
        old = ask.publish("short:1")["id"]
        gone = wait_until("the event is too old", lambda: ask.json("GET", "/log?key=short:1&after=0").get("missed"))
        assert gone == {"from": "0", "to": old, "reason": "expired"}, gone
        epoch = ids[0].split("-")[0]
        assert ended(WebSocket(c.base, f"/events?key=m&after={epoch}-99"))[0] == 4010
        ws.send_json({"sub": "m", "after": f"{epoch}-99"})
        told = ws.recv_json()
        assert told["status"] == "missed" and told["missed"]["reason"] == "epoch" and told["head"] == ids[14], told
        # superseded conflated events are not missed; /log gets all
        for n in range(5):
            ask.publish("c", b"%d" % n, Stoa_Conflate="n")
        one = WebSocket(c.base, "/events?key=c&after=0")
        assert one.recv() == "4"
        assert [e["data"] for e in ask.json("GET", "/log?key=c&after=0")["events"]] == [0, 1, 2, 3, 4]


# ---- stoa.v1 ----


def test_v1_frames(bin_dir):
    with Cluster(bin_dir, gateways=1) as c:
        ask = Asker(c.base)
        ws = v1(c)

        def say(frame):
            ws.send_json(frame)
            return ws.recv_json()
        assert say({"ping": {"a": [1, "x"]}}) == {"pong": {"a": [1, "x"]}}
        assert say({"ping": None}) == {"pong": None}
        assert say({"sub": "k"}) == {"sub": "k", "status": "live", "head": "0"}
        done = say({"pub": "other", "data": {"x": 1}, "ref": "r1"})
        assert set(done) == {"ref", "ok"} and done["ref"] == "r1" and set(done["ok"]) == {"id", "duplicate"}, done
        # an event, exactly
        first = ask.publish("k", b'{"b":2, "a":1}')["id"]
        text = ws.recv()
        ts = json.loads(text)["ts"]
        assert text == f'{{"key":"k","id":"{first}","ts":{ts},"data":{{"b":2, "a":1}}}}', text
        ask.publish("k", b"not json")
        frame = ws.recv_json()
        assert set(frame) == {"key", "id", "ts", "base64"} and base64.b64decode(frame["base64"]) == b"not json", frame
        ask.publish("k", b'1},"id":"x"')
        frame = ws.recv_json()
        assert "data" not in frame and frame["id"] != "x", frame
        ask.publish("k", b'"e"', Stoa_Ephemeral="1")
        frame = ws.recv_json()
        assert set(frame) == {"key", "ts", "data"} and frame["data"] == "e", frame
        # publishing; the event comes to the same socket, answers carry ref as it was
        ws.send_json({"pub": "k", "data": [1], "ref": {"any": 1}, "idempotencyKey": "i"})
        frames = {("ref" in f): f for f in (ws.recv_json(), ws.recv_json())}
        assert frames[True]["ref"] == {"any": 1} and frames[True]["ok"] == {"id": frames[False]["id"], "duplicate": False}, frames
        assert say({"pub": "k", "data": [2], "ref": 7, "idempotencyKey": "i"}) == {"ref": 7, "ok": {"id": frames[False]["id"], "duplicate": True}}
        assert say({"pub": "q", "data": 1, "ref": 8, "ephemeral": True}) == {"ref": 8, "ok": {"id": None, "duplicate": False}}
        assert say({"pub": "q", "data": 1, "ref": 9, "conflate": "c"})["ok"]["id"].endswith("-1")
        # refusals
        refused = say({"pub": "", "data": 1, "ref": 1})
        assert refused["ref"] == 1 and set(refused["error"]) == {"tag", "message", "status"} and refused["error"]["status"] == 400, refused
        assert refused["error"]["tag"] == "BadKey"
        assert say({"pub": "k", "ref": 1})["error"]["tag"] == "BadRequest"
        assert say({"pub": "k", "data": 1, "ref": 1, "conflate": "c" * 65})["error"]["tag"] == "BadRequest"
        assert say({"pub": "k", "data": 1, "ref": 1, "idempotencyKey": "i" * 256})["error"]["tag"] == "BadRequest"
        assert say({"send": "k", "event": {}, "ref": 2})["error"] | {"message": ""} == {"tag": "NoHandler", "message": "", "status": 409}
        assert say({"call": "events:k", "method": "m", "ref": 3})["error"]["tag"] == "NoHandler"
        assert say({"call": "nobody:k", "method": "m", "ref": 3})["error"]["tag"] == "NoSuchType"
        assert say({"send": "$k", "event": {}, "ref": 4})["error"]["tag"] == "BadKey"
        for key in ("", "$stoa:x", "x" * 257, "a\nb"):
            told = say({"sub": key})
            assert told["sub"] == key and told["error"]["tag"] == "BadKey" and told["error"]["status"] == 400, told
        told = say({"sub": "k", "after": "zz"})
        assert told["sub"] == "k" and told["error"]["tag"] == "BadId" and set(told["error"]) == {"tag", "message", "status"}, told
        assert say({"sub": "z", "replay": "some"})["error"]["tag"] == "BadRequest"
        # what was refused left the subscription alone
        last = ask.publish("k", b'"still"')["id"]
        assert ws.recv_json()["id"] == last
        # a second sub starts anew, unsub ends
        assert say({"sub": "k", "after": first})["status"] == "resumed"
        replayed = [ws.recv_json() for _ in range(4)]
        assert [f["id"].split("-")[1] for f in replayed] == ["2", "3", "4", "5"], replayed
        told = say({"sub": "k", "replay": 1})
        assert told["status"] in ("live", "resumed") and told["head"] == last and set(told) == {"sub", "status", "head"}, told
        assert ws.recv_json()["id"] == last
        assert say({"unsub": "k"}) == {"unsub": "k"}
        ask.publish("k")
        assert say({"ping": 1}) == {"pong": 1}
        assert say({"unsub": "never"}) == {"unsub": "never"}
        # ended by the server: the subscription, never the socket
        say({"sub": "k"})
        assert ask("POST", "/close?key=k&code=4444")[0] == 200
        told = ws.recv_json()
        assert told["unsub"] == "k" and told["code"] == 4444 and isinstance(told["reason"], str), told
        assert say({"ping": 2}) == {"pong": 2}
        ws.send_json({"token": "ignored"})
        assert say({"ping": 3}) == {"pong": 3}


def test_v1_bad_frames(bin_dir):
    with Cluster(bin_dir, extra="gateway: { limits: { keys_per_socket: 3 } }\n") as c:
        ws = v1(c)
        bad = ["", "x", "[]", "1", "{}", '{"nothing":1}', '{"sub":1}', '{"sub":"a","pub":"b"}', '{"sub":"a"', '{"sub":"a"}x', '{"ping"}', "null"]
        for n in range(19):
            ws.send(bad[n % len(bad)])
            told = ws.recv_json()
            assert set(told) == {"error"} and set(told["error"]) == {"tag", "message"} and told["error"]["tag"] == "BadRequest", told
        ws.send_json({"ping": 1})
        assert ws.recv_json() == {"pong": 1}
        ws.send_frame(2, b'{"ping":1}')  # the twentieth: bytes instead of text
        assert ws.recv_json()["error"]["tag"] == "BadRequest"
        assert ended(ws)[0] == 1008
        ws = v1(c)
        for n in range(3):
            ws.send_json({"sub": f"k{n}"})
            assert ws.recv_json()["status"] == "live"
        ws.send_json({"sub": "k3"})
        told = ws.recv_json()
        assert told["sub"] == "k3" and "too many keys" in told["error"]["message"], told
        ws.send_json({"sub": "k2"})  # again: no further key
        assert ws.recv_json()["status"] == "live"
        head, tail = '{"pub":"big","ref":1,"data":"', '"}'
        ws.send(head + "x" * (524288 - len(head + tail)) + tail)  # a message of 512 KiB, exactly
        assert "ok" in ws.recv_json()
        ws.send(head + "x" * (524289 - len(head + tail)) + tail)
        assert ended(ws)[0] == 1009
        for code in (1000, 3000, 4999):
            assert v1(c).close(code) == code
        raw = WebSocket(c.base, "/events?key=quiet")
        raw.send("anything")  # ignored
        raw.send_frame(9, b"hello")
        assert raw.frame() == (True, 10, b"hello")
        raw.send("x" * 524288)
        raw.send_frame(9, b"2")
        assert raw.frame() == (True, 10, b"2")
        raw.send("x" * 524289)
        assert ended(raw)[0] == 1009


def test_limits(bin_dir):
    with Cluster(bin_dir, extra="gateway: { limits: { message: 1KiB } }\nlog: { format: json }\n") as c:
        ask = Asker(c.base)
        ask.publish("k", b"x" * 1024)
        ask.refused(413, "TooLarge", "POST", "/publish?key=k", b"x" * 1025)
        raw = WebSocket(c.base, "/events?key=k&replay=1", subprotocol="unknown")
        assert raw.subprotocol is None and raw.recv() == "x" * 1024
        ask.publish("k", b"\xff\x00")
        assert raw.recv() == b"\xff\x00"  # what is no text is a binary frame
        raw.send("y" * 1024)
        raw.send("y" * 1025)
        assert ended(raw)[0] == 1009
        # bad input has a counter and a line in the log, and not a line each
        for _ in range(50):
            ask.refused(400, "BadKey", "GET", "/log?key=")
        lines = [json.loads(line) for line in c.gateways[0].log_tail(200).splitlines() if line.startswith("{")]
        refused = [line for line in lines if line.get("tag") == "BadKey"]
        assert refused and len(refused) < 10 and all("key" in line["message"] for line in refused), lines
        assert any(line.get("tag") == "TooLarge" for line in lines) and any(line.get("code") == 1009 for line in lines), lines
        text = monitor_get(c.gateways[0].monitor, "/metrics")[1]
        assert 'stoa_refused_total{tag="BadKey"} 50' in text and 'stoa_closes_total{code="1009"} 1' in text, text
    with Cluster(bin_dir, extra="gateway: { limits: { connection_rate: 5/s } }\n") as c:
        answers = [http_request(c.base, "GET", "/log?key=a") for _ in range(20)]
        assert answers[0][0] == 200
        for answer in answers:
            if answer[0] != 200:
                check_error(answer, 429, "RateLimited", "/log")
        assert answers[-1][0] == 429, [answer[0] for answer in answers]


# ---- did it happen ----


def test_without_shard_or_router(bin_dir):
    with Cluster(bin_dir) as c:
        ask = Asker(c.base)
        ask.publish("d")
        c.routers[0].kill()
        wait_until("not ready", lambda: monitor_get(c.gateways[0].monitor, "/readyz")[0] == 503)
        status, reason = monitor_get(c.gateways[0].monitor, "/readyz")
        assert status == 503 and "router" in reason, reason
        c.shards[0].kill()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, method, target, body) for method, target, body in
                     (("GET", "/log?key=d", None), ("DELETE", "/log?key=d", None), ("GET", "/connections?key=d", None), ("POST", "/publish?key=d", b"2"))]
            for one in asked:
                status, headers, body = one.result()
                tag = json.loads(body)["error"]["tag"]
                assert (status, tag) in ((503, "Moving"), (504, "Unknown")), (status, body)
                assert status == 504 or "retry-after" in headers, headers
            assert asked[3].result()[0] == 503  # no router took it: surely not stored
        status = ask.json("GET", "/status")
        down = [p for p in status["processes"] if p["role"] == "shard"]
        assert down[0]["up"] is False, down
        for process in (c.routers[0], c.shards[0]):
            process.start()
        wait_until("ready", lambda: monitor_get(c.gateways[0].monitor, "/readyz")[0] == 200)
        assert [e["data"] for e in ask.json("GET", "/log?key=d&after=0")["events"]] == [1]


# ---- monitor, status ----

METRICS = {
    "gateway": """stoa_build_info stoa_publish_total{result} stoa_publish_ack_seconds stoa_rooms{state} stoa_sockets{dialect} stoa_deliveries_total
                  stoa_delivery_seconds stoa_lagging_sockets stoa_missed_total{reason} stoa_closes_total{code} stoa_refused_total{tag} stoa_links{peer}""",
    "router": "stoa_build_info stoa_slots_unowned stoa_links{peer}",
    "shard": """stoa_build_info stoa_publish_total{result} stoa_commit_seconds stoa_commit_events stoa_disk_sync_seconds stoa_disk_free_bytes
                stoa_retained_bytes stoa_retained_events stoa_rooms{state} stoa_slots_owned stoa_missed_total{reason} stoa_links{peer}""",
}


def test_monitors(bin_dir):
    with Cluster(bin_dir, shards=2, gateways=2) as c:
        for process, role in [(c.gateways[0], "gateway"), (c.routers[0], "router"), (c.shards[0], "shard")]:
            for path in ("/healthz", "/readyz"):
                assert monitor_get(process.monitor, path)[0] == 200, (process.name, path)
            status, text = monitor_get(process.monitor, "/metrics")
            assert status == 200
            for wanted in METRICS[role].split():
                name, _, label = wanted.rstrip("}").partition("{")
                samples = [line for line in text.splitlines() if re.match(name + r"(_bucket|_count)?[{ ]", line)]
                assert samples and (not label or any(f'{label}="' in line for line in samples)), f"{role} has no {wanted}"
            assert re.search(rf'^stoa_build_info\{{version="[^"]+",role="{role}"\}} 1$', text, re.M), text[:300]
            for line in text.splitlines():
                assert re.fullmatch(r"# (HELP|TYPE) stoa_[a-z_]+ .+|stoa_[a-z_]+(\{[^{}]*\})? \S+", line), line
            for method in ("POST", "DELETE"):
                assert http_request(("127.0.0.1", process.monitor), method, "/metrics")[0] == 405, (process.name, method)
            assert monitor_get(process.monitor, "/nothing")[0] == 404
        assert c.shards[0].metric("stoa_slots_owned") + c.shards[1].metric("stoa_slots_owned") == 16384
        wait_until("the second shard's claim is heard too", lambda: c.routers[0].metric("stoa_slots_unowned") == 0)
        ask, gateway = Asker(c.base), c.gateways[0]
        ws = WebSocket(c.base, "/events?key=m")
        socket_v1, stream = v1(c), EventStream(c.base, "/events?key=m")
        wait_until("three sockets", lambda: gateway.metric("stoa_sockets") == 3)
        text = monitor_get(gateway.monitor, "/metrics")[1]
        for dialect in ("raw", "stoa.v1", "sse"):
            assert f'stoa_sockets{{dialect="{dialect}"}} 1' in text, text
        ask.publish("m")
        ws.recv()
        wait_until("both deliveries count", lambda: gateway.metric("stoa_deliveries_total") == 2)
        socket_v1.close()
        wait_until("the close is counted", lambda: 'stoa_closes_total{code="1000"} 1' in monitor_get(gateway.monitor, "/metrics")[1])
        before = gateway.metric("stoa_refused_total")
        ask.refused(404, "NotFound", "GET", "/nothing")
        assert gateway.metric("stoa_refused_total") == before + 1
        stream.close()
        # status: every process, with what the contract lists
        found = ask.json("GET", "/status")["processes"]
        assert sorted(p["name"] for p in found) == ["gateway-0", "gateway-1", "router-0", "shard-0", "shard-1"], found
        for p in found:
            assert p["role"] == p["name"].split("-")[0] and p["version"] and p["up"] is True and p["address"], p
        by_name = {p["name"]: p for p in found}
        assert by_name["gateway-0"]["address"] == "%s:%d" % c.base and by_name["gateway-1"]["address"] == "%s:%d" % c.gateways[1].base, found
        assert by_name["router-0"]["address"] == c.publish_endpoints[0], found
        assert by_name["shard-0"]["slots"] + by_name["shard-1"]["slots"] == 16384
        assert by_name["shard-0"]["rooms"] + by_name["shard-1"]["rooms"] == 1
        assert by_name["gateway-0"]["sockets"] >= 1 and by_name["gateway-1"]["sockets"] == 0
        for p in found:
            assert "published" in p or "forwarded" in p or "deliveries" in p, p


def test_variables_and_refused_files(bin_dir):
    """Configuration as every program reads it: variables, exact refusals, listening beyond loopback."""
    gateway = pathlib.Path(bin_dir).resolve() / "stoa-gateway"
    with Cluster(bin_dir) as c:
        bad = c.dir / "bad.yaml"

        def refused(text, *wanted, **environment):
            bad.write_text(text)
            ran = subprocess.run([gateway, "--config", "bad.yaml", "--monitor", "127.0.0.1:0"], cwd=c.dir, capture_output=True, text=True, timeout=30,
                                 env={**os.environ, **environment})
            assert ran.returncode != 0, text
            for word in wanted:
                assert word in ran.stderr, (word, ran.stderr)
        refused("# 1\ntypes:\n  chat:\n    retension: { age: 1h }\n", 'bad.yaml:4: types.chat.retension: unknown field, did you mean "retention"?')
        refused("gateway: { listen: [1] }\n", "bad.yaml:1: gateway.listen")
        refused("gateway: { limits: { sockets: many } }\n", "bad.yaml:1: gateway.limits.sockets")
        refused("auth: { mode: token }\n", "bad.yaml:1: auth.mode", "secret_file")
        refused("types: { t: { handler: rooms/t.py } }\n", "types.t.handler", "rooms/t.py")
        refused("types: { t: { presence: true } }\n", "bad.yaml:1: types.t.presence", "needs a handler")
        refused("routes: [ { path: /x, key: k, dialect: pigeon } ]\n", "routes", "pigeon")
        refused("routes: [ { path: '/x/{id}', key: '{no}' } ]\n", "bad.yaml:1: routes[0]", "{no}")
        refused("", "auth", "mode: none", STOA_GATEWAY_LISTEN="0.0.0.0:0")
        refused("", "STOA_GATEWAY_LIMITS_SOCKETS", STOA_GATEWAY_LIMITS_SOCKETS="many")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            refused("", "127.0.0.1:%d" % taken.getsockname()[1], STOA_GATEWAY_LISTEN="127.0.0.1:%d" % taken.getsockname()[1])
