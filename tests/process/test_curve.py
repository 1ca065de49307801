"""CURVE over tcp, with real processes: who gets in, who does not, what they are told, and that no secret shows."""
import json
import os
import pathlib
import shutil
import stat
import subprocess
import tempfile

from cluster import Cluster, Process, free_port, monitor_get, wait_until
from wire import WebSocket, http_request


def stoa_of(bin_dir):
    return str(pathlib.Path(bin_dir).resolve() / "stoa")


def run(bin_dir, *words, config=None, cwd=None, timeout=60, **more):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STOA_")}
    if config is not None:
        environment["STOA_CONFIG"] = str(config)
    return subprocess.run([stoa_of(bin_dir), *map(str, words)], env=environment, cwd=cwd, capture_output=True, text=True,
                          timeout=timeout, **more)


def keygen(bin_dir, path):
    """(public, secret) of a pair whose secret key is now in the file."""
    made = run(bin_dir, "keygen", "--json", path)
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    secret = path.read_text().strip()
    assert secret not in made.stdout + made.stderr, "the secret was printed"
    return told["public"], secret


class Directory:
    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="stoa-curve-"))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def curved(bin_dir, keys, extra="", **more):
    """A tcp cluster with the key file in `keys`."""
    text = f"  curve: {{ secret_file: '{keys / 'curve.key'}', required: true{extra} }}\n"
    return Cluster(bin_dir, tcp=True, extra=text, **more)


def config_like(c, path, curve):
    """The cluster's configuration with another curve section."""
    lines = [line for line in c.config.read_text().splitlines() if not line.startswith("  curve:")]
    path.write_text("\n".join(lines) + "\n" + (f"  curve: {{ {curve} }}\n" if curve else ""))
    return path


def publish(base, key, payload):
    status, _, answer = http_request(base, "POST", f"/publish?key={key}", json.dumps(payload).encode())
    assert status == 200, (status, answer)


def no_secret_shows(c, *secrets):
    for process in c.all:
        log = process.log_path.read_text(errors="replace")
        metrics = monitor_get(process.monitor, "/metrics")[1]
        for secret in secrets:
            assert secret not in log, f"{process.name}: a secret is in the log"
            assert secret not in metrics, f"{process.name}: a secret is in the metrics"
    status = http_request(c.base, "GET", "/status")[2].decode()
    for secret in secrets:
        assert secret not in status


def handshakes_refused(process):
    return process.metric("stoa_link_refused_handshakes_total")


def test_one_shared_key(bin_dir):
    with Directory() as keys:
        public, secret = keygen(bin_dir, keys / "curve.key")
        with curved(bin_dir, keys, shards=2, gateways=2) as c:
            reader = WebSocket(c.gateways[1].base, "/events?key=upload:a")
            publish(c.base, "upload:a", 1)
            through_gateway = run(bin_dir, "-s", f"http://{c.base[0]}:{c.base[1]}", "publish", "upload:a", "2", config=c.config)
            assert through_gateway.returncode == 0, through_gateway.stderr
            through_router = run(bin_dir, "--router", c.publish_endpoints[0], "publish", "upload:a", "3", config=c.config)
            assert through_router.returncode == 0 and through_router.stdout.strip(), through_router.stderr
            assert [reader.recv_json() for _ in range(3)] == [1, 2, 3]
            load = run(bin_dir, "--router", c.publish_endpoints[0], "bench", "publish", "--seconds", "1", config=c.config)
            assert load.returncode == 0, load.stderr
            shown = run(bin_dir, "config", "show", config=c.config)
            assert shown.returncode == 0 and public in shown.stdout and "***" in shown.stdout, shown.stdout
            assert secret not in shown.stdout + load.stdout + load.stderr + through_router.stdout
            assert secret not in run(bin_dir, "--json", "config", "show", config=c.config).stdout
            for shard in c.shards:
                shard.kill()
                shard.start()
            publish(c.base, "upload:a", 4)
            assert reader.recv_json() == 4
            no_secret_shows(c, secret)
            assert not any("link.key_refused" in p.log_path.read_text() for p in c.all)


