"""Run every proof, one after the other, and say what was tried and what was found.

    python tools/prove.py                         the size that CI runs (make prove)
    python tools/prove.py --long                  the full size (make prove-long)
    python tools/prove.py --only bytes --only kill
    python tools/prove.py --list

What each proof prints goes to the terminal and to DIR/<name>.log, what it counts to DIR/<name>.json (default
build/prove). `--page FILE` writes the outcome of a whole run between the markers of that page: docs/reliability.md has
its last run from here and not from a keyboard. Exit code 0: every proof passed.

At CI size all draw from a seed that is taken from the code of the commit: what CI tries can be tried before, and every
change of the code is tried anew. The full size draws at random; every proof prints its seed.
"""

import argparse
import datetime as dt
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Final, TextIO, cast

from attrs import frozen
from proof_processes import as_command, with_parent

ROOT: Final = Path(__file__).resolve().parents[1]
BEGIN: Final = "<!-- last run: python tools/prove.py --page docs/reliability.md -->\n"
END: Final = "<!-- end of last run -->"
LIMIT_S: Final = 20 * 60.0
LIMIT_LONG_S: Final = 6 * 3600.0
"""A proof that takes longer hangs."""
END_S: Final = 20.0
"""So long may one that is ended take to end what it started."""
SEEDED_BY: Final = ("statehouse", "tools", "tests", "pyproject.toml")
"""What is tried, and what tries it."""


@frozen
class Step:
    """One proof: its command without the interpreter, and the options for either size. `reports`: it takes `--json`."""

    name: str
    what: str
    command: tuple[str, ...]
    ci: tuple[str, ...] = ()
    long: tuple[str, ...] = ("--long",)
    reports: bool = True
    seed: str | None = "--seed"
    """The option that takes the seed; None: it draws nothing."""

    def arguments(self, *, full_size: bool, seed: int | None = None) -> tuple[str, ...]:
        """The command with the options for a size and, if there is one, the seed."""
        seeded = () if seed is None or self.seed is None else (self.seed, str(seed))
        return (*self.command, *(self.long if full_size else self.ci), *seeded)


@frozen
class Result:
    """How a step went."""

    step: Step
    passed: bool
    seconds: float
    found: dict[str, Any]
    """What it wrote: `tried`, `violations`, `notes`; without `violations` it did not say."""


STEPS: Final = (
    Step(
        "simulation",
        "the whole engine under crashes and failing disks, on virtual time",
        ("tools/proof_simulation.py",),
        seed="--first",
    ),
    Step("bytes", "every byte of a log cut and flipped; segments, snapshots, LevelDB files", ("tools/proof_bytes.py",)),
    Step("failpoints", "stop, stall or fail at named places of the code", ("tools/proof_failpoints.py",)),
    Step("syscalls", "every system call of the commit path fails", ("tools/proof_syscalls.py",)),
    Step("disk full", "a real file system runs full and is freed", ("tools/proof_disk_full.py",)),
    Step("linearizability", "clients over RPC under kills and disconnects; money", ("tools/proof_linearizability.py",)),
    Step("kill", "a loaded daemon is killed again and again", ("tools/proof_kill.py",), ("--cycles", "40")),
    Step("replay", "folding the events is the state, at every commit", ("tools/proof_replay.py",)),
    Step(
        "model",
        "the public client against a dict",
        ("-m", "pytest", "-q", "tests/client/test_model.py"),
        long=("--hypothesis-profile=long",),
        reports=False,
        seed="--hypothesis-seed",
    ),
    Step("soak", "mixed load for long; memory, descriptors and disk stay flat", ("tools/proof_soak.py",)),
    Step(
        "attacks",
        "hostile peers beside an honest client",
        ("tools/attack_edge.py",),
        ("--short",),
        ("--full",),
        reports=False,
        seed=None,
    ),
    Step("fuzz", "frames that make no sense", ("tools/fuzz_edge.py",), long=("--frames", "10000000"), reports=False),
    Step("mutants", "the engine with a defect, which the proofs must find", ("tools/proof_mutants.py",)),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], epilog=(__doc__ or "").rpartition("\n\n")[2]
    )
    parser.add_argument("--long", action="store_true", help="the full size, instead of what CI has time for")
    parser.add_argument("--only", action="append", metavar="NAME", help="this proof; may be given more than once")
    parser.add_argument("--list", action="store_true", help="list the proofs")
    parser.add_argument("--seed", type=int, metavar="N", help="what to draw from (default: see below)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=ROOT / "build" / "prove", help="default: build/prove"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the outcome between the markers of this page")
    options = parser.parse_args(arguments)
    if options.list:
        for step in STEPS:
            print(f"{step.name:<16} {step.what}")
        return 0
    unknown = set(options.only or ()) - {step.name for step in STEPS}
    if unknown:
        parser.error(f"there is no proof called {', '.join(sorted(unknown))}; --list names them")
    if options.page is not None and options.only:
        parser.error("--page takes the outcome of a whole run, and so not --only")
    options.out.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    seed = seed_of_code() if options.seed is None and not options.long else options.seed
    results = []
    for step in STEPS:
        if not options.only or step.name in options.only:
            print(f"\n== {step.name}: {step.what}", flush=True)
            results.append(_run(step, options.out, full_size=options.long, seed=seed))
    failed = [result.step.name for result in results if not result.passed]
    print("\n" + "\n".join(_lines(results)))
    verdict = f"FAILED: {', '.join(failed)}" if failed else f"{len(results)} proofs passed"
    print(f"{verdict}, {(time.monotonic() - started_s) / 60:.1f} minutes")
    if options.page is not None:
        options.page.write_text(written(options.page.read_text("utf-8"), results, full_size=options.long), "utf-8")
    return 1 if failed else 0


