"""TLS at the server: which files it takes, with whom it shakes hands, and what a reload changes."""

import datetime as dt
import os
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from statehouse.errors import ConfigError
from statehouse.rpc.server.listener import open_listener
from statehouse.rpc.server.tls import PEM_FILE_BYTES, ServerTls, accept_tls, peer_name

PATIENCE_S = 20.0
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Served:
    """A server that tells what became of each handshake and then echoes, and the clients of it."""

    def __init__(self, tls):
        self._tls = tls
        self._tell, self._told = trio.open_memory_channel(10)
        self._streams = []
        self.port = 0

    async def outcome(self):
        """Of the next handshake: the client's name, or the error."""
        return await self._told.receive()

    async def serve(self, stream):
        try:
            secured = await accept_tls(stream, self._tls)
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            await self._tell.send(error)
            return
        await self._tell.send(peer_name(secured))
        async for received in secured:
            await secured.send_all(received)

    async def connect_raw(self):
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self._streams.append(stream)
        return stream

    async def connect(self, context):
        stream = trio.SSLStream(await self.connect_raw(), context, server_hostname="localhost", https_compatible=True)
        await stream.do_handshake()
        return stream

    async def echo(self, context):
        """Connect and be served."""
        stream = await self.connect(context)
        await echo(stream)
        return stream

    async def turns_away(self, context):
        """The error at the server; a client of TLS 1.3 learns only from its first read that it was not taken."""

        async def to_the_end():
            async for _ in await self.connect(context):
                pass

        with suppress(trio.BrokenResourceError):
            await to_the_end()
        await self.close()
        error = await self.outcome()
        assert isinstance(error, (trio.BrokenResourceError, ssl.SSLError))
        return error

    async def close(self):
        """Close all clients."""
        for stream in self._streams:
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def served(tls):
    server = Served(tls)
    with trio.fail_after(PATIENCE_S):
        async with await open_listener("127.0.0.1", 0) as listener, trio.open_nursery() as nursery:
            server.port = listener.socket.getsockname()[1]
            nursery.start_soon(partial(trio.serve_listeners, server.serve, [listener], handler_nursery=nursery))
            try:
                yield server
            finally:
                await server.close()
            nursery.cancel_scope.cancel()


async def echo(stream):
    await stream.send_all(b"x" * 100_000)
    received = 0
    while received < 100_000:
        part = await stream.receive_some()
        assert part
        received += len(part)


def refused(*files):
    with pytest.raises(ConfigError) as caught:
        ServerTls(*files)
    assert "\n" not in caught.value.message
    assert "_ssl.c" not in caught.value.message
    return caught.value.message


# Handshakes


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
async def test_a_client_that_trusts_the_authority_is_served(version, authority):
    context = authority.client_context()
    context.minimum_version = context.maximum_version = version
    async with served(ServerTls(*authority.issue(), None)) as server:
        stream = await server.echo(context)
        assert stream.selected_alpn_protocol() == "h2"
        assert stream.version() == {TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}[version]
        assert await server.outcome() is None


async def test_h2_is_chosen_among_others(authority):
    async with served(ServerTls(*authority.issue(), None)) as server:
        await server.echo(authority.client_context(alpn=("grpc-exp", "http/1.1", "h2")))
        assert await server.outcome() is None


@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("h2c", "h3")])
async def test_a_client_that_does_not_offer_h2_is_turned_away(alpn, authority):
    async with served(ServerTls(*authority.issue(), None)) as server:
        error = await server.turns_away(authority.client_context(alpn=alpn))
        assert not isinstance(error, trio.BrokenResourceError)
        assert "ALPN h2" in str(error)


async def test_tls_1_1_is_turned_away(authority):
    context = authority.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with served(ServerTls(*authority.issue(), None)) as server:
        error = await server.turns_away(context)
        assert "UNSUPPORTED_PROTOCOL" in str(error.__cause__)


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA"])
async def test_a_cipher_that_http2_forbids_is_not_shared(cipher, authority):
    context = authority.client_context()
    context.maximum_version = TLS_1_2
    context.set_ciphers(cipher)
    async with served(ServerTls(*authority.issue(), None)) as server:
        error = await server.turns_away(context)
        assert "NO_SHARED_CIPHER" in str(error.__cause__)