def test_strangers_are_refused(bin_dir):
    """A publisher and a gateway without a key, with a foreign key, with a wrong server key; the rest goes on."""
    with Directory() as keys:
        public, secret = keygen(bin_dir, keys / "curve.key")
        foreign_public, foreign_secret = keygen(bin_dir, keys / "foreign.key")
        foreign = f"secret_file: '{keys / 'foreign.key'}'"
        with curved(bin_dir, keys) as c:
            reader = WebSocket(c.base, "/events?key=k")
            router = c.routers[0]

            def by_router(config):
                """Nothing is sent, so the outcome is known: an error, with the reason on stderr."""
                refused_before, links_before = handshakes_refused(router), router.metric("stoa_links")
                done = run(bin_dir, "--router", c.publish_endpoints[0], "--timeout", "4", "publish", "k", '"stranger"', config=config)
                assert done.returncode != 0 and done.stdout == "", (done.returncode, done.stdout)
                wait_until("the refusal is counted", lambda: handshakes_refused(router) > refused_before)
                assert router.metric("stoa_links") == links_before, "a stranger's link came up"
                return done.stderr

            clear = by_router(config_like(c, c.dir / "clear.yaml", ""))
            assert "cluster.curve.secret_file" in clear, clear
            assert "link.handshake_refused" in router.log_path.read_text()

            unlisted = by_router(config_like(c, c.dir / "foreign.yaml", f"{foreign}, server: '{public}'"))
            assert "does not allow our key" in unlisted and "cluster.curve.allowed" in unlisted, unlisted
            told = router.log_path.read_text()
            assert "link.key_refused" in told and foreign_public in told and "cluster.curve.allowed" in told, told

            wrong_server = by_router(config_like(c, c.dir / "server.yaml", foreign))
            assert "cluster.curve.server must be the router's public key" in wrong_server, wrong_server
            wait_until("the router says which key does not fit",
                       lambda: "cluster.curve.server must be the public key" in router.log_path.read_text())
            for text in (clear, unlisted, wrong_server):
                assert secret not in text and foreign_secret not in text

            monitor = free_port()
            command = [c.bin / "stoa-gateway", "--config", c.dir / "foreign.yaml", "--index", 7, "--monitor", f"127.0.0.1:{monitor}",
                       "--listen", f"127.0.0.1:{free_port()}"]
            stranger = Process(c, "stranger", command, monitor)
            shard_refused = handshakes_refused(c.shards[0])
            stranger.start()
            try:
                wait_until("the shard refuses the gateway", lambda: handshakes_refused(c.shards[0]) > shard_refused)
                wait_until("the gateway says why", lambda: "does not allow our key" in stranger.log_path.read_text())
                assert monitor_get(monitor, "/readyz")[0] != 200
                assert "link.up" not in stranger.log_path.read_text()
            finally:
                stranger.kill()
            publish(c.base, "k", "friend")
            assert reader.recv_json() == "friend"
            assert secret not in stranger.log_path.read_text() and foreign_secret not in stranger.log_path.read_text()
            no_secret_shows(c, secret, foreign_secret)


def test_a_listed_key_gets_in(bin_dir):
    """A publisher with a pair of its own: the cluster lists its public key, it names the cluster's."""
    with Directory() as keys:
        public, secret = keygen(bin_dir, keys / "curve.key")
        own_public, own_secret = keygen(bin_dir, keys / "own.key")
        with curved(bin_dir, keys, f", allowed: ['{own_public}']") as c:
            reader = WebSocket(c.base, "/events?key=k")
            config = config_like(c, c.dir / "own.yaml", f"secret_file: '{keys / 'own.key'}', server: '{public}'")
            done = run(bin_dir, "--router", c.publish_endpoints[0], "publish", "k", '"listed"', config=config)
            assert done.returncode == 0, done.stderr
            assert reader.recv_json() == "listed"
            no_secret_shows(c, secret, own_secret)


def test_roles_have_their_doors(bin_dir):
    """The right key does not make a publisher a gateway: at the gateways' door it is refused by its role."""
    with Directory() as keys:
        keygen(bin_dir, keys / "curve.key")
        with curved(bin_dir, keys) as c:
            host, port = c.publish_endpoints[0].removeprefix("tcp://").rsplit(":", 1)
            done = run(bin_dir, "--router", f"tcp://{host}:{int(port) + 1}", "--timeout", "3", "publish", "k", "1", config=c.config)
            assert done.returncode != 0 and "role not admitted here" in done.stderr, (done.stdout, done.stderr)
            assert c.routers[0].metric("stoa_link_refused_total") > 0
            assert "role not admitted here" in c.routers[0].log_path.read_text()
            publish(c.base, "k", 1)


