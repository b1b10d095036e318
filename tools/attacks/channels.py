"""grpcio's channels to a daemon, plain or with TLS."""

from collections.abc import Sequence
from pathlib import Path

import grpc

__all__ = ["open_channel"]


def open_channel(address: str, authority: Path | None = None, options: Sequence[tuple[str, int]] = ()) -> grpc.Channel:
    """With TLS when there is an authority, in a file, that the daemon's certificate is of."""
    if authority is None:
        return grpc.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(authority.read_bytes())
    return grpc.secure_channel(address, credentials, options=options)
