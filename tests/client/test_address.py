import pytest

from statehouse import AsyncStatehouse, Statehouse
from statehouse.client.address import UNIX_PATH_BYTES, parse_url
from statehouse.rpc.client.credentials import Target


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("localhost:50051", Target("localhost", 50051)),
        ("127.0.0.1:1", Target("127.0.0.1", 1)),
        ("http://example.org:65535", Target("example.org", 65535)),
        ("HTTP://example.org:80/", Target("example.org", 80)),
        ("[::1]:50051", Target("::1", 50051)),
        ("http://[fe80::1%eth0]:50051", Target("fe80::1%eth0", 50051)),
        ("https://example.org:443", Target("example.org", 443, tls=True)),
        ("https://[::1]:443", Target("::1", 443, tls=True)),
        ("unix:/run/sock", Target(path="/run/sock")),
        ("unix:///run/a b", Target(path="/run/a b")),
    ],
)
def test_urls_that_are_read(url, address):
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        ":50051",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:grpc",
        "localhost:50051/path",
        "https://localhost",
        "ftp://localhost:50051",
        "unix:relative",
        "unix:",
        "unix:/" + "x" * UNIX_PATH_BYTES,
        "::1:50051",
        "[::1]",
        "user@localhost:50051",
        "local host:50051",
        " localhost:50051",
    ],
)
@pytest.mark.parametrize("client", [Statehouse, AsyncStatehouse])
def test_a_bad_url_is_a_value_error(client, url):
    with pytest.raises(ValueError, match=r"address of a daemon|port must be|not supported|at most 107 bytes"):
        client(url)
