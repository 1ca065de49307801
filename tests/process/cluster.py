"""A cluster of real processes in a temporary directory: started, killed, restarted by tests.

Every process is a child of the test and dies with it. Readiness is asked of the monitor listener, so nothing
waits a fixed time.
"""
import http.client
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

SANITIZED = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1", "LSAN_OPTIONS": "exitcode=66"}


RESERVATIONS = []


def reserve_port(port):
    """Whether it is ours, until this process ends: suites that run side by side ask for the same name."""
    name = socket.socket(socket.AF_UNIX)
    with socket.socket() as s:
        try:
            name.bind(f"\0stoa-test-port-{port}")
            s.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            return False
    RESERVATIONS.append(name)
    return True


def free_port(count=1):
    """The first of so many, below the range from which the kernel takes ports for outgoing connections: one of
    those could come in between."""
    low = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(max(1024, low - 20000), low - count)
        if all(reserve_port(port + n) for n in range(count)):
            return port


def wait_until(what, condition, deadline=30.0, pause=0.01):
    """Asks until the condition holds (its value is returned); fails by name after the deadline."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(pause)


def monitor_get(port, path):
    """(status, text) of a monitor listener, or (0, reason) when nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()


class Process:
    def __init__(self, cluster, name, command, monitor):
        self.cluster, self.name, self.command, self.monitor = cluster, name, command, monitor
        self.child, self.env = None, {}
        self.log_path = cluster.dir / f"{name}.log"

    def start(self):
        log = open(self.log_path, "ab")
        self.child = subprocess.Popen([str(word) for word in self.command], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                      env={**os.environ, **SANITIZED, **self.env}, cwd=self.cluster.dir)
        log.close()
        return self

    def ready(self, deadline=60.0):
        def asked():
            if self.child.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.child.returncode}:\n{self.log_tail()}")
            return monitor_get(self.monitor, "/readyz")[0] == 200
        wait_until(f"{self.name} ready\n{self.log_tail()}", asked, deadline)
        return self

    def kill(self, number=signal.SIGKILL):
        self.child.send_signal(number)
        self.child.wait(timeout=60)
        return self.child.returncode

    def stop(self, deadline=60):
        """SIGTERM and the exit status."""
        if self.child is None or self.child.poll() is not None:
            return self.child.returncode if self.child else 0
        self.child.terminate()
        return self.child.wait(timeout=deadline)

    def metric(self, name):
        """Sum of a metric's samples (all labels)."""
        total = 0.0
        for line in monitor_get(self.monitor, "/metrics")[1].splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                total += float(line.rsplit(" ", 1)[1])
        return total

    def rss_kib(self):
        for line in pathlib.Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def log_tail(self, lines=15):
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


class Cluster:
    """Cluster(bin, shards=2): `with` starts it; gateways[i].base is (host, port) for wire.py."""

    def __init__(self, bin_dir, shards=1, routers=1, gateways=1, extra="", tcp=False):
        self.bin = pathlib.Path(bin_dir).resolve()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="stoa-test-"))
        (self.dir / "run").mkdir(mode=0o700)
        if tcp:
            def endpoint(_):
                return f"127.0.0.1:{free_port(2)}"
        else:
            def endpoint(name):
                return f"ipc://{self.dir}/run/{name}"
        router_at = [endpoint(f"router-{i}") for i in range(routers)]
        shard_at = [endpoint(f"shard-{i}") for i in range(shards)]
        self.publish_endpoints = [at if "://" in at else f"tcp://{at}" for at in router_at]
        self.config = self.dir / "stoa.yaml"
        quoted = ", ".join
        self.config.write_text("cluster:\n  name: test\n"
                               f"  routers: [{quoted(repr(at) for at in router_at)}]\n"
                               f"  shards: [{quoted(repr(at) for at in shard_at)}]\n" + extra)
        self.shards = [self._process("shard", i, "--data", self.dir / f"shard-{i}", "--listen", at) for i, at in enumerate(shard_at)]
        self.routers = [self._process("router", i) for i in range(routers)]
        self.gateways = []
        for i in range(gateways):
            port = free_port()
            gateway = self._process("gateway", i, "--listen", f"127.0.0.1:{port}")
            gateway.base = ("127.0.0.1", port)
            self.gateways.append(gateway)

    def _process(self, role, index, *words):
        monitor = free_port()
        command = [self.bin / f"stoa-{role}", "--config", self.config, "--index", index, "--monitor", f"127.0.0.1:{monitor}", *words]
        return Process(self, f"{role}-{index}", command, monitor)

    @property
    def all(self):
        return [*self.shards, *self.routers, *self.gateways]

    @property
    def base(self):
        return self.gateways[0].base

    def __enter__(self):
        try:
            for process in self.all:
                process.start()
            for process in self.all:
                process.ready()
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def __exit__(self, kind, *_):
        problems = []
        for process in [*self.gateways, *self.routers, *self.shards]:
            if process.child is None:
                continue
            try:
                status = process.stop() if kind is None else process.kill() if process.child.poll() is None else process.child.returncode
                if kind is None and status not in (0, -signal.SIGKILL):
                    problems.append(f"{process.name} ended with {status}:\n{process.log_tail(40)}")
            except subprocess.TimeoutExpired:
                process.kill()
                problems.append(f"{process.name} did not end within 60 s of SIGTERM:\n{process.log_tail()}")
        if kind is not None:
            for process in self.all:
                print(f"--- {process.name}\n{process.log_tail(12)}", flush=True)
        shutil.rmtree(self.dir, ignore_errors=True)
        if problems:
            raise AssertionError("\n".join(problems))
