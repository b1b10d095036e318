"""The resumable agent: every recording comes back exactly, whatever dies and whichever answer is lost."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from daemon_process import DaemonProcess
from hypothesis import given
from hypothesis import strategies as st

from examples.resumable_agent import __main__ as command
from examples.resumable_agent import demo
from examples.resumable_agent.agent import RUN_KEY, Agent, AgentError
from examples.resumable_agent.exact import pack, unpack
from examples.resumable_agent.proof import NotProvenError, differences, prove
from examples.resumable_agent.recording import Recording, RecordingError, canonical, read_recording
from examples.resumable_agent.steps import RebuildError, commits_of, rebuild
from statehouse import ConnectionError, Statehouse, TransactionError
from statehouse.client.values import from_struct, to_struct
from statehouse.rpc.client.transport import Transport
from statehouse.v1 import statehouse_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "examples" / "resumable_agent" / "recordings" / "totals-of-a-spreadsheet.traj"
REAL = Path(os.environ.get("STATEHOUSE_TRAJECTORIES", ROOT.parent / "shared" / "data" / "trajectories"))
RECORDINGS = [OWN, *sorted(REAL.glob("*.json"))]

LIFE_S = 10.0
"""Of a transaction: on a machine that is busy with something else, a fraction of a second is soon over."""

every_recording = pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)


class Killed(Exception):  # noqa: N818
    """Stands for the death of the agent's process."""


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory):
    """One daemon for tests that do not hurt it; each uses an agent id of its own."""
    with DaemonProcess(tmp_path_factory.mktemp("shared") / "data") as daemon:
        yield daemon


@pytest.fixture
def client(shared_daemon):
    with Statehouse(shared_daemon.address) as client:
        yield client


@pytest.fixture
def agent_id(request):
    return request.node.name[:200]


@pytest.fixture
def recording():
    return read_recording(OWN)


def run_agent(client, agent_id, recording, say=lambda line: None, **options):
    """Nothing that an agent before it sent can still be committed, so it need not wait until that is so."""
    sleep = time.sleep
    with mock.patch("time.sleep", lambda seconds: sleep(0 if seconds == LIFE_S else seconds)):
        Agent(client, agent_id, recording, say=say, life_s=LIFE_S, patience_s=60, **options).run()


def commit(client, agent_id, values):
    with client.begin_transaction() as txn:
        for key, value in values.items():
            txn.write(agent_id, key, value)


# The recording, without a daemon


@every_recording
def test_a_recording_is_rebuilt_from_its_commits(path):
    recording = read_recording(path)
    values = {}
    for each in commits_of(recording):
        assert not values.keys() & each.values.keys()
        values |= each.values
    assert canonical(rebuild(values)) == canonical(recording.source)
    assert recording.source == json.loads(path.read_text(encoding="utf-8"))


@every_recording
def test_each_step_of_a_recording_is_a_commit(path):
    source = json.loads(path.read_text(encoding="utf-8"))
    turns = source.get("trajectory") or [each for each in source["history"] if each["role"] == "assistant"]
    first, *steps, last = commits_of(read_recording(path))
    assert len(steps) == len(turns) > 0
    assert "task" in first.values
    assert "final/answer" in last.values
    for number, (turn, step) in enumerate(zip(turns, steps, strict=True), 1):
        assert step.values[f"step/{number:04}"]["thought"] == turn["thought"]
        assert step.values[f"step/{number:04}"]["action"] == turn["action"]
        assert f"tool/{number:04}" in step.values


def message(role, n):
    return {"role": role, "content": f"message {n}", "n": float(n)}