@pytest.mark.parametrize(
    "said", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", os.urandom(500)]
)
async def test_a_peer_that_does_not_speak_tls_is_a_broken_stream(said, authority):
    async with served(ServerTls(*authority.issue(), None)) as server:
        stream = await server.connect_raw()
        await stream.send_all(said)
        await stream.aclose()
        assert isinstance(await server.outcome(), trio.BrokenResourceError)


async def test_a_handshake_that_does_not_go_on_can_be_cancelled(authority):
    tls = ServerTls(*authority.issue(), None)
    ends = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_tls, ends[0], tls)
        await ends[1].send_all(b"\x16")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
async def test_no_session_can_be_resumed(version, authority):
    context = authority.client_context()
    context.minimum_version = context.maximum_version = version
    async with served(ServerTls(*authority.issue(), None)) as server:
        stream = await server.echo(context)
        assert stream.session is None or not stream.session.has_ticket


# Mutual TLS


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
async def test_a_client_of_the_right_authority_is_known_by_its_name(version, authority, other_authority):
    tls = ServerTls(*authority.issue(), other_authority.file)
    context = authority.client_context(other_authority.issue("agent", "agent.example", common_name="agent seven"))
    context.minimum_version = context.maximum_version = version
    async with served(tls) as server:
        await server.echo(context)
        assert await server.outcome() == "agent seven"


async def test_a_client_without_a_common_name_is_known_by_its_first_alternative_name(authority):
    tls = ServerTls(*authority.issue(), authority.file)
    async with served(tls) as server:
        await server.echo(authority.client_context(authority.issue("a", "one.example", "two.example")))
        assert await server.outcome() == "one.example"


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("certificate", ["none", "of another authority", "expired"])
async def test_a_client_without_a_certificate_that_is_taken_is_turned_away(
    certificate, version, authority, other_authority
):
    identity = {
        "none": lambda: None,
        "of another authority": lambda: other_authority.issue("stranger"),
        "expired": lambda: authority.issue("late", **years(2020, 2021)),
    }[certificate]()
    context = authority.client_context(identity)
    context.minimum_version = context.maximum_version = version
    async with served(ServerTls(*authority.issue(), authority.file)) as server:
        error = await server.turns_away(context)
        assert isinstance(error, trio.BrokenResourceError)
        said = "PEER_DID_NOT_RETURN_A_CERTIFICATE" if identity is None else "CERTIFICATE_VERIFY_FAILED"
        assert said in str(error.__cause__)


async def test_a_client_that_does_not_trust_the_daemon_leaves(authority, other_authority):
    async with served(ServerTls(*authority.issue(), None)) as server:
        assert isinstance(await server.turns_away(other_authority.client_context()), trio.BrokenResourceError)


def test_a_name_is_cut_and_its_absence_told():
    class Stream:
        def __init__(self, certificate):
            self.getpeercert = lambda: certificate

    long = {"subject": ((("countryName", "DE"),), (("commonName", "n" * 1000),))}
    assert peer_name(Stream(long)) == "n" * 256
    assert peer_name(Stream({"subject": ((("countryName", "DE"),),)})) == "(a certificate without a name)"
    assert peer_name(Stream({"subject": (), "subjectAltName": (("URI", "spiffe://a/b"),)})) == "spiffe://a/b"
    assert peer_name(Stream(None)) is None
    assert peer_name(Stream({})) is None


# Reload


def serial(stream):
    return stream.getpeercert()["serialNumber"]


async def test_a_reload_is_for_new_connections_and_old_ones_go_on(authority):
    tls = ServerTls(*authority.issue("daemon", **years(2020, 2090)), None)
    assert tls.expires == "2090-01-01T00:00:00Z"
    async with served(tls) as server:
        old = await server.echo(authority.client_context())
        authority.issue("daemon", **years(2020, 2091))
        unchanged = await server.echo(authority.client_context())
        assert serial(unchanged) == serial(old)
        tls.reload()
        assert tls.expires == "2091-01-01T00:00:00Z"
        new = await server.echo(authority.client_context())
        assert serial(new) != serial(old)
        await echo(old)


async def test_a_reload_takes_over_other_authorities_of_clients(authority, other_authority):
    trusted = authority.directory / "clients.pem"
    trusted.write_bytes(authority.file.read_bytes())
    tls = ServerTls(*authority.issue(), trusted)
    ours = authority.client_context(authority.issue("ours", common_name="ours"))
    theirs = authority.client_context(other_authority.issue("theirs", common_name="theirs"))
    async with served(tls) as server:
        await server.echo(ours)
        assert await server.outcome() == "ours"
        trusted.write_bytes(other_authority.file.read_bytes())
        tls.reload()
        await server.turns_away(ours)
        await server.echo(theirs)
        assert await server.outcome() == "theirs"


