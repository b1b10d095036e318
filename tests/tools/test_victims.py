"""Victims: what reaches their parent, also when they are ended amid a word."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
from victims.pace import QuickClock, wall_ns
from victims.pipe import SilentError, Teller, hear

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def ends():
    reading, writing = os.pipe()
    open_ends = {reading, writing}

    def close(descriptor: int) -> None:
        open_ends.remove(descriptor)
        os.close(descriptor)

    yield reading, writing, close
    for descriptor in open_ends:
        os.close(descriptor)


def test_what_was_told_is_heard_in_order(ends):
    reading, writing, close = ends
    teller = Teller(writing)
    teller.tell("sent", "t1", 7)
    teller.tell("acknowledged", "t1", 8)
    close(writing)
    assert list(hear(reading, 1)) == [("sent", "t1", 7), ("acknowledged", "t1", 8)]


@pytest.mark.parametrize("left", [1, 3, 4, 5, 20])
def test_the_beginning_of_a_last_word_is_dropped(ends, left):
    reading, writing, close = ends
    teller = Teller(writing)
    teller.tell("sent", "t1", 7)
    frame = pickle.dumps(("acknowledged", "t1", 8))
    os.write(writing, (len(frame).to_bytes(4, "big") + frame)[:left])
    close(writing)
    assert list(hear(reading, 1)) == [("sent", "t1", 7)]


def test_one_that_says_nothing_and_does_not_end_is_not_waited_for(ends):
    reading, _, _ = ends
    with pytest.raises(SilentError):
        list(hear(reading, 0.05))


LIVES = """
import os, signal, sys, tempfile
from pathlib import Path
from histories.oracle import Oracle
from victims.victim import *

def ended(teller, after):
    def tell(what, *details):
        type(teller).tell(teller, what, *details)
        if what == "acknowledged" and details[1] == after:
            os.kill(os.getpid(), signal.SIGKILL)
    teller.tell = tell

directory = Path(tempfile.mkdtemp(dir=sys.argv[1]))
oracle = Oracle()
one = run_victim(directory, 1, before=lambda teller: ended(teller, 40))
print(one.exit_code, one.load.newest_ts >= 40, one.troubles, recover_and_judge(directory, oracle, one.load))
two = run_victim(directory, 2, floor_ts=oracle.newest_ts)
two.load.submissions.pop(next(i for i, s in enumerate(two.load.submissions) if s.operations and s.commit_ts))
print(two.exit_code, two.troubles, [v.split(":")[-1] for v in recover_and_judge(directory, oracle, two.load)])

def broken(teller):
    raise RuntimeError("no victim to be")
three = run_victim(directory, 3, before=broken)
print(three.exit_code, three.troubles[0].splitlines()[-1])
"""


def test_what_a_victim_was_told_before_its_end_is_held_against_what_it_leaves(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", LIVES, str(tmp_path)], cwd=TOOLS, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    killed, forged, broken = ran.stdout.splitlines()
    assert killed == "-9 True [] []"
    assert "was never sent" in forged
    assert broken == "1 RuntimeError: no victim to be"


def test_time_passes_as_many_times_as_fast_by_both_clocks():
    clock = QuickClock(1_000)
    began_ns, began_s = wall_ns(1_000), clock.current_time()
    real_ns = time.monotonic_ns()
    while (passed_ns := time.monotonic_ns() - real_ns) < 10**6:
        pass
    assert clock.current_time() - began_s >= passed_ns * 1_000 / 10**9
    assert wall_ns(1_000) - began_ns >= passed_ns * 900  # the wall clock may be corrected meanwhile
    assert clock.deadline_to_sleep_time(clock.current_time() + 5_000) <= 5


UNHEARD = """
import os, sys, time
from pathlib import Path
from victims import victim

def breaks(*_):
    raise LookupError("what was told cannot be noted")
victim._note = breaks

def before(teller):
    teller.tell("pid", os.getpid())
    time.sleep(240)  # longer than whoever waits for it would

try:
    victim.run_victim(Path(sys.argv[1]), 1, before=before)
except LookupError:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        print("nobody is left")
"""


def test_a_victim_whose_parent_fails_is_ended(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", UNHEARD, str(tmp_path)],
        cwd=TOOLS,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "nobody is left\n", "")