@pytest.mark.parametrize(
    "source",
    [
        {"trajectory": []},
        {"history": []},
        {"trajectory": [], "history": []},
        {"trajectory": [{}], "info": None},
        {"trajectory": [{"thought": "no tool"}, {"observation": "nothing thought"}]},
        {"trajectory": [{"thought": "t"}], "history": [message("assistant", n) for n in range(5)]},
        {"trajectory": [{"thought": "t"}] * 4, "history": [message("user", 0), message("assistant", 1)]},
        {"trajectory": [], "history": [message("user", 0), message("assistant", 1)]},
        {"history": [message("assistant", 0), message("assistant", 1), message("tool", 2)]},
        {"history": [message("user", 0)], "info": {"a": 1.0}, "extra": [1, 1.0, True, None, -0.0, 1e300, 2**80]},
        {"history": [{"content": "\ud83d", "\udc00": {"a/b~c": 1.0}}], "a/b": {"~": [[1.0]]}, "": 0.0},
        {"trajectory": [{"thought": "\0", "state": {"x": []}, "execution_time": 3.0}], "steps": 7, "messages": [{}]},
    ],
    ids=lambda source: canonical(source)[:40],
)
def test_odd_recordings_are_rebuilt_too(source):
    values = {}
    for each in commits_of(Recording("odd", source)):
        for key, value in each.values.items():
            values[key] = over_the_wire(value)
    assert canonical(rebuild(values)) == canonical(source)


def test_what_is_missing_is_named(recording):
    values = {key: value for each in commits_of(recording) for key, value in each.values.items()}
    for key in ("task", "final/answer", "step/0004", "tool/0004"):
        left = {name: value for name, value in values.items() if name != key}
        with pytest.raises(RebuildError, match=key):
            rebuild(left)


texts = st.text(st.characters(), max_size=4)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
leaves |= st.sampled_from([0.0, -0.0, 1.0, 2.0**53, 2.0**60, 2**53, 2**53 + 1, "\ud83d", "\0", "~/", [], {}])
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


def over_the_wire(value):
    """As the client writes it and reads it back."""
    struct = pb.WriteRequest().value
    to_struct(value, struct)
    return from_struct(pb.WriteRequest(value=struct).value)


@given(st.dictionaries(texts, values, max_size=4), st.integers(0, 60), st.booleans())
def test_any_json_comes_back_exactly(value, levels, in_lists):
    for _ in range(levels):
        value = {"in": [value] if in_lists else value}
    plain, exact = pack(value)
    assert canonical(unpack(over_the_wire(plain), exact)) == canonical(value)


def test_exact_text_for_nothing_is_an_error():
    with pytest.raises(ValueError, match="/b"):
        unpack({"a": 1}, {"/b": "1.0"})


# Against a daemon


@every_recording
def test_a_recording_comes_back_from_replay(path, client, agent_id):
    recording = read_recording(path)
    run_agent(client, agent_id, recording)
    proof = prove(client, agent_id, recording)
    assert (proof.starts, proof.events, proof.sha256) == (1, len(commits_of(recording)) + 1, recording.sha256)
    run_agent(client, agent_id, recording)  # a second start finds everything done
    assert prove(client, agent_id, recording).events == proof.events + 1


def test_the_agent_and_the_daemon_are_killed_after_every_commit(daemon, recording):
    commits = commits_of(recording)
    for done in range(1, len(commits) + 1):
        said = []

        def die(line, *, said=said):
            said.append(line)
            if "commit_ts" in line:
                raise Killed

        with Statehouse(daemon.address) as client, pytest.raises(Killed):
            run_agent(client, "agent", recording, say=die)
        assert said[-1].startswith(commits[done - 1].title)
        assert len(said) == (1 if done == 1 else 2)  # it resumed at once, and did one step
        daemon.restart()
    with Statehouse(daemon.address) as client:
        run_agent(client, "agent", recording)
        assert prove(client, "agent", recording).starts == len(commits) + 1


@pytest.mark.parametrize("restarts", [False, True], ids=["same daemon", "daemon restarted"])
@pytest.mark.parametrize("lost", ["answer", "request"])
def test_no_step_is_done_twice_when_an_answer_is_lost(daemon, recording, monkeypatch, lost, restarts):
    """Every second commit is not answered: it happened, or it did not, and the daemon may have been killed since."""
    real_unary = Transport.unary
    commits = itertools.count()
    happened, sent = set(), []

    async def unary(self, method, request, **options):
        if method.name != "Commit":
            return await real_unary(self, method, request, **options)
        sent.append(request.txn_id)
        if sent.count(request.txn_id) > 1 or next(commits) % 2:
            return await real_unary(self, method, request, **options)
        if lost == "answer":
            await real_unary(self, method, request, **options)
            happened.add(request.txn_id)
        if restarts and next(restarts_left, False):
            daemon.restart()
        raise ConnectionError("the answer was lost")

    restarts_left = iter([True] * 3)
    monkeypatch.setattr(Transport, "unary", unary)
    said = []
    with Statehouse(daemon.address) as client:
        run_agent(client, "agent", recording, say=said.append)
        assert prove(client, "agent", recording).starts == 1
        committed = {event.txn_id for event in client.replay("agent")}
    assert happened <= committed
    assert len(sent) > len(set(sent))  # it did ask again, for the same transaction
    assert sum("doing it again" in line for line in said) == (3 if restarts and lost == "request" else 0)
    assert any("asked again: committed" in line for line in said)


