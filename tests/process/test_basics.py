"""The surface, spoken to by strangers: what docs and design promise of routes, dialects, ids and errors."""
import base64
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess

from cluster import Cluster, monitor_get, wait_until
from wire import Closed, EventStream, Refused, WebSocket, http_request, raw_exchange

RETAIN_10 = "types:\n  few: { retention: { count: 10 } }\n"


def publish(base, key, payload, **headers):
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    status, _, answer = http_request(base, "POST", f"/publish?key={key}", body, {k.replace("_", "-"): v for k, v in headers.items()})
    assert status == 200, (status, answer)
    return json.loads(answer)


def log(base, key, query="after=0"):
    status, _, body = http_request(base, "GET", f"/log?key={key}&{query}")
    assert status == 200, (status, body)
    return json.loads(body)


def error(answer, status, tag):
    got, _, body = answer
    assert got == status, (got, body)
    found = json.loads(body)["error"]
    assert found["tag"] == tag and found["message"], found
    return found


def test_publish_and_log(bin_dir):
    with Cluster(bin_dir, shards=2) as c:
        first = publish(c.base, "upload:a", {"n": 1})
        assert first["duplicate"] is False
        epoch, seq = first["id"].split("-")
        assert seq == "1" and epoch
        again = publish(c.base, "upload:a", {"n": 2}, Idempotency_Key="k1")
        repeat = publish(c.base, "upload:a", {"other": "body"}, Idempotency_Key="k1")
        assert repeat == {"id": again["id"], "duplicate": True}, repeat
        batch = publish(c.base, "upload:a", b'{"n":3}\n{"n":4}\n{"n":5}\n', Content_Type="application/x-ndjson")
        assert batch["first"] == f"{epoch}-3" and batch["id"] == f"{epoch}-5" and batch["count"] == 3, batch
        assert publish(c.base, "upload:a", {"typing": 1}, Stoa_Ephemeral="1")["id"] is None
        got = log(c.base, "upload:a")
        assert got["key"] == "upload:a" and got["head"] == f"{epoch}-5" and got["more"] is False, got
        assert [e["data"]["n"] for e in got["events"]] == [1, 2, 3, 4, 5]
        assert [e["id"] for e in got["events"]] == [f"{epoch}-{n}" for n in range(1, 6)]
        assert [e["data"]["n"] for e in log(c.base, "upload:a", f"after={epoch}-2&limit=2")["events"]] == [3, 4]
        assert log(c.base, "upload:a", f"after={epoch}-2&limit=2")["more"] is True
        assert [e["data"]["n"] for e in log(c.base, "upload:a", "last=2")["events"]] == [4, 5]
        publish(c.base, "upload:bin", b"\xff\x00\xfe")
        only = log(c.base, "upload:bin")["events"][0]
        assert base64.b64decode(only["base64"]) == b"\xff\x00\xfe" and "data" not in only
        status, _, body = http_request(c.base, "GET", "/log?key=upload:a&after=0", headers={"Accept": "application/x-ndjson"})
        assert status == 200 and [json.loads(line)["data"]["n"] for line in body.splitlines()] == [1, 2, 3, 4, 5], body
        status, _, body = http_request(c.base, "GET", "/keys?prefix=upload:")
        assert status == 200 and b'"upload:a"' in body and b'"upload:bin"' in body, body


