"""RFC 6455 against a running gateway: what a client may send, what it may not, and what it hears then.

Vectors by section of the specification. An echo is `stoa.v1`'s ping. Where the WebSocket library deviates,
the vector says so and holds it to exactly that deviation, so that a better library shows up as a failure.
"""
import base64
import hashlib
import json
import os
import socket
import struct

from cluster import Cluster
from wire import Closed, WebSocket, raw_exchange

TEXT, BINARY, CLOSE, PING, PONG, MORE = 1, 2, 8, 9, 10, 0


def echo(text, size=0):
    """A message that is answered with its text; spaces make it `size` bytes long."""
    return json.dumps({"ping": text}, ensure_ascii=False).encode().ljust(size)


class Peer:
    """One stoa.v1 socket and what a vector does with it."""

    def __init__(self, cluster):
        self.ws = WebSocket(cluster.base, "/stoa", subprotocol="stoa.v1")

    def send(self, opcode, payload=b"", **bits):
        self.ws.send_frame(opcode, payload, **bits)

    def heard(self):
        """The next frame: ("echo", text), ("pong", bytes), ("close", code), ("error", tag) or ("end", None)."""
        try:
            fin, opcode, payload = self.ws.frame()
        except (Closed, ConnectionResetError, BrokenPipeError):
            return "end", None
        assert fin, "a server message in fragments"
        if opcode == PONG:
            return "pong", payload
        if opcode == CLOSE:
            return "close", struct.unpack("!H", payload[:2])[0] if payload else None
        assert opcode == TEXT, opcode
        value = json.loads(payload)
        return ("error", value["error"]["tag"]) if "error" in value else ("echo", value["pong"])


def pieces(payload, size):
    """Frames of one text message, `size` bytes each."""
    cuts = [payload[at:at + size] for at in range(0, len(payload), size)]
    return [(TEXT if n == 0 else MORE, cut, n == len(cuts) - 1) for n, cut in enumerate(cuts)]


def fragments(peer, payload, size, between=None):
    for opcode, cut, fin in pieces(payload, size):
        peer.send(opcode, cut, fin=fin)
        if between and not fin:
            peer.send(*between)


def close_body(code, reason=b""):
    return struct.pack("!H", code) + reason


# ---- 5.2, 5.6: lengths and kinds ----

def lengths():
    for n in (12, 13, 124, 125, 126, 127, 128, 200, 4095, 4096, 65534, 65535, 65536, 65537, 70000, 524287, 524288):
        yield f"text of {n} bytes", lambda p, n=n: p.send(TEXT, echo(n, n)), [("echo", n)]
    for n in (0, 1, 125, 126, 65536):
        yield f"binary of {n} bytes", lambda p, n=n: p.send(BINARY, b"\xfe" * n), [("error", "BadRequest")]
    yield "empty text", lambda p: p.send(TEXT, b""), [("error", "BadRequest")]
    yield "byte by byte", byte_by_byte, [("echo", "slow")]
    yield "length in eight bytes where two would do", long_form, [("echo", "x")]


def byte_by_byte(peer):
    payload = echo("slow")
    mask = os.urandom(4)
    frame = bytes([0x81, 0x80 | len(payload)]) + mask + bytes(b ^ mask[n % 4] for n, b in enumerate(payload))
    for byte in frame:
        peer.ws.socket.sendall(bytes([byte]))


def long_form(peer):
    payload = echo("x")
    peer.ws.socket.sendall(bytes([0x81, 0xff]) + struct.pack("!Q", len(payload)) + b"\0\0\0\0" + payload)


# ---- 5.4: fragmentation ----

