#!/usr/bin/env python3
"""The probe in Lua and in C give the same results: twins.py stoa-room-test DIRECTORY-OF-LIBRARIES"""
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TESTS = HERE.parents[1] / "examples" / "probe" / "probe_test.lua"


def run(program, directory, probe):
    """(what it printed, what was asked and answered) of one of them; every case must be fine."""
    transcript = pathlib.Path(directory) / "transcript"
    env = {**os.environ, "TRANSCRIPT": str(transcript), **({"PROBE": probe} if probe else {})}
    r = subprocess.run([program, TESTS], env=env, text=True, capture_output=True, timeout=300)
    assert r.returncode == 0 and r.stderr == "", r.stdout + r.stderr
    return r.stdout.splitlines(), transcript.read_text(errors="replace").splitlines()


def main():
    program, libraries = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="stoa-test-") as directory:
        lua = run(program, directory, "")
        c = run(program, directory, f"{libraries}/probe.so")
    for name, a, b in (("printed", lua[0], c[0]), ("transcript", lua[1], c[1])):
        for line, (x, y) in enumerate(zip(a, b), 1):
            assert x == y, f"{name}, line {line}:\nLua: {x[:500]}\nC:   {y[:500]}"
        assert len(a) == len(b), f"{name}: {len(a)} lines in Lua, {len(b)} in C"
    assert len(lua[1]) > 400, len(lua[1])
    print(f"{lua[0][-1]}; {len(lua[1])} answers are the same")


main()
