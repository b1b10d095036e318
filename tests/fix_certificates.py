"""Fixtures that make certificates: an authority, and what it issues, as files."""

import ssl
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme


class Issued(NamedTuple):
    """A certificate with its chain, and its key, in files."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority with a directory for what it issues."""

    def __init__(self, directory):
        self.directory = directory
        self.ca = trustme.CA()
        self.file = directory / "authority.pem"
        self.ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name="daemon", *identities, **terms):
        """Write NAME.crt and NAME.key; what was there is replaced."""
        made = self.ca.issue_cert(*(identities or ("localhost", "127.0.0.1")), **terms)
        issued = Issued(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        issued.cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        issued.key.write_bytes(made.private_key_pem.bytes())
        issued.key.chmod(0o600)
        return issued

    def client_context(self, identity=None, alpn=("h2",)):
        """What a client needs that trusts this authority, and may have a certificate itself."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if identity is not None:
            context.load_cert_chain(identity.cert, identity.key)
        return context


@pytest.fixture
def authority(tmp_path):
    """The authority that the daemon's certificate is of."""
    (tmp_path / "authority").mkdir()
    return Authority(tmp_path / "authority")


@pytest.fixture
def other_authority(tmp_path):
    """One that nobody in the test trusts unless it says so."""
    (tmp_path / "other").mkdir()
    return Authority(tmp_path / "other")
