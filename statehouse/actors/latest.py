"""What a partition knows of a key: its newest version, and whether there is a value.

Of a value with a TTL there is one until it expires. Until a commit deletes it the key is live all the same: it counts
among the agent's, and its version stays the newest.
"""

from collections.abc import Callable

from attrs import define

from statehouse.storage.stored_value import exists_of, expiry_of, version_of

__all__ = ["Latest"]


@define
class Latest:
    """The newest version of a key, stored or pending."""

    version: int
    exists: bool
    """Whether it is live, perhaps expired."""
    expires_at_ns: int = 0
    """0: never. Of what is pending the soonest: its commit may be dated later."""

    def shows(self, now_ns: Callable[[], int]) -> bool:
        """Whether there is a value now."""
        return self.exists and (not self.expires_at_ns or self.expires_at_ns > now_ns())

    def is_due(self, now_ns: int) -> bool:
        """Whether it has expired, and is live all the same."""
        return self.exists and 0 < self.expires_at_ns <= now_ns

    @classmethod
    def of(cls, stored: bytes | None) -> "Latest":
        """What a row of the state says."""
        if stored is None:
            return cls(0, exists=False)
        return cls(version_of(stored), exists_of(stored), expiry_of(stored))
