"""Who a client says it is and whom it believes: over TLS, Unix sockets and plain TCP, against grpcio."""

import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme
from client import memory_service

from statehouse import AsyncStatehouse, ConnectionError, Statehouse
from statehouse.rpc.client.credentials import Credentials, Target

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
            with pytest.raises(ConnectionError, match=r"was lost|cannot connect|was closed"):
                await client.health()

    run(main)


def test_tls_where_none_is_spoken_and_the_other_way_round(run, servers, ca, ca_file):
    plain, secure = servers.start(), servers.start(server_credentials(ca, "localhost"))

    async def main():
        async with AsyncStatehouse(f"https://localhost:{plain}", ca_file=ca_file, connect_timeout_s=2) as client:
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
        ("https://db:1", {"ca_file": __file__}, "ca_file .* cannot be used"),
        ("https://db:1", {"cert_file": __file__}, "cert_file or key_file .* cannot be used"),
        ("https://db:1", {"key_file": "key.pem"}, "key_file needs"),
        ("db:1", {"ca_file": "ca.pem"}, "ca_file: for TLS only"),
        ("unix:/s", {"server_name": "db", "cert_file": "c"}, "cert_file, server_name: for TLS only"),
    ],
)
def test_credentials_that_do_not_fit(url, options, message):
    with pytest.raises(ValueError, match=message):
        Statehouse(url, **options)


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
