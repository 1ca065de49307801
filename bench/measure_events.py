"""Events without rooms' code: one shard beside the raw epoll ceiling and, with peers, nginx+nchan and NATS with JetStream."""
import json
import socket
import subprocess
import time

from measure import Server, Stoa, faults, port_open, tool
from cluster import free_port, wait_until

MARKS = "<!-- figures -->", "<!-- end -->"
STEM = "bench"
SHARED = ["fanout", "rooms", "latency", "idle", "connect"]  # what a peer can be asked, too


def pubpipe(server):
    return [tool("pubpipe"), "--cluster", "test", server.cluster.publish_endpoints[0]]


class Events(Stoa):
    scenarios = ["fanout", "rooms", "latency", "publish", "idle", "connect", "resume", "mixed"]

    def sub(self):
        return ["--url", f"ws://127.0.0.1:{self.base[1]}/events?key={STEM}:{{room}}"]

    def pub(self, in_flight=64, *words):
        return ["--pub-cmd", " ".join([*pubpipe(self), str(in_flight), *words]),
                "--body", f"{STEM}:{{room}}\t{{payload}}", "--pipeline", in_flight]


class EventsHttp(Events):
    name = "stoa (HTTP publish)"
    scenarios = ["fanout", "rooms", "latency"]

    def pub(self, in_flight=64, *words):
        return ["--pub", f"http://127.0.0.1:{self.base[1]}/publish?key={STEM}:{{room}}", "--pipeline", 4]


class Ceiling(Server):
    name = "raw epoll"
    scenarios = SHARED

    def start(self):
        self.port = free_port()
        self.spawn(tool("fanout"), self.port, "-c")
        wait_until("fanout listens", lambda: port_open(self.port))

    def sub(self):
        return ["--url", f"ws://127.0.0.1:{self.port}/sub/{{room}}"]

    def pub(self, in_flight=64):
        return ["--pub", f"http://127.0.0.1:{self.port}/pub/{{room}}", "--pipeline", 16]


class Nchan(Server):
    name = "nchan"
    scenarios = SHARED

    def start(self):
        self.port = free_port()
        (self.dir / "logs").mkdir()
        (self.dir / "nginx.conf").write_text(f"""
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {self.dir}/pid; error_log {self.dir}/logs/error.log crit; user root;
events {{ worker_connections 19000; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; nchan_shared_memory_size 1024m;
  client_body_temp_path {self.dir}/b; proxy_temp_path {self.dir}/p; fastcgi_temp_path {self.dir}/f;
  uwsgi_temp_path {self.dir}/u; scgi_temp_path {self.dir}/s;
  server {{ listen 127.0.0.1:{self.port} backlog=4096;
    location ~ ^/sub/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; nchan_subscriber_first_message newest; }}
    location ~ ^/old/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; nchan_subscriber_first_message oldest; }}
    location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 10000; nchan_message_timeout 1h; }} }} }}
""")
        self.spawn("nginx", "-p", self.dir, "-c", "nginx.conf")
        wait_until("nginx listens", lambda: port_open(self.port))

    def sub(self):
        return ["--url", f"ws://127.0.0.1:{self.port}/sub/{{room}}"]

    def pub(self, in_flight=64):
        return ["--pub", f"http://127.0.0.1:{self.port}/pub/{{room}}", "--pipeline", 4]


