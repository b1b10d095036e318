"""Who a client is, and whom it takes for its daemon: a token, TLS certificates, and where to dial with them.

A token opens the daemon to whoever reads it on the way. So it goes over TLS, over a Unix socket, or to this very
machine, and anywhere else only when `insecure` says so. It is in no repr and no message.
"""

import ipaddress
import os
import re
import ssl
from typing import Any, Final

from attrs import Attribute, field, frozen

from statehouse.rpc.client.certificate_files import show_certificate, trust_authorities
from statehouse.rpc.client.host_name import ascii_host
from statehouse.rpc.given import FilePath, shown

__all__ = ["Credentials", "Target"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")
"""A bearer token's characters: RFC 6750, 2.1."""
TOKEN_CHARACTERS: Final = 4_096


@frozen
class Target:
    """Where a daemon listens: a host (name or IP address, without brackets) and port, or a Unix socket's path."""

    host: str = ""
    port: int = 0
    path: str | None = None
    tls: bool = False

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """What calls name it; a Unix socket has no name of its own."""
        return "localhost" if self.path is not None else str(self)

    @property
    def on_this_machine(self) -> bool:
        """Whether what is sent there stays on this machine."""
        if self.path is not None or self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False


def _check_token(_: object, __: object, token: Any) -> None:
    if token is None:
        return
    if not isinstance(token, str):
        raise TypeError("token must be a str")
    if len(token) > TOKEN_CHARACTERS or not _TOKEN.fullmatch(token):
        raise ValueError("token is not the text of a token (letters, digits and ._~+/=-)")


def _check_path(_: object, attribute: "Attribute[Any]", path: Any) -> None:
    if path is None:
        return
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{attribute.name} must be the path of a file, a str or os.PathLike, not a {_kind(path)}")
    if not os.fspath(path):
        raise ValueError(f"{attribute.name} is empty; leave it out for none")


def _check_flag(_: object, attribute: "Attribute[Any]", flag: Any) -> None:
    if not isinstance(flag, bool):
        raise TypeError(f"{attribute.name} must be True or False, not a {_kind(flag)}")


def _server_name(name: str | None) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise TypeError(f"server_name must be a str, not a {_kind(name)}")
    if not name:
        raise ValueError("server_name is empty; leave it out to take the host's name")
    try:
        return ascii_host(name)
    except ValueError as error:
        raise ValueError(f"server_name {shown(name, 'name')} is no name of a host: {error}") from None


def _kind(value: object) -> str:
    return type(value).__name__


@frozen
class Credentials:
    """What a client shows, and what it asks its daemon to show.

    `token` is sent with each call. The files are in PEM form: `ca_file` has the certificates that may vouch for
    the daemon (absent: the system's), `cert_file` and `key_file` are the client's own for mutual TLS, the key may
    stand in `cert_file`. `server_name` is the name that the daemon's certificate must have, if it is not the host's.
    """

    token: str | None = field(default=None, repr=False, validator=_check_token)
    ca_file: FilePath | None = field(default=None, validator=_check_path)
    cert_file: FilePath | None = field(default=None, validator=_check_path)
    key_file: FilePath | None = field(default=None, validator=_check_path)
    server_name: str | None = field(default=None, converter=_server_name)
    insecure: bool = field(default=False, validator=_check_flag)

    @property
    def authorization(self) -> bytes | None:
        """The value of the header of that name."""
        return None if self.token is None else f"Bearer {self.token}".encode()

    def tls_context(self, target: Target) -> ssl.SSLContext | None:
        """What TLS to the target is made with; None for none. Reads the files.

        ValueError when the credentials and the target do not go together, or a file cannot be used.
        """
        if not target.tls:
            given = [
                name for name in ("ca_file", "cert_file", "key_file", "server_name") if getattr(self, name) is not None
            ]
            if given:
                raise ValueError(f"{', '.join(given)}: for TLS only, which the address does not ask for (use https://)")
            if self.token is not None and not target.on_this_machine and not self.insecure:
                raise ValueError(
                    f"a token must not travel to {target} without TLS: use https://, or say insecure if others cannot "
                    "listen on the way"
                )
            return None
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs the certificate that it belongs to: cert_file")
        if self.ca_file is None:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trust_authorities(context, self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        if self.cert_file is not None:
            show_certificate(context, self.cert_file, self.key_file)
        return context
