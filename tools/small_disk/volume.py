"""A small file system of its own, and ballast that fills it to the byte.

What can be mounted depends on who asks: ext4 in a file, by a loop device, is the most like a disk; a tmpfs is the next
best; without the right to mount, a user namespace gives it, in which this process then has to run anew. The caller
learns which it was.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

__all__ = ["MIB", "CannotMountError", "Volume", "into_a_namespace", "mounted"]

MIB: Final = 1024 * 1024
IN_NAMESPACE: Final = "STATEHOUSE_PROOF_IN_NAMESPACE"
UNSHARE: Final = ("unshare", "--user", "--map-root-user", "--mount")
FILL_TRIES: Final = 100
MEANWHILE_BYTES: Final = 64 * 1024
"""What may be freed or taken by others while the ballast is measured."""


class CannotMountError(Exception):
    """No file system can be mounted here; has what each attempt said."""


@frozen
class Volume:
    """A mounted file system, and the ballast on it."""

    where: Path
    kind: str

    @property
    def free_bytes(self) -> int:
        """What is left for who is not root; there is no reserve for root on it."""
        disk = os.statvfs(self.where)
        return disk.f_bavail * disk.f_frsize

    @property
    def has_ballast(self) -> bool:
        """Whether there is ballast to throw off."""
        return self._ballast.exists()

    @property
    def _ballast(self) -> Path:
        return self.where / "ballast"

    def leave(self, free_bytes: int) -> None:
        """Add ballast until only so much is free. What others free meanwhile is taken too; at 0 every block is."""
        with self._ballast.open("ab") as file:
            for _ in range(FILL_TRIES):
                surplus = self.free_bytes - free_bytes
                if surplus <= (0 if not free_bytes else MEANWHILE_BYTES):
                    return
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, surplus)
                except OSError:  # the file system needs some of it for its own books, or somebody was quicker
                    self._fill_by_halves(file.fileno(), surplus // 2)
                    if not free_bytes:
                        return

    def _fill_by_halves(self, descriptor: int, size: int) -> None:
        while size >= 512:
            try:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, size)
            except OSError:
                size //= 2

    def throw_off(self) -> None:
        """Remove the ballast."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def mounted(directory: Path, size_bytes: int) -> Iterator[Volume]:
    """A new file system of about this size, below `directory`. CannotMountError."""
    where, image = directory / "disk", directory / "image"
    where.mkdir()
    said = []
    try:
        for kind, attempt in (("ext4 on a loop device", _ext4), ("tmpfs", _tmpfs)):
            refusal = attempt(where, image, size_bytes)
            if not refusal:
                yield Volume(where, kind + (" in a user namespace" if IN_NAMESPACE in os.environ else ""))
                return
            said.append(f"{kind}: {refusal}")
    finally:
        if where.is_mount():  # also when this was cancelled before `mount` had said so
            _run("umount", "--lazy", str(where))
    raise CannotMountError("; ".join(said))


def into_a_namespace(command: Sequence[str]) -> None:
    """Run this process anew where it may mount; returns only where that cannot be had, or has been done already."""
    if IN_NAMESPACE in os.environ or _run(*UNSHARE, "true"):
        return
    sys.stdout.flush()
    os.execvpe(UNSHARE[0], [*UNSHARE, sys.executable, *command], {**os.environ, IN_NAMESPACE: "1"})


def _ext4(where: Path, image: Path, size_bytes: int) -> str:
    with image.open("wb") as file:
        file.truncate(size_bytes)
    # No reserve for root: the daemon of this proof may be root's, and must find the disk as full as anybody.
    return _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image)) or _run("mount", "-o", "loop", str(image), str(where))


def _tmpfs(where: Path, _image: Path, size_bytes: int) -> str:
    return _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "statehouse-proof", str(where))


def _run(*command: str) -> str:
    """What a command has to complain of; nothing when it succeeds."""
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return f"there is no {command[0]}"
    ran = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    if not ran.returncode:
        return ""
    complaint = (ran.stderr or ran.stdout).strip().splitlines()
    return complaint[-1] if complaint else f"{command[0]} ended with {ran.returncode}"
