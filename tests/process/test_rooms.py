"""Rooms with handlers, through the surface: the command, and the chat room in a real cluster."""
import contextlib
import http.server
import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from cluster import Cluster, wait_until
from test_surface_cli import Stoa, stoa_of
from wire import Closed, Refused, WebSocket, http_request

CHAT = pathlib.Path(__file__).resolve().parents[2] / "examples" / "chat" / "chat.lua"
TYPES = f"types: {{ chat: {{ handler: {CHAT} }} }}\n"


@contextlib.contextmanager
def played_gateway(answers):
    """A gateway that answers what it is told, in order: (status, body) each. Gives its URL and what was asked of it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def run(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            asked.append((self.command, self.path, body, self.headers.get("Idempotency-Key")))
            status, text = answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            if status == 503:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(text.encode())
        do_GET = do_POST = do_DELETE = run

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield "http://127.0.0.1:%d" % server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_command_asks(bin_dir):
    """Each verb of `stoa room`: what it asks of the gateway and what it prints."""
    answers = []
    rows = [{"id": "ann\t1", "tags": ["user:ann"], "state": {"n": 1}}, {"id": "b", "tags": [], "state": None}]
    with played_gateway(answers) as (url, asked):
        stoa = Stoa(bin_dir, STOA_SERVER=url)

        def run(body, *words, **more):
            answers.append((200, body))
            printed = stoa.out("room", *words, **more)
            return asked.pop(), printed
        assert run("null", "state", "chat:a/b c..") == (("GET", "/api/chat/a%2Fb%20c../state", "", None), "null\n")
        assert run("null", "state", "chat:..")[0][1] == "/api/chat/../state"
        request, printed = run(json.dumps(rows), "connections", "-t", "user:ann&", "chat:1")
        assert request[:2] == ("GET", "/api/chat/1/connections?tag=user:ann%26"), request
        assert printed == 'ann\t1\t["user:ann"]\t{"n": 1}\nb\t[]\tnull\n', printed
        assert [json.loads(line) for line in run(json.dumps(rows), "connections", "--json", "chat:1")[1].splitlines()] == rows
        request, printed = run('{"ok":true}', "send", "-k", "mine", "chat:1", '{"_tag":"Say"}')
        assert request == ("POST", "/api/chat/1/send", '{"_tag":"Say"}', "mine") and printed == '{"ok":true}\n'
        assert run('{"ok":true}', "broadcast", "chat:1", "-", input="[1]")[0][:3] == ("POST", "/api/chat/1/broadcast", "[1]")
        assert run('{"ok":true}', "-q", "send", "chat:1", input="[1]")[1] == ""
        request, printed = run('{"status":"ok"}', "call", "chat:1", "router.say", '{"text":"x"}')
        assert request[:3] == ("POST", "/api/chat/1/router.say", '{"text":"x"}') and len(request[3]) == 32 and printed == '{"status":"ok"}\n'
        assert run("1", "call", "chat:1", "now")[0][:3] == ("POST", "/api/chat/1/now", "")  # no input: nothing is read
        assert run('{"ok":true}', "alarm", "chat:1")[0][:3] == ("POST", "/api/chat/1/alarm", "")
        assert run("{}", "close", "-c", "4000", "chat:1")[0][:3] == ("POST", "/api/chat/1/close?code=4000", "")
        assert run("{}", "purge", "chat:1")[0][:3] == ("DELETE", "/api/chat/1", "")


def test_command_insists(bin_dir):
    """What is not answered for good is asked again under the same key; what stays unknown is said so."""
    answers = []
    error = json.dumps({"error": {"tag": "Taken", "message": "a seat"}})
    with played_gateway(answers) as (url, asked):
        stoa = Stoa(bin_dir, STOA_SERVER=url)
        answers += [(503, "{}"), (504, "{}"), (200, "7")]
        assert stoa.out("room", "call", "chat:1", "book") == "7\n"
        assert len(asked) == 3 and len({row[3] for row in asked}) == 1 and asked[0][3], asked
        asked.clear()
        answers += [(409, error)]
        assert stoa("room", "call", "chat:1", "book", status=1).stderr == "stoa room: Taken: a seat\n"
        assert len(asked) == 1
        answers += [(504, error), (409, error)]  # the second answer does not tell what became of the first attempt
        assert "-k mine" in stoa("room", "call", "-k", "mine", "chat:1", "book", status=3).stderr
        answers += [(404, error)]
        stoa("room", "state", "chat:1", status=1)


# ---- the chat room ----

class Chat:
    """A cluster's rooms of the type chat, as a page and a backend speak to them."""

    def __init__(self, c):
        self.c = c

    def ask(self, method, path, body=None, headers=None, gateway=0):
        status, head, text = http_request(self.c.gateways[gateway].base, method, f"/api/chat/{path}",
                                          None if body is None else json.dumps(body).encode(), headers)
        return status, head, json.loads(text)

    def get(self, path, **more):
        status, _, value = self.ask("GET", path, **more)
        assert status == 200, (path, status, value)
        return value

    def say(self, room, text, **more):
        status, _, value = self.ask("POST", f"{room}/say", {"text": text}, **more)
        assert (status, value) == (200, {"status": "ok"}), (status, value)

    def join(self, room, user=None, gateway=0):
        return WebSocket(self.c.gateways[gateway].base, f"/ws/chat/{room}" + (f"?userId={user}" if user else ""))

    def ids(self, room, **more):
        return [row["id"] for row in self.get(f"{room}/connections", **more)]


