"""Uploadista's clients on a real cluster: their sockets frame by frame, late viewers, viewers that leave or are
refused, and configured paths."""
import base64
import datetime
import hashlib
import hmac
import json
import re
import time
import urllib.parse

from cluster import Cluster, wait_until
from wire import Closed, Refused, WebSocket, http_request

SECRET = "0123456789abcdef0123456789abcdef"
AUTH = f'auth:\n  mode: token\n  keys: [ {{ kid: "k1", alg: HS256, secret: "{SECRET}" }} ]\n'
STAMP = re.compile(r'"timestamp":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"')


def token(claims):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
    head = part({"alg": "HS256", "kid": "k1"}) + b"." + part({"exp": int(time.time()) + 600, **claims})
    mac = hmac.new(SECRET.encode(), head, hashlib.sha256).digest()
    return (head + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def envelope(kind, event):
    """A text as Uploadista's serializer makes it: no spaces, its own timestamp."""
    return json.dumps({"type": kind, "payload": event, "timestamp": "2026-01-01T00:00:00.000Z"}, separators=(",", ":"))


def upload_event(upload, kind, **data):
    return envelope("upload_event", {"type": kind, "data": {"id": upload, **data}})


def publish(c, key, text, bearer=None, conflate=None):
    headers = {"Content-Type": "application/json"}
    headers.update({"Stoa-Conflate": conflate} if conflate else {})
    headers.update({"Authorization": f"Bearer {bearer}"} if bearer else {})
    status, _, body = http_request(c.base, "POST", f"/publish?key={urllib.parse.quote(key, safe='')}", text.encode(), headers)
    assert status == 200, (status, body)


def progress(c, upload, offset, total=100, bearer=None):
    text = upload_event(upload, "upload-progress", progress=offset, total=total)
    publish(c, upload, text, bearer, "upload-progress")
    return text


def exact(frame):
    """A frame with NOW for its timestamp, which must be a time of about now."""
    found = STAMP.search(frame)
    if not found:
        return frame
    when = datetime.datetime.fromisoformat(found[1].replace("Z", "+00:00")).timestamp()
    assert abs(when - time.time()) < 60, frame
    return frame.replace(found[1], "NOW")


def subscribed(key):
    return '{"type":"subscribed","payload":{"eventKey":%s},"timestamp":"NOW"}' % json.dumps(key)


def connection(key, kind="uploadId"):
    key = json.dumps(key)
    return '{"type":"connection","message":"Uploadista WebSocket connected","id":%s,"%s":%s,"timestamp":"NOW"}' % (key, kind, key)


def viewer(c, target, *told):
    """A socket that was told exactly this; the first frames with NOW for their times."""
    socket = WebSocket(c.base, target)
    for wanted in told:
        found = socket.recv()
        assert (exact(found) if "NOW" in wanted else found) == wanted, (found, wanted)
    return socket


def upload_viewer(c, upload, *events, query=""):
    return viewer(c, f"/uploadista/ws/upload/{upload}{query}", subscribed(upload), connection(upload), *events)


def closed(socket):
    try:
        told = socket.recv()
    except Closed as end:
        return end.code, end.reason
    raise AssertionError(f"a frame instead of the end: {told}")


def test_late_viewer(bin_dir):
    """A viewer that connects when the upload has long begun gets its start, the last progress, and what follows."""
    with Cluster(bin_dir, shards=2) as c:
        started = upload_event("u1", "upload-started", offset=0, storage={"id": "s", "type": "file"}, size=100)
        publish(c, "u1", started)
        early = upload_viewer(c, "u1", started)
        offsets = [progress(c, "u1", offset) for offset in range(10, 60, 10)]
        late = upload_viewer(c, "u1", started, offsets[-1])
        following = [progress(c, "u1", 70), upload_event("u1", "upload-complete", offset=100)]
        publish(c, "u1", following[1])
        assert [early.recv() for _ in range(7)] == offsets + following
        assert [late.recv() for _ in range(2)] == following
        after = upload_viewer(c, "u1", started, *following)
        for odd in ["€ not json", '{"seq":1.50,  "b":"\\u00e9"}', "x" * 70000]:  # byte for byte, whatever it is
            publish(c, "u1", odd)
            for socket in (early, late, after):
                assert socket.recv() == odd
        for socket in (early, late, after):
            assert socket.close() == 1000


def test_flow(bin_dir):
    """A flow's events are under its job, its file's under the upload: two sockets, as the clients open them."""
    with Cluster(bin_dir) as c:
        begun = envelope("flow_event", {"eventType": "job-start", "jobId": "job-1"})
        publish(c, "job-1", begun)
        flow = viewer(c, "/uploadista/ws/flow/job-1", subscribed("job-1"), connection("job-1", "jobId"), begun)
        upload = upload_viewer(c, "in-1")
        node = envelope("flow_event", {"eventType": "node-start", "jobId": "job-1", "flowId": "f", "nodeId": "n"})
        publish(c, "job-1", node)
        inner = progress(c, "in-1", 5)
        assert flow.recv() == node and upload.recv() == inner
        flow.send_json({"type": "ping", "timestamp": "x"})
        assert exact(flow.recv()) == '{"type":"pong","timestamp":"NOW"}'
        renamed = viewer(c, "/uploadista/ws/flow/other?jobId=job-1", subscribed("job-1"), connection("job-1", "jobId"), begun, node)
        for socket in (flow, upload, renamed):
            socket.close()


def test_talk(bin_dir):
    """Pings are answered, what is not JSON is told so, everything else is ignored, and nothing of it ends the socket."""
    with Cluster(bin_dir) as c:
        socket = viewer(c, "/uploadista/ws/upload/x?uploadId=a%2Fb%20c", subscribed("a/b c"), connection("a/b c"))
        for _ in range(30):
            socket.send("not json")
            assert socket.recv() == '{"type":"error","message":"Invalid message format"}'
        for ignored in ['{"type":"subscribe-upload","payload":{"uploadId":"x"}}', "[]", "null", '{"type":1}', '"ping"']:
            socket.send(ignored)
        socket.send_frame(2, b'{"type":"ping"}')
        assert exact(socket.recv()) == '{"type":"pong","timestamp":"NOW"}'
        publish(c, "a/b c", "1")
        assert socket.recv() == "1"
        assert viewer(c, "/uploadista/ws/upload/a%2Fb%20c", subscribed("a/b c"), connection("a/b c"), "1").close() == 1000
        socket.send_frame(9, b"hi")
        assert socket.frame()[1:] == (10, b"hi")
        socket.close()


def test_paths(bin_dir):
    """Without an id, of another kind, beside the sockets, without an upgrade."""
    greeting = '{"type":"connection","message":"Uploadista WebSocket connected","timestamp":"NOW"}'
    with Cluster(bin_dir) as c:
        missing = [("upload", "Upload ID is required for upload event subscription", "MISSING_UPLOAD_ID"),
                   ("flow", "Job ID is required for flow event subscription", "MISSING_JOB_ID")]
        for kind, message, code in missing:
            socket = viewer(c, f"/uploadista/ws/{kind}", '{"type":"error","message":"%s","code":"%s"}' % (message, code), greeting)
            assert socket.close() == 1000
        assert viewer(c, "/uploadista/ws/other/x", greeting).close() == 1000
        invalid = ('{"type":"invalid-path","message":"WebSocket path must start with uploadista/ws/",'
                   '"expectedPrefix":"uploadista/ws/"}')
        assert closed(viewer(c, "/uploadista/events/x", invalid)) == (1000, "Invalid path")
        assert http_request(c.base, "GET", "/uploadista/ws/upload/x")[0] == 426
        assert http_request(c.base, "GET", "/uploadista/api/upload/x")[0] == 404
        try:
            WebSocket(c.base, "/uploadista/ws/upload/%00")
            raise AssertionError("a key with a control character was taken")
        except Refused as refused:
            assert refused.status == 400 and b'"BadKey"' in refused.body


def test_viewers_do_not_hurt_each_other(bin_dir):
    """Of many viewers of one upload some leave, some vanish, some are refused: who stays gets every event."""
    with Cluster(bin_dir, gateways=2, extra=AUTH) as c:
        writer = token({"prefix": "", "can": ["publish"]})
        reader = token({"key": "u1"})
        stays = [WebSocket(gateway.base, f"/uploadista/ws/upload/u1?token={reader}") for gateway in c.gateways]
        for socket in stays:
            assert exact(socket.recv()) == subscribed("u1") and exact(socket.recv()) == connection("u1")
        wanted = []
        for round in range(5):
            leaves = upload_viewer(c, "u1", *wanted, query=f"?token={reader}")
            vanishes = WebSocket(c.base, f"/uploadista/ws/upload/u1?token={reader}")
            for bad in (f"?token={reader[:-4]}AAAA", "", f"?token={token({'key': 'u2'})}", f"?token={token({'key': 'u1', 'exp': 1})}"):
                refused = WebSocket(c.base, f"/uploadista/ws/upload/u1{bad}")
                method, how = ("token", "token") if bad else ("cookies", "cookies")
                assert refused.recv() == ('{"type":"auth-failed","message":"Authentication failed: invalid or expired %s",'
                                          '"code":"AUTH_FAILED","authMethod":"%s"}' % (how, method))
                assert closed(refused) == (4001, f"Authentication failed: invalid or expired {how}")
            assert leaves.close() == 1000
            vanishes.drop()
            text = upload_event("u1", "upload-progress", progress=round, total=5)
            publish(c, "u1", text, writer)
            wanted.append(text)
            for socket in stays:
                assert socket.recv() == text
        for socket in stays:
            socket.close()
        gateway = c.gateways[0]
        wait_until("no socket is left", lambda: gateway.metric("stoa_sockets") == 0)


def test_expired(bin_dir):
    """A viewer's token ends while it watches: 1008, and nothing of it is in a log."""
    with Cluster(bin_dir, extra=AUTH) as c:
        short = token({"key": "u1", "exp": int(time.time()) + 2})
        socket = upload_viewer(c, "u1", query=f"?token={short}")
        assert closed(socket) == (1008, "Token expired")
        for process in c.all:
            assert short.split(".")[1] not in process.log_tail(100000), process.name


def test_revoked(bin_dir):
    """A revoked token ends its viewers on every gateway, and lets in nobody any more; others stay."""
    with Cluster(bin_dir, gateways=2, extra=AUTH) as c:
        bad, good = token({"key": "u1", "jti": "bad"}), token({"key": "u1", "jti": "good"})
        target = "/uploadista/ws/upload/u1?token="
        revoked = [WebSocket(gateway.base, target + bad) for gateway in c.gateways]
        stays = WebSocket(c.base, target + good)
        for socket in [*revoked, stays]:
            assert exact(socket.recv()) == subscribed("u1") and exact(socket.recv()) == connection("u1")
        manager = token({"prefix": "", "can": ["manage", "publish"]})
        status, _, body = http_request(c.base, "POST", "/revoke", b'{"jti":"bad"}', {"Authorization": f"Bearer {manager}"})
        assert status == 200, (status, body)
        for socket in revoked:
            assert closed(socket) == (1008, "Token revoked")
        for gateway in c.gateways:
            again = WebSocket(gateway.base, target + bad)
            assert again.recv_json()["code"] == "AUTH_FAILED"
            assert closed(again)[0] == 4001
        publish(c, "u1", "1", manager)
        assert stays.recv() == "1"
        stays.close()


def test_missed(bin_dir):
    """Who resumes behind what is gone is told by a frame that clients take, before what is left."""
    with Cluster(bin_dir, extra="types: { events: { retention: { count: 3 } } }\n") as c:
        for number in range(8):
            publish(c, "u1", str(number))
        status, _, body = http_request(c.base, "GET", "/log?key=u1&last=3")
        events = json.loads(body)["events"]
        assert status == 200 and [e["data"] for e in events] == [5, 6, 7], body
        epoch, first = events[0]["id"].rsplit("-", 1)
        after = f"{epoch}-1"
        socket = viewer(c, f"/uploadista/ws/upload/u1?after={after}", subscribed("u1"), connection("u1"))
        missed = socket.recv_json()
        assert missed["type"] == "error" and missed["code"] == "MISSED" and missed["message"], missed
        assert missed["missed"] == {"from": after, "to": f"{epoch}-{int(first) - 1}", "reason": "evicted"}, missed
        assert [socket.recv() for _ in range(3)] == ["5", "6", "7"]
        publish(c, "u1", "8")
        assert socket.recv() == "8"
        socket.close()
        upload_viewer(c, "u1", "6", "7", "8").close()  # everything that there is: nothing was promised of the rest


def test_own_paths(bin_dir):
    """Routes of the configuration: another prefix, another key, another replay, another type."""
    routes = """types: { jobs: { retention: { count: 5 } } }
routes:
  - { path: "/my/ws/upload/{id}", key: "{id}", dialect: uploadista, replay: all }
  - { path: "/my/ws/flow/{jobId}", key: "jobs:{jobId}", dialect: uploadista, replay: none, types: [jobs] }
"""
    with Cluster(bin_dir, extra=routes) as c:
        publish(c, "u1", "1")
        publish(c, "jobs:j", "2")
        upload = viewer(c, "/my/ws/upload/u1", subscribed("u1"), connection("u1"), "1")
        flow = viewer(c, "/my/ws/flow/j", subscribed("jobs:j"), connection("j", "jobId"))
        publish(c, "jobs:j", "3")
        assert flow.recv() == "3"
        for target in ("/my/ws/upload/jobs:j", "/uploadista/ws/flow/jobs:j"):
            try:
                WebSocket(c.base, target)
                raise AssertionError(f"{target} serves a type that it does not name")
            except Refused as refused:
                assert refused.status == 403, refused
        upload.close()
        flow.close()


def test_shard_returns(bin_dir):
    """The key's shard is killed under a viewer: the socket stays, and every event comes once, in order."""
    with Cluster(bin_dir) as c:
        socket = upload_viewer(c, "u1")
        publish(c, "u1", "1")
        c.shards[0].kill()
        c.shards[0].start()
        c.shards[0].ready()
        for number in range(2, 6):
            wait_until("the publish is stored", lambda n=number: http_request(
                c.base, "POST", "/publish?key=u1", str(n), {"Idempotency-Key": f"k{n}"})[0] == 200)
        assert [socket.recv() for _ in range(5)] == ["1", "2", "3", "4", "5"]
        socket.close()