def peers(*entries):
    return "  peers:\n" + "".join("    - { " + ", ".join(f"{k}: '{v}'" for k, v in e.items()) + " }\n" for e in entries)


class Other:
    """A process beside the cluster, with another key's configuration; killed at the end."""

    def __init__(self, c, role, config, *words):
        self.monitor = free_port()
        command = [c.bin / f"stoa-{role}", "--config", config, "--monitor", f"127.0.0.1:{self.monitor}", *words]
        self.process = Process(c, f"other-{role}", command, self.monitor)

    def __enter__(self):
        self.process.log_path.unlink(missing_ok=True)
        return self.process.start()

    def __exit__(self, *_):
        self.process.kill()


def refused_links(process):
    return process.metric("stoa_link_refused_total")


def refusals(process):
    return [line for line in process.log_path.read_text(errors="replace").splitlines() if "link.refused" in line]


def test_a_publishers_key_is_a_publisher(bin_dir):
    """It publishes; as gateway and as router it is refused by everyone it dials, and it is told why."""
    with Directory() as keys:
        public, secret = keygen(bin_dir, keys / "curve.key")
        own_public, own_secret = keygen(bin_dir, keys / "own.key")
        with Cluster(bin_dir, tcp=True, extra=f"  curve: {{ secret_file: '{keys / 'curve.key'}', required: true }}\n"
                     + peers({"key": own_public, "role": "publisher"})) as c:
            router, shard = c.routers[0], c.shards[0]
            config = config_like(c, c.dir / "own.yaml", f"secret_file: '{keys / 'own.key'}', server: '{public}'")
            reader = WebSocket(c.base, "/events?key=k")

            def publishes(text):
                done = run(bin_dir, "--router", c.publish_endpoints[0], "publish", "k", json.dumps(text), config=config)
                assert done.returncode == 0, done.stderr
                assert reader.recv_json() == text

            publishes("as a publisher")
            assert refused_links(router) == refused_links(shard) == 0
            for role, asked, words in (("gateway", (router, shard), ("--listen", f"127.0.0.1:{free_port()}")),
                                       ("router", (shard,), ("--listen", f"127.0.0.1:{free_port(2)}"))):
                before = {p: (refused_links(p), len(refusals(p))) for p in asked}
                with Other(c, role, config, *words) as impostor:
                    for p in asked:
                        wait_until(f"{p.name} refuses the {role}", lambda: refused_links(p) > before[p][0])
                        wait_until("and says so", lambda: len(refusals(p)) > before[p][1])
                        line = refusals(p)[-1]
                        assert role in line and own_public[:8] in line and own_public[:9] not in line and "cluster.peers" in line, line
                    wait_until("the impostor is told", lambda: "cluster.peers of the listening process" in impostor.log_path.read_text())
                    assert "link.up" not in impostor.log_path.read_text()
                    assert monitor_get(impostor.monitor, "/readyz")[0] != 200
                publishes(f"after the {role}")
            at_shard = run(bin_dir, "--router", shard_endpoint(c), "--timeout", "3", "publish", "k", "1", config=config)
            assert at_shard.returncode != 0 and "role not admitted here" in at_shard.stderr, at_shard.stderr
            no_secret_shows(c, secret, own_secret)


def shard_endpoint(c, index=0):
    at = c.shards[index].command[c.shards[index].command.index("--listen") + 1]
    return at if "://" in at else f"tcp://{at}"


