"""The proof that replay is the state: a small run passes, and folds and engines that are wrong are caught."""

import json
import random
from contextlib import nullcontext
from itertools import count

import proof_replay
import pytest
import trio
from attrs import evolve
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from proof_report import ProofReport
from replay_states import fold, running, stores
from replay_states.drawing import AGENTS, draw_history
from replay_states.json_values import SIZES, draw_value, encoded_object
from replay_states.one_process import Outcome, outcomes

from statehouse.actors.engine import Engine
from statehouse.actors.sweeping import Sweeper
from statehouse.rpc.server.struct_value import check_struct
from statehouse.storage import keys, lineage, stored_value
from statehouse.storage.store import Store
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

A_FEW = (40, 21)  # seeds that a history on a real LevelDB is among
DROPPED_ROWS = 20


def violations():
    return [violation for outcome in outcomes(*A_FEW) for violation in outcome.violations]


def test_a_small_run_passes(tmp_path, capsys):
    report = tmp_path / "report.json"
    seed, histories = A_FEW
    exit_code = proof_replay.main(["--seed", f"{seed}", "--histories", f"{histories}", "--json", str(report)])
    assert exit_code == 0, capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["passed"]
    tried = found["tried"]
    assert tried["histories"] == histories
    assert tried["of them on a real LevelDB"] == 2
    for what in (
        "commits of several agents",
        "empty commits",
        "starts from the snapshot",
        "starts from the log",
        "forks",
        "ends",
        "of them with what had expired and was not deleted yet",
        "commits that deleted what had expired",
    ):
        assert tried[what] > 0, what
    assert tried["states compared with a read at that moment"] > 200


# What is drawn


def test_a_seed_gives_one_history():
    assert draw_history(7) == draw_history(7)
    assert draw_history(7) != draw_history(8)


def test_values_are_what_the_edge_lets_through_and_have_the_sizes_that_matter():
    rng = random.Random(1)
    drawn = [draw_value(rng) for _ in range(500)]
    for value in drawn:
        check_struct(value)
    assert set(SIZES) <= {len(value) for value in drawn}


def test_values_are_encoded_as_the_contract_says():
    value = {"b": [1, -0.5, [], {}], "a": {"deep": {"": None}}, "é": "x" * 200, "yes": True, "no": False}
    assert MessageToDict(Struct.FromString(encoded_object(value))) == value


# The fold


def test_the_fold_gives_what_protobuf_would_encode():
    agent = AgentId("n", "a")
    value = Struct()
    value["x"] = 1
    state = fold.AgentState(agent)
    event = pb.ReplayEvent(txn_id="t", commit_ts=300, namespace="n", agent_id="a")
    event.committed_at.FromNanoseconds(5_000_000_007)
    event.operations.add(key="k", value=value, version=1)
    event.operations.add(key="gone", version=1)
    event.operations.add(key="k", value=Struct(), version=2)
    read = fold.read_event(event.SerializeToString())
    assert (read.txn_id, read.committed_at) == (b"t", (5, 7))
    state.fold(read)
    assert state.responses == {
        b"k": pb.GetStateResponse(value=Struct(), version=2, commit_ts=300, exists=True).SerializeToString(),
        b"gone": pb.GetStateResponse(version=1, commit_ts=300).SerializeToString(),
    }
    assert state.entries == {b"k": pb.StateEntry(key="k", value=Struct(), version=2, commit_ts=300).SerializeToString()}


def test_the_fold_of_what_expires_gives_what_protobuf_would_encode():
    agent = AgentId("n", "a")
    state = fold.AgentState(agent)
    event = pb.ReplayEvent(txn_id="t", commit_ts=300, namespace="n", agent_id="a")
    event.committed_at.FromNanoseconds(5_000_000_007)
    event.operations.add(key="k", value=Struct(), version=1, ttl_s=9)
    state.fold(fold.read_event(event.SerializeToString()))
    expected = pb.GetStateResponse(value=Struct(), version=1, commit_ts=300, exists=True)
    expected.expires_at.FromNanoseconds(14_000_000_007)
    entry = pb.StateEntry(key="k", value=Struct(), version=1, commit_ts=300, expires_at=expected.expires_at)
    assert state.responses == {b"k": expected.SerializeToString()}
    assert state.entries == {b"k": entry.SerializeToString()}
    assert state.expired((14, 6)) == {}
    assert state.expired((14, 7)) == {b"k": pb.GetStateResponse(version=1, commit_ts=300).SerializeToString()}


