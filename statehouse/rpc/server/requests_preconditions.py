"""Preconditions, from the wire's words to what partitions check: the same in every request that has some."""

from collections.abc import Iterable

from attrs import frozen

from statehouse.actors.messages import AgentAt, Check, Condition, ExistsIs, LeaseIs, VersionIs
from statehouse.errors import InvalidRequestError
from statehouse.limits import PRECONDITIONS
from statehouse.rpc.server.requests import Names, check_count, of_one
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["Preconditions", "epoch_of"]


@frozen
class Preconditions(Names):
    """Checks preconditions, and names, against one set of limits. Raises InvalidRequestError."""

    def checks(self, preconditions: Iterable[pb.Precondition], namespace: str) -> tuple[Check, ...]:
        """All of them; `namespace` is that of those that name none."""
        given = list(preconditions)
        check_count("preconditions", len(given), PRECONDITIONS)
        return tuple([self._check(place, each, namespace) for place, each in enumerate(given)])

    def _check(self, place: int, given: pb.Precondition, namespace: str) -> Check:
        """Repeated and contradictory ones are taken as they are: each is looked at for itself."""
        try:
            return Check(place, self.agent(given.namespace or namespace, given.agent_id), self._condition(given))
        except InvalidRequestError as error:
            raise of_one("precondition", place, error) from None

    def _condition(self, given: pb.Precondition) -> Condition:
        kind = given.WhichOneof("condition")
        if kind == "version":
            return VersionIs(self.key_bytes(given.key), given.version)
        if kind == "exists":
            return ExistsIs(self.key_bytes(given.key), given.exists)
        if kind is None:
            raise InvalidRequestError("it has no condition, or none that this daemon knows")
        if given.key:
            raise InvalidRequestError(f"{kind} is about the whole agent, and there is a key")
        if kind == "agent_commit_ts":
            return AgentAt(given.agent_commit_ts)
        return LeaseIs(epoch_of("lease_epoch", given.lease_epoch))


def epoch_of(field: str, epoch: int) -> int:
    """The epoch of a lease, which is given."""
    if not epoch:
        raise InvalidRequestError(f"{field} is 0; epochs begin at 1")
    return epoch
