"""Transaction ids: 128 random bits each, as 22 characters of base64url.

An id is all that a client needs to write to a transaction, so nobody may be able to guess one: the bits are the
operating system's. They are fetched for many ids at a time, because asking for 16 bytes costs as much as for 1,024.
"""

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Final

_ID_BYTES: Final = 16
_IDS_AT_A_TIME: Final = 64


def transaction_ids() -> Iterator[str]:
    """Ids without end, no two alike."""
    while True:
        bits = os.urandom(_ID_BYTES * _IDS_AT_A_TIME)
        for start in range(0, len(bits), _ID_BYTES):
            yield urlsafe_b64encode(bits[start : start + _ID_BYTES])[:22].decode()
