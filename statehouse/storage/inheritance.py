"""What a fork has of the agents above it, for whoever folds the log or verifies a view: found by point reads.

Reads of agents go another way (`past.py`), which looks for what was in force. Here the version that is looked for is
known: an operation says its own, and the one before it is what its key was.
"""

from attrs import frozen

from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters
from statehouse.storage.lineage import NO_END, Levels, counters_at, levels_of
from statehouse.storage.view import Reader
from statehouse.types import AgentId

__all__ = ["Inheritance", "inheritance_of"]


@frozen
class Inheritance:
    """What an agent had when it was forked."""

    levels: Levels
    """Where it is found: the parent's rows first."""
    counters: AgentCounters


def inheritance_of(view: Reader, agent: AgentId) -> Inheritance:
    """What the agent has inherited, by its `f` row and the rows of those above it; nothing for one that is no fork.

    Raises what reading the view raises, ViewDamagedError also for rows that are none.
    """
    levels = levels_of(view, agent, keys.agent_prefix(agent))[1:]
    return Inheritance(levels, counters_at(view, levels, NO_END) if levels else AgentCounters())