def fragmentation():
    whole = echo("in pieces, é and 🦊")
    for size in (1, 2, 3, 7, len(whole) - 1):
        yield f"pieces of {size}", lambda p, s=size: fragments(p, whole, s), [("echo", "in pieces, é and 🦊")]
    yield "an empty first piece", lambda p: (p.send(TEXT, b"", fin=False), p.send(MORE, whole)), [("echo", "in pieces, é and 🦊")]
    yield "empty pieces only at the end", lambda p: (p.send(TEXT, whole, fin=False), p.send(MORE, b"", fin=False), p.send(MORE, b"")), \
        [("echo", "in pieces, é and 🦊")]
    yield "a ping in the middle", lambda p: fragments(p, echo("end"), 8, (PING, b"hi")), "pong and echo"
    yield "a pong in the middle", lambda p: fragments(p, echo("m"), 8, (PONG, b"hi")), [("echo", "m")]
    yield "continuation of nothing", lambda p: p.send(MORE, b"a"), [("close", 1002)]
    yield "continuation of nothing, not the last", lambda p: p.send(MORE, b"a", fin=False), [("close", 1002)]
    yield "continuation after an end", lambda p: (p.send(TEXT, echo(1)), p.send(MORE, b"a")), [("echo", 1), ("close", 1002)]
    yield "text within text", lambda p: (p.send(TEXT, b"a", fin=False), p.send(TEXT, b"b")), [("close", 1002)]
    yield "binary within text", lambda p: (p.send(TEXT, b"a", fin=False), p.send(BINARY, b"b")), [("close", 1002)]


# ---- 5.5: control frames ----

def control():
    for n in (0, 1, 124, 125):
        body = os.urandom(n)
        yield f"ping of {n}", lambda p, b=body: p.send(PING, b), [("pong", body)]
    yield "pings in a row", lambda p: [p.send(PING, b"%d" % n) for n in range(10)] and p.send(TEXT, echo("end")), "pong and echo"
    yield "unasked pong", lambda p: (p.send(PONG, b"x"), p.send(TEXT, echo(1))), [("echo", 1)]
    yield "unasked empty pong", lambda p: (p.send(PONG), p.send(TEXT, echo(1))), [("echo", 1)]
    yield "fragmented ping", lambda p: p.send(PING, b"a", fin=False), [("close", 1002)]
    yield "fragmented close", lambda p: p.send(CLOSE, close_body(1000), fin=False), [("close", 1002)]
    yield "fragmented pong", lambda p: p.send(PONG, b"a", fin=False), [("close", 1002)]
    # A deviation of the library: the connection ends without a Close frame.
    yield "ping of 126 (deviation)", lambda p: p.send(PING, b"x" * 126), [("end", None)]
    yield "pong of 126 (deviation)", lambda p: p.send(PONG, b"x" * 126), [("end", None)]
    yield "close of 126 (deviation)", lambda p: p.send(CLOSE, close_body(1000, b"x" * 124)), [("end", None)]


# ---- 5.2: reserved bits and opcodes ----

def reserved():
    for rsv in range(1, 8):
        yield f"reserved bits {rsv:03b}, text", lambda p, r=rsv: p.send(TEXT, b"a", rsv=r), [("close", 1002)]
    yield "reserved bit, ping", lambda p: p.send(PING, b"a", rsv=4), [("close", 1002)]
    yield "reserved bit, close", lambda p: p.send(CLOSE, close_body(1000), rsv=4), [("close", 1002)]
    yield "reserved bit in a later piece", lambda p: (p.send(TEXT, b"a", fin=False), p.send(MORE, b"b", rsv=2)), [("close", 1002)]
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", lambda p, o=opcode: p.send(o, b"a"), [("close", 1002)]


# ---- 8.1: UTF-8 ----

