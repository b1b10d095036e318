"""How a stream that broke off goes on: what of it has come, and from that the request for the rest.

A stream's `Resume` sees every batch before its reader does. It lets through what the reader has not been given, so
that nothing comes twice whatever the server sends, and knows the request with which nothing is left out. Each is
pure, and belongs to one stream.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from google.protobuf.message import Message

from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["HistoryResume", "LogResume", "ReplayResume", "Resume"]

_ReplayLike: TypeAlias = pb.ReplayRequest | pb.ReplayLogRequest


class Resume(Protocol):
    """The place of a reader in a stream."""

    def take(self, batch: Sequence[Message]) -> list[Message]:
        """What of this is new to the reader, who is given it."""

    def rest(self) -> Message | None:
        """The request for what comes after all that was taken; None when that is all."""


class ReplayResume:
    """Of Replay: a commit is one event of an agent, so the rest begins after the last commit_ts.

    A bookmark counts only once there was an event: an agent that has none may come to be as a fork while nobody is
    connected, with events that are older than the bookmark. One that has any cannot.
    """

    def __init__(self, request: Message) -> None:
        if not isinstance(request, pb.ReplayRequest):
            raise TypeError("no Replay")
        self._request = request
        self._next_ts = request.start_ts
        self._begun = False
        self._left = request.limit

    def take(self, batch: Sequence[Message]) -> list[Message]:
        """Events from `next` on, and all bookmarks: also one that tells nothing new is a sign of life."""
        taken: list[Message] = []
        for message in batch:
            if not isinstance(message, pb.ReplayEvent):
                raise TypeError("no event")
            if message.bookmark:
                if self._begun:
                    self._next_ts = max(self._next_ts, message.commit_ts + 1)
                taken.append(message)
            elif message.commit_ts >= self._next_ts:
                self._begun = True
                self._next_ts = message.commit_ts + 1
                self._left -= 1
                taken.append(message)
        return taken

    def rest(self) -> Message | None:
        """The same from the next commit on; the same as ever while no event has come."""
        return _from(self._request, self._next_ts, self._left) if self._begun else self._request


class LogResume:
    """Of ReplayLog: a commit is one event for each agent, so the rest begins within the last commit_ts.

    The events of a commit come in the order of its record, so those that were given are the first so many.
    """

    def __init__(self, request: Message) -> None:
        if not isinstance(request, pb.ReplayLogRequest):
            raise TypeError("no ReplayLog")
        self._request = request
        self._at_ts = request.start_ts
        self._begun = False
        self._given = 0
        """Events of `at_ts` that the reader has."""
        self._repeated = 0
        """Events of `at_ts` that come again."""
        self._left = request.limit

    def take(self, batch: Sequence[Message]) -> list[Message]:
        """What lies behind the events that the reader has."""
        taken: list[Message] = []
        for message in batch:
            if not isinstance(message, pb.ReplayEvent):
                raise TypeError("no event")
            if message.bookmark:
                if message.commit_ts >= self._at_ts:
                    self._at_ts, self._given, self._repeated = message.commit_ts + 1, 0, 0
                    self._begun = True
                taken.append(message)
            elif message.commit_ts == self._at_ts and self._repeated:
                self._repeated -= 1
            elif message.commit_ts >= self._at_ts:
                if message.commit_ts > self._at_ts:
                    self._at_ts, self._given, self._repeated = message.commit_ts, 0, 0
                self._begun = True
                self._given += 1
                self._left -= 1
                taken.append(message)
        return taken

    def rest(self) -> Message | None:
        """The same from the commit on of which some events may be missing."""
        if not self._begun:
            return self._request
        if self._given == 0 and self._request.limit and self._left <= 0:
            return None
        # With a limit that was reached within a commit, too: the rest of that is still to come.
        self._repeated = self._given
        return _from(self._request, self._at_ts, self._left + self._given)


class HistoryResume:
    """Of History: versions come newest first, without a gap, and never change."""

    def __init__(self, request: Message) -> None:
        if not isinstance(request, pb.HistoryRequest):
            raise TypeError("no History")
        self._request = request
        self._before = request.before_version
        self._left = request.limit

    def take(self, batch: Sequence[Message]) -> list[Message]:
        """Versions below the last."""
        taken: list[Message] = []
        for message in batch:
            if not isinstance(message, pb.HistoryEntry):
                raise TypeError("no version")
            if self._before == 0 or message.version < self._before:
                self._before = message.version
                self._left -= 1
                taken.append(message)
        return taken

    def rest(self) -> Message | None:
        """The versions below the last; below 1 there is none."""
        limited = self._request.limit > 0
        if self._before == 1 or (limited and self._left <= 0):
            return None
        rest = pb.HistoryRequest()
        rest.CopyFrom(self._request)
        rest.before_version = self._before
        if limited:
            rest.limit = self._left
        return rest


def _from(request: _ReplayLike, start_ts: int, limit: int) -> Message | None:
    if (request.limit and limit <= 0) or (request.HasField("end_ts") and start_ts > request.end_ts):
        return None
    rest = type(request)()
    rest.CopyFrom(request)  # type: ignore[arg-type]
    rest.start_ts = start_ts
    rest.ClearField("start_time")
    if request.limit:
        rest.limit = limit
    return rest