async def test_a_reload_that_fails_keeps_what_was_in_use(authority, other_authority):
    issued = authority.issue()
    tls = ServerTls(*issued, None)
    before = tls.context
    issued.key.write_bytes(other_authority.issue().key.read_bytes())
    with pytest.raises(ConfigError, match="does not belong to"):
        tls.reload()
    issued.cert.unlink()
    with pytest.raises(ConfigError, match="No such file or directory"):
        tls.reload()
    assert tls.context is before
    async with served(tls) as server:
        await server.echo(authority.client_context())


# Files


def years(first, last):
    start, end = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (first, last))
    return {"not_before": start, "not_after": end}


def test_a_key_of_another_certificate(authority, other_authority):
    ours, theirs = authority.issue(), other_authority.issue()
    assert refused(ours.cert, theirs.key, None) == (
        f"the TLS private key {theirs.key} does not belong to the certificate {ours.cert}"
    )


@pytest.mark.parametrize(
    ("first", "last", "why"), [(2020, 2021, "certificate has expired"), (2090, 2091, "certificate is not yet valid")]
)
def test_a_certificate_out_of_its_time(first, last, why, authority):
    issued = authority.issue("daemon", **years(first, last))
    assert refused(*issued, None) == f"the TLS certificate {issued.cert} cannot be used: {why}"


def test_authorities_that_have_expired(authority, other_authority, monkeypatch):
    tls = ServerTls(*authority.issue(), other_authority.file)
    assert tls.asks_for_certificates
    monkeypatch.setattr(
        "statehouse.rpc.server.tls.time.time", lambda: ssl.cert_time_to_seconds("Jan 2 00:00:00 3000 GMT")
    )
    assert refused(*authority.issue(), other_authority.file).endswith("cannot be used: all of them have expired")


def test_a_chain_with_an_intermediate_authority(authority):
    made = authority.ca.create_child_ca().issue_cert("localhost")
    issued = authority.issue()
    issued.cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    issued.key.write_bytes(made.private_key_pem.bytes())
    assert not ServerTls(*issued, None).asks_for_certificates


def test_files_that_cannot_be_read(authority, tmp_path):
    cert, key = authority.issue()
    none, fifo, long = tmp_path / "none", tmp_path / "fifo", tmp_path / "long"
    os.mkfifo(fifo)
    long.write_bytes(cert.read_bytes() + b"#" * PEM_FILE_BYTES)
    missing = f"{none}: No such file or directory"
    assert refused(none, key, None) == f"cannot read the TLS certificate {missing}"
    assert refused(cert, none, None) == f"cannot read the TLS private key {missing}"
    assert refused(cert, key, none) == f"cannot read the TLS client authorities {missing}"
    for irregular in (tmp_path, fifo):
        assert refused(cert, irregular, None) == (
            f"cannot read the TLS private key {irregular}: it is not a regular file"
        )
    assert refused(long, key, None) == f"cannot read the TLS certificate {long}: it is longer than 1 MiB"


def test_files_that_are_something_else(authority):
    cert, key = authority.issue()
    wrong = "is the wrong file: it has no"
    assert refused(key, cert, None) == f"the TLS certificate {key} {wrong} certificate in PEM form"
    assert refused(cert, cert, None) == f"the TLS private key {cert} {wrong} private key in PEM form"
    assert refused(cert, key, key) == f"the TLS client authorities {key} {wrong} certificate in PEM form"


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_files_that_are_damaged(damaged, authority):
    files = [*authority.issue(), authority.file]
    lines = files[damaged].read_bytes().splitlines()
    files[damaged].write_bytes(b"\n".join([lines[0], b"AAAA", *lines[2:]]))
    message = refused(*files)
    assert str(files[damaged]) in message
    assert "cannot be used" in message


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(authority):
    cert, key = authority.issue()
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    sealed = serialization.BestAvailableEncryption(b"x")
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, form, sealed))
    assert refused(cert, key, None) == f"the TLS private key {key} is encrypted: store it without a passphrase"


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_a_key_that_everybody_can_read_is_a_warning(mode, warnings, authority):
    issued = authority.issue()
    issued.key.chmod(mode)
    with capture_logs() as lines:
        ServerTls(*issued, None)
    assert [(line["log_level"], line["file"]) for line in lines] == [("warning", str(issued.key))] * warnings
