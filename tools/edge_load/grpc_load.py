"""The load of grpc.aio, in a process of its own: GetState, and transactions.

Requests and answers are bytes, made beforehand where that can be, so that the load costs as little as grpc.aio lets
it; only when a client library is compared with grpc.aio are messages decoded, as a user of either would have them.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import anyio
import grpc.aio
from purerpc_as_shipped import record_of

from edge_load.jobs import answer_jobs
from edge_load.meter import call_repeatedly
from statehouse.v1 import statehouse_pb2 as pb

SERVICE: Final = "/statehouse.v1.StatehouseService/"
CALL_TIMEOUT_S: Final = 30.0
KEYS_PER_CLIENT: Final = 100
VALUE_BYTES: Final = 200
# Otherwise the channels of one process to one address share a connection.
OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)


async def get_state(
    target: str, server_pid: int, seconds: float, in_flight: int, names: dict[str, str], *, decode: bool
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


async def transactions(target: str, server_pid: int, seconds: float, first_client: int, clients: int) -> Any:
    """Clients with a channel each: begin, write a value of 200 bytes, commit, and again."""
    async with AsyncExitStack() as stack:
        runs = []
        for number in range(first_client, first_client + clients):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=OWN_CONNECTION))
            runs.append(_transaction(channel, writes_of(number)))
        return await call_repeatedly(runs, seconds, server_pid)


def writes_of(client: int) -> list[bytes]:
    """What a client writes, a value of 200 bytes to one key after another; the transaction's id goes before it."""
    names = {"namespace": "bench", "agent_id": f"client-{client:03}"}
    value = record_of(VALUE_BYTES).value
    keys = (f"key-{number:03}" for number in range(KEYS_PER_CLIENT))
    return [pb.WriteRequest(**names, key=key, value=value).SerializeToString() for key in keys]


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
    answer_jobs(
        {
            "get_state": lambda **arguments: anyio.run(partial(get_state, **arguments)),
            "transactions": lambda **arguments: anyio.run(partial(transactions, **arguments)),
        }
    )


if __name__ == "__main__":
    main()
