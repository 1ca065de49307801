"""What goes wrong, when: a schedule made from a seed, and what carries it out.

Faults come every 1 to 5 seconds and overlap, but for the rolling restart, which is alone: it ends the others and
takes the place of those that come due meanwhile. Kinds come from a shuffled
bag, so that every kind comes up in any two minutes. `windows` says when each one had hold of the cluster.
"""
import collections
import heapq
import random
import signal
import time

from history import History

BAG = {"kill": 5, "stop": 3, "cut": 2, "oneway": 2, "loss": 2, "slow": 2, "roll": 1}
KINDS = tuple(BAG)
PAUSE_S = (1.0, 5.0)
LAST_S = {"stop": (0.1, 10.0), "cut": (0.5, 6.0), "oneway": (0.5, 6.0), "loss": (2.0, 8.0), "slow": (2.0, 8.0)}
REST_S = 1.0  # at most, between a kill and the new start
ALL_LOST = 1000000
ROLES = ("shard", "router", "gateway")


class Window(collections.namedtuple("Window", "kind begin end what")):
    @property
    def row(self):
        """Kind and role of the victim: a line of the report."""
        return self.kind if self.kind == "roll" else f"{self.kind} {self.what['target'].split('-')[0]}"


def rows(kinds):
    return [row for kind in kinds for row in (["roll"] if kind == "roll" else [f"{kind} {role}" for role in ROLES])]


def schedule(seed, seconds, kinds, names):
    """[(after, kind, what)], `what` enough to do it the same way again."""
    rng, bag, at, faults = random.Random(f"{seed}/faults"), [], 0.0, []
    while True:
        at += rng.uniform(*PAUSE_S)
        if at >= seconds:
            return faults
        if not bag:
            bag = [kind for kind in kinds for _ in range(BAG[kind])]
            rng.shuffle(bag)
        kind = bag.pop()
        what = {"target": rng.choice(names)}
        if kind in LAST_S:
            what["seconds"] = round(rng.uniform(*LAST_S[kind]), 2)
        if kind == "kill":
            what["rest"] = round(rng.uniform(0, REST_S), 2)
        elif kind == "oneway":
            # To or from one other host or all of them.
            other = rng.choice([None, *(name for name in names if name != what["target"])])
            what["from"], what["to"] = rng.choice([(what["target"], other), (other, what["target"])])
        elif kind == "loss":
            what["ppm"] = rng.randrange(20000, 300000)
        elif kind == "slow":
            what["delay_us"], what["jitter_us"] = rng.randrange(5000, 150000), rng.randrange(0, 100000)
        faults.append((at, kind, what))


class Storm:
    def __init__(self, cluster, hosts):
        self.cluster, self.hosts = cluster, hosts
        self.members = {member.name: member for member in cluster.all}
        self.windows, self.count, self.ends = [], collections.Counter(), []
        self.frozen = collections.Counter()

    def run(self, faults):
        began = time.monotonic()
        for at, kind, what in faults:
            if began + at < time.monotonic():
                continue  # it came due in a rolling restart
            self.end_faults(began + at)
            if kind == "roll":
                self.end_faults(None)
                self.cluster.wait_ready()
                start = History.now()
                self.cluster.roll()
                self.note(kind, start, what)
            else:
                self.begin(kind, what)
        self.end_faults(None)

    def note(self, kind, start, what):
        self.windows.append(Window(kind, start, History.now(), what))
        self.count[kind] += 1

    def begin(self, kind, what):
        start, owner, target = History.now(), object(), self.members[what["target"]]
        if kind == "kill":
            target.killed(what["rest"])
            self.note(kind, start, what)
            return
        if kind == "stop":
            self.frozen[target] += 1
            target.signal(signal.SIGSTOP)

            def end():
                self.frozen[target] -= 1
                if not self.frozen[target]:
                    target.signal(signal.SIGCONT)
        else:
            self.set_ways(kind, what, owner)

            def end():
                self.hosts.heal(owner)
        heapq.heappush(self.ends, (time.monotonic() + what["seconds"], len(self.windows), id(owner), end, kind, start, what))

    def set_ways(self, kind, what, owner):
        if kind == "oneway":
            self.hosts.way(what["from"], what["to"], owner, loss=ALL_LOST)
            return
        values = {"cut": {"loss": ALL_LOST}, "loss": {"loss": what.get("ppm")},
                  "slow": {"delay_us": what.get("delay_us"), "jitter_us": what.get("jitter_us")}}[kind]
        self.hosts.way(what["target"], None, owner, **values)
        self.hosts.way(None, what["target"], owner, **values)

    def end_faults(self, until):
        """Waits until this time and ends what is due by then; None: ends all at once."""
        while self.ends and (until is None or self.ends[0][0] <= until):
            due, _, _, end, kind, start, what = heapq.heappop(self.ends)
            if until is not None:
                time.sleep(max(0, due - time.monotonic()))
            end()
            self.note(kind, start, what)
        if until is not None:
            time.sleep(max(0, until - time.monotonic()))
