import pytest

from statehouse import AsyncStatehouse, Statehouse
from statehouse.client.address import UNIX_PATH_BYTES, parse_url
from statehouse.rpc.client.credentials import Target

SECRET = "s3cret" * 7 + "x"
TOKEN = f"sth_0123456789ab_{SECRET}"


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
        ("bücher.example:1", Target("xn--bcher-kva.example", 1)),
        ("my_db.internal.:1", Target("my_db.internal.", 1)),
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
        "☃:5",
        "ü" * 70 + ":5",
        "\u200d:5",
        "a..b:5",
        "a" * 64 + ":5",
        "a." * 130 + "b:5",
        "a\0b:5",
        "[:::]:5",
    ],
)
@pytest.mark.parametrize("client", [Statehouse, AsyncStatehouse])
def test_a_bad_url_is_a_value_error(client, url):
    with pytest.raises(ValueError, match=r"address of a daemon|port must be|not supported|at most 107 bytes"):
        client(url)


def test_what_is_wrong_with_a_host_is_said():
    for url, what in (
        ("☃:5", "no host name by IDNA"),
        ("a..b:5", "no empty part"),
        ("https://" + "a" * 64 + ":5", "each part .* at most 63 characters"),
        ("a!b:5", "letters, digits"),
        ("a" * 300 + ":5", "at most 253 characters"),
    ):
        with pytest.raises(ValueError, match=what):
            parse_url(url)


@pytest.mark.parametrize("client", [Statehouse, AsyncStatehouse])
@pytest.mark.parametrize(
    "url",
    [
        TOKEN,
        f"{TOKEN}:50051",
        f"https://{TOKEN}@db:1",
        f"https://user:{TOKEN}/{TOKEN}@db:1",
        f"user:{TOKEN}@db:1",
        f"https://db:1?token={SECRET}",
        f"https://db:1/#{SECRET}",
        f"https://user:x?{SECRET}@db:1?token={SECRET}",
        f"ftp://{SECRET}@db:1",
        f"db:99999?{SECRET}",
        f"unix:relative?{SECRET}",
        f"-----BEGIN PRIVATE KEY-----{SECRET}",
        f"first line\n{SECRET}",
        SECRET * 20,
    ],
)
def test_a_secret_in_an_address_is_not_repeated(client, url):
    with pytest.raises(ValueError, match=r"daemon|not supported") as caught:
        client(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