class JetStream(Server):
    name = "NATS JetStream"
    scenarios = SHARED

    def start(self):
        self.port, self.tcp = free_port(), free_port()
        (self.dir / "nats.conf").write_text(f"""
listen: 127.0.0.1:{self.tcp}
ping_interval: "30m"
max_pending: 256MB
write_deadline: "30s"
websocket {{ listen: "127.0.0.1:{self.port}", no_tls: true, compression: false }}
jetstream {{ store_dir: "{self.dir}" }}
""")
        self.spawn("nats-server", "-c", self.dir / "nats.conf")
        wait_until("nats listens", lambda: port_open(self.port) and port_open(self.tcp))
        with socket.create_connection(("127.0.0.1", self.tcp)) as s:
            s.settimeout(5)
            s.recv(4096)
            body = json.dumps({"name": "EV", "subjects": ["ev.*"], "retention": "limits", "storage": "file",
                               "max_msgs_per_subject": 10000, "discard": "old", "num_replicas": 1}).encode()
            s.sendall(b'CONNECT {"verbose":false}\r\nSUB inb 1\r\nPUB $JS.API.STREAM.CREATE.EV inb %d\r\n%s\r\n' % (len(body), body))
            answer = b""
            while b"MSG" not in answer or not answer.endswith(b"}\r\n"):
                answer += s.recv(65536)
            if b'"error"' in answer:
                raise RuntimeError(answer)

    def sub(self):
        return ["--url", f"ws://127.0.0.1:{self.port}/", "--room-fmt", "ev.r%06d", "--init",
                'CONNECT {"verbose":false,"pedantic":false}\\r\\nSUB {room} 1\\r\\nPING\\r\\n', "--init-bin", "--ready", "PONG", "--stream"]

    def pub(self, in_flight=64):
        return ["--pub", f"tcp://127.0.0.1:{self.tcp}", "--pub-init", 'CONNECT {"verbose":false,"pedantic":false}\\r\\n',
                "--body", "PUB {room} {len}\\r\\n{payload}\\r\\n"]


# Connections that publish to one room: each system's best. Over several the publishers race, which the
# generator counts as out of order: no fault of the server's.
FANOUT_PUBLISHERS = {"nchan": 4, "raw epoll": 4, "stoa (HTTP publish)": 16}


def fanout(server, options):
    publishers = FANOUT_PUBLISHERS.get(server.name, 1)
    r = server.load(*server.sub(), *server.pub(), "--conns", 1000, "--pub-conns", publishers,
                    "--pub-spread", "--window", 256, "--duration", options.seconds)
    if publishers > 1:
        r.pop("out_of_order", None)
    return {"deliveries/s": r["deliveries_per_s"], "cpu us/delivery": r.get("srv_cpu_us_per_delivery", 0), "p50 us": r["p50_us"], **faults(r)}


def rooms(server, options):
    conns = 16 if server.name in ("nchan", "raw epoll", "stoa (HTTP publish)", "NATS JetStream") else 1
    r = server.load(*server.sub(), *server.pub(256), "--conns", 5000, "--rooms", 1000, "--pub-conns", conns, "--window", 256,
                    "--duration", options.seconds)
    return {"deliveries/s": r["deliveries_per_s"], "cpu us/delivery": r.get("srv_cpu_us_per_delivery", 0), "p50 us": r["p50_us"], **faults(r)}


def latency(server, options):
    r = server.load(*server.sub(), *server.pub(64), "--rate", 500, "--duration", options.seconds)
    result = {"p50 us": r["p50_us"], "p99 us": r["p99_us"], **faults(r)}
    if server.name == "stoa":
        r = server.load(*server.sub(), *server.pub(64, "--ephemeral"), "--rate", 500, "--duration", options.seconds, "--room-fmt", "e%06d")
        result.update({"ephemeral p50 us": r["p50_us"], "ephemeral p99 us": r["p99_us"]})
    return result


def publish(server, options):
    done = subprocess.run([*pubpipe(server), "64", "--self", str(options.seconds), "--size", "200"],
                          capture_output=True, text=True, timeout=120)
    return {"acks/s": float(done.stdout.split()[0])}


def idle(server, options):
    if isinstance(server, Events):
        def rss():
            return [sum(p.rss_kib() for p in group) for group in (server.cluster.gateways, server.cluster.shards)]
        before = rss()
        load = subprocess.Popen([tool("wsload"), *map(str, server.sub()), "--conns", "10000", "--rooms", "10000", "--no-pub",
                                 "--hold", "4", "--connect-timeout", "60"], stdout=subprocess.PIPE, text=True)
        wait_until("10,000 sockets", lambda: server.cluster.gateways[0].metric("stoa_sockets") >= 10000, 60, 0.2)
        time.sleep(1.5)
        after = rss()
        load.communicate(timeout=60)
        return {"gateway KiB/socket": (after[0] - before[0]) / 10000, "shard KiB/socket": (after[1] - before[1]) / 10000}
    r = server.load(*server.sub(), "--conns", 10000, "--rooms", 10000, "--no-pub", "--hold", 2, "--connect-timeout", 60)
    return {"gateway KiB/socket": r["rss_per_conn_b"] / 1024}


