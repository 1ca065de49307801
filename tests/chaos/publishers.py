"""Publishers under attack: half on libstoa (stoa-hammer), half on POST /publish; what each was told goes into the history."""
import http.client
import json
import random
import subprocess
import threading
import time

from history import has_batches, message

OK, UNKNOWN = 0, -2
RETRY_S, ANSWER_S, SPACING_S = 0.05, 5.0, 0.005
TRIES_WITHOUT_KEY = 0.1  # share of the requests that have no Idempotency-Key, and so one try
MS = 1000000


class LibraryPublisher(threading.Thread):
    """stoa-hammer, its lines read by this thread. Its times are rounded to the side that asserts less."""

    def __init__(self, history, binary, number, routers, prefix, keys, events, rate, timeout_ms, log_path):
        super().__init__(daemon=True)
        self.history, self.number, self.name_, self.prefix, self.events = history, number, f"lib-{number}", prefix, events
        self.told, self.acked, self.problem = 0, 0, None
        command = [binary, routers, "chaos", number, events, keys, prefix, rate, timeout_ms]
        with open(log_path, "ab") as log:
            self.child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=log)

    def run(self):
        for line in self.child.stdout:
            words = line.decode().split()
            key, number = self.prefix + words[0], int(words[1])
            msg = message(self.number, key, number)
            failed = words[2] == "failed"
            submitted, told = (int(words[4]), int(words[5])) if failed else (int(words[4]), int(words[5]))
            self.history.write("publish", submitted * MS, who=self.name_, key=key, msg=msg, pseq=number)
            if not failed:
                self.history.write("answer", (told + 1) * MS, who=self.name_, key=key, msg=msg, result="ack", id=words[2],
                                   dup=words[3] == "1")
            else:
                result = "unknown" if int(words[3]) == UNKNOWN else "nack"
                self.history.write("answer", (told + 1) * MS, who=self.name_, key=key, msg=msg, result=result)
            self.told += 1
            self.acked += not failed
        self.child.wait()
        if self.told != self.events:
            self.problem = f"{self.name_}: told of {self.told} of {self.events}, ended with {self.child.returncode}"

    def end(self):
        self.child.kill()
        self.join()


class HttpPublisher(threading.Thread):
    """Repeats what was not answered with 200 under the same Idempotency-Key, through the next gateway, until it is.
    Half of the requests are batches; some have no key and one try."""

    def __init__(self, history, number, bases, keys, rate, ends, seed):
        super().__init__(daemon=True)
        self.history, self.number, self.name_, self.bases, self.keys = history, number, f"http-{number}", bases, keys
        self.rate, self.ends = rate, ends
        self.random = random.Random(f"{seed}/http/{number}")
        self.numbers = dict.fromkeys(keys, 0)
        self.at, self.connection, self.acked, self.problem, self.stopped = number, None, 0, None, False

    def run(self):
        try:
            due = time.monotonic()
            while not self.stopped and time.monotonic() < self.ends:
                due += self.random.expovariate(self.rate)
                time.sleep(max(due - time.monotonic(), SPACING_S))
                key = self.random.choice(self.keys)
                self.publish(key, self.random.randint(2, 8) if has_batches(key) else 1)
        except Exception as error:  # pylint: disable=broad-except
            self.problem = f"{self.name_}: {error!r}"

    def publish(self, key, size):
        self.numbers[key] += 1
        number = self.numbers[key]
        msg = message(self.number, key, number)
        body = "\n".join(json.dumps({"p": self.number, "n": number, "i": i, "pad": "0" * 128}) for i in range(size))
        headers = {"Content-Type": "application/x-ndjson"} if size > 1 else {}
        again = self.random.random() >= TRIES_WITHOUT_KEY
        if again:
            headers["Idempotency-Key"] = f"{self.number}/{key}/{number}"
        self.history.write("publish", who=self.name_, key=key, msg=msg, n=size if size > 1 else None)
        result, answer = self.tried(f"/publish?key={key}", body, headers)
        doubt = False  # an earlier try may have been stored, whatever a later one says
        while result != "ack" and again and not self.stopped:
            doubt = doubt or result == "unknown"
            time.sleep(RETRY_S)
            result, answer = self.tried(f"/publish?key={key}", body, headers)
        if result == "ack":
            self.acked += 1
            self.history.write("answer", who=self.name_, key=key, msg=msg, result="ack", id=answer["id"], dup=answer["duplicate"])
        else:
            self.history.write("answer", who=self.name_, key=key, msg=msg, result="unknown" if doubt else result)

    def tried(self, target, body, headers):
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(*self.bases[self.at % len(self.bases)], timeout=ANSWER_S)
            self.connection.request("POST", target, body, headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.leave()
            return "unknown", None
        if answer.status == 200:
            return "ack", json.loads(text)
        if answer.status not in (503, 504):
            raise AssertionError((answer.status, text))
        return ("nack" if answer.status == 503 else "unknown"), None

    def leave(self):
        if self.connection:
            self.connection.close()
        self.connection = None
        self.at += 1

    def end(self):
        self.stopped = True
        self.join()
        self.leave()


def publish_markers(history, number, bases, keys):
    """The last event of every key."""
    publisher = HttpPublisher(history, number, bases, keys, 1, 0, "markers")
    for key in keys:
        msg = message(number, key, 1)
        history.write("publish", who=publisher.name_, key=key, msg=msg)
        result, deadline = None, time.monotonic() + 60
        while result != "ack":
            assert time.monotonic() < deadline, f"{key}: cannot be published to in the calm"
            result, answer = publisher.tried(f"/publish?key={key}", json.dumps({"p": number, "n": 1}), {"Idempotency-Key": f"marker/{key}"})
        history.write("answer", who=publisher.name_, key=key, msg=msg, result="ack", id=answer["id"], dup=answer["duplicate"])
    publisher.leave()
