"""Disks that are full, filled by others, or fail: what publishers are told, what goes on, what comes back by itself."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import tempfile
import time

from cluster import SANITIZED, Cluster, wait_until
from load import Hammer, HttpPublisher, Ledger, check_logs, read_log
from wire import EventStream, WebSocket, http_request

MIB = 1 << 20
WITHIN_S = 120
HOUR_S = 3600
REFUSED_S = 0.5
PACE_S = 0.02


def needed(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, f"this test needs root and `{' '.join(map(str, command))}`, which failed: {done.stderr.strip()}"


@contextlib.contextmanager
def small_disk(kind, mib):
    """A directory on a file system of its own, this large."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="stoa-disk-"))
    at = top / "disk"
    at.mkdir()
    mounted = False
    try:
        if kind == "tmpfs":
            needed(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "stoa-test", at])
        else:
            with open(top / "image", "wb") as image:
                image.truncate(mib * MIB)
            needed(["mkfs.ext4", "-q", "-F", "-m", "0", top / "image"])
            needed(["mount", "-t", "ext4", "-o", "loop", top / "image", at])
        mounted = True
        yield at
    finally:
        if mounted:
            needed(["umount", at])
        shutil.rmtree(top, ignore_errors=True)


def on_disk(c, at):
    """The only shard keeps its data there."""
    command = c.shards[0].command
    command[command.index("--data") + 1] = at / "shard-0"
    return c


def try_publish(base, key, body):
    """(status, headers, answer)"""
    status, headers, text = http_request(base, "POST", f"/publish?key={key}", body)
    return status, headers, json.loads(text)


def payload(n, size):
    return json.dumps({"n": n, "pad": "x" * size}).encode()


def fill(base, keys, size, limit):
    """Publishes until it is refused for longer than a shard pauses after a refusal; what was acknowledged is
    {key: [numbers]}, and the last refusal."""
    stored = {key: [] for key in keys}
    refused_since = None
    for n in range(limit):
        key = keys[n % len(keys)]
        status, headers, answer = try_publish(base, key, payload(n, size))
        if status == 200:
            stored[key].append(n)
            refused_since = None
            continue
        check_refusal((status, headers, answer))
        refused_since = refused_since or time.monotonic()
        if time.monotonic() > refused_since + REFUSED_S:
            return stored, (status, headers, answer)
        time.sleep(PACE_S)
    raise AssertionError(f"the disk took {limit} payloads of {size} bytes")


def check_refusal(refusal):
    status, headers, answer = refusal
    assert status == 503 and answer["error"]["tag"] == "DiskFull" and answer["error"]["message"], refusal
    assert int(headers["retry-after"]) >= 1, headers


def numbers(base, key, may_miss=False):
    return [data["n"] for _, data in read_log(base, key, may_miss)]