def test_one_order_for_every_dialect(bin_dir):
    with Cluster(bin_dir, shards=2) as c:
        key, count = "upload:abc123", 10000
        raw = WebSocket(c.base, f"/events?uploadId={key}")
        path = WebSocket(c.base, "/ws/upload/abc123")
        v1 = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
        assert v1.subprotocol == "stoa.v1"
        v1.send_json({"sub": key})
        assert v1.recv_json()["status"] == "live"
        sse = EventStream(c.base, f"/events?key={key}")
        assert sse.status == 200 and sse.headers["content-type"].startswith("text/event-stream")
        tail = subprocess.Popen([pathlib.Path(bin_dir) / "stoa", "-s", f"http://127.0.0.1:{c.base[1]}", "tail", "--replay", "all", key],
                                stdout=subprocess.PIPE, text=True)

        def some(publisher):
            for n in range(publisher, count, 8 * 50):
                lines = b"".join(b'{"n":%d}\n' % m for m in range(n, min(count, n + 8 * 50), 8))
                publish(c.base, key, lines, Content_Type="application/x-ndjson")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(some, range(8)))
        orders = []
        orders.append([raw.recv_json()["n"] for _ in range(count)])
        orders.append([path.recv_json()["n"] for _ in range(count)])
        frames = [v1.recv_json() for _ in range(count)]
        orders.append([f["data"]["n"] for f in frames])
        events = [sse.next() for _ in range(count)]
        orders.append([json.loads(data)["n"] for _, _, data in events])
        lines = [tail.stdout.readline().rstrip("\n").split("\t") for _ in range(count)]
        tail.kill()
        tail.wait()
        orders.append([json.loads(data)["n"] for _, data in lines])
        assert [ident for ident, _ in lines] == [ident for _, ident, _ in events]
        assert sorted(orders[0]) == list(range(count))
        for other in orders[1:]:
            assert other == orders[0]
        assert [f["id"] for f in frames] == [ident for _, ident, _ in events]
        seqs = [int(f["id"].split("-")[1]) for f in frames]
        assert seqs == list(range(1, count + 1))
        return f"{count} events, {len(orders)} readers, one order"


def test_resume(bin_dir):
    with Cluster(bin_dir) as c:
        ids = [publish(c.base, "job:1", {"n": n})["id"] for n in range(1, 6)]
        v1 = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
        v1.send_json({"sub": "job:1", "after": ids[1]})
        assert v1.recv_json() == {"sub": "job:1", "status": "resumed", "head": ids[4]}
        assert [v1.recv_json()["id"] for _ in range(3)] == ids[2:]
        v1.send_json({"sub": "job:1", "replay": "all"})
        assert v1.recv_json()["status"] in ("resumed", "live")
        assert [v1.recv_json()["id"] for _ in range(5)] == ids
        v1.send_json({"sub": "job:1", "replay": 2})
        v1.recv_json()
        assert [v1.recv_json()["id"] for _ in range(2)] == ids[3:]
        sse = EventStream(c.base, "/events?key=job:1", {"Last-Event-ID": ids[2]})
        assert [sse.next()[1] for _ in range(2)] == ids[3:]
        raw = WebSocket(c.base, f"/events?key=job:1&after={ids[3]}")
        assert raw.recv_json() == {"n": 5}
        everything = WebSocket(c.base, "/events?key=job:1&replay=all")
        assert [everything.recv_json()["n"] for _ in range(5)] == [1, 2, 3, 4, 5]
        publish(c.base, "job:1", {"n": 6})
        for socket in (raw, everything):
            assert socket.recv_json() == {"n": 6}
        early = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
        early.send_json({"sub": "job:unborn", "after": "0"})
        assert early.recv_json()["status"] in ("resumed", "live")
        first = publish(c.base, "job:unborn", {"n": 1})["id"]
        assert early.recv_json()["id"] == first


