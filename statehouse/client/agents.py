"""The async client's calls about an agent as a whole: its fork, what it came from, its end."""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final

from statehouse.client.arguments import check_counts, check_metadata, check_texts, point
from statehouse.client.calls import Calls
from statehouse.client.commit_parts import preconditions_of
from statehouse.client.results import deleted_agent, fork_origin, forked
from statehouse.client.types import DeletedAgent, Forked, ForkOrigin, Lineage, Precondition
from statehouse.limits import LINEAGE_FORKS
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["Agents"]

_MOST: Final = 2**64 - 1


class Agents(Calls):
    """Of `AsyncStatehouse`: the calls about an agent as a whole."""

    async def fork(
        self,
        agent_id: str,
        new_agent_id: str,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        namespace: str | None = None,
        timeout_s: float | None = None,
    ) -> Forked:
        """Make a new agent that has the state and the history of another, in the same namespace and in constant time.

        It has what the other had as of `at_ts`, or of `at_time` (an aware datetime; at most one of the two), or has
        now: keys, versions and events, with the same commit_ts. From there on both live for themselves. Leases and
        idempotency keys are not inherited.

        AgentExistsError when an agent of the new name was ever written to or forked, or is the same; NotFoundError
        (AGENT_NOT_FOUND) when there is none to fork; InvalidRequestError for a point before its first commit, and for
        the fork of a fork more than 64 deep. ConnectionError, and cancelling, may leave it forked: `lineage` of the new
        agent tells.
        """
        check_texts(agent_id=agent_id, new_agent_id=new_agent_id)
        request = pb.ForkAgentRequest(
            namespace=self.full_name(namespace),
            agent_id=agent_id,
            new_agent_id=new_agent_id,
            at_ts=at_ts,
            at_time=point(at_ts, at_time),
        )
        return forked(await self.stub.ForkAgent(request, timeout_s=timeout_s))

    async def lineage(
        self,
        agent_id: str,
        *,
        limit: int | None = None,
        namespace: str | None = None,
        timeout_s: float | None = None,
    ) -> Lineage:
        """What an agent was forked from, from its parent on, and what was forked from it, newest first.

        At most `limit` forks, or all of them (None): a call for each 1,000, each bounded by `timeout_s`. An agent that
        has neither, or is none at all, gives an empty answer.
        """
        check_texts(agent_id=agent_id)
        check_counts(_MOST, limit=limit)
        request = pb.GetLineageRequest(namespace=self.full_name(namespace), agent_id=agent_id)
        left = _MOST if limit is None else limit
        ancestors: tuple[ForkOrigin, ...] = ()
        forks: list[ForkOrigin] = []
        more = True
        while more and left:
            request.limit = min(left, LINEAGE_FORKS)
            answer = await self.stub.GetLineage(request, timeout_s=timeout_s)
            ancestors = ancestors or tuple([fork_origin(each) for each in answer.ancestors])
            forks += map(fork_origin, answer.forks)
            left -= len(answer.forks)
            more = answer.more and len(answer.forks) > 0
            if more:
                request.before_ts = answer.forks[-1].commit_ts
        return Lineage(ancestors, tuple(forks))

    async def delete_agent(
        self,
        agent_id: str,
        *,
        preconditions: Iterable[Precondition] = (),
        metadata: Mapping[str, str] | None = None,
        namespace: str | None = None,
        timeout_s: float | None = None,
    ) -> DeletedAgent:
        """Delete every key of an agent, in one commit. Its history stays, and so do the forks of it.

        From then on a commit that writes to it is refused (AgentDeletedError), unless it says `revive` or a
        precondition of it is about this agent. Of an agent that is deleted already nothing is done: `commit_ts` is that
        of its end, and `deleted_keys` 0; `preconditions` are not looked at then, so that the call may be repeated.

        All of `preconditions`, which must be about this agent, must hold at that moment (ConflictError). `metadata` is
        kept with the commit. NotFoundError (AGENT_NOT_FOUND) when there never was such an agent, InvalidRequestError
        for one with more than 100,000 keys, or 16 MiB of them: delete some of them before. ConnectionError, and
        cancelling, may leave it deleted: the same call again tells.
        """
        check_texts(agent_id=agent_id)
        name = self.full_name(namespace)
        request = pb.DeleteAgentRequest(
            namespace=name,
            agent_id=agent_id,
            preconditions=preconditions_of(preconditions, name),
            metadata=check_metadata(metadata),
        )
        return deleted_agent(await self.stub.DeleteAgent(request, timeout_s=timeout_s))
