"""Tokens over the wire: who is let in, for what, how long, and who is put out again. Tokens are made here, with the standard
library, so that what the gateway takes for a token is not what its own code calls one."""
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from cluster import Cluster, monitor_get, wait_until
from wire import Closed, EventStream, Refused, WebSocket, http_request

SECRET = "the-secret-of-the-first-key-0123456789"
OTHER = "the-secret-of-the-other-key-9876543210"
DAY = 86400

ROOM = """#!room name=desk api=1
local M = {}

function M.on_event(ctx, e)
  local by = ctx.connection and ctx.connection.id or "by post"
  ctx:broadcast({ said = e, by = by })
end

M.rpc = {
  double = function(ctx, n) return n * 2 end,
  secret = function(ctx) return "told" end,
}

return M
"""

ASKING = """#!room name=gate api=1
local M = {}

function M.identify(req)
  return { id = "seen", state = { query = req.query, claims = req.claims } }
end

return M
"""

MINTED = set()


def part(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(secret, text):
    return part(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def mint(secret=SECRET, head=None, ttl=3600, **claims):
    """A token of these claims; `key` or `prefix` is the caller's."""
    now = int(time.time())
    claims = {"iat": now, "exp": now + ttl, **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    text = part(head or {"alg": "HS256", "typ": "JWT", "kid": "one"}) + "." + part(claims)
    token = text + "." + sign(secret, text)
    MINTED.add(token)
    return token


def auth_of(*keys, more=""):
    listed = ", ".join(f"{{ kid: {kid}, alg: HS256, secret: {secret} }}" for kid, secret in keys)
    return f"auth: {{ mode: token, {more}keys: [ {listed} ] }}\n"


@contextlib.contextmanager
def cluster_of(bin_dir, auth=auth_of(("one", SECRET)), **options):
    """Logs are read at the end: nothing of a token may be in them."""
    MINTED.clear()
    with tempfile.TemporaryDirectory(prefix="stoa-auth-") as folder:
        (pathlib.Path(folder) / "desk.lua").write_text(ROOM)
        (pathlib.Path(folder) / "gate.lua").write_text(ASKING)
        types = f"types:\n  desk: {{ handler: {folder}/desk.lua }}\n  gate: {{ handler: {folder}/gate.lua }}\n"
        with Cluster(bin_dir, extra=types + auth + "log: { level: debug }\n", **options) as c:
            c.rest = types + "log: { level: debug }\n"
            yield c
            for process in c.all:
                text = process.log_path.read_text(errors="replace")
                for token in MINTED:
                    assert token not in text and token.split(".")[-1] not in text, process.name
                assert SECRET not in text and OTHER not in text, process.name


def ask(base, method, target, token=None, body=None, headers=None):
    headers = dict(headers or {})
    if token:
        headers["Authorization"] = f"Bearer {token}"
    status, got, text = http_request(base, method, target, body, headers)
    return status, got, text


def tag_of(answer):
    return json.loads(answer[2])["error"]["tag"]


def refused(base, target, token=None, subprotocol=None):
    """(status, tag, headers) of an upgrade that is refused."""
    try:
        WebSocket(base, target, subprotocol, {"Authorization": f"Bearer {token}"} if token else None).drop()
    except Refused as no:
        return no.status, json.loads(no.body)["error"]["tag"], no.headers
    raise AssertionError(f"{target} was let in")


def publish(base, key, body="1", token=None):
    status, _, text = ask(base, "POST", f"/publish?key={key}", token or mint(prefix="", can=["publish"]), body)
    assert status == 200, (status, text)
    return json.loads(text)["id"]


def revoke(base, **what):
    answer = ask(base, "POST", "/revoke", mint(prefix="", can=["manage"]), json.dumps(what))
    assert answer[0] == 200, answer
    return answer


def ends(ws, code, reason=None):
    """The close that comes, whatever precedes it."""
    while True:
        try:
            ws.recv()
        except Closed as end:
            assert end.code == code, (end.code, end.reason)
            assert reason is None or end.reason == reason, end.reason
            return


def v1(base, token=None):
    return WebSocket(base, f"/stoa?token={token}" if token else "/stoa", "stoa.v1")


# method, target, body, right; {k} is the key
ROUTES = [
    ("GET", "/log?key={k}", None, "subscribe"),
    ("GET", "/api/events/x/log", None, "subscribe"),
    ("POST", "/publish?key={k}", "1", "publish"),
    ("GET", "/connections?key={k}", None, "manage"),
    ("POST", "/close?key={k}", "", "manage"),
    ("DELETE", "/log?key={k}", None, "manage"),
    ("GET", "/presence?key={k}", None, "subscribe"),
    ("DELETE", "/quarantine?key={k}", None, "manage"),
    ("POST", "/api/desk/a/send", "{}", "send"),
    ("POST", "/api/desk/a/broadcast", "{}", "manage"),
    ("GET", "/api/desk/a/state", None, "manage"),
    ("GET", "/api/desk/a/connections", None, "manage"),
    ("GET", "/api/desk/a/log", None, "subscribe"),
    ("GET", "/api/desk/a/presence", None, "subscribe"),
    ("POST", "/api/desk/a/alarm", "", "manage"),
    ("POST", "/api/desk/a/close", "", "manage"),
    ("DELETE", "/api/desk/a", None, "manage"),
    ("POST", "/api/desk/a/double", "2", "call"),
]
ALL_KEYS = [("GET", "/keys"), ("GET", "/status"), ("GET", "/top"), ("GET", "/quarantine"), ("POST", "/revoke")]
RIGHTS = ["subscribe", "publish", "send", "call", "manage"]
KEYS = ["k", "events:x", "desk:a"]


def test_routes_and_rights(bin_dir):
    with cluster_of(bin_dir) as c:
        tokens = {right: mint(key=KEYS, can=[right]) for right in RIGHTS}
        stranger = mint(key="other", can=RIGHTS)
        for method, target, body, needed in ROUTES:
            target = target.format(k="k")
            answer = ask(c.base, method, target, None, body)
            assert (answer[0], tag_of(answer)) == (401, "Unauthorized"), (method, target, answer)
            assert answer[1]["www-authenticate"] == "Bearer", answer
            answer = ask(c.base, method, target, stranger, body)
            assert (answer[0], tag_of(answer)) == (403, "Forbidden"), (method, target, answer)
            for right, token in tokens.items():
                answer = ask(c.base, method, target, token, body)
                if right == needed:
                    assert answer[0] not in (401, 403), (method, target, right, answer)
                else:
                    assert (answer[0], tag_of(answer)) == (403, "Forbidden"), (method, target, right, answer)
        for method, target in ALL_KEYS:
            body = json.dumps({"jti": "nobody's"}) if method == "POST" else None
            assert ask(c.base, method, target, None, body)[0] == 401, target
            assert tag_of(ask(c.base, method, target, tokens["manage"], body)) == "Forbidden", target
            assert ask(c.base, method, target, mint(prefix="", can=["subscribe"]), body)[0] == 403, target
            assert ask(c.base, method, target, mint(prefix="", can=["manage"]), body)[0] == 200, target
        some = mint(prefix="desk:", can=["manage"])
        assert ask(c.base, "GET", "/keys?prefix=desk:", some)[0] == 200
        assert ask(c.base, "GET", "/keys?prefix=des", some)[0] == 403
        for target, subprotocol in (("/events?key=k", None), ("/ws/desk/a", None), ("/ws/events/x", None)):
            assert refused(c.base, target, None, subprotocol)[:2] == (401, "Unauthorized")
            for right, token in tokens.items():
                if right == "subscribe":
                    WebSocket(c.base, f"{target}{'&' if '?' in target else '?'}token={token}").close()
                    WebSocket(c.base, target, headers={"Authorization": f"bearer {token}"}).close()
                else:
                    assert refused(c.base, target, token)[:2] == (403, "Forbidden"), (target, right)
        for target in ("/events?key=k", "/api/desk/a/events"):
            for right, token in tokens.items():
                stream = EventStream(c.base, target, {"Authorization": f"Bearer {token}"})
                assert stream.status == (200 if right == "subscribe" else 403), (target, right)
                stream.close()
        # what is open stays open
        assert ask(c.base, "OPTIONS", "/publish?key=k", headers={"Origin": "http://localhost"})[0] == 204
        assert ask(c.base, "GET", "/")[0] in (200, 404)
        assert tag_of(ask(c.base, "GET", "/log?key=k", tokens["subscribe"], headers={"Origin": "http://elsewhere"})) == "OriginRefused"
        methods = mint(key="desk:a", can=["subscribe"], rpc=["double"])
        assert ask(c.base, "POST", "/api/desk/a/double", methods, "4")[2] == b"8"
        assert tag_of(ask(c.base, "POST", "/api/desk/a/secret", methods, "4")) == "Forbidden"
        # reserved keys are nobody's
        everything = mint(prefix="", can=RIGHTS)
        for method, target in (("GET", "/log?key=$stoa:revoked"), ("POST", "/publish?key=$stoa:revoked"),
                               ("DELETE", "/log?key=$stoa:revoked"), ("POST", "/api/$stoa/revoked/send")):
            assert tag_of(ask(c.base, method, target, everything, "{}" if method == "POST" else None)) == "BadKey", target
        listed = json.loads(ask(c.base, "GET", "/keys", everything)[2])["keys"]
        assert listed and all(not row["key"].startswith("$") for row in listed), listed


def test_bad_tokens_are_refused_alike(bin_dir):
    with cluster_of(bin_dir) as c:
        good = mint(key="k")
        head, claims, signature = good.split(".")
        none = part({"alg": "none"}) + "." + claims + "."
        rs = {"alg": "RS256", "kid": "one"}
        bad = {
            "another secret": mint(OTHER, key="k"),
            "another kid": mint(head={"alg": "HS256", "kid": "two"}, key="k"),
            "no signature": f"{head}.{claims}.",
            "two parts": f"{head}.{claims}",
            "none": none,
            "None": part({"alg": "None", "kid": "one"}) + "." + claims + ".",
            "none, signed": mint(head={"alg": "none", "kid": "one"}, key="k"),
            "RS256 by the secret": mint(head=rs, key="k"),
            "HS512": mint(head={"alg": "HS512", "kid": "one"}, key="k"),
            "claims of another": f"{head}.{part({'key': 'k', 'exp': int(time.time()) + 60})}.{signature}",
            "truncated": good[:-2],
            "longer": good + "AA",
            "no exp": mint(key="k", exp=None),
            "neither key nor prefix": mint(),
            "ill-typed": mint(key=7),
            "too long lived": mint(key="k", ttl=30 * DAY),
            "not yet": mint(key="k", nbf=int(time.time()) + 3000),
            "no token": "x",
            "long": "a" * 8000,
            "longer than a head": "a" * 20000,
            "of a megabyte": "a" * 1_000_000,
        }
        assert ask(c.base, "GET", "/log?key=k", good)[0] == 200
        revoke(c.base, jti="gone")
        bad["revoked"] = mint(key="k", jti="gone")
        wait_until("revoked", lambda: ask(c.base, "GET", "/log?key=k", bad["revoked"])[0] == 401)
        alike = ask(c.base, "GET", "/log?key=k", bad["another secret"])[2]
        for name, token in bad.items():
            answer = ask(c.base, "GET", "/log?key=k", token)
            assert (answer[0], tag_of(answer)) == (401, "Unauthorized"), (name, answer)
            assert answer[2] == alike, (name, answer[2])
            assert ask(c.base, "GET", f"/log?key=k&token={token}")[0] == 401, name
            assert refused(c.base, f"/events?key=k&token={token}")[:2] == (401, "Unauthorized"), name
        late = mint(key="k", ttl=-10)
        assert tag_of(ask(c.base, "GET", "/log?key=k", late)) == "TokenExpired"
        assert refused(c.base, "/events?key=k", late)[:2] == (401, "TokenExpired")
        assert http_request(c.base, "GET", "/" + "b" * 20000)[0] == 414
        assert ask(c.base, "GET", f"/log?key=k&token={good}", good)[0] == 200
        assert tag_of(ask(c.base, "GET", f"/log?key=k&token={mint(key='k', id='x')}", good)) == "BadRequest"
        assert ask(c.base, "GET", "/log?key=k", headers={"Authorization": "Basic dXNlcjpwYXNz"})[0] == 401
        ws = v1(c.base)
        ws.send_json({"token": bad["none"]})
        assert ws.recv_json()["error"]["tag"] == "Unauthorized"
        ws.send_json({"token": late, "ref": 1})
        got = ws.recv_json()
        assert got["ref"] == 1 and got["error"]["tag"] == "TokenExpired" and got["error"]["status"] == 401, got
        ws.close()
        assert c.gateways[0].metric("stoa_refused_total") > len(bad)
        assert c.gateways[0].metric("stoa_token_checks_total") > len(bad)


def test_end_of_a_token(bin_dir):
    with cluster_of(bin_dir) as c:
        lasting = mint(key=["k", "l"])
        short = mint(key="k", can=["subscribe"], ttl=3)
        raw = WebSocket(c.base, "/events?key=k", headers={"Authorization": f"Bearer {short}"})
        many = v1(c.base, short)
        stays = v1(c.base, lasting)
        mixed = v1(c.base, lasting)
        stream = EventStream(c.base, "/events?key=k", {"Authorization": f"Bearer {short}"})
        assert stream.status == 200
        for ws in (many, stays):
            ws.send_json({"sub": "k"})
            assert ws.recv_json()["status"] == "live"
        mixed.send_json({"sub": "k", "token": short})
        mixed.send_json({"sub": "l"})
        assert {mixed.recv_json()["sub"], mixed.recv_json()["sub"]} == {"k", "l"}
        publish(c.base, "k", "1")
        assert raw.recv() == "1" and many.recv_json()["data"] == 1
        ends(raw, 1008, "Token expired")
        ends(many, 1008, "Token expired")
        assert mixed.recv_json()["data"] == 1
        assert mixed.recv_json() == {"unsub": "k", "code": 1008, "reason": "Token expired"}
        assert stream.next()[2] == "1"
        assert stream.next()[::2] == ("end", '{"tag":"TokenExpired"}')
        try:
            stream.next()
            raise AssertionError("the stream goes on")
        except Closed:
            pass
        assert stays.recv_json()["data"] == 1
        publish(c.base, "l", "2")
        assert mixed.recv_json()["data"] == 2
        assert refused(c.base, "/events?key=k", short)[:2] == (401, "TokenExpired")
        for ws in (stays, mixed):
            ws.close()


def test_renewal(bin_dir):
    with cluster_of(bin_dir) as c:
        who = {"id": "ann", "tags": ["a", "b"], "can": ["subscribe", "publish"]}
        ws = v1(c.base, mint(key=["k", "l"], ttl=4, **who))
        for key in ("k", "l"):
            ws.send_json({"sub": key})
            assert ws.recv_json()["status"] == "live"
        for wrong in ({"id": "bob", "tags": ["a", "b"]}, {"id": "ann", "tags": ["a"]}, {"id": "ann"}):
            ws.send_json({"token": mint(key=["k", "l"], **wrong), "ref": "r"})
            got = ws.recv_json()
            assert got["ref"] == "r" and got["error"]["tag"] == "Forbidden" and got["error"]["status"] == 403, got
        ws.send_json({"token": mint(key="k", **wrong)})
        assert ws.recv_json()["error"]["tag"] == "Forbidden"
        after = mint(key=["k"], ttl=600, **who)
        ws.send_json({"token": after, "ref": 7})
        assert ws.recv_json() == {"unsub": "l", "code": 1008, "reason": "the renewed token does not cover this key"}
        got = ws.recv_json()
        assert got["ref"] == 7 and abs(got["ok"]["expires"] - (time.time() + 600) * 1000) < 60000, got
        ws.send_json({"pub": "k", "data": 1, "ref": 8})
        assert sorted(json.dumps(ws.recv_json())[:6] for _ in range(2)) == ['{"key"', '{"ref"']
        ws.send_json({"pub": "l", "data": 1, "ref": 9})
        assert ws.recv_json()["error"]["tag"] == "Forbidden"
        first = v1(c.base, mint(key="k", ttl=3))  # its end shows that the end of the other's first token has passed
        ends(first, 1008, "Token expired")
        time_left = mint(key="k", ttl=2)
        ends(v1(c.base, time_left), 1008, "Token expired")
        ws.send_json({"ping": 1})
        assert ws.recv_json() == {"pong": 1}
        ws.close()


def test_frames_and_tokens_of_keys(bin_dir):
    with cluster_of(bin_dir) as c:
        ws = v1(c.base)
        ws.send_json({"sub": "k"})
        assert ws.recv_json()["error"]["tag"] == "Unauthorized"
        ws.send_json({"pub": "k", "data": 1, "ref": 1})
        assert ws.recv_json()["error"]["tag"] == "Unauthorized"
        ws.send_json({"sub": "k", "token": mint(key="other")})
        got = ws.recv_json()
        assert (got["sub"], got["error"]["tag"], got["error"]["status"]) == ("k", "Forbidden", 403), got
        ws.send_json({"sub": "k", "token": mint(key="k", can=["publish"])})
        assert ws.recv_json()["error"]["tag"] == "Forbidden"
        ws.send_json({"sub": "k", "token": 7})
        assert ws.recv_json()["error"]["tag"] == "BadRequest"
        ws.send_json({"sub": "k", "token": mint(key=["k", "l"], can=["subscribe", "publish"])})
        assert ws.recv_json()["status"] == "live"
        ws.send_json({"pub": "k", "data": 1, "ref": 2})  # by the key's own token
        assert sorted(json.dumps(ws.recv_json())[:6] for _ in range(2)) == ['{"key"', '{"ref"']
        ws.send_json({"pub": "l", "data": 1, "ref": 3})  # which is for that subscription only
        assert ws.recv_json()["error"]["tag"] == "Unauthorized"
        ws.send_json({"token": mint(key=["desk:a"], can=["subscribe", "send"], rpc=["double"], id="ann"), "ref": 4})
        assert "ok" in ws.recv_json()
        ws.send_json({"send": "desk:a", "event": "hi", "ref": 5})
        got = ws.recv_json()
        assert "ok" in got, got
        ws.send_json({"call": "desk:a", "method": "double", "input": 4, "ref": 6})
        assert ws.recv_json()["ok"] == 8
        ws.send_json({"call": "desk:a", "method": "secret", "ref": 7})
        assert ws.recv_json()["error"]["tag"] == "Forbidden"
        ws.send_json({"sub": "desk:a"})
        assert ws.recv_json()["status"] == "live"
        ws.send_json({"send": "desk:a", "event": "me"})
        assert ws.recv_json()["data"] == {"said": "me", "by": "ann"}
        manager = mint(key="desk:a", can=["manage"])
        assert [row["id"] for row in json.loads(ask(c.base, "GET", "/api/desk/a/connections", manager)[2])] == ["ann"]
        ws.close()
        # of a key without a handler a connection is who its token says
        manager = mint(key="k", can=["manage"])
        raw = WebSocket(c.base, f"/events?key=k&token={mint(key='k', id='tom', tags=['red', 'big'])}")
        other = WebSocket(c.base, f"/events?key=k&token={mint(key='k', tags=['red'])}")
        rows = json.loads(ask(c.base, "GET", "/connections?key=k", manager)[2])
        assert {"id": "tom", "tags": ["red", "big"], "state": None} in rows and len(rows) == 2, rows
        rows = json.loads(ask(c.base, "GET", "/connections?key=k&tag=big", manager)[2])
        assert [row["id"] for row in rows] == ["tom"], rows
        assert len(json.loads(ask(c.base, "GET", "/api/events/y/connections?tag=red", mint(prefix="", can=["manage"]))[2])) == 0
        raw.close()
        other.close()
        # raw: a frame without the right ends the socket
        for target in ("/ws/desk/a", "/events?key=k"):
            raw = WebSocket(c.base, target, headers={"Authorization": f"Bearer {mint(key=['k', 'desk:a'])}"})
            raw.send("hello")
            ends(raw, 1008)
        raw = WebSocket(c.base, "/ws/desk/a", headers={"Authorization": f"Bearer {mint(key='desk:a', can=['subscribe', 'send'], id='bob')}"})
        raw.send('"hello"')
        assert json.loads(raw.recv())["by"] == "bob"
        raw.close()
        # what a room sees of a token: its claims, not its text
        token = mint(key="gate:x", id="eve", extra={"a": [1]})
        raw = WebSocket(c.base, f"/ws/gate/x?to%6ben={token}&colour=red")
        rows = json.loads(ask(c.base, "GET", "/api/gate/x/connections", mint(key="gate:x", can=["manage"]))[2])
        seen = rows[0]["state"]
        assert rows[0]["id"] == "seen" and seen["claims"]["extra"] == {"a": [1]} and seen["claims"]["id"] == "eve", rows
        assert "token" not in seen["query"] and seen["query"]["colour"] == "red" and token not in json.dumps(seen), seen
        raw.close()


def open_three(base, token, after):
    """A raw socket, a stoa.v1 socket with the key's own token, and a stream."""
    raw = WebSocket(base, "/events?key=k", headers={"Authorization": f"Bearer {token}"})
    many = v1(base)
    many.send_json({"sub": "k", "token": token, "after": after})
    assert many.recv_json()["sub"] == "k"
    stream = EventStream(base, "/events?key=k", {"Authorization": f"Bearer {token}"})
    assert stream.status == 200
    return raw, many, stream


def put_out(opened):
    raw, many, stream = opened
    started = time.monotonic()
    ends(raw, 1008, "Token revoked")
    assert many.recv_json() == {"unsub": "k", "code": 1008, "reason": "Token revoked"}
    assert stream.next()[::2] == ("end", '{"tag":"Unauthorized"}')
    return time.monotonic() - started


def nobody_gets_in(base, token, after):
    assert refused(base, f"/events?key=k&after={after}", token)[:2] == (401, "Unauthorized")
    for target in ("/log?key=k", f"/log?key=k&after={after}"):
        assert tag_of(ask(base, "GET", target, token)) == "Unauthorized"
    ws = v1(base)
    ws.send_json({"sub": "k", "after": after, "token": token})
    assert ws.recv_json()["error"]["tag"] == "Unauthorized"
    ws.close()


def test_revocation(bin_dir):
    with cluster_of(bin_dir, gateways=2) as c:
        bases = [gateway.base for gateway in c.gateways]
        after = publish(c.base, "k")
        now = int(time.time())
        forms = [
            ({"jti": "t1"}, {"jti": "t1"}, {"jti": "t2"}),
            ({"sub": "ann"}, {"sub": "ann"}, {"sub": "bob"}),
            ({"sub": "eve", "before": now * 1000}, {"sub": "eve", "iat": now - 5}, {"sub": "eve", "iat": now + 5}),
            ({"sub": "old"}, {"sub": "old", "iat": None}, {"sub": "young"}),
            ({"key": "m"}, {"key": ["k", "m"]}, {"key": ["k", "n"]}),
        ]
        longest = 0.0
        for what, put, kept in forms:
            token, other = mint(**{"key": "k", **put}), mint(**{"key": "k", **kept})
            opened = [open_three(base, token, after) for base in bases]
            staying = [open_three(base, other, after) for base in bases]
            revoke(c.base, **what)
            revoke(c.base, **what)  # said twice, it is as if said once
            for three in opened:
                longest = max(longest, put_out(three))
            for base in bases:
                wait_until("refused everywhere", lambda base=base: ask(base, "GET", "/log?key=k", token)[0] == 401)
                nobody_gets_in(base, token, after)
                assert ask(base, "GET", "/log?key=k", other)[0] == 200, what
            latest = publish(c.base, "k", '"still"')
            for raw, many, stream in staying:
                assert raw.recv() == '"still"' and many.recv_json()["id"] == latest and stream.next()[1] == latest, what
                raw.close()
                many.close()
                stream.close()
            after = latest
        manager = mint(prefix="", can=["manage"])
        for bad in ("", "[]", "{}", '{"jti":7}', '{"jti":""}', '{"jti":"a","sub":"b"}', '{"jti":"a","before":1}',
                    '{"jti":"a","jti":"b"}', '{"sub":"a","befor":1}', '{"sub":"a","before":1,"before":2}',
                    '{"sub":"a","before":-1}', '{"sub":"a","before":"x"}', '{"sub":"a","before":9007199254740000}',
                    json.dumps({"jti": "x" * 600})):
            assert tag_of(ask(c.base, "POST", "/revoke", manager, bad)) == "BadRequest", bad
        assert longest < 2.0, longest
        return f"closed within {longest * 1000:.0f} ms"


def test_revocation_outlives_processes(bin_dir):
    with cluster_of(bin_dir, gateways=2) as c:
        after = publish(c.base, "k")
        first, second = mint(key="k", jti="j1"), mint(key="k", jti="j2")
        revoke(c.base, jti="j1")
        c.gateways[1].kill()
        revoke(c.base, jti="j2")
        c.gateways[1].start().ready()
        for token in (first, second):
            nobody_gets_in(c.gateways[1].base, token, after)
        c.shards[0].kill()
        c.shards[0].start().ready()
        c.gateways[0].kill(signal.SIGTERM)
        c.gateways[0].start().ready()
        for gateway in c.gateways:
            for token in (first, second):
                nobody_gets_in(gateway.base, token, after)
        third = mint(key="k", jti="j3")
        raw = WebSocket(c.gateways[1].base, f"/events?key=k&token={third}")
        revoke(c.base, jti="j3")
        ends(raw, 1008, "Token revoked")


def test_without_the_key_nobody_new_is_let_in(bin_dir):
    with cluster_of(bin_dir, gateways=1) as c:
        token = mint(key="k")
        ws = v1(c.base, token)
        ws.send_json({"sub": "k"})
        assert ws.recv_json()["status"] == "live"
        assert monitor_get(c.gateways[0].monitor, "/readyz")[0] == 200
        c.shards[0].kill()
        started = time.monotonic()

        def unknown():
            try:
                v1(c.base, token).close()
            except Refused as no:
                return no
        no = wait_until("503 while revocations are not known", unknown, 60, 0.1)
        waited = time.monotonic() - started
        assert no.status == 503 and json.loads(no.body)["error"]["tag"] == "Busy" and no.headers["retry-after"], no
        assert tag_of(ask(c.base, "GET", "/log?key=k", token)) == "Busy"
        assert tag_of(ask(c.base, "GET", "/log?key=k", mint(OTHER, key="k"))) == "Unauthorized"
        ws.send_json({"ping": 1})  # what is open stays open
        assert ws.recv_json() == {"pong": 1}
        ws.send_json({"token": mint(key="k", ttl=900), "ref": 1})
        assert ws.recv_json()["error"]["tag"] == "Busy"
        c.gateways[0].kill(signal.SIGTERM)
        c.gateways[0].start()
        wait_until("not ready", lambda: "revocations are not known yet" in monitor_get(c.gateways[0].monitor, "/readyz")[1])
        c.shards[0].start().ready()
        c.gateways[0].ready()
        assert ask(c.base, "GET", "/log?key=k", token)[0] == 200
        assert waited >= 9.0, waited


def test_keys_rotate(bin_dir):
    with cluster_of(bin_dir, auth_of(("one", SECRET), ("two", OTHER))) as c:
        old = mint(key="k")
        new = mint(OTHER, {"alg": "HS256", "kid": "two"}, key="k")
        first, second = (WebSocket(c.base, f"/events?key=k&token={token}") for token in (old, new))
        granted = v1(c.base, new)
        granted.send_json({"sub": "k", "token": old})
        assert granted.recv_json()["status"] == "live"
        config = c.config.read_text()
        c.config.write_text(config.replace(auth_of(("one", SECRET), ("two", OTHER)), auth_of(("two", OTHER), ("two", SECRET))))
        c.gateways[0].child.send_signal(signal.SIGHUP)
        wait_until("refused", lambda: "auth.keys[1]" in c.gateways[0].log_tail(5))
        assert ask(c.base, "GET", "/log?key=k", old)[0] == 200
        c.config.write_text(config.replace(auth_of(("one", SECRET), ("two", OTHER)), auth_of(("two", OTHER))))
        c.gateways[0].child.send_signal(signal.SIGHUP)
        ends(first, 1008)
        got = granted.recv_json()
        assert (got["unsub"], got["code"]) == ("k", 1008), got
        assert ask(c.base, "GET", "/log?key=k", old)[0] == 401
        assert ask(c.base, "GET", "/log?key=k", new)[0] == 200
        publish(c.base, "k", "5", mint(OTHER, {"alg": "HS256", "kid": "two"}, key="k", can=["publish"]))
        assert second.recv() == "5"
        second.close()
        granted.close()


def test_command(bin_dir):
    """The command's streams end with their tokens, by a line on stderr; what is no token does not become a header."""
    with cluster_of(bin_dir) as c:
        def command(*words, token):
            host, port = c.base
            env = {**os.environ, "STOA_SERVER": f"http://{host}:{port}", "STOA_TOKEN": token}
            return subprocess.Popen([c.bin / "stoa", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        tails = [command("tail", *more, "k", token=token) for more in ([], ["--json"], ["--raw"])
                 for token in (mint(key="k", jti="taken back"), mint(key="k", ttl=3))]
        wait_until("all tail", lambda: c.gateways[0].metric("stoa_sockets") == len(tails))
        publish(c.base, "k", "7")
        revoke(c.base, jti="taken back")
        for number, tail in enumerate(tails):
            out, err = tail.communicate(timeout=20)
            assert tail.returncode == 1 and out.count("\n") == 1 and "7" in out, out
            assert err.startswith("stoa tail: " + ("TokenExpired" if number % 2 else "Unauthorized")), err
        out, err = command("log", "k", token=mint(key="k") + "\r\nOrigin: http://elsewhere").communicate(timeout=20)
        assert out == "" and "character" in err, err


def test_without_tokens_nothing_is_revoked(bin_dir):
    with Cluster(bin_dir) as c:
        answer = http_request(c.base, "POST", "/revoke", '{"jti":"a"}')
        assert tag_of(answer) == "BadRequest" and b"auth.mode" in answer[2], answer
        assert http_request(c.base, "GET", "/log?key=k&token=whatever")[0] == 200
        ws = v1(c.base)
        ws.send_json({"token": "x", "ref": 1})
        assert ws.recv_json() == {"ref": 1, "ok": {"expires": None}}
        ws.close()
