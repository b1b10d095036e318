"""The requests that are answered with a stream: replays, the history of a key, what is different, verifications."""

from typing import Any

from attrs import frozen

from statehouse.actors.watching import ReplayArguments, ReplayLogArguments
from statehouse.errors import InvalidRequestError
from statehouse.findings import Head, distinct
from statehouse.rpc.server.requests import Names, check_limit, metadata_of, parse, size_of, time_ns_of
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["DiffArguments", "HistoryArguments", "StreamRequests"]


@frozen
class HistoryArguments:
    """Of one key, newest first. 0: all."""

    agent: AgentId
    key: str
    limit: int
    before_version: int


@frozen
class DiffArguments:
    """Each point by one of the two; neither: before the first commit, and now. An empty `prefix` means every key."""

    agent: AgentId
    prefix: str
    from_ts: int | None
    from_time_ns: int | None
    to_ts: int | None
    to_time_ns: int | None


@frozen
class StreamRequests(Names):
    """Decodes and checks them against one set of limits. Raises InvalidRequestError."""

    def history(self, request: bytes) -> HistoryArguments:
        """History."""
        history = parse(pb.HistoryRequest, request)
        agent, key = self.agent(history.namespace, history.agent_id), self.key(history.key)
        return HistoryArguments(agent, key, history.limit, history.before_version)

    def diff(self, request: bytes) -> DiffArguments:
        """Diff."""
        diff = parse(pb.DiffRequest, request)
        prefix = self.prefix(diff.prefix, self.limits.key_bytes)
        agent = self.agent(diff.namespace, diff.agent_id)
        start, end = _end(diff, "from_ts", "from_time"), _end(diff, "to_ts", "to_time")
        return DiffArguments(agent, prefix, *start, *end)

    def replay(self, request: bytes) -> ReplayArguments:
        """Replay."""
        replay = parse(pb.ReplayRequest, request)
        return ReplayArguments(agent=self.agent(replay.namespace, replay.agent_id), **self._wanted(replay))

    def replay_log(self, request: bytes) -> ReplayLogArguments:
        """ReplayLog. An absent namespace is all of them, an empty one is the default one."""
        replay = parse(pb.ReplayLogRequest, request)
        namespace = self.namespace(replay.namespace) if replay.HasField("namespace") else None
        check_limit("agent_prefix", size_of(replay.agent_prefix), self.limits.agent_id_bytes)
        return ReplayLogArguments(namespace=namespace, agent_prefix=replay.agent_prefix, **self._wanted(replay))

    def _wanted(self, replay: pb.ReplayRequest | pb.ReplayLogRequest) -> dict[str, Any]:
        check_limit("key_prefix", size_of(replay.key_prefix), self.limits.key_bytes)
        start_ts, start_time_ns = _end(replay, "start_ts", "start_time")
        end_ts, end_time_ns = _end(replay, "end_ts", "end_time")
        return {
            "start_ts": start_ts,
            "start_time_ns": start_time_ns,
            "end_ts": end_ts,
            "end_time_ns": end_time_ns,
            "follow": replay.follow,
            "limit": replay.limit,
            "key_prefix": replay.key_prefix.encode(),
            "bookmarks": replay.bookmarks,
            "metadata": metadata_of(replay.metadata),
        }

    def verify(self, request: bytes) -> list[Head]:
        """Verify: the known heads."""
        heads = [Head(each.commit_ts, each.chain) for each in parse(pb.VerifyRequest, request).heads]
        try:
            return distinct(heads)
        except ValueError as error:
            raise InvalidRequestError(str(error)) from None


def _end(
    request: pb.DiffRequest | pb.ReplayRequest | pb.ReplayLogRequest, ts: str, time: str
) -> tuple[int | None, int | None]:
    """One end of a range: its commit_ts or its time in nanoseconds, or neither."""
    commit_ts = getattr(request, ts) if request.HasField(ts) else None
    if not request.HasField(time):
        return commit_ts, None
    if commit_ts is not None:
        raise InvalidRequestError(f"{ts} and {time} are both given; at most one of them may be")
    return None, time_ns_of(time, getattr(request, time))
