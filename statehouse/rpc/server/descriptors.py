"""How many connections the system's limit on open files leaves room for.

The store opens files while the daemon serves: a segment, a table, a snapshot. If connections had taken the last
descriptor, the log could not go on, and the daemon would be read-only for good: so connections never get that far.
"""

import resource

from statehouse.errors import ConfigError
from statehouse.limits import STORE_DESCRIPTORS

__all__ = ["connections_that_fit"]


def connections_that_fit(wanted: int) -> int:
    """`wanted`, or as many as fit beside the store; raises the process's own limit as far as it may and is needed.

    ConfigError when not even one fits.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = STORE_DESCRIPTORS + wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    fitting = min(wanted, soft - STORE_DESCRIPTORS)
    if fitting < 1:
        raise ConfigError(
            f"the limit on open files is {soft}; the daemon needs {STORE_DESCRIPTORS} and one for each connection "
            "(ulimit -n, or LimitNOFILE of its unit)"
        )
    return fitting