def talk(socket, text):
    socket.send_json({"_tag": "Say", "text": text})


def message(socket, text, user):
    """The next frame is this message, and nothing but it."""
    before = time.time() * 1000
    frame = socket.recv_json()
    assert set(frame) == {"_tag", "text", "userId", "ts"} and frame["_tag"] == "Message", frame
    assert (frame["text"], frame["userId"]) == (text, user), frame
    assert type(frame["ts"]) is int and abs(frame["ts"] - before) < 60_000, frame


def tagged(socket, tag, user):
    frame = socket.recv_json()
    assert frame == {"_tag": tag, "userId": user}, frame


def test_chat_by_http(bin_dir):
    """A room that nobody ever joined: it can be asked, and it can be spoken to; its state stays null."""
    with Cluster(bin_dir, extra=TYPES) as c:
        chat = Chat(c)
        assert chat.get("empty/state") is None and chat.get("empty/connections") == []
        chat.say("empty", "anybody?")
        assert chat.get("empty/state") is None and chat.get("empty/connections") == []
        for body, status, tag in ((b"{", 400, "BadRequest"), (b"", 400, None), (b"[]", 400, None)):
            answered, _, text = http_request(c.base, "POST", "/api/chat/empty/say", body)
            assert answered in (400, 500) and (tag is None or (answered, json.loads(text)["error"]["tag"]) == (status, tag)), (body, answered, text)
        assert chat.ask("POST", "empty/nothing", {})[2]["error"]["tag"] == "NoSuchMethod"
        assert chat.ask("POST", "empty/send", {"_tag": "Say", "text": "sent"})[0] == 200
        for said, status in (("application/x-www-form-urlencoded", 200), ("text/plain;charset=UTF-8", 200), ("application/xml", 415)):
            answered = chat.ask("POST", "empty/say", {"text": "typed"}, headers={"Content-Type": said})
            assert answered[0] == status and (status == 200 or answered[2]["error"]["tag"] == "UnsupportedType"), (said, answered)
        assert http_request(c.base, "GET", "/ws/chat/empty")[0] == 426
        assert http_request(c.base, "GET", "/api/other/1/state")[0] == 404
        assert chat.get("empty/connections") == []