def test_missed_is_told(bin_dir):
    with Cluster(bin_dir, extra=RETAIN_10) as c:
        ids = [publish(c.base, "few:1", {"n": n})["id"] for n in range(1, 16)]
        v1 = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
        v1.send_json({"sub": "few:1", "after": ids[1]})
        told = v1.recv_json()
        assert told["status"] == "missed" and told["head"] == ids[14], told
        assert told["missed"] == {"from": ids[1], "to": ids[4], "reason": "evicted"}, told
        assert [v1.recv_json()["id"] for _ in range(10)] == ids[5:]
        sse = EventStream(c.base, "/api/few/1/events", {"Last-Event-ID": ids[1]})
        event, ident, data = sse.next()
        assert event == "missed" and ident == ids[4], (event, ident, data)
        assert json.loads(data) == {"from": ids[1], "to": ids[4], "reason": "evicted"}, data
        assert [sse.next()[1] for _ in range(10)] == ids[5:]
        try:
            raw = WebSocket(c.base, f"/ws/few/1?after={ids[1]}")
            raw.recv()
            raise AssertionError("a raw reader was fed past a gap")
        except Closed as end:
            assert end.code == 4010 and end.reason == f"missed {ids[1]} {ids[4]} evicted", (end.code, end.reason)
        got = log(c.base, "few:1", f"after={ids[1]}")
        assert got["missed"] == {"from": ids[1], "to": ids[4], "reason": "evicted"}, got
        assert [e["id"] for e in got["events"]] == ids[5:]
        v1.send_json({"sub": "few:1", "after": ids[14].split("-")[0] + "-99"})
        assert v1.recv_json()["missed"]["reason"] == "epoch"


def test_conflation(bin_dir):
    with Cluster(bin_dir) as c:
        for n in range(50):
            publish(c.base, "up", {"p": n}, Stoa_Conflate="progress")
        publish(c.base, "up", {"done": True})
        late = WebSocket(c.base, "/events?key=up&replay=all")
        assert [late.recv_json(), late.recv_json()] == [{"p": 49}, {"done": True}]
        assert len(log(c.base, "up")["events"]) == 51


def test_errors(bin_dir):
    with Cluster(bin_dir) as c:
        def ask(method, target, body=None, **headers):
            return http_request(c.base, method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})
        error(ask("POST", "/publish?key=", b"1"), 400, "BadKey")
        error(ask("POST", "/publish?key=$stoa:x", b"1"), 400, "BadKey")
        error(ask("POST", "/publish?key=" + "k" * 257, b"1"), 400, "BadKey")
        error(ask("POST", "/publish?key=a%00b", b"1"), 400, "BadKey")
        error(ask("GET", "/log?key=a&after=x-y-z"), 400, "BadId")
        error(ask("GET", "/nowhere"), 404, "NotFound")
        error(ask("PUT", "/publish?key=a", b"1"), 405, "MethodNotAllowed")
        error(ask("GET", "/ws/upload/1"), 426, "UpgradeRequired")
        error(ask("POST", "/publish?key=a", b"x" * (512 * 1024 + 1)), 413, "TooLarge")
        assert ask("POST", "/publish?key=a", b"x" * (512 * 1024))[0] == 200
        error(ask("POST", "/publish?key=a", b"1", Origin="https://evil.example"), 403, "OriginRefused")
        error(ask("POST", "/publish?key=a", b"1", Host="evil.example"), 403, "OriginRefused")
        assert ask("POST", "/publish?key=a", b"1", Origin="http://localhost:3000")[0] == 200
        error(ask("POST", "/api/x/1/send", b"{}"), 409, "NoHandler")
        try:
            WebSocket(c.base, "/events?key=a", headers={"Origin": "https://evil.example"})
            raise AssertionError("a foreign origin got a socket")
        except Refused as refused:
            assert refused.status == 403
        for head in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
                     b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: 1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                     b"POST /publish?key=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            answer = raw_exchange(c.base, head)
            assert answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 5"), (head[:40], answer[:80])


def test_requests_in_one_stream(bin_dir):
    with Cluster(bin_dir) as c:
        host = b"Host: localhost\r\n"
        one = b"POST /publish?key=pipe HTTP/1.1\r\n" + host + b"Content-Length: 1\r\n\r\n"
        chunked = b"POST /publish?key=pipe HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[2\r\n1\r\n]\r\n0\r\n\r\n"
        last = b"GET /log?key=pipe&after=0 HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"
        answer = raw_exchange(c.base, one + b"1" + chunked + one + b"3" + last)
        assert answer.count(b"HTTP/1.1 200") == 4, answer[:400]
        events = json.loads(answer.rsplit(b"\r\n\r\n", 1)[1])["events"]
        assert [e["data"] for e in events] == [1, [2], 3], events


