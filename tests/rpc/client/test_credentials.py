"""Who a client says it is and whom it believes: over TLS, Unix sockets and plain TCP, against grpcio."""

import os
import re
import socket
import ssl
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme
from client import memory_service
from cryptography.hazmat.primitives import serialization

from statehouse import AsyncStatehouse, ConnectionError, Statehouse
from statehouse.rpc.client import certificate_files
from statehouse.rpc.client.credentials import Credentials, Target
from statehouse.rpc.client.dial import dialer
from statehouse.rpc.client.stub import Stub
from statehouse.rpc.client.transport import Transport
from statehouse.v1 import statehouse_pb2 as pb

TOKEN = "sth_0123456789ab_" + "s3cret" * 7


class Recorded(grpc.ServerInterceptor):
    def __init__(self):
        self.metadata = []

    def intercept_service(self, continuation, details):
        self.metadata.append(dict(details.invocation_metadata))
        return continuation(details)


class Servers:
    """Servers of the service in memory, each behind the credentials that a test gives."""

    def __init__(self):
        self.recorded = Recorded()
        self._servers = []

    def start(self, credentials=None, address="127.0.0.1:0"):
        server = grpc.server(ThreadPoolExecutor(4), interceptors=[self.recorded], options=memory_service.OPTIONS)
        server.add_generic_rpc_handlers((memory_service.MemoryService().handlers(),))
        port = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
        server.start()
        self._servers.append(server)
        return port

    def close(self):
        for server in self._servers:
            server.stop(None).wait()


@pytest.fixture
def servers():
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def ca_file(ca, tmp_path):
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


def server_credentials(ca, name, *, clients=None):
    issued = ca.issue_cert(name)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    roots = None if clients is None else clients.cert_pem.bytes()
    return grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)], roots, clients is not None)


def files_of(issued, folder):
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    return {"cert_file": folder / "cert.pem", "key_file": str(folder / "key.pem")}


def test_tls_with_a_token(run, servers, ca, ca_file):
    port = servers.start(server_credentials(ca, "localhost"))

    async def main():
        async with AsyncStatehouse(f"https://localhost:{port}", token=TOKEN, ca_file=ca_file) as client:
            async with await client.begin_transaction() as txn:
                await txn.write("a", "k", {"text": "x" * 3_000_000})
            assert len((await client.get_state("a", "k")).value["text"]) == 3_000_000
            assert len([event async for event in client.replay("a")]) == 1

    run(main)
    assert {each["authorization"] for each in servers.recorded.metadata} == {f"Bearer {TOKEN}"}


def test_the_sync_client_over_tls(servers, ca, ca_file):
    port = servers.start(server_credentials(ca, "127.0.0.1"))
    with Statehouse(f"https://127.0.0.1:{port}", ca_file=str(ca_file)) as client:
        assert client.health() == "ok"


def test_the_name_in_the_certificate(run, servers, ca, ca_file):
    port = servers.start(server_credentials(ca, "db.example.org"))

    async def main():
        async with AsyncStatehouse(
            f"https://127.0.0.1:{port}", ca_file=ca_file, server_name="db.example.org"
        ) as client:
            assert await client.health() == "ok"
        async with AsyncStatehouse(f"https://127.0.0.1:{port}", ca_file=ca_file) as client:
            with pytest.raises(ConnectionError, match=r"cannot connect to .*certificate is not good.*127\.0\.0\.1"):
                await client.health()

    run(main)


def test_a_daemon_that_the_system_does_not_know(run, servers, ca):
    port = servers.start(server_credentials(ca, "localhost"))

    async def main():
        async with AsyncStatehouse(f"https://localhost:{port}", token=TOKEN) as client:
            with pytest.raises(ConnectionError, match="its certificate is not good"):
                await client.health()

    run(main)
    assert servers.recorded.metadata == []


def test_mutual_tls(run, servers, ca, ca_file, tmp_path):
    port = servers.start(server_credentials(ca, "localhost", clients=ca))
    ours = files_of(ca.issue_cert("agent-7"), tmp_path)

    async def main():
        url = f"https://localhost:{port}"
        async with AsyncStatehouse(url, ca_file=ca_file, **ours) as client:
            assert await client.health() == "ok"
        async with AsyncStatehouse(url, ca_file=ca_file) as client:
            hint = r"it may ask for a client certificate \(cert_file, key_file\), or not take the one shown"
            with pytest.raises(ConnectionError, match=hint):
                await client.health()

    run(main)


