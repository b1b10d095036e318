"""The load of forks and ends: onto new names and onto names that exist, now and at points that are past, and none.

What the store refuses is written down as a read of what it was refused for (lineages.py), and judged.
"""

from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from random import Random
from typing import Final

from attrs import define

from histories.at_once import new_name, refusals
from histories.lineages import NOTHING_THEN, TAKEN, UNKNOWN, Forking, Refused
from histories.subject import Transacting, outcome_of
from histories.submissions import Checked, Load, Outcome, Submission
from statehouse import AgentExistsError, ConflictError, InvalidRequestError, NotFoundError, StatehouseError
from statehouse.types import AgentId

__all__ = ["FORKS", "Forks", "send_end", "send_fork"]

FORKS: Final = {"fork": 8, "end": 5}
"""The kinds, with the weight of each beside those of the workload."""
PAST_SHARE: Final = 0.5
"""Of the forks, those at a point that is told."""
STRANGE_SHARE: Final = 0.08
"""Of these, those before everything or after it; and of all, those of an agent that there may not be."""
TAKEN_SHARE: Final = 0.15
"""Of the forks, those onto a name that an agent has, as far as is known."""
NOW: Final = 1 << 64
"""A point after everything."""
CHECKED_SHARE: Final = 0.3
"""Of the ends, those with conditions."""


@define
class Forks:
    """One load's forks and ends. A new agent is added to `agents`, which all others of the load choose from.

    `names` are for forks; while one is not forked, it is now and then written to. Points are not before `oldest_ts`.
    """

    rng: Random
    agents: MutableSequence[AgentId]
    names: Sequence[AgentId]
    checks: Callable[[Transacting, Sequence[AgentId], Sequence[AgentId]], Awaitable[tuple[Checked, ...]]]

    async def send(self, kind: str, subject: Transacting, load: Load, oldest_ts: int = 0) -> None:
        """One of the kinds. Raises what the store says, but what it refuses for what an agent is."""
        if kind == "fork":
            await self._fork(subject, load, oldest_ts)
        else:
            await self._end(subject, load)

    async def _fork(self, subject: Transacting, load: Load, oldest_ts: int) -> None:
        rng, floor_ts = self.rng, load.newest_ts
        parent = rng.choice(self.names if rng.random() < STRANGE_SHARE else self.agents)
        near = [name for name in self.names if name.namespace == parent.namespace]
        free = [name for name in near if name not in self.agents]
        if not free or rng.random() < TAKEN_SHARE:
            free = near + [agent for agent in self.agents if agent.namespace == parent.namespace]
        asked_ts = self._point(oldest_ts, floor_ts) if rng.random() < PAST_SHARE else None
        fork = Forking(rng.choice(free), parent, asked_ts, floor_ts, len(load.reads))
        try:
            await send_fork(subject, fork, load)
        finally:
            if not fork.refused and fork.agent not in self.agents:
                self.agents.append(fork.agent)

    def _point(self, oldest_ts: int, newest_ts: int) -> int:
        rng = self.rng
        if rng.random() < STRANGE_SHARE and not oldest_ts:
            return rng.choice((0, newest_ts + rng.randint(1, 3)))
        return rng.randint(min(max(oldest_ts, 1), newest_ts), newest_ts)

    async def _end(self, subject: Transacting, load: Load) -> None:
        rng = self.rng
        agent = rng.choice(self.names if self.names and rng.random() < STRANGE_SHARE else self.agents)
        checks = await self.checks(subject, [agent], [agent]) if rng.random() < CHECKED_SHARE else ()
        one = Submission(new_name(rng), (), Outcome.UNKNOWN, checks=checks, ends=agent)
        one.floor_ts, one.after = load.newest_ts, len(load.reads)
        await send_end(subject, one, load)


async def send_fork(subject: Transacting, fork: Forking, load: Load) -> None:
    """Write down what is known of it then. What an agent was is written down, other errors are raised."""
    load.forks.append(fork)
    wrong, why = fork.parent, ""
    try:
        fork.commit_ts, fork.at_ts, fork.depth = await subject.fork(fork.parent, fork.agent, fork.asked_ts)
    except AgentExistsError:
        wrong, why = fork.agent, TAKEN
    except NotFoundError:
        why = UNKNOWN
    except InvalidRequestError:
        why = NOTHING_THEN
    except StatehouseError as error:
        fork.refused = outcome_of(error) is Outcome.NEVER
        raise
    else:
        fork.answered = True
        load.saw(fork.commit_ts)
        return
    fork.refused = True
    if why != TAKEN or fork.agent != fork.parent:  # else there is nothing to know
        at_ts = NOW if fork.asked_ts is None else fork.asked_ts
        load.reads.append(Refused(wrong, fork.floor_ts, why, at_ts, after=fork.after))


async def send_end(subject: Transacting, one: Submission, load: Load) -> None:
    """As a fork. Conflicts are written down, too."""
    load.submissions.append(one)
    one.sent_ns = subject.now_ns()
    try:
        commit_ts, one.deleted_keys = await subject.end(one)
    except NotFoundError:
        one.outcome = Outcome.NEVER
        if one.ends is not None:
            load.reads.append(Refused(one.ends, one.floor_ts, UNKNOWN, after=one.after))
    except ConflictError as error:
        one.outcome = Outcome.NEVER
        load.reads += refusals(one, error, one.floor_ts, one.after, (one.sent_ns, subject.now_ns()))
    except StatehouseError as error:
        one.outcome = outcome_of(error)
        raise
    else:
        one.outcome, one.commit_ts = Outcome.ACKNOWLEDGED, commit_ts
        load.saw(commit_ts)
