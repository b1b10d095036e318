"""The requests about an agent as a whole: its fork, its lineage, its end."""

from attrs import frozen

from statehouse.actors.messages import Check
from statehouse.errors import InvalidRequestError
from statehouse.limits import LINEAGE_FORKS
from statehouse.rpc.server.requests import metadata_of, parse
from statehouse.rpc.server.requests_preconditions import Preconditions
from statehouse.rpc.server.requests_reads import Point, point_of
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["AgentRequests", "EndArguments", "ForkArguments", "LineageArguments"]


@frozen
class ForkArguments:
    """The two are of one namespace."""

    parent: AgentId
    new_agent: AgentId
    at: Point


@frozen
class LineageArguments:
    """Of the forks at most `limit`, made before that commit; 0: whenever."""

    agent: AgentId
    limit: int
    before_ts: int


@frozen
class EndArguments:
    """All of `checks` are on the agent."""

    agent: AgentId
    checks: tuple[Check, ...]
    metadata: dict[str, str]


@frozen
class AgentRequests(Preconditions):
    """Decodes and checks them against one set of limits. Raises InvalidRequestError."""

    def fork(self, request: bytes) -> ForkArguments:
        """ForkAgent."""
        fork = parse(pb.ForkAgentRequest, request)
        parent = self.agent(fork.namespace, fork.agent_id)
        return ForkArguments(parent, self.agent(fork.namespace, fork.new_agent_id, "new_agent_id"), point_of(fork))

    def lineage(self, request: bytes) -> LineageArguments:
        """GetLineage."""
        get = parse(pb.GetLineageRequest, request)
        agent = self.agent(get.namespace, get.agent_id)
        if get.limit > LINEAGE_FORKS:
            raise InvalidRequestError(
                f"limit is {get.limit}; at most {LINEAGE_FORKS} forks are given in one answer",
                details={"limit": str(LINEAGE_FORKS), "size": str(get.limit)},
            )
        return LineageArguments(agent, get.limit or LINEAGE_FORKS, get.before_ts)

    def end(self, request: bytes) -> EndArguments:
        """DeleteAgent. Preconditions that name no namespace are of the agent's."""
        delete = parse(pb.DeleteAgentRequest, request)
        agent = self.agent(delete.namespace, delete.agent_id)
        checks = self.checks(delete.preconditions, delete.namespace)
        for check in checks:
            if check.agent != agent:
                raise InvalidRequestError(f"precondition {check.place}: it is about another agent than is deleted")
        return EndArguments(agent, checks, metadata_of(delete.metadata))
