"""The other half of the load: readers that take a few bytes a second, and peers that vanish without a word.

They speak HTTP/2 by themselves (attacks/raw_peer.py), because a client that keeps to the rules does neither. All of it
blocks, and runs in a thread.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attacks.attack import replay
from attacks.raw_http2 import Setting, window_update
from attacks.raw_peer import RawPeer
from attrs import define, field

__all__ = ["Mischief"]

NO_WINDOW: Final[dict[int, int]] = {Setting.INITIAL_WINDOW_SIZE: 0}
AGENTS: Final = 16
"""Of those whose names the workload shares."""
SLOW: Final = 4
SLOW_BYTES: Final = 3
SLOW_LIFE_S: Final = 12.0
STEP_S: Final = 0.5
VANISHING_S: Final = 0.02
"""How long a peer that vanishes has been there."""


@define
class Mischief:
    """Slow readers and vanishing ones, in turns."""

    address: tuple[str, int]
    rng: random.Random
    tried: Counter[str]
    _slow: list[tuple[RawPeer, int, float]] = field(factory=list)

    def run(self, is_over: Callable[[], bool]) -> None:
        """Until it is over, or the daemon is gone."""
        with suppress(OSError):
            while not is_over():
                self._read_slowly()
                self._vanish()
                time.sleep(STEP_S)
        for peer, _, _ in self._slow:
            peer.close()

    def _read_slowly(self) -> None:
        kept = []
        now_s = time.monotonic()
        for peer, stream_id, until_s in self._slow:
            peer.send(window_update(stream_id, SLOW_BYTES), now_s + STEP_S)
            peer.take()
            if now_s > until_s or peer.closed:
                peer.close()
            else:
                kept.append((peer, stream_id, until_s))
        if len(kept) < SLOW:
            peer = RawPeer(self.address, wanted=NO_WINDOW)
            peer.returns_credit = False
            kept.append((peer, self._asks(peer), now_s + self.rng.uniform(0.5, 1) * SLOW_LIFE_S))
            self.tried["slow readers"] += 1
        self._slow = kept

    def _vanish(self) -> None:
        """A connection that is reset while a replay comes."""
        peer = RawPeer(self.address)
        self._asks(peer)
        peer.read_for(self.rng.uniform(0, VANISHING_S))
        peer.abort()
        self.tried["connections reset in a replay"] += 1

    def _asks(self, peer: RawPeer) -> int:
        return peer.call("Replay", replay(f"agent-{self.rng.randrange(AGENTS):02}"))
