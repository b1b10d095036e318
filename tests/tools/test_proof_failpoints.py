"""The proof of failpoints: the hook, the table against the comments, a few cases, and that it sees what is broken.

A process that has imported Statehouse can have no failpoints any more, and one that has threads makes no victims: what
needs either runs in a process of its own.
"""

import ast
import errno
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from failpoints.arming import EXIT_CODE, Action, Arm, Failpoints
from failpoints.cases import Acted, Case, first_round, missing, next_round, parse_case
from failpoints.hook import failpoints_in, install, with_calls
from failpoints.places import DEATHS, PLACES, Lead

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
PROOF = str(TOOLS / "proof_failpoints.py")
SOURCES = sorted(path for path in (ROOT / "statehouse").rglob("*.py") if "# failpoint: " in path.read_text())


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=TOOLS, capture_output=True, text=True, check=False)


# The comments, and the table of them


def test_every_comment_is_in_the_table_and_every_place_of_the_table_in_the_source_once():
    found = failpoints_in(ROOT / "statehouse")
    assert sorted(found) == sorted(PLACES)
    assert [name for name, where in found.items() if len(where) > 1] == []


def test_there_are_as_many_as_were_asked_for():
    assert len(PLACES) >= 25


def test_a_comment_that_is_nearly_a_failpoint_is_refused(tmp_path):
    (tmp_path / "a.py").write_text("x = 1  # failpoint: a.b\n")
    with pytest.raises(ValueError, match=r"a\.py:1"):
        failpoints_in(tmp_path)
    (tmp_path / "a.py").write_text("# Failpoint a.b\n")
    with pytest.raises(ValueError, match=r"a\.py:1"):
        failpoints_in(tmp_path)


def test_where_a_victim_is_to_end_it_can():
    assert all(Action.EXIT in PLACES[place].actions and PLACES[place].lead is Lead.LOAD for place in DEATHS)


# The hook


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_call_stands_on_the_line_of_its_comment_and_nothing_else_is_changed(path):
    source = path.read_text(encoding="utf-8")
    changed = with_calls(source)
    calls = {
        node.lineno: node
        for node in ast.walk(ast.parse(changed))
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("__failpoint__(")
    }
    for number, (before, after) in enumerate(zip(source.split("\n"), changed.split("\n"), strict=True), start=1):
        if number in calls:
            assert before.strip() == f"# failpoint: {ast.literal_eval(calls[number].value.args[0])}"
        else:
            assert before == after
    assert len(calls) == source.count("# failpoint: ")


def test_where_nobody_asks_for_them_there_is_no_code():
    code = "import dis, statehouse.storage.store as s; dis.dis(s.Store._commit); print(hasattr(s, '__failpoint__'))"
    ran = run("-c", code)
    assert ran.returncode == 0, ran.stderr
    assert "failpoint" not in ran.stdout.lower()
    assert ran.stdout.endswith("False\n")


def test_who_asks_for_them_has_them_and_leaves_no_trace_for_others():
    ran = run("-c", "from failpoints.here import activate; activate(); " + DISASSEMBLE)
    assert ran.returncode == 0, ran.stderr
    assert "__failpoint__" in ran.stdout
    assert "__failpoint__" not in run("-c", DISASSEMBLE).stdout  # from bytecode that the first might have left


DISASSEMBLE = "import dis, statehouse.storage.store as s; dis.dis(s.Store._commit)"


def test_asking_too_late_is_refused():
    with pytest.raises(RuntimeError, match="imported already"):
        install(lambda _: None)  # the tests have imported it


# What a failpoint does


@pytest.fixture
def failpoints() -> Failpoints:
    return Failpoints(("a.b", "c.d"))


def test_one_that_is_not_armed_only_counts(failpoints):
    failpoints.arm([Arm("a.b", Action.EIO)])
    failpoints.hit("c.d")
    failpoints.hit("c.d")
    assert failpoints.reached() == {"c.d": 2}


