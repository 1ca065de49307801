"""Figures of a history: what was published and delivered, and the longest pause of acks and deliveries by fault.

A pause of acks is the time from submission to acknowledgement, one of deliveries the time from the acknowledgement
(or the client's first subscription to the key, when that was later) until a client had the event. A pause belongs to
a kind of fault when no other kind was at work during it, or in the SETTLE_S before it.
"""
import collections
import json

SETTLE_NS = 2 * 10**9
SEVERAL, NONE = "several", "none"
LOOKED_AT = 50000  # the longest pauses; the longest of every kind is among them


def read(paths):
    for path in paths:
        with open(path) as file:
            for line in file:
                yield json.loads(line)


def figures(paths, windows):
    submitted, acked, first_seen, waits = {}, {}, {}, []
    deliveries, counts = [], collections.Counter()
    for line in read(paths):
        op = line["op"]
        counts[op] += 1
        if op == "publish":
            submitted.setdefault(line["msg"], line["t"])
        elif op == "answer":
            counts[line["result"]] += 1
            if line["result"] == "ack":
                counts["dup"] += line["dup"]
                acked[line["msg"]] = line["t"]
        elif op == "subscribe":
            first_seen.setdefault((line["who"], line["key"]), line["t"])
        elif op == "deliver":
            deliveries.append((line["t"], line["msg"], line["who"], line["key"]))
    waits = [(t - submitted[msg], submitted[msg], t) for msg, t in acked.items()]
    lags = []
    for t, msg, who, key in deliveries:
        if msg in acked:
            since = max(acked[msg], first_seen[who, key])
            lags.append((t - since, since, t))
    return counts, longest(waits, windows), longest(lags, windows)


def longest(pauses, windows):
    """{kind: seconds}"""
    found = {}
    for length, begin, end in sorted(pauses, reverse=True)[:LOOKED_AT]:
        kinds = {w.kind for w in windows if w.begin <= end and w.end + SETTLE_NS >= begin}
        kind = kinds.pop() if len(kinds) == 1 else SEVERAL if kinds else NONE
        found.setdefault(kind, length / 1e9)
    return found
