"""The contract with users: the command `stoa`, its flags, output, exit codes and errors; a local cluster; the demo's events."""
import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile

from cluster import Cluster, free_port, monitor_get, wait_until
from wire import EventStream, WebSocket, http_request

ID = r"[0-9a-z]+-[1-9][0-9]*"
COMMANDS = ("publish", "tail", "log", "status", "top", "keys", "logs", "up", "down", "config", "reload", "token", "keygen", "bench", "room")
VARIABLES = ("STOA_SERVER", "STOA_ROUTER", "STOA_TOKEN", "STOA_CONFIG")


class Stoa:
    """The command, in an environment of its own."""

    def __init__(self, bin_dir, cwd="/", **environment):
        self.path, self.cwd = str(pathlib.Path(bin_dir).resolve() / "stoa"), cwd
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("STOA_")} | environment

    def __call__(self, *words, status=0, timeout=60, **more):
        more.setdefault("stdin", None if "input" in more else subprocess.DEVNULL)
        if "input" in more:
            del more["stdin"]
        ran = subprocess.run([self.path, *map(str, words)], env=self.environment, cwd=self.cwd, capture_output=True, timeout=timeout,
                             **{"text": True, **more})
        assert ran.returncode == status, (words, ran.returncode, ran.stdout, ran.stderr)
        if status:
            lines = ran.stderr.splitlines()
            assert lines and all(line.startswith("stoa") for line in lines) and len(lines) <= (2 if status == 3 else 1), (words, ran.stderr)
        return ran

    def out(self, *words, **more):
        ran = self(*words, **more)
        assert not ran.stderr, (words, ran.stderr)
        return ran.stdout

    def background(self, *words, **more):
        return subprocess.Popen([self.path, *map(str, words)], env=self.environment, cwd=self.cwd, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, **more)


def stoa_of(c, **environment):
    return Stoa(c.bin, STOA_SERVER="http://%s:%d" % c.base, **environment)


@contextlib.contextmanager
def ending(child):
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def test_help_and_usage(bin_dir):
    with tempfile.TemporaryDirectory(prefix="stoa-usage-") as folder:
        stoa = Stoa(bin_dir, cwd=folder)
        text = stoa.out("--help")
        for command in COMMANDS:
            assert re.search(rf"^  {command} +\S", text, re.M), command
            helped = stoa.out(command, "--help")
            assert helped.startswith(f"usage: stoa {command}"), helped
            examples = helped.split("examples:\n")[1].split("\n\n")[0].splitlines()
            assert len(examples) >= 2 and all("stoa " in line for line in examples), (command, examples)
            for flag in ("--server", "--router", "--token", "--config", "--json", "--timeout", "--quiet"):
                assert flag in helped, (command, flag)
            assert stoa.out(command, "-h") == helped
        assert re.fullmatch(r"stoa \d+\.\d+\.\d+\n", stoa.out("--version"))
        assert subprocess.run([stoa.path], capture_output=True).returncode == 2
        misuses = [("frobnicate",), ("--frobnicate",), ("publish",), ("publish", "k", "1", "2"), ("publish", "--nonsense", "k", "1"),
                   ("publish", "-k", "", "k", "1"), ("publish", "-k", "i" * 256, "k", "1"), ("publish", "--idempotency-key"), ("publish", "k", "-Z"),
                   ("publish", "--to", "a", "--to", "b", "k", "1"), ("publish", "--file", "f", "k", "1"), ("tail",), ("tail", "-n", "some", "k"), ("tail", "-n"),
                   ("log",), ("log", "a", "b"), ("log", "--limit", "x", "k"), ("log", "--last", "0", "k"), ("log", "--limit=", "k"), ("log", "--after", "0", "--last", "1", "k"), ("keys", "a", "b"),
                   ("status", "x"), ("top", "x"), ("top", "-n", "0"), ("up", "x"), ("up", "--shards", "0"), ("up", "--gateways", "many"),
                   ("up", "--listen", "nonsense"), ("up", "--listen", "127.0.0.1:0"), ("up", "--listen", "127.0.0.1:99999"), ("config",), ("config", "x"),
                   ("config", "check", "show"), ("bench",), ("bench", "x"), ("down", "x", "--nonsense"), ("down", "x"), ("logs", "x"), ("reload", "x"), ("--timeout", "soon", "status"),
                   ("room",), ("room", "x"), ("room", "state"), ("room", "state", "k"), ("room", "state", ":1"), ("room", "state", "t:"), ("room", "state", "t:1", "x"),
                   ("room", "call", "t:1"), ("room", "call", "t:1", "m", "1", "2"), ("room", "send", "-k", "", "t:1", "1"), ("room", "send", "t:1", "1", "2"),
                   ("--timeout", "0", "status"), ("--token", "@/no/such/file", "status")]
        for words in misuses:
            ran = stoa(*words, status=2)
            assert not ran.stdout, (words, ran.stdout)
        assert not os.listdir(folder), os.listdir(folder)  # a command that is misused leaves nothing behind


