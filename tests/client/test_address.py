import pytest

from statehouse import AsyncStatehouse, Statehouse
from statehouse.client.address import parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("localhost:50051", ("localhost", 50051)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("http://example.org:65535", ("example.org", 65535)),
        ("HTTP://example.org:80/", ("example.org", 80)),
        ("[::1]:50051", ("::1", 50051)),
        ("http://[fe80::1%eth0]:50051", ("fe80::1%eth0", 50051)),
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
        "https://localhost:50051",
        "unix:/tmp/socket",
        "::1:50051",
        "[::1]",
        "user@localhost:50051",
        "local host:50051",
        " localhost:50051",
    ],
)
@pytest.mark.parametrize("client", [Statehouse, AsyncStatehouse])
def test_a_bad_url_is_a_value_error(client, url):
    with pytest.raises(ValueError, match=r"address of a daemon|port must be|not supported"):
        client(url)
