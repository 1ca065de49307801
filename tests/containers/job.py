"""The job, done through the compose file: publish through one gateway, receive on the other, kill a shard's
container, scale the gateways, and nothing acknowledged is missing. Runs where the containers' network is
reachable; $STOA_COMPOSE is the compose command."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "process"))
from wire import WebSocket, http_request  # noqa: E402

COMPOSE = os.environ["STOA_COMPOSE"].split()
passed = 0


def compose(*words):
    return subprocess.run([*COMPOSE, *words], check=True, text=True, capture_output=True).stdout


def check(name, condition, seen=""):
    global passed
    if not condition:
        raise AssertionError(f"{name}: {seen}")
    passed += 1
    print(f"ok   {name} {seen}", flush=True)


def address(container):
    text = subprocess.run(["docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container],
                          check=True, text=True, capture_output=True).stdout.strip()
    return text, 8080


def gateways():
    names = [line for line in compose("ps", "-q", "gateway").split()]
    return [address(name) for name in names]


def publish(base, key, number, deadline=30):
    """Publishes until acknowledged, under one idempotency key."""
    end = time.monotonic() + deadline
    while True:
        try:
            status, _, body = http_request(base, "POST", f"/publish?key={key}", json.dumps({"n": number}).encode(),
                                           {"Idempotency-Key": f"{key}-{number}"}, timeout=12)
            if status == 200:
                return json.loads(body)["id"]
        except OSError:
            pass
        assert time.monotonic() < end, f"event {number} was never acknowledged"


def main():
    started = time.monotonic()
    compose("up", "-d", "--wait", "--no-build")
    check("compose up", True, f"{time.monotonic() - started:.1f} s")
    one, two = gateways()
    sockets = [WebSocket(two, f"/events?key=job:{room}") for room in range(8)]
    ids = {room: [publish(one, f"job:{room}", n) for n in range(20)] for room in range(8)}
    for room, socket in enumerate(sockets):
        seen = [socket.recv_json()["n"] for _ in range(20)]
        assert seen == list(range(20)), seen
    check("published through one gateway, received on the other, in order", True, "8 keys x 20 events")

    status, _, page = http_request(("127.0.0.1", 8080), "GET", "/")
    check("the demo page through the published port", status == 200 and b"<title>" in page, status)
    status, _, _ = http_request(("127.0.0.1", 8080), "GET", "/uploads/health")
    check("the upload service behind the same port", status == 200, status)

    shard = compose("ps", "-q", "shard-0").strip()
    # By the host's pid: `docker kill` counts as stopped by hand, and no restart policy follows it.
    pid = subprocess.run(["docker", "inspect", "-f", "{{.State.Pid}}", shard], check=True, text=True, capture_output=True).stdout
    os.kill(int(pid), signal.SIGKILL)
    killed = time.monotonic()
    for n in range(20, 30):
        for room in range(8):
            ids[room].append(publish(one, f"job:{room}", n))
    pause = time.monotonic() - killed
    for room, socket in enumerate(sockets):
        seen = [socket.recv_json()["n"] for _ in range(10)]
        assert seen == list(range(20, 30)), (room, seen)
    check("a shard's container killed: same sockets, nothing lost", True, f"80 publishes acknowledged within {pause:.1f} s of the kill")
    for room in range(8):
        _, _, body = http_request(two, "GET", f"/log?key=job:{room}&after=0&limit=100")
        log = json.loads(body)
        assert [event["id"] for event in log["events"]] == ids[room], (room, log)
    check("every acknowledged event is in the log, once, in order", True, "240 events")

    compose("up", "-d", "--wait", "--no-build", "--scale", "gateway=3")
    three = gateways()
    check("--scale gateway=3", len(three) == 3, three)
    for base in three:
        status, _, body = http_request(base, "GET", "/log?key=job:0&last=1")
        assert json.loads(body)["events"][0]["data"] == {"n": 29}, body
    check("every gateway reads the same log", True)
    for socket in sockets:
        socket.close()
    started = time.monotonic()
    compose("down", "-v", "--timeout", "10")
    check("down", compose("ps", "-q").strip() == "", f"{time.monotonic() - started:.1f} s")
    print(f"{passed} passed, 0 failed")


try:
    main()
except BaseException as error:
    print(f"FAIL {type(error).__name__}: {error}", getattr(error, "stderr", ""), sep="\n", flush=True)
    try:
        print(compose("ps", "-a"), compose("logs", "--tail", "40"), sep="\n", flush=True)
        compose("down", "-v", "--timeout", "2")
    except subprocess.CalledProcessError as broken:
        print(broken.stderr)
    print(f"{passed} passed, 1 failed")
    sys.exit(1)
