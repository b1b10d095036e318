"""An honest client in a process of its own: `python -m attacks.honest HOST:PORT`, in the folder tools.

It reads commands from its input, a line each: after `start` it makes calls at a steady rate, after `stop` it prints,
as a JSON line, how long they took and which failed, and rests. One thread has a connection of its own (grpcio) for
GetState and for transactions; another one makes a new connection for every call, as a client does that has just come.

A call's time counts from the moment at which it was due, so that calls that a slow one held up are slow too.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

import grpc
from attrs import Factory, asdict, define
from google.protobuf.struct_pb2 import Struct

from attacks.attack import get_state
from attacks.raw_http2 import SERVICE
from attacks.raw_peer import RawPeer
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["AGENT", "KEY", "Honest", "Watch"]

AGENT: Final = "honest"
KEY: Final = "state"
EVERY_S: Final = 0.02
TRANSACTION_EVERY: Final = 5
"""So many reads for one begin, write and commit."""
STRANGER_EVERY_S: Final = 0.1
DEADLINE_S: Final = 10.0
FAILURES_TOLD: Final = 5
OK: Final = 0


@define
class Watch:
    """What the honest client went through, between a start and a stop."""

    latencies_s: list[float] = Factory(list)
    failures: list[str] = Factory(list)
    stranger_latencies_s: list[float] = Factory(list)
    stranger_failures: list[str] = Factory(list)


class Honest:
    """The client: two threads that call while `going`."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._raw_address = (host, int(port))
        self._channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(self._channel).result(timeout=DEADLINE_S)
        self._watch = Watch()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._value = Struct()
        self._value.update({"note": "x" * 150})
        self._transaction()

    def start(self) -> None:
        """Begin to call."""
        self._watch = Watch()
        self._stopping.clear()
        rates: list[tuple[float, Callable[[int], None]]] = [(EVERY_S, self._known), (STRANGER_EVERY_S, self._stranger)]
        self._threads = [threading.Thread(target=self._steadily, args=rate) for rate in rates]
        for thread in self._threads:
            thread.start()

    def stop(self) -> Watch:
        """Let the last call end; what happened since the start."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        return self._watch

    def _steadily(self, every_s: float, call: Callable[[int], None]) -> None:
        due_s, number = time.monotonic(), 0
        latencies_s = self._watch.latencies_s if every_s == EVERY_S else self._watch.stranger_latencies_s
        failures = self._watch.failures if every_s == EVERY_S else self._watch.stranger_failures
        while not self._stopping.wait(max(due_s - time.monotonic(), 0.0)):
            try:
                call(number)
            except (grpc.RpcError, OSError) as error:
                failures.append(" ".join(str(error).split())[:300])
            latencies_s.append(time.monotonic() - due_s)
            due_s, number = due_s + every_s, number + 1

    def _known(self, number: int) -> None:
        if number % TRANSACTION_EVERY:
            request = pb.GetStateRequest(agent_id=AGENT, key=KEY)
            self._call("GetState", request.SerializeToString())
        else:
            self._transaction()

    def _transaction(self) -> None:
        begun = pb.BeginTransactionResponse.FromString(self._call("BeginTransaction", b""))
        write = pb.WriteRequest(txn_id=begun.txn_id, agent_id=AGENT, key=KEY, value=self._value)
        self._call("Write", write.SerializeToString())
        self._call("Commit", pb.CommitRequest(txn_id=begun.txn_id).SerializeToString())

    def _call(self, name: str, request: bytes) -> bytes:
        answer: bytes = self._channel.unary_unary(SERVICE + name)(request, timeout=DEADLINE_S)
        return answer

    def _stranger(self, _number: int) -> None:
        with RawPeer(self._raw_address) as peer:
            status = peer.status(peer.call("GetState", get_state(AGENT, KEY)), DEADLINE_S)
            if status != OK:
                how = "was closed" if peer.closed else "gave no answer in time"
                raise ConnectionError(f"a new connection {how}" if status is None else f"status {status}")


def main() -> None:
    honest = Honest(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "start":
            honest.start()
            print("started", flush=True)
        else:
            watch = honest.stop()
            told = asdict(watch) | {"failed": len(watch.failures), "stranger_failed": len(watch.stranger_failures)}
            for name in ("failures", "stranger_failures"):
                told[name] = told[name][:FAILURES_TOLD]
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
