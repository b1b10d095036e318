"""How `statehousectl` comes in: tokens from files and the environment, TLS, and what it must not say."""

import os
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme
from client import memory_service

from statehouse.cli import ctl_connection
from statehouse.cli.ctl_connection import ADDRESS_VARIABLE, OPTIONS, TOKEN_FILE_VARIABLE, TOKEN_VARIABLE
from statehouse.cli.exit_codes import ControlExit
from statehouse.cli.statehousectl import exit_code_of
from statehouse.config import FOREIGN_VARIABLES, load
from statehouse.errors import UnauthenticatedError

TOKEN = f"sth_0123456789ab_{'secret' * 7}x"


class Recorded(grpc.ServerInterceptor):
    def __init__(self):
        self.tokens = []

    def intercept_service(self, continuation, details):
        self.tokens.append(dict(details.invocation_metadata).get("authorization"))
        return continuation(details)


@pytest.fixture
def recorded():
    return Recorded()


@pytest.fixture
def server(recorded):
    """A server on this machine, without TLS and with it: its addresses, and the CA's certificate."""
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[recorded], options=memory_service.OPTIONS)
    server.add_generic_rpc_handlers((memory_service.MemoryService().handlers(),))
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    plain = server.add_insecure_port("127.0.0.1:0")
    secure = server.add_secure_port("localhost:0", credentials)
    server.start()
    yield f"127.0.0.1:{plain}", f"https://localhost:{secure}", ca.cert_pem.bytes()
    server.stop(None).wait()


@pytest.fixture
def ctl(capsys, monkeypatch):
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)

    def run(*arguments):
        code = exit_code_of([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"  {TOKEN}\n")
    return path


def test_where_the_token_comes_from(ctl, server, recorded, token_file, tmp_path, monkeypatch):
    plain, _, _ = server
    other = tmp_path / "other"
    other.write_text("other")
    at = ("--address", plain)
    assert ctl(*at, "health") == (0, "ok\n", "")
    assert ctl(*at, "--token-file", token_file, "health")[0] == 0
    assert ctl(*at, "--token-file", other, "health", "--token-file", token_file)[0] == 0
    monkeypatch.setenv(TOKEN_FILE_VARIABLE, str(token_file))
    assert ctl(*at, "health")[0] == 0
    monkeypatch.setenv(TOKEN_VARIABLE, "from-the-environment")
    assert ctl(*at, "health")[0] == 0
    assert ctl(*at, "health", "--token-file", token_file)[0] == 0
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    monkeypatch.setenv(TOKEN_FILE_VARIABLE, "")
    assert ctl(*at, "health")[0] == 0
    ours = f"Bearer {TOKEN}"
    assert recorded.tokens == [None, ours, ours, ours, "Bearer from-the-environment", ours, None]


def test_tls_by_options_and_by_the_environment(ctl, server, recorded, token_file, tmp_path, monkeypatch):
    _, secure, ca = server
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(ca)
    assert ctl("--address", secure, "health", "--ca-file", ca_file, "--token-file", token_file) == (0, "ok\n", "")
    monkeypatch.setenv(ADDRESS_VARIABLE, secure)
    monkeypatch.setenv("STATEHOUSE_CLIENT_CA_FILE", str(ca_file))
    assert ctl("health") == (0, "ok\n", "")
    code, _, error = ctl("health", "--server-name", "db.example.org")
    assert code == ControlExit.UNREACHABLE
    assert "its certificate is not good" in error
    assert recorded.tokens == [f"Bearer {TOKEN}", None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "db.example.org:1"], "must not travel to db.example.org:1 without TLS"),
        (["--ca-file", "ca.pem"], "for TLS only"),
        (["--address", "https://db:1", "--key-file", "key.pem"], "key_file needs"),
        (["--address", "https://db:1", "--server-name", ""], "server_name is empty"),
        (["--server-name", ""], "server_name is empty"),
        (["--ca-file", ""], "ca_file is empty"),
        (["--token-file", ""], "--token-file is empty"),
        (["--address", "☃:1"], "no host name by IDNA"),
        (["--address", f"https://user:{TOKEN}@db:1?{TOKEN}"], "'https://...@db:1?...' is not the address of a daemon"),
        (["--address", "https://db:1", "--ca-file", TOKEN], "ca_file 'sth_...' cannot be used: No such file"),
        (["--token-file", TOKEN], "the token file sth_... cannot be read: No such file"),
        ([TOKEN], "unexpected extra argument (sth_...)"),
        (["--address", "https://db:1", "--ca-file", "/nowhere"], "'/nowhere' cannot be used: No such file"),
    ],
)
def test_bad_usage(ctl, token_file, arguments, message):
    code, _, error = ctl("health", "--token-file", token_file, *arguments)
    assert code == ControlExit.USAGE
    assert message in error
    assert TOKEN[-20:] not in error


