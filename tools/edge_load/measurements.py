"""What bench_edge.py measures: each function takes its rounds and makes figures of them. The targets stand here."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from edge_load.figures import Figure, Goal, Sample
from edge_load.meter import cpu_s_of
from edge_load.processes import JsonProcess, Target, load
from edge_load.servers import HISTORY, RECORD, RECORDS, Bench

__all__ = ["MEASUREMENTS"]

OURS: Final = "ours"
SHIPPED: Final = "purerpc as shipped"
THREE_CALLS: Final = "begin, write, commit"
SINGLE_READS: Final = "GetState"
NO_TURNS: Final = "purerpc, a handler that never waits"


def rate(sample: Sample) -> float:
    """Most figures are this."""
    return sample.rate


def calls(bench: Bench) -> list[Figure]:
    """GetState with many in flight: calls a second, and CPU a call."""
    bench.notes["idle_daemon_cpu_share"] = idle_share(bench.ours, bench.options.seconds)
    in_flight = bench.options.in_flight
    with load("grpc_load") as grpc, load("frame_load") as frames:
        samples = bench.rounds(
            {
                OURS: partial(get_state, bench, grpc, bench.ours, in_flight, decode=False),
                SHIPPED: partial(get_state, bench, grpc, bench.shipped, in_flight, decode=False),
                "ours, frames": partial(get_state, bench, frames, bench.ours, in_flight),
                "shipped, frames": partial(get_state, bench, frames, bench.shipped, in_flight),
            }
        )
    both = (samples[OURS], samples[SHIPPED], SHIPPED)
    frames_both = (samples["ours, frames"], samples["shipped, frames"], SHIPPED)
    at_most = Goal(60, at_least=False, of_ratio=False)
    return [
        Figure("calls", "calls/s", Goal(6, at_least=True), *both, value=rate),
        Figure("calls-frames", "calls/s", None, *frames_both, value=rate),
        Figure("cpu", "us/call", at_most, *both, value=lambda sample: sample.server_us),
        Figure("cpu-frames", "us/call", None, *frames_both, value=lambda sample: sample.server_us),
    ]


def latency(bench: Bench) -> list[Figure]:
    """GetState, one at a time."""
    with load("grpc_load") as grpc:
        samples = bench.rounds(
            {
                OURS: partial(get_state, bench, grpc, bench.ours, 1, decode=False),
                SHIPPED: partial(get_state, bench, grpc, bench.shipped, 1, decode=False),
            }
        )
    both = (samples[OURS], samples[SHIPPED], SHIPPED)
    return [Figure("latency", "us", Goal(0.35, at_least=False), *both, value=lambda sample: sample.median_us)]


def get_state(bench: Bench, source: JsonProcess, target: Target, in_flight: int, **more: Any) -> Sample:
    """So many GetStates at once, from one load."""
    size: dict[str, Any] = {"seconds": bench.options.seconds, "in_flight": in_flight, "names": RECORD}
    return Sample((source.ask("get_state", target=target.address, server_pid=target.pid, **size, **more),))


def replay(bench: Bench) -> list[Figure]:
    """Whole histories, to a reader that counts frames."""
    size: dict[str, Any] = {"seconds": bench.options.seconds, "events": bench.options.events, "names": HISTORY}
    targets = {OURS: bench.ours, SHIPPED: bench.shipped, NO_TURNS: bench.purerpc(turn_every=0)}
    with load("replay_reader") as reader:

        def read(target: Target) -> Sample:
            return Sample((reader.ask("read", target=target.address, server_pid=target.pid, **size),))

        samples = bench.rounds({name: partial(read, target) for name, target in targets.items()})
    bench.notes["event_bytes"] = {name: side[0].windows[0]["event_bytes"] for name, side in samples.items()}
    return [
        Figure("replay", "events/s", Goal(10, at_least=True), samples[OURS], samples[SHIPPED], SHIPPED, rate),
        Figure("replay-no-turns", "events/s", None, samples[OURS], samples[NO_TURNS], NO_TURNS, rate),
    ]


def transactions(bench: Bench) -> list[Figure]:
    """Begin + write + commit, many clients, against the daemon of before; each on a store that was empty."""
    before, what = bench.before, f"daemon of {bench.options.before}"  # first: it is what may be missing
    ours = bench.new_daemon("ours-empty")
    with ExitStack() as stack:
        grpc = [stack.enter_context(load("grpc_load")) for _ in range(bench.options.load_processes)]
        frames = [stack.enter_context(load("frame_load"))]
        samples = bench.rounds(
            {
                OURS: partial(spread, bench, grpc, ours),
                "before": partial(spread, bench, grpc, before),
                "ours, frames": partial(spread, bench, frames, ours),
                "before, frames": partial(spread, bench, frames, before),
            }
        )
    frames_both = (samples["ours, frames"], samples["before, frames"])
    return [
        Figure("transactions", "txn/s", Goal(4, at_least=True), samples[OURS], samples["before"], what, rate),
        Figure("transactions-frames", "txn/s", None, *frames_both, what, rate),
    ]


def transact(bench: Bench) -> list[Figure]:
    """Transact with one operation, many clients, against begin + write + commit, on one daemon."""
    daemon = bench.new_daemon("ours-at-once")
    with ExitStack() as stack:
        grpc = [stack.enter_context(load("grpc_load")) for _ in range(bench.options.load_processes)]
        frames = [stack.enter_context(load("frame_load"))]
        samples = bench.rounds(
            {
                OURS: partial(spread, bench, grpc, daemon, at_once=True),
                THREE_CALLS: partial(spread, bench, grpc, daemon),
                "ours, frames": partial(spread, bench, frames, daemon, at_once=True),
                "three calls, frames": partial(spread, bench, frames, daemon),
            }
        )
    both = (samples[OURS], samples[THREE_CALLS], THREE_CALLS)
    frames_both = (samples["ours, frames"], samples["three calls, frames"], THREE_CALLS)
    return [
        Figure("transact", "txn/s", Goal(2.5, at_least=True), *both, value=rate),
        Figure("transact-frames", "txn/s", None, *frames_both, value=rate),
        Figure("transact-cpu-frames", "us/txn", None, *frames_both, value=lambda sample: sample.server_us),
    ]


def batch(bench: Bench) -> list[Figure]:
    """BatchGet of 100 keys against GetState of the same ones, many at once and one at a time: keys a second."""
    in_flight = bench.options.in_flight
    with load("grpc_load") as grpc, load("frame_load") as frames:
        asked = {"": (grpc, in_flight), "-frames": (frames, in_flight), "-alone": (grpc, 1)}
        samples = bench.rounds(
            {
                f"{job}{name}": partial(read_keys, bench, source, job, many)
                for name, (source, many) in asked.items()
                for job in ("batches", "reads")
            }
        )
    goals = {"": Goal(10, at_least=True)}
    return [
        Figure(
            f"batch{name}",
            "keys/s",
            goals.get(name),
            samples[f"batches{name}"],
            samples[f"reads{name}"],
            SINGLE_READS,
            rate,
        )
        for name in asked
    ]


def read_keys(bench: Bench, source: JsonProcess, job: str, in_flight: int) -> Sample:
    """The records, in one way or the other."""
    size: dict[str, Any] = {"seconds": bench.options.seconds, "in_flight": in_flight, "records": RECORDS}
    return Sample((source.ask(job, target=bench.ours.address, server_pid=bench.ours.pid, **size),))


def spread(bench: Bench, sources: Sequence[JsonProcess], target: Target, *, at_once: bool = False) -> Sample:
    """The clients of transactions, spread over the loads."""
    asked: dict[str, Any] = {"target": target.address, "server_pid": target.pid, "seconds": bench.options.seconds}
    if at_once:
        asked["at_once"] = True
    first = 0
    for number, source in enumerate(sources):
        clients = len(range(number, bench.options.clients, len(sources)))
        source.send("transactions", first_client=first, clients=clients, **asked)
        first += clients
    return Sample(tuple(source.receive(bench.options.seconds) for source in sources))


def client(bench: Bench) -> list[Figure]:
    """Our async client and grpc.aio on our daemon; the messages are decoded in both."""
    in_flight = bench.options.in_flight
    with load("grpc_load") as grpc, load("own_client_load") as own:
        samples = bench.rounds(
            {
                "asyncio": partial(get_state, bench, own, bench.ours, in_flight, backend="asyncio"),
                "grpc.aio": partial(get_state, bench, grpc, bench.ours, in_flight, decode=True),
                "trio": partial(get_state, bench, own, bench.ours, in_flight, backend="trio"),
            }
        )
    goal, against = Goal(0.5, at_least=True), samples["grpc.aio"]
    return [
        Figure(f"client-{name}", "calls/s", goal, samples[name], against, "grpc.aio", rate)
        for name in ("asyncio", "trio")
    ]


def idle_share(target: Target, seconds: float) -> float:
    """What the daemon takes of a core when nobody calls: this much of `cpu` is not the calls'."""
    started_s, cpu_s = time.perf_counter(), cpu_s_of(target.pid)
    time.sleep(seconds)
    return round((cpu_s_of(target.pid) - cpu_s) / (time.perf_counter() - started_s), 4)


MEASUREMENTS: Final[Mapping[str, Callable[[Bench], list[Figure]]]] = {
    "calls": calls,
    "latency": latency,
    "replay": replay,
    "transactions": transactions,
    "transact": transact,
    "batch": batch,
    "client": client,
}
