"""A stream that follows the log for as long as its reader wants, through lost connections and restarts."""

import copy
from typing import TYPE_CHECKING, Final

import anyio
from google.protobuf.message import Message

from statehouse.errors import ConnectionError, OverloadedError, StatehouseError
from statehouse.limits import BOOKMARK_S
from statehouse.rpc.client.message_stream import MessageStream
from statehouse.rpc.client.resuming import LogResume, ReplayResume, Resume
from statehouse.rpc.contract import Method
from statehouse.v1 import statehouse_pb2 as pb

if TYPE_CHECKING:
    from statehouse.rpc.client.transport import Transport

__all__ = ["FollowingStream"]

QUIET_S: Final = 3 * BOOKMARK_S
"""A stream on which not even a bookmark came for so long is begun again, however short the client's own time is."""
_LAST_TS: Final = 2**64 - 1


class FollowingStream:
    """The answers of a Replay or ReplayLog with `follow`; nothing comes twice, nothing is left out.

    It begins as any call does: when the daemon cannot be reached, that is told. From the first answer on it is begun
    again whenever it is lost, after a pause that grows and is drawn at random, until it has come to the end that the
    request gives, is left, or the client is closed. A refusal other than for want of room ends it, too.

    A request without a start begins with what is committed after the daemon was first reached. `limit_s` is how long
    may pass without an answer, bookmarks among them, until the connection counts as lost.
    """

    def __init__(self, transport: "Transport", method: Method, request: Message, limit_s: float | None) -> None:
        if not isinstance(request, pb.ReplayRequest | pb.ReplayLogRequest):
            raise TypeError("no Replay")
        self._transport = transport
        self._method = method
        self._limit_s = (
            max(transport.limit_s(None), QUIET_S) if limit_s is None else transport.limit_s(limit_s, endless=True)
        )
        request.follow = request.bookmarks = True
        self._request: pb.ReplayRequest | pb.ReplayLogRequest | None = request
        """None: its end lies before its beginning."""
        self._from_now = not (request.HasField("start_ts") or request.HasField("start_time"))
        self._ends = request.limit > 0 or request.HasField("end_ts") or request.HasField("end_time")
        self._backoff = transport.backoff()
        self._began = False
        self._finished = False
        self._stream: MessageStream | None = None
        self._resume: Resume | None = None
        """The reader's place, through all streams."""

    async def next_batch(self) -> list[Message]:
        """Some answers, at least one, in the course of time; none at the end. Raises StatehouseError."""
        going_on = False
        try:
            batch = [] if self._finished else await self._next()
            going_on = bool(batch)
        finally:
            if not going_on:
                await self.aclose()
        return batch

    async def aclose(self) -> None:
        """Leave the stream; the daemon is told to stop. Idempotent, does not wait."""
        self._finished = True
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    def abandon(self) -> None:
        """Leave the stream from any thread, and from a finalizer."""
        self._finished = True
        if self._stream is not None:
            self._stream.abandon()

    async def _next(self) -> list[Message]:
        while True:
            try:
                if self._from_now and self._request is not None:
                    self._request = await self._from_the_end(self._request)
                    self._from_now, self._began = False, True
                if self._stream is None:
                    self._stream = self._begin_again()
                batch = await self._stream.next_batch()
            except (ConnectionError, OverloadedError):
                if not self._began or self._transport.closed:
                    raise
                batch = []
            else:
                if batch:
                    self._began = True
                    self._backoff.reset()
                    return batch
                if self._ends:
                    return []
            self._stream = None
            await anyio.sleep(self._backoff.pause_s())

    def _begin_again(self) -> MessageStream:
        if self._resume is None and self._request is not None:
            is_log = isinstance(self._request, pb.ReplayLogRequest)
            self._resume = LogResume(self._request) if is_log else ReplayResume(self._request)
        rest = None if self._resume is None else self._resume.rest()
        return MessageStream(self._transport, self._method, rest, self._limit_s, resume=self._resume)

    async def _from_the_end(
        self, request: pb.ReplayRequest | pb.ReplayLogRequest
    ) -> pb.ReplayRequest | pb.ReplayLogRequest | None:
        """The request with a start: what lies behind everything is asked for, and the bookmark says where that is."""
        ahead = copy.deepcopy(request)
        for name in ("end_ts", "end_time", "limit"):
            ahead.ClearField(name)
        ahead.start_ts = _LAST_TS
        stream = MessageStream(self._transport, self._method, ahead, min(self._limit_s, self._transport.limit_s(None)))
        try:
            batch = await stream.next_batch()
        finally:
            await stream.aclose()
        first = batch[0] if batch else None
        if not (isinstance(first, pb.ReplayEvent) and first.bookmark):
            raise StatehouseError(
                f"{self._transport.address} does not say where its log ends: it may be older than this client"
            )
        ahead = copy.deepcopy(request)
        ahead.start_ts = first.commit_ts + 1
        return None if ahead.HasField("end_ts") and ahead.end_ts < ahead.start_ts else ahead