def test_what_a_killed_agent_had_staged_cannot_be_committed_any_more(client, agent_id, recording):
    life_s = 1.0
    late = client.begin_transaction(timeout_ms=round(life_s * 1000))
    late.write(agent_id, "task", {"from": "the grave"})
    tried = []

    def commit_late(line):
        if not tried:
            tried.append(line)
            with pytest.raises(TransactionError, match="expired"):
                late.commit()

    Agent(client, agent_id, recording, say=commit_late, life_s=life_s).run()
    assert tried[0].startswith("task -> commit_ts")
    prove(client, agent_id, recording)


def test_what_a_killed_agent_had_committed_unseen_is_not_done_again(client, agent_id, recording, monkeypatch):
    """Its last commit happens while the next agent waits: that one begins after it."""
    late = client.begin_transaction(timeout_ms=10_000)
    for key, value in commits_of(recording)[0].values.items():
        late.write(agent_id, key, value)
    monkeypatch.setattr("examples.resumable_agent.agent.time.sleep", lambda _: late.commit())
    said = []

    def die(line):
        said.append(line)
        raise Killed

    with pytest.raises(Killed):
        run_agent(client, agent_id, recording, say=die)
    assert "of the run's 11 commits 1 are there" in said[0]


def test_patience_has_an_end(recording, monkeypatch):
    now_s = itertools.count()
    monkeypatch.setattr("examples.resumable_agent.patience.time.monotonic", lambda: float(next(now_s)))
    monkeypatch.setattr("examples.resumable_agent.patience.time.sleep", lambda _: None)
    said = []
    with Statehouse("127.0.0.1:1") as client, pytest.raises(ConnectionError):
        Agent(client, "agent", recording, say=said.append, patience_s=5, life_s=0.0).run()
    assert len(said) == 1
    assert "trying again for up to 5 s" in said[0]


# The proof can fail


def test_a_step_done_twice_is_not_proven(client, agent_id, recording):
    for each in commits_of(recording):
        commit(client, agent_id, each.values)
        if each.number == 3:
            commit(client, agent_id, each.values)
    with pytest.raises(NotProvenError) as caught:
        prove(client, agent_id, recording)
    assert any("v2" in problem for problem in caught.value.problems)


@pytest.mark.parametrize("number", [0, 1, 5, 10])
def test_a_commit_left_out_is_not_proven(client, agent_id, recording, number):
    for each in commits_of(recording):
        if each.number != number:
            commit(client, agent_id, each.values)
    with pytest.raises(NotProvenError):
        prove(client, agent_id, recording)


def test_steps_in_another_order_are_not_proven(client, agent_id, recording):
    commits = commits_of(recording)
    for each in (*commits[:3], commits[4], commits[3], *commits[5:]):
        commit(client, agent_id, each.values)
    with pytest.raises(NotProvenError, match="step 3/9"):
        prove(client, agent_id, recording)


def test_another_recording_is_not_proven(client, agent_id, recording):
    run_agent(client, agent_id, recording)
    source = json.loads(json.dumps(recording.source))
    source["trajectory"][3]["execution_time"] = 1  # it was 1.0
    with pytest.raises(NotProvenError, match=r"/trajectory/3/execution_time: 1 became 1\.0"):
        prove(client, agent_id, Recording(recording.name, source))


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (1, 1.0, [": 1 became 1.0"]),
        (True, 1, [": true became 1"]),
        ({"a": [0, None]}, {"a": [0, ""]}, ['/a/1: null became ""']),
        ({"a": 1}, {"b": 1}, [': {"a": 1} became {"b": 1}']),
        ([1], [1, 2], [": [1] became [1, 2]"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
    ],
)
def test_differences(one, other, told):
    assert differences(one, other) == told