def test_chat_exactly(bin_dir):
    """Join, leave, Message, Typing; the same user twice; a say by HTTP; state and connections."""
    with Cluster(bin_dir, extra=TYPES, shards=2, gateways=2) as c:
        chat = Chat(c)
        begun = time.time() * 1000
        ann = chat.join("lobby", "ann")
        state = chat.get("lobby/state")
        assert set(state) == {"createdAt", "messageCount"} and state["messageCount"] == 0 and abs(state["createdAt"] - begun) < 60_000, state
        rows = chat.get("lobby/connections")
        assert len(rows) == 1 and set(rows[0]) == {"id", "tags", "state"}, rows
        assert rows[0]["id"] == "ann" and rows[0]["tags"] == ["user:ann"] and set(rows[0]["state"]) == {"userId", "joinedAt"}, rows
        assert rows[0]["state"]["userId"] == "ann" and type(rows[0]["state"]["joinedAt"]) is int, rows
        bob = chat.join("lobby", "bob", gateway=1)
        tagged(ann, "UserJoined", "bob")
        talk(ann, "hello")
        message(ann, "hello", "ann")
        message(bob, "hello", "ann")  # the first that bob hears: nobody told him of himself, or of what was before
        bob.send_json({"_tag": "Typing"})
        tagged(ann, "Typing", "bob")
        chat.say("lobby", "from outside", gateway=1)
        for one in (ann, bob):  # who types does not hear of it
            message(one, "from outside", "system")
        assert chat.get("lobby/state") == {**state, "messageCount": 2}
        again = chat.join("lobby", "ann")  # the same user twice: both stay, and they hear of one another
        tagged(ann, "UserJoined", "ann")
        tagged(bob, "UserJoined", "ann")
        assert chat.ids("lobby") == ["ann", "bob", "ann"], chat.ids("lobby")
        assert chat.ids("lobby", gateway=1) == ["ann", "bob", "ann"]
        assert len(chat.get("lobby/connections?tag=user:ann")) == 2 and chat.get("lobby/connections?tag=user:bob")[0]["id"] == "bob"
        assert chat.get("lobby/connections?tag=user:eve") == [] and len(chat.get("lobby/connections?tag=user%3Abob")) == 1
        other = chat.join("elsewhere", "bob")
        talk(other, "here")
        message(other, "here", "bob")
        anon = chat.join("lobby")
        for one in (ann, bob, again):  # and not a word of elsewhere
            tagged(one, "UserJoined", "anon")
        assert chat.get("lobby/connections?tag=user:anon")[0]["state"]["userId"] == "anon"
        assert again.close(1000) == 1000
        for one in (ann, bob, anon):
            tagged(one, "UserLeft", "ann")
        talk(bob, "bye")
        for one in (ann, bob, anon):
            message(one, "bye", "bob")
        for one, left in ((bob, "bob"), (anon, "anon")):
            assert one.close() == 1000
            tagged(ann, "UserLeft", left)
        assert chat.ids("lobby") == ["ann"]
        ann.close()
        wait_until("the room is empty", lambda: chat.ids("lobby") == [])
        assert chat.get("lobby/state") == {**state, "messageCount": 3}
        late = chat.join("lobby", "eve")  # no history on join
        talk(late, "alone")
        message(late, "alone", "eve")
        assert chat.get("lobby/state") == {**state, "messageCount": 4}


def test_chat_payloads(bin_dir):
    """Any text survives; what is not a frame of the room is ignored, and the socket stays."""
    with Cluster(bin_dir, extra=TYPES) as c:
        chat = Chat(c)
        ann, bob = chat.join("p", "ann"), chat.join("p", "b%20%C3%A9")
        tagged(ann, "UserJoined", "b \u00e9")
        texts = ["x" * 200_000, "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467", "a\0b", "", "\u2028\\\"\t\x7f", "\u00e9" * 50_000, "</script>"]
        for text in texts:
            talk(ann, text)
            message(ann, text, "ann")
            message(bob, text, "ann")
        for text in texts:
            chat.say("p", text)
            message(ann, text, "system")
            message(bob, text, "system")
        for junk in ("", "{", "nothing", "[]", "7", "null", '"Say"', "{}", '{"_tag":"Shout","text":"x"}', '{"_tag":"Say"}', '{"_tag":"Say","text":7}', '{"_tag":null}', "\0"):
            ann.send(junk)
        ann.send_frame(2, b"\xff\x00")
        talk(ann, "still here")
        message(ann, "still here", "ann")
        message(bob, "still here", "ann")
        assert chat.get("p/state")["messageCount"] == 2 * len(texts) + 1


