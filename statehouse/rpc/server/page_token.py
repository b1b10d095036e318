"""Page tokens: where the next page of a listing begins, told to the client in bytes that it gives back as they are.

A token is `MAC 32 bytes | pinned commit_ts u64 BE | pinned time u64 BE | where to go on`. The MAC is HMAC-SHA256 over
that and over the request that the token continues (its call, names, prefix and point), so a token of another request,
of another store, or one that somebody changed is refused.

The key comes from the store's id and from nothing else, so that a token outlives a restart. The id is no secret, and
need not be: whoever makes up a token gets what any request of theirs would give, because who may read what is asked of
every page anew. The MAC is there so that a client's mistake is an error and never a listing with a gap.

The pinned commit_ts is what makes all pages show one moment: the first page is read as of a commit, and those that
follow as of the same one. So it is with the time, in nanoseconds since 1970, by which values expire: a listing of now
has that of its first page, one of the past has 0, because nothing expires there. Listings that show no moment
(agents, namespaces) have 0 for both.
"""

import hashlib
import hmac
from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from attrs import frozen

from statehouse.errors import InvalidRequestError

__all__ = ["PageTokens", "Place"]

_MAC_BYTES: Final = 32
_PINNED: Final = Struct(">QQ")
_PURPOSE: Final = b"statehouse page token 2"


class Place(NamedTuple):
    """Where a page begins: behind the name `after`, as of the commit `at_ts`, by the clock at `now_ns` (0: by none)."""

    at_ts: int
    now_ns: int
    after: str


@frozen
class PageTokens:
    """Makes and reads the tokens of one store."""

    _key: bytes

    @classmethod
    def of_store(cls, store_id: bytes) -> "PageTokens":
        """Those of the store with this id."""
        return cls(hmac.digest(store_id, _PURPOSE, "sha256"))

    def encode(self, place: Place, request: Iterable[bytes]) -> bytes:
        """The token for a place in the listing that `request`, the parts of what was asked for, gives."""
        content = _PINNED.pack(place.at_ts, place.now_ns) + place.after.encode()
        return self._mac(content, request) + content

    def decode(self, token: bytes, request: Iterable[bytes]) -> Place:
        """The place that a token stands for. InvalidRequestError unless it is this store's, for this request."""
        content = token[_MAC_BYTES:]
        if len(content) < _PINNED.size or not hmac.compare_digest(token[:_MAC_BYTES], self._mac(content, request)):
            raise InvalidRequestError(
                "page_token is not one that this store gave for this request: "
                "all fields but limit must be as they were, and the token as it came"
            )
        at_ts, now_ns = _PINNED.unpack_from(content)
        return Place(at_ts, now_ns, content[_PINNED.size :].decode())

    def _mac(self, content: bytes, request: Iterable[bytes]) -> bytes:
        mac = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (*request, content):
            mac.update(len(part).to_bytes(8, "big"))
            mac.update(part)
        return mac.digest()
