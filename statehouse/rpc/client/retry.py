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
from statehouse.rpc.client.resuming import HistoryResume, LogResume, ReplayResume, Resume
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
    again_if: Callable[[Message], bool] | None = None
    """What of a request makes it one that may be sent again, where `again` does not hold for all."""
    resume: Callable[[Message], Resume] | None = None
    """Of a stream: from its request to what knows the request for the rest."""
    advice: str = ""
    """What the error tells of a call that is not repeated."""


def _has_idempotency_key(request: Message) -> bool:
    return isinstance(request, pb.TransactRequest) and request.idempotency_key != ""


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
        resume=ReplayResume,
    ),
    "ReplayLog": Policy(
        again=True,
        why="the events of a commit come in the order of its record, so what was delivered of the last is known",
        resume=LogResume,
    ),
    "BatchGet": _READ,
    "History": Policy(again=True, why="versions do not change, and come without a gap", resume=HistoryResume),
    "Diff": Policy(again=True, why="it changes nothing; one that has begun might go on to another point than before"),
    "ListAgents": _READ,
    "ListNamespaces": _READ,
    "GetLease": _READ,
    "GetLineage": _READ,
    "Head": _READ,
    "Verify": Policy(again=True, why="it changes nothing; one that has begun is not begun again from its start"),
    "BeginTransaction": Policy(again=False, why="each one opens a transaction, which holds room in the daemon"),
    "Write": Policy(again=False, why="it could be staged twice, as two versions"),
    "Delete": Policy(again=False, why="it could be staged twice, as two versions"),
    "Commit": Policy(
        again=False,
        why="who commits must know that its outcome was in doubt: the second answer is another one",
        advice="whether it was committed is not known; commit the same transaction again to learn it (an error "
        "TXN_ALREADY_COMMITTED has its commit_ts)",
    ),
    "Transact": Policy(
        again=False,
        why="with an idempotency key it is done once however often it is asked for, and else perhaps twice",
        again_if=_has_idempotency_key,
        advice="whether it was committed is not known; the same call with the same idempotency_key tells, and "
        "with none it may be committed twice",
    ),
    "AcquireLease": Policy(
        again=False,
        why="the first may have it, and the second be refused for that",
        advice="whether it was acquired is not known; if it was, it expires by itself",
    ),
    "RenewLease": Policy(again=True, why="what was renewed may be renewed again"),
    "ReleaseLease": Policy(
        again=False,
        why="what was released is refused",
        advice="whether it was released is not known; it expires by itself",
    ),
    "ForkAgent": Policy(
        again=False,
        why="the first may have made it, and the second be refused for that",
        advice="whether it was forked is not known; the lineage of the new agent tells",
    ),
    "DeleteAgent": Policy(
        again=False,
        why="what somebody wrote in between, to have the agent live again, would be deleted too",
        advice="whether the agent was deleted is not known; the same call again tells, and deletes it if it lives",
    ),
    "Abort": Policy(again=True, why="by contract, what is aborted may be aborted again"),
}


class Backoff:
    """The pauses between tries: doubling, capped, drawn at random, short again after `reset`."""

    def __init__(self, random: Random, first_s: float = BACKOFF_S, most_s: float = BACKOFF_CAP_S) -> None:
        """`first_s` and `most_s` bound the first pause, and every pause."""
        self._random = random
        self._first_s = first_s
        self._most_s = most_s
        self._failed = 0

    def pause_s(self) -> float:
        """The pause after one more failure."""
        most_s = min(self._most_s, self._first_s * 2.0 ** min(self._failed, 16))
        self._failed += 1
        return self._random() * most_s

    def reset(self) -> None:
        """All went well."""
        self._failed = 0


class Attempts:
    """The failed attempts of one call, and what is to be done about them."""

    def __init__(
        self,
        name: str,
        request: Message | None,
        backoff: Backoff,
        now: Callable[[], float],
        closed: Callable[[], bool],
        *,
        began: bool = False,
    ) -> None:
        """`began`: some answers of a stream came, so that it can only be resumed."""
        self._policy = POLICIES[name]
        again_if = self._policy.again_if
        self._again = self._policy.again or (again_if is not None and request is not None and again_if(request))
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
        return isinstance(error, LostCallError) and self._again

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