def test_one_that_is_armed_acts_at_its_hit_as_often_as_it_shall(failpoints):
    acted = []
    failpoints.arm([Arm("a.b", Action.ENOSPC, at_hit=2, times=2)], acted.append)
    failpoints.hit("a.b")
    for _ in range(2):
        with pytest.raises(OSError, match=r"a\.b") as caught:
            failpoints.hit("a.b")
        assert caught.value.errno == errno.ENOSPC
    failpoints.hit("a.b")
    assert [arm.place for arm in acted] == ["a.b", "a.b"]
    assert failpoints.reached() == {"a.b": 4}


@pytest.mark.parametrize(("softly", "code"), [(True, EXIT_CODE), (False, -signal.SIGKILL)])
def test_an_exit_leaves_nothing_to_be_done(softly, code):
    lines = (
        "from failpoints.arming import *",
        "f = Failpoints(('a.b',))",
        f"f.arm([Arm('a.b', Action.EXIT, softly={softly})])",
        "try: f.hit('a.b')",
        "finally: print('still there')",
    )
    ran = run("-c", "\n".join(lines))
    assert (ran.returncode, ran.stdout) == (code, "")


def test_leveldb_fails_with_an_error_of_its_own(failpoints):
    import plyvel

    failpoints.arm([Arm("a.b", Action.VIEW_FULL)])
    with pytest.raises(plyvel.IOError, match="No space left on device"):
        failpoints.hit("a.b")


# What is tried


def test_the_first_round_is_about_what_is_asked_for_and_the_next_the_rest():
    cases = first_round(20, ["commit.begun", "log.writing", "log.erasing"])
    assert len({case.name for case in cases}) == len(cases)
    tried = Acted((case.place, case.action) for case in cases)
    assert tried["commit.begun", Action.EXIT] == 12
    assert tried["log.writing", Action.EIO] == tried["log.writing", Action.ENOSPC] == 4
    assert tried["log.erasing", Action.STALL] == 4
    short = missing(20, ["commit.begun", "log.erasing"], tried)
    assert short == {("commit.begun", Action.STALL): 4, ("commit.begun", Action.EXIT): 4}
    assert [case.number for case in next_round(short, tried)] == [0, 1, 2, 3, 12, 13, 14, 15]


def test_a_case_is_known_by_its_name():
    case = Case("commit.begun", Action.EXIT, 7)
    assert parse_case(case.name) == case
    with pytest.raises(ValueError, match="no such"):
        parse_case("commit.beginning:EXIT:7")


# The proof itself


def test_a_few_cases(tmp_path):
    places = ("commit.synced", "log.syncing", "open.tail_cut", "recover.snapshot_loaded")
    ran = run(PROOF, "--times", "2", *(word for place in places for word in ("--place", place)))
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout  # the seed is in it
    rows = {line.split()[0]: line.split()[1:] for line in ran.stdout.splitlines() if line.startswith(places)}
    assert all(int(rows[place][0]) >= 2 for place in places)
    assert "daemons ended" in ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("passed")


def test_a_place_that_is_never_reached_fails_the_proof():
    ran = run("-c", BROKEN.format(defect=NEVER_REACHED), "--times", "1", "--place", "snapshot.begun")
    assert ran.returncode == 1, ran.stderr
    assert "snapshot.begun: exit only 0 times; the place was not reached often enough" in ran.stdout


BROKEN = """
import sys
from failpoints.here import activate
activate()
import proof_failpoints
proof_failpoints.activate = lambda: None
{defect}
sys.exit(proof_failpoints.main())
"""

NEVER_REACHED = """
from statehouse.storage.snapshot_keeper import SnapshotKeeper
SnapshotKeeper.due = lambda self: False
"""