@pytest.mark.parametrize("content", ["", " \n", f"{TOKEN} {TOKEN}", '{"id": "a", "hash": "b"}\n', "é", "x" * 9_000])
def test_a_file_that_is_no_token(ctl, tmp_path, content):
    path = tmp_path / "token"
    path.write_text(content)
    code, _, error = ctl("health", "--token-file", path)
    assert code == ControlExit.USAGE
    assert f"the token file {path} must have one token in it" in error
    assert not content.strip() or content.strip() not in error


def test_a_token_file_that_is_not_there(ctl):
    said = "the token file /nowhere cannot be read: No such file or directory (see statehousectl health --help)"
    assert ctl("health", "--token-file", "/nowhere") == (
        ControlExit.USAGE,
        "",
        f"statehousectl: {said}\n",
    )


def test_a_pipe_is_no_token_file_and_is_not_waited_for(ctl, server, tmp_path):
    plain, secure, _ = server
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code, _, error = ctl("--address", plain, "health", "--token-file", pipe)
    assert (code, "cannot be read: it is not a regular file" in error) == (ControlExit.USAGE, True)
    code, _, error = ctl("--address", secure, "health", "--ca-file", pipe)
    assert (code, "cannot be used: it is not a regular file" in error) == (ControlExit.USAGE, True)


def test_who_shows_no_token_is_told_how(ctl, monkeypatch):
    class Client:
        def __init__(self, *_, **options):
            pass

        def __enter__(self):
            raise UnauthenticatedError("the daemon asks for a token")

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(ctl_connection, "Statehouse", Client)
    said = "the daemon asks for a token; give a token with --token-file FILE or STATEHOUSE_TOKEN"
    assert ctl("get", "a", "k")[2] == f"statehousectl: {said}\n"


def test_insecure_lets_it_go(ctl, token_file, monkeypatch):
    seen = {}

    class Client:
        def __init__(self, address, namespace, **options):
            seen.update(options, address=address)
            raise ValueError("seen")

    monkeypatch.setattr(ctl_connection, "Statehouse", Client)
    for arguments in (["--insecure", "health"], ["health", "--insecure"]):
        assert ctl(*arguments, "--token-file", token_file)[0] == ControlExit.USAGE
        assert (seen["insecure"], seen["token"]) == (True, TOKEN)
    assert ctl("health")[0] == ControlExit.USAGE
    assert (seen["insecure"], seen["token"]) == (False, None)
    monkeypatch.setenv("STATEHOUSE_CLIENT_INSECURE", "1")
    ctl("health")
    assert seen["insecure"] is True


def test_the_daemon_knows_the_variables_of_the_command():
    ours = {option.variable for option in OPTIONS} | {TOKEN_VARIABLE}
    assert ours - {ADDRESS_VARIABLE} <= FOREIGN_VARIABLES
    load({}, dict.fromkeys(ours - {ADDRESS_VARIABLE}, "x"), None)