def test_nobody_there(bin_dir):
    stoa = Stoa(bin_dir)
    url = f"http://127.0.0.1:{free_port()}"
    for words in (("publish", "k", "1"), ("log", "k"), ("keys",), ("status",), ("top",)):
        ran = stoa("-s", url, "--timeout", "0.5", *words, status=1)
        assert url in ran.stderr and "STOA_SERVER" in ran.stderr and not ran.stdout, ran
        assert url in Stoa(bin_dir, STOA_SERVER=url)("--timeout", "0.5", *words, status=1).stderr
    with ending(stoa.background("-s", url, "tail", "k")) as tail:
        assert url in tail.stderr.readline()  # says so, and goes on trying
        assert tail.poll() is None
    with socket.socket() as silent:  # takes connections, never answers: the outcome is unknown
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ran = stoa("-s", "http://127.0.0.1:%d" % silent.getsockname()[1], "--timeout", "0.5", "publish", "-k", "mine", "k", "1", status=3)
        assert "-k mine" in ran.stderr and not ran.stdout, ran
    assert "gateway" in stoa("-s", "http://127.0.0.1:1/", "log", "k", status=1).stderr
    stoa("logs", "--data", "/no/such/folder", status=1)
    stoa("reload", "--data", "/no/such/folder", status=1)
    assert "no cluster" in stoa.out("down", "--data", "/no/such/folder")
    assert "/no/such/file" in subprocess.run([stoa.path, "config", "check", "--config", "/no/such/file"], capture_output=True, text=True).stderr


