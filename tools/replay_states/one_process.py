"""One of the two processes of the proof: runs histories, judges them, and prints a line of JSON for each.

python -m replay_states.one_process FIRST_SEED HISTORIES
"""

import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog
import trio
from attrs import Factory, asdict, frozen
from proof_report import flat
from trio.testing import MockClock

from replay_states.drawing import History, draw_history
from replay_states.judging import judge
from replay_states.recorded import Recorded
from replay_states.running import carry_out
from replay_states.same_turns import same_turns
from replay_states.stores import DirectoryBed, MemoryBed

__all__ = ["Outcome", "outcomes"]

LEVELDB_EVERY: Final = 20
"""One history in so many happens in a directory with a real LevelDB, the others in memory."""
HISTORY_S: Final = 1_000_000.0
"""By a clock that jumps to whatever somebody waits for, so that one that hangs is given up at once."""


@frozen
class Outcome:
    """What one history came to."""

    seed: int
    digest: str
    """Of the log's bytes and of every agent's state at every commit_ts."""
    violations: list[str]
    counts: dict[str, int] = Factory(dict)

    @property
    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def outcomes(first_seed: int, histories: int) -> Iterator[Outcome]:
    """Run the histories of consecutive seeds."""
    with same_turns() as seed_turns:
        for seed in range(first_seed, first_seed + histories):
            seed_turns(seed)
            try:
                yield _outcome(draw_history(seed))
            except Exception as error:  # noqa: BLE001 - whatever a history ends with is told with its seed
                yield Outcome(seed, "", [f"seed {seed}: {'; '.join(_told(error))}"])


def _outcome(history: History) -> Outcome:
    # A clock that stands while anything happens: where the wall clock jumps back, the engine's own goes by this one.
    recorded = trio.run(_run, history, clock=MockClock(autojump_threshold=0), strict_exception_groups=True)
    verdict = judge(history, recorded)
    counts = {
        "histories": 1,
        "of them on a real LevelDB": int(_is_on_leveldb(history)),
        "states folded and compared with every version": verdict.states,
        "states compared with a read at that moment": verdict.states_read,
        "of them with what had expired and was not deleted yet": verdict.states_expired,
        "commits that deleted what had expired": len(verdict.swept),
        "bytes of log": len(recorded.log),
        **recorded.counts,
    }
    return Outcome(history.seed, verdict.digest.hexdigest(), verdict.violations, counts)


async def _run(history: History) -> Recorded:
    with trio.fail_after(HISTORY_S):
        if not _is_on_leveldb(history):
            return await carry_out(history, MemoryBed())
        with tempfile.TemporaryDirectory(prefix="statehouse-proof-replay-") as directory:
            return await carry_out(history, DirectoryBed(Path(directory)))


def _is_on_leveldb(history: History) -> bool:
    return history.seed % LEVELDB_EVERY == 0


def _told(error: BaseException) -> Iterator[str]:
    return (f"{type(each).__name__}: {each}" for each in flat(error))


def main() -> None:
    """Run what the command line asks for."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    for outcome in outcomes(int(sys.argv[1]), int(sys.argv[2])):
        print(outcome.line, flush=True)


if __name__ == "__main__":
    main()
