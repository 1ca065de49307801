#!/usr/bin/env python3
"""What the test runner says of cases that fail: check.py stoa-room-test"""
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TRACE = """        info  room.print key=probe:x text="about to fail"
        warn  room.failed key=probe:x phase=event tag=RoomExecutionError error="probe.lua:58: as asked
          stack traceback:"""
WANTED = {  # what a line is, or begins with
    "FAIL  compares: failing.lua:5: values: got {\"a\":1}, wanted {\"a\":2,\"b\":null}",
    "FAIL  a room's error: failing.lua:9: Nope (418): no",
    "FAIL  an assertion: failing.lua:17: no",
    "FAIL  no error: failing.lua:21: no error, wanted RoomError",
    "FAIL  another error: failing.lua:26: got the error RoomExecutionError (500): the room's handler failed, wanted RoomError",
    "FAIL  a file that does not load: failing.lua:32: broken.lua: field 'on_event' is a number; it must be a function",
    "FAIL  a wish that nobody sees: failing.lua:36: id: not something that identify sees",
    "FAIL  a type that the file is not: failing.lua:40: handler: not a field of a room type that a test may set",
    "ok    what is fine",
    "FAIL  failing.lua: failing.lua:45: behind the cases",
    "10 cases, 9 failed",
}


def run(program, *files):
    return subprocess.run([program, *files], cwd=HERE, text=True, capture_output=True, timeout=60)


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    r = run(program, "failing.lua")
    said = {line for line in r.stdout.splitlines() if not line.startswith(" ")}
    assert said == WANTED, f"missing {WANTED - said}, not wanted {said - WANTED}"
    assert TRACE in r.stdout, r.stdout
    assert r.returncode == 1 and r.stderr == "", r

    r = run(program, "probe_test.lua", "absent.lua")
    assert r.returncode == 1 and "FAIL  absent.lua: cannot open absent.lua" in r.stdout, r
    r = run(program, "probe.lua")  # no test file
    assert r.returncode == 1 and "module 'room' not found" in r.stdout, r
    r = run(program)
    assert r.returncode == 2 and r.stderr.startswith("usage: stoa room test FILE.lua"), r

    shown = (ROOT / "docs/testing-rooms.md").read_text().split("```lua\n")[1].split("```")[0]
    assert shown == (ROOT / "examples/poll/poll_test.lua").read_text(), "docs/testing-rooms.md shows another poll_test.lua"
    print("fine")


main()
