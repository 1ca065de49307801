"""The cluster under attack: every process on a host of its own, started again when it ends."""
import pathlib
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "process"))
import http.client

from cluster import Process, wait_until
from rooms import LUA

REST_S = 1.0  # of a process that ended by itself
ROUTER_PORT, SHARD_PORT, GATEWAY_PORT, MONITOR_PORT = 7100, 7200, 8080, 8090
CONFIG = """cluster:
  name: chaos
  routers: [{routers}]
  shards: [{shards}]
auth: {{ mode: none }}
types:
  events: {{ retention: {{ age: 1d, count: 1000000, bytes: 1GiB }} }}
  tally: {{ handler: {tally} }}
"""


class Member(Process):
    """One process. Who kills it holds `lock`; the supervisor starts it again `rest` seconds after its end."""

    def __init__(self, cluster, name, command):
        super().__init__(cluster, name, command, MONITOR_PORT)
        self.address = cluster.hosts.address(name)
        self.lock = threading.RLock()
        self.back_at = None  # when it is to be started again; None: it runs

    def asked(self, path):
        connection = http.client.HTTPConnection(self.address, MONITOR_PORT, timeout=2)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def is_ready(self):
        return self.asked("/readyz")[0] == 200

    def killed(self, rest):
        with self.lock:
            if self.child.poll() is None:
                self.child.send_signal(signal.SIGKILL)
                self.child.wait()
            self.cluster.history.write("crash", who=self.name)
            self.back_at = time.monotonic() + rest

    def signal(self, number):
        with self.lock:
            if self.child.poll() is None:
                self.child.send_signal(number)

    def back(self):
        with self.lock:
            self.start()
            self.back_at = None
            self.cluster.history.write("restart", who=self.name)


class Cluster:
    """Cluster(hosts, bin, history): 2 routers, 3 shards, 2 gateways over tcp. `problems`: processes that ended alone."""

    def __init__(self, hosts, bin_dir, history, routers, shards, gateways):
        self.hosts, self.dir, self.history, self.problems = hosts, hosts.dir, history, []
        self.bin = pathlib.Path(bin_dir).resolve()
        self.config = self.dir / "stoa.yaml"
        self.router_at = [f"{hosts.address(name)}:{ROUTER_PORT}" for name in routers]
        self.shard_at = [f"{hosts.address(name)}:{SHARD_PORT}" for name in shards]
        (self.dir / "tally.lua").write_text(LUA)
        self.config.write_text(CONFIG.format(tally=self.dir / "tally.lua", routers=", ".join(map(repr, self.router_at)), shards=", ".join(map(repr, self.shard_at))))
        self.shards = [self.member(name, n, "--data", self.dir / name, "--listen", self.shard_at[n]) for n, name in enumerate(shards)]
        self.routers = [self.member(name, n) for n, name in enumerate(routers)]
        self.gateways = [self.member(name, n, "--listen", f"{hosts.address(name)}:{GATEWAY_PORT}") for n, name in enumerate(gateways)]
        self.bases = [(gateway.address, GATEWAY_PORT) for gateway in self.gateways]
        self.publish_at = ",".join(f"tcp://{at}" for at in self.router_at)
        self.all = [*self.shards, *self.routers, *self.gateways]
        self.ended = threading.Event()
        self.supervisor = threading.Thread(target=self.supervise, daemon=True)

    def member(self, name, index, *words):
        command = [*self.hosts.enter(name), self.bin / f"stoa-{name.split('-')[0]}", "--config", self.config, "--index", index,
                   "--monitor", f"{self.hosts.address(name)}:{MONITOR_PORT}", *words]
        return Member(self, name, command)

    def start(self):
        for member in self.all:
            member.start()
        self.supervisor.start()
        self.wait_ready()

    def wait_ready(self, deadline=60):
        for member in self.all:
            wait_until(f"{member.name} ready: {member.asked('/readyz')}\n{member.log_tail()}", member.is_ready, deadline)

    def supervise(self):
        while not self.ended.wait(0.02):
            for member in self.all:
                with member.lock:
                    if member.back_at is None and member.child.poll() is not None:
                        self.problems.append(f"{member.name} ended with {member.child.returncode}:\n{member.log_tail(12)}")
                        member.killed(REST_S)
                    if member.back_at is not None and time.monotonic() >= member.back_at:
                        member.back()

    def roll(self):
        """Every process is asked to end, one after the other, each when the one before is ready again."""
        for member in self.all:
            with member.lock:
                status = member.stop(deadline=90)
                if status != 0:
                    self.problems.append(f"{member.name} ended with {status} on SIGTERM:\n{member.log_tail(30)}")
                self.history.write("crash", who=member.name)
                member.back()
            wait_until(f"{member.name} ready after SIGTERM", member.is_ready, 60)

    def leave_dead(self):
        """Whoever ends from now on stays away: else the supervisor would start what the guardian kills."""
        self.ended.set()
        if self.supervisor.is_alive():
            self.supervisor.join()

    def end(self):
        """SIGTERM to all at last: each must leave with 0."""
        self.leave_dead()
        for member in reversed(self.all):
            if member.stop(deadline=90) != 0:
                self.problems.append(f"{member.name} ended with {member.child.returncode} at the end:\n{member.log_tail(30)}")