def seed_of_code() -> int | None:
    """A seed for the code of the newest commit. None without git or such a commit: then each proof draws its own."""
    trees = _git("rev-parse", *(f"HEAD:{path}" for path in SEEDED_BY))
    return int(hashlib.sha256(trees.encode()).hexdigest()[:8], 16) >> 1 if trees else None


def _git(*arguments: str) -> str:
    """What git prints; empty when it is not to be had, or this is no clone."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def _run(step: Step, out: Path, *, full_size: bool, seed: int | None) -> Result:
    """One proof: shown while it runs, and kept."""
    stem = out / step.name.replace(" ", "_")
    summary = stem.with_suffix(".json")
    summary.unlink(missing_ok=True)
    command = [sys.executable, *step.arguments(full_size=full_size, seed=seed)]
    if step.reports:
        command += ["--json", str(summary)]
    started_s = time.monotonic()
    limit_s = LIMIT_LONG_S if full_size else LIMIT_S
    with stem.with_suffix(".log").open("w", encoding="utf-8") as log:
        exit_code, last = _watched(command, log, limit_s)
    seconds = time.monotonic() - started_s
    found: dict[str, Any] = {"notes": [last]}
    if exit_code is None:
        found = {"notes": [f"ended, for it took more than {limit_s / 60:g} minutes"]}
    elif summary.exists():
        found = json.loads(summary.read_text("utf-8"))
    # A proof that did not say what it tried has not run to its end, whatever it returned.
    passed = exit_code == 0 and (summary.exists() or not step.reports)
    return Result(step, passed, seconds, found)


def _watched(command: list[str], log: TextIO, limit_s: float) -> tuple[int | None, str]:
    """Run a command as a session of its own: its exit code, None when it took too long, and its last line."""
    process = subprocess.Popen(
        with_parent(command),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    said, last = cast("TextIO", process.stdout), ""

    def show() -> None:
        nonlocal last
        with said:
            for line in said:
                print(line, end="", flush=True)
                log.write(line)
                last = line.strip() or last

    shown = Thread(target=show, daemon=True)
    shown.start()
    exit_code: int | None = None
    try:
        exit_code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        print(f"it takes more than {limit_s / 60:g} minutes, and is ended", flush=True)
    finally:
        _end(process)
        shown.join(END_S)
    return exit_code, last


def _end(process: "subprocess.Popen[str]") -> None:
    """End a proof, which then ends what it started; whatever of its session is there after that is killed."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines(results: list[Result]) -> list[str]:
    return [
        f"{result.step.name:<16} {'passed' if result.passed else 'FAILED'} {result.seconds:6.0f} s  {_tried(result)}"
        for result in results
    ]


def _tried(result: Result) -> str:
    tried = [f"{count:,} {what}" for what, count in result.found.get("tried", {}).items()]
    return ", ".join(tried) or "; ".join(result.found.get("notes", []))


def _violations(result: Result) -> str:
    """How many; `-` for a proof that does not count them, or did not come so far."""
    return str(len(result.found["violations"])) if "violations" in result.found else "-"


def written(page: str, results: list[Result], *, full_size: bool) -> str:
    """The page with this run in its place. LookupError when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise LookupError("the page has no place for the last run")
    commit = _git("rev-parse", "--short", "HEAD")
    size = "full size" if full_size else "CI size"
    minutes = sum(result.seconds for result in results) / 60
    head = (
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {size}, commit {commit or 'unknown'}, {minutes:.0f} minutes; "
        f"{os.cpu_count()} cores, {platform.system()}, CPython {platform.python_version()}."
    )
    rows = [
        f"| {result.step.name} | {'passed' if result.passed else '**FAILED**'} | {result.seconds:.0f} s "
        f"| {_violations(result)} | {_tried(result).replace('|', ' ')} |"
        for result in results
    ]
    table = "\n".join(["| proof | verdict | time | violations | tried |", "|---|---|---|---|---|", *rows])
    return f"{before}{BEGIN}\n{head}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    as_command(main)
