"""The upload service as another program beside the cluster: a real file by HTTP, its events at every reader."""
import hashlib
import json
import os
import pathlib
import socket
import subprocess

from cluster import Cluster, free_port, wait_until
from test_curve import Directory, curved, keygen
from wire import WebSocket, http_request


class Service:
    """stoa-upload, publishing to a cluster; its files are in `files`."""

    def __init__(self, bin_dir, c, files, *more):
        self.files = pathlib.Path(files)
        self.base = ("127.0.0.1", free_port())
        self.log = self.files.with_suffix(".log")
        with open(self.log, "w") as log:
            self.child = subprocess.Popen(
                [pathlib.Path(bin_dir) / "stoa-upload", "--listen", f"127.0.0.1:{self.base[1]}", "--router", c.publish_endpoints[0],
                 "--cluster", "test", "--directory", self.files, *map(str, more)],
                stderr=log, env={k: v for k, v in os.environ.items() if not k.startswith("STOA_")})

    def __enter__(self):
        wait_until(f"the upload service answers\n{self.log.read_text()}", self.healthy)
        return self

    def __exit__(self, *_):
        self.child.terminate()
        assert self.child.wait(20) == 0, self.log.read_text()

    def healthy(self):
        assert self.child.poll() is None, self.log.read_text()
        try:
            return http_request(self.base, "GET", "/uploads/health")[0] == 200
        except OSError:
            return False

    def create(self, name, size):
        status, _, body = http_request(self.base, "POST", f"/uploads?name={name}&size={size}")
        assert status == 201, (status, body)
        return json.loads(body)["id"]


def upload_event(reader):
    frame = reader.recv_json()
    assert frame["type"] == "upload_event" and frame["timestamp"].endswith("Z"), frame
    return frame["payload"]


def events_until_end(reader):
    seen = [upload_event(reader)]
    while seen[-1]["type"] not in ("upload-complete", "upload-failed"):
        seen.append(upload_event(reader))
    return seen


def put_and_watch(c, service, content):
    ident = service.create("holiday%20film.bin", len(content))
    early = WebSocket(c.base, f"/events?uploadId={ident}&replay=all")
    status, _, body = http_request(service.base, "PUT", f"/uploads/{ident}", content)
    assert status == 200, (status, body)
    seen = events_until_end(early)
    assert seen[0]["type"] == "upload-started" and seen[-1]["type"] == "upload-complete", seen
    steps = [e["data"]["progress"] for e in seen if e["type"] == "upload-progress"]
    assert steps == sorted(steps) and all(step <= len(content) for step in steps), steps
    stored = (service.files / ident).read_bytes()
    assert hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()
    late = WebSocket(c.base, f"/events?uploadId={ident}&replay=all")
    assert events_until_end(late)[-1] == seen[-1], "a late reader sees another end"
    return ident


def test_a_file_and_its_events(bin_dir):
    with Directory() as files, Cluster(bin_dir, shards=2) as c, Service(bin_dir, c, files / "up") as service:
        lobby = WebSocket(c.base, "/events?key=uploads")
        ident = put_and_watch(c, service, os.urandom(3 << 20))
        assert lobby.recv_json() == {"type": "upload-created", "id": ident, "name": "holiday film.bin", "size": 3 << 20}
        assert http_request(service.base, "PUT", f"/uploads/{ident}", b"again")[0] == 409
        assert http_request(service.base, "PUT", "/uploads/" + "0" * 32, b"x")[0] == 404
        assert http_request(service.base, "POST", "/uploads?name=x&size=-1")[0] == 413
        assert http_request(service.base, "POST", "/uploads?size=1")[0] == 400
        ident = service.create("short", 10)
        assert http_request(service.base, "PUT", f"/uploads/{ident}", b"123")[0] == 400
        assert events_until_end(WebSocket(c.base, f"/events?uploadId={ident}&replay=all"))[-1]["type"] == "upload-failed"


def test_a_sender_that_vanishes(bin_dir):
    with Directory() as files, Cluster(bin_dir) as c, Service(bin_dir, c, files / "up") as service:
        ident = service.create("cut", 1 << 20)
        reader = WebSocket(c.base, f"/events?uploadId={ident}&replay=all")
        with socket.create_connection(service.base) as s:
            s.sendall(f"PUT /uploads/{ident} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 20}\r\n\r\n".encode() + b"x" * 100000)
            while upload_event(reader)["type"] != "upload-progress":
                pass
        assert events_until_end(reader)[-1]["type"] == "upload-failed"


def test_an_upload_that_goes_on(bin_dir):
    with Directory() as files, Cluster(bin_dir) as c, Service(bin_dir, c, files / "up") as service:
        content = os.urandom(1 << 20)
        ident = service.create("cut", len(content))
        path = f"/uploads/{ident}"
        offset = lambda: json.loads(http_request(service.base, "GET", path)[2])
        assert offset() == {"offset": 0, "size": len(content)}
        reader = WebSocket(c.base, f"/events?uploadId={ident}&replay=all")
        with socket.create_connection(service.base) as s:
            s.sendall(f"PATCH {path}?offset=0 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content[:300000])
            wait_until("some of it is there", lambda: offset()["offset"] > 0)
            assert http_request(service.base, "PATCH", f"{path}?offset={offset()['offset']}", b"mine")[0] == 409
        wait_until("what was sent is there", lambda: offset()["offset"] == 300000)
        wait_until("the lost connection let go", lambda: http_request(service.base, "PATCH", f"{path}?offset=300000", b"")[0] == 200)
        for wrong in ("299999", "300001", "-1", "", "x"):
            assert http_request(service.base, "PATCH", f"{path}?offset={wrong}", b"x")[0] == 409, wrong
        half = http_request(service.base, "PATCH", f"{path}?offset=300000", content[300000:700000])
        assert half[0] == 200 and json.loads(half[2]) == {"offset": 700000}, half
        rest = http_request(service.base, "PATCH", f"{path}?offset=700000", content[700000:])
        assert rest[0] == 200 and json.loads(rest[2]) == {"id": ident, "offset": len(content)}, rest
        seen = events_until_end(reader)
        assert seen[-1]["type"] == "upload-complete" and not any(e["type"] == "upload-failed" for e in seen), seen
        assert {300000, 700000} <= {e["data"]["progress"] for e in seen if e["type"] == "upload-progress"}, seen
        assert (service.files / ident).read_bytes() == content
        assert http_request(service.base, "GET", "/uploads/" + "0" * 32)[0] == 404
        assert http_request(service.base, "PATCH", "/uploads/x?offset=0", b"x")[0] == 404


def test_over_tcp_with_a_key(bin_dir):
    with Directory() as keys, Directory() as files:
        keygen(bin_dir, keys / "curve.key")
        with curved(bin_dir, keys) as c, Service(bin_dir, c, files / "up", "--curve-secret-file", keys / "curve.key") as service:
            put_and_watch(c, service, os.urandom(100000))
