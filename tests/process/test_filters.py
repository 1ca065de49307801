"""Whom an event is for: `tags`, `to` and `except`, said over HTTP, stoa.v1, by the command and through libstoa; who gets it on
sockets, streams and from the log, by way of every gateway and after a restart. And typed payloads, which most readers get as
their value alone."""
import contextlib
import json
import pathlib
import tempfile
from urllib.parse import urlencode

from cluster import Cluster, wait_until
from test_auth import auth_of, mint
from test_surface_cli import Stoa, ending, stoa_of
from wire import EventStream, WebSocket, http_request

SECRET = "the-secret-of-these-tests-0123456789"
PEOPLE = {"ann": ["red", "big"], "bob": ["red"], "cid": ["blue"], None: None}

ROOM = """#!room name=hall api=1
local M = {}

function M.identify(req)
  return { id = req.query.name, tags = { req.query.tag } }
end

M.rpc = { all = function(ctx) return ctx:log({ after = "0" }) end }

return M
"""


def token(who=None, can=("subscribe",), **claims):
    claims = {"prefix": "", "can": list(can), **claims}
    if who:
        claims |= {"id": who, "tags": PEOPLE[who]}
    return mint(SECRET, **claims)


@contextlib.contextmanager
def cluster_of(bin_dir, **options):
    with Cluster(bin_dir, extra=auth_of(("one", SECRET)), **options) as c:
        c.boss = token(can=["subscribe", "publish", "manage"])
        yield c


def publish(c, key, payload, query="", gateway=0, **headers):
    status, _, body = http_request(c.gateways[gateway].base, "POST", f"/publish?key={key}{query}", payload,
                                   {"Authorization": f"Bearer {c.boss}", **{k.replace("_", "-"): v for k, v in headers.items()}})
    assert status == 200, (status, body)
    return json.loads(body)


def log_of(c, key, bearer, query=""):
    status, _, body = http_request(c.base, "GET", f"/log?key={key}{query}", headers={"Authorization": f"Bearer {bearer}"})
    assert status == 200, (status, body)
    answer = json.loads(body)
    return [event["data"] for event in answer["events"]], answer["more"]


def raw(c, key, who, query="", gateway=0):
    return WebSocket(c.gateways[gateway].base, f"/events?key={key}&token={token(who)}{query}")


CASES = [("", {"ann", "bob", "cid", None}), ("&tags=red", {"ann", "bob"}), ("&tags=blue,big", {"ann", "cid"}),
         ("&" + urlencode({"tags": "blue,big"}), {"ann", "cid"}), ("&to=ann,cid", {"ann", "cid"}), ("&targets=b%6fb", {"bob"}),
         ("&except=ann", {"bob", "cid", None}), ("&exclude=ann,bob", {"cid", None}), ("&tags=red&to=ann,cid", {"ann"}),
         ("&tags=red&except=ann", {"bob"}), ("&to=", set()), ("&tags=", set()), ("&except=", {"ann", "bob", "cid", None})]


def test_who_gets_it(bin_dir):
    """Live on two gateways, raw and as a stream, then from the log of a shard that was killed."""
    with cluster_of(bin_dir, gateways=2) as c:
        sockets = {(who, g): raw(c, "k", who, gateway=g) for who in PEOPLE for g in (0, 1)}
        for number, (query, _) in enumerate(CASES):
            publish(c, "k", json.dumps(number), query, gateway=number % 2)
            publish(c, "k", json.dumps([number]), query, Stoa_Ephemeral="1")
        publish(c, "k", '"end"')
        for (who, _), ws in sockets.items():
            wanted = [n for number, (_, whom) in enumerate(CASES) if who in whom for n in (number, [number])]
            assert [ws.recv_json() for _ in wanted] == wanted and ws.recv_json() == "end"
            ws.close()
        c.shards[0].kill()
        c.shards[0].start().ready()
        for who in PEOPLE:
            wanted = [number for number, (_, whom) in enumerate(CASES) if who in whom] + ["end"]
            with contextlib.closing(raw(c, "k", who, "&replay=all", gateway=1)) as ws:
                assert [ws.recv_json() for _ in wanted] == wanted
            stream = EventStream(c.base, f"/events?key=k&after=0&token={token(who)}")
            got = [stream.next() for _ in wanted]
            assert [(event, json.loads(data)) for event, _, data in got] == [("message", n) for n in wanted]  # nothing is missed
            stream.close()
            assert log_of(c, "k", token(who)) == (wanted, False)
        assert log_of(c, "k", c.boss)[0] == [*range(len(CASES)), "end"]  # who manages the key sees everything