def test_tls_where_none_is_spoken_and_the_other_way_round(run, servers, ca, ca_file):
    plain, secure = servers.start(), servers.start(server_credentials(ca, "localhost"))

    async def main():
        async with AsyncStatehouse(f"https://localhost:{plain}", ca_file=ca_file, connect_timeout_s=20) as client:
            with pytest.raises(ConnectionError, match=r"cannot connect to .*: TLS failed: wrong version number"):
                await client.health()
        async with AsyncStatehouse(f"localhost:{secure}", connect_timeout_s=2) as client:
            with pytest.raises(ConnectionError, match=r"localhost:\d+"):
                await client.health()

    run(main)


def test_tls_without_http_2(run, ca, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        sock, _ = listener.accept()
        with sock, context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()

    async def main():
        async with AsyncStatehouse(f"https://localhost:{listener.getsockname()[1]}", ca_file=ca_file) as client:
            with pytest.raises(ConnectionError, match="not HTTP/2"):
                await client.health()

    run(main)
    thread.join()
    listener.close()


def test_a_unix_socket(run, servers, tmp_path):
    path = tmp_path / "socket"
    servers.start(address=f"unix:{path}")

    async def main():
        for url in (f"unix:{path}", f"unix://{path}"):
            async with AsyncStatehouse(url, token=TOKEN) as client:
                assert await client.health() == "ok"
        async with AsyncStatehouse(f"unix:{path}.none") as client:
            with pytest.raises(ConnectionError, match=r"cannot connect to unix:.*: No such file"):
                await client.health()

    run(main)
    assert servers.recorded.metadata[0]["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("client", [Statehouse, AsyncStatehouse])
@pytest.mark.parametrize("host", ["db", "10.0.0.1", "[2001:db8::1]", "127.0.0.1.example.org"])
def test_a_token_does_not_leave_the_machine_in_plain_text(client, host):
    with pytest.raises(ValueError, match="without TLS") as caught:
        client(f"{host}:50051", token=TOKEN)
    assert TOKEN not in str(caught.value)
    client(f"{host}:50051", token=TOKEN, insecure=True)
    client(f"https://{host}:50051", token=TOKEN)
    client(f"{host}:50051")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "LOCALHOST"])
def test_a_token_may_stay_on_the_machine(host):
    Statehouse(f"{host}:50051", token=TOKEN)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("https://db:1", {"ca_file": "/nowhere/ca.pem"}, "ca_file '/nowhere/ca.pem' cannot be used: No such file"),
        ("https://db:1", {"ca_file": __file__}, "ca_file .* has no certificate in PEM form"),
        ("https://db:1", {"cert_file": __file__}, "cert_file .* has no certificate in PEM form"),
        ("https://db:1", {"key_file": "key.pem"}, "key_file needs"),
        ("db:1", {"ca_file": "ca.pem"}, "ca_file: for TLS only"),
        ("unix:/s", {"server_name": "db", "cert_file": "c"}, "cert_file, server_name: for TLS only"),
    ],
)
def test_credentials_that_do_not_fit(url, options, message):
    with pytest.raises(ValueError, match=message):
        Statehouse(url, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"server_name": "☃☃"}, ValueError, "server_name '☃☃' is no name of a host: no host name by IDNA"),
        ({"server_name": "."}, ValueError, "server_name '.' is no name"),
        ({"server_name": ".db"}, ValueError, "server_name '.db' is no name"),
        ({"server_name": "a\0b"}, ValueError, "server_name 'a.x00b' is no name"),
        ({"server_name": "fe80::1%\0"}, ValueError, "server_name .* is no name of a host: the zone"),
        ({"server_name": TOKEN + "é"}, ValueError, r"server_name 'sth_\.\.\.é' is no name"),
        ({"server_name": ""}, ValueError, "server_name is empty"),
        ({"server_name": 5}, TypeError, "server_name must be a str, not a int"),
        ({"insecure": "no"}, TypeError, "insecure must be True or False, not a str"),
        ({"insecure": None}, TypeError, "insecure must be True or False, not a NoneType"),
        ({"ca_file": ""}, ValueError, "ca_file is empty"),
        ({"ca_file": 5}, TypeError, "ca_file must be the path of a file, a str or os.PathLike, not a int"),
        ({"cert_file": b"c"}, TypeError, "cert_file must be the path"),
        ({"cert_file": "c", "key_file": ["k"]}, TypeError, "key_file must be the path"),
        ({"ca_file": "a\0b"}, ValueError, "ca_file 'a.x00b' cannot be used: no file has such a name"),
        ({"timeout_s": 10**400}, ValueError, "timeout_s must be a finite number of seconds"),
        ({"connect_timeout_s": 10**9_999}, ValueError, "connect_timeout_s must be a finite number of seconds"),
        ({"timeout_s": "1"}, TypeError, "timeout_s must be a number"),
    ],
)
@pytest.mark.parametrize("client", [Statehouse, AsyncStatehouse])
def test_options_are_looked_at_when_a_client_is_made(client, options, error, message):
    with pytest.raises(error, match=message):
        client("https://db:1", **options)


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize("given", [TOKEN, f"https://user:{TOKEN}@db", "-----BEGIN\n" + TOKEN, TOKEN * 100])
def test_a_secret_in_the_place_of_a_file_is_not_repeated(name, given, files):
    with pytest.raises(ValueError, match=rf"{name} .* cannot be used: (No such file|File name too long)") as caught:
        Statehouse("https://db:1", **{**({} if name != "key_file" else files), name: given})
    assert TOKEN[17:] not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def files(ca, tmp_path):
    return files_of(ca.issue_cert("agent-7"), tmp_path)