def test_websocket_frames(bin_dir):
    with Cluster(bin_dir) as c:
        big = "x" * (524288 - 2)
        assert publish(c.base, "big", json.dumps(big).encode())
        reader = WebSocket(c.base, "/events?key=big&replay=all")
        assert reader.recv() == json.dumps(big)
        reader.send_frame(9, b"hello")
        while True:
            fin, opcode, payload = reader.frame()
            if opcode == 10:
                break
        assert payload == b"hello"
        assert reader.close(1000) == 1000
        v1 = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
        text = json.dumps({"ping": "pieces"}).encode()
        v1.send_frame(1, text[:5], fin=False)
        v1.send_frame(9, b"between")
        v1.send_frame(0, text[5:9], fin=False)
        v1.send_frame(0, text[9:])
        assert v1.recv_json() == {"pong": "pieces"}
        v1.send_frame(1, b"x" * 524289)
        try:
            v1.recv()
            raise AssertionError("a message above the limit was taken")
        except Closed as end:
            assert end.code == 1009, end.code
        bad = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
        bad.send_frame(1, b"\xff\xfe")
        try:
            bad.recv()
            raise AssertionError("bad UTF-8 was taken")
        except Closed as end:
            assert end.code == 1007, end.code
        noisy = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
        tags = []
        try:
            for _ in range(25):
                noisy.send("not json")
                tags.append(noisy.recv_json()["error"]["tag"])
        except Closed as end:
            assert end.code == 1008 and len(tags) >= 19, (end.code, len(tags))
        else:
            raise AssertionError("no end to bad frames")


def test_v1_publishes(bin_dir):
    with Cluster(bin_dir, shards=2) as c:
        v1 = WebSocket(c.base, "/stoa", subprotocol="stoa.v1")
        v1.send('{"pub":"k","data": {"a":[1, 2]} ,"ref":7,"idempotencyKey":"once"}')
        answer = v1.recv_json()
        assert answer["ref"] == 7 and answer["ok"]["duplicate"] is False
        v1.send('{"pub":"k","data":0,"ref":8,"idempotencyKey":"once"}')
        assert v1.recv_json()["ok"] == {"id": answer["ok"]["id"], "duplicate": True}
        v1.send_json({"sub": "k", "replay": "all"})
        v1.recv_json()
        assert '"data":{"a":[1, 2]}' in v1.recv(), "the payload is not verbatim"
        v1.send_json({"unsub": "k"})
        assert v1.recv_json() == {"unsub": "k"}
        v1.send_json({"call": "k", "method": "m", "ref": "x"})
        assert v1.recv_json()["error"]["tag"] in ("NoHandler", "NoSuchMethod")


def test_connections_and_close(bin_dir):
    with Cluster(bin_dir, gateways=2) as c:
        sockets = [WebSocket(g.base, "/events?key=room") for g in c.gateways]

        def listed():
            status, _, body = http_request(c.base, "GET", "/connections?key=room")
            assert status == 200, body
            return len(json.loads(body)) == 2
        wait_until("both gateways' sockets are listed", listed)
        status, _, body = http_request(c.base, "POST", "/close?key=room&code=4321")
        assert status == 200, body
        for socket in sockets:
            try:
                socket.recv()
                raise AssertionError("still open")
            except Closed as end:
                assert end.code == 4321


def test_shard_killed_sockets_stay(bin_dir):
    with Cluster(bin_dir, shards=2, gateways=2) as c:
        sockets = [(n, WebSocket(c.gateways[n % 2].base, f"/events?key=room:{n}")) for n in range(20)]
        for n, _ in sockets:
            publish(c.base, f"room:{n}", {"n": 1})
        for shard in c.shards:
            shard.kill()
            shard.start()
        for n, _ in sockets:
            publish(c.base, f"room:{n}", {"n": 2})
        for n, socket in sockets:
            assert [socket.recv_json(), socket.recv_json()] == [{"n": 1}, {"n": 2}]


