"""The socket that the daemon listens on: exactly one address, and nobody else on it.

No SO_REUSEPORT: with it a second daemon on the port starts without a word and takes half of the calls.
SO_REUSEADDR only lets a daemon that is started again have its port back while old connections fade away.
"""

import socket
from typing import Final

import trio

from statehouse.errors import AddressError

__all__ = ["open_listener", "socket_address"]

_BACKLOG: Final = 1024
_HIGHEST_PORT: Final = 65_535


async def open_listener(host: str, port: int) -> trio.SocketListener:
    """Bind and listen; `host` is a name or an IP literal (IPv6 without brackets), port 0 takes any free port.

    A name that has several addresses stands for the first of them. Raises AddressError when the address is
    taken, not allowed, unknown or not this machine's. Closing the listener is the caller's part.
    """
    if not 0 <= port <= _HIGHEST_PORT:  # the C library would take it modulo 65,536
        raise AddressError(f"cannot listen on {_text(host, port)}: the port must be from 0 to {_HIGHEST_PORT}")
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = trio.socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(host, port, error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _refused(host, port, error) from error
    return trio.SocketListener(listening)


def socket_address(listener: trio.SocketListener) -> str:
    """Where a listener really listens, as HOST:PORT; an IPv6 host in brackets."""
    host, port = listener.socket.getsockname()[:2]
    return _text(host, port)


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refused(host: str, port: int, error: OSError) -> AddressError:
    return AddressError(f"cannot listen on {_text(host, port)}: {error.strerror or error}")
