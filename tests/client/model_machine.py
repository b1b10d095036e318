"""A state machine that drives a daemon through the public client, and holds every answer against a `Model`.

The daemon and the client outlive an example: each has namespaces of its own, in which nothing was written before.
Nobody else commits meanwhile, so that the model also knows every commit_ts.
"""

import itertools
import shutil
import time
from contextlib import nullcontext
from functools import partial

import pytest
from attrs import define, evolve, field
from client.model import Model, ModelTxn, TxnState, exact
from client.model_draws import (
    AGENTS,
    KEYS,
    NAMESPACES,
    SHORT_S,
    agents,
    checks,
    keys,
    namespaces,
    offsets,
    prefixes,
    several,
    staged,
    values,
)
from client.model_judge import Judge
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from statehouse import ErrorCode, Precondition, Put, Remove, TransactionError
from statehouse.types import AgentId

RESTARTS_AT_MOST = 1
"""In one example: a start takes as long as some hundred calls."""
OPEN_AT_MOST = 4
EXPIRIES_AT_MOST = 1
"""Of transactions."""
WAITS_AT_MOST = 1
PATIENCE_S = 30.0
TIMEOUT_MS = 3_600_000
"""Of transactions that must not expire, however busy this machine is."""


@define
class World:
    """What outlives an example: the client, and for a store that may be restarted its daemon."""

    client: object
    restartable: object | None = None
    notes_owed: int = 0
    """See `Model`; what expired in one example may be noted in the next."""
    examples: itertools.count = field(factory=lambda: itertools.count(1))