def test_publish_and_read(bin_dir):
    with Cluster(bin_dir, shards=2, extra="types: { few: { retention: { count: 3 } } }\n") as c:
        stoa = stoa_of(c)
        assert Stoa(bin_dir).out("--server", "http://%s:%d" % c.base, "keys") == ""
        first = stoa.out("publish", "k", '{"n": 1}')
        assert re.fullmatch(ID + "\n", first), first
        epoch = first.split("-")[0]
        # payloads from the arguments, a file, standard input: byte for byte
        with tempfile.NamedTemporaryFile(prefix="stoa-payload-") as f:
            f.write(b"\x00\xff from a file")
            f.flush()
            stoa.out("publish", "--file", f.name, "k")
        stoa.out("publish", "k", "-", input='"by pipe"')
        stoa.out("publish", "k", input='"by pipe, too"')
        assert stoa.out("log", "--raw", "k", text=False) == b'{"n": 1}\n\x00\xff from a file\n"by pipe"\n"by pipe, too"\n'
        assert stoa.out("log", "k", text=False).splitlines()[0] == f'{epoch}-1\t{{"n": 1}}'.encode()
        lines = [json.loads(line) for line in stoa.out("--json", "log", "k").splitlines()]
        assert [e["id"] for e in lines] == [f"{epoch}-{n}" for n in range(1, 5)] and lines[0]["data"] == {"n": 1}, lines
        assert base64.b64decode(lines[1]["base64"]) == b"\x00\xff from a file"
        assert [line.split("\t")[0] for line in stoa.out("log", "--after", f"{epoch}-2", "k").splitlines()] == [f"{epoch}-3", f"{epoch}-4"]
        assert stoa.out("log", "--last", "1", "k") == f'{epoch}-4\t"by pipe, too"\n' == stoa.out("log", "-n", "1", "k")
        assert len(stoa.out("log", "--limit", "2", "k", text=False).splitlines()) == 2
        # the same key, the same event
        one = stoa.out("publish", "-k", "idem", "i", "1")
        assert stoa.out("publish", "--idempotency-key", "idem", "i", "2") == one
        assert json.loads(stoa.out("--json", "publish", "-k", "idem", "i", "1")) == {"id": one.strip(), "duplicate": True}
        # ephemeral has no id; conflated ones are all in the log
        assert stoa.out("publish", "--ephemeral", "i", "1") == ""
        assert json.loads(stoa.out("publish", "--json", "-e", "i", "1")) == {"id": None, "duplicate": False}
        for n in range(3):
            stoa.out("publish", "--conflate", "p", "c", n)
        assert stoa.out("log", "--raw", "c") == "0\n1\n2\n"
        assert WebSocket(c.base, "/events?key=c&replay=all").recv() == "2"
        # batches
        assert stoa.out("publish", "--batch", "b", "-", input="1\n2\n\n3\n").endswith("-3\n")
        batch = json.loads(stoa.out("--json", "publish", "-b", "b", "-", input="4\n5\n"))
        assert batch["count"] == 2 and batch["first"].endswith("-4") and batch["id"].endswith("-5"), batch
        ran = stoa("publish", "-b", "b", "-", status=1, input="6\nnot json\n")
        assert "BadRequest" in ran.stderr, ran.stderr
        assert stoa.out("log", "--raw", "b") == "1\n2\n3\n4\n5\n"
        # refusals by the gateway
        assert "BadKey" in stoa("publish", "$stoa", "1", status=1).stderr
        assert "BadKey" in stoa("log", "", status=1).stderr
        assert "BadId" in stoa("log", "--after", "x", "k", status=1).stderr
        assert "TooLarge" in stoa("publish", "k", "-", status=1, input="x" * 524289).stderr
        assert "BadId" in stoa("tail", "--after", "x", "k", status=1).stderr
        assert "BadKey" in stoa("tail", "", status=1).stderr
        # more than one page
        for n in range(0, 2500, 250):
            http_request(c.base, "POST", "/publish?key=long", b"".join(b"%d\n" % m for m in range(n, n + 250)), {"Content-Type": "application/x-ndjson"})
        assert stoa.out("log", "--raw", "long").split() == [str(n) for n in range(2500)]
        assert len(stoa.out("log", "--raw", "--limit", "1500", "long").split()) == 1500
        # what is gone goes to stderr, and it goes on
        ids = [stoa.out("publish", "few:1", n).strip() for n in range(5)]
        ran = stoa("log", "--after", ids[0], "few:1")
        assert ran.stderr == f"stoa: missed {ids[0]}..{ids[1]} (evicted)\n" and len(ran.stdout.splitlines()) == 3, ran
        # keys
        assert stoa.out("keys").split() == ["b", "c", "few:1", "i", "k", "long"]
        assert stoa.out("keys", "few:") == "few:1\n"
        assert [json.loads(line)["key"] for line in stoa.out("--json", "keys").splitlines()] == ["b", "c", "few:1", "i", "k", "long"]
        # by ZeroMQ
        by_router = stoa_of(c, STOA_CONFIG=str(c.config), STOA_ROUTER=c.publish_endpoints[0])
        assert re.fullmatch(ID + "\n", by_router.out("publish", "z", "1"))
        assert by_router.out("publish", "-k", "same", "z", "2") == by_router.out("publish", "-k", "same", "z", "3")
        assert by_router.out("publish", "-b", "z", "-", input="4\n5\n").endswith("-4\n")
        assert stoa.out("--config", c.config, "--router", c.publish_endpoints[0], "publish", "z", "6").endswith("-5\n")
        assert stoa.out("log", "--raw", "z") == "1\n2\n4\n5\n6\n"
        ran = stoa("--router", "tcp://127.0.0.1:1", "--timeout", "0.3", "publish", "z", "7", status=1)
        assert "127.0.0.1:1" in ran.stderr, ran.stderr
        # a secret file as token is never shown
        with tempfile.NamedTemporaryFile("w", prefix="stoa-token-") as f:
            f.write("tok-secret\n")
            f.flush()
            stoa.out("--token", "@" + f.name, "keys")
            ran = subprocess.run([stoa.path, "-s", "http://127.0.0.1:1", "--token", "tok-secret", "keys"], capture_output=True, text=True)
            assert "tok-secret" not in ran.stderr + ran.stdout


