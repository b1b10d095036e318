"""What there is of agents: keys and entries in pages.

All of it is a function of a view, or of a snapshot of one, and nothing is kept between two calls: a page says where the
next one begins. Which keys an agent had at a point, and what was in force of them, is known to `past`.
"""

from collections.abc import Iterable
from contextlib import closing
from typing import Generic, TypeVar

from attrs import frozen

from statehouse.errors import OverloadedError
from statehouse.limits import PAGE_BYTES, READ_CHUNK_ROWS, RESPONSE_BYTES
from statehouse.storage.lineage import Level
from statehouse.storage.past import rows_at
from statehouse.storage.stored_value import ReadMany, answer_bytes, entry_of, responses, shows
from statehouse.storage.view import Reader

__all__ = ["Page", "check_size", "grown", "keys_page", "scan_page"]

T = TypeVar("T")


@frozen
class Page(Generic[T]):
    """Some of what was asked for, in order; the rest is behind the name `next_after`, None: there is no more.

    It may hold fewer than were asked for and still have more behind it.
    """

    found: list[T]
    next_after: str | None
    size_bytes: int = 0
    """Of what was found, about."""

    @property
    def more(self) -> bool:
        return self.next_after is not None


# Keys


def keys_page(
    view: Reader,
    levels: Iterable[Level],
    key_prefix: bytes,
    after: bytes | None,
    limit: int,
    at_ts: int | None,
    now_ns: int,
) -> Page[str]:
    """The live keys behind `after`, at most `limit` and about PAGE_BYTES of them, of READ_CHUNK_ROWS rows looked at.

    Without those that have expired at `now_ns`; at 0 none has.
    """
    found, next_after, size_bytes = _live_rows(view, levels, key_prefix, after, limit, at_ts, now_ns, with_values=False)
    return Page([key.decode() for key, _ in found], next_after, size_bytes)


def scan_page(
    view: Reader,
    read_many: ReadMany,
    levels: Iterable[Level],
    key_prefix: bytes,
    after: bytes | None,
    limit: int,
    at_ts: int | None,
    now_ns: int,
) -> Page[bytes]:
    """The encoded StateEntry of each of these keys, as `keys_page`."""
    found, next_after, size_bytes = _live_rows(view, levels, key_prefix, after, limit, at_ts, now_ns, with_values=True)
    answers = responses([stored for _, stored in found], read_many)
    return Page(
        [entry_of(key, answer) for (key, _), answer in zip(found, answers, strict=True)], next_after, size_bytes
    )


def _live_rows(
    view: Reader,
    levels: Iterable[Level],
    key_prefix: bytes,
    after: bytes | None,
    limit: int,
    at_ts: int | None,
    now_ns: int,
    *,
    with_values: bool,
) -> tuple[list[tuple[bytes, bytes]], str | None, int]:
    """(key, stored value) of the live keys of a page, the key to go on behind, and about how large the page is."""
    found: list[tuple[bytes, bytes]] = []
    rows_read = size_bytes = 0
    looked_at = b""
    with closing(rows_at(view, levels, key_prefix, after, at_ts)) as rows:
        for key, stored, levels_with_it in rows:
            is_live = stored is not None and shows(stored, now_ns)
            # One live key more than fits shows that there is a next page.
            if rows_read >= READ_CHUNK_ROWS or (is_live and (len(found) >= limit or size_bytes >= PAGE_BYTES)):
                return found, looked_at.decode(), size_bytes
            if stored is not None and is_live:
                found.append((key, stored))
                size_bytes += len(key) + (answer_bytes(stored) if with_values else 0)
            rows_read += levels_with_it
            looked_at = key
    return found, None, size_bytes


def grown(size_bytes: int, by: int) -> int:
    """The size of an answer with so much more in it. OverloadedError past RESPONSE_BYTES."""
    check_size(size_bytes + by)
    return size_bytes + by


def check_size(size_bytes: int) -> None:
    """OverloadedError for an answer past RESPONSE_BYTES."""
    if size_bytes > RESPONSE_BYTES:
        raise OverloadedError(
            f"the answer would be larger than {RESPONSE_BYTES} bytes; ask for a narrower prefix, pages or fewer keys",
            details={"limit": str(RESPONSE_BYTES)},
        )
