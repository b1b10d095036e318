"""The calls about an agent as a whole: its fork, its lineage, its end."""

from collections.abc import Coroutine
from typing import Any

from attrs import frozen

from statehouse.actors.messages import EndedAgent, Forked
from statehouse.actors.reply import Reply
from statehouse.rpc.server.access import Caller
from statehouse.rpc.server.engine_calls import EngineCalls
from statehouse.rpc.server.replying import encoded
from statehouse.rpc.server.requests_agents import AgentRequests, ForkArguments, LineageArguments
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["AgentCalls"]


@frozen
class AgentCalls:
    """One method for each call."""

    engine: EngineCalls
    requests: AgentRequests

    def fork_agent(self, request: bytes, caller: Caller) -> bytes | Reply[bytes] | Coroutine[Any, Any, bytes]:
        fork = self.requests.fork(request)
        caller.may_read(fork.parent)
        caller.may_write(fork.new_agent)
        if fork.at.at_time_ns is not None:
            return self._fork_at_time(fork)
        return encoded(self.engine.fork_agent(fork.parent, fork.new_agent, fork.at.at_ts), _forked)

    async def _fork_at_time(self, fork: ForkArguments) -> bytes:
        at_ts = await self.engine.pin(fork.parent, *fork.at)
        return _forked(await self.engine.fork_agent(fork.parent, fork.new_agent, at_ts).wait())

    def get_lineage(self, request: bytes, caller: Caller) -> Coroutine[Any, Any, bytes]:
        asked = self.requests.lineage(request)
        caller.may_read(asked.agent)
        return self._lineage(asked, caller)

    async def _lineage(self, asked: LineageArguments, caller: Caller) -> bytes:
        """Who may read the agent is not told the names of others that it may not read: only that there are such."""
        found = await self.engine.lineage(asked.agent, asked.limit, asked.before_ts)

        def origin(agent: AgentId, at_ts: int, commit_ts: int) -> pb.ForkOrigin:
            agent_id = agent.agent_id if caller.sees(agent) else ""
            return pb.ForkOrigin(agent_id=agent_id, at_ts=at_ts, commit_ts=commit_ts)

        return pb.GetLineageResponse(
            ancestors=[origin(*each) for each in found.ancestors],
            forks=[origin(*each) for each in found.children],
            more=found.more,
        ).SerializeToString()

    def delete_agent(self, request: bytes, caller: Caller) -> bytes | Reply[bytes]:
        end = self.requests.end(request)
        caller.may_write(end.agent)
        return encoded(self.engine.delete_agent(end.agent, end.checks, end.metadata), _ended)


def _forked(done: Forked) -> bytes:
    return pb.ForkAgentResponse(commit_ts=done.commit_ts, at_ts=done.at_ts, depth=done.depth).SerializeToString()


def _ended(done: EndedAgent) -> bytes:
    return pb.DeleteAgentResponse(commit_ts=done.commit_ts, deleted_keys=done.deleted_keys).SerializeToString()