def test_many_keys_on_a_socket(bin_dir):
    with cluster_of(bin_dir) as c:
        sender = WebSocket(c.base, f"/stoa?token={c.boss}", "stoa.v1")
        ann = WebSocket(c.base, f"/stoa?token={token('ann')}", "stoa.v1")
        ann.send_json({"sub": "k"})
        assert ann.recv_json()["status"] == "live"
        for number, more in enumerate([{"to": ["ann"]}, {"to": ["bob"]}, {"tags": ["blue"]}, {"tags": ["big"], "except": ["bob"]},
                                       {"to": []}, {"except": []}, {"to": ["ann"], "ephemeral": True},
                                       # a list that is not read would send it to everybody: these names are known, too
                                       {"targets": ["bob"]}, {"exclude": ["ann"]}, {"targets": ["ann"]}]):
            sender.send_json({"pub": "k", "data": number, "ref": number, **more})
            assert "ok" in sender.recv_json()
        got = [ann.recv_json() for _ in range(5)]
        assert [(e["data"], "id" in e) for e in got] == [(0, True), (3, True), (5, True), (6, False), (9, True)], got
        for wrong in ({"to": "ann"}, {"tags": [1]}, {"except": None}):
            sender.send_json({"pub": "k", "data": 1, "ref": "x", **wrong})
            answer = sender.recv_json()
            assert answer["error"]["status"] == 400 and "arrays of strings" in answer["error"]["message"], answer
        sender.send_json({"pub": "k", "data": 1, "ref": "x", "to": ["n" * 4096]})
        assert sender.recv_json()["error"] | {"message": ""} == {"tag": "TooLarge", "message": "", "status": 413}
        for twice in ({"to": ["bob"], "targets": ["bob"]}, {"except": [], "exclude": []}):
            sender.send_json({"pub": "k", "data": 1, "ref": "x", **twice})
            assert "at most once" in sender.recv_json()["error"]["message"]
        sender.close()
        ann.close()


def test_pages_count_what_is_seen(bin_dir):
    """`limit`, `last` and replay=N count the reader's own events; what is for others is no gap and no end."""
    with cluster_of(bin_dir) as c:
        batch = "\n".join(str(n) for n in range(200))
        publish(c, "k", "1")
        for _ in range(8):
            publish(c, "k", batch, "&to=bob", Content_Type="application/x-ndjson")
        publish(c, "k", "2", "&to=ann")
        publish(c, "k", batch, "&to=bob", Content_Type="application/x-ndjson")
        publish(c, "k", "3")
        publish(c, "k", batch, "&to=bob", Content_Type="application/x-ndjson")
        ann = token("ann")
        assert log_of(c, "k", ann) == ([1, 2, 3], False)
        assert log_of(c, "k", ann, "&limit=2") == ([1, 2], True)
        assert log_of(c, "k", ann, "&limit=3") == ([1, 2, 3], False)
        assert log_of(c, "k", ann, "&last=1") == ([3], False)
        assert log_of(c, "k", ann, "&last=2") == ([2, 3], False)
        assert log_of(c, "k", ann, "&last=9") == ([1, 2, 3], False)
        assert log_of(c, "k", token("cid"), "&last=2") == ([1, 3], False)
        with contextlib.closing(raw(c, "k", "ann", "&replay=2")) as ws:
            assert [ws.recv_json(), ws.recv_json()] == [2, 3]
            publish(c, "k", "4")
            assert ws.recv_json() == 4


def test_each_has_his_newest(bin_dir):
    """A conflated event is superseded by one for the same readers only."""
    with cluster_of(bin_dir) as c:
        for who, value in (("ann", 10), ("bob", 20), ("ann", 11), ("bob", 21)):
            publish(c, "k", str(value), f"&to={who}", Stoa_Conflate="progress")
        for who, value in (("ann", 11), ("bob", 21)):
            with contextlib.closing(raw(c, "k", who, "&replay=all")) as ws:
                assert ws.recv_json() == value
        publish(c, "k", "0", Stoa_Conflate="progress")
        with contextlib.closing(raw(c, "k", "ann", "&replay=all")) as ws:
            assert [ws.recv_json(), ws.recv_json()] == [11, 0]
        with contextlib.closing(raw(c, "k", "cid", "&replay=all")) as ws:
            assert ws.recv_json() == 0


