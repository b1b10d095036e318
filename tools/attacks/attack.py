"""What an attack is, and what attacks have in common: the target, how long, and an attacker who comes back.

An attack is a function of this process's only task: it is run in a process of its own, which is killed when it does
not come back. It returns a note of what it did and saw; what it finds wrong itself, beyond what the judge measures,
are its complaints.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from attrs import define, field, frozen

from attacks.raw_http2 import Code, text_field
from attacks.raw_peer import RawPeer

__all__ = ["LARGE", "MANY", "Attack", "Report", "Stage", "get_state", "persist", "replay"]

LARGE: Final = ("attacked", "large")
"""Agent and key of a value of nearly 1 MiB, which is there before the first attack."""
MANY: Final = "attacked-often"
"""An agent with many events."""
COMES_BACK_S: Final = 0.005
"""How long an attacker waits before it connects again."""


@frozen
class Stage:
    """Where, for how long, and how much."""

    address: tuple[str, int]
    seconds: float
    full: bool
    end_s: float
    """On the monotonic clock: when a flood ends."""

    def connect(self, **arguments: object) -> RawPeer:
        """A new connection to the target."""
        return RawPeer(self.address, **arguments)  # type: ignore[arg-type]

    def rest(self) -> None:
        """Sit there until the end."""
        time.sleep(max(self.end_s - time.monotonic(), 0.0))

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.end_s


@define
class Report:
    """What an attack tells: a note, and what it found wrong."""

    note: str = ""
    complaints: list[str] = field(factory=list)


@frozen
class Attack:
    """One attack: what runs, and the row of edge-facts (or the part of the issue) that it stands for."""

    run: Callable[[Stage], Report]
    row: str
    fills: bool = False
    """It takes all the connections that there are: strangers who come during it may be refused."""
    is_of_tls: bool = False
    """It is of a daemon with TLS."""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return self.run.__name__

    @property
    def what(self) -> str:
        """What it does, in a line."""
        return " ".join((self.run.__doc__ or "").split())


def persist(stage: Stage, once: Callable[[RawPeer], int], *, reads: bool = True) -> Report:
    """Attack until the end: `once` again and again, on a new connection whenever the server ends the old one.

    `once` returns how many of its things it has sent.
    """
    sent, connections, refused, ends = 0, 0, 0, Counter[str]()
    while not stage.over:
        try:
            peer = stage.connect(reads=reads)
        except OSError:
            refused += 1
            time.sleep(COMES_BACK_S)
            continue
        connections += 1
        with peer:
            while not peer.closed and not stage.over:
                sent += once(peer)
            if peer.closed:
                ends[_how(peer)] += 1
        time.sleep(COMES_BACK_S)
    said = ", ".join(f"{count} x {how}" for how, count in sorted(ends.items())) or "never ended"
    return Report(f"{sent} sent on {connections} connections ({said}{f', {refused} refused' if refused else ''})")


def _how(peer: RawPeer) -> str:
    if peer.goodbye is None:
        return "closed"
    return Code(peer.goodbye.code).name if peer.goodbye.code in set(Code) else f"GOAWAY {peer.goodbye.code}"


def close_all(peers: Iterable[RawPeer]) -> None:
    """Close them all."""
    for peer in peers:
        peer.close()


def get_state(agent: str, key: str) -> bytes:
    """A GetStateRequest."""
    return text_field(2, agent) + text_field(3, key)


def replay(agent: str) -> bytes:
    """A ReplayRequest of everything."""
    return text_field(2, agent)