# The command


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"history": [], "n": NaN}', "NaN is not a number"),
        (b'{"history": [], "n": 1e400}', "1e400"),
        (b'{"history": [], "n": 1, "n": 2}', "'n' twice"),
        (b"[]", "not a JSON object"),
        (b"{}", "neither `trajectory` nor `history`"),
        (b'{"trajectory": {}}', "`trajectory` is not a list of objects"),
        (b'{"history": ["hello"]}', "`history` is not a list of objects"),
        (b'{"history": null}', "`history` is not a list of objects"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_not_a_recording_is_one_line(tmp_path, capsys, content, why):
    path = tmp_path / "run.traj"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError):
        read_recording(path)
    assert command.main([str(path), "--address", "127.0.0.1:1"]) == 2
    line = capsys.readouterr().err
    assert why in line
    assert line.startswith(f"resumable_agent: {path}: ")
    assert line.count("\n") == 1


def test_the_command(shared_daemon, capsys, agent_id):
    arguments = [str(OWN), "--address", shared_daemon.address, "--agent-id", agent_id, "--transaction-life", "0.2"]
    assert command.main([*arguments, "--timeline"]) == 0
    out = capsys.readouterr().out
    assert "step 9/9: submit -> commit_ts " in out
    assert f"agent={agent_id}  FINAL  key=final/answer  v=1" in out
    assert "rebuilt from replay, the recording is the same" in out
    assert command.main([*arguments, "--prove-only"]) == 0


def test_the_command_when_nothing_is_proven(shared_daemon, capsys, agent_id):
    arguments = [str(OWN), "--address", shared_daemon.address, "--agent-id", agent_id, "--prove-only"]
    assert command.main(arguments) == 1
    assert "NOT PROVEN: " in capsys.readouterr().err


def test_the_command_without_a_daemon(capsys):
    arguments = [str(OWN), "--address", "127.0.0.1:1", "--patience", "0", "--transaction-life", "0.1"]
    assert command.main(arguments) == 3
    assert capsys.readouterr().err.startswith("resumable_agent: cannot connect to 127.0.0.1:1")
    assert command.main([str(OWN), "--address", "nowhere"]) == 2


def test_an_agent_id_that_is_in_use(shared_daemon, client, capsys, tmp_path, agent_id, recording):
    run_agent(client, agent_id, recording)
    other = tmp_path / "other.traj"
    other.write_text(json.dumps({**recording.source, "environment": "another"}))
    arguments = [str(other), "--address", shared_daemon.address, "--agent-id", agent_id, "--transaction-life", "0.2"]
    assert command.main(arguments) == 2
    assert "carries out another recording: totals-of-a-spreadsheet" in capsys.readouterr().err
    commit(client, "stranger", {"memory": {"a": 1}})
    with pytest.raises(AgentError, match="'memory'"):
        run_agent(client, "stranger", recording)
    assert client.get_state("stranger", RUN_KEY).version == 1


@pytest.mark.parametrize("text", ["-1", "nan", "soon", "1e9"])
def test_bad_seconds(text, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main([str(OWN), "--work", text])
    assert caught.value.code == 2
    assert f"{text!r} is not a number of seconds" in capsys.readouterr().err


def test_the_demo():
    ran = subprocess.run(
        [sys.executable, "-m", "examples.resumable_agent.demo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    for part in (
        ", the daemon\n",
        ", the agent\n",
        "agent   resuming: ",
        "agent   proven: ",
        "demo    replay gives the recording back",
        "  FINAL  key=final/answer  v=1",
    ):
        assert part in ran.stdout


def test_the_demo_fails_when_there_is_nobody_to_kill(monkeypatch, capsys):
    monkeypatch.setattr(demo, "AGENT_DIES_AFTER", "no such line")
    assert demo.main() == 1
    assert "FAILED: the agent ended before 'no such line'" in capsys.readouterr().out
