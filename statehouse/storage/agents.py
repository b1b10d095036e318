"""Agents and namespaces: which there are, what they count, what they were forked from, and whether they were deleted.

Agents are found by seeking: the first row behind an agent's last is the next agent's, however many rows either has. All
of it is a function of a view as in `listing`.
"""

from contextlib import closing

from attrs import astuple, define

from statehouse.limits import PAGE_AGENTS
from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters
from statehouse.storage.lineage import origin
from statehouse.storage.listing import Page
from statehouse.storage.view import Reader, newest_row
from statehouse.storage.wire import VARINT, length_delimited, tag, varint
from statehouse.types import AgentId

__all__ = ["NamespaceTally", "agents_of", "ended_ts", "list_agents", "namespaces_range"]


def agents_range(namespace: str, id_prefix: str = "", after: str | None = None) -> keys.KeyRange:
    """The rows of the agents of a namespace whose ids begin with `id_prefix`, behind the agent whose id is `after`."""
    start = _names_with_prefix(keys.AGENT + keys.name(namespace.encode()), id_prefix)
    behind = b"" if after is None else keys.prefix_end(keys.agent_prefix(AgentId(namespace, after)))
    return _behind(start, behind)


def namespaces_range(prefix: str = "", after: str | AgentId | None = None) -> keys.KeyRange:
    """The rows of all agents of the namespaces that begin with `prefix`, behind a whole namespace, or an agent."""
    behind = b""
    if isinstance(after, AgentId):
        behind = keys.prefix_end(keys.agent_prefix(after))
    elif after is not None:
        behind = keys.prefix_end(keys.AGENT + keys.name(after.encode()))
    return _behind(_names_with_prefix(keys.AGENT, prefix), behind)


def _names_with_prefix(start: bytes, prefix: str) -> bytes:
    """What begins every key that has, behind `start`, a name that begins with `prefix`."""
    return start + prefix.encode().replace(b"\x00", b"\x00\xff")


def _behind(start: bytes, behind: bytes) -> keys.KeyRange:
    stop = keys.prefix_end(start)
    return keys.KeyRange(min(max(start, behind), stop), stop)


def agents_of(view: Reader, rows: keys.KeyRange, limit: int) -> list[tuple[AgentId, AgentCounters]]:
    """The first `limit` agents that have rows in the range, and were ever committed to."""
    found: list[tuple[AgentId, AgentCounters]] = []
    start, stop = rows
    while len(found) < limit and start < stop:
        with closing(view.scan(start, stop)) as following:
            first = next(following, None)
        if first is None:
            break
        agent = keys.unpack_agent(first[0])
        prefix = keys.agent_prefix(agent)
        meta = view.get(keys.meta_key(prefix))
        if meta is not None:  # else it has a lease and nothing more
            found.append((agent, AgentCounters.unpack(meta)))
        start = keys.prefix_end(prefix)
    return found


def list_agents(view: Reader, namespace: str, prefix: str, after: str | None, limit: int) -> Page[bytes]:
    """The encoded AgentInfo of the namespace's agents with the prefix behind the id `after`, at most PAGE_AGENTS.

    `view` is a snapshot, so that what is told of an agent belongs together.
    """
    most = min(limit, PAGE_AGENTS)
    found = agents_of(view, agents_range(namespace, prefix, after), most + 1)
    shown = found[:most]
    next_after = shown[-1][0].agent_id if len(found) > len(shown) else None
    return Page([_agent_info(view, *each) for each in shown], next_after)


@define
class _Sums:
    """Of one namespace, in the order of the fields of NamespaceInfo."""

    agents: int = 0
    live_keys: int = 0
    commits: int = 0
    operations: int = 0
    first_commit_ts: int = 0
    last_commit_ts: int = 0


class NamespaceTally:
    """Sums over the agents of namespaces, which are added in order; the namespaces are `limit` at most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sums: dict[str, _Sums] = {}
        self.is_full = False
        """Whether an agent of one namespace more was added, so that all sums are whole, and there is a next page."""

    def add(self, agent: AgentId, counters: AgentCounters) -> None:
        """Count an agent; once the tally is full, nothing."""
        sums = self._sums.get(agent.namespace)
        if sums is None:
            self.is_full = self.is_full or len(self._sums) >= self._limit
            if self.is_full:
                return
            sums = self._sums[agent.namespace] = _Sums(first_commit_ts=counters.first_commit_ts)
        sums.agents += 1
        sums.live_keys += counters.live_keys
        sums.commits += counters.commits
        sums.operations += counters.operations
        sums.first_commit_ts = min(sums.first_commit_ts, counters.first_commit_ts)
        sums.last_commit_ts = max(sums.last_commit_ts, counters.last_commit_ts)

    def page(self) -> Page[bytes]:
        """The encoded NamespaceInfo of each."""
        encoded = [
            length_delimited(1, name.encode()) + _numbers(2, *astuple(sums)) for name, sums in self._sums.items()
        ]
        return Page(encoded, next(reversed(self._sums), None) if self.is_full else None)


def _agent_info(view: Reader, agent: AgentId, counters: AgentCounters) -> bytes:
    prefix = keys.agent_prefix(agent)
    encoded = length_delimited(1, agent.namespace.encode()) + length_delimited(2, agent.agent_id.encode())
    encoded += _numbers(
        3,
        counters.live_keys,
        counters.commits,
        counters.operations,
        counters.first_commit_ts,
        counters.last_commit_ts,
        int(_is_deleted(view, prefix, counters)),
    )
    forked_from = origin(view, agent, prefix)
    if forked_from is None:
        return encoded
    parent, at_ts, commit_ts = forked_from
    return encoded + length_delimited(9, length_delimited(1, parent.agent_id.encode()) + _numbers(2, at_ts, commit_ts))


def _is_deleted(view: Reader, prefix: bytes, counters: AgentCounters) -> bool:
    """Whether nothing was committed to the agent since it was deleted, so that it cannot have a key either."""
    return not counters.live_keys and ended_ts(view, prefix) >= counters.last_commit_ts


def ended_ts(view: Reader, prefix: bytes) -> int:
    """The commit that deleted the agent, the last of them; 0: it never was."""
    newest = newest_row(view, *keys.end_range(prefix))
    return 0 if newest is None else keys.unpack_end_key(prefix, newest[0])


def _numbers(first_number: int, *values: int) -> bytes:
    """Fields that are integers, numbered from `first_number`; those that are 0 are left out."""
    return b"".join(
        tag(number, VARINT) + varint(value) for number, value in enumerate(values, start=first_number) if value
    )