EXPIRED = fold.FoldedOperation(b"k", None, 2, expired=True)


@pytest.mark.parametrize(
    ("ttl_s", "follows", "says"),
    [
        (0, EXPIRED, "and has not"),
        (9, EXPIRED, "and has not"),
        (8, EXPIRED._replace(key=b"l", version=1), "and has not"),
        (8, EXPIRED._replace(value=b""), "and has not"),
        (8, EXPIRED, None),
    ],
)
def test_the_fold_has_deleted_what_has_expired_and_nothing_else(ttl_s, follows, says):
    agent = AgentId("n", "a")
    state = fold.AgentState(agent)
    state.fold(fold.Event(b"t", 5, agent, (1, 0), (fold.FoldedOperation(b"k", b"", 1, ttl_s),)))
    sweep = fold.Event(b"u", 6, agent, (9, 0), (follows,))
    assert sweep.sweeps
    with nullcontext() if says is None else pytest.raises(fold.EventError, match=says):
        state.fold(sweep)
    assert says is not None or state.entries == state.expiring == {}


def test_what_deletes_what_has_expired_does_nothing_else():
    event = fold.Event(b"t", 5, AgentId("n", "a"), (1, 0), (EXPIRED, fold.FoldedOperation(b"l", b"", 1)))
    with pytest.raises(fold.EventError, match="and more"):
        _ = event.sweeps


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"agent": AgentId("n", "b")}, "in the replay of"),
        ({"commit_ts": 4}, "commit_ts 4 after 5"),
        ({"committed_at": (0, 9)}, "was committed before"),
        ({"operations": (fold.FoldedOperation(b"k", None, 3),)}, "has version 3, and should 2"),
    ],
)
def test_the_fold_refuses_an_event_that_cannot_come_next(changes, says):
    first = fold.Event(b"t", 5, AgentId("n", "a"), (1, 0), (fold.FoldedOperation(b"k", b"", 1),))
    follows = fold.Event(b"u", 6, AgentId("n", "a"), (1, 0), (fold.FoldedOperation(b"k", None, 2),))
    state = fold.AgentState(first.agent)
    state.fold(first)
    with pytest.raises(fold.EventError, match=says):
        state.fold(evolve(follows, **changes))
    state = fold.AgentState(first.agent)
    state.fold(first)
    state.fold(follows)
    assert state.entries == {}


@pytest.mark.parametrize("encoded", [b"\x0a\x05abc", b"\x08", b"\x09\x00\x00\x00\x00\x00\x00\x00\x00", b"\x18\x01"])
def test_what_is_no_event_is_refused(encoded):
    with pytest.raises(fold.EventError):
        fold.read_event(encoded)


# What has to be caught


def test_a_fold_that_forgets_deletes_is_caught(monkeypatch):
    apply = fold.AgentState._apply

    def forgets(self, operation, expiry):
        entry = self.entries.get(operation.key)
        apply(self, operation, expiry)
        if operation.value is None and entry is not None:
            self.entries[operation.key] = entry

    monkeypatch.setattr(fold.AgentState, "_apply", forgets)
    assert any("the keys listed are" in violation for violation in violations())


@pytest.mark.parametrize("column", [keys.STATE, keys.VERSION, keys.EVENT])
def test_a_view_that_drops_a_write_now_and_then_is_caught(monkeypatch, column):
    apply = stores.KeptView.apply
    columns = tuple(keys.agent_prefix(agent) + column for agent in AGENTS)
    rows = count(1)
    dropped = []

    def drops_some(self, writes):
        batch = list(writes)
        for write in list(batch):
            if write[0].startswith(columns) and not next(rows) % DROPPED_ROWS:
                dropped.append(write)
                batch.remove(write)
        apply(self, batch)

    monkeypatch.setattr(stores.KeptView, "apply", drops_some)
    assert violations()
    assert dropped


