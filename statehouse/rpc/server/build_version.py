"""Which Statehouse this is: the version of the package, and the commit it was built from.

The commit is what `STATEHOUSE_GIT_SHA` says (a packager sets it), else what a checkout's `.git` names, else
`unknown`. Git itself is not run: the daemon may be started where there is none.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from statehouse import version
from statehouse.version import GIT_SHA_VARIABLE, VERSION

__all__ = ["UNKNOWN", "BuildVersion", "build_version", "checkout_sha"]

UNKNOWN: Final = "unknown"

_SHA: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@frozen
class BuildVersion:
    """What the Version call answers."""

    version: str
    git_sha: str


def build_version(environment: Mapping[str, str]) -> BuildVersion:
    """Find the version out; reads a few small files. Never raises: what cannot be found is UNKNOWN."""
    given = environment.get(GIT_SHA_VARIABLE)
    return BuildVersion(VERSION, given or checkout_sha(Path(version.__file__).parent.parent))


def checkout_sha(root: Path) -> str:
    """The commit that is checked out in `root`; UNKNOWN when it is not the top of a git checkout."""
    try:
        git = root / ".git"
        if git.is_file():  # a linked worktree: `gitdir: <where its HEAD is>`
            git = root / git.read_text().removeprefix("gitdir:").strip()
        common = git / "commondir"
        shared = git / common.read_text().strip() if common.exists() else git
        head = (git / "HEAD").read_text().strip()
        name = head.removeprefix("ref:").strip()
        return _sha(head) or _loose(shared / name) or _packed(shared / "packed-refs", name) or UNKNOWN
    except (OSError, UnicodeDecodeError):
        return UNKNOWN


def _sha(text: str) -> str | None:
    return text if _SHA.fullmatch(text) else None


def _loose(path: Path) -> str | None:
    return _sha(path.read_text().strip()) if path.is_file() else None


def _packed(path: Path, name: str) -> str | None:
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((_sha(line.split()[0]) for line in lines if line.endswith(f" {name}")), None)
