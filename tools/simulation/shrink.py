"""From a plan that fails to the smallest one found that still does: fewer lives, faults, clients and transactions.

What is left out decides what the random numbers behind it are used for, so that a smaller plan is another run, and may
fail in another way. That is no loss: whatever fails is a violation, and the smallest is the easiest to read.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

from attrs import evolve, frozen

from simulation.plan import Plan, draw_plan

__all__ = ["Reduction", "shrink"]

SHRINKING_S: Final = 20.0


@frozen
class Reduction:
    """A seed, and what is left of its plan; None: all of it."""

    seed: int
    lives: int | None = None
    faults: tuple[int, ...] | None = None
    clients: int | None = None
    transactions: int | None = None

    def plan(self) -> Plan:
        """The plan."""
        return draw_plan(self.seed).reduced(
            lives=self.lives, faults=self.faults, clients=self.clients, transactions=self.transactions
        )

    def command(self) -> str:
        """What repeats it."""
        options = [f"--seed {self.seed}"]
        if self.lives is not None:
            options.append(f"--lives {self.lives}")
        if self.faults is not None:
            options.append(f"--faults {','.join(map(str, self.faults)) or 'none'}")
        if self.clients is not None:
            options.append(f"--clients {self.clients}")
        if self.transactions is not None:
            options.append(f"--transactions {self.transactions}")
        return f"python tools/proof_simulation.py {' '.join(options)}"


def shrink(start: Reduction, fails: Callable[[Plan], bool], *, seconds: float = SHRINKING_S) -> Reduction:
    """The smallest plan found within a time whose `fails` is still true; it is for `start`."""
    until_s = time.monotonic() + seconds
    smallest, is_smaller = start, True
    while is_smaller:
        is_smaller = False
        for candidate in _smaller(smallest):
            if time.monotonic() > until_s:
                return smallest
            if fails(candidate.plan()):
                smallest, is_smaller = candidate, True
                break
    return smallest


def _smaller(reduction: Reduction) -> Iterator[Reduction]:
    """Every way to make it a little smaller, the largest steps first."""
    plan = reduction.plan()
    for lives in _below(len(plan.lives), 0):
        yield evolve(reduction, lives=lives)
    numbers = tuple(fault.number for fault in plan.faults)
    for number in numbers:
        yield evolve(reduction, faults=tuple(other for other in numbers if other != number))
    for clients in _below(max((life.clients for life in plan.lives), default=0), 1):
        yield evolve(reduction, clients=clients)
    for transactions in _below(max((life.transactions for life in plan.lives), default=0), 1):
        yield evolve(reduction, transactions=transactions)


def _below(now: int, least: int) -> Iterator[int]:
    """Smaller numbers: the least, the half, one less."""
    yield from sorted({number for number in (least, now // 2, now - 1) if least <= number < now})