def test_which_file_it_is_that_cannot_be_used(ca, files, tmp_path):
    cert, key = files["cert_file"], files["key_file"]
    other = tmp_path / "other.pem"
    other.write_bytes(ca.issue_cert("agent-8").private_key_pem.bytes())
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN PRIVATE KEY-----\nnothing\n-----END PRIVATE KEY-----\n")
    encrypted = tmp_path / "encrypted.pem"
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    encrypted.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    for ours, message in (
        ({"cert_file": cert, "key_file": "/none"}, "key_file '/none' cannot be used: No such file or directory"),
        ({"cert_file": "/none", "key_file": key}, "cert_file '/none' cannot be used: No such file or directory"),
        ({"cert_file": tmp_path, "key_file": key}, f"cert_file '{tmp_path}' cannot be used: it is not a regular file"),
        ({"cert_file": cert}, f"cert_file '{cert}' cannot be used: it has no private key in PEM form; key_file names"),
        ({"cert_file": cert, "key_file": cert}, f"key_file '{cert}' cannot be used: it has no private key in PEM form"),
        (
            {"cert_file": cert, "key_file": other},
            f"the private key in key_file '{other}' does not belong to the first certificate in cert_file '{cert}'",
        ),
        ({"cert_file": cert, "key_file": encrypted}, f"key in key_file '{encrypted}' is encrypted"),
        ({"cert_file": cert, "key_file": damaged}, f"with key_file '{damaged}' cannot be used: damaged"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Statehouse("https://db:1", **ours)


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_pipe_is_not_waited_for(name, files, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=f"{name} .*pipe' cannot be used: it is not a regular file"):
        Statehouse("https://db:1", **{**({} if name == "ca_file" else files), name: tmp_path / "pipe"})


def test_a_file_without_end_is_not_read_to_the_end(files, monkeypatch):
    monkeypatch.setattr(certificate_files, "PEM_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="it is larger than 100 bytes"):
        Statehouse("https://db:1", **files)


async def test_a_name_that_no_resolver_takes_is_a_lost_connection():
    async with Transport(Target("db", 1), dial=dialer(Target("☃", 5), Credentials())) as transport:
        with pytest.raises(ConnectionError, match=r"cannot connect to db:1: .*not allowed"):
            await Stub(transport).Health(pb.HealthRequest())


async def test_a_server_name_that_tls_does_not_take_is_a_lost_connection():
    async def dial():
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=".")

    async with Transport(Target("db", 1), dial=dial) as transport:
        with pytest.raises(ConnectionError, match=r"cannot connect to db:1: .*(idna|label)"):
            await Stub(transport).Health(pb.HealthRequest())


@pytest.mark.parametrize("token", ["", "two words", "line\n", "é", "x" * 5_000])
def test_a_token_that_is_none_is_not_repeated(token):
    with pytest.raises(ValueError, match="token is not") as caught:
        Statehouse("localhost:1", token=token)
    assert not token or token not in str(caught.value)
    with pytest.raises(TypeError, match="token must be"):
        Statehouse("localhost:1", token=token.encode())


async def test_no_token_is_shown(memory_server):
    client = AsyncStatehouse(memory_server.url, token=TOKEN)
    shown = [client, client._credentials, client._transport, client._transport._greeting, Statehouse("h:1")]
    async with client:
        await client.health()
        shown += [client._transport._current, client._transport._current._protocol]
    assert not any(TOKEN in repr(each) or TOKEN in str(each) for each in shown)


def test_what_stays_on_this_machine():
    assert Target(path="/s").on_this_machine
    assert Target("::1", 1).on_this_machine
    assert not Target("localhost.example.org", 1).on_this_machine
    assert Credentials("t").tls_context(Target("::1", 1)) is None