def test_router_killed(bin_dir):
    with Cluster(bin_dir, routers=2) as c:
        socket = WebSocket(c.base, "/events?key=r")
        publish(c.base, "r", 1)
        c.routers[0].kill()
        publish(c.base, "r", 2)
        c.routers[0].start().ready()
        c.routers[1].kill()
        publish(c.base, "r", 3)
        c.routers[1].start().ready()
        assert [socket.recv_json() for _ in range(3)] == [1, 2, 3]


def test_gateway_drains(bin_dir):
    with Cluster(bin_dir) as c:
        sockets = [WebSocket(c.base, "/events?key=d") for _ in range(10)]
        c.gateways[0].child.send_signal(signal.SIGTERM)
        for socket in sockets:
            try:
                socket.recv(timeout=60)
                raise AssertionError("still open")
            except Closed as end:
                assert end.code == 1012, end.code
        assert c.gateways[0].child.wait(timeout=60) == 0


def test_second_shard_refused(bin_dir):
    with Cluster(bin_dir) as c:
        again = subprocess.run([*map(str, c.shards[0].command)], cwd=c.dir, capture_output=True, text=True, timeout=60)
        assert again.returncode == 1 and "another" in again.stderr + again.stdout, again.stderr
        c.shards[0].kill()
        other = c.dir / "other.yaml"
        other.write_text(c.config.read_text().replace("name: test", "name: other"))
        command = [str(other) if word == c.config else str(word) for word in c.shards[0].command]
        foreign = subprocess.run(command, cwd=c.dir, capture_output=True, text=True, timeout=60)
        assert foreign.returncode == 1 and "cluster" in foreign.stderr and "test" in foreign.stderr, foreign.stderr
        c.shards[0].start().ready()


def test_monitor(bin_dir):
    with Cluster(bin_dir) as c:
        publish(c.base, "m", 1)
        for process in c.all:
            assert monitor_get(process.monitor, "/healthz")[0] == 200
            status, text = monitor_get(process.monitor, "/metrics")
            assert status == 200 and "stoa_build_info{" in text, text[:200]
        assert c.shards[0].metric("stoa_slots_owned") == 16384
        assert c.gateways[0].metric("stoa_publish_total") >= 1
        status, _, body = http_request(c.base, "GET", "/status")
        roles = sorted(p["role"] for p in json.loads(body)["processes"])
        assert roles == ["gateway", "router", "shard"], body
        c.routers[0].kill()
        wait_until("the gateway tells that no router answers", lambda: monitor_get(c.gateways[0].monitor, "/readyz")[0] == 503)
        c.routers[0].start().ready()


def test_reload(bin_dir):
    """SIGHUP: every program's log follows and tells what differs; what cannot be read changes nothing."""
    with Cluster(bin_dir) as c:
        text = c.config.read_text()

        def reloaded(process, config, event):
            """The new line of that event."""
            name = re.compile(process.name.split("-")[0] + rf"\.{event}[ \"]")

            def lines():
                return [line for line in process.log_path.read_text().splitlines() if name.search(line)]
            before = len(lines())
            c.config.write_text(config)
            process.child.send_signal(signal.SIGHUP)
            return wait_until(f"{process.name}: {event}", lambda: lines()[before:])[0]

        for process in c.all:
            told = reloaded(process, text + "log: { level: debug, format: json }\n", "reload")
            assert json.loads(told)["changed"].split("\n")[:2] == ["log.format", "log.level"], told
            told = reloaded(process, text + "log: { level: debug, format: json }\n", "reload")
            assert json.loads(told)["changed"] == "", told
            refused = reloaded(process, text + "log: { level: loud }\n", "reload_refused")
            assert "log.level" in json.loads(refused)["why"], refused
            told = reloaded(process, text + "cluster2: 1\n", "reload_refused")
            assert "cluster2: unknown field" in told and told.startswith("{"), told
            told = reloaded(process, text, "reload")
            assert not told.startswith("{"), told
        publish(c.base, "k", 1)