def test_chat_vanished(bin_dir):
    """A TCP reset, and a gateway that is killed: each connection leaves once, within 10 s and when it is missed."""
    with Cluster(bin_dir, extra=TYPES, gateways=2) as c:
        chat = Chat(c)
        ann, bob, eve = chat.join("v", "ann"), chat.join("v", "bob"), chat.join("v", "eve", gateway=1)
        tagged(ann, "UserJoined", "bob")
        tagged(ann, "UserJoined", "eve")
        begun = time.monotonic()
        bob.drop()
        tagged(ann, "UserLeft", "bob")
        assert time.monotonic() - begun < 10
        assert chat.ids("v") == ["ann", "eve"]
        c.gateways[1].kill()
        assert ann.recv_json(timeout=60) == {"_tag": "UserLeft", "userId": "eve"}
        assert chat.ids("v") == ["ann"]
        talk(ann, "alone")
        message(ann, "alone", "ann")
        c.gateways[1].start().ready()
        eve.socket.close()


def test_chat_shard_killed(bin_dir):
    """kill -9 of the shard in the middle of a chat: sockets stay, no message is lost, none comes twice, all see one order."""
    with Cluster(bin_dir, extra=TYPES) as c:
        chat = Chat(c)
        sockets = [chat.join("k", f"u{i}") for i in range(3)]
        for i, one in enumerate(sockets):
            for later in range(i + 1, 3):
                tagged(one, "UserJoined", f"u{later}")
        state = chat.get("k/state")
        sent = 0
        for kill in range(3):
            for _ in range(40):
                for i, one in enumerate(sockets):
                    talk(one, f"{i}:{sent}")
                    sent += 1
                if sent % 120 == 60:
                    c.shards[0].kill()
                    c.shards[0].start()
            c.shards[0].ready()
        seen = [[one.recv_json(timeout=60) for _ in range(sent)] for one in sockets]
        assert seen[0] == seen[1] == seen[2]
        assert all(set(frame) == {"_tag", "text", "userId", "ts"} for frame in seen[0])
        for i in range(3):  # everybody's own messages in the order in which they were said
            own = [frame["text"] for frame in seen[0] if frame["userId"] == f"u{i}"]
            assert own == [f"{i}:{n}" for n in range(sent) if n % 3 == i], own[:9]
        assert chat.get("k/state") == {**state, "messageCount": sent}
        assert chat.ids("k") == ["u0", "u1", "u2"]
        assert sockets[0].close() == 1000
        for one in sockets[1:]:
            tagged(one, "UserLeft", "u0")


def test_chat_idempotent(bin_dir):
    """A say under the same key is done once, also across a crash of the shard."""
    with Cluster(bin_dir, extra=TYPES) as c:
        chat = Chat(c)
        ann = chat.join("i", "ann")
        key = {"Idempotency-Key": "one"}
        chat.say("i", "once", headers=key)
        message(ann, "once", "system")
        status, head, value = chat.ask("POST", "i/say", {"text": "once"}, key)
        assert (status, value) == (200, {"status": "ok"}) and head.get("stoa-duplicate") == "1", (status, head, value)
        c.shards[0].kill()
        c.shards[0].start().ready()
        chat.say("i", "once", headers=key)
        chat.say("i", "twice")
        message(ann, "twice", "system")
        assert chat.get("i/state")["messageCount"] == 2


