"""Plans in several processes, and what came of each, also when it does not end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from proof_processes import in_processes

from simulation.coverage import Coverage
from simulation.plan import Plan, draw_plan
from simulation.run import Result, run_plan

__all__ = ["run_bounded", "run_seeds"]

SEEDS_A_COLLECTION: Final = 20
"""A run is short, and its garbage is not worth looking for after each."""
HANGS_S: Final = 60.0
"""A seed takes some 50 ms. One that takes this long, in real time, goes round in circles."""


@contextmanager
def run_seeds(seeds: Sequence[int], processes: int) -> Iterator[Iterator[tuple[int, Result]]]:
    """What comes of each seed, in the order in which they end. The processes end with the block."""
    with in_processes(
        _run_seed, seeds, _failed, case_s=HANGS_S, processes=processes, cases_a_collection=SEEDS_A_COLLECTION
    ) as outcomes:
        yield outcomes


def run_bounded(plan: Plan, *, traced: bool = False) -> Result:
    """As `run_plan`, in a process of its own; whatever comes out of it, or does not end, is a violation."""
    with in_processes(partial(run_plan, traced=traced), [plan], _failed, case_s=HANGS_S) as outcomes:
        [(_, result)] = outcomes
    return result


def _run_seed(seed: int) -> Result:
    return run_plan(draw_plan(seed))


def _failed(_: object, why: str) -> Result:
    return Result([why], Coverage(), [])
