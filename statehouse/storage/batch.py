"""Many keys at once, of one moment: the state of each as the encoded BatchGetEntry.

`batch_get` reads whatever that takes, and so belongs in a worker thread. `batch_at_hand` is for the event loop: going
to a thread and back, and sharing the interpreter with it, costs more than reading a hundred keys whose values stand in
the view. Both are functions of a snapshot of a view, and so of one moment.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from attrs import frozen

from statehouse.storage.keys import agent_prefix, state_key
from statehouse.storage.lineage import LevelsOf
from statehouse.storage.listing import check_size
from statehouse.storage.past import stored_at
from statehouse.storage.stored_value import ReadMany, answer_bytes, as_of, is_in_log, responses
from statehouse.storage.view import Reader
from statehouse.storage.wire import LENGTH_DELIMITED, tag, varint
from statehouse.types import AgentId

__all__ = ["batch_at_hand", "batch_get"]

KEYS_A_LOOK: Final = 16
"""Between two looks at the clock at most so many keys are read, each of which may take a read of the disk; first one,
then each time twice as many."""

# BatchGetEntry, behind the fields of GetStateResponse
_NAMESPACE_TAG: Final = tag(5, LENGTH_DELIMITED)
_AGENT_ID_TAG: Final = tag(6, LENGTH_DELIMITED)
_KEY_TAG: Final = tag(7, LENGTH_DELIMITED)


def batch_get(
    view: Reader, read_many: ReadMany, wanted: Sequence[tuple[AgentId, bytes]], at_ts: int | None, now_ns: int
) -> list[bytes]:
    """The entry of each key, in their order; what has expired at `now_ns` is absent (at 0 nothing has).

    OverloadedError past RESPONSE_BYTES.
    """
    asked = _asked(view, wanted)
    if at_ts is None:
        stored = view.get_many(asked.rows)
        for place, found in enumerate(stored):
            if found is None:
                found = stored_at(view, islice(asked.levels[place], 1, None), wanted[place][1])  # noqa: PLW2901
            if found is not None:
                stored[place] = as_of(found, now_ns)
    else:
        stored = [stored_at(view, levels, key, at_ts) for levels, (_, key) in zip(asked.levels, wanted, strict=True)]
    return _entries(stored, asked.names, read_many)


def batch_at_hand(
    view: Reader, wanted: Sequence[tuple[AgentId, bytes]], now_ns: int, in_time: Callable[[], bool]
) -> list[bytes] | None:
    """The same of now, if it is quickly had: None when a value stands in the log or is inherited, or time is up.

    `in_time()` is asked before each look, and before it is asked whether an agent inherits.
    """
    asked = _asked(view, wanted)
    stored: list[bytes | None] = []
    look = 1
    while len(stored) < len(wanted):
        if not in_time():
            return None
        for found in view.get_many(asked.rows[len(stored) : len(stored) + look]):
            if found is None:
                if not in_time() or next(islice(asked.levels[len(stored)], 1, None), None) is not None:
                    return None
                stored.append(None)
            elif is_in_log(found):
                return None
            else:
                stored.append(as_of(found, now_ns))
        look = min(2 * look, KEYS_A_LOOK)
    return _entries(stored, asked.names, _no_log)


def _no_log(wanted: Sequence[object]) -> list[bytes]:
    """Reads the log for values of which none stands there."""
    if wanted:
        raise ValueError("a value that was to be at hand stands in the log")
    return []


@frozen
class _Asked:
    """Of each key that is wanted: its agent's own row, where else it may be found, and its names in an entry."""

    rows: list[bytes]
    levels: list[LevelsOf]
    names: list[bytes]


def _asked(view: Reader, wanted: Sequence[tuple[AgentId, bytes]]) -> _Asked:
    agents: dict[AgentId, tuple[bytes, LevelsOf, bytes]] = {}
    """Of each what its keys have in common: there may be many keys of few agents."""
    rows: list[bytes] = []
    levels: list[LevelsOf] = []
    names: list[bytes] = []
    for agent, key in wanted:
        known = agents.get(agent)
        if known is None:
            prefix = agent_prefix(agent)
            known = agents[agent] = (prefix, LevelsOf(view, agent, prefix), _agent_names(agent))
        prefix, levels_of_it, agent_names = known
        rows.append(state_key(prefix, key))
        levels.append(levels_of_it)
        names.append(agent_names + varint(len(key)) + key)
    return _Asked(rows, levels, names)


def _agent_names(agent: AgentId) -> bytes:
    """What all entries of an agent have behind the state, up to the length of the key."""
    namespace, agent_id = agent.namespace.encode(), agent.agent_id.encode()
    return b"".join((
        _NAMESPACE_TAG, varint(len(namespace)), namespace,
        _AGENT_ID_TAG, varint(len(agent_id)), agent_id,
        _KEY_TAG,
    ))  # fmt: skip


def _entries(stored: Sequence[bytes | None], names: Sequence[bytes], read_many: ReadMany) -> list[bytes]:
    check_size(sum(map(len, names)) + sum(answer_bytes(found) for found in stored if found is not None))
    return [answer + name for answer, name in zip(responses(stored, read_many), names, strict=True)]