def test_tail(bin_dir):
    with Cluster(bin_dir, extra="types: { few: { retention: { count: 3 } } }\n") as c:
        stoa = stoa_of(c)
        ids = [stoa.out("publish", "few:1", n).strip() for n in range(5)]
        epoch = ids[0].split("-")[0]
        with ending(stoa.background("tail", "-n", "all", "few:1")) as tail:
            assert [tail.stdout.readline() for _ in range(3)] == [f"{ids[n]}\t{n}\n" for n in (2, 3, 4)]
            stoa.out("publish", "-e", "few:1", '"now"')
            assert tail.stdout.readline() == '-\t"now"\n'  # no id: it is not stored
            # the gateway dies: it comes back and misses nothing
            c.gateways[0].kill()
            c.gateways[0].start().ready()
            nextid = stoa.out("publish", "few:1", '"after"').strip()
            assert tail.stdout.readline() == f'{nextid}\t"after"\n'
        with ending(stoa.background("tail", "--after", ids[0], "few:1")) as tail:
            assert tail.stderr.readline() == f"stoa: missed {ids[0]}..{ids[2]} (evicted)\n"
            assert tail.stdout.readline().startswith(ids[3])
        with ending(stoa.background("tail", "--replay", "1", "--raw", "few:1")) as tail:
            assert tail.stdout.readline() == '"after"\n'
        stoa.out("publish", "other", "not json")
        with ending(stoa.background("tail", "-n", "1", "few:1", "other")) as tail:
            lines = sorted(tail.stdout.readline() for _ in range(2))
            assert lines[0] == f'few:1\t{epoch}-6\t"after"\n' and re.fullmatch(f"other\t{ID}\tnot json\n", lines[1]), lines
        with ending(stoa.background("--json", "tail", "-n", "1", "few:1", "other")) as tail:
            found = {e["key"]: e for e in (json.loads(tail.stdout.readline()) for _ in range(2))}
            assert found["few:1"] == {"key": "few:1", "id": f"{epoch}-6", "data": "after"}, found
            assert base64.b64decode(found["other"]["base64"]) == b"not json", found
        # the default is what comes from now on
        with ending(stoa.background("tail", "odd:a/b%?é")) as tail:
            wait_until("the tail is there", lambda: json.loads(http_request(c.base, "GET", "/connections?key=odd:a%2Fb%25%3F%C3%A9")[2]))
            stoa.out("publish", "odd:a/b%?é", "1")
            assert tail.stdout.readline().endswith("\t1\n")


def test_status_and_top(bin_dir):
    with Cluster(bin_dir, shards=2, routers=2, gateways=2) as c:
        stoa = stoa_of(c)
        for n in range(30):
            http_request(c.base, "POST", f"/publish?key=busy:{n % 3}", b"1")
        ws = WebSocket(c.gateways[1].base, "/events?key=busy:1")
        text = stoa.out("status")
        names = ["gateway-0", "router-0", "router-1", "shard-0", "shard-1", "gateway-1"]
        assert [line.split()[0] for line in text.splitlines()] == ["NAME", *names], text
        head = text.splitlines()[0]
        for column in ("ROLE", "VERSION", "ADDRESS", "SLOTS", "ROOMS", "SOCKETS", "PER SECOND"):
            assert column in head, head
        assert "%s:%d" % c.gateways[1].base in text and c.publish_endpoints[1] in text, text
        rows = {row["name"]: row for row in map(json.loads, stoa.out("--json", "status").splitlines())}
        assert set(rows) == set(names) and all(row["per_second"] >= 0 and row["version"] and row["address"] for row in rows.values()), rows
        assert rows["gateway-1"]["sockets"] == 1 and rows["shard-0"]["slots"] == 8192, rows
        assert rows["shard-0"]["rooms"] + rows["shard-1"]["rooms"] == 3
        ws.close()
        top = stoa.out("top")
        assert sorted(line.split()[0] for line in top.splitlines()[1:]) == ["busy:0", "busy:1", "busy:2"], top
        assert len(stoa.out("top", "-n", "1").splitlines()) == 2
        top = [json.loads(line) for line in stoa.out("--json", "top").splitlines()]
        assert {row["key"]: row["events"] for row in top} == {f"busy:{n}": 10 for n in range(3)}, top


