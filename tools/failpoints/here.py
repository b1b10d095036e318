"""The failpoints of this process. Importing it imports nothing of Statehouse; `activate` comes before what does."""

from typing import Final

from failpoints.arming import Failpoints
from failpoints.hook import install
from failpoints.places import PLACES

__all__ = ["FAILPOINTS", "activate"]

FAILPOINTS: Final = Failpoints(tuple(PLACES))


def activate() -> None:
    """From now on, whatever of Statehouse this process imports has its failpoints."""
    install(FAILPOINTS.hit)
