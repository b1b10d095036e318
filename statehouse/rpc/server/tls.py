"""The daemon's side of TLS: its certificate, whose client certificates it takes, and the handshake.

`ServerTls` holds the one current `ssl.SSLContext` and knows how to make the next one. Files are read when it
is made and in `reload`, never during a handshake. A new context takes the old one's place in one assignment:
connections that are open keep theirs, later ones get the new one, and a reload that fails changes nothing.

What a context is made of is tried before it is used: a client in memory shakes hands with it. So a key of
another certificate, an expired certificate or one that is for clients only is one line for the operator, at
once, and not a riddle for every client. Only public functions of `ssl` are needed for that.

Only what HTTP/2 allows is offered (RFC 9113, 9.2): TLS 1.2 or newer, ALPN `h2`, no renegotiation, with
TLS 1.2 only ephemeral keys and authenticated ciphers. There are no session tickets: a connection lives long
enough not to miss them, and each one proves anew who it is.
"""

import re
import ssl
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
import trio

from statehouse.errors import ConfigError
from statehouse.limits import MIB

__all__ = ["ServerTls", "accept_tls", "peer_name"]

ALPN: Final = "h2"
PEM_FILE_BYTES: Final = MIB
"""Longest file of certificates or keys; what is longer was named by mistake."""
NAME_CHARACTERS: Final = 256
"""A longer name of a client is cut: it is for logs."""

_CIPHERS_OF_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"
_SOURCE_PLACE: Final = re.compile(r"\[[A-Z0-9: _]*\] ?|\s*\(_ssl\.c:[0-9]+\)")
"""What ssl puts around OpenSSL's words."""

log = structlog.stdlib.get_logger(__name__)


class ServerTls:
    """The certificate of this daemon and, for mutual TLS, the authorities of its clients' certificates."""

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        """Read the files; blocks on that. `cert_file` has the daemon's certificate first, then its chain.

        With `client_ca_file` a client must have a certificate of one of the authorities in it. Raises
        ConfigError when a file cannot be read or used, with one line that says which and why.
        """
        self._files = (cert_file, key_file, client_ca_file)
        self._context, self._expires = _make_context(*self._files)

    @property
    def context(self) -> ssl.SSLContext:
        """What the next handshake is to use."""
        return self._context

    @property
    def expires(self) -> str:
        """When the certificate in use expires, as RFC 3339 in UTC."""
        return self._expires

    @property
    def asks_for_certificates(self) -> bool:
        """Whether a client has to have a certificate."""
        return self._files[2] is not None

    def reload(self) -> None:
        """Read the files again, for the connections to come. Blocks on the files; may run in any thread.

        Raises ConfigError as the constructor does; what was in use stays in use then.
        """
        self._context, self._expires = _make_context(*self._files)


async def accept_tls(stream: trio.SocketStream, tls: ServerTls) -> trio.SSLStream[trio.SocketStream]:
    """Shake hands as the server; the stream to speak HTTP/2 on.

    Raises trio.BrokenResourceError when the handshake fails, the peer leaves, or its certificate is not
    taken, and ssl.SSLError when the peer does not speak `h2`. There is no time limit here: whoever calls
    sets one, and closes `stream` after any failure or cancellation.
    """
    # Compatible with HTTPS: gRPC clients close the connection without the farewell of TLS.
    secured = trio.SSLStream(stream, tls.context, server_side=True, https_compatible=True)
    await secured.do_handshake()
    if secured.selected_alpn_protocol() != ALPN:
        raise ssl.SSLError("the peer does not offer ALPN h2")
    return secured


def peer_name(stream: trio.SSLStream[trio.SocketStream]) -> str | None:
    """Whom the client's certificate names; None without one.

    The common name of its subject, or else its first alternative name (a DNS name, a URI such as SPIFFE's,
    an address). At most NAME_CHARACTERS long; it is the peer's text, so it may hold any character.
    """
    certificate: dict[str, Any] | None = stream.getpeercert()
    if not certificate:
        return None
    names = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    names += [str(value) for _, value in certificate.get("subjectAltName", ())]
    return next((name[:NAME_CHARACTERS] for name in names if name), "(a certificate without a name)")


