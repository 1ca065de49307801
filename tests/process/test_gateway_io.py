"""The gateway's byte layer with real sockets: heads, upgrades, frames, closes, slow readers, limits."""
import json
import os
import pathlib
import signal
import socket
import struct
import time

from cluster import Cluster, wait_until
from wire import Closed, EventStream, Refused, WebSocket, http_request, raw_exchange

HOST = b"Host: localhost\r\n"


def frame(opcode, payload, fin=True, key=b"\x01\x02\x03\x04"):
    """A masked client frame as bytes, to be sent behind an upgrade."""
    n = len(payload)
    head = bytes([(0x80 if fin else 0) | opcode])
    if n < 126:
        head += bytes([0x80 | n])
    elif n < 65536:
        head += b"\xfe" + struct.pack("!H", n)
    else:
        head += b"\xff" + struct.pack("!Q", n)
    return head + key + bytes(byte ^ key[i & 3] for i, byte in enumerate(payload))


def v1(c, **more):
    return WebSocket(c.base, "/stoa", subprotocol="stoa.v1", **more)


def ping(value):
    return json.dumps({"ping": value}).encode()


def close_code(ws):
    try:
        while True:
            ws.recv()
    except Closed as end:
        return end.code


def upgrade(*lines, method=b"GET", version=b"1.1"):
    return method + b" /stoa HTTP/" + version + b"\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def test_upgrades_that_are_refused(bin_dir):
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    want = b"Sec-WebSocket-Protocol: stoa.v1"
    up, connection, thirteen = b"Upgrade: websocket", b"Connection: keep-alive, Upgrade", b"Sec-WebSocket-Version: 13"
    with Cluster(bin_dir) as c:
        good = upgrade(up, connection, thirteen, key, want)
        answer = raw_exchange(c.base, good, until_close=False)
        assert answer.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer, answer
        cases = [
            (upgrade(up, connection, b"Sec-WebSocket-Version: 8", key, want), 426),
            (upgrade(up, connection, key, want), 426),
            (upgrade(up, connection, thirteen, want), 400),
            (upgrade(up, connection, thirteen, b"Sec-WebSocket-Key: c2hvcnQ=", want), 400),
            (upgrade(up, connection, thirteen, key, key, want), 400),
            (upgrade(up, thirteen, key, want), 400),
            (upgrade(up, connection, thirteen, key, want, method=b"POST"), 400),
            (upgrade(up, connection, thirteen, key, want, version=b"1.0"), 400),
            (upgrade(up, connection, thirteen, key, b"Sec-WebSocket-Protocol: unheard.of"), 400),
        ]
        for head, status in cases:
            answer = raw_exchange(c.base, head + frame(1, b"x"), until_close=False)
            assert answer.startswith(b"HTTP/1.1 %d " % status), (head, answer[:200])
            if status == 426:
                assert b"Sec-WebSocket-Version: 13" in answer, answer


def test_frames_behind_the_head(bin_dir):
    with Cluster(bin_dir) as c:
        early = b"".join(frame(1, ping(i)) for i in range(300)) + frame(1, ping("x" * 4000))
        ws = v1(c, early=early)
        for i in range(300):
            assert ws.recv_json() == {"pong": i}
        assert ws.recv_json() == {"pong": "x" * 4000}
        ws.send(ping("later"))
        assert ws.recv_json() == {"pong": "later"}
        assert ws.close(1000) == 1000


def test_head_byte_by_byte(bin_dir):
    with Cluster(bin_dir) as c:
        with socket.create_connection(c.base) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = (b"POST /publish?key=bytes HTTP/1.1\r\n" + HOST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                       b"3\r\n\"ab\r\n2;e\r\nc\"\r\n0\r\nTrailer: t\r\n\r\n")
            for byte in request:
                s.sendall(bytes([byte]))
            s.settimeout(20)
            answer = b""
            while part := s.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        body = json.loads(http_request(c.base, "GET", "/log?key=bytes&after=0")[2])
        assert [e["data"] for e in body["events"]] == ["abc"]


