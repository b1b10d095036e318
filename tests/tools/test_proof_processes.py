"""Processes of proofs: one that hangs or dies costs its case and no more, and a cancelled one leaves nothing."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import proof_processes
import pytest
import trio
from proof_processes import in_processes, with_parent

TOOLS = Path(__file__).resolve().parents[2] / "tools"
CASE_S = 2.0
"""What a case of next to nothing never takes, on a machine that is busy with something else too."""
WAIT_S = 60.0


def spin_in_a_nursery():
    """As an engine that goes round in circles: it catches whatever is raised in it."""

    async def spin():
        while True:
            try:
                while True:
                    pass
            except BaseException:  # noqa: BLE001
                continue

    async def both():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spin)
            nursery.start_soon(trio.sleep_forever)

    trio.run(both)


def run(case):
    match case:
        case "hangs":
            Path(tempfile.mkdtemp(), "left").touch()
            spin_in_a_nursery()
        case "dies":
            os._exit(7)
        case "leaves a child":
            if not os.fork():
                time.sleep(3)
                os._exit(0)
            os._exit(8)
        case "raises":
            raise KeyError(case)
        case "cannot be told":
            return run
    return case * 2


def test_a_case_that_hangs_dies_or_raises_is_told_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(proof_processes, "END_S", 2.0)  # the one that hangs catches SIGTERM too
    cases = ["a", "hangs", "b", "dies", "c", "raises", "d", "leaves a child", *"efgh"]
    with in_processes(run, cases, lambda _, why: f"failed: {why}", case_s=CASE_S) as outcomes:
        found = dict(outcomes)
    assert found.keys() == set(cases)
    assert found["hangs"] == "failed: it hangs: it has not ended after 2 s"
    assert found["dies"] == "failed: its process ended with exit code 7"
    assert found["leaves a child"] == "failed: its process ended with exit code 8"
    assert found["raises"].startswith("failed: it raised KeyError: 'raises' (")
    assert all(found[case] == case * 2 for case in "abcdefgh")


def told(_, why):
    return why


def test_what_cannot_be_pickled_is_told():
    with in_processes(lambda _: lambda: 0, ["a"], told, case_s=WAIT_S) as outcomes:
        [(_, outcome)] = outcomes
    assert "pickle" in outcome


def test_processes_end_with_the_block_and_their_directory_goes_with_them():
    with in_processes(lambda _: (os.getpid(), tempfile.mkdtemp()), range(4), told, case_s=WAIT_S) as outcomes:
        _, (pid, directory) = next(outcomes)
        assert Path(directory).is_dir()
    assert not Path(directory).parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PROGRAM = """
import ctypes, os, sys, tempfile, time, trio
from collections import deque
from functools import partial
from operator import call
from proof_processes import as_command, in_processes

def run(case):
    with tempfile.TemporaryDirectory(prefix="of-a-case-", dir=sys.argv[1]):
        os.write(1, f"{os.getpid()}\\n".encode())  # at once: two of them write to one pipe
        if sys.argv[2] == "between calls":  # Python sees no signal from the end of the first to that of the second
            deque(map(call, [ctypes.CDLL(None).pause, partial(time.sleep, 60)]))
        time.sleep(60)

async def wait():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()

def main():
    with tempfile.TemporaryDirectory(dir=sys.argv[1]):
        if sys.argv[2] == "trio":
            print(os.getpid(), flush=True)
            trio.run(wait, strict_exception_groups=True)
        with in_processes(run, range(2), print, case_s=60) as outcomes:
            list(outcomes)
    return 0

as_command(main)
"""


def started(directory, what, *, wrapped=lambda command: command):
    command = wrapped([sys.executable, "-c", PROGRAM, str(directory), what])
    return subprocess.Popen(
        command,
        cwd=TOOLS,
        env=os.environ | {"TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def gone(pid):
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("what", ["trio", "processes", "between calls"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_program_leaves_no_process_and_no_directory(tmp_path, what, how):
    with started(tmp_path, what) as program:
        pids = [int(program.stdout.readline()) for _ in range(1 if what == "trio" else 2)]
        program.send_signal(how)
        _, said = program.communicate(timeout=WAIT_S)
    assert (program.returncode, said) == (143, "cancelled\n")
    assert all(gone(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []


def test_processes_die_with_a_parent_that_is_killed(tmp_path):
    with started(tmp_path, "processes") as program:
        pids = [int(program.stdout.readline()) for _ in range(2)]
        program.kill()
    assert all(gone(pid) for pid in pids)


PARENT = """
import subprocess, sys, time
from proof_processes import with_parent
child = subprocess.Popen(with_parent([sys.executable, "-c", "import time; time.sleep(60)"]))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_command_dies_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=TOOLS, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
        assert gone(pid)
    ran = subprocess.run(with_parent([sys.executable, "-c", "import sys; sys.exit(3)"]), check=False)
    assert ran.returncode == 3
