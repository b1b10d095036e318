"""A real `statehoused` in a process of its own, for tests, proofs and benchmarks.

`DaemonProcess.start` returns once the daemon has said that it is ready, with the address that it took, so
that nothing has to poll or guess a free port. The log is read by a thread for as long as the daemon
lives: a daemon whose stderr nobody reads would block on a full pipe.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

STATEHOUSED: Final = (sys.executable, "-m", "statehouse.cli.statehoused")
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
LINES_KEPT: Final = 10_000


class DaemonFailedError(Exception):
    """The daemon ended, or said nothing in time, instead of becoming ready; has its exit code and its last lines."""

    def __init__(self, what: str, exit_code: int | None, lines: Sequence[str]) -> None:
        super().__init__("\n".join([what, *lines]))
        self.exit_code = exit_code


class DaemonProcess:
    """One data directory and the daemon that serves it, started as often as asked.

    The first start takes a free port, unless `listen` names one; later starts take the same address again,
    as a client that reconnects expects. `options` are further flags, `environment` further variables;
    `STATEHOUSE_*` variables of the caller are not passed on.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        listen: str = "127.0.0.1:0",
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = STATEHOUSED,
    ) -> None:
        self.data_dir = data_dir
        self.listen = listen
        self.options = tuple(options)
        self.environment = dict(environment or {})
        self.command = tuple(command)
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        """What the daemon wrote to stderr, over all its starts."""
        self.ready: dict[str, Any] = {}
        """The fields of the newest ready line."""
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._news = threading.Condition()
        self._ended = False

    @property
    def address(self) -> str:
        """HOST:PORT or unix:/PATH of the newest start."""
        return str(self.ready["address"])

    @property
    def port(self) -> int:
        """The port of the newest start; 0 with a Unix socket."""
        return int(self.ready["port"])

    @property
    def pid(self) -> int:
        """The process id of the newest start."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process without waiting for it to be ready."""
        if self.running:
            raise RuntimeError(f"statehoused runs already (pid {self.pid})")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATEHOUSE_")}
        flags = ["--listen", self.listen, "--data-dir", str(self.data_dir), "--log-format", "json"]
        self.ready = {}
        self._ended = False
        self._process = subprocess.Popen(
            [*self.command, *flags, *self.options],
            env=inherited | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, args=[self._process], name="statehoused log", daemon=True)
        self._reader.start()

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Block until the daemon is ready. DaemonFailedError when it ends first or `timeout_s` pass."""
        self._wait_until(lambda: bool(self.ready), timeout_s, "becoming ready")
        self.listen = self.address

    def start(self, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Start the daemon and block until it is ready."""
        self.launch()
        self.wait_ready(timeout_s)
        return self

    def wait_for(self, event: str, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Block until the log has a line of this event; its fields. Raises as `wait_ready` does."""
        self._wait_until(lambda: bool(self.events(event)), timeout_s, f"logging {event!r}")
        return self.events(event)[-1]

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
        """Block until something is so, asked whenever the log has a new line. Raises as `wait_ready` does."""
        self._wait_until(is_so, timeout_s, "what was waited for")

    def send(self, signal_number: signal.Signals) -> None:
        """Send the process a signal."""
        self._started().send_signal(signal_number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Block until the process has ended and its log is read; the exit code (negative: the signal)."""
        exit_code = self._started().wait(timeout_s)
        if self._reader is not None:
            self._reader.join(timeout_s)
        return exit_code

    def kill(self) -> None:
        """End the process with SIGKILL: no last words, nothing flushed."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ask the daemon to stop, as an operator does, and block until it has; the exit code."""
        self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    def restart(self) -> Self:
        """Start it again on the same address; kill it first if it lives."""
        if self.running:
            self.kill()
        return self.start()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event so far, as their fields."""
        return [fields for line in list(self.lines) if (fields := _fields(line)).get("event") == name]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.kill()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("statehoused was not started")
        return self._process

    def _wait_until(self, is_so: Callable[[], bool], timeout_s: float, what: str) -> None:
        with self._news:
            in_time = self._news.wait_for(lambda: self._ended or is_so(), timeout_s)
            if is_so():
                return
        if not in_time:
            self._started().kill()
        exit_code = self.wait()
        why = f"ended with {exit_code}" if in_time else f"took more than {timeout_s} s"
        raise DaemonFailedError(f"statehoused {why} before {what}", exit_code, list(self.lines)[-20:])

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stderr is not None:
            with process.stderr as stream:
                for line in stream:
                    fields = _fields(line)
                    with self._news:
                        self.lines.append(line.rstrip("\n"))
                        if fields.get("event") == "ready":
                            self.ready = fields
                        self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def _fields(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
