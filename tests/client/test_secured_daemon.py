"""The clients against a daemon that lets in whom it knows: mutual TLS and tokens, or a Unix socket."""

import pytest
import trustme
from daemon_process import DaemonProcess

from statehouse import AsyncStatehouse, ConnectionError, PermissionDeniedError, Statehouse, UnauthenticatedError
from statehouse.cli.statehousectl import exit_code_of


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A daemon with TLS, client certificates and a token file: its url, the client's files, its folder."""
    folder = tmp_path_factory.mktemp("secured")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name, who in (("server", "127.0.0.1"), ("client", "agent-7")):
        issued = ca.issue_cert(who)
        issued.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
    assert exit_code_of(["token", "create", "--file", str(folder / "tokens"), "--role", "read-only"]) == 0
    pem, roots = str(folder / "server.pem"), str(folder / "ca.pem")
    options = ["--tls-cert", pem, "--tls-key", pem, "--tls-client-ca", roots, "--token-file", str(folder / "tokens")]
    with DaemonProcess(folder / "data", options=options) as daemon:
        yield (
            f"https://127.0.0.1:{daemon.port}",
            {"ca_file": folder / "ca.pem", "cert_file": folder / "client.pem"},
            folder,
        )


@pytest.fixture
def token(secured, capfd):
    _, _, folder = secured
    assert exit_code_of(["token", "create", "--file", str(folder / "tokens"), "--role", "admin"]) == 0
    return capfd.readouterr().out.strip()


def test_only_who_is_known_comes_in(run, secured, token):
    url, files, _ = secured

    async def main():
        async with AsyncStatehouse(url, token=token, **files) as client:
            assert await client.health() == "ok"  # health is open to all
            with pytest.raises(UnauthenticatedError):  # the daemon was not told of the token yet
                await client.get_state("a", "k")
        async with AsyncStatehouse(url, **files) as client:
            with pytest.raises(UnauthenticatedError):
                await anext(client.replay("a"))
        async with AsyncStatehouse(url, token=token, ca_file=files["ca_file"]) as client:
            with pytest.raises(ConnectionError, match=url.removeprefix("https://")):
                await client.health()

    run(main)


def test_a_token_that_may_read(tmp_path, run, capfd):
    assert exit_code_of(["token", "create", "--file", str(tmp_path / "tokens"), "--role", "read-only"]) == 0
    token = capfd.readouterr().out.strip()

    with DaemonProcess(tmp_path / "data", options=["--token-file", str(tmp_path / "tokens")]) as daemon:

        async def main():
            async with AsyncStatehouse(daemon.address, token=token) as client:
                assert not (await client.get_state("a", "k")).exists
                assert [event async for event in client.replay("a")] == []
                with pytest.raises(PermissionDeniedError):
                    await client.begin_transaction(local=False)
                txn = await client.begin_transaction()
                await txn.write("a", "k", {})
                with pytest.raises(PermissionDeniedError):
                    await txn.commit()
                assert "open" in repr(txn)

        run(main)


def test_a_unix_socket(tmp_path):
    with DaemonProcess(tmp_path / "data", listen=f"unix:{tmp_path}/socket") as daemon:
        with Statehouse(daemon.address) as client:
            with client.begin_transaction() as txn:
                txn.write("a", "k", {"n": 1})
            assert client.get_state("a", "k").value == {"n": 1}
        assert exit_code_of(["--address", daemon.address, "health"]) == 0