def connect(server, options):
    r = server.load(*server.sub(), "--conns", 5000, "--rooms", 5000, "--no-pub", "--connect-concurrency", 128, "--connect-timeout", 60)
    return {"opened/s": r["connects_per_s"], "failed": r["conn_failed"]}


def resume(server, options):
    sub = ["--url", f"ws://127.0.0.1:{server.base[1]}/events?key={STEM}:{{room}}&replay=all"]
    r = server.load(*sub, *server.pub(256), "--conns", 1, "--replay", 10000, "--room-fmt", f"resume{time.monotonic_ns()}-%d")
    return {"events/s": r["replayed_per_s"], **faults(r)}


def mixed(server, options):
    result = {}
    for label, idle_sockets in (("alone", 0), ("beside 4,000 idle", 4000)):
        extra = None
        if idle_sockets:
            extra = subprocess.Popen([tool("wsload"), "--url", f"ws://127.0.0.1:{server.base[1]}/events?key=idle:{{room}}",
                                      "--conns", str(idle_sockets), "--rooms", str(idle_sockets), "--no-pub", "--hold", str(options.seconds + 6)],
                                     stdout=subprocess.DEVNULL)
            wait_until("idle sockets", lambda: server.cluster.gateways[0].metric("stoa_sockets") >= idle_sockets, 60, 0.2)
        r = server.load(*server.sub(), *server.pub(64), "--rate", 2000, "--duration", options.seconds, "--settle", 1)
        result[f"cpu us/delivery {label}"] = r["srv_cpu_us_per_delivery"]
        if extra:
            extra.wait(timeout=60)
    return result


SCENARIOS = {f.__name__: f for f in (fanout, rooms, latency, publish, idle, connect, resume, mixed)}


def systems(peers):
    return [Events, EventsHttp, Ceiling] + ([Nchan, JetStream] if peers else [])


def peers_used():
    return "nginx, nats-server of Debian 12"


def targets(of, sync):
    for scenario, peer, factor in (("fanout", "NATS JetStream", 2), ("fanout", "nchan", 4), ("rooms", "nchan", 1.0), ("rooms", "NATS JetStream", 1.4)):
        mine, theirs = of("stoa", scenario, "deliveries/s"), of(peer, scenario, "deliveries/s")
        if mine and theirs:
            yield f"{scenario}: deliveries/s >= {factor} x {peer}", mine / theirs, mine / theirs >= factor
    p50 = of("stoa", "latency", "p50 us")
    if p50:
        yield f"latency: p50 - fdatasync median ({sync:.0f} us), us <= 500", p50 - sync, p50 - sync <= 500
        ceiling = of("raw epoll", "latency", "p50 us")
        if ceiling:
            over = of("stoa", "latency", "ephemeral p50 us") - ceiling
            yield "latency: ephemeral p50 - raw ceiling, us <= 250", over, over <= 250
    for scenario, key, bound, up in (("publish", "acks/s", 60000, True), ("idle", "gateway KiB/socket", 4, False), ("idle", "shard KiB/socket", 0.5, False),
                                     ("connect", "opened/s", 10000, True), ("resume", "events/s", 400000, True)):
        value = of("stoa", scenario, key)
        if value is not None:
            yield f"{scenario}: {key} {'>=' if up else '<='} {bound}", value, value >= bound if up else value <= bound
    alone = of("stoa", "mixed", "cpu us/delivery alone")
    if alone:
        ratio = of("stoa", "mixed", "cpu us/delivery beside 4,000 idle") / alone
        yield "mixed: CPU per delivery beside 4,000 idle sockets / alone <= 1.5", ratio, ratio <= 1.5
