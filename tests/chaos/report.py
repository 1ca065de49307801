"""Figures of a history: what was published and delivered, and the pauses of acks and deliveries by kind of fault.

A pause of acks is the time from submission to acknowledgement, one of deliveries the time from the acknowledgement
(or the client's first subscription to the key, when that was later) until a client had the event. A pause belongs to
a kind of fault when no other kind was at work during it, or in the SETTLE_NS before it.
"""
import collections
import json

SETTLE_NS = 2 * 10**9
SEVERAL, NONE = "several", "no fault"
LOOKED_AT = 50000  # the longest pauses; the longest of every kind is among them


def read(paths):
    for path in paths:
        with open(path) as file:
            for line in file:
                yield json.loads(line)


def figures(paths, windows):
    submitted, acked, first_seen = {}, {}, {}
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
    """{row: (seconds, faults at work)}"""
    found = {}
    for length, begin, end in sorted(pauses, reverse=True)[:LOOKED_AT]:
        at_work = [w for w in windows if w.begin <= end and w.end + SETTLE_NS >= begin]
        rows = {w.row for w in at_work}
        row = rows.pop() if len(rows) == 1 else SEVERAL if rows else NONE
        found.setdefault(row, (length / 1e9, at_work))
    return found


def table(rows, acks, deliveries):
    """Lines: the longest pauses of each row, and what was at work in the longest of all."""
    lines = ["longest pause, s       acks  deliveries"]
    for row in [*rows, SEVERAL, NONE]:
        if row in acks or row in deliveries:
            lines.append(f"  {row:17}" + "".join(f"{found[row][0]:9.2f}" if row in found else f"{'-':>9}" for found in (acks, deliveries)))
    for name, found in (("acks", acks), ("deliveries", deliveries)):
        if SEVERAL in found:
            lines.append(f"  several, {name}: " + ", ".join(f"{w.row} {(w.end - w.begin) / 1e9:.1f} s" for w in found[SEVERAL][1]))
    return lines
