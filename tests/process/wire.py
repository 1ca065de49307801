"""WebSocket, SSE and HTTP clients for the process tests, on Python's standard library alone.

Independent of the server's code on purpose: what they accept is what RFC 6455 and the event-stream
format say. Everything blocks with a deadline; nothing sleeps.
"""
import base64
import http.client
import json
import os
import socket
import struct
import time

DEADLINE = 20.0  # seconds; a test that waits longer has failed


class Closed(Exception):
    """The peer ended the connection: `code` is the close code, 1006 without a Close frame."""

    def __init__(self, code, reason=""):
        super().__init__(f"closed {code} {reason}")
        self.code, self.reason = code, reason


class Refused(Exception):
    """The upgrade was answered with something else than 101."""

    def __init__(self, status, headers, body):
        super().__init__(f"refused {status}: {body[:200]!r}")
        self.status, self.headers, self.body = status, headers, body


def http_request(base, method, target, body=None, headers=None, timeout=DEADLINE):
    """One request on a fresh connection: (status, headers as a dict in lower case, body bytes)."""
    host, port = base
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def raw_exchange(base, data, timeout=DEADLINE, until_close=True):
    """Sends bytes as they are and returns everything that comes back until the server closes."""
    with socket.create_connection(base, timeout) as s:
        s.settimeout(timeout)
        s.sendall(data)
        received = b""
        while True:
            try:
                part = s.recv(65536)
            except socket.timeout:
                raise AssertionError(f"no end after {timeout} s; so far {received[:300]!r}") from None
            except ConnectionResetError:
                return received
            if not part:
                return received
            received += part
            if not until_close and b"\r\n\r\n" in received:
                return received


class WebSocket:
    def __init__(self, base, target, subprotocol=None, headers=None, timeout=DEADLINE, early=b""):
        self.timeout = timeout
        self.socket = socket.create_connection(base, timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.closed = None
        key = base64.b64encode(os.urandom(16)).decode()
        head = [f"GET {target} HTTP/1.1", f"Host: {base[0]}:{base[1]}", "Upgrade: websocket", "Connection: Upgrade",
                f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        if subprotocol:
            head.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        head += [f"{k}: {v}" for k, v in (headers or {}).items()]
        self.socket.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + early)
        self._upgrade()

    def _upgrade(self):
        self._fill_until(lambda: b"\r\n\r\n" in self.buffer)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        status = int(lines[0].split()[1])
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        if status != 101:
            length = int(headers.get("content-length", "0"))
            self._fill_until(lambda: len(self.buffer) >= length)
            body = self.buffer[:length]
            self.socket.close()
            raise Refused(status, headers, body)
        self.subprotocol = headers.get("sec-websocket-protocol")

    def _fill_until(self, done, deadline=None):
        deadline = deadline or time.monotonic() + self.timeout
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise socket.timeout("deadline")
            self.socket.settimeout(left)
            part = self.socket.recv(1 << 18)
            if not part:
                raise Closed(1006)
            self.buffer += part

    def send_frame(self, opcode, payload, fin=True, mask=True, rsv=0):
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        bit = 0x80 if mask else 0
        n = len(payload)
        if n < 126:
            head += bytes([bit | n])
        elif n < 65536:
            head += bytes([bit | 126]) + struct.pack("!H", n)
        else:
            head += bytes([bit | 127]) + struct.pack("!Q", n)
        if mask:
            key = os.urandom(4)
            stream = key * (n // 4 + 1)
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(stream[:n], "big")).to_bytes(n, "big") if n else b""
            head += key
        self.socket.settimeout(self.timeout)
        self.socket.sendall(head + payload)

    def send(self, text):
        self.send_frame(1, text.encode() if isinstance(text, str) else text)

    def send_json(self, value):
        self.send(json.dumps(value))

    def frame(self, deadline=None):
        """(fin, opcode, payload) of the next frame, control frames included."""
        self._fill_until(lambda: len(self.buffer) >= 2, deadline)
        first, second = self.buffer[0], self.buffer[1]
        assert first & 0x70 == 0, "reserved bits set"
        assert second & 0x80 == 0, "a server frame must not be masked"
        n, at = second & 0x7F, 2
        if n == 126:
            self._fill_until(lambda: len(self.buffer) >= 4, deadline)
            n, at = struct.unpack("!H", self.buffer[2:4])[0], 4
        elif n == 127:
            self._fill_until(lambda: len(self.buffer) >= 10, deadline)
            n, at = struct.unpack("!Q", self.buffer[2:10])[0], 10
        self._fill_until(lambda: len(self.buffer) >= at + n, deadline)
        payload, self.buffer = self.buffer[at:at + n], self.buffer[at + n:]
        return bool(first & 0x80), first & 15, payload

    def recv(self, timeout=None):
        """The next message: str for text, bytes for binary. Raises Closed, socket.timeout."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        parts, kind = [], None
        while True:
            fin, opcode, payload = self.frame(deadline)
            if opcode == 8:
                code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
                self.closed = code
                try:
                    self.send_frame(8, payload[:2])
                except OSError:
                    pass
                raise Closed(code, payload[2:].decode(errors="replace"))
            if opcode == 9:
                self.send_frame(10, payload)
                continue
            if opcode == 10:
                continue
            if opcode:
                kind = opcode
            parts.append(payload)
            if fin:
                whole = b"".join(parts)
                return whole.decode() if kind == 1 else whole

    def recv_json(self, timeout=None):
        return json.loads(self.recv(timeout))

    def silent(self, seconds):
        """True when no message comes for this long (the one place where waiting is the test)."""
        try:
            self.pending = self.recv(seconds)
            return False
        except socket.timeout:
            return True

    def close(self, code=1000):
        """Closes properly and returns the code that the server answered with."""
        try:
            self.send_frame(8, struct.pack("!H", code))
            while True:
                self.recv()
        except Closed as end:
            return end.code
        except OSError:
            return 1006
        finally:
            self.socket.close()

    def drop(self):
        """Vanishes without a Close frame, with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class EventStream:
    """Server-sent events: iterate `next()` for (event, id, data)."""

    def __init__(self, base, target, headers=None, timeout=DEADLINE):
        self.timeout = timeout
        self.connection = http.client.HTTPConnection(*base, timeout=timeout)
        self.connection.request("GET", target, headers={"Accept": "text/event-stream", **(headers or {})})
        self.answer = self.connection.getresponse()
        self.status = self.answer.status
        self.headers = {k.lower(): v for k, v in self.answer.getheaders()}
        self.retry = None

    def next(self):
        event, ident, data = "message", None, []
        while True:
            line = self.answer.readline()
            if not line:
                raise Closed(1006)
            line = line.rstrip(b"\r\n").decode()
            if line == "":
                if data:
                    return event, ident, "\n".join(data)
                event, ident, data = "message", None, []
                continue
            if line.startswith(":"):
                continue
            name, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if name == "event":
                event = value
            elif name == "id":
                ident = value
            elif name == "data":
                data.append(value)
            elif name == "retry":
                self.retry = int(value)

    def close(self):
        self.connection.close()