def test_counted_once(bin_dir):
    """A shard that is killed again and again under callers who retry with the same key until they are answered: each is counted once."""
    with Cluster(bin_dir, extra=TYPES) as c:
        chat = Chat(c)
        ann = chat.join("n", "ann")
        problems, done = [], threading.Event()

        def caller(name):
            n = 0
            while n < 40 or not done.is_set():
                end = time.monotonic() + 60
                while True:
                    status, _, value = chat.ask("POST", "n/say", {"text": f"{name}:{n}"}, {"Idempotency-Key": f"{name}:{n}"})
                    if status == 200:
                        break
                    if status not in (503, 504) or time.monotonic() > end:
                        problems.append((name, n, status, value))
                        return
                n += 1
            counts[name] = n
        counts = {}
        threads = [threading.Thread(target=caller, args=(f"t{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            wait_until("somebody is answered", lambda: c.shards[0].metric("stoa_commit_seconds_count") > 3)
            c.shards[0].kill()
            c.shards[0].start().ready()
        done.set()
        for thread in threads:
            thread.join()
        assert not problems, problems[:3]
        total = sum(counts.values())
        assert chat.get("n/state")["messageCount"] == total, (chat.get("n/state"), counts)
        heard = [ann.recv_json(timeout=60)["text"] for _ in range(total)]
        assert sorted(heard) == sorted(f"{name}:{n}" for name, most in counts.items() for n in range(most))
        talk(ann, "last")
        message(ann, "last", "ann")


def test_managed(bin_dir):
    """Broadcast, close, purge and the command, as an operator has them."""
    with Cluster(bin_dir, extra=TYPES, gateways=2) as c:
        chat, stoa = Chat(c), stoa_of(c)
        ann, bob = chat.join("m", "ann"), chat.join("m", "bob", gateway=1)
        tagged(ann, "UserJoined", "bob")
        assert chat.ask("POST", "m/broadcast", {"any": [1]})[::2] == (200, {"ok": True})
        assert ann.recv_json() == bob.recv_json() == {"any": [1]}
        assert stoa.out("room", "call", "chat:m", "say", '{"text":"hi"}') == '{"status":"ok"}\n'
        message(ann, "hi", "system")
        message(bob, "hi", "system")
        assert json.loads(stoa.out("room", "state", "chat:m"))["messageCount"] == 1
        assert stoa.out("room", "connections", "-t", "user:bob", "chat:m").startswith('bob\t["user:bob"]\t{')
        assert "NoSuchMethod" in stoa("room", "call", "chat:m", "nothing", status=1).stderr
        assert chat.get("m/log?after=0")["events"] == []  # what was broadcast is not kept
        assert chat.ask("DELETE", "m")[0] == 200
        assert chat.get("m/state") is None and chat.ids("m") == ["ann", "bob"]  # sockets stay
        talk(ann, "afterwards")
        message(ann, "afterwards", "ann")
        message(bob, "afterwards", "ann")
        assert chat.get("m/state") is None  # nobody has joined anew
        assert chat.ask("POST", "m/close?code=4001")[0] == 200
        for one in (ann, bob):
            try:
                while True:
                    assert one.recv_json()["_tag"] == "UserLeft"
            except Closed as end:
                assert end.code == 4001, end
        wait_until("nobody is there", lambda: chat.ids("m") == [])
        eve = chat.join("m", "eve")
        talk(eve, "anew")
        message(eve, "anew", "eve")
        assert chat.get("m/state")["messageCount"] == 1


def test_broken_code(bin_dir):
    """A file that does not load: the shard does not start, or keeps what it runs, and says which line is wrong."""
    good = CHAT.read_text()
    lines = good.count("\n")
    c = Cluster(bin_dir, extra="types: { chat: { handler: chat.lua } }\n")
    room, shard = c.dir / "chat.lua", c.shards[0]

    def refused(*wanted):
        ran = subprocess.run([str(word) for word in shard.command], cwd=c.dir, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 1, (ran.returncode, ran.stderr)
        for word in ("types.chat.handler", *wanted):
            assert word in ran.stderr, (word, ran.stderr)
    refused("chat.lua: No such file")
    room.write_text(good + "local x = = 1\n")
    refused(f"chat.lua:{lines + 1}:")
    room.write_text(good.replace("return M", "M.on_evnt = 1\nreturn M"))
    refused("chat.lua", "on_evnt")
    room.write_text(good)
    with c:
        chat = Chat(c)
        ann = chat.join("b", "ann")
        talk(ann, "one")
        message(ann, "one", "ann")

        def reload(answer):
            before = shard.log_path.read_text().count(answer)
            shard.child.send_signal(signal.SIGHUP)
            wait_until(answer, lambda: shard.log_path.read_text().count(answer) > before)
            return [line for line in shard.log_path.read_text().splitlines() if answer in line][-1]
        room.write_text(good + "local x = = 1\n")
        assert f"chat.lua:{lines + 1}:" in reload("shard.reload_refused")
        talk(ann, "two")
        message(ann, "two", "ann")
        chat.say("b", "three")
        message(ann, "three", "system")
        room.write_text(good.replace('"Message"', '"Shouted"'))
        assert "chat.lua is loaded" in reload("shard.reload ")
        talk(ann, "four")
        assert ann.recv_json()["_tag"] == "Shouted"
        assert "is loaded" not in reload("shard.reload ")  # nothing has changed
        assert chat.get("b/state")["messageCount"] == 4 and chat.ids("b") == ["ann"]
        room.write_text(good)
        reload("shard.reload ")
        talk(ann, "five")
        message(ann, "five", "ann")


def test_types_of_a_reload(bin_dir):
    """A type that a reload brings, and one that gets code by it: shard and gateway follow, sockets of the old rules come anew."""
    with Cluster(bin_dir, extra=TYPES) as c:
        chat = Chat(c)
        ann, bob = chat.join("r", "ann"), WebSocket(c.base, "/ws/later/1?userId=bob")
        text = c.config.read_text()
        c.config.write_text(text.replace("} }\n", f"}}, later: {{ handler: {CHAT}, max_connections: 1 }} }}\n"))
        for process in (c.shards[0], c.gateways[0]):
            process.child.send_signal(signal.SIGHUP)
            wait_until("reloaded", lambda: ".reload " in process.log_path.read_text())
        try:
            bob.recv()
            raise AssertionError("a frame of a room that has other rules now")
        except Closed as end:
            assert end.code == 1012, end
        bob = WebSocket(c.base, "/ws/later/1?userId=bob")
        talk(bob, "here")
        message(bob, "here", "bob")
        try:
            WebSocket(c.base, "/ws/later/1?userId=eve")
            raise AssertionError("let in beyond max_connections")
        except Refused as no:
            assert no.status == 409 and b"RoomFull" in no.body, (no.status, no.body)
        talk(ann, "there")
        message(ann, "there", "ann")


def test_check(bin_dir):
    """stoa room check: what will hold, merged with the configuration, or the file, the line and the reason."""
    with tempfile.TemporaryDirectory(prefix="stoa-check-") as folder:
        stoa = Stoa(bin_dir, cwd=folder)
        room = pathlib.Path(folder) / "chat.lua"
        shutil.copy(CHAT, room)
        told = stoa.out("room", "check", "chat.lua")
        assert "on_duplicate: allow" in told and "max_connections: 32768" in told and "max_connection_state: 2048" in told, told
        (pathlib.Path(folder) / "stoa.yaml").write_text("types: { chat: { handler: chat.lua, on_duplicate: reject, max_connections: 7 } }\n")
        told = stoa.out("room", "check", "chat.lua")
        assert "on_duplicate: reject" in told and "max_connections: 7" in told and "type chat" in told, told
        told = json.loads(stoa.out("room", "check", "--json", "chat.lua"))
        assert told["on_duplicate"] == "reject" and told["max_connections"] == 7 and told["max_connection_state"] == 2048, told
        room.write_text("#!room name=chat api=1\nlocal M = {}\nfunction M.on_event(ctx e) end\nreturn M\n")
        assert "chat.lua:3:" in stoa("room", "check", "chat.lua", status=1).stderr
        assert "nothere.lua: No such file" in stoa("room", "check", "nothere.lua", status=1).stderr
        assert "chat.txt" in stoa("room", "check", "chat.txt", status=1).stderr
