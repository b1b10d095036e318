"""The samples of a soak drawn over time, one PNG a subject."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import nan
from pathlib import Path
from typing import Final

from attrs import frozen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from soak.sample import MIB, Sample

__all__ = ["PLOTS", "draw"]

INCHES: Final = (9.0, 4.0)
DOTS_PER_INCH: Final = 80
MINUTE_S: Final = 60.0


@frozen
class Plot:
    """A file, what it shows, and its lines: fields of a sample by what they are called in it."""

    title: str
    unit: str
    scale: float
    lines: Mapping[str, str]


PLOTS: Final = {
    "memory": Plot(
        "Resident memory",
        "MiB",
        MIB,
        {"own memory (RssAnon)": "rss_anon", "mapped files, LevelDB's tables (RssFile)": "rss_file"},
    ),
    "descriptors-and-tasks": Plot(
        "Descriptors, threads and tasks",
        "count",
        1,
        {"sockets": "sockets", "other files": "files", "segments": "segments", "threads": "threads", "tasks": "tasks"},
    ),
    "connections": Plot(
        "Connections and calls", "count", 1, {"connections": "connections", "calls": "calls", "streams": "streams"}
    ),
    "disk": Plot(
        "Data directory",
        "MiB",
        MIB,
        {
            "log, headers and records": "log_used",
            "log, with what is preallocated": "log_disk",
            "state": "state_disk",
            "snapshots": "snapshots_disk",
        },
    ),
}


def draw(directory: Path, samples: Sequence[Sample]) -> list[Path]:
    """Draw every plot into `directory`; the files."""
    return [_draw(directory / f"{name}.png", plot, samples) for name, plot in PLOTS.items()]


def _draw(path: Path, plot: Plot, samples: Sequence[Sample]) -> Path:
    # Not through pyplot, which keeps every figure, and looks for a display.
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    lives = [list(life) for _, life in groupby(samples, lambda sample: sample.life)]
    # Nothing was there between two lives, and no line is drawn through it.
    minutes = [at for life in lives for at in (*(sample.at_s / MINUTE_S for sample in life), nan)]
    for label, field in plot.lines.items():
        sizes = [size for life in lives for size in (*(getattr(sample, field) / plot.scale for sample in life), nan)]
        axes.plot(minutes, sizes, linewidth=1, label=label)
    starts = [life[0] for life in lives[1:]]
    for number, start in enumerate(starts):
        label = "" if number else "started again"  # in the legend once
        axes.axvline(start.at_s / MINUTE_S, color="grey", linestyle=":", linewidth=0.8, label=label)
    axes.set_title(plot.title)
    axes.set_xlabel("minutes")
    axes.set_ylabel(plot.unit)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, linewidth=0.3)
    figure.legend(loc="outside lower center", fontsize="small", ncols=3)
    FigureCanvasAgg(figure)
    figure.savefig(path)
    return path
