"""The simulation of values that expire: they do so in every run, and engines that have it wrong are found."""

import datetime as dt

import pytest
import trio
from histories.audit import gather
from histories.lasting import Look
from histories.oracle import Oracle
from histories.submissions import Load
from histories.workload import AGENTS
from simulation.coverage import Coverage
from simulation.plan import draw_plan
from simulation.run import run_plan
from simulation.workers import run_bounded

from statehouse import Operation, ReplayEvent, StateResult
from statehouse.actors.latest import Latest
from statehouse.storage import expiries, keys, reading
from statehouse.storage.lineage import levels_of
from statehouse.storage.reading import Reading
from statehouse.storage.stored_value import exists_of

SEEDS = 150
"""Of these, each of the engines below fails in many."""
SECOND_NS = 1_000_000_000


def found_in(*what: str) -> int:
    """The first seed in which a violation says so."""
    for seed in range(SEEDS):
        violations = run_bounded(draw_plan(seed)).violations
        if any(each in violation for violation in violations for each in what):
            return seed
    pytest.fail(f"not found in {SEEDS} seeds")


def test_values_expire_in_the_load_and_are_read_and_deleted():
    total = Coverage()
    for seed in range(30):
        total.add(run_plan(draw_plan(seed)).coverage)
    for what in ("values written that expire", "expired values read as absent", "expired values deleted"):
        assert total.counts[what], what


def test_a_sweep_that_is_early_is_found(monkeypatch):
    is_due, sweep = Latest.is_due, expiries.sweep
    monkeypatch.setattr(Latest, "is_due", lambda latest, now_ns: is_due(latest, now_ns + SECOND_NS))
    monkeypatch.setattr(
        reading.expiries, "sweep", lambda view, after_ns, until_ns: sweep(view, after_ns, until_ns + SECOND_NS)
    )
    found_in("is deleted because it had expired, and its value lasts until")


def test_a_read_that_shows_what_has_expired_is_found(monkeypatch):
    monkeypatch.setattr(reading, "as_of", lambda stored, now_ns: stored)
    found_in("was shown, v", "a value that had expired")


def test_a_scan_that_shows_what_has_expired_is_found(monkeypatch):
    entry = reading.entry
    monkeypatch.setattr(reading, "shows", lambda stored, now_ns: exists_of(stored))
    monkeypatch.setattr(reading, "entry", lambda key, stored, fetch, now_ns: entry(key, stored, fetch))
    found_in("was shown, v", "a value that had expired")


def test_a_value_that_is_absent_too_early_is_found(monkeypatch):
    as_of = reading.as_of
    monkeypatch.setattr(reading, "as_of", lambda stored, now_ns: as_of(stored, now_ns + SECOND_NS))
    found_in("when it had not expired", "the state is")


def test_a_fork_that_is_not_swept_with_its_parent_is_found(monkeypatch):
    def alone(view, agent, values):
        yield expiries._expired(view, agent, levels_of(view, agent, keys.agent_prefix(agent)), values)

    monkeypatch.setattr(expiries, "_family", alone)
    found_in("and was never deleted")


def test_a_fork_that_keeps_what_had_expired_before_it_is_found(monkeypatch):
    monkeypatch.setattr(expiries, "_inherited", lambda *_: iter(()))
    found_in("and was never deleted")


def test_a_sweep_that_a_restart_does_not_go_on_with_is_found(monkeypatch):
    monkeypatch.setattr(Reading, "swept_until", lambda store: store.now_ns())
    found_in("and was never deleted")


def test_a_look_at_the_clock_shows_and_hides_what_it_may():
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    at_ns = int(at.timestamp()) * SECOND_NS
    state = StateResult({}, 1, 5, exists=True, expires_at=at)
    lasting = StateResult({}, 1, 5, exists=True)
    before, within, after = (
        Look.of(at_ns + began, at_ns + ended) for began, ended in ((-2000, -1), (-1, 1), (1000, 2000))
    )
    assert [(look.may_show(state), look.may_hide(state)) for look in (before, within, after)] == [
        (True, False),
        (True, True),
        (False, True),
    ]
    assert all(look.may_show(lasting) and not look.may_hide(lasting) for look in (before, within, after))
    for shown, may_hide in ((state, False), (StateResult({}, 1, 6, exists=True, expires_at=at), True), (lasting, True)):
        assert Look.of(at_ns - 1, at_ns + 1, [shown]).may_hide(state) == may_hide


class Sweeping:
    """A store that deletes what has expired while it is looked at, twice."""

    def __init__(self):
        self.events = [
            ReplayEvent("t1", 1, (Operation("x", {}, 1, 1), Operation("y", {}, 1, 1)), *AGENTS[0], self.time(1))
        ]
        self.left = ["x", "y"]

    @staticmethod
    def time(seconds):
        return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)

    def now_ns(self):
        return int(self.time(10).timestamp()) * SECOND_NS

    async def head(self):
        return self.events[-1].commit_ts

    async def scan(self, agent, prefix):
        await trio.lowlevel.checkpoint()
        return {}

    async def replay(self, agent, first_ts, last_ts=None):
        for event in self.events:
            if (event.namespace, event.agent_id) == agent and event.commit_ts >= first_ts:
                yield event
        if self.left:
            operation = Operation(self.left.pop(), None, 2, expired=True)
            commit_ts = len(self.events) + 1
            self.events.append(ReplayEvent(f"s{commit_ts}", commit_ts, (operation,), *AGENTS[0], self.time(commit_ts)))


async def test_all_is_looked_at_once_more_when_something_was_deleted_meanwhile():
    store, oracle = Sweeping(), Oracle()
    evidence = await gather(store, AGENTS[:1], Load(), oracle)
    assert [event.commit_ts for event in evidence.events] == [1, 2, 3]
    assert evidence.head_ts == 3
