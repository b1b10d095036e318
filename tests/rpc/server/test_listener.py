"""The address that the daemon takes: who may reach it, and what stands in its way."""

import os
import socket
import stat
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from statehouse.errors import AddressError
from statehouse.limits import UNIX_PATH_BYTES
from statehouse.rpc.server import listener as module
from statehouse.rpc.server.listener import is_beyond_loopback, open_listener, open_unix_listener, socket_address

PATIENCE_S = 20.0


@pytest.fixture
def resolves(monkeypatch):
    """Have every name stand for one address."""

    def to(family, *address):
        async def getaddrinfo(*_args, **_options):
            await trio.lowlevel.checkpoint()
            return [(family, socket.SOCK_STREAM, 0, "", address)]

        monkeypatch.setattr(module.trio.socket, "getaddrinfo", getaddrinfo)

    return to


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


async def refused(opening):
    with pytest.raises(AddressError) as caught:
        async with opening:
            pass
    assert "\n" not in caught.value.message
    return caught.value.message


# Beyond loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "0"])
async def test_beyond_loopback_is_refused_with_what_to_do(host):
    with pytest.raises(AddressError) as caught:
        await open_listener(host, 0)
    for word in (f"cannot listen on {module._text(host, 0)}: ", "token_file", "tls_client_ca", "unix:", "--insecure"):
        assert word in caught.value.message


async def test_a_name_is_judged_by_what_it_stands_for(resolves):
    resolves(socket.AF_INET, "192.0.2.7", 0)
    with pytest.raises(AddressError, match=r"cannot listen on localhost:0: other machines reach 192\.0\.2\.7"):
        await open_listener("localhost", 0)
    resolves(socket.AF_INET, "127.0.0.9", 0)
    async with await open_listener("db.example", 0) as listener:
        assert socket_address(listener).startswith("127.0.0.9:")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3"])
async def test_loopback_is_free(host):
    async with await open_listener(host, 0) as listener:
        assert not is_beyond_loopback(listener)


async def test_beyond_loopback_is_tried_when_asked_for():
    """The address is nobody's, so that no test is reachable from elsewhere."""
    with pytest.raises(AddressError, match="Cannot assign requested address"):
        await open_listener("192.0.2.1", 0, beyond_loopback=True)


@pytest.mark.parametrize(("host", "beyond"), [("0.0.0.0", True), ("192.0.2.1", True), ("127.0.0.1", False)])
def test_beyond_loopback_as_bound(host, beyond):
    bound = SimpleNamespace(socket=SimpleNamespace(family=socket.AF_INET, getsockname=lambda: (host, 50051)))
    assert is_beyond_loopback(bound) is beyond


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("::1", True), ("::ffff:127.0.0.1", True), ("::ffff:10.0.0.1", False), ("fe80::1%lo", False), ("10.0.0.1", False)],
)
def test_loopback_as_an_address(host, loopback):
    assert module._is_loopback(host) is loopback


# Unix sockets


async def test_a_unix_socket_serves_its_owner_and_is_removed(path):
    with trio.fail_after(PATIENCE_S):
        async with open_unix_listener(path) as listener:
            assert socket_address(listener) == f"unix:{path}"
            assert not is_beyond_loopback(listener)
            status = path.lstat()
            assert stat.S_ISSOCK(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o600
            client = await trio.open_unix_socket(path)
            async with await listener.accept() as accepted:
                await client.send_all(b"x")
                assert await accepted.receive_some() == b"x"
            await client.aclose()
    assert not path.exists()


async def test_nobody_can_connect_before_the_mode_is_set(path, monkeypatch):
    seen = []
    chmod = Path.chmod

    def watched(self, mode):
        with closing(socket.socket(socket.AF_UNIX)) as early:
            seen.append(early.connect_ex(os.fspath(self)))
        chmod(self, mode)

    monkeypatch.setattr(Path, "chmod", watched)
    async with open_unix_listener(path):
        pass
    (outcome,) = seen
    assert os.strerror(outcome) == "Connection refused"


async def test_a_socket_that_was_left_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(os.fspath(path))
        killed.listen(1)
    assert path.is_socket()
    async with open_unix_listener(path):
        await (await trio.open_unix_socket(path)).aclose()


async def test_a_live_socket_is_let_be(path):
    async with open_unix_listener(path):
        assert await refused(open_unix_listener(path)) == f"cannot listen on unix:{path}: Address already in use"
        await (await trio.open_unix_socket(path)).aclose()


async def test_a_live_socket_whose_backlog_is_full_is_let_be(path):
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(os.fspath(path))
        busy.listen(0)
        waiting.connect(os.fspath(path))
        assert "Address already in use" in await refused(open_unix_listener(path))


@pytest.mark.parametrize("what", ["file", "directory", "link"])
async def test_anything_else_at_the_path_is_let_be(what, path, tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(tmp_path / "left"))
    {
        "file": lambda: path.write_text("x"),
        "directory": path.mkdir,
        "link": lambda: path.symlink_to(tmp_path / "left"),
    }[what]()
    assert await refused(open_unix_listener(path)) == (
        f"cannot listen on unix:{path}: what stands there is not a socket"
    )
    assert path.exists()


async def test_a_socket_of_another_kind_is_let_be(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(os.fspath(path))
        assert "wrong type for socket" in await refused(open_unix_listener(path))
    assert path.is_socket()


async def test_what_another_put_at_the_path_since_is_not_removed(path):
    async with open_unix_listener(path):
        path.unlink()
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    path.unlink()
    async with open_unix_listener(path):
        path.unlink()


async def test_of_two_that_start_at_once_one_is_told(path):
    with module._locked_directory(path):
        assert "another daemon starts or stops there now" in await refused(open_unix_listener(path))
    async with open_unix_listener(path), open_unix_listener(path.with_name("other")):
        pass


async def test_paths_that_cannot_be_used(tmp_path):
    missing = tmp_path / "none" / "s"
    assert await refused(open_unix_listener(missing)) == f"cannot listen on unix:{missing}: No such file or directory"
    longest = tmp_path / ("n" * (UNIX_PATH_BYTES - len(os.fsencode(tmp_path)) - 1))
    async with open_unix_listener(longest):
        pass
    longer = longest.with_name(longest.name + "n")
    assert await refused(open_unix_listener(longer)) == (
        f"cannot listen on unix:{longer}: the path is longer than 107 bytes"
    )