@contextlib.contextmanager
def local_cluster(stoa, data, *words):
    try:
        yield stoa("up", "-d", "--data", data, *words, timeout=120)
    finally:
        assert "stopped" in stoa.out("down", "--data", data, timeout=120)


def test_local_cluster(bin_dir):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="stoa-local-"))
    try:
        stoa = Stoa(bin_dir, cwd=folder)
        port = free_port()
        config = folder / "sub" / "stoa.yaml"
        config.parent.mkdir()
        config.write_text(f"gateway: {{ listen: 127.0.0.1:{port} }}\ntypes: {{ few: {{ retention: {{ count: 2 }} }} }}\n")
        free = [monitor_get(8090 + n, "/healthz")[0] == 0 for n in range(4)]
        with local_cluster(stoa, "d", "--config", "sub/stoa.yaml") as up:
            assert f"http://127.0.0.1:{port}/" in up.stdout and len([line for line in up.stdout.splitlines() if re.match(r"  (stoa|curl) ", line)]) == 3, up.stdout
            local = Stoa(bin_dir, cwd=folder, STOA_SERVER=f"http://127.0.0.1:{port}")
            for n in range(5):
                local.out("publish", "few:x", n)
            assert local.out("log", "--raw", "few:x") == "3\n4\n"  # the file, with a relative path, reached every process
            running = {p["name"]: p for p in json.loads((folder / "d/run/cluster.json").read_text())["processes"]}
            assert sorted(running) == ["gateway-0", "router-0", "shard-0", "shard-1"], running
            if all(free):
                wanted = {"gateway-0": 8090, "router-0": 8091, "shard-0": 8092, "shard-1": 8093}
                assert {name: p["monitor"] for name, p in running.items()} == {name: f"127.0.0.1:{at}" for name, at in wanted.items()}, running
            again = stoa("up", "-d", "--data", "d", status=1)
            assert "already running" in again.stderr and "stoa down" in again.stderr, again.stderr
            assert "stoa-shard" in local.out("logs", "--data", "d") or "shard.ready" in local.out("logs", "--data", "d")
            with ending(local.background("logs", "-f", "--data", "d")) as logs:
                assert logs.stdout.readline()
            for name in ("router-0", "shard-0", "gateway-0"):
                os.kill(running[name]["pid"], signal.SIGKILL)
            wait_until("everything is back", lambda: all(monitor_get(int(p["monitor"].split(":")[1]), "/readyz")[0] == 200 for p in running.values()))
            local.out("publish", "few:x", "5")
            # reload: what changed is told, a bad file changes nothing
            def origin():
                return http_request(("127.0.0.1", port), "GET", "/log?key=a", headers={"Origin": "https://app.example"})[0]
            assert origin() == 403
            text = config.read_text()
            assert local.out("reload", "--data", "d") == "nothing changed\n"
            config.write_text(text.replace("gateway: {", "gateway: { origins: ['https://app.example'],"))
            assert local.out("reload", "--data", "d") == "gateway.origins\n"
            assert origin() == 200
            config.write_text(text + "log: { levl: debug }\n")
            ran = local("reload", "--data", "d", status=1)
            assert 'sub/stoa.yaml:3: log.levl: unknown field, did you mean "level"?' in ran.stderr, ran.stderr
            assert origin() == 200
            config.write_text(text.replace("count: 2", "count: 1"))
            assert local.out("reload", "--data", "d") == "gateway.origins\ntypes.few.retention.count\n"
            assert origin() == 403
            assert local.out("log", "--raw", "few:x") == "5\n"
        assert not subprocess.run(["pgrep", "-f", f"{folder}/d"], capture_output=True, text=True).stdout
        # more of each kind; another number of shards is refused, since the data is spread already
        port = free_port(2)
        while port > 65000:
            port = free_port(2)
        ran = stoa("up", "-d", "--data", "d", "--shards", "3", "--listen", f"127.0.0.1:{port}", status=1)
        assert "--shards 2" in ran.stderr, ran.stderr
        with local_cluster(stoa, "e", "--shards", "3", "--routers", "2", "--gateways", "2", "--listen", f"127.0.0.1:{port}") as up:
            assert "2 routers, 3 shards, 2 gateways" in up.stdout, up.stdout
            def links():  # ready is a gateway with one router; it goes on connecting
                found = json.loads(http_request(("127.0.0.1", port + 1), "GET", "/status")[2])["processes"]
                return len(found) == 7 and all(p["up"] for p in found)
            wait_until("the second gateway sees all", links)
        # what cannot start says why, at once
        ran = stoa("up", "-d", "--data", "f", "--listen", f"0.0.0.0:{port}", status=1)
        assert "auth" in ran.stderr and "mode: none" in ran.stderr, ran.stderr
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            ran = stoa("up", "-d", "--data", "f", "--listen", "127.0.0.1:%d" % taken.getsockname()[1], status=1)
            assert "in use" in ran.stderr and "--listen" in ran.stderr, ran.stderr
        config.write_text("gateway: { listne: 127.0.0.1:1 }\n")
        ran = stoa("up", "--data", "f", "--config", "sub/stoa.yaml", status=1)
        assert 'sub/stoa.yaml:1: gateway.listne: unknown field, did you mean "listen"?' in ran.stderr, ran.stderr
        # in the foreground, ended by Ctrl-C
        with ending(stoa.background("up", "--data", "g", "--listen", f"127.0.0.1:{port}")) as up:
            while "Ctrl-C" not in up.stdout.readline():
                assert up.poll() is None
            up.send_signal(signal.SIGINT)
            assert up.wait(timeout=60) == 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_upload_demo(bin_dir):
    """examples/upload: the events of an upload have the shapes that Uploadista's clients know."""
    demo = pathlib.Path(bin_dir).resolve() / "stoa-upload"
    if not demo.exists():
        return "not built"
    with Cluster(bin_dir) as c:
        port = free_port()
        service = subprocess.Popen([demo, "--listen", f"127.0.0.1:{port}", "--router", c.publish_endpoints[0], "--cluster", "test",
                                    "--directory", c.dir / "uploads"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with ending_service(service):
            base = ("127.0.0.1", port)
            wait_until("the service answers", lambda: answers(base))
            status, _, body = http_request(base, "POST", "/uploads?name=a%20file.bin&size=300000")
            assert status == 201, body
            ident = json.loads(body)["id"]
            stream = EventStream(c.base, f"/events?key={ident}&replay=all")
            connection = http.client.HTTPConnection(*base, timeout=20)
            connection.putrequest("PUT", f"/uploads/{ident}")
            connection.putheader("Content-Length", "300000")
            connection.endheaders()
            connection.send(b"x" * 100000)
            kinds, offsets = [], []
            while "upload-complete" not in kinds:
                _, number, text = stream.next()
                event = json.loads(text)
                assert set(event) == {"type", "payload", "timestamp"} and event["type"] == "upload_event", event
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["timestamp"]), event
                assert set(event["payload"]) <= {"type", "data", "flow"}, event
                kind, data = event["payload"]["type"], event["payload"]["data"]
                kinds.append(kind)
                assert data["id"] == ident and number, event
                if kind == "upload-progress":
                    assert set(data) == {"id", "progress", "total"} and data["total"] == 300000, event
                    offsets.append(data["progress"])
                    if len(offsets) == 1:
                        connection.send(b"x" * 200000)  # the second part only after the first was told
                else:
                    assert isinstance(data["offset"], int) and {"id", "type"} <= set(data["storage"]) and data["size"] == 300000, event
            assert kinds[0] == "upload-started" and kinds[-1] == "upload-complete", kinds
            assert offsets == sorted(offsets) and 0 < offsets[0] <= 100000, offsets
            assert connection.getresponse().status in (200, 204)
            log = json.loads(http_request(c.base, "GET", f"/log?key={ident}&after=0")[2])["events"]
            assert {e.get("conflate") for e in log if e["data"]["payload"]["type"] == "upload-progress"} == {log[1]["conflate"]}, log
            late = WebSocket(c.base, f"/events?uploadId={ident}&replay=all")  # opened late: the truth, without the steps
            seen = [json.loads(late.recv())["payload"]["type"] for _ in range(3)]
            assert seen == ["upload-started", "upload-progress", "upload-complete"], seen


def answers(base):
    try:
        return http_request(base, "GET", "/uploads/health")[0] == 200
    except OSError:
        return False


@contextlib.contextmanager
def ending_service(child):
    try:
        yield child
        child.terminate()
        assert child.wait(timeout=30) == 0
    finally:
        child.kill()
        child.wait()
