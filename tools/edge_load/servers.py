"""The servers of one run of the bench, each started when it is first needed, and the rounds that they take turns in."""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from daemon_process import DaemonProcess

from edge_load.earlier import take_out
from edge_load.figures import Sample
from edge_load.processes import CHECKOUT, TOOLS, JsonProcess, Target, load

__all__ = ["HISTORY", "RECORD", "RECORDS", "Bench", "Options"]

RECORD: Final = {"namespace": "bench", "agent_id": "one-record", "key": "key"}
RECORDS: Final = [
    {"namespace": "bench", "agent_id": f"agent-{agent}", "key": f"key-{key}"}
    for agent in range(10)
    for key in range(10)
]
"""What BatchGet reads at once, and single reads in turn."""
HISTORY: Final = {"namespace": "bench", "agent_id": "one-agent"}
# Without -P the working directory, which may be a checkout, comes before PYTHONPATH.
STATEHOUSED: Final = (sys.executable, "-P", "-m", "statehouse.cli.statehoused")


@frozen
class Options:
    """What the command was asked to do."""

    rounds: int
    seconds: float
    events: int
    in_flight: int
    clients: int
    load_processes: int
    before: str


class Bench:
    """The servers of one run, each started when it is first needed; `notes` is what the figures do not say."""

    def __init__(self, options: Options, scratch: Path, stack: ExitStack) -> None:
        self.options = options
        self.notes: dict[str, Any] = {}
        self._scratch = scratch
        self._stack = stack

    @cached_property
    def ours(self) -> Target:
        """Our daemon, on a store with the record, the records and the history."""
        store = self._scratch / "ours"
        seeds: dict[str, Any] = {"record": RECORD, "history": HISTORY, "records": RECORDS}
        with load("seeding") as seeding:
            seeding.ask("seed", directory=str(store), events=self.options.events, **seeds)
        return self.daemon(store)

    @cached_property
    def shipped(self) -> Target:
        """Purerpc, with the same record and a history as long."""
        return self.purerpc(turn_every=1)

    def purerpc(self, turn_every: int) -> Target:
        """Start purerpc as shipped."""
        command = [str(TOOLS / "purerpc_as_shipped.py"), "--events", str(self.options.events)]
        command += ["--turn-every", str(turn_every)]
        ready = self._stack.enter_context(JsonProcess("purerpc_as_shipped", *command)).receive()
        return Target(f"127.0.0.1:{ready['port']}", ready["pid"])

    @cached_property
    def before(self) -> Target:
        """The daemon of an earlier revision, on an empty store."""
        package = self._scratch / "package"
        self.notes["before"] = take_out(self.options.before, package)
        return self.daemon(self._scratch / "before", package)

    def daemon(self, store: Path, package: Path = CHECKOUT) -> Target:
        """Start the daemon that is in `package`, with fsync on whatever this shell's settings are."""
        path, options = {"PYTHONPATH": str(package)}, ["--fsync-on-commit", "1"]
        daemon = DaemonProcess(store, options=options, command=STATEHOUSED, environment=path)
        self._stack.callback(lambda: daemon.kill() if daemon.running else None)  # also one that was not ready yet
        daemon.start()
        return Target(daemon.address, daemon.pid)

    def new_daemon(self, name: str) -> Target:
        """Our daemon on an empty store."""
        return self.daemon(self._scratch / name)

    def rounds(self, sides: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
        """Every side once a round, and the other way round in every other."""
        samples: dict[str, list[Sample]] = {name: [] for name in sides}
        for number in range(self.options.rounds):
            for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
                samples[name].append(sides[name]())
        return samples