def stoa_publish(bin_dir, c, key, body, timeout_s):
    """stoa publish through libstoa, in the background."""
    return subprocess.Popen([pathlib.Path(bin_dir).resolve() / "stoa", "--config", c.config, "--router", c.publish_endpoints[0], "--timeout",
                             str(timeout_s), "publish", key, body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_refused_publish(bin_dir, c, key, tries=10):
    """It says that the disk is full; but whose time is up while a retry is under way can't know (exit code 3)."""
    for _ in range(tries):
        refused = stoa_publish(bin_dir, c, key, payload("never", 100_000), 2)
        out, err = refused.communicate(timeout=60)
        assert refused.returncode in (1, 3) and not out, (refused.returncode, out, err)
        if refused.returncode == 1:
            assert "disk is full" in err, err
            return
    raise AssertionError(f"{tries} publishes to a full disk, and none was told: {err}")


def full_and_freed(bin_dir, kind, reserve, small):
    """Own records and somebody else's file fill the disk; the file goes, and everything goes on."""
    extra = f"shard: {{ disk_reserve: {reserve} }}\n"
    keys = [f"full:{n}" for n in range(4)]
    with small_disk(kind, 64) as at, on_disk(Cluster(bin_dir, extra=extra), at) as c:
        raw = WebSocket(c.base, "/events?key=full:0")
        sse = EventStream(c.base, "/events?key=full:1")
        alien = at / "alien"
        with open(alien, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, 24 * MIB)
        stored, refusal = fill(c.base, keys, 100_000, 1000)
        check_refusal(refusal)
        if small:  # what the file still has inside goes too
            more, refusal = fill(c.base, keys, 1000, 100_000)
            check_refusal(refusal)
            stored = {key: stored[key] + more[key] for key in keys}
        count = sum(map(len, stored.values()))
        assert count > 50, f"full after {count} events"
        for key in keys:
            assert numbers(c.base, key) == stored[key], f"{key}: the log of a full disk"
        late = WebSocket(c.base, "/events?key=full:2&replay=all")
        assert [late.recv_json()["n"] for _ in stored["full:2"]] == stored["full:2"]
        assert [raw.recv_json()["n"] for _ in stored["full:0"]] == stored["full:0"]
        assert [json.loads(sse.next()[2])["n"] for _ in stored["full:1"]] == stored["full:1"]
        check_refused_publish(bin_dir, c, "full:3")
        # A shard that starts on a full disk reads, and is refused to write.
        c.shards[0].kill()
        c.shards[0].start().ready()
        assert numbers(c.base, "full:3") == stored["full:3"]
        status, headers, answer = try_publish(c.base, "full:3", payload(0, 100_000))
        check_refusal((status, headers, answer))
        pid = c.shards[0].child.pid
        waiting = stoa_publish(bin_dir, c, "full:3", payload("waited", 100_000), 60)
        alien.unlink()
        out, err = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, f"a publish that waited for space: {err}"
        stored["full:3"].append("waited")
        wait_until("publishes are taken again", lambda: try_publish(c.base, "full:3", payload("again", 10))[0] == 200, pause=0.1)
        stored["full:3"].append("again")
        for key in keys[:3]:
            status, _, answer = try_publish(c.base, key, payload("after", 50_000))
            assert status == 200, answer
            stored[key].append("after")
        assert raw.recv_json()["n"] == late.recv_json()["n"] == json.loads(sse.next()[2])["n"] == "after"
        for key in keys:
            assert numbers(c.base, key) == stored[key], f"{key}: after the disk was full"
        assert c.shards[0].child.pid == pid and c.shards[0].child.poll() is None, "the shard was restarted"
        c.shards[0].kill()
        c.shards[0].start().ready()
        for key in keys:
            assert numbers(c.base, key) == stored[key], f"{key}: after another start"
        return f"{kind}, reserve {reserve}: full after {count} events"


def test_ext4_down_to_its_reserve(bin_dir):
    return full_and_freed(bin_dir, "ext4", "8MiB", small=False)


def test_ext4_down_to_the_last_block(bin_dir):
    return full_and_freed(bin_dir, "ext4", "0", small=True)


def test_tmpfs_down_to_the_last_block(bin_dir):
    return full_and_freed(bin_dir, "tmpfs", "0", small=True)


class MovableClock:
    """The wall clock of a cluster's processes, to be set before they start; moves ahead while they run."""

    def __init__(self, bin_dir, cluster):
        self.path = cluster.dir / "later"
        self.set(0)
        library = pathlib.Path(bin_dir).resolve() / "libstoa-later.so"
        for process in cluster.all:
            process.env = {"STOA_LATER": str(self.path), "LD_PRELOAD": str(library),
                           "ASAN_OPTIONS": SANITIZED["ASAN_OPTIONS"] + ":verify_asan_link_order=0"}

    def set(self, seconds):
        with open(self.path, "r+b" if self.path.exists() else "wb") as f:
            f.write(struct.pack("=q", seconds))


def test_trims_make_space(bin_dir):
    """A disk filled by its own records: purges are taken, and what may go by time makes space for publishes."""
    keys = [f"full:{n}" for n in range(4)]
    with small_disk("tmpfs", 40) as at:
        cluster = on_disk(Cluster(bin_dir, extra="shard: { disk_reserve: 4MiB }\n"), at)
        clock = MovableClock(bin_dir, cluster)
        with cluster as c:
            stored, refusal = fill(c.base, keys, 100_000, 1000)
            check_refusal(refusal)
            count = sum(map(len, stored.values()))
            first = read_log(c.base, "full:0")[0][0]
            for key in keys[2:]:
                status, _, answer = http_request(c.base, "DELETE", f"/log?key={key}")
                assert status in (200, 204), (status, answer)
                assert not numbers(c.base, key, may_miss=True), f"{key} was purged"
            check_refusal(try_publish(c.base, "full:0", payload("refused", 100_000)))  # ids are remembered for 5 min

            def taken():
                status, _, answer = try_publish(c.base, "full:1", payload("later", 100_000))
                assert status == 200 or answer["error"]["tag"] == "DiskFull", answer
                return status == 200
            clock.set(6 * 60)
            wait_until("purged records made space", taken, pause=0.1)
            stored["full:1"].append("later")
            for key in keys[:2]:
                assert numbers(c.base, key) == stored[key], f"{key}: after others were purged"
            more, refusal = fill(c.base, keys[2:], 100_000, 1000)
            check_refusal(refusal)
            again = sum(map(len, more.values()))
            assert again > count // 4, f"{again} of {count} fitted again"
            clock.set(3 * HOUR_S)
            wait_until("expired records made space", taken, pause=0.1)
            status, _, body = http_request(c.base, "GET", f"/log?key=full:0&after={first}")
            assert status == 200 and json.loads(body)["missed"]["reason"] == "expired", body
            assert numbers(c.base, "full:1", may_miss=True) == ["later"], "events beyond their age"
            return f"full after {count} events, after a purge {again} more"


def fail_calls(process, calls):
    """From now on these system calls of the process fail with EIO."""
    strace = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO",
                               "-p", str(process.child.pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return strace


def until_it_died(process, calls):
    strace = fail_calls(process, calls)
    try:
        return process.child.wait(timeout=60)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{process.name} goes on although {calls} fails") from None
    finally:
        strace.kill()
        strace.communicate()


def test_io_errors_end_the_shard(bin_dir):
    """EIO at the sync, then at writes: the shard ends, stays down until it is told to trust the disk, and has what it acknowledged."""
    events = 6000
    with Cluster(bin_dir, shards=1) as c:
        ledger, deadline = Ledger(), time.monotonic() + WITHIN_S
        hammer = pathlib.Path(bin_dir) / "stoa-hammer"
        publishers = [Hammer(ledger, hammer, n, c.publish_endpoints[0], "test", events // 2 - 500, "eio:", 20, 400, WITHIN_S, c.dir / f"hammer-{n}.log")
                      for n in range(2)]
        publishers.append(HttpPublisher(ledger, 2, [c.base], 1000, [f"eio:{n}" for n in range(20)], 130, deadline))
        shard = c.shards[0]
        for publisher in publishers:
            publisher.start()
        try:
            acknowledged = []
            for part, calls in enumerate(("fdatasync", "pwrite64,pwritev")):
                ledger.wait(events * (part + 1) // 3, deadline)
                status = until_it_died(shard, calls)
                assert status == -signal.SIGABRT, f"{calls}: ended with {status}"
                acknowledged.append(len(ledger.acks))
                refused = subprocess.run([str(word) for word in shard.command], cwd=c.dir, capture_output=True, text=True, timeout=60)
                said = refused.stderr + refused.stdout
                assert refused.returncode == 1 and "EIO" in said and "--after-eio" in said, said
                shard.command.append("--after-eio")
                shard.start().ready()
                shard.command.remove("--after-eio")
            ledger.wait(events, deadline)
            for publisher in publishers:
                publisher.join(30)
            assert not ledger.problems, ledger.problems[:5]
        finally:
            for publisher in publishers:
                publisher.end()
        logs = {f"eio:{n}": read_log(c.base, f"eio:{n}") for n in range(20)}
        check_logs(logs, ledger)
        assert sum(map(len, logs.values())) == events
        shard.kill()
        shard.start().ready()  # once told, it does not ask again
        assert {key: read_log(c.base, key) for key in logs} == logs
        pause, _ = ledger.longest()
        return f"{events} events, {acknowledged} acknowledged before the failures, longest pause of acks {pause:.2f} s"
