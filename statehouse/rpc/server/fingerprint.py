"""By what a repeated Transact is known: a SHA-256 over what it asks for, the same however the client encoded it.

A client that was restarted encodes the same request anew, and nothing promises it the same bytes: the entries of a map
have no order, and that goes for every object within a value too. So what is hashed is a form of our own, in which each
part has its length before it and maps are sorted by name. Operations and preconditions count in their order.

A value stands in it as protobuf's deterministic encoding, which sorts maps. Protobuf promises that for one runtime and
no further; the fingerprints that are kept are compared for a day, and a test holds the form still. Unknown fields
count as they came.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf import struct_pb2

from statehouse.actors.messages import AgentAt, Check, ExistsIs, LeaseIs, StagedOperation, VersionIs
from statehouse.types import AgentId

__all__ = ["fingerprint"]

_KINDS: Final = {VersionIs: b"v", ExistsIs: b"e", AgentAt: b"a", LeaseIs: b"l"}


def fingerprint(
    operations: Iterable[tuple[AgentId, StagedOperation]],
    checks: Iterable[Check],
    metadata: Mapping[str, str],
    *,
    revive: bool = False,
) -> bytes:
    """The 32 bytes of what is asked for. Values are serialized Structs that were checked."""
    parts: list[bytes] = []
    for (namespace, agent_id), (key, value, ttl_s) in operations:
        parts += (b"write" if value is not None else b"delete", namespace.encode(), agent_id.encode(), key)
        if value is not None:
            parts.append(struct_pb2.Struct.FromString(value).SerializeToString(deterministic=True))
        if ttl_s:  # as for `revive`, below
            parts += (b"ttl", ttl_s.to_bytes(8, "big"))
    for check in checks:
        parts += (
            b"check",
            check.agent.namespace.encode(),
            check.agent.agent_id.encode(),
            _KINDS[type(check.condition)],
        )
        parts += (each if isinstance(each, bytes) else int(each).to_bytes(8, "big") for each in check.condition)
    for name in sorted(metadata):
        parts += (b"metadata", name.encode(), metadata[name].encode())
    if revive:  # one that does not say it is as it was before there was such a thing to say
        parts.append(b"revive")
    return hashlib.sha256(
        b"".join([piece for part in parts for piece in (len(part).to_bytes(4, "big"), part)])
    ).digest()
