"""What large requests may hold while they come in: what bounds the daemon's memory when senders are slow, or many."""

from attrs import define

__all__ = ["RequestBudget"]


@define
class RequestBudget:
    """What the large requests that are not yet whole may hold, over all connections of a server."""

    capacity_bytes: int
    held_bytes: int = 0

    def take(self, size_bytes: int) -> bool:
        """Whether there is room; it is then held until it is given back."""
        if self.held_bytes + size_bytes > self.capacity_bytes:
            return False
        self.held_bytes += size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        self.held_bytes -= size_bytes