ANSWERS_FIRST = """
import trio
from statehouse.actors.sequencer import Sequencer
async def turn(self):
    group = self._in_flight = self._take_group()
    if group:
        ordered = self._machine.order([message.commit for message in group], self._now_ns())
        self._machine.durable(ordered)
        for commit_ts, message in enumerate(group, start=ordered.first_commit_ts):
            message.reply.succeed(commit_ts)
        await trio.to_thread.run_sync(self._commit_group, ordered, limiter=self._thread)
        self._committed(ordered)
        self._in_flight = []
Sequencer._turn = turn
"""

LEAVES_WHAT_FAILED = """
from statehouse.storage.log_writer import LogWriter
LogWriter._erase = lambda self, start, size: None
"""

SYNCS_AGAIN = """
from statehouse.storage.log_writer import LogWriter
def sync(self):
    try:
        __failpoint__("log.syncing")
    except OSError:
        self._active.file.sync()
LogWriter._sync_active = sync
"""

FORGETS_NOTHING = """
from statehouse.actors.partition import PartitionMachine
PartitionMachine.forget_pending = lambda self: None
"""

STOPS_READING = """
from statehouse.errors import StorageError
from statehouse.storage.store import Store
get_state = Store.get_state
def get(self, agent, key):
    if self._log.poisoned:
        raise StorageError("the log is poisoned")
    return get_state(self, agent, key)
Store.get_state = get
"""

NOTES_FIRST = """
from statehouse.limits import SWEEP_KEYS
from statehouse.storage.expiries import Swept
from statehouse.storage.store import Store
sweep = Store.sweep
def steps(self, after_ns, until_ns):
    yield Swept(until_ns, SWEEP_KEYS)
    yield from sweep(self, after_ns, until_ns)
Store.sweep = steps
"""


def test_an_engine_that_is_unwell_by_itself_is_a_violation(tmp_path):
    said = tmp_path / "said.json"
    defect = "from statehouse.storage.store import Store\nStore.commit = None"
    ran = run("-c", BROKEN.format(defect=defect), "--seed", "7", "--place", "log.writing", "--json", str(said))
    assert (ran.returncode, "repeat: python tools/proof_failpoints.py --seed 7" in ran.stdout) == (1, True), ran.stderr
    (violation,) = json.loads(said.read_text("utf-8"))["violations"]
    assert "a victim that nothing was done to ended with" in violation


@pytest.mark.parametrize(
    ("defect", "place", "found"),
    [
        # What was answered and then fails is lost, or its versions are given again.
        # It may be unwell before anything is done to it, too.
        (
            ANSWERS_FIRST,
            "commit.begun",
            "was acknowledged at commit_ts|FOUND history-inconsistent|nothing was done to ended with",
        ),
        # An empty transaction leaves no event, but takes a commit_ts.
        (LEAVES_WHAT_FAILED, "log.written", r"was not committed, and is there|commit_ts \d+ is missing"),
        (SYNCS_AGAIN, "log.syncing", "(EIO|ENOSPC) at log.syncing, and the log took commits after it"),
        # What is left pending is counted on, and waited for: versions leave gaps, rows are those of another log.
        (
            FORGETS_NOTHING,
            "log.writing",
            "has version|FOUND row-wrong|the view is damaged|the store was not recovered|was still there after",
        ),
        (STOPS_READING, "log.syncing", "a read failed: StorageError: the log is poisoned"),
        # What was noted as deleted is not looked for after a restart.
        (NOTES_FIRST, "sweep.tombstones_sent", "and was never deleted"),
    ],
    ids=["answers first", "leaves what failed", "syncs again", "forgets nothing", "stops reading", "notes first"],
)
def test_an_engine_that_breaks_a_promise_is_caught(tmp_path, defect, place, found):
    # A defect shows in more than one way: of a few cases that fail, one shows this; only the first lines are printed.
    said = tmp_path / "said.json"
    options = ("--times", "80", "--failures", "5", "--place", place, "--json", str(said))
    ran = run("-c", BROKEN.format(defect=defect), *options)
    assert ran.returncode == 1, ran.stderr
    assert any(re.search(found, violation) for violation in json.loads(said.read_text("utf-8"))["violations"])