def test_command(bin_dir):
    """Through a gateway and, by libstoa, through a router."""
    with cluster_of(bin_dir) as c:
        boss, ann = stoa_of(c, STOA_TOKEN=c.boss), stoa_of(c, STOA_TOKEN=token("ann"))
        direct = Stoa(bin_dir, cwd=c.dir, STOA_ROUTER=c.publish_endpoints[0], STOA_CONFIG=str(c.config))
        with ending(ann.background("tail", "--raw", "k")) as tail, ending(boss.background("tail", "--raw", "k")) as all_of_it:
            wait_until("both are there", lambda: c.gateways[0].metric("stoa_sockets") == 2)
            lines = 0
            for stoa in (boss, direct):
                stoa.out("publish", "--to", "ann", "k", "1")
                stoa.out("publish", "--to", "bob,cid", "k", "2")
                stoa.out("publish", "--tags", "blue,big", "k", "3")
                stoa.out("publish", "--except", "ann", "k", "4")
                stoa.out("publish", "--tags", "red", "--to", "ann", "--except", "bob", "--batch", "k", "-", input="5\n6\n")
                stoa.out("publish", "--to", "", "k", "7")
                stoa.out("publish", "--ephemeral", "--to", "ann", "k", "8")
                lines += 8
                assert [tail.stdout.readline() for _ in range(5)] == ["1\n", "3\n", "5\n", "6\n", "8\n"]
                assert [all_of_it.stdout.readline() for _ in range(8)] == [f"{n}\n" for n in range(1, 9)]
        assert ann.out("log", "--raw", "k") == "1\n3\n5\n6\n" * 2
        assert boss.out("log", "--raw", "k") == "1\n2\n3\n4\n5\n6\n7\n" * 2
        assert "once" in boss("publish", "--to", "a", "--to", "b", "k", "1", status=2).stderr
        assert "4096" in boss("publish", "--to", "n" * 4096, "k", "1", status=1).stderr
        direct("publish", "--to", "n" * 4096, "k", "1", status=1)


def test_members_of_rooms(bin_dir):
    """Of a room with a handler it is the room that says who somebody is."""
    with tempfile.TemporaryDirectory(prefix="stoa-filters-") as folder:
        (pathlib.Path(folder) / "hall.lua").write_text(ROOM)
        with Cluster(bin_dir, extra=f"types: {{ hall: {{ handler: {folder}/hall.lua }} }}\n") as c:
            c.boss = ""
            ann, bob = (WebSocket(c.base, f"/ws/hall/1?name={name}&tag={tag}") for name, tag in (("ann", "red"), ("bob", "blue")))
            publish(c, "hall:1", "1", "&to=ann")
            publish(c, "hall:1", "2", "&tags=blue")
            publish(c, "hall:1", "3", "&tags=red,blue&to=ann,bob&except=ann")
            publish(c, "hall:1", '{"json":"4","meta":[[0]]}', Stoa_Format="orpc")
            assert [ann.recv_json(), ann.recv_json()] == [1, "4"]
            assert [bob.recv_json() for _ in range(3)] == [2, 3, "4"]
            ann.close()
            with contextlib.closing(WebSocket(c.base, "/ws/hall/1?name=ann&tag=blue&replay=all")) as again:
                assert [again.recv_json() for _ in range(3)] == [1, 2, "4"]
            bob.close()
            status, _, body = http_request(c.base, "POST", "/api/hall/1/all", "null")
            assert status == 200 and [e["data"] for e in json.loads(body)] == [1, 2, 3, "4"], body


def test_typed(bin_dir):
    """Stoa-Format: orpc. What is stored is the whole; who does not speak orpc gets the value."""
    with cluster_of(bin_dir) as c:
        ws = raw(c, "k", None)
        stream = EventStream(c.base, f"/events?key=k&token={token()}")
        publish(c, "k", '{"json":{"at":"2026-01-01T00:00:00.000Z"},"meta":[[1,"at"]]}', Stoa_Format="orpc")
        publish(c, "k", '{"meta":[]}', Stoa_Format="orpc")
        publish(c, "k", '{"json":1}\n{"json":2,"retry":100,"comments":["c"]}\n', Stoa_Format="orpc", Content_Type="application/x-ndjson")
        wanted = [{"at": "2026-01-01T00:00:00.000Z"}, None, 1, 2]
        assert [ws.recv_json() for _ in wanted] == wanted
        assert [json.loads(stream.next()[2]) for _ in wanted] == wanted
        assert log_of(c, "k", c.boss) == (wanted, False)
        c.shards[0].kill()
        c.shards[0].start().ready()
        assert wait_until("it is served again", lambda: log_of(c, "k", c.boss)[0]) == wanted
        for body in ("1", "{", '{"value":1}', '{"json":1,"meta":{}}', '{"json":1,"retry":"soon"}'):
            status, _, answer = http_request(c.base, "POST", "/publish?key=k", body,
                                             {"Authorization": f"Bearer {c.boss}", "Stoa-Format": "orpc"})
            assert status == 400 and json.loads(answer)["error"]["tag"] == "BadRequest", (body, answer)
        ws.close()
        stream.close()


def test_refusals(bin_dir):
    with cluster_of(bin_dir) as c:
        def refused(query):
            status, _, body = http_request(c.base, "POST", f"/publish?key=k{query}", "1", {"Authorization": f"Bearer {c.boss}"})
            return status, json.loads(body)["error"]["tag"]
        assert refused("&to=a&to=b") == (400, "BadRequest")
        assert refused("&to=a&targets=b") == (400, "BadRequest")
        assert refused("&tags=%ff") == (400, "BadRequest")
        assert refused("&tags=%0") == (400, "BadRequest")
        assert refused("&to=" + "n" * 4096) == (413, "TooLarge")
        assert log_of(c, "k", c.boss) == ([], False)