class StoreMachine(RuleBasedStateMachine):
    """The rules are what a client may do, the invariant is that it sees what the model has."""

    under_way = Bundle("under way")
    """Open transactions; after a restart also lost ones."""
    ended = Bundle("ended")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.client = world.client
        example = next(world.examples)
        self.names = [name.format(example) for name in NAMESPACES]
        self.agents = [AgentId(namespace, agent_id) for namespace in self.names for agent_id in AGENTS]
        self.turns = itertools.cycle(self.agents)
        self.touched: set[AgentId] = set()
        """Where the last step may have changed something."""
        self.txns: list[ModelTxn] = []
        self.restarts = self.expiries = self.transacts = self.waits = 0
        self.model = Model(head_ts=0, notes_owed=world.notes_owed)
        self.judge = Judge(self.client, self.model, self.agents)

    @initialize()
    def learn_the_newest_commit(self):
        self.model.head_ts = self.judge.commit_nothing()

    # Transactions

    @precondition(lambda self: sum(txn.state is TxnState.OPEN for txn in self.txns) < OPEN_AT_MOST)
    @rule(target=under_way, namespace=namespaces)
    def begin(self, namespace):
        return self._begin(namespace)

    @initialize(target=under_way, namespace=namespaces)
    def begin_the_first(self, namespace):
        return self._begin(namespace)

    @rule(txn=under_way, operations=several)
    def stage(self, txn, operations):
        for operation in operations:
            self._stage(txn, operation)

    @rule(target=ended, txn=consumes(under_way), operations=several | st.just([]), own_handle=st.booleans())
    def commit(self, txn, operations, own_handle):
        """With some more operations."""
        self.stage(txn, operations)
        if txn.state is not TxnState.OPEN:
            self._refused(txn, self._other_handle(txn).commit)
        elif own_handle:
            self._committed(txn, txn.handle.commit())
            for again in (txn.handle.commit, txn.handle.abort, partial(txn.handle.write, "a", "k", {})):
                self._refused(txn, again, commit_ts_told=False)
        else:
            self._committed(txn, self._other_handle(txn).commit())
        return txn

    @rule(target=ended, txn=consumes(under_way))
    def abort(self, txn):
        self._abort(txn)
        return txn

    @rule(txn=ended, operation=staged)
    def use_what_has_ended(self, txn, operation):
        """It was committed, also before a restart, or aborted, expired or lost."""
        self._stage(txn, operation)
        self._refused(txn, self._other_handle(txn).commit)
        if txn.state is TxnState.COMMITTED:
            self._refused(txn, self._other_handle(txn).abort)
        else:
            self._abort(txn)

    @precondition(lambda self: self.expiries < EXPIRIES_AT_MOST)
    @rule(target=ended, namespace=namespaces)
    def begin_one_that_expires(self, namespace):
        self.expiries += 1
        txn = self._begun(
            ModelTxn(self.client.begin_transaction(1, self.names[namespace], local=False), TxnState.EXPIRED)
        )
        give_up_s = time.monotonic() + PATIENCE_S
        with pytest.raises(TransactionError) as caught:  # noqa: PT012  any of the writes
            while time.monotonic() < give_up_s:
                txn.handle.write("a", "k", {"written": "too late"})
        assert caught.value.code is ErrorCode.TXN_EXPIRED
        return txn

    @rule(namespace=namespaces, operations=several | st.just([]), raises=st.sampled_from((False, False, False, True)))
    def block(self, namespace, operations, raises):
        """A transaction as a `with` statement has it: committed, or aborted when the block raises."""
        left = pytest.raises(LeaveError) if raises else nullcontext()
        with left, self.client.begin_transaction(TIMEOUT_MS, self.names[namespace], local=False) as handle:
            txn = self._begun(ModelTxn(handle))
            for operation in operations:
                self._stage(txn, operation)
            if raises:
                raise LeaveError
        if raises:
            txn.state = TxnState.ABORTED
            self._refused(txn, handle.commit)
        else:
            self._committed(txn)

    @rule(namespace=namespaces, operations=several | st.just([]), raises=st.sampled_from((False, False, True)))
    def block_here(self, namespace, operations, raises):
        """As `block`, of a transaction that is staged in the client."""
        left = pytest.raises(LeaveError) if raises else nullcontext()
        with left, self.client.begin_transaction(TIMEOUT_MS, self.names[namespace]) as handle:
            txn = ModelTxn(handle)
            for (_, agent_id), key, value, ttl_s in operations:
                if value is None:
                    handle.delete(agent_id, key)
                else:
                    handle.write(agent_id, key, value, ttl_s=ttl_s)
                txn.staged.append((AgentId(self.names[namespace], agent_id), key, value, ttl_s))
            if raises:
                raise LeaveError
        if not raises:
            self._committed(txn)

    @rule(operations=several, checks=checks, repeats=st.integers(0, 2))
    def transact(self, operations, checks, repeats):
        """In one call, under conditions that hold or not, and the same once more."""
        written = [(self._agent(drawn), *what) for drawn, *what in operations]
        checks = [(self._agent(drawn), *what) for drawn, *what in checks]
        self.transacts += 1
        call = partial(
            self.client.transact,
            [
                Remove(agent.agent_id, key, agent.namespace)
                if value is None
                else Put(agent.agent_id, key, value, agent.namespace, ttl_s)
                for agent, key, value, ttl_s in written
            ],
            preconditions=[
                (Precondition.exists if isinstance(expected, bool) else Precondition.version_is)(
                    agent.agent_id, key, expected, agent.namespace
                )
                for agent, key, expected in checks
            ],
            idempotency_key=f"{self.names[0]}/{self.transacts}",
        )
        done = self.judge.attempt(call, checks)
        if done is None:
            return
        self._committed(ModelTxn(done, staged=written), done.commit_ts)
        newest = [self.model.versions[agent, key] for agent, key, *_ in written]
        assert {each[-1].version for each in newest} <= set(done.versions)
        for _ in range(repeats):
            again = call()
            assert again == evolve(done, deduplicated=True)

    # Reads

    @rule(
        agent=agents,
        key=keys,
        version=st.integers(0, 6),
        prefix=prefixes,
        window=st.tuples(offsets, offsets),
    )
    def look(self, agent, key, version, prefix, window):
        """Reads that the invariants do not make."""
        agent = self._agent(agent)
        self.judge.is_now(
            partial(self.client.scan_prefix, agent.agent_id, prefix, agent.namespace),
            partial(self.model.scan, agent, prefix),
        )
        self.judge.catch_up()
        first_ts, last_ts = (None if each is None else max(self.model.head_ts - each, 0) for each in window)
        self.judge.replay(agent, first_ts, last_ts)
        at_ts = self.model.head_ts if last_ts is None else last_ts
        found = self.client.get_state(agent.agent_id, key, agent.namespace, at_ts=at_ts)
        self.judge.catch_up(found.commit_ts)
        assert exact(found) == exact(self.model.state_at(agent, key, at_ts))
        found = self.client.get_state_at_version(agent.agent_id, key, version, agent.namespace)
        self.judge.catch_up(found.commit_ts)
        assert exact(found) == exact(self.model.at_version(agent, key, version))

    @precondition(lambda self: self.waits < WAITS_AT_MOST)
    @rule(written=st.tuples(agents, keys, values), repeats=st.booleans())
    def wait_for_what_expires(self, written, repeats):
        """For something that does; until that, and whatever else has expired, is deleted."""
        self.waits += 1
        drawn, key, value = written
        agent = self._agent(drawn)
        put = Put(agent.agent_id, key, value, agent.namespace, SHORT_S)
        for _ in range(1 + repeats):
            done = self.client.transact([put])
            self._committed(ModelTxn(done, staged=[(agent, key, value, SHORT_S)]), done.commit_ts)
        self.judge.rest()
        self.every_key_is_as_the_model_has_it()
        give_up_s = time.monotonic() + PATIENCE_S
        while self.model.expiring and time.monotonic() < give_up_s:
            time.sleep(0.05)
            self.judge.catch_up()
        assert not self.model.expiring
        self.touched.update(self.agents)

    # The daemon

    @precondition(lambda self: self.world.restartable and self.restarts < RESTARTS_AT_MOST)
    @rule(delete_the_view=st.booleans(), rest=st.booleans())
    def restart(self, delete_the_view, rest):
        """With `rest`: what expires does so while there is no daemon."""
        self.restarts += 1
        daemon = self.world.restartable
        daemon.kill()
        if rest:
            self.judge.rest()
        if delete_the_view:
            shutil.rmtree(daemon.data_dir / "state")
        daemon.start()
        for txn in self.txns:
            if txn.state is not TxnState.COMMITTED:
                txn.state = TxnState.LOST
        self.touched.update(self.agents)

    # What holds after every step

    @invariant()
    def every_key_is_as_the_model_has_it(self):
        for agent in self.agents:
            for key in KEYS:
                self.judge.is_now(
                    partial(self.client.get_state, agent.agent_id, key, agent.namespace),
                    partial(self.model.now, agent, key),
                )

    @invariant()
    def lists_scans_and_replays_are_as_the_model_has_them(self):
        """Of the agents that the step had to do with, and of one more in turn: they cost more than reads of keys."""
        for agent in sorted(self.touched | {next(self.turns)}):
            scan = partial(self.model.scan, agent, "")
            self.judge.is_now(partial(self.client.scan_prefix, agent.agent_id, "", agent.namespace), scan)
            self.judge.is_now(
                partial(self.client.list_keys, agent.agent_id, agent.namespace),
                lambda at, scan=scan: [state.key for state in scan(at)],
            )
            self.judge.replay(agent, None, None)
        self.touched.clear()

    def teardown(self):
        self.world.notes_owed = self.model.notes_owed
        for txn in self.txns:
            if txn.state is TxnState.OPEN:
                txn.handle.abort()

    # Parts

    def _agent(self, drawn) -> AgentId:
        namespace, agent_id = drawn
        return AgentId(self.names[namespace], agent_id)

    def _other_handle(self, txn, namespace=None):
        """The same transaction, in the hands of a client that knows its id only; the daemon is asked each time."""
        return self.client.handle(txn.handle.txn_id, namespace or self.names[0])

    def _stage(self, txn, operation):
        drawn, key, value, ttl_s = operation
        agent = self._agent(drawn)
        self.touched.add(agent)
        handle = self._other_handle(txn, agent.namespace)
        call = partial(handle.delete, agent.agent_id, key)
        if value is not None:
            call = partial(handle.write, agent.agent_id, key, value, ttl_s=ttl_s)
        if txn.state is TxnState.OPEN:
            call()
            txn.staged.append((agent, key, value, ttl_s))
        else:
            self._refused(txn, call)

    def _refused(self, txn, call, *, commit_ts_told=True):
        with pytest.raises(TransactionError) as caught:
            call()
        assert caught.value.code is txn.state.code
        if txn.state is TxnState.COMMITTED and commit_ts_told:
            assert caught.value.details == {"commit_ts": str(txn.commit_ts)}

    def _abort(self, txn):
        """Abort it twice: that is no error of what was not committed, and then it is not to be had any more."""
        for _ in range(2):
            self._other_handle(txn).abort()
        if txn.state is TxnState.OPEN:
            txn.state = TxnState.ABORTED
        self._refused(txn, self._other_handle(txn).commit)

    def _begin(self, namespace):
        return self._begun(ModelTxn(self.client.begin_transaction(TIMEOUT_MS, self.names[namespace], local=False)))

    def _begun(self, txn):
        self.txns.append(txn)
        return txn

    def _committed(self, txn, commit_ts=None):
        self.judge.committed(txn, commit_ts)
        self.touched.update(agent for agent, *_ in txn.staged)


class LeaveError(Exception):
    """Leaves a block."""
