"""The socket that the daemon listens on: exactly one address, and nobody else on it.

No SO_REUSEPORT: with it a second daemon on the port starts without a word and takes half of the calls.
SO_REUSEADDR only lets a daemon that is started again have its port back while old connections fade away.

An address that other machines reach has to be asked for (`beyond_loopback=True`): what decides is the address
that is bound, not the name that stood for it. A Unix socket is for the daemon's own user: its file has mode
0600 before anybody can connect. The directory is locked (flock) from the look at what stands there to the
new socket, so that of two daemons that start at once one gets the path and the other is told.
"""

import errno
import fcntl
import ipaddress
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from statehouse.errors import AddressError
from statehouse.limits import UNIX_PATH_BYTES

__all__ = ["is_beyond_loopback", "open_listener", "open_unix_listener", "socket_address"]

_BACKLOG: Final = 1024
_HIGHEST_PORT: Final = 65_535
_OWNER_ONLY: Final = 0o600


async def open_listener(host: str, port: int, *, beyond_loopback: bool = False) -> trio.SocketListener:
    """Bind and listen; `host` is a name or an IP literal (IPv6 without brackets), port 0 takes any free port.

    A name that has several addresses stands for the first of them. Raises AddressError when the address is
    taken, not allowed, unknown or not this machine's, and when other machines could reach it without
    `beyond_loopback`. Closing the listener is the caller's part.
    """
    if not 0 <= port <= _HIGHEST_PORT:  # the C library would take it modulo 65,536
        raise AddressError(f"cannot listen on {_text(host, port)}: the port must be from 0 to {_HIGHEST_PORT}")
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        if not (beyond_loopback or _is_loopback(str(address[0]))):
            raise AddressError(
                f"cannot listen on {_text(host, port)}: other machines reach {address[0]}, and nobody would have to "
                "authenticate; set token_file, or tls_client_ca with tls_cert and tls_key, or listen on 127.0.0.1 or "
                "unix:/PATH (--insecure lets everybody in)"
            )
        listening = trio.socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(_text(host, port), error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _refused(_text(host, port), error) from error
    return trio.SocketListener(listening)


@asynccontextmanager
async def open_unix_listener(path: Path) -> AsyncIterator[trio.SocketListener]:
    """Listen on a Unix socket at `path`, mode 0600, within the block; its file is removed at the end.

    A socket that a daemon left when it was killed is replaced. Raises AddressError when somebody answers
    there, when something else stands there, and when the path is too long or cannot be used. What another
    daemon put there since is not removed.
    """
    bound, ours = _bind(path)
    try:
        async with trio.SocketListener(trio.socket.from_stdlib_socket(bound)) as listener:
            yield listener
    finally:
        _remove(path, ours)


def is_beyond_loopback(listener: trio.SocketListener) -> bool:
    """Whether other machines can reach it. A Unix socket they cannot."""
    if listener.socket.family == socket.AF_UNIX:
        return False
    return not _is_loopback(listener.socket.getsockname()[0])


def socket_address(listener: trio.SocketListener) -> str:
    """Where a listener really listens: HOST:PORT, an IPv6 host in brackets, or unix:/PATH."""
    bound = listener.socket.getsockname()
    if listener.socket.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(bound)}"
    host, port = bound[:2]
    return _text(host, port)


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


@contextmanager
def _locked_directory(path: Path) -> Iterator[None]:
    """The directory of a Unix socket, for whoever looks at the path and then changes what stands there."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(f"unix:{path}", error) from error
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AddressError(f"cannot listen on unix:{path}: another daemon starts or stops there now") from None
        yield
    finally:
        os.close(directory)


def _bind(path: Path) -> tuple[socket.socket, os.stat_result]:
    """A socket that listens at `path`, and what its file is known by."""
    with _locked_directory(path):
        _make_room(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(os.fspath(path))
            ours = path.lstat()
            path.chmod(_OWNER_ONLY)  # before listen: until then a connection is refused
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            raise _refused(f"unix:{path}", error) from error
    return listening, ours


def _remove(path: Path, ours: os.stat_result) -> None:
    """Take our file away, unless another one has its place by now; what cannot be removed the next start replaces."""
    with suppress(OSError, AddressError), _locked_directory(path):
        if os.path.samestat(path.lstat(), ours):
            path.unlink()


def _make_room(path: Path) -> None:
    """Remove a socket that nobody answers on. AddressError when the path is taken by anything else."""
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        raise AddressError(f"cannot listen on unix:{path}: the path is longer than {UNIX_PATH_BYTES} bytes")
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(f"unix:{path}", error) from error
    if kind != stat.S_IFSOCK:
        raise AddressError(f"cannot listen on unix:{path}: what stands there is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)  # a daemon whose backlog is full lives too
        outcome = probe.connect_ex(os.fspath(path))
    if outcome in {0, errno.EAGAIN}:
        raise AddressError(f"cannot listen on unix:{path}: {os.strerror(errno.EADDRINUSE)}")
    if outcome not in {errno.ECONNREFUSED, errno.ENOENT}:
        raise AddressError(f"cannot listen on unix:{path}: {os.strerror(outcome)}")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(f"unix:{path}", error) from error


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refused(address: str, error: OSError) -> AddressError:
    return AddressError(f"cannot listen on {address}: {error.strerror or error}")
