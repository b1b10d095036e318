"""The daemon of an earlier revision: its package, taken out of git into a folder of the bench's.

`git archive` and not a worktree: it leaves nothing in the repository that would have to be removed again.
"""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from edge_load.processes import CHECKOUT, BenchError

__all__ = ["take_out"]

_WHERE: Final = "import statehouse; print(statehouse.__file__)"


def take_out(revision: str, directory: Path) -> str:
    """Put the package as it was at `revision` into `directory`, for PYTHONPATH; the commit's full name. BenchError."""
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        raise BenchError(f"git knows no revision {revision!r} here: name another with --before")
    archive = _git("archive", "--format=tar", commit.decode().strip(), "statehouse")
    if archive is None:
        raise BenchError(f"revision {revision!r} has no folder statehouse")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    found = subprocess.run(
        [sys.executable, "-P", "-c", _WHERE],
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not found.stdout.startswith(str(directory)):
        raise BenchError(f"the package of {revision!r} is not what Python imports: {found.stdout}{found.stderr[-200:]}")
    return commit.decode().strip()


def _git(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise BenchError("git is not installed: the daemon of before comes out of git") from None
    return done.stdout if done.returncode == 0 else None
