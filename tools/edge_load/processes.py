"""The processes that the bench starts besides daemons: loads, and purerpc as shipped. It speaks JSON lines with them.

They are in a process group of their own, so that Ctrl-C reaches the bench alone, which then ends them.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from attrs import frozen

__all__ = ["CHECKOUT", "TOOLS", "BenchError", "JsonProcess", "Target", "load"]

TOOLS: Final = Path(__file__).resolve().parent.parent
CHECKOUT: Final = TOOLS.parent
ANSWER_TIMEOUT_S: Final = 120.0
"""Beyond what a job was asked to take."""


class BenchError(Exception):
    """Why there is no figure, in one line."""


@frozen
class Target:
    """A server under load."""

    address: str
    pid: int


class JsonProcess:
    """A child that prints JSON lines, as a context manager that ends it."""

    def __init__(self, name: str, *command: str) -> None:
        self._name = name
        self._command = (sys.executable, "-P", *command)
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._started().pid

    def send(self, job: str, **arguments: Any) -> None:
        """Give it a job; `receive` has the answer."""
        stdin = self._started().stdin
        try:
            if stdin is not None:
                stdin.write(json.dumps({"job": job, **arguments}) + "\n")
                stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"{self._name} has ended") from None

    def receive(self, seconds: float = 0.0) -> dict[str, Any]:
        """Wait for the next line; `seconds` is what the job takes by itself. BenchError."""
        process = self._started()
        if process.stdout is None:
            raise BenchError(f"{self._name} has no output")
        patience = threading.Timer(seconds + ANSWER_TIMEOUT_S, process.kill)
        patience.start()
        try:
            line = process.stdout.readline()
        finally:
            patience.cancel()
        if not line:
            raise BenchError(f"{self._name} ended with {process.wait()} instead of answering")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self._name}: {answer['error']}")
        return answer

    def ask(self, job: str, **arguments: Any) -> dict[str, Any]:
        """Give it a job and wait for the answer."""
        self.send(job, **arguments)
        return self.receive(arguments.get("seconds", 0.0))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, "PYTHONPATH": f"{TOOLS}{os.pathsep}{CHECKOUT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._started()
        process.kill()
        process.communicate()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError(f"{self._name} was not started")
        return self._process


def load(module: str) -> JsonProcess:
    """One of the loads of this package."""
    return JsonProcess(module, "-m", f"edge_load.{module}")
