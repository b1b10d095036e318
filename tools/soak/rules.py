"""What the samples of a soak must be: flat once warm, back at the end, and a disk that grows as the log does."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

from attrs import frozen

from soak.flatness import LEAST_SAMPLES, Growth, Rule, growth
from soak.sample import MIB, Sample
from statehouse.limits import SEGMENT_BYTES

__all__ = ["RULES", "Judgement", "beyond_the_log", "not_back", "of_a_life", "over_lives", "warm"]

WARM_UP_S: Final = 30.0
WARM_UP_SHARE: Final = 1 / 3
"""Of a life: the shorter of the two is left out."""

RULES: Final[dict[str, Rule]] = {
    # LevelDB fills a write buffer of 8 MiB while it empties another. An hour of this load leaves some hundred tables,
    # whose indexes and filters it keeps in memory, and tens of thousands of aborted transactions that are remembered.
    "rss_anon": Rule("RssAnon", "MiB", noise=12.0, per_hour=24.0),
    "threads": Rule("threads", "threads", noise=10.0, per_hour=0.0),
    "sockets": Rule("sockets", "sockets", noise=15.0, per_hour=0.0),
    "files": Rule("open files", "files", noise=6.0, per_hour=0.0),
    "tasks": Rule("tasks", "tasks", noise=30.0, per_hour=0.0),
    "connections": Rule("connections", "connections", noise=15.0, per_hour=0.0),
}
"""The series that must be flat: in a life while it is loaded, and from life to life by their medians."""
SCALE: Final[dict[str, float]] = {"rss_anon": MIB}

PREALLOCATED_BYTES: Final = 3 * SEGMENT_BYTES
"""The active segment, the next one, and one that was sealed and is not trimmed yet."""
STATE_TIMES_LOG: Final = 1.0
STATE_BYTES: Final = 24 * MIB
"""State and snapshots together may take so many times the log, and this much besides: LevelDB's buffers, and tables
that were compacted and are still read."""
OTHER_BYTES: Final = MIB
BACK: Final = ("connections", "calls", "streams", "sockets", "files", "tasks")
"""What must be no more than in the idle daemon of the beginning, once everybody has left."""


@frozen
class Judgement:
    """What is wrong, and what was measured, in words."""

    wrong: list[str]
    measured: list[str]


def warm(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of one life under load, without its warm-up."""
    if not samples:
        return []
    start_s = min(WARM_UP_S, samples[-1].life_s * WARM_UP_SHARE)
    return [sample for sample in samples if sample.loaded and sample.life_s >= start_s]


def of_a_life(samples: Sequence[Sample]) -> Judgement | None:
    """Whether a life was flat; None when it was too short to say."""
    kept = warm(samples)
    if len(kept) < LEAST_SAMPLES:
        return None
    where = f"life {kept[0].life}"
    return _judged(where, lambda name: growth([sample.life_s for sample in kept], _values(kept, name)))


def over_lives(lives: Sequence[Sequence[Sample]]) -> Judgement | None:
    """Whether the medians of the lives are flat: those of the later half against those of the earlier. None for one."""
    kept = [samples for samples in map(warm, lives) if len(samples) >= LEAST_SAMPLES]
    if len(kept) < 2:
        return None
    half = len(kept) // 2
    span_s = kept[-1][-1].at_s - kept[0][0].at_s

    def grown(name: str) -> Growth:
        medians = [median(_values(samples, name)) for samples in kept]
        gained = median(medians[-half:]) - median(medians[:half])
        return Growth(by_slope=gained, by_thirds=gained, span_s=span_s)

    return _judged(f"over {len(kept)} lives", grown)


def not_back(before: Sample, after: Sample) -> list[str]:
    """What an idle daemon has more of than when it was idle at first."""
    return [
        f"life {after.life}: idle again, it has {getattr(after, name)} {name}, and had {getattr(before, name)}"
        for name in BACK
        if getattr(after, name) > getattr(before, name)
    ]


def beyond_the_log(sample: Sample) -> list[str]:
    """Where the data directory is larger than the log explains."""
    at = f"life {sample.life}, second {sample.at_s:.0f}"
    wrong = []
    if sample.log_disk > sample.log_used + PREALLOCATED_BYTES:
        wrong.append(f"{at}: the log takes {_mib(sample.log_disk)} for {_mib(sample.log_used)} of records")
    view = sample.state_disk + sample.snapshots_disk
    if view > STATE_TIMES_LOG * sample.log_used + STATE_BYTES:
        wrong.append(f"{at}: state and snapshots take {_mib(view)}, the log's records {_mib(sample.log_used)}")
    if sample.other_disk > OTHER_BYTES:
        wrong.append(f"{at}: {_mib(sample.other_disk)} in the data directory are nobody's")
    return wrong


def _judged(where: str, grown: Callable[[str], Growth]) -> Judgement:
    wrong, measured = [], []
    for name, rule in RULES.items():
        found = grown(name)
        wrong += rule.broken_by(found, where)
        measured.append(f"{rule.name} {found.by_slope:+.1f}/{found.by_thirds:+.1f} {rule.unit}")
    return Judgement(wrong, [f"{where}, by slope/thirds: {', '.join(measured)}"])


def _values(samples: Sequence[Sample], name: str) -> list[float]:
    return [getattr(sample, name) / SCALE.get(name, 1) for sample in samples]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f} MiB"
