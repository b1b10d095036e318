"""Holds what a client is told against a `Model`, where time passes and the daemon deletes by itself what has expired.

A value may expire, and be deleted, between a question and its answer. So an answer about now may be as of any moment
between the two; and where it does not fit what the model knows, the model first takes from the log what the daemon has
deleted meanwhile.
"""

import datetime as dt
import time

from attrs import define
from client.model import Model, ModelTxn, TxnState, exact

from statehouse import ConflictError
from statehouse.types import AgentId

_BLUR = dt.timedelta(milliseconds=1)
"""Results tell times to the microsecond, the daemon has them finer."""


def now():
    """What the clock of this machine says, which is the daemon's, too."""
    return dt.datetime.now(dt.UTC)


@define
class Judge:
    """`agents` are all that the example writes to; nobody else commits, but for the daemon."""

    client: object
    model: Model
    agents: list

    def is_now(self, ask, expected):
        """That a question about now is answered with what was so at some moment between asking and being told."""
        began = now() - _BLUR
        found = exact(ask())
        ended = now() + _BLUR
        if found not in self._told(expected, began, ended):
            self.catch_up()
            assert found in self._told(expected, began, ended)

    def _told(self, expected, began, ended):
        return [exact(expected(at)) for at in self.model.moments(began, ended)]

    def replay(self, agent, first_ts, last_ts):
        """That the events of an agent are what was committed."""
        found = list(self.client.replay(agent.agent_id, first_ts, last_ts, agent.namespace))
        times = [event.committed_at for event in found]
        assert times == sorted(times)
        known = len(self.model.history[agent])
        if found and found[-1].commit_ts > self.model.head_ts:
            self.catch_up()
        expected = self.model.replay(agent, first_ts, self.model.head_ts if last_ts is None else last_ts)
        since = len(self.model.history[agent]) - known  # some of these may have come after the replay
        assert exact(found) in [exact(expected[: len(expected) - later]) for later in range(since + 1)]

    def attempt(self, call, checks):
        """What a call under conditions (agent, key, and a version or whether there is a value) gives, refused or not.

        None when it was refused.
        """
        done, failed, began = None, {}, now() - _BLUR
        try:
            done = call()
        except ConflictError as error:
            failed = {each.index: each for each in error.failed}
            assert failed
        ended = now() + _BLUR
        states = [self._states(*check[:2], began, ended) for check in checks]
        if self.model.expiring:
            self.catch_up(done and done.commit_ts - 1)
        for index, (agent, key, expected) in enumerate(checks):
            name = "exists" if isinstance(expected, bool) else "version"
            states[index] += self._states(agent, key, began, ended)
            possible = {getattr(state, name) for state in states[index]}
            if index in failed:
                assert getattr(failed[index], name) in possible - {expected}
            else:
                assert expected in possible
        return done

    def _states(self, agent, key, began, ended):
        return [self.model.now(agent, key, at) for at in self.model.moments(began, ended)]

    def committed(self, txn: ModelTxn, commit_ts: int | None):
        """A transaction was committed; None: the call that did it does not tell when."""
        txn.state = TxnState.COMMITTED  # whatever is found of it now
        if commit_ts is None and txn.staged:
            commit_ts = self.catch_up()
            assert commit_ts is not None
        elif commit_ts is None:
            self.model.notes_owed += 1  # it has no event, and shows by the next commit's commit_ts
            commit_ts = self.commit_nothing()
            assert commit_ts > self.model.head_ts + 1
        self.catch_up(commit_ts - 1)
        committed_at = None
        if any(ttl_s for *_, ttl_s in txn.staged):
            agent = txn.staged[0][0]
            events = list(self.client.replay(agent.agent_id, commit_ts, commit_ts, agent.namespace))
            assert len(events) == 1
            committed_at = events[0].committed_at
        self.model.commit(txn, commit_ts, committed_at)

    def commit_nothing(self):
        """The commit_ts of a commit that touches no agent."""
        return self.client.begin_transaction(namespace=self.agents[0].namespace, local=False).commit()

    def catch_up(self, last_ts=None):
        """Take from the log what the daemon has deleted, up to a commit; the first other commit, if one comes first."""
        first_ts = self.model.head_ts + 1
        if last_ts is not None and last_ts < first_ts:
            return None
        for event in self.client.replay_log(start_ts=first_ts, end_ts=last_ts):
            if not all(operation.expired for operation in event.operations):
                return event.commit_ts
            if AgentId(event.namespace, event.agent_id) in self.agents:
                self.model.expire(event)
            else:
                self.model.skip(event.commit_ts)
        return None

    def rest(self):
        """Until everything has expired that is to do so soon."""
        while left := [at for at in self.model.expiring.values() if at > now()]:
            time.sleep((max(left) - now()).total_seconds() + 0.001)
