"""The agent's loop: one transaction a step, each step exactly once, wherever the agent or the daemon is killed.

Nothing is kept but what is committed. A start looks for the first commit that is not there and goes on with it.
Two cases need care, for in both a commit may have happened or not:

* **The answer to a commit is lost** (ConnectionError). The agent commits the same transaction again: the daemon knows
  the ids that it committed, also after a restart, and says at which commit_ts; or says that there is no such
  transaction, and then the step is done in a new one.
* **The agent was killed** while its commit was on the way, and nobody knows the id any more. Its transactions live
  for TRANSACTION_LIFE_S only, so a new agent waits as long, then commits `note/run`, a key of the same agent. Commits
  of one agent are decided in the order in which they were taken: once that is answered, every commit of the
  killed agent either shows or never happened. `note/run` counts the starts, too: its version is their number.

One agent id is for one agent at a time. Two at once are not kept apart, but found: proof.py sees a version 2.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from examples.resumable_agent.patience import Patience
from examples.resumable_agent.recording import Recording
from examples.resumable_agent.steps import Commit, commits_of
from statehouse import Statehouse, StatehouseError, Transaction, TransactionError
from statehouse.types import JsonObject

__all__ = ["RUN_KEY", "TRANSACTION_LIFE_S", "Agent", "AgentError"]

T = TypeVar("T")

RUN_KEY: Final = "note/run"
TRANSACTION_LIFE_S: Final = 2.0


class AgentError(Exception):
    """The agent id holds something else than the beginning of this run; the message is one line."""


class Agent:
    """Carries a recording out under an agent id, by a client that may be used for other things too.

    `work_s` is what the tool of a step takes. A daemon that does not answer is tried for `patience_s` seconds.
    `life_s` is how long a transaction of this agent may live, and so how long a start waits.
    """

    def __init__(
        self,
        client: Statehouse,
        agent_id: str,
        recording: Recording,
        *,
        say: Callable[[str], None],
        work_s: float = 0.0,
        patience_s: float = 60.0,
        life_s: float = TRANSACTION_LIFE_S,
    ) -> None:
        self._client = client
        self._agent_id = agent_id
        self._recording = recording
        self._say = say
        self._work_s = work_s
        self._patience_s = patience_s
        self._life_s = life_s

    def run(self) -> None:
        """Carry out what is not committed yet; blocks until all of it is.

        AgentError when the agent id is in use for something else. StatehouseError when the daemon refuses a
        value, or does not answer for `patience_s`.
        """
        commits = commits_of(self._recording)
        self._outlive_predecessor()
        done = self._find_place(commits)
        for commit in commits[done:]:
            if commit.number:
                time.sleep(self._work_s)  # here a live agent would think, and run its tool
            commit_ts = self._commit(commit.values, commit.title)
            self._say(f"{commit.title} -> commit_ts {commit_ts}")

    def _outlive_predecessor(self) -> None:
        """Return when nothing that an agent before this one sent can still be committed."""
        time.sleep(self._life_s)
        run: JsonObject = {"recording": self._recording.name, "sha256": self._recording.sha256}
        self._commit({RUN_KEY: run}, "the start")

    def _find_place(self, commits: Sequence[Commit]) -> int:
        """How many of the commits are there. All of a transaction is, or nothing: anything else is not ours."""
        keys = set(self._answered(lambda: self._client.list_keys(self._agent_id))) - {RUN_KEY}
        done = 0
        while done < len(commits) and keys >= commits[done].values.keys():
            keys -= commits[done].values.keys()
            done += 1
        if keys:
            raise AgentError(f"agent {self._agent_id!r} has {min(keys)!r}, which is not of this run up to here")
        if done:
            task = self._answered(lambda: self._client.get_state(self._agent_id, "task")).value or {}
            if task != commits[0].values["task"]:
                raise AgentError(f"agent {self._agent_id!r} carries out another recording: {task.get('recording')}")
            self._say(
                f"resuming: of the run's {len(commits)} commits {done} are there; next is {_next(commits[done:])}"
            )
        return done

    def _commit(self, values: dict[str, JsonObject], what: str) -> int:
        """Commit the values once, however often it takes; the commit_ts."""
        patience = Patience(self._patience_s, self._say)
        while True:
            try:
                # Not as a context manager: leaving it would hide that the outcome of its commit is not known.
                transaction = self._client.begin_transaction(timeout_ms=round(self._life_s * 1000), local=False)
                for key, value in values.items():
                    transaction.write(self._agent_id, key, value)
            except StatehouseError as error:
                if not error.retryable and not isinstance(error, TransactionError):
                    raise
                patience.wait(error)  # nothing was committed: what was staged is gone, or expires
                continue
            commit_ts = self._outcome(transaction, what, patience)
            if commit_ts is not None:
                patience.rewarded()
                return commit_ts

    def _outcome(self, transaction: Transaction, what: str, patience: Patience) -> int | None:
        """Commit, and ask until it is known how that went: the commit_ts, or None when it did not happen."""
        asked_again = False
        while True:
            try:
                commit_ts = transaction.commit()
            except TransactionError as error:
                patience.wait(error)
                self._say(f"{what}: not committed ({error.message}); doing it again")
                return None
            except StatehouseError as error:
                if not error.retryable:
                    raise
                patience.wait(error)
                asked_again = True
            else:
                if asked_again:
                    self._say(f"{what}: the answer was lost; asked again: committed")
                return commit_ts

    def _answered(self, read: Callable[[], T]) -> T:
        """Read, as often as it takes."""
        patience = Patience(self._patience_s, self._say)
        while True:
            try:
                answer = read()
            except StatehouseError as error:
                if not error.retryable:
                    raise
                patience.wait(error)
            else:
                patience.rewarded()
                return answer


def _next(left: Sequence[Commit]) -> str:
    return left[0].title if left else "the proof"
