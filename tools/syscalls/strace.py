"""strace, attached to a process that stands ready: makes a system call fail, and tells every call on the store's files.

Faults are counted a thread (strace keeps a count of its own for each), after calls on other files were left out. A call
that is made to fail is not carried out at all.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Final

from attrs import frozen

from syscalls.calls import Call, Kind

__all__ = ["SYSCALLS", "CutOffError", "Injection", "Strace", "TracedCall", "unavailable", "unfollowed"]

SYSCALLS: Final[Mapping[str, Kind]] = {
    "openat": Kind.OPEN,
    "pwrite64": Kind.WRITE,
    "write": Kind.WRITE,
    "fdatasync": Kind.SYNC,
    "fsync": Kind.SYNC,
    "ftruncate": Kind.TRUNCATE,
    "rename": Kind.RENAME,
    "renameat": Kind.RENAME,
    "renameat2": Kind.RENAME,
    "fallocate": Kind.FALLOCATE,
}
"""What is struck. LevelDB writes with `write`, the log and the snapshots with `pwrite64`."""

ATTACH_S: Final = 10.0
END_S: Final = 30.0
NEWEST_TS: Final = 150
"""Files of later commits cannot be followed."""
NEWEST_FILE: Final = 60
"""Likewise LevelDB's files of a higher number."""
_NOT_FOLLOWED: Final = frozenset({"LOCK", "LOG", "LOG.old"})
"""Files that nothing is promised of."""
_ANSWER: Final = "lseek"
"""A call that nobody else makes on the file `answers`: its offset is the commit_ts that a client was told of."""
_NOTHING: Final = 0
"""No commit_ts: only to see whether calls are told."""
_SET_PTRACER: Final = 0x59616D61
_ANY: Final = ctypes.c_ulong(-1)

_WHOLE: Final = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(.*)")
_BEGUN: Final = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED: Final = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)(.*)")
_ON_FILE: Final = re.compile(r'\d+<([^>]*)>(?:\(deleted\))?(?:, (?:"[^"]*"(?:\.\.\.)?, )?(\d+)(?:, (\d+))?)?')
_ENDED: Final = re.compile(r"(\d+) +\+\+\+ .* \+\+\+")
"""The last line, when the thread is that of the first: the process has ended."""
_QUOTED: Final = re.compile(r'"([^"]*)"')


class CutOffError(Exception):
    """strace ended before its process did: what it tells is not all."""


@frozen
class Injection:
    """A fault: the `index`th call of each thread, and with `lasting` every one after it."""

    syscall: str
    index: int
    lasting: bool
    error: str

    def option(self) -> str:
        """For strace."""
        return f"inject={self.syscall}:error={self.error}:when={self.index}{'+' if self.lasting else ''}"


@frozen
class TracedCall:
    """A call, by its name, and the thread that made it."""

    thread: int
    syscall: str
    call: Call


