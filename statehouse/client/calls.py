"""What every group of the async client's calls stands on: the connection, the namespace, and calls about the daemon."""

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from statehouse.client.address import parse_url
from statehouse.client.arguments import check_texts
from statehouse.client.stream import AsyncStream
from statehouse.findings import Head, VerifyEvent, distinct
from statehouse.rpc.client.credentials import Credentials
from statehouse.rpc.client.dial import dialer
from statehouse.rpc.client.stub import Stub
from statehouse.rpc.client.transport import CONNECT_TIMEOUT_S, TIMEOUT_S, Transport
from statehouse.rpc.given import FilePath
from statehouse.rpc.verify_events import decode_event, decode_head
from statehouse.types import DEFAULT_NAMESPACE
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["Calls"]


class Calls:
    """One daemon, as `AsyncStatehouse` says; that is the client to use."""

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
        check_texts(url=url, namespace=namespace)
        self._url = url
        self._target = parse_url(url)
        self._credentials = Credentials(token, ca_file, cert_file, key_file, server_name, insecure)
        self._dial = dialer(self._target, self._credentials)
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self.forget_connection()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url={self._url!r}, namespace={self._namespace!r})"

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, traceback)

    async def close(self) -> None:
        """Let the connection go; calls in flight, and all calls from here on, fail with ConnectionError."""
        self._transport.close()

    def forget_connection(self) -> None:
        """Be as new, and leave what was open as it is. For the child of a fork: it is the parent's."""
        self._transport = Transport(
            self._target,
            self._credentials,
            dial=self._dial,
            timeout_s=self._timeout_s,
            connect_timeout_s=self._connect_timeout_s,
        )
        self.stub = Stub(self._transport)

    async def health(self, *, timeout_s: float | None = None) -> str:
        """`ok` while the daemon serves reads and commits."""
        return (await self.stub.Health(pb.HealthRequest(), timeout_s=timeout_s)).status

    async def version(self, *, timeout_s: float | None = None) -> tuple[str, str]:
        """The daemon's version and the git commit it was built from."""
        answer = await self.stub.Version(pb.VersionRequest(), timeout_s=timeout_s)
        return answer.version, answer.git_sha

    async def head(self, *, timeout_s: float | None = None) -> Head:
        """The newest commit, and the value of the log's hash chain there; `str()` of it is `TS:CHAIN`.

        Keep it somewhere else, and give it to `verify` later: that shows whether the log was cut or written anew
        since. A token must be bound to no namespace and no agent.
        """
        return decode_head(await self.stub.Head(pb.HeadRequest(), timeout_s=timeout_s))

    def verify(self, heads: Iterable[Head] = (), *, timeout_s: float | None = None) -> AsyncStream[VerifyEvent]:
        """Have the daemon check its log, its view and its snapshots, up to the newest commit at the time of the call.

        An async iterator: VerifyProgress at least once a second, a VerifyFinding for each thing that is wrong, the
        VerifyVerdict last. `heads`, from `head` or `Head.parse`, are held against the log. The call is made when the
        first event is asked for; leaving the loop early ends it. The daemon runs one verification at a time
        (OverloadedError), beside the commits; a token must be an admin's, and bound to nothing. ValueError for more
        than 10,000 heads.
        """
        known = [pb.KnownHead(commit_ts=head.commit_ts, chain=head.chain) for head in distinct(heads)]
        stream = self.stub.Verify(pb.VerifyRequest(heads=known), timeout_s=timeout_s)
        return AsyncStream(stream, _verify_events)

    def full_name(self, namespace: str | None) -> str:
        """The namespace of a call; None: the client's own. TypeError and ValueError for what is none."""
        if namespace is None:
            return self._namespace
        check_texts(namespace=namespace)
        return namespace


def _verify_events(message: pb.VerifyEvent) -> tuple[VerifyEvent, ...]:
    event = decode_event(message)
    return () if event is None else (event,)
