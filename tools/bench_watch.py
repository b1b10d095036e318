"""Measure watching: how soon a commit reaches everybody who follows its agent, and what many watchers cost.

    python tools/bench_watch.py                        1,000 watchers of one agent, then 10,000 of 100 agents
    python tools/bench_watch.py --watchers 100 --many 500 --commits 5     whether it works at all, a few seconds

Prints one JSON object. A time is from the moment when a Transact is sent, on a connection of its own, to the moment
when the last of its watchers has the event: the commit, with its fsync, is part of it. Commits come one at a time, each
when all have the one before, with --pause seconds between. The watchers read frame headers on bare sockets, 100 on
each connection, in this process; the daemon is another, on the same machine. `resident_mib` is the daemon's.
"""

import argparse
import json
import os
import selectors
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from bench_arguments import count
from daemon_process import DaemonProcess
from edge_load.frames import (
    ACK,
    DATA,
    GOAWAY,
    HEAD,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    call,
    frame,
    more_window,
    opening,
    request_headers,
)

from statehouse.v1 import statehouse_pb2 as pb

PER_CONNECTION: Final = 100
WINDOW_BYTES: Final = 16 * 1024 * 1024
RECEIVE_BYTES: Final = 256 * 1024
PATIENCE_S: Final = 60.0
NAMESPACE: Final = "bench"
END_STREAM: Final = 0x1


class Peer:
    """One connection: bare frames, no queue. `messages` counts DATA frames with content by stream."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(opening(WINDOW_BYTES))
        self.address = address
        self.messages: dict[int, int] = {}
        self._next_stream = 1
        self._received = b""
        self._owed_bytes = 0

    def ask(self, name: str, request: bytes) -> int:
        """Begin a call; its stream."""
        stream_id, self._next_stream = self._next_stream, self._next_stream + 2
        self.messages[stream_id] = 0
        self.socket.sendall(call(stream_id, request_headers(name, self.address), request))
        return stream_id

    def take(self) -> int:
        """Read what there is; how many messages came. RuntimeError when a watcher was ended."""
        more = self.socket.recv(RECEIVE_BYTES)
        if not more:
            raise RuntimeError("the daemon closed a connection")
        buffer, position, came = self._received + more, 0, 0
        while len(buffer) - position >= HEAD.size:
            high, low, kind, flags, stream_id = HEAD.unpack_from(buffer, position)
            length = high << 8 | low
            if len(buffer) - position - HEAD.size < length:
                break
            position += HEAD.size + length
            if kind == DATA and length:
                self.messages[stream_id] += 1
                self._owed_bytes += length
                came += 1
            elif kind in {SETTINGS, PING} and not flags & ACK:
                payload = buffer[position - length : position]
                self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind in {RST_STREAM, GOAWAY} or (
                kind == HEADERS and flags & END_STREAM and not self.messages[stream_id]
            ):
                raise RuntimeError(
                    f"the daemon ended stream {stream_id} (frame type {kind}): {buffer[position - length : position]!r}"
                )
        self._received = buffer[position:]
        if self._owed_bytes > WINDOW_BYTES // 2:
            self.socket.sendall(more_window(0, self._owed_bytes))
            self._owed_bytes = 0
        return came


class Crowd:
    """Watchers of agents, so many of each, and a writer."""

    def __init__(self, address: str, watchers: int, agents: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._writer = Peer(address)
        self._selector.register(self._writer.socket, selectors.EVENT_READ, self._writer)
        self.peers: list[Peer] = []
        self.watchers = watchers
        self.agents = agents
        told = 0
        for at in range(watchers):
            if at % PER_CONNECTION == 0:
                self.wait_for(at - told)  # who does not answer the daemon's settings in time is ended
                told = at
                self.peers.append(Peer(address))
                self._selector.register(self.peers[-1].socket, selectors.EVENT_READ, self.peers[-1])
            request = pb.ReplayRequest(
                namespace=NAMESPACE, agent_id=f"agent-{at % agents}", follow=True, bookmarks=True
            )
            self.peers[-1].ask("Replay", request.SerializeToString())
        self.wait_for(watchers - told)  # the first bookmark of each: it is current

    def close(self) -> None:
        """Let all connections go."""
        self._selector.close()
        for peer in [*self.peers, self._writer]:
            peer.socket.close()

    def wait_for(self, messages: int) -> list[float]:
        """Read until so many messages have come; when each did."""
        times: list[float] = []
        while len(times) < messages:
            ready = self._selector.select(PATIENCE_S)
            if not ready:
                raise RuntimeError(f"{len(times)} of {messages} watchers were told in {PATIENCE_S:.0f} s")
            for key, _ in ready:
                came = key.data.take()
                if key.data is not self._writer:
                    times += [time.perf_counter()] * came
        return times

    def commit(self) -> list[float]:
        """Commit once to every agent; how long it took for each watcher, ascending."""
        operations = [
            pb.TransactOperation(agent_id=f"agent-{at}", key="k", value={"step": "x" * 100})
            for at in range(self.agents)
        ]
        began = time.perf_counter()
        stream_id = self._writer.ask(
            "Transact", pb.TransactRequest(namespace=NAMESPACE, operations=operations).SerializeToString()
        )
        times = [when - began for when in self.wait_for(self.watchers)]
        while not self._writer.messages[stream_id]:
            self._writer.take()
        return times


def resident_mib(pid: int) -> float:
    """What a process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"the memory of process {pid} cannot be told")


