"""Processes of proofs: none outlives who started it, one that hangs is ended, and what was temporary is removed.

`in_processes` runs cases in processes that are forked or spawned. This process looks at the time and not the one that
runs the case: an exception that is raised there, amid Trio, in a greenlet or in C, may be caught, wrapped or never
come. `as_command` is how a proof is run as a program: SIGTERM unwinds it as ^C does, so that its `finally` blocks are
run. `with_parent` is a command whose process is told when its parent is gone; this file is also the program that
arranges that, and so imports nothing beyond the standard library.
"""

import ctypes
import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["PROCESSES", "as_command", "die_with", "in_processes", "with_parent"]

C = TypeVar("C")
R = TypeVar("R")

PROCESSES: Final = 2
LOOK_S: Final = 1.0
"""A process that has died is noticed by its end of the pipe; where a child of its own holds that, after this."""
END_S: Final = 5.0
"""So long may a process run its `finally` blocks; then it is killed."""
AGAIN_S: Final = 0.1
"""A signal that comes just before a call that blocks does not interrupt it: Python has it handled once that returns."""
CANCELLED: Final = 128 + signal.SIGTERM
_DIE_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG."""


@contextmanager
def in_processes(
    run: Callable[[C], R],
    cases: Sequence[C],
    failed: Callable[[C, str], R],
    *,
    case_s: float,
    processes: int = PROCESSES,
    cases_a_collection: int = 1,
    begin: Callable[[], object] = int,
    spawned: bool = False,
) -> Iterator[Iterator[tuple[C, R]]]:
    """Each case and what `run` makes of it, in the order in which they end.

    When that raises, or takes more than `case_s`, or its process ends, `failed` makes an outcome of the case and the
    reason, and the other cases go on. `begin` is called first in each process. With `spawned`, `run` and `begin` are
    pickled; without, only the cases and what comes of them are, and this process must not have threads that matter to
    a case. All processes have ended after the block, and what they left in their temporary directory is removed.
    """
    with tempfile.TemporaryDirectory(prefix="statehouse-proof-") as directory:
        workers: list[_Worker[C, R]] = []
        gc.collect()
        gc.freeze()  # or a child's first collection would copy every page of this process
        try:
            life = (run, begin, cases_a_collection, directory, os.getpid())
            yield _outcomes(workers, lambda: _Worker(life, spawned=spawned), deque(cases), failed, case_s, processes)
        finally:
            gc.unfreeze()
            _end(workers)


def _outcomes(
    workers: "list[_Worker[C, R]]",
    another: "Callable[[], _Worker[C, R]]",
    waiting: deque[C],
    failed: Callable[[C, str], R],
    case_s: float,
    processes: int,
) -> Iterator[tuple[C, R]]:
    from multiprocessing.connection import wait

    while waiting or workers:
        while waiting and len(workers) < processes:
            worker = another()
            workers.append(worker)
            worker.take(waiting.popleft())
        wait([worker.connection for worker in workers], LOOK_S)
        for worker in list(workers):
            case, outcome = worker.case, worker.outcome(failed, case_s)
            if not outcome:
                continue
            if worker.gone or not waiting:
                workers.remove(worker)
                _end([worker])
            else:
                worker.take(waiting.popleft())
            yield case, outcome[0]


class _Worker(Generic[C, R]):
    """One process, and the case that it is at."""

    case: C

    def __init__(self, life: "_Life", *, spawned: bool) -> None:
        import multiprocessing  # not for who only arranges `with_parent`

        context: Any = multiprocessing.get_context("spawn" if spawned else "fork")
        self.connection, theirs = multiprocessing.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *life), daemon=True)
        self.process.start()
        theirs.close()
        self.gone = False
        self._since_s = 0.0

    def take(self, case: C) -> None:
        """Give it a case."""
        self.case, self._since_s = case, time.monotonic()
        try:
            self.connection.send(case)
        except OSError:
            self.gone = True

    def outcome(self, failed: Callable[[C, str], R], case_s: float) -> tuple[R] | None:
        """What came of its case; None when that is not known yet."""
        alive = not self.gone and self.process.is_alive()  # asked first: what it sent before it died is there
        try:
            if self.connection.poll():
                raised, value = self.connection.recv()
                return (failed(self.case, value) if raised else value,)
        except (EOFError, OSError):
            alive = False
        if not alive:
            self.gone = True
            self.process.join(END_S)
            return (failed(self.case, f"its process ended with exit code {self.process.exitcode}"),)
        if time.monotonic() - self._since_s > case_s:
            self.gone = True
            return (failed(self.case, f"it hangs: it has not ended after {case_s:g} s"),)
        return None


_Life = tuple[Callable[[Any], Any], Callable[[], object], int, str, int]
"""What a process is to do: `run`, `begin`, how often to collect garbage; its temporary directory; its parent."""


def _end(workers: Sequence[_Worker[Any, Any]]) -> None:
    """End processes: those that can may run their `finally` blocks."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        end_s = time.monotonic() + END_S
        while worker.process.is_alive() and time.monotonic() < end_s:
            worker.process.terminate()  # one that unwinds already ignores it
            worker.process.join(AGAIN_S)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _serve(
    connection: "Connection[Any, Any]",
    run: Callable[[Any], Any],
    begin: Callable[[], object],
    cases_a_collection: int,
    directory: str,
    parent: int,
) -> None:
    """A process's life: one case after the other, until it is ended."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the process that started this one
    tempfile.tempdir = directory
    begin()
    gc.disable()  # between cases and not within: a case is short
    number = 0
    while True:
        # Between cases there is nothing to unwind, and an exception that meets a `__del__` is lost.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if number and number % cases_a_collection == 0:
            gc.collect()
        case = connection.recv()
        signal.signal(signal.SIGTERM, _unwind)
        number += 1
        try:
            outcome = (False, run(case))
            connection.send(outcome)
        except Exception as error:  # noqa: BLE001 - the boundary of a case: whatever it is, it is told
            frames = "; ".join(
                f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]
            )
            connection.send((True, f"it raised {type(error).__name__}: {error} ({frames})"))


def _unwind(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(CANCELLED)


def die_with(parent: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Have this process be sent a signal when the thread that started it ends; to be called by it, first of all."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, how)
    if os.getppid() != parent:  # it was faster
        os._exit(1)


def as_command(main: Callable[[], int]) -> NoReturn:
    """Run a program's `main` and exit; SIGTERM unwinds it as ^C does, once."""

    def cancel(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.raise_signal(signal.SIGINT)  # which Trio delivers where it does no harm

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    signal.signal(signal.SIGTERM, cancel)
    code = CANCELLED
    try:
        code = main()
    except* KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
    sys.exit(code)


def with_parent(command: Sequence[str]) -> list[str]:
    """The command, as a process that is sent SIGTERM when the thread that starts it ends, with all of this process.

    Not for what a thread of Trio's starts: such threads end when they have nothing to do.
    """
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *command]  # noqa: PTH100 - see above


if __name__ == "__main__":
    die_with(int(sys.argv[1]), signal.SIGTERM)
    os.execvp(sys.argv[2], sys.argv[2:])