def test_a_publishers_key_serves_nobody(bin_dir):
    """On a shard's address a process with a publisher's key gets no events: routers and gateways know the shards' key."""
    with Directory() as keys:
        public, _ = keygen(bin_dir, keys / "curve.key")
        own_public, _ = keygen(bin_dir, keys / "own.key")
        with Cluster(bin_dir, tcp=True, extra=f"  curve: {{ secret_file: '{keys / 'curve.key'}', required: true }}\n"
                     + peers({"key": own_public, "role": "publisher"})) as c:
            publish(c.base, "k", 1)
            config = config_like(c, c.dir / "own.yaml", f"secret_file: '{keys / 'own.key'}', server: '{public}'")
            c.shards[0].kill()
            with Other(c, "shard", config, "--data", c.dir / "impostor", "--listen", shard_endpoint(c)) as impostor:
                for p in (c.routers[0], c.gateways[0]):
                    wait_until(f"{p.name} does not speak to it", lambda: "link.handshake_failed" in p.log_path.read_text())
                assert "link.up" not in impostor.log_path.read_text()
            c.shards[0].start().ready()
            publish(c.base, "k", 2)


def test_a_gateway_with_a_key_and_a_name(bin_dir):
    """A gateway's own pair: it serves under its name, and is refused under another or as a router."""
    with Directory() as keys:
        public, secret = keygen(bin_dir, keys / "curve.key")
        own_public, own_secret = keygen(bin_dir, keys / "own.key")
        with Cluster(bin_dir, tcp=True, extra=f"  curve: {{ secret_file: '{keys / 'curve.key'}', required: true }}\n"
                     + peers({"key": own_public, "role": "gateway", "name": "edge-1"})) as c:
            config = config_like(c, c.dir / "own.yaml", f"secret_file: '{keys / 'own.key'}', server: '{public}'")
            port = free_port()
            with Other(c, "gateway", config, "--listen", f"127.0.0.1:{port}", "--name", "edge-2") as gateway:
                wait_until("the name is refused", lambda: refusals(c.shards[0]) and refusals(c.routers[0]))
                assert "link.up" not in gateway.log_path.read_text()
            with Other(c, "gateway", config, "--listen", f"127.0.0.1:{port}", "--name", "edge-1") as gateway:
                gateway.ready()
                reader = WebSocket(("127.0.0.1", port), "/events?key=k")
                publish(("127.0.0.1", port), "k", 1)
                publish(c.base, "k", 2)
                assert [reader.recv_json() for _ in range(2)] == [1, 2]
            done = run(bin_dir, "--router", c.publish_endpoints[0], "--timeout", "3", "publish", "k", "3", config=config)
            assert done.returncode != 0 and "cluster.peers" in done.stderr, (done.returncode, done.stderr)
            no_secret_shows(c, secret, own_secret)


