"""Rooms with handlers: the chat of examples/chat in Lua, its twin in C, and with peers the same room as a Durable
Object in the platform's own open runtime (rooms/peer.mjs)."""
import json
import os
import pathlib
import re
import subprocess

from measure import ROOT, Server, Stoa, faults, port_open, tool
from cluster import free_port, wait_until

MARKS = "<!-- room figures -->", "<!-- end of room figures -->"
CHAT = ROOT / "examples" / "chat" / "chat.lua"
KEPT = ROOT / "bench" / "rooms" / "kept.lua"
PEER = ROOT / "build" / "peers"
ASLEEP = 100000
VISITORS = 10000  # at a time
WOKEN = 2000


class LuaRooms(Stoa):
    name = "stoa, Lua"
    handler = CHAT
    scenarios = ["say", "deliver", "latency", "handler", "asleep"]

    def start(self):
        self.extra = f"types: {{ chat: {{ handler: {self.handler} }}, kept: {{ handler: {KEPT} }} }}\n"
        super().start()

    def socket(self):
        return f"ws://127.0.0.1:{self.base[1]}/ws/chat/{{room}}?userId=u{{i}}"


class CRooms(LuaRooms):
    name = "stoa, C"
    scenarios = ["say", "deliver", "handler"]

    @property
    def handler(self):
        return pathlib.Path(tool("..")) / "rooms" / "chat.so"


class Platform(Server):
    name = "workerd"
    scenarios = ["say", "deliver", "latency"]

    def start(self):
        self.port = free_port()
        self.spawn("node", ROOT / "bench" / "rooms" / "peer.mjs", PEER / "node_modules" / "miniflare", self.port, self.dir)
        wait_until("workerd listens", lambda: port_open(self.port), 60)

    def socket(self):
        return f"ws://127.0.0.1:{self.port}/chat/{{room}}?userId=u{{i}}"


def chat(server, listening, *words):
    """One room; one socket more says, and hears like the others, uncounted."""
    return server.load("--url", server.socket(), "--pub", server.socket(), "--body", '{"_tag":"Say","text":"{payload_esc}"}',
                       "--conns", listening, *words)


def say(server, options):
    r = chat(server, 4, "--window", 256, "--duration", options.seconds)
    return {"Say/s": r["deliveries_per_s"] / 4, "cpu us/Say": r["srv_cpu_us_per_delivery"] * 4, "p50 us": r["p50_us"], **faults(r)}


def deliver(server, options):
    r = chat(server, 499, "--window", 32, "--duration", options.seconds, "--drain", 10)
    return {"deliveries/s": r["deliveries_per_s"], "cpu us/delivery": r["srv_cpu_us_per_delivery"], "p50 us": r["p50_us"], **faults(r)}


def latency(server, options):
    r = chat(server, 1, "--rate", 200, "--duration", options.seconds)
    return {"p50 us": r["p50_us"], "p99 us": r["p99_us"], **faults(r)}


def handler(server, options):
    """In the test runner: no socket, no disk."""
    done = subprocess.run([tool("stoa-room-test"), ROOT / "bench" / "rooms" / "handler_rate.lua"], capture_output=True, text=True,
                          timeout=60, check=True, env={**os.environ, "STOA_BENCH_ROOM": str(server.handler)})
    return {"Say/s": float(done.stdout.split()[0])}


def heap_kib(process):
    """Without the mapped file of the store."""
    return int(re.search(r"RssAnon:\s*(\d+)", pathlib.Path(f"/proc/{process.child.pid}/status").read_text()).group(1))


def visit(server, batch):
    """A socket to each of so many rooms, which then leaves."""
    r = server.load("--url", f"ws://127.0.0.1:{server.base[1]}/ws/kept/{{room}}", "--conns", VISITORS, "--rooms", VISITORS,
                    "--room-fmt", f"{batch}-%06d", "--no-pub", "--settle", 0, "--connect-timeout", 60)
    if r["conns"] != VISITORS:
        raise RuntimeError(f"{r['conns']} of {VISITORS} sockets opened")
    wait_until("all have left", lambda: server.cluster.gateways[0].metric("stoa_sockets") == 0, 60)


def calls(server, rooms):
    return server.load("--url", server.socket(), "--pub", f"http://127.0.0.1:{server.base[1]}/api/kept/{{room}}/get", "--body", "null",
                       "--rooms", rooms, "--room-fmt", "0-%06d", "--count", rooms, "--warmup", 0, "--settle", 0, "--drain", 0.5)


def asleep(server, options):
    """Many rooms with 200 bytes of state that sockets have visited: what a shard that starts with them needs for each,
    and how long a call takes that wakes one, beside one that finds it awake."""
    shard = server.cluster.shards[0]
    empty = heap_kib(shard)
    for batch in range(ASLEEP // VISITORS):
        visit(server, batch)
    calls(server, 1)  # behind the last who left
    shard.stop()
    shard.start().ready()
    size = (heap_kib(shard) - empty) * 1024 / ASLEEP
    rooms = shard.metric("stoa_rooms")
    wait_until("the gateway is linked to it again", lambda: not calls(server, 1)["bad_status"])
    cold, warm = (calls(server, WOKEN) for _ in range(2))
    refused = cold["bad_status"] + warm["bad_status"] + max(0, ASLEEP - rooms)
    return {"bytes/room": size, "woken p50 us": cold["ack_p50_us"], "woken p99 us": cold["ack_p99_us"], "awake p50 us": warm["ack_p50_us"],
            **({"refused or missing": refused} if refused else {})}


SCENARIOS = {f.__name__: f for f in (say, deliver, latency, handler, asleep)}


def systems(peers):
    if peers and not (PEER / "node_modules" / "miniflare").exists():
        PEER.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--prefix", PEER, "--no-save", "--no-audit", "--no-fund", "miniflare"], check=True)
    return [LuaRooms, CRooms] + ([Platform] if peers else [])


def peers_used():
    return f"workerd {json.loads((PEER / 'node_modules' / 'workerd' / 'package.json').read_text())['version']}"


def targets(of, sync):
    lua = LuaRooms.name
    for scenario, key, bound, up in (("say", "Say/s", 20000, True), ("deliver", "deliveries/s", 600000, True), ("asleep", "bytes/room", 256, False),
                                     ("asleep", "woken p50 us", 1000, False)):
        value = of(lua, scenario, key)
        if value is not None:
            yield f"{scenario}: {key} {'>=' if up else '<='} {bound:,}", value, value >= bound if up else value <= bound
    p50 = of(lua, "latency", "p50 us")
    if p50:
        yield f"latency: Say to another socket, p50 - fdatasync median ({sync:.0f} us), us <= 1,000", p50 - sync, p50 - sync <= 1000
    slow, fast = of(lua, "handler", "Say/s"), of(CRooms.name, "handler", "Say/s")
    if slow and fast:
        yield "handler: C / Lua >= 2", fast / slow, fast / slow >= 2
    for scenario, key in (("say", "Say/s"), ("deliver", "deliveries/s")):
        mine, theirs = of(lua, scenario, key), of(Platform.name, scenario, key)
        if mine and theirs:
            yield f"{scenario}: {key} / {Platform.name}'s", mine / theirs, True
