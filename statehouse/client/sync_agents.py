"""The sync client's calls about an agent as a whole: those of agents.py, where their docstrings are taken from."""

import datetime as dt
from collections.abc import Iterable, Mapping
from functools import partial

from statehouse.client.agents import Agents
from statehouse.client.commit_parts import preconditions_given
from statehouse.client.sync_calls import SyncCalls, as_in
from statehouse.client.types import DeletedAgent, Forked, Lineage, Precondition

__all__ = ["SyncAgents"]


class SyncAgents(SyncCalls):
    """Of `Statehouse`: the calls about an agent as a whole."""

    @as_in(Agents.fork)
    def fork(
        self,
        agent_id: str,
        new_agent_id: str,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        namespace: str | None = None,
        timeout_s: float | None = None,
    ) -> Forked:
        return self._loop.run(
            partial(
                self._client.fork,
                agent_id,
                new_agent_id,
                at_ts=at_ts,
                at_time=at_time,
                namespace=namespace,
                timeout_s=timeout_s,
            )
        )

    @as_in(Agents.lineage)
    def lineage(
        self,
        agent_id: str,
        *,
        limit: int | None = None,
        namespace: str | None = None,
        timeout_s: float | None = None,
    ) -> Lineage:
        return self._loop.run(
            partial(self._client.lineage, agent_id, limit=limit, namespace=namespace, timeout_s=timeout_s)
        )

    @as_in(Agents.delete_agent)
    def delete_agent(
        self,
        agent_id: str,
        *,
        preconditions: Iterable[Precondition] = (),
        metadata: Mapping[str, str] | None = None,
        namespace: str | None = None,
        timeout_s: float | None = None,
    ) -> DeletedAgent:
        return self._loop.run(
            partial(
                self._client.delete_agent,
                agent_id,
                preconditions=preconditions_given(preconditions),
                metadata=metadata,
                namespace=namespace,
                timeout_s=timeout_s,
            )
        )
