"""The calls that are answered with a stream. The engine's chunks go on as they come: lists of encoded messages."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from attrs import frozen

from statehouse.findings import VerifyEvent
from statehouse.rpc.server.access import Caller
from statehouse.rpc.server.engine_calls import EngineCalls
from statehouse.rpc.server.requests_streams import StreamRequests
from statehouse.rpc.verify_events import encode_event

__all__ = ["StreamCalls"]


@frozen
class StreamCalls:
    """One method for each call."""

    engine: EngineCalls
    requests: StreamRequests

    def history(self, request: bytes, caller: Caller) -> AsyncGenerator[list[bytes], None]:
        asked = self.requests.history(request)
        caller.may_read(asked.agent)
        return self.engine.history(asked.agent, asked.key, limit=asked.limit, before_version=asked.before_version)

    def diff(self, request: bytes, caller: Caller) -> AsyncGenerator[list[bytes], None]:
        diff = self.requests.diff(request)
        caller.may_read(diff.agent)
        return self.engine.diff(
            diff.agent,
            diff.prefix,
            from_ts=diff.from_ts,
            from_time_ns=diff.from_time_ns,
            to_ts=diff.to_ts,
            to_time_ns=diff.to_time_ns,
        )

    def replay(self, request: bytes, caller: Caller) -> AsyncGenerator[list[bytes], None]:
        replay = self.requests.replay(request)
        caller.may_read(replay.agent)
        return self.engine.replay(replay)

    def replay_log(self, request: bytes, caller: Caller) -> AsyncGenerator[list[bytes], None]:
        replay = self.requests.replay_log(request)
        caller.may_list(replay.namespace, replay.agent_prefix)
        return self.engine.replay_log(replay)

    def verify(self, request: bytes, caller: Caller) -> AsyncGenerator[list[bytes], None]:
        heads = self.requests.verify(request)
        caller.may_administer()
        return _encoded_events(self.engine.verify(heads))


async def _encoded_events(events: AsyncGenerator[list[VerifyEvent], None]) -> AsyncGenerator[list[bytes], None]:
    async with aclosing(events):
        async for some in events:
            yield [encode_event(each).SerializeToString() for each in some]