def test_required_without_a_key(bin_dir):
    """tcp in clear is refused at start, by name; ipc needs no key."""
    with Directory() as d:
        config = d / "stoa.yaml"
        config.write_text("cluster: { name: test, routers: ['127.0.0.1:%d'], shards: ['127.0.0.1:%d'], curve: { required: true } }\n"
                          % (free_port(), free_port()))
        binaries = pathlib.Path(bin_dir).resolve()
        for role in ("shard", "router", "gateway"):
            words = [binaries / f"stoa-{role}", "--config", config, "--monitor", f"127.0.0.1:{free_port()}"]
            if role == "shard":
                words += ["--data", d / "data"]
            if role == "gateway":
                words += ["--listen", f"127.0.0.1:{free_port()}"]
            done = subprocess.run([str(w) for w in words], cwd=d, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1, (role, done.returncode, done.stderr)
            assert "cluster.curve.required" in done.stderr and "cluster.curve.secret_file" in done.stderr, (role, done.stderr)
        noted = run(bin_dir, "config", "check", config=config)
        assert noted.returncode == 0 and "cluster.curve.secret_file" in noted.stderr, noted.stderr
        done = run(bin_dir, "--router", "tcp://127.0.0.1:1", "publish", "k", "1", config=config)
        assert done.returncode == 1 and "cluster.curve.secret_file" in done.stderr, done.stderr
    with Cluster(bin_dir, extra="  curve: { required: true }\n") as c:
        publish(c.base, "k", 1)
        done = run(bin_dir, "--router", c.publish_endpoints[0], "publish", "k", "2", config=c.config)
        assert done.returncode == 0, done.stderr


def test_keygen(bin_dir):
    with Directory() as d:
        made = run(bin_dir, "keygen", "curve.key", cwd=d)
        assert made.returncode == 0, made.stderr
        file = d / "curve.key"
        secret = file.read_text().strip()
        assert len(secret) == 40 and stat.S_IMODE(file.stat().st_mode) == 0o600
        assert secret not in made.stdout + made.stderr
        again = run(bin_dir, "keygen", "curve.key", cwd=d)
        assert again.returncode == 1 and "not overwritten" in again.stderr and file.read_text().strip() == secret, again.stderr
        snippet = d / "stoa.yaml"
        snippet.write_text(made.stdout)
        assert str(file) in made.stdout
        checked = run(bin_dir, "config", "check", config=snippet)
        assert checked.returncode == 0, checked.stderr
        plain = run(bin_dir, "keygen")
        assert plain.returncode == 0 and len(plain.stdout.strip()) == 40, plain.stdout
        assert plain.stdout.strip() not in plain.stderr and "secret_file" in plain.stderr
        file.write_text(plain.stdout)
        assert run(bin_dir, "config", "check", config=snippet).returncode == 0
        nowhere = run(bin_dir, "keygen", d / "no" / "where")
        assert nowhere.returncode == 1 and len(nowhere.stderr.splitlines()) == 1, nowhere.stderr
        assert run(bin_dir, "keygen", "a", "b", cwd=d).returncode == 2


def test_wrong_keys_are_explained(bin_dir):
    """File, line and field; the key itself never."""
    with Directory() as d:
        public, secret = keygen(bin_dir, d / "good.key")
        other, _ = keygen(bin_dir, d / "other.key")
        (d / "short.key").write_text(secret[:-1])
        (d / "odd.key").write_text(secret[:-1] + "~")
        (d / "empty.key").write_text("\n")
        config = d / "stoa.yaml"
        for curve, wanted in (
                ("secret_file: short.key", "cluster.curve.secret_file: {d}/short.key: is not a CURVE key: 39 characters where a key has 40"),
                ("secret_file: odd.key", "cluster.curve.secret_file: {d}/odd.key: is not a CURVE key: 40 characters, but not Z85"),
                ("secret_file: empty.key", "cluster.curve.secret_file: {d}/empty.key: is empty"),
                ("secret_file: absent.key", "cluster.curve.secret_file: {d}/absent.key: No such file or directory"),
                ("secret_file: good.key, server: x", "cluster.curve.server: is not a CURVE key: 1 characters where a key has 40"),
                ("secret_file: good.key, allowed: [x]", "cluster.curve.allowed: is not a CURVE key: 1 characters where a key has 40"),
                (f"secret_file: good.key, public: '{other}'", "cluster.curve.public: is not the public key of cluster.curve.secret"),
                ("secret_key: x", 'cluster.curve.secret_key: unknown field, did you mean "secret"?')):
            config.write_text(f"cluster:\n  curve: {{ {curve} }}\n")
            done = run(bin_dir, "config", "check", config=config)
            assert done.returncode == 1, (curve, done.stdout)
            assert done.stderr.startswith(f"{config}:2: {wanted.format(d=d)}"), (curve, done.stderr)
            assert secret[:20] not in done.stderr + done.stdout
        config.write_text(f"cluster: {{ curve: {{ secret_file: good.key, public: '{public}' }} }}\n")
        assert run(bin_dir, "config", "check", config=config).returncode == 0


def test_local_cluster(bin_dir):
    """stoa up with required: true: over ipc it needs no key, and one does not hurt."""
    for with_key in (False, True):
        with Directory() as d:
            secret = keygen(bin_dir, d / "curve.key")[1] if with_key else None
            config = d / "stoa.yaml"
            config.write_text("cluster: { curve: { required: true%s } }\n" % (", secret_file: curve.key" if with_key else ""))
            base = ("127.0.0.1", free_port())
            data = d / "data"
            up = run(bin_dir, "--config", config, "up", "-d", "--data", data, "--listen", f"{base[0]}:{base[1]}", timeout=120)
            try:
                assert up.returncode == 0, up.stderr + up.stdout
                publish(base, "k", 1)
                done = run(bin_dir, "--router", f"ipc://{data}/run/router-0", "publish", "k", "2", config=config)
                assert done.returncode == 0, done.stderr
                if secret:
                    for file in [*(data / "logs").iterdir(), data / "run" / "cluster.json"]:
                        assert secret not in file.read_text(errors="replace"), file
            finally:
                down = run(bin_dir, "down", "--data", data, timeout=120)
                assert down.returncode == 0, down.stderr