def _make_context(cert_file: Path, key_file: Path, client_ca_file: Path | None) -> tuple[ssl.SSLContext, str]:
    _read_pem(cert_file, "certificate", _CERTIFICATE)
    _read_pem(key_file, "private key", _KEY)
    trial = _client_of(cert_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_OF_1_2)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols([ALPN])
    try:
        context.load_cert_chain(cert_file, key_file, password=lambda: _no_password(key_file))
    except OSError as error:  # SSLError is one
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"the TLS private key {key_file} does not belong to the certificate {cert_file}"
            ) from None
        raise ConfigError(f"the TLS private key {key_file} cannot be used for {cert_file}: {_reason(error)}") from None
    try:
        expires = _try_out(context, trial)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the TLS certificate {cert_file} cannot be used: {_reason(error)}") from None
    if client_ca_file is not None:
        _trust(context, client_ca_file)
    return context, expires


def _no_password(key_file: Path) -> str:
    """In place of OpenSSL's own way, which asks on the terminal and waits."""
    raise ConfigError(f"the TLS private key {key_file} is encrypted: store it without a passphrase")


def _client_of(cert_file: Path) -> ssl.SSLContext:
    """For a client that trusts just this certificate, whoever issued it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # which names clients use is not known here
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cert_file)
    except OSError as error:
        raise ConfigError(f"the TLS certificate {cert_file} cannot be used: {_reason(error)}") from None
    return context


def _try_out(context: ssl.SSLContext, trial: ssl.SSLContext) -> str:
    """Shake hands with a client in memory; when the certificate expires. SSLError or ValueError when it fails."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trial.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(2):  # TLS 1.3: a hello and a finished of each side
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    certificate = client.getpeercert() or {}
    return _rfc3339(str(certificate["notAfter"]))


def _trust(context: ssl.SSLContext, client_ca_file: Path) -> None:
    """Take clients whose certificate one of the authorities in the file has signed, and no others."""
    pem = _read_pem(client_ca_file, "client authorities", _CERTIFICATE)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"the TLS client authorities {client_ca_file} cannot be used: {_reason(error)}") from None
    authorities = context.get_ca_certs()
    if authorities and all(ssl.cert_time_to_seconds(str(ca["notAfter"])) < time.time() for ca in authorities):
        raise ConfigError(f"the TLS client authorities {client_ca_file} cannot be used: all of them have expired")
    context.verify_mode = ssl.CERT_REQUIRED


def _read_pem(path: Path, what: str, mark: bytes) -> bytes:
    """The bytes of a regular file that has a PEM block of the right kind: a pipe might never begin or end."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"cannot read the TLS {what} {path}: it is not a regular file")
        with path.open("rb") as file:
            pem = file.read(PEM_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the TLS {what} {path}: {error.strerror}") from None
    if len(pem) > PEM_FILE_BYTES:
        raise ConfigError(f"cannot read the TLS {what} {path}: it is longer than {PEM_FILE_BYTES // MIB} MiB")
    if mark not in pem:
        kind = "private key" if mark is _KEY else "certificate"
        raise ConfigError(f"the TLS {what} {path} is the wrong file: it has no {kind} in PEM form")
    if mark is _KEY and mode & stat.S_IROTH:
        log.warning("everybody on this machine can read the TLS private key", file=str(path))
    return pem


def _reason(error: Exception) -> str:
    """OpenSSL's own words in one line, without its file names and line numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, ssl.SSLError):
        words = _SOURCE_PLACE.sub("", str(error))
        return "it is damaged" if words == "PEM lib" else words
    return (isinstance(error, OSError) and error.strerror) or str(error).replace("\n", " ")


def _rfc3339(certificate_time: str) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ssl.cert_time_to_seconds(certificate_time)))
