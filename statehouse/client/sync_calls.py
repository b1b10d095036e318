"""What every group of the sync client's calls stands on: the async client, and the thread in which it lives."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from statehouse.client.async_client import AsyncStatehouse
from statehouse.client.calls import Calls
from statehouse.client.loop_thread import LoopThread
from statehouse.client.stream import AsyncStream
from statehouse.findings import Head, VerifyEvent
from statehouse.rpc.client.transport import CONNECT_TIMEOUT_S, TIMEOUT_S
from statehouse.rpc.given import FilePath
from statehouse.types import DEFAULT_NAMESPACE

__all__ = ["SyncCalls", "as_in"]

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


def as_in(method: Callable[..., object]) -> Callable[[F], F]:
    """Take the docstring of the async method that is run."""

    def documented(function: F) -> F:
        function.__doc__ = method.__doc__
        return function

    return documented


class SyncCalls:
    """One daemon, as `Statehouse` says; that is the client to use."""

    def __init__(
        self,
        url: str = "localhost:50051",
        namespace: str = DEFAULT_NAMESPACE,
        *,
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        token: str | None = None,
        ca_file: FilePath | None = None,
        cert_file: FilePath | None = None,
        key_file: FilePath | None = None,
        server_name: str | None = None,
        insecure: bool = False,
    ) -> None:
        self._client = AsyncStatehouse(
            url,
            namespace,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            token=token,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            server_name=server_name,
            insecure=insecure,
        )
        self._loop = LoopThread(self._client)

    def __repr__(self) -> str:
        return repr(self._client).removeprefix("Async")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go; calls in flight, and all calls from here on, fail with ConnectionError."""
        self._loop.close()

    @as_in(Calls.health)
    def health(self, *, timeout_s: float | None = None) -> str:
        return self._loop.run(partial(self._client.health, timeout_s=timeout_s))

    @as_in(Calls.version)
    def version(self, *, timeout_s: float | None = None) -> tuple[str, str]:
        return self._loop.run(partial(self._client.version, timeout_s=timeout_s))

    @as_in(Calls.head)
    def head(self, *, timeout_s: float | None = None) -> Head:
        return self._loop.run(partial(self._client.head, timeout_s=timeout_s))

    @as_in(Calls.verify)
    def verify(self, heads: Iterable[Head] = (), *, timeout_s: float | None = None) -> Iterator[VerifyEvent]:
        known = tuple(heads)
        return self._iterate(lambda: self._client.verify(known, timeout_s=timeout_s))

    def _iterate(self, start: Callable[[], AsyncStream[T]]) -> Iterator[T]:
        stream = start()  # when the first item is asked for
        try:
            while batch := self._loop.run(stream.next_batch):
                yield from batch
        finally:
            stream.abandon()
