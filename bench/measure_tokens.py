"""Upgrades with tokens beside upgrades without: 5,000 sockets, each with a token of its own (HS256), first new to the
gateway, then a second time while it still knows them."""
import base64
import hashlib
import hmac
import json
import pathlib
import time

from measure import Stoa
from cluster import wait_until

MARKS = "<!-- token figures -->", "<!-- end of token figures -->"
SECRET = "0123456789abcdef0123456789abcdef"
SOCKETS = 5000


class Open(Stoa):
    name = "stoa, no tokens"
    scenarios = ["upgrades"]
    query = ""

    def load_words(self):
        return []


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def mint(number):
    claims = {"iat": int(time.time()), "exp": int(time.time()) + 3600, "key": f"r{number:06d}", "sub": f"user-{number}", "jti": f"{number:x}"}
    text = part(b'{"alg":"HS256","typ":"JWT","kid":"1"}') + "." + part(json.dumps(claims).encode())
    return text + "." + part(hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest())


class Asked(Open):
    name = "stoa, tokens"
    extra = f"auth: {{ mode: token, keys: [ {{ kid: '1', alg: HS256, secret: {SECRET} }} ] }}\n"
    query = "&token={token}"

    def load_words(self):
        path = self.dir / "tokens"
        path.write_text("".join(mint(number) + "\n" for number in range(SOCKETS)))
        return ["--tokens", path]


def upgrades(server, options):
    words = ["--url", f"ws://127.0.0.1:{server.base[1]}/events?key={{room}}{server.query}", *server.load_words(), "--conns", SOCKETS,
             "--rooms", SOCKETS, "--no-pub", "--connect-concurrency", 128, "--connect-timeout", 60]
    gateway = server.cluster.gateways[0]

    def on_cpu_us():
        return int(pathlib.Path(f"/proc/{gateway.child.pid}/schedstat").read_text().split()[0]) / 1000
    result = {}
    for time_of in ("first", "second"):
        wait_until("no socket is open", lambda: gateway.metric("stoa_sockets") == 0, 60, 0.1)
        before = on_cpu_us()
        r = server.load(*words)
        result[f"{time_of} opened/s"] = r["connects_per_s"]
        result[f"{time_of} gateway us each"] = (on_cpu_us() - before) / SOCKETS
        result[f"{time_of} failed"] = r["conn_failed"]
    return result


SCENARIOS = {"upgrades": upgrades}


def systems(_):
    return [Open, Asked]


def peers_used():
    return "none"


def targets(of, _):
    for time_of, words in (("first", "new to the gateway"), ("second", "known to it")):
        plain, asked = of(Open.name, "upgrades", f"{time_of} opened/s"), of(Asked.name, "upgrades", f"{time_of} opened/s")
        if plain and asked:
            yield f"upgrades/s with tokens {words} / without >= 0.7", asked / plain, asked / plain >= 0.7
        plain, asked = of(Open.name, "upgrades", f"{time_of} gateway us each"), of(Asked.name, "upgrades", f"{time_of} gateway us each")
        if plain and asked:
            yield f"upgrades a second of gateway CPU with tokens {words} / without >= 0.7", plain / asked, plain / asked >= 0.7
