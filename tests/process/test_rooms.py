"""Rooms with handlers, through the surface: the command, and the chat room in a real cluster."""
import contextlib
import http.server
import json
import threading

from test_surface_cli import Stoa


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