def test_command_line(bin_dir):
    stoa = str(pathlib.Path(bin_dir).resolve() / "stoa")
    with Cluster(bin_dir) as c:
        environment = {**os.environ, "STOA_SERVER": f"http://{c.base[0]}:{c.base[1]}", "STOA_CONFIG": str(c.config)}

        def run(*words, **more):
            return subprocess.run([stoa, *words], env=environment, capture_output=True, text=True, timeout=60, **more)
        tail = subprocess.Popen([stoa, "tail", "-n", "all", "upload:abc123"], env=environment, stdout=subprocess.PIPE, text=True)
        first = run("publish", "upload:abc123", '{"type":"completed","duration":45000,"size":1048576}')
        assert first.returncode == 0 and first.stdout.strip(), first.stderr
        ident = first.stdout.strip()
        assert tail.stdout.readline() == f'{ident}\t{{"type":"completed","duration":45000,"size":1048576}}\n'
        c.shards[0].kill()
        c.shards[0].start()
        second = run("publish", "upload:abc123", "-", input='"two"')
        assert second.returncode == 0, second.stderr
        assert tail.stdout.readline() == f'{second.stdout.strip()}\t"two"\n'
        tail.terminate()
        tail.wait(timeout=20)
        batch = run("publish", "-b", "upload:abc123", "-", input="1\n2\n3\n")
        assert batch.returncode == 0, batch.stderr
        assert run("log", "--raw", "upload:abc123").stdout.splitlines()[1:] == ['"two"', "1", "2", "3"]
        assert run("log", "--last", "1", "upload:abc123").stdout.endswith("\t3\n")
        assert "upload:abc123" in run("keys").stdout
        assert "shard" in run("status").stdout and "gateway" in run("status").stdout
        by_router = run("--router", c.publish_endpoints[0], "publish", "upload:abc123", "4")
        assert by_router.returncode == 0, by_router.stderr
        assert run("log", "--raw", "--last", "1", "upload:abc123").stdout == "4\n"
        assert run("frobnicate").returncode == 2
        assert run("publish").returncode == 2
        nobody = subprocess.run([stoa, "-s", "http://127.0.0.1:1", "log", "x"], capture_output=True, text=True, timeout=60)
        assert nobody.returncode == 1 and len(nobody.stderr.strip().splitlines()) == 1, nobody.stderr
        for command in ("up", "down", "status", "top", "keys", "logs", "publish", "tail", "log", "config", "reload", "bench", "keygen"):
            helped = run(command, "--help")
            assert helped.returncode == 0 and command in helped.stdout and helped.stdout.count("stoa " + command) >= 2, (command, helped.stdout)


def test_local_cluster(bin_dir):
    """stoa up, a process killed under it, stoa down."""
    import shutil
    import tempfile
    from cluster import free_port
    stoa = str(pathlib.Path(bin_dir).resolve() / "stoa")
    data = tempfile.mkdtemp(prefix="stoa-up-")
    port = free_port()
    try:
        up = subprocess.run([stoa, "up", "-d", "--data", data, "--listen", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=120)
        assert up.returncode == 0, up.stderr + up.stdout
        base = ("127.0.0.1", port)
        publish(base, "k", 1)
        again = subprocess.run([stoa, "up", "-d", "--data", data], capture_output=True, text=True, timeout=120)
        assert again.returncode == 1, again.stdout
        found = subprocess.run(["pgrep", "-f", f"stoa-shard.*{data}"], capture_output=True, text=True).stdout.split()
        assert len(found) == 2, found
        for pid in found:
            os.kill(int(pid), signal.SIGKILL)
        publish(base, "k", 2)
        assert [e["data"] for e in log(base, "k")["events"]] == [1, 2]
    finally:
        down = subprocess.run([stoa, "down", "--data", data], capture_output=True, text=True, timeout=120)
        assert down.returncode == 0, down.stderr
        left = subprocess.run(["pgrep", "-f", data], capture_output=True, text=True).stdout.split()
        assert not left, left
        shutil.rmtree(data, ignore_errors=True)