def unavailable() -> str | None:
    """Why strace cannot be used here, in one line; None when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with tempfile.TemporaryDirectory(prefix="statehouse-proof-syscalls-") as directory:
        strace = Strace(Path(directory) / "store", None)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                strace.attach()
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        try:
            _, _, said = strace.end()
        except CutOffError as error:
            return f"strace cannot attach to a process here: {error}"
    return None if not status else f"strace cannot attach to a process here: {said or 'it gave no reason'}"


class Strace:
    """One run of strace, for one process: `attach` is called in it, `end` by whoever made it, once it has ended."""

    def __init__(self, directory: Path, injection: Injection | None) -> None:
        self._directory = directory.resolve()
        self._answers = self._directory.with_name(f"{self._directory.name}.answers")
        # Opened before anything is traced: it must not count among the calls that are struck.
        self._answered = os.open(self._answers, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._output = tempfile.NamedTemporaryFile(prefix="statehouse-strace-")  # noqa: SIM115 - closed by `end`
        command = ["strace", "-f", "-y", "-q", "-s", "0", "-e", "signal=none", "-o", self._output.name]
        command += ["-e", "trace=" + ",".join((*SYSCALLS, _ANSWER)), "-P", str(self._answers)]
        for path in _paths(self._directory):
            command += ["-P", path]
        if injection is not None:
            command += ["-e", injection.option()]
        # The process is not there yet: a shell waits for its number.
        self._process = subprocess.Popen(
            ["sh", "-c", 'read -r pid && exec "$@" -p "$pid"', "sh", *command],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def attach(self) -> None:
        """Have this process traced from here on. TimeoutError when that cannot be."""
        ctypes.CDLL(None).prctl(_SET_PTRACER, _ANY, 0, 0, 0)  # where only ancestors may trace; refused elsewhere
        _of(self._process.stdin).write(f"{os.getpid()}\n")
        _of(self._process.stdin).flush()
        deadline_s = time.monotonic() + ATTACH_S
        # That it is the tracer is no proof: it still has to stop this process, and until then it misses calls.
        while _ANSWER not in Path(self._output.name).read_text(encoding="utf-8"):
            if time.monotonic() > deadline_s:
                raise TimeoutError("strace does not attach")
            time.sleep(0.001)
            self.answered(_NOTHING)

    def answered(self, commit_ts: int) -> None:
        """In the process that is traced: a client is about to be told of this commit."""
        os.lseek(self._answered, commit_ts, os.SEEK_SET)

    def end(self) -> tuple[list[TracedCall], dict[int, int], str]:
        """Wait until strace has ended, as it does behind its process.

        The calls; for each commit_ts that was `answered`, how many of them had been made by then; what strace said.
        Raises CutOffError.
        """
        _of(self._process.stdin).close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        said = _of(self._process.stderr).read().strip().splitlines()
        _of(self._process.stderr).close()
        os.close(self._answered)
        with self._output:
            lines = Path(self._output.name).read_text(encoding="utf-8", errors="replace").splitlines()
        ended = _ENDED.fullmatch(lines[-1]) if lines else None
        if ended is None or not lines[0].startswith(f"{ended[1]} "):
            raise CutOffError(f"strace ended with {self._process.returncode}, said {said}, and told last: {lines[-1:]}")
        calls, made = _calls_and_answers(lines, f"{self._directory}/", str(self._answers))
        return calls, made, said[-1] if said else ""


def _paths(directory: Path) -> Iterator[str]:
    """Every file that a small store may have: strace knows no patterns."""
    yield str(directory)
    yield from (f"{directory}/{name}" for name in ("log", "snapshots", "state", "log/next.tmp", "log/taken-back"))
    yield from (f"{directory}/state/{name}" for name in ("CURRENT", "PROBE.tmp", "PROBED.tmp"))
    for commit_ts in range(1, NEWEST_TS):
        yield f"{directory}/log/{commit_ts:020d}.log"
        yield f"{directory}/snapshots/{commit_ts:020d}.snap"
        yield f"{directory}/snapshots/{commit_ts:020d}.snap.tmp"
    for number in range(1, NEWEST_FILE):
        yield f"{directory}/state/MANIFEST-{number:06d}"
        yield from (f"{directory}/state/{number:06d}.{suffix}" for suffix in ("log", "ldb", "dbtmp"))


def unfollowed(directory: Path) -> list[str]:
    """Files of a store that were there at its end, and whose calls are not told: the load has become too large."""
    followed = set(_paths(directory))
    aside = directory / "state.set-aside"  # a view that nobody opens again
    found = (
        str(path)
        for path in directory.rglob("*")
        if path.name not in _NOT_FOLLOWED and path != aside and aside not in path.parents
    )
    return sorted(path for path in found if path not in followed)


def _calls_and_answers(lines: Iterable[str], below: str, answers: str) -> tuple[list[TracedCall], dict[int, int]]:
    calls: list[TracedCall] = []
    made: dict[int, int] = {}
    mark = re.compile(rf"\d+ +{_ANSWER}\(\d+<{re.escape(answers)}>, (\d+)")

    def others() -> Iterator[str]:
        for line in lines:
            answer = mark.match(line)
            if answer is None:
                yield line
            else:
                made.setdefault(int(answer[1]), len(calls))

    for each in _calls(others(), below):
        calls.append(each)  # noqa: PERF402 - what is there already is counted while the next is looked for
    return calls, made


def _calls(lines: Iterable[str], below: str) -> Iterator[TracedCall]:
    begun: dict[str, str] = {}
    for line in lines:
        unfinished = _BEGUN.match(line)
        if unfinished is not None:
            begun[unfinished[1]] = unfinished[3]
            continue
        resumed = _RESUMED.match(line)
        if resumed is not None:
            thread, syscall, rest, answer, tail = resumed.groups()
            arguments = begun.pop(thread, "") + rest
        else:
            whole = _WHOLE.match(line)
            if whole is None:
                continue
            thread, syscall, arguments, answer, tail = whole.groups()
        kind = SYSCALLS.get(syscall)
        if kind is not None:
            call = _call(kind, syscall, arguments, below, tail.split()[0] if "(INJECTED)" in tail else "")
            if answer == "-1" and not call.error:
                continue  # it failed by itself: a file that is not there
            yield TracedCall(int(thread), syscall, call)


def _call(kind: Kind, syscall: str, arguments: str, below: str, error: str) -> Call:
    if kind in {Kind.OPEN, Kind.RENAME}:
        named = _QUOTED.search(arguments)
        path = named[1] if named is not None else ""
        path = "." if f"{path}/" == below else path
        reads = "O_RDONLY" in arguments and "O_DIRECTORY" not in arguments
        return Call(kind, path.removeprefix(below), error, reads=reads and kind is Kind.OPEN)
    on_file = _ON_FILE.match(arguments)
    if on_file is None:
        return Call(kind, "", error)
    path = "." if f"{on_file[1]}/" == below else on_file[1].removeprefix(below)
    size, offset = int(on_file[2] or 0), int(on_file[3] or 0)
    if kind is Kind.SYNC and path in {".", "log", "snapshots", "state"}:
        kind = Kind.SYNC_DIR
    if syscall == "pwrite64":
        return Call(kind, path, error, offset, offset + size)
    return Call(kind, path, error)


def _of(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise TypeError("strace was started without pipes")
    return stream
