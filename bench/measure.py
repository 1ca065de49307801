"""What every measurement shares: a system under load, the generator's call, the disk, the machine, rounds, tables."""
import json
import os
import pathlib
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "process"))
sys.dont_write_bytecode = True
from cluster import Cluster  # noqa: E402

BIN = ROOT / "build" / "bin"


def bin_set(path):
    """Measures the programs of this folder; none is built then."""
    global BIN
    BIN = path.resolve()


def tool(name):
    return str(BIN / name)


def port_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


class Server:
    """One system under load: pids to account for, subscriber and publisher arguments of wsload."""
    name = ""
    scenarios = []  # those that it takes part in

    def start(self):
        raise NotImplementedError

    def stop(self):
        for child in self.children:
            child.terminate()
        for child in self.children:
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def spawn(self, *command, **more):
        child = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self.children.append(child)
        return child

    @property
    def pids(self):
        return [child.pid for child in self.children]

    def __enter__(self):
        self.children = []
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="stoa-bench-", dir=os.environ.get("STOA_BENCH_DIR")))
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def load(self, *words, pids=None, timeout=180):
        command = [tool("wsload"), "--pid", ",".join(map(str, pids or self.pids)), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines:
            raise RuntimeError(f"{self.name}: {done.stderr.strip()[-400:]}")
        return json.loads(lines[-1])


class Stoa(Server):
    """One router, shard and gateway; `extra` goes into their configuration."""
    name = "stoa"
    extra = ""

    def start(self):
        self.cluster = Cluster(BIN, shards=1, extra=self.extra)
        self.cluster.__enter__()
        self.base = self.cluster.base

    def stop(self):
        self.cluster.__exit__(None, None, None)

    @property
    def pids(self):
        return [process.child.pid for process in self.cluster.all]


def faults(r):
    bad = {k: r[k] for k in ("lost", "dup", "out_of_order", "rooms_order_differs", "bad_status", "conn_failed", "conn_closed") if r.get(k)}
    return {"faults": bad} if bad else {}


def disk_sync_us():
    """Median of the disk's fdatasync at the pace of the latency scenario: an idle machine's disk answers later."""
    with tempfile.TemporaryFile(dir=os.environ.get("STOA_BENCH_DIR")) as f:
        f.write(b"x" * (1 << 20))
        f.flush()
        os.fsync(f.fileno())
        times = []
        for n in range(200):
            time.sleep(0.002)
            os.pwrite(f.fileno(), b"%4096d" % n, 4096 * (n % 256))
            started = time.perf_counter_ns()
            os.fdatasync(f.fileno())
            times.append((time.perf_counter_ns() - started) / 1000)
    return statistics.median(times)


def medians(runs):
    merged = {}
    for run in runs:
        for name, value in run.items():
            merged.setdefault(name, []).append(value)
    result = {}
    for name, values in merged.items():
        result[name] = values if isinstance(values[0], dict) else statistics.median(values)
    return result


def figure(value):
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    if value >= 1e4:
        return f"{value / 1e3:.0f} k"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) // (1 << 20)
    return f"{os.cpu_count()} cores ({cpu.group(1) if cpu else platform.machine()}), {memory} GiB, Linux {platform.release()}"


def figures_write(begin, end, conditions, text):
    """Puts them between two marks of docs/performance.md."""
    page = ROOT / "docs" / "performance.md"
    head, _, rest = page.read_text().partition(begin)
    _, _, tail = rest.partition(end)
    page.write_text(f"{head}{begin}\n{conditions}\n\n{text}\n{end}{tail}")


def rounds(subject, options):
    """All systems in turn, scenario by scenario, as often as asked: {system: {scenario: medians}}, disk's medians."""
    runs, sync = {}, []
    for number in range(options.rounds):
        for scenario in options.only:
            for system in subject.systems(options.peers):
                if scenario not in system.scenarios:
                    continue
                sync.append(disk_sync_us())
                try:
                    with system() as server:
                        result = subject.SCENARIOS[scenario](server, options)
                except (RuntimeError, AssertionError, OSError, subprocess.SubprocessError) as problem:
                    print(f"round {number + 1} {scenario} {system.name}: {problem}", file=sys.stderr)
                    continue
                runs.setdefault(system.name, {}).setdefault(scenario, []).append(result)
                print(f"round {number + 1} {scenario:8} {system.name:20} " + ", ".join(f"{k} {figure(v)}" for k, v in result.items()), flush=True)
    return {name: {scenario: medians(list_of) for scenario, list_of in by.items()} for name, by in runs.items()}, statistics.median(sync)


def table(subject, results, options, sync):
    lines = ["| Scenario | System | Figures |\n|---|---|---|"]
    for scenario in options.only:
        for name, by_scenario in results.items():
            if scenario in by_scenario:
                words = ", ".join(f"{k} {figure(v)}" for k, v in by_scenario[scenario].items())
                lines.append(f"| {scenario} | {name} | {words} |")
    lines.append("\n| Target | Reached | |\n|---|---|---|")

    def of(name, scenario, key):
        return results.get(name, {}).get(scenario, {}).get(key)
    for text, value, good in subject.targets(of, sync):
        lines.append(f"| {text} | {figure(value)} | {'yes' if good else '**no**'} |")
    return "\n".join(lines)
