"""Whether an agent may begin as a fork, and with what."""

from statehouse.actors.agent_reads import AgentReads
from statehouse.actors.lifetimes import ForkOf, FoundFork
from statehouse.errors import AgentExistsError, ErrorCode, InvalidRequestError, NotFoundError
from statehouse.limits import FORK_DEPTH
from statehouse.storage.commit import AgentCounters
from statehouse.storage.record_notes import ForkNote, Inherited
from statehouse.types import AgentId

__all__ = ["find_fork", "not_known"]


def find_fork(agent: AgentId, fork_of: ForkOf, counters: AgentCounters, reads: AgentReads) -> FoundFork:
    """What the fork comes to; `counters` are the new agent's own, and nothing of it is pending.

    AgentExistsError, NotFoundError, InvalidRequestError; StorageError.
    """
    parent = fork_of.parent
    if parent == agent or counters.commits:  # a fork has commits from its first moment: those that it inherits
        raise AgentExistsError(f"there is an agent {_named(agent)}, or was: a fork needs a new name")
    shown_ts = reads.shown_ts()
    at_ts = shown_ts if fork_of.at_ts is None else min(fork_of.at_ts, shown_ts)
    inherited, depth = reads.forking(parent, at_ts)
    if not inherited.commits:
        if fork_of.at_ts is None or not reads.is_known(parent):
            raise not_known(parent)
        raise InvalidRequestError(
            f"the agent {_named(parent)} had not been written to at commit_ts {at_ts}: there is nothing to fork",
            details={"commit_ts": str(at_ts)},
        )
    if depth > FORK_DEPTH:
        raise InvalidRequestError(
            f"the fork would be {depth} forks deep, the limit is {FORK_DEPTH}",
            details={"limit": str(FORK_DEPTH), "size": str(depth)},
        )
    return FoundFork(ForkNote(agent, parent, at_ts, Inherited(*inherited)), depth)


def not_known(agent: AgentId) -> NotFoundError:
    """What is told of an agent that was never written to."""
    return NotFoundError(f"the agent {_named(agent)} was never written to", code=ErrorCode.AGENT_NOT_FOUND)


def _named(agent: AgentId) -> str:
    return f"{agent.namespace}/{agent.agent_id}"
