"""Hosts in network namespaces, joined by a switch that cuts, loses and delays; removed whatever happens.

Each host has a namespace and an address; the switch (stoa-chaos-switch) has one of its own. The test itself moves
into the last host, from where its clients reach the others. All names have the pid in them.
"""
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

CLONE_NEWNET = 0x40000000
NETNS = pathlib.Path("/run/netns")
CUT = 1000000


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True).stdout


class Guardian:
    """A child that cleans up when this process ends, however it ends: it waits for the end of a pipe."""

    def __init__(self, prefix, directory):
        self.prefix, self.directory = prefix, directory
        reader, self.writer = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(reader)
            return
        try:
            os.close(self.writer)
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            os.read(reader, 1)
            self.clean(os.getppid())
        finally:
            os._exit(0)

    def clean(self, test):
        spaces = [path.name for path in NETNS.glob(f"{self.prefix}-*")]
        for _ in range(100):
            pids = [int(pid) for space in spaces for pid in ip("netns", "pids", space, check=False).split() if int(pid) != test]
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if not pids:
                break
            time.sleep(0.05)
        for space in spaces:
            ip("netns", "del", space, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def forget(self):
        """In a child of the test: what it keeps open would hide the test's end."""
        os.close(self.writer)

    def end(self):
        os.close(self.writer)
        os.waitpid(self.pid, 0)


class Hosts:
    """Hosts(bin, ["router-0", ...]): `with` makes them, and a last one called "clients"."""

    def __init__(self, bin_dir, names):
        self.names = [*names, "clients"]
        self.prefix = f"stoa{os.getpid()}"
        self.switch_binary = pathlib.Path(bin_dir) / "stoa-chaos-switch"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="stoa-chaos-"))
        self.switch, self.ways = None, {}

    def __enter__(self):
        self.guardian = Guardian(self.prefix, self.dir)
        try:
            self.make()
        except BaseException:
            self.guardian.end()
            raise
        return self

    def __exit__(self, *_):
        self.guardian.end()

    def make(self):
        space = f"{self.prefix}-switch"
        ip("netns", "add", space)
        for n, name in enumerate(self.names, 1):
            host = self.space(name)
            ip("netns", "add", host)
            ip("-n", space, "link", "add", f"p{n}", "type", "veth", "peer", "name", "eth0", "address", f"02:00:00:00:00:{n:02x}", "netns", host)
            ip("-n", space, "link", "set", f"p{n}", "up")
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
        self.switch = subprocess.Popen([*self.enter("switch"), self.switch_binary, *(f"p{n}" for n in range(1, len(self.names) + 1))],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        libc = ctypes.CDLL(None, use_errno=True)
        with open(NETNS / self.space("clients"), "rb") as file:
            if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        self.clear()

    def space(self, name):
        return f"{self.prefix}-{name}"

    def number(self, name):
        return self.names.index(name) + 1

    def address(self, name):
        return f"10.77.0.{self.number(name)}"

    def enter(self, name):
        """Words before a command that runs on a host; the pid stays the command's."""
        return ["nsenter", f"--net={NETNS / self.space(name)}"]

    def clear(self):
        self.ways.clear()
        self.order("set 0 0 0 0 0")

    def way(self, source, target, owner, loss=0, delay_us=0, jitter_us=0):
        """From a host to a host; `None`: all. The faults of several owners on one way add up to the worst of each."""
        for a in [source] if source else self.names:
            for b in [target] if target else self.names:
                faults = self.ways.setdefault((a, b), {})
                faults[owner] = (loss, delay_us, jitter_us)
                self.apply(a, b, faults)

    def heal(self, owner):
        for (a, b), faults in self.ways.items():
            if faults.pop(owner, None):
                self.apply(a, b, faults)

    def apply(self, a, b, faults):
        worst = [max((fault[n] for fault in faults.values()), default=0) for n in range(3)]
        self.order(f"set {self.number(a)} {self.number(b)} {worst[0]} {worst[1]} {worst[2]}")

    def order(self, line):
        self.switch.stdin.write(line + "\n")
        self.switch.stdin.flush()
        answer = self.switch.stdout.readline().strip()
        assert answer == "ok", f"the switch to {line!r}: {answer!r}"