def test_a_replay_that_leaves_an_event_out_is_caught(monkeypatch):
    replay = Engine.replay

    async def forgets_the_fifth(self, arguments):
        async for chunk in replay(self, arguments):
            yield [event for event in chunk if pb.ReplayEvent.FromString(event).commit_ts != 5]

    monkeypatch.setattr(Engine, "replay", forgets_the_fifth)
    assert any("are not what was sent" in violation for violation in violations())


def test_a_fork_that_has_what_came_after_its_point_is_caught(monkeypatch):
    ancestors = lineage.ancestors

    def endless(view, agent, prefix):
        for step in ancestors(view, agent, prefix):
            yield step._replace(at_ts=lineage.NO_END)

    monkeypatch.setattr(lineage, "ancestors", endless)
    assert violations()


def test_a_fork_with_the_past_of_another_moment_is_caught(monkeypatch):
    get_state_at = Engine.get_state_at

    async def one_later(self, agent, key, at_ts):
        return await get_state_at(self, agent, key, at_ts + agent.agent_id.startswith("fork"))

    monkeypatch.setattr(Engine, "get_state_at", one_later)
    assert any("what is read is not the fold" in violation for violation in violations())


def test_an_agent_that_has_a_past_before_it_was_forked_is_caught(monkeypatch):
    get_state = Engine.get_state

    def early(self, agent, key):
        return get_state(self, AGENTS[0] if agent.agent_id.startswith("fork") else agent, key)

    monkeypatch.setattr(Engine, "get_state", early)
    assert any("reads" in violation for violation in violations())


def test_what_has_expired_and_is_never_deleted_is_caught(monkeypatch):
    async def does_nothing(_):
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Sweeper, "_sweep", does_nothing)
    assert any("it has expired, and was not deleted" in violation for violation in violations())


def test_a_read_that_shows_what_has_expired_is_caught(monkeypatch):
    monkeypatch.setattr(stored_value, "expiry_of", lambda _: 1 << 64)
    assert any("and the fold gives" in violation for violation in violations())


def test_a_read_with_another_encoding_of_the_same_value_is_caught(monkeypatch):
    get_state = Store.get_state

    def encoded_anew(self, agent, key, *point):
        return pb.GetStateResponse.FromString(get_state(self, agent, key, *point)).SerializeToString(deterministic=True)

    monkeypatch.setattr(Store, "get_state", encoded_anew)
    assert any("and the fold gives" in violation for violation in violations())


def test_a_version_that_gives_the_latest_value_is_caught(monkeypatch):
    at_version = Store.get_state_at_version

    def latest(self, agent, key, version):
        return at_version(self, agent, key, version) and self.get_state(agent, key)

    monkeypatch.setattr(Store, "get_state_at_version", latest)
    assert any("at version" in violation for violation in violations())


def test_a_history_that_breaks_off_is_told_with_its_seed(monkeypatch):
    def breaks(*_):
        raise RuntimeError("planted")

    monkeypatch.setattr(Store, "list_keys", breaks)
    assert violations()[0] == "seed 40: RuntimeError: planted"


# Two processes


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (Outcome(3, "other", []), "came to same and other"),
        (Outcome(3, "same", ["what is wrong"]), "what is wrong"),
        (None, "ended before"),
    ],
)
def test_processes_that_do_not_agree_are_a_violation(second, says):
    report = ProofReport("replay")
    proof_replay.compare(report, 3, [Outcome(3, "same", []), Outcome(3, "same", [])])
    assert not report.violations
    proof_replay.compare(report, 3, [Outcome(3, "same", []), second])
    [violation] = report.violations
    assert says in violation


def test_the_digest_is_of_the_log_too(monkeypatch):
    """Whatever is written in other bytes is seen, though every state is the same."""
    [before], [again] = outcomes(41, 1), outcomes(41, 1)
    assert before == again
    monkeypatch.setattr(running, "START_NS", running.START_NS + 1)
    [later] = outcomes(41, 1)
    assert later.digest != before.digest
    assert (later.counts, later.violations) == (before.counts, [])
