"""Which calls are sent again, and when: one table, with the reason for each.

Whatever the server says it did not look at may be sent again, and so may what was never sent. Beyond that it
depends on the call: POLICIES. What is repeated is repeated at most TRIES times, within the caller's own deadline,
after a pause that doubles and is drawn at random (full jitter, https://aws.amazon.com/builders-library/
timeouts-retries-and-backoff-with-jitter/): a thousand clients of a daemon that was restarted do not come back as one.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import anyio
from attrs import frozen
from google.protobuf.message import Message

from statehouse.errors import ConnectionError
from statehouse.rpc.client.faults import DeadlineError, LostCallError, NotConnectedError, NotProcessedError
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["BACKOFF_CAP_S", "BACKOFF_S", "POLICIES", "TRIES", "Attempts", "Backoff", "Policy", "Random"]

BACKOFF_S: Final = 0.05
"""The first pause is at most so long, each after it at most twice as long as the one before."""
BACKOFF_CAP_S: Final = 5.0
TRIES: Final = 3
"""How often one call is sent, or one stream begun without anything coming of it."""

Random: TypeAlias = Callable[[], float]
"""Draws from [0, 1)."""


@frozen
class Policy:
    """What is done when a call was sent and its answer got lost."""

    again: bool
    why: str
    resume: Callable[[Message, Message], Message | None] | None = None
    """Of a stream: from the request and the last answer to the request for the rest; None when nothing is left."""
    advice: str = ""
    """What the error tells of a call that is not repeated."""


def _rest_of_replay(request: Message, last: Message) -> Message | None:
    if not isinstance(request, pb.ReplayRequest) or not isinstance(last, pb.ReplayEvent):
        raise TypeError("no Replay")
    rest = pb.ReplayRequest()
    rest.CopyFrom(request)
    rest.start_ts = last.commit_ts + 1
    return None if request.HasField("end_ts") and rest.start_ts > request.end_ts else rest


_READ: Final = Policy(again=True, why="a read changes nothing")

POLICIES: Final = {
    "Health": _READ,
    "Version": _READ,
    "GetState": _READ,
    "GetStateAtVersion": _READ,
    "ListKeys": _READ,
    "ScanPrefix": _READ,
    "Replay": Policy(
        again=True,
        why="a commit is one event of an agent, so what follows the last commit_ts is what was not delivered",
        resume=_rest_of_replay,
    ),
    "BeginTransaction": Policy(again=False, why="each one opens a transaction, which holds room in the daemon"),
    "Write": Policy(again=False, why="it could be staged twice, as two versions"),
    "Delete": Policy(again=False, why="it could be staged twice, as two versions"),
    "Commit": Policy(
        again=False,
        why="who commits must know that its outcome was in doubt: the second answer is another one",
        advice="whether it was committed is not known; commit the same transaction again to learn it (an error "
        "TXN_ALREADY_COMMITTED has its commit_ts)",
    ),
    "Abort": Policy(again=True, why="by contract, what is aborted may be aborted again"),
}


class Backoff:
    """The pauses between tries: doubling, capped, drawn at random, short again after `reset`."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failed = 0

    def pause_s(self) -> float:
        """The pause after one more failure."""
        most_s = min(BACKOFF_CAP_S, BACKOFF_S * 2.0 ** min(self._failed, 16))
        self._failed += 1
        return self._random() * most_s

    def reset(self) -> None:
        """All went well."""
        self._failed = 0


class Attempts:
    """The failed attempts of one call, and what is to be done about them."""

    def __init__(
        self, name: str, backoff: Backoff, now: Callable[[], float], closed: Callable[[], bool], *, began: bool = False
    ) -> None:
        """`began`: some answers of a stream came, so that it can only be resumed."""
        self._policy = POLICIES[name]
        self._backoff = backoff
        self._now = now
        self._closed = closed
        self._began = began
        self._failures: list[ConnectionError] = []

    async def failed(self, error: ConnectionError, deadline: float) -> None:
        """Wait until the call may be tried again; else raise what its caller is told."""
        self._failures.append(error)
        if not self._closed() and self._may_try_again(error):
            pause_s = self._backoff.pause_s()
            if self._now() + pause_s < deadline:
                await anyio.sleep(pause_s)
                return
        raise self._told()

    def _may_try_again(self, error: ConnectionError) -> bool:
        if len(self._failures) >= TRIES or (self._began and self._policy.resume is None):
            return False
        if isinstance(error, NotProcessedError):
            return True
        if isinstance(error, NotConnectedError):
            # Nobody is there; but when somebody was just now, they may be coming back.
            return self._began or len(self._failures) > 1
        return isinstance(error, LostCallError) and self._policy.again

    def _told(self) -> ConnectionError:
        """What it failed with first, what came of trying again, and what to do now."""
        first, last = self._failures[0], self._failures[-1]
        # What counts is whether any of the attempts may have been carried out.
        sent = [each for each in self._failures if isinstance(each, LostCallError | DeadlineError)]
        again = f"; tried again: {last.message}" if last.message != first.message else ""
        advice = f"; {self._policy.advice}" if sent and self._policy.advice else ""
        gravest = sent[0] if sent else last
        if not again and not advice:
            return gravest
        return type(gravest)(f"{first.message}{again}{advice}", code=gravest.code, details=gravest.details)
