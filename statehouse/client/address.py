"""Where a daemon listens, as users write it."""

import re
from typing import NamedTuple

__all__ = ["Address", "parse_url"]

_FORMS = "use host:port, http://host:port or [ipv6]:port"
_URL = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^\s:/\[\]@?#]+))"
    r":(?P<port>[0-9]{1,5})/?"
)


class Address(NamedTuple):
    """A host name or IP address, without brackets, and a port from 1 to 65535."""

    host: str
    port: int


def parse_url(url: str) -> Address:
    """Read `localhost:50051`, `http://host:port` or `[::1]:50051`; ValueError for anything else."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"{url!r} is not the address of a daemon: {_FORMS}")
    scheme = match["scheme"]
    if scheme is not None and scheme.lower() != "http":
        raise ValueError(f"{url!r}: {scheme}:// is not supported; {_FORMS}")
    port = int(match["port"])
    if not 1 <= port <= 65535:
        raise ValueError(f"{url!r}: the port must be from 1 to 65535")
    return Address(match["ipv6"] or match["host"], port)
