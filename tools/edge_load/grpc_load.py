"""The load of grpc.aio, in a process of its own: reads, one by one and many at once, and transactions.

Requests and answers are bytes, made beforehand where that can be, so that the load costs as little as grpc.aio lets
it; only when a client library is compared with grpc.aio are messages decoded, as a user of either would have them.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle
from typing import Any, Final

import anyio
import grpc.aio

from edge_load.jobs import answer_jobs
from edge_load.meter import call_repeatedly
from edge_load.prepared import KEYS_PER_CLIENT, batch_of, entries_in, reads_of, transacts_of, writes_of
from statehouse.v1 import statehouse_pb2 as pb

SERVICE: Final = "/statehouse.v1.StatehouseService/"
CALL_TIMEOUT_S: Final = 30.0
# Otherwise the channels of one process to one address share a connection.
OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)


async def get_state(
    target: str, server_pid: int, seconds: float, in_flight: int, names: dict[str, Any], *, decode: bool
) -> Any:
    """So many GetStates in flight on one channel."""
    async with grpc.aio.insecure_channel(target, options=OWN_CONNECTION) as channel:
        request: Any = pb.GetStateRequest(**names)
        if decode:
            serializers = {
                "request_serializer": pb.GetStateRequest.SerializeToString,
                "response_deserializer": pb.GetStateResponse.FromString,
            }
        else:
            request, serializers = request.SerializeToString(), {}
        stub = channel.unary_unary(f"{SERVICE}GetState", **serializers)
        first = await stub(request, timeout=CALL_TIMEOUT_S)
        if not (first if decode else pb.GetStateResponse.FromString(first)).exists:
            raise RuntimeError("the server has no such record")
        call = partial(stub, request, timeout=CALL_TIMEOUT_S)
        return await call_repeatedly([call] * in_flight, seconds, server_pid)


async def reads(target: str, server_pid: int, seconds: float, in_flight: int, records: list[dict[str, Any]]) -> Any:
    """Records in turn, by GetState, so many at once on one channel."""
    async with grpc.aio.insecure_channel(target, options=OWN_CONNECTION) as channel:
        stub = channel.unary_unary(f"{SERVICE}GetState")
        requests = reads_of(records)
        for request in requests:
            if not pb.GetStateResponse.FromString(await stub(request, timeout=CALL_TIMEOUT_S)).exists:
                raise RuntimeError("the server lacks a record")
        following = cycle(requests)

        async def read() -> None:
            await stub(next(following), timeout=CALL_TIMEOUT_S)

        return await call_repeatedly([read] * in_flight, seconds, server_pid)


async def batches(target: str, server_pid: int, seconds: float, in_flight: int, records: list[dict[str, Any]]) -> Any:
    """All records in each BatchGet, so many at once on one channel; what is counted is records."""
    async with grpc.aio.insecure_channel(target, options=OWN_CONNECTION) as channel:
        stub = channel.unary_unary(f"{SERVICE}BatchGet")
        request = batch_of(records)
        first = await stub(request, timeout=CALL_TIMEOUT_S)
        if entries_in(first) != len(records):
            raise RuntimeError("the server lacks a record")

        async def read() -> None:
            if len(await stub(request, timeout=CALL_TIMEOUT_S)) != len(first):
                raise RuntimeError("one answer had more or fewer bytes than another")

        answer = await call_repeatedly([read] * in_flight, seconds, server_pid)
    return answer | {"count": answer["count"] * len(records)}


async def transactions(
    target: str, server_pid: int, seconds: float, first_client: int, clients: int, *, at_once: bool = False
) -> Any:
    """Clients with a channel each: begin, write a value of 200 bytes, commit, and again; or all of it in one call."""
    async with AsyncExitStack() as stack:
        runs = []
        for number in range(first_client, first_client + clients):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=OWN_CONNECTION))
            runs.append(_transact(channel, number) if at_once else _transaction(channel, writes_of(number)))
        return await call_repeatedly(runs, seconds, server_pid)


def _transact(channel: Any, client: int) -> Callable[[], Awaitable[None]]:
    stub, requests = channel.unary_unary(f"{SERVICE}Transact"), cycle(transacts_of(client))

    async def run() -> None:
        await stub(next(requests), timeout=CALL_TIMEOUT_S)

    return run


def _transaction(channel: Any, writes: list[bytes]) -> Callable[[], Awaitable[None]]:
    begin, write, commit = (channel.unary_unary(f"{SERVICE}{name}") for name in ("BeginTransaction", "Write", "Commit"))
    done = 0

    async def run() -> None:
        nonlocal done
        # Field 1 of all three messages is the id, so begin's answer begins a write, and is a commit, as it stands.
        txn = await begin(b"", timeout=CALL_TIMEOUT_S)
        await write(txn + writes[done % KEYS_PER_CLIENT], timeout=CALL_TIMEOUT_S)
        await commit(txn, timeout=CALL_TIMEOUT_S)
        done += 1

    return run


def main() -> None:
    answer_jobs({job.__name__: _in_a_loop(job) for job in (get_state, reads, batches, transactions)})


def _in_a_loop(job: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    return lambda **arguments: anyio.run(partial(job, **arguments))


if __name__ == "__main__":
    main()
