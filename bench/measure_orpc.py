"""The orpc dialect beside raw: the same fan-out, 1,000 sockets on one key. Nearly all clients call their stream the same
name, so their frames are shared; the worst case, where each calls it otherwise, is measured too."""
import base64
import hashlib
import hmac
import time
import urllib.parse

from measure import Stoa, faults
from measure_events import pubpipe

MARKS = "<!-- orpc figures -->", "<!-- end of orpc figures -->"
SECRET = "the signing key of this measurement"
TARGET = 0.8


class Raw(Stoa):
    name = "stoa, raw"
    scenarios = ["fanout"]
    extra = f"routes: [ {{ path: /iterator, dialect: orpc, key: '{{chn}}', signing_key: '{SECRET}' }} ]\n"

    def sub(self):
        return ["--url", f"ws://127.0.0.1:{self.base[1]}/events?key=r000000"]


class Shared(Raw):
    name = "stoa, orpc"
    stream = "1"

    def sub(self):
        claims = '{"chn":"r000000","rpc":[],"iat":%d,"exp":%d}' % (time.time(), time.time() + 3600)
        mac = hmac.new(SECRET.encode(), claims.encode(), hashlib.sha256).digest()
        token = claims + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
        return ["--url", f"ws://127.0.0.1:{self.base[1]}/iterator?id=c{{i}}&token={urllib.parse.quote(token, safe='')}",
                "--init", '{"i":"%s","p":{"u":"/subscribe","b":{}}}' % self.stream, "--ready", "text/event-stream"]


class Apart(Shared):
    name = "stoa, orpc, 1,000 names"
    stream = "{i}"


def fanout(server, options):
    publisher = ["--pub-cmd", " ".join([*pubpipe(server), "64"]), "--body", "{room}\t{payload}", "--pipeline", 64]
    r = server.load(*server.sub(), *publisher, "--conns", 1000, "--pub-conns", 1, "--window", 256, "--duration", options.seconds)
    return {"deliveries/s": r["deliveries_per_s"], "cpu us/delivery": r.get("srv_cpu_us_per_delivery", 0), "p50 us": r["p50_us"], **faults(r)}


SCENARIOS = {"fanout": fanout}


def systems(_):
    return [Raw, Shared, Apart]


def peers_used():
    return "none"


def targets(of, _):
    """The worst case has none: it is there to be known."""
    for key, words, better in (("deliveries/s", "deliveries/s", 1), ("cpu us/delivery", "deliveries a second of CPU", -1)):
        raw, own = of(Raw.name, "fanout", key), of(Shared.name, "fanout", key)
        if raw and own:
            ratio = (own / raw) ** better
            yield f"{words}: orpc / raw >= {TARGET}", ratio, ratio >= TARGET
