"""`make demo`: a daemon, an agent with a recorded run, and `kill -9` for both in the middle of it.

The daemon has a temporary data directory and a free port. It is killed once while the agent works, and stays away for
a moment; the agent is killed once, and started again. What is left must be the recording: the agent proves it, and
then, over a last kill and restart of the daemon, so does this program. Exit code 0 means that all of that happened.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from examples.resumable_agent.proof import NotProvenError, prove
from examples.resumable_agent.recording import Recording, read_recording
from statehouse import Statehouse, StatehouseError
from tools.daemon_process import DaemonFailedError, DaemonProcess

HERE: Final = Path(__file__).resolve().parent
RECORDING: Final = HERE / "recordings" / "totals-of-a-spreadsheet.traj"
AGENT_ID: Final = "demo"
DAEMON_DIES_AFTER: Final = "step 3/"
AGENT_DIES_AFTER: Final = "step 6/"
WORK_S: Final = 0.25
AWAY_S: Final = 0.5


class DemoFailedError(Exception):
    """Something did not go as it must; the message is one line."""


def main() -> int:
    """Run the demo; its exit code."""
    started_s = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="statehouse-demo-") as directory:
            _run(Path(directory), read_recording(RECORDING))
    except (DemoFailedError, DaemonFailedError, NotProvenError, StatehouseError) as error:
        _say("demo", f"FAILED: {error}")
        return 1
    _say("demo", f"all of that in {time.monotonic() - started_s:.1f} s")
    return 0


def _run(directory: Path, recording: Recording) -> None:
    with DaemonProcess(directory / "data") as daemon:
        _say("demo", f"statehoused listens on {daemon.address} (pid {daemon.pid}), with an empty data directory")
        with _agent(daemon.address) as agent:
            _say("demo", f"the agent begins {recording.name!r} (pid {agent.pid})")
            _follow(agent, DAEMON_DIES_AFTER)
            _say("demo", f"kill -9 {daemon.pid}, the daemon")
            daemon.kill()
            time.sleep(AWAY_S)
            _start_again(daemon)
            _follow(agent, AGENT_DIES_AFTER)
            _say("demo", f"kill -9 {agent.pid}, the agent")
            agent.kill()
            if agent.wait() != -signal.SIGKILL:
                raise DemoFailedError(f"the agent was not there to be killed (exit code {agent.returncode})")
        with _agent(daemon.address) as agent:
            _say("demo", f"the agent is started again (pid {agent.pid})")
            _follow(agent, None)
            if agent.wait() != 0:
                raise DemoFailedError(f"the agent ended with exit code {agent.returncode}")
        _say("demo", f"kill -9 {daemon.pid}, the daemon, once more")
        daemon.kill()
        _start_again(daemon)
        with Statehouse(daemon.address) as client:
            proof = prove(client, AGENT_ID, recording)
            if proof.starts < 2:
                raise DemoFailedError("the agent did not start twice")
            _say("demo", f"replay gives the recording back, sha256 {proof.sha256}. The timeline:")
            for line in client.replay_pretty(AGENT_ID):
                _say("replay", line)


def _start_again(daemon: DaemonProcess) -> None:
    daemon.start()
    ready = daemon.ready
    _say("demo", f"statehoused is back (pid {daemon.pid}): {ready['head_ts']} commits, open in {ready['recovery_s']} s")


@contextmanager
def _agent(address: str) -> Iterator[subprocess.Popen[str]]:
    """The agent in a process of its own; killed when the block ends."""
    command = [sys.executable, "-m", "examples.resumable_agent", str(RECORDING), "--address", address]
    options = ["--agent-id", AGENT_ID, "--work", str(WORK_S), "--transaction-life", "1"]
    with subprocess.Popen(
        [*command, *options], cwd=HERE.parent.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _follow(agent: subprocess.Popen[str], until: str | None) -> None:
    """Pass on what the agent says, up to a line that begins so, or to its end."""
    for line in _lines(agent.stdout):
        _say("agent", line)
        if until is not None and line.startswith(until):
            return
    if until is not None:
        raise DemoFailedError(f"the agent ended before {until!r}")


def _lines(stream: IO[str] | None) -> Iterator[str]:
    while stream is not None and (line := stream.readline()):
        yield line.rstrip("\n")


def _say(who: str, line: str) -> None:
    print(f"{who:<7} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