GOOD = ["κόσμε", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd", "\uffff", "\U00010000", "\U0010ffff", "\0"]
BAD = {"a lone continuation": b"\x80", "an impossible byte": b"\xfe", "overlong slash, 2": b"\xc0\xaf", "overlong slash, 3": b"\xe0\x80\xaf",
       "overlong slash, 4": b"\xf0\x80\x80\xaf", "overlong nought": b"\xc0\x80", "a surrogate": b"\xed\xa0\x80", "a pair of surrogates":
       b"\xed\xa0\x80\xed\xb0\x80", "above U+10FFFF": b"\xf4\x90\x80\x80", "five bytes": b"\xf8\x88\x80\x80\x80", "cut short": b"\xe2\x82"}


def utf8():
    for text in GOOD:
        yield f"U+{ord(text[0]):04X}", lambda p, t=text: p.send(TEXT, echo(t)), [("echo", text)]
    for name, raw in BAD.items():
        yield name, lambda p, r=raw: p.send(TEXT, b'{"ping":"' + r + b'"}'), [("close", 1007)]
        yield f"{name}, byte by byte", lambda p, r=raw: fragments(p, b'"' + r + b'"', 1), [("close", 1007)]
    yield "cut short at the end", lambda p: p.send(TEXT, b"\xe2\x82"), [("close", 1007)]
    yield "not UTF-8, but binary", lambda p: p.send(BINARY, b"\xff"), [("error", "BadRequest")]


# ---- 7.4, 5.5.1: closing ----

def closing():
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield f"close {code}", lambda p, c=code: p.send(CLOSE, close_body(c)), [("close", code), ("end", None)]
    yield "close without a code", lambda p: p.send(CLOSE), [("close", None), ("end", None)]
    yield "close with a reason", lambda p: p.send(CLOSE, close_body(1000, "bye é".encode())), [("close", 1000), ("end", None)]
    yield "close with 123 bytes of reason", lambda p: p.send(CLOSE, close_body(1000, b"r" * 123)), [("close", 1000), ("end", None)]
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999):
        yield f"close {code}, which is not sent", lambda p, c=code: p.send(CLOSE, close_body(c)), [("close", 1002)]
    yield "close of one byte", lambda p: p.send(CLOSE, b"x"), [("close", 1002)]
    yield "close with a bad reason", lambda p: p.send(CLOSE, close_body(1000, b"\xce\xba\xff")), [("close", 1007)]
    yield "text after close", lambda p: (p.send(CLOSE, close_body(1000)), p.send(TEXT, echo("late"))), [("close", 1000)]
    yield "close within a message", lambda p: (p.send(TEXT, b"a", fin=False), p.send(CLOSE, close_body(1000))), [("close", 1000)]


# ---- 5.1, 10.4: masking and size ----