def quantile(times: list[float], part: float) -> float:
    """In milliseconds."""
    ordered = sorted(times)
    return round(1000 * ordered[min(int(part * len(ordered)), len(ordered) - 1)], 1)


@contextmanager
def running(directory: Path, name: str) -> Iterator[DaemonProcess]:
    """A daemon on a store of its own."""
    with DaemonProcess(directory / name) as daemon:
        yield daemon
        daemon.stop()


def measure(daemon: DaemonProcess, watchers: int, agents: int, commits: int, pause_s: float) -> dict[str, Any]:
    """Connect the watchers, commit, and say how soon each commit reached them."""
    empty_mib = resident_mib(daemon.pid)
    began = time.perf_counter()
    with closing(Crowd(daemon.address, watchers, agents)) as crowd:
        connected_s = time.perf_counter() - began
        idle_mib = resident_mib(daemon.pid)
        last, every = [], []
        for _ in range(commits):
            times = crowd.commit()
            last.append(times[-1])
            every += times
            time.sleep(pause_s)
        return {
            "watchers": watchers,
            "agents": agents,
            "connections": len(crowd.peers),
            "commits": commits,
            "all_reached_ms": {"median": quantile(last, 0.5), "p99": quantile(last, 0.99), "max": quantile(last, 1)},
            "each_reached_ms": {"median": round(1000 * statistics.median(every), 1), "p99": quantile(every, 0.99)},
            "connected_s": round(connected_s, 2),
            "resident_mib": {"empty": empty_mib, "idle": idle_mib, "after": resident_mib(daemon.pid)},
        }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench_watch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--watchers", type=count, default=1_000, metavar="N", help="watchers of one agent (default: %(default)s)")
    add("--many", type=count, default=10_000, metavar="N", help="watchers of many agents (default: %(default)s)")
    add("--commits", type=count, default=200, metavar="N", help="commits to one agent (default: %(default)s)")
    add("--pause", type=float, default=0.05, metavar="S", help="rest between two commits (default: %(default)s)")
    add("--dir", type=Path, default=Path(), help="where the stores are made, on a real disk (default: here)")
    arguments = parser.parse_args(argv)
    scratch = Path(tempfile.mkdtemp(prefix="bench-watch-", dir=arguments.dir)).resolve()
    try:
        results: dict[str, Any] = {"cores": os.cpu_count(), "load_average_1m": os.getloadavg()[0]}
        with running(scratch, "one") as daemon:
            results["one_agent"] = measure(daemon, arguments.watchers, 1, arguments.commits, arguments.pause)
        with running(scratch, "many") as daemon:
            agents = max(1, arguments.many // 100)
            results["many_agents"] = measure(
                daemon, arguments.many, agents, max(1, arguments.commits // 20), arguments.pause
            )
    except RuntimeError as error:
        print(f"bench_watch: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(scratch)
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
