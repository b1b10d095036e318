"""How a client reaches its daemon: a stream over TCP, TLS or a Unix socket, by which HTTP/2 is spoken."""

import os
import select
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeAlias

import anyio
import anyio.abc
from anyio.streams.tls import TLSAttribute, TLSStream

from statehouse.rpc.client.credentials import Credentials, Target

__all__ = ["Dial", "alert_of", "dialer", "reason_of", "unread_poll", "usual_reasons"]

Dial: TypeAlias = Callable[[], Awaitable[anyio.abc.ByteStream]]
"""Makes a new stream. Raises OSError."""


def dialer(target: Target, credentials: Credentials) -> Dial:
    """What makes streams to the target; the files of the credentials are read here, once. ValueError: see there."""
    context = credentials.tls_context(target)

    async def dial() -> anyio.abc.ByteStream:
        if target.path is not None:
            return await anyio.connect_unix(target.path)
        stream = await anyio.connect_tcp(target.host, target.port)
        if context is None:
            return stream
        async with AsyncExitStack() as undo:
            undo.push_async_callback(anyio.aclose_forcefully, stream)
            tls = await _speak_tls(stream, context, credentials.server_name or target.host)
            undo.pop_all()
        return tls

    return dial


class TlsError(OSError):
    """The daemon was reached, and TLS with it cannot be."""


async def _speak_tls(stream: anyio.abc.ByteStream, context: ssl.SSLContext, name: str) -> TLSStream:
    try:
        # gRPC ends calls, not the stream: a peer that leaves without TLS's farewell hides nothing from us.
        tls = await TLSStream.wrap(
            stream, server_side=False, hostname=name, ssl_context=context, standard_compatible=False
        )
    except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise TlsError(f"the daemon ended the TLS handshake: {usual_reasons(tls=True)}") from error
    except ssl.SSLCertVerificationError as error:
        raise TlsError(f"its certificate is not good: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise TlsError(f"TLS failed: {_words(error)}") from error
    if tls.extra(TLSAttribute.alpn_protocol) != "h2":  # noqa: S610 - no Django
        raise TlsError("it speaks TLS, but not HTTP/2 (ALPN 'h2')")
    return tls


def reason_of(error: OSError | ValueError) -> str:
    """Why a stream could not be made, in the system's words: the libraries between wrap them in the address again."""
    if isinstance(error, TlsError) or not isinstance(error, OSError):
        return str(error)
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if cause.errno and cause.errno > 0:
        return os.strerror(cause.errno)
    return cause.strerror or str(cause)  # a name that was not found has a number of its own


def alert_of(error: Exception) -> str:
    """What TLS said when a stream ended; with TLS 1.3 a daemon refuses a client's certificate only then."""
    return f" ({_words(error)})" if isinstance(error, ssl.SSLError) else ""


def usual_reasons(*, tls: bool) -> str:
    """Why a daemon hangs up on somebody before it said anything."""
    if tls:
        certificate = "it may ask for a client certificate (cert_file, key_file), or not take the one shown"
        return f"{certificate}, or take no more connections"
    return "it may speak TLS (https://), or take no more connections"


def unread_poll(stream: anyio.abc.ByteStream) -> Callable[[], bool]:
    """Tells at once whether something came, or the other side hung up, that the event loop has not seen yet."""
    raw_socket = stream.extra(anyio.abc.SocketAttribute.raw_socket, None)  # noqa: S610 - no Django
    if raw_socket is None:
        return lambda: False
    poll = select.poll()
    poll.register(raw_socket, select.POLLIN)
    return lambda: bool(poll.poll(0))


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