def test_hostile_requests_are_answered(bin_dir):
    post = b"POST /publish?key=h HTTP/1.1\r\n" + HOST
    cases = [
        (b"GET / HTTP/1.1\n" + HOST + b"\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: \x00\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\n" + HOST + b"\r\n", 505),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (post + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (post + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n", 400),
        (post + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (post + b"Content-Length: -1\r\n\r\n", 400),
        # Refused before it is read, and the answer survives that the client goes on sending.
        (post + b"Content-Length: 100000000\r\n\r\n" + b"x" * 3000000, 413),
        (post + b"Expect: miracles\r\nContent-Length: 1\r\n\r\n", 417),
    ]
    with Cluster(bin_dir) as c:
        for request, status in cases:
            answer = raw_exchange(c.base, request)
            assert answer.startswith(b"HTTP/1.1 %d " % status), (request[:80], answer[:200])
            error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
            assert error["tag"] and error["message"], answer
        body = http_request(c.base, "GET", "/log?key=h&after=0")
        assert json.loads(body[2])["events"] == [], "something of a refused request was stored"


def test_continue_head_and_old_clients(bin_dir):
    with Cluster(bin_dir) as c:
        with socket.create_connection(c.base) as s:
            s.settimeout(20)
            s.sendall(b"POST /publish?key=c HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
            assert s.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            s.sendall(b"1")
            assert s.recv(1000).startswith(b"HTTP/1.1 200 ")
        answer = raw_exchange(c.base, b"HEAD /nowhere HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Content-Length: " in head and body == b"", answer
        answer = raw_exchange(c.base, b"GET /nowhere HTTP/1.0\r\n" + HOST + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 404 ") and b"Connection: close" in answer, answer


def test_slow_heads_end(bin_dir):
    """A head that trickles in has ten seconds from its first byte, however often a byte comes."""
    with Cluster(bin_dir) as c:
        with socket.create_connection(c.base) as s:
            s.settimeout(0.5)
            started, answer = time.monotonic(), b""
            s.sendall(b"GET / HTTP/1.1\r\nA: ")
            while b"\r\n\r\n" not in answer and time.monotonic() - started < 20:
                try:
                    answer += s.recv(1000)
                except socket.timeout:
                    s.sendall(b"a")
        assert answer.startswith(b"HTTP/1.1 408 "), answer


def test_fragments_and_sizes(bin_dir):
    with Cluster(bin_dir) as c:
        ws = v1(c)
        text = ping("é")
        at = text.index("\\u".encode()) if b"\\u" in text else len(text) // 2
        ws.send_frame(1, text[:at], fin=False)
        ws.send_frame(9, b"p" * 125)
        ws.send_frame(0, b"", fin=False)
        ws.send_frame(0, text[at:])
        both = sorted([ws.frame(), ws.frame()], key=lambda f: f[1])  # the pong may come before or after
        assert json.loads(both[0][2]) == {"pong": "é"} and both[1] == (True, 10, b"p" * 125), both
        raw = '{"ping":"é"}'.encode()
        cut = raw.index(b"\xc3") + 1
        ws.send_frame(1, raw[:cut], fin=False)
        ws.send_frame(0, raw[cut:])
        assert ws.recv_json() == {"pong": "é"}
        # 524288 bytes are a message, one more is not; in one frame or in several.
        fill = 524288 - len(b'{"nothing":""}')
        whole = b'{"nothing":"' + b"n" * fill + b'"}'
        ws.send_frame(1, whole)
        assert "error" in ws.recv_json()
        ws.send_frame(1, whole[:300000], fin=False)
        ws.send_frame(0, whole[300000:])
        assert "error" in ws.recv_json()
        assert ws.close(4321) == 4321
        ws = v1(c)
        ws.send_frame(1, whole, fin=False)
        ws.send_frame(0, b"!")
        assert close_code(ws) == 1009
        ws = v1(c)
        ws.socket.sendall(b"\x81\xff" + struct.pack("!Q", 1 << 40) + b"\0\0\0\0abc")
        assert close_code(ws) in (1009, 1006)


def test_broken_frames(bin_dir):
    cases = {
        "reserved bits": (lambda ws: ws.send_frame(1, b"a", rsv=4), 1002),
        "continuation of nothing": (lambda ws: ws.send_frame(0, b"a"), 1002),
        "unknown opcode": (lambda ws: ws.send_frame(3, b"a"), 1002),
        "fragmented ping": (lambda ws: ws.send_frame(9, b"a", fin=False), 1002),
        "second beginning": (lambda ws: (ws.send_frame(1, b"a", fin=False), ws.send_frame(1, b"b")), 1002),
        "close of one byte": (lambda ws: ws.send_frame(8, b"x"), 1002),
        "close with a bad reason": (lambda ws: ws.send_frame(8, b"\x03\xe8\xff"), 1007),
        "close with a code that is not sent": (lambda ws: ws.send_frame(8, struct.pack("!H", 1005)), 1002),
        "close without a code": (lambda ws: ws.send_frame(8, b""), 1005),
        "bad text": (lambda ws: ws.send_frame(1, b"\xc3("), 1007),
        "bad text in fragments": (lambda ws: (ws.send_frame(1, b"\xc3", fin=False), ws.send_frame(0, b"(")), 1007),
        # A known deviation of the library: no Close frame.
        "long ping": (lambda ws: ws.send_frame(9, b"p" * 126), 1006),
    }
    with Cluster(bin_dir) as c:
        for name, (send, code) in cases.items():
            ws = v1(c)
            send(ws)
            got = close_code(ws)
            assert got == code, (name, got)


def test_extensions_are_declined(bin_dir):
    with Cluster(bin_dir) as c:
        ws = v1(c, headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"})
        ws.send(ping("z" * 3000))
        assert ws.recv_json() == {"pong": "z" * 3000}
        assert ws.close() == 1000


def test_slow_reader_gets_whole_frames(bin_dir):
    """Partial writes, many of them, with pings of the client in between: every frame arrives whole."""
    with Cluster(bin_dir) as c:
        payloads = [json.dumps({"n": n, "fill": "abcdefghij"[n % 10] * (n * 7919 % 20000)}) for n in range(2000)]
        for start in range(0, len(payloads), 40):
            batch = "\n".join(payloads[start:start + 40])
            answer = http_request(c.base, "POST", "/publish?key=slow", batch.encode(), {"Content-Type": "application/x-ndjson"})
            assert answer[0] == 200, answer
        head = json.loads(http_request(c.base, "GET", "/log?key=slow&last=1")[2])["head"]
        kept = []
        after = "0"
        while after != head:
            page = json.loads(http_request(c.base, "GET", f"/log?key=slow&after={after}")[2])
            kept += [e["data"] for e in page["events"]]
            after = page["events"][-1]["id"]
        ws = WebSocket(c.base, "/events?key=slow&replay=all")
        ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100000)
        got, pongs = [], 0
        while len(got) < len(kept):
            fin, opcode, payload = ws.frame()
            if opcode == 10:
                pongs += 1
            elif opcode == 9:
                ws.send_frame(10, payload)
            else:
                assert fin and opcode == 1
                got.append(json.loads(payload))
                if len(got) % 20 == 0:
                    ws.send_frame(9, b"still here")
                if len(got) % 100 == 0:
                    time.sleep(0.01)  # slower than the server, on purpose
        assert got == kept and pongs > 0
        assert ws.close() == 1000
        return f"{len(got)} frames, {sum(len(p) for p in payloads) // 1024} KiB, {pongs} pongs"


def test_two_thousand_sockets(bin_dir):
    with Cluster(bin_dir) as c:
        before = c.gateways[0].rss_kib()
        started = time.monotonic()
        sockets = [v1(c) for _ in range(2000)]
        took = time.monotonic() - started
        each = (c.gateways[0].rss_kib() - before) * 1024 // 2000
        for n, ws in enumerate(sockets):
            ws.send(ping(n))
        for n, ws in enumerate(sockets):
            assert ws.recv_json() == {"pong": n}
        for ws in sockets[:1000]:
            assert ws.close() == 1000
        for ws in sockets[1000:]:
            ws.drop()
        wait_until("every socket is forgotten", lambda: c.gateways[0].metric("stoa_connections") == 0)
        return f"opened in {took:.2f} s, {each} bytes each"


def test_limits(bin_dir):
    limits = "gateway:\n  limits: { sockets: 20, sockets_per_ip: 10 }\n  trusted_proxies: [127.0.0.1]\n"
    with Cluster(bin_dir, extra=limits) as c:
        def open_as(address):
            return v1(c, headers={"X-Forwarded-For": f"10.9.9.9, {address}"})

        def refused(address):
            try:
                open_as(address)
            except Refused as why:
                return why.status, json.loads(why.body)["error"]["tag"], why.headers.get("retry-after")
            raise AssertionError("one too many was let in")
        first = [open_as("192.0.2.1") for _ in range(10)]
        assert refused("192.0.2.1") == (429, "RateLimited", "1")
        second = [open_as("2001:db8::1") for _ in range(10)]
        assert refused("192.0.2.3") == (503, "Busy", "1")
        first.pop().close()
        wait_until("its place is free", lambda: c.gateways[0].metric("stoa_connections") < 20)
        first.append(open_as("192.0.2.1"))
        for ws in first + second:
            ws.send(ping(1))
            assert ws.recv_json() == {"pong": 1}
            ws.close()


def test_reload(bin_dir):
    with Cluster(bin_dir) as c:
        def status(origin):
            return http_request(c.base, "GET", "/log?key=a&last=1", headers={"Origin": origin})[0]
        assert status("https://app.example") == 403
        text = pathlib.Path(c.config).read_text()
        pathlib.Path(c.config).write_text(text + "gateway:\n  origins: ['https://app.example']\n")
        c.gateways[0].child.send_signal(signal.SIGHUP)
        wait_until("the origin is allowed", lambda: status("https://app.example") == 200)
        pathlib.Path(c.config).write_text(text + "gateway:\n  orgins: ['https://other.example']\n")
        c.gateways[0].child.send_signal(signal.SIGHUP)
        wait_until("the refusal is logged", lambda: "gateway.reload_refused" in c.gateways[0].log_tail(50))
        assert status("https://app.example") == 200


def test_address_policy(bin_dir):
    import subprocess
    gateway = pathlib.Path(bin_dir).resolve() / "stoa-gateway"
    ended = subprocess.run([str(gateway), "--listen", "0.0.0.0:0"], capture_output=True, text=True, timeout=30,
                           cwd="/", env={**os.environ, "STOA_CONFIG": "/dev/null"})
    assert ended.returncode == 1 and "auth" in ended.stderr and "mode: none" in ended.stderr, ended.stderr


def test_event_stream_head(bin_dir):
    with Cluster(bin_dir) as c:
        answer = raw_exchange(c.base, b"GET /events?key=e HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n", until_close=False)
        head = answer.split(b"\r\n\r\n")[0].lower()
        for line in (b"content-type: text/event-stream", b"cache-control: no-store", b"x-accel-buffering: no"):
            assert line in head, answer
        streams = [EventStream(c.base, "/events?key=e") for _ in range(50)]
        for stream in streams:
            stream.answer.close()
            stream.close()
        wait_until("every stream is forgotten", lambda: c.gateways[0].metric("stoa_connections") == 0)
