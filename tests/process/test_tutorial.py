"""docs/rooms.md, followed to the letter: its files are written, its commands run, what they print is what it shows."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from cluster import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]


def blocks(text):
    """(language, name, text) of each block, in order."""
    return re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", text, re.M | re.S)


def steps(console):
    """(command, what it prints) of each `$ command`."""
    found = []
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def shown(lines, printed):
    """Whether the lines match: ... is anything."""
    pattern = "".join(".*\n?" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + "\n" for line in lines)
    return re.fullmatch(pattern, printed, re.S)


def run_tutorial(directory, bin_dir, page):
    port = free_port()
    env = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "STOA_GATEWAY_LISTEN": f"127.0.0.1:{port}",
           "STOA_SERVER": f"http://127.0.0.1:{port}"}
    commands = 0

    def run(command):
        return subprocess.run(command, shell=True, cwd=directory, env=env, text=True, capture_output=True, timeout=120)
    try:
        for language, name, text in blocks(page):
            if name:
                (directory / name).write_text(text)
                continue
            if language != "console":
                continue
            for command, wanted in steps(text):
                r = run(command)
                commands += 1
                assert r.returncode == 0, (command, r.stdout, r.stderr)
                assert shown(wanted, r.stdout), f"{command}\nprints:\n{r.stdout}\nthe page has:\n" + "\n".join(wanted)
    finally:
        if (directory / "data").exists():
            run("stoa down")
    return commands


def test_rooms(bin_dir):
    """From an empty file to a tested room."""
    page = (ROOT / "docs" / "rooms.md").read_text()
    page = page[page.index("## From an empty file"):]
    page = page[:page.index("\n## ", 3)]
    directory = pathlib.Path(tempfile.mkdtemp(prefix="stoa-tutorial-"))
    try:
        commands = run_tutorial(directory, pathlib.Path(bin_dir).resolve(), page)
        assert commands >= 11, commands
        for name in ("poll.lua", "poll_test.lua", "stoa.yaml"):
            assert (directory / name).read_text() == (ROOT / "examples" / "poll" / name).read_text(), f"examples/poll/{name} is another"
        return f"{commands} commands"
    finally:
        shutil.rmtree(directory)
