"""What a remedy is checked on: our daemon, and purerpc as shipped. Both are processes, and tell what they hold."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from attacks import preparation, vitals
from attacks.raw_peer import RawPeer
from attrs import field, frozen
from daemon_process import DaemonProcess

TOOLS = Path(__file__).resolve().parents[2] / "tools"
EVENTS = 50
"""Of the agent that is replayed, on our daemon. The other server has events without end, and small values alone."""

# The servers with one bug each: a read that fails, with words that no client may see.
BUG = "ZeroDivisionError('a secret detail')"
OURS_WITH_A_BUG = f"""
from statehouse.actors.engine import Engine
from statehouse.cli.statehoused import main
def get_state(self, *arguments):
    raise {BUG}
Engine.get_state = get_state
main()
"""
# Keepalive is for minutes; here for a second and a half.
OURS_PINGING_SOON = """
from statehouse.cli.statehoused import main
from statehouse.rpc.server import lifetime
lifetime.KEEPALIVE_S, lifetime.KEEPALIVE_ANSWER_S = 1.0, 0.5
main()
"""
AS_SHIPPED_WITH_A_BUG = f"""
import purerpc_as_shipped as shipped
from statehouse.v1 import statehouse_pb2 as pb
whole = shipped.service
async def get_state(request: pb.GetStateRequest) -> pb.GetStateResponse:
    raise {BUG}
def service(*options):
    served = whole(*options)
    served.add_method("GetState", get_state, shipped.signature(shipped.SERVED.methods_by_name["GetState"]))
    return served
shipped.service = service
shipped.main()
"""
AS_SHIPPED_LISTENING_BY_ITSELF = """
import json, os, anyio
from purerpc.server import Server
listen = anyio.create_tcp_listener
async def on_loopback(**arguments):
    assert "local_host" not in arguments  # every interface: what no test may do
    return await listen(local_host="127.0.0.1", **arguments)
anyio.create_tcp_listener = on_loopback
class Started:
    def started(self, port):
        print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
async def main():
    await Server(0).serve_async(task_status=Started())
anyio.run(main, backend="trio")
"""


@frozen
class Target:
    """A server, and how long a check may wait for it: each wait of the server that fails is waited out in full."""

    name: str
    address: tuple[str, int]
    pid: int
    patience_s: float
    daemon: DaemonProcess | None = None
    peers: ExitStack = field(factory=ExitStack)

    @property
    def url(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def connect(self, **arguments) -> RawPeer:
        """A peer, closed with the test."""
        return self.peers.enter_context(RawPeer(self.address, **arguments))

    def tasks(self) -> int:
        """How many tasks the server has."""
        if self.daemon is not None:
            return vitals.take(self.daemon).counts["tasks"]
        with RawPeer(self.address) as peer:
            stream_id = peer.call("Version")
            assert peer.status(stream_id) == 0
            # VersionResponse: 1 "purerpc", 2 JSON; the message's five bytes before it.
            return json.loads(bytes(peer.data[stream_id][5 + 9 + 2 :]))["tasks"]

    def sockets(self) -> int:
        """How many sockets the server has open."""
        return vitals.descriptors(self.pid)["sockets"]

    def grown_bytes(self, before_bytes: int) -> int:
        """How much more was resident, at the most since `start_peak`, than before."""
        return vitals.peak_bytes(self.pid) - before_bytes

    def start_peak(self) -> int:
        """What is resident now; the peak begins anew."""
        vitals.start_peak(self.pid)
        return vitals.resident_bytes(self.pid)

    def cpu_s(self) -> float:
        """The processor time that the server has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def works_until_idle(self, most_cpu_s) -> None:
        """Wait until it uses no processor time any more, or has used so much."""
        start_s = last_s = self.cpu_s()
        quiet = 0
        while last_s - start_s < most_cpu_s and quiet < 3:  # once may only mean that others had the processor
            time.sleep(0.3)  # several ticks of the clock that processor time is measured with
            now_s = self.cpu_s()
            quiet = quiet + 1 if now_s == last_s else 0
            last_s = now_s

    def comes_true(self, is_so) -> bool:
        """Whether it is so within the patience; looked at again and again."""
        end_s = time.monotonic() + self.patience_s
        while not is_so():
            if time.monotonic() > end_s:
                return False
            time.sleep(0.02)
        return True

    def answers(self) -> bool:
        """Whether it answers a new client in time."""
        with RawPeer(self.address) as peer:
            return peer.answers(self.patience_s)


OURS_PATIENCE_S = 10.0
AS_SHIPPED_PATIENCE_S = 0.6


def _ours(daemon: DaemonProcess) -> Target:
    daemon.start()
    preparation.fill(daemon.address, EVENTS)
    return Target("ours", ("127.0.0.1", daemon.port), daemon.pid, OURS_PATIENCE_S, daemon)


@pytest.fixture(scope="module")
def our_daemons(tmp_path_factory):
    """Starts our daemon, once for each way of starting it; the tests of a module share them."""
    with ExitStack() as stack:
        made = {}

        def target(**arguments):
            key = repr(arguments)
            if key not in made or not made[key].daemon.running:
                daemon = DaemonProcess(tmp_path_factory.mktemp("ours") / "data", **arguments)
                stack.callback(lambda: daemon.kill() if daemon.running else None)
                made[key] = _ours(daemon)
            return made[key]

        yield target


class _Spares:
    """Servers as shipped, started ahead of the test that hurts them: starting takes longer than most checks."""

    def __init__(self) -> None:
        self._spare: subprocess.Popen | None = None

    def take(self) -> subprocess.Popen:
        taken, self._spare = self._spare or self._start(), self._start()
        return taken

    def close(self) -> None:
        if self._spare is not None:
            end(self._spare)

    def _start(self) -> subprocess.Popen:
        return start_as_shipped([str(TOOLS / "purerpc_as_shipped.py")])


def start_as_shipped(arguments) -> subprocess.Popen:
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, cwd=TOOLS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def spares():
    made = _Spares()
    yield made
    made.close()


@pytest.fixture
def as_shipped(spares):
    """A server as shipped of this test's own, which it may ruin; `code` is what is run instead."""
    with ExitStack() as stack:

        def target(code=None):
            process = spares.take() if code is None else start_as_shipped(["-c", code])
            stack.callback(end, process)
            port = json.loads(process.stdout.readline())["port"]
            made = Target("purerpc as shipped", ("127.0.0.1", port), process.pid, AS_SHIPPED_PATIENCE_S)
            stack.enter_context(made.peers)
            return made

        yield target
