"""Makes a mutated copy of the package and lets a proof loose on it."""

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import frozen

from mutants.defect import Edit, Mutant, Proof

__all__ = ["Catch", "MutationError", "hunt", "is_the_mutants", "make", "mutated"]

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "statehouse"
FAILPOINT_LINE: Final = re.compile(r"^[ \t]*# failpoint: .*\n", re.MULTILINE)
VIOLATION: Final = "VIOLATION "
REPEAT: Final = "repeat: "


class MutationError(Exception):
    """The edit does not fit its source, or what it makes is no Python, or no proof could run on it."""


@frozen
class Catch:
    """Which proof found the mutant, and what it said first."""

    proof: str
    violation: str
    repeat: tuple[str, ...]
    """The command that shows it again, without the interpreter; empty when the proof named none."""


def mutated(edit: Edit, source: str) -> str:
    """The source with the edit made. MutationError when the text is not there exactly once."""
    source = FAILPOINT_LINE.sub("", source)
    if source.count(edit.old) != 1:
        raise MutationError(f"{edit.file} has {source.count(edit.old)} times: {edit.old.strip()!r}")
    changed = source.replace(edit.old, edit.new)
    try:
        ast.parse(changed)
    except SyntaxError as error:
        raise MutationError(f"{edit.file}: the edit is no Python: {error}") from error
    return changed


def make(mutant: Mutant, directory: Path) -> None:
    """Put a copy of the package with this defect into `directory`."""
    copy = directory / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in mutant.edits:
        file = copy / edit.file
        file.write_text(mutated(edit, file.read_text(encoding="utf-8")), encoding="utf-8")


def hunt(proof: Proof, directory: Path, seed: int, timeout_s: float) -> Catch | None:
    """Run a proof on the package in `directory` until it names a violation; None when it finds none.

    MutationError when it ends in any other way than a proof does, which says nothing of the mutant.
    """
    command = proof.seeded(seed)
    with _running(command, directory, timeout_s) as process:
        tail: list[str] = []
        found: str | None = None
        for line in process.stdout or ():
            if found is not None:
                named = line.strip().startswith(REPEAT)
                repeat = shlex.split(line.strip().removeprefix(REPEAT))[1:] if named else []
                return Catch(proof.name, found, tuple(repeat))
            if line.startswith(VIOLATION):
                found = line.removeprefix(VIOLATION).strip()
            tail = [*tail[-9:], line.rstrip()]
        if found is not None:
            return Catch(proof.name, found, ())
        if process.wait() == 0:
            return None
    raise MutationError(f"{' '.join(command)} ended with {process.returncode}:\n" + "\n".join(tail))


def is_the_mutants(catch: Catch, timeout_s: float) -> bool:
    """Whether the engine as it is passes where the mutant failed: else what was caught is not the mutant."""
    if not catch.repeat:
        return True
    with _running(catch.repeat, ROOT, timeout_s) as process:
        for _ in process.stdout or ():
            pass
        return process.wait() == 0


@contextmanager
def _running(command: Sequence[str], directory: Path, timeout_s: float) -> Iterator[subprocess.Popen[str]]:
    """A proof on the package in `directory`, as a session of its own, which ends with the block."""
    environment = os.environ | {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *(str(ROOT / part) if part.startswith("tools/") else part for part in command)],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        overtime = threading.Timer(timeout_s, _end, [process])
        overtime.start()
        try:
            yield process
        finally:
            overtime.cancel()
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and the workers that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
