"""How a call can fail without an answer of the daemon: what is known then decides whether it may be sent again.

To their users all of them are `ConnectionError`; `retry.py` tells them apart.
"""

from statehouse.errors import ConnectionError

__all__ = ["DeadlineError", "LostCallError", "NotConnectedError", "NotProcessedError"]


class NotConnectedError(ConnectionError):
    """There is no connection, and none could be made: nothing was sent."""


class NotProcessedError(ConnectionError):
    """The server says that it did not look at the call, or it was never sent: it may be sent again whatever it does."""


class LostCallError(ConnectionError):
    """The connection was lost, or the server went away (UNAVAILABLE), while the call had no answer.

    It may have been carried out.
    """


class DeadlineError(ConnectionError):
    """The caller's time is over. What was sent may have been carried out."""
