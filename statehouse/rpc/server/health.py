"""`grpc.health.v1.Health`, and where the daemon is in its life: `Serving` holds that, and nothing else does.

Whoever knows of a change says so once (`Serving.become`): the daemon when it is ready and when it stops, the engine
when the log takes no more commits. Every Watch stream sleeps on it; nothing is polled.

The daemon is one thing to its clients, so the whole (the empty name) and the service of the contract have the same
status. NOT_SERVING is also what a daemon says whose log takes no more commits: it answers reads, but traffic that may
be routed elsewhere is better off there.

The protocol: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from collections.abc import AsyncGenerator
from enum import IntEnum
from typing import Final

import trio
from attrs import frozen

from statehouse.errors import ErrorCode, NotFoundError
from statehouse.rpc.contract import SERVICE_NAME
from statehouse.rpc.server.dispatch import Hosted
from statehouse.rpc.server.failures import shutting_down
from statehouse.rpc.server.published import HEALTH, decode_question
from statehouse.rpc.v1 import health_pb2 as pb

__all__ = ["SERVICES", "Phase", "Serving", "health_service"]

SERVICES: Final = ("", SERVICE_NAME)
"""The names that have a status."""


class Phase(IntEnum):
    """The life of a daemon. It goes one way; phases may be skipped."""

    STARTING = 0
    SERVING = 1
    READ_ONLY = 2
    STOPPING = 3


class Serving:
    """The phase of this daemon, and the bell that rings when it changes. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._phase = Phase.STARTING
        self._changed = trio.Event()

    @property
    def phase(self) -> Phase:
        """Where the daemon is now."""
        return self._phase

    def become(self, phase: Phase) -> None:
        """Go on to a later phase, and wake who waits. An earlier one is too late and changes nothing."""
        if phase > self._phase:
            self._phase = phase
            self._changed.set()
            self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()


def health_service(serving: Serving) -> Hosted:
    """Health, open to all and at all times: a probe has no token, and asks above all while the daemon starts."""
    calls = _Calls(serving)
    functions = {"Check": calls.check, "List": calls.list_all, "Watch": calls.watch}
    every = frozenset(functions)
    return Hosted(HEALTH.service(functions), open_to_all=every, always=every)


@frozen
class _Calls:
    serving: Serving

    def check(self, request: bytes, _caller: object) -> bytes:
        """NotFoundError for a service that is not here."""
        name = decode_question(pb.HealthCheckRequest, request).service
        if name not in SERVICES:
            # No row of the error table is about services, and KEY_NOT_FOUND would be a lie.
            raise NotFoundError(f"there is no service {name!r}", code=ErrorCode.UNKNOWN)
        return self._response(name).SerializeToString()

    def list_all(self, request: bytes, _caller: object) -> bytes:
        decode_question(pb.HealthListRequest, request)
        return pb.HealthListResponse(statuses={name: self._response(name) for name in SERVICES}).SerializeToString()

    def watch(self, request: bytes, _caller: object) -> AsyncGenerator[list[bytes], None]:
        """For a service that is not here too: SERVICE_UNKNOWN, and the stream stays open, as the protocol has it."""
        return self._statuses(decode_question(pb.HealthCheckRequest, request).service)

    async def _statuses(self, name: str) -> AsyncGenerator[list[bytes], None]:
        told: bytes | None = None
        while True:
            status = self._response(name).SerializeToString()
            if status != told:
                told = status
                yield [status]  # the phase may change while the client reads: look again
            elif self.serving.phase is Phase.STOPPING:
                # There is nothing more to say. Left open, the stream would hold the stop up for its whole grace time.
                raise shutting_down()
            else:
                await self.serving.changed()

    def _response(self, name: str) -> pb.HealthCheckResponse:
        if name not in SERVICES:
            return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
        if self.serving.phase is Phase.SERVING:
            return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)
        return pb.HealthCheckResponse(status=pb.HealthCheckResponse.NOT_SERVING)