def limits():
    yield "an unmasked frame (deviation: taken)", lambda p: p.send(TEXT, echo("bare"), mask=False), [("echo", "bare")]
    yield "a mask of noughts", zero_mask, [("echo", "plain")]
    yield "one byte above the limit", lambda p: p.send(TEXT, b'"' + b"x" * 524287 + b'"'), [("close", 1009)]
    yield "above the limit in pieces", lambda p: fragments(p, b'"' + b"x" * 524287 + b'"', 100000), [("close", 1009)]
    yield "a length above 2^63", lambda p: p.ws.socket.sendall(b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0"), "closed or ended"
    yield "a terabyte announced", lambda p: p.ws.socket.sendall(b"\x81\xff" + struct.pack("!Q", 1 << 40) + b"\0\0\0\0x"), "closed or ended"


def zero_mask(peer):
    payload = echo("plain")
    peer.ws.socket.sendall(bytes([0x81, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)


def run(cluster, vectors):
    failures, count = [], 0
    for name, act, expected in vectors:
        peer = Peer(cluster)
        count += 1
        try:
            act(peer)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered before all was sent
        if expected == "closed or ended":
            heard = peer.heard()
            fine = heard[0] in ("close", "end")
        elif expected == "pong and echo":
            heard = []  # pings that came before a pong could leave may share one (5.5.3)
            while len({kind for kind, _ in heard}) < 2 and ("end", None) not in heard:
                heard.append(peer.heard())
            fine = ("echo", "end") in heard and all(kind in ("echo", "pong") for kind, _ in heard)
        else:
            heard = [peer.heard() for _ in expected]
            fine = heard == expected
        if not fine:
            failures.append((name, heard, expected))
        peer.ws.socket.close()
    assert not failures, "\n".join(f"{name}: heard {heard!r:.200}, expected {expected!r:.200}" for name, heard, expected in failures)
    probe = Peer(cluster)
    probe.send(TEXT, echo("alive"))
    assert probe.heard() == ("echo", "alive")
    return f"{count} vectors"


def test_lengths_and_kinds(bin_dir):
    with Cluster(bin_dir) as c:
        return run(c, lengths())


def test_fragmentation(bin_dir):
    with Cluster(bin_dir) as c:
        return run(c, fragmentation())


def test_control_frames(bin_dir):
    with Cluster(bin_dir) as c:
        return run(c, control())


def test_reserved_bits_and_opcodes(bin_dir):
    with Cluster(bin_dir) as c:
        return run(c, reserved())


def test_utf8(bin_dir):
    with Cluster(bin_dir) as c:
        return run(c, utf8())


def test_closing(bin_dir):
    with Cluster(bin_dir) as c:
        return run(c, closing())


def test_masking_and_size(bin_dir):
    with Cluster(bin_dir) as c:
        return run(c, limits())


def test_opening_handshake(bin_dir):
    """4.2: the accept value; what a head must have; what is refused and how."""
    with Cluster(bin_dir) as c:
        host = f"{c.base[0]}:{c.base[1]}"
        key = base64.b64encode(bytes(range(16))).decode()
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()

        def upgrade(**changed):
            fields = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13",
                      **{name.replace("_", "-"): value for name, value in changed.items()}}
            head = "GET /events?key=k HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items() if v is not None) + "\r\n"
            return raw_exchange(c.base, head.encode(), until_close=False)

        answer = upgrade()
        assert answer.startswith(b"HTTP/1.1 101 ") and f"sec-websocket-accept: {accept}".encode().lower() in answer.lower(), answer
        for fields in ({"Connection": "keep-alive, Upgrade"}, {"Upgrade": "WebSocket"}, {"Connection": "UPGRADE"}):
            assert upgrade(**fields).startswith(b"HTTP/1.1 101 "), fields
        refused = {"no key": ({"Sec_WebSocket_Key": None}, b"400"), "a short key": ({"Sec_WebSocket_Key": "c2hvcnQ="}, b"400"),
                   "not base64": ({"Sec_WebSocket_Key": "!" * 24}, b"400"), "version 8": ({"Sec_WebSocket_Version": "8"}, b"426"),
                   "no version": ({"Sec_WebSocket_Version": None}, b"426"), "no host": ({"Host": None}, b"400")}
        for name, (fields, status) in refused.items():
            answer = upgrade(**fields)
            assert answer.split(b" ")[1] == status, (name, answer)
            if status == b"426":
                assert b"sec-websocket-version: 13" in answer.lower(), answer
        answer = upgrade(Sec_WebSocket_Protocol="chat, superchat")
        assert b"sec-websocket-protocol" not in answer.lower(), answer
        answer = upgrade(Sec_WebSocket_Extensions="permessage-deflate")
        assert answer.startswith(b"HTTP/1.1 101 ") and b"sec-websocket-extensions" not in answer.lower(), answer


def test_a_peer_that_stops_reading_is_closed_with_the_rest(bin_dir):
    """5.5.1: what was queued before a Close arrives before it."""
    with Cluster(bin_dir) as c:
        peer = Peer(c)
        peer.ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for n in range(50):
            peer.send(TEXT, echo("x" * 1000 + str(n)))
        peer.send(CLOSE, close_body(1000))
        heard = []
        while not heard or heard[-1][0] == "echo":
            heard.append(peer.heard())
        assert heard[-1] == ("close", 1000), heard[-1]
        assert [text[1000:] for _, text in heard[:-1]] == [str(n) for n in range(50)]
