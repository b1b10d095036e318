"""The async client: `AsyncStatehouse`, under Trio or asyncio.

    async with AsyncStatehouse("localhost:50051") as client:
        async with await client.begin_transaction() as txn:
            await txn.write("agent-1", "memory", {"fact": "the sky is blue"})
        state = await client.get_state("agent-1", "memory")

This is the client; `Statehouse` in sync_client.py is the same one, driven from threads. Its calls stand by subject in
transacting.py, agents.py, reading.py and watching.py, over what all of them use in calls.py.
"""

from statehouse.client.agents import Agents
from statehouse.client.reading import Reading
from statehouse.client.transacting import Transacting
from statehouse.client.watching import Watching

__all__ = ["AsyncStatehouse"]


class AsyncStatehouse(Transacting, Agents, Reading, Watching):
    """A client of one daemon. Used as `async with AsyncStatehouse(...) as client`; any task may then call it.

    `url` is `host:port`, `http://host:port` or `[ipv6]:port`, `https://host:port` for TLS, or `unix:/path`
    (ValueError otherwise); nothing is connected before the first call. `namespace` is what calls use that name
    none. `timeout_s` bounds each call and each wait for an event of a replay, unless the call has its own (for a
    replay also `math.inf`), `connect_timeout_s` the making of a connection, both in seconds.

    `token` is sent with each call: over TLS, to this machine, or anywhere if `insecure` says so (ValueError
    otherwise). The files are in PEM form: `ca_file` has the certificates that may vouch for the daemon (the system's
    if absent), `cert_file` and `key_file` are the client's own. `server_name` is the name in the daemon's
    certificate, if it is not the host's.

    Every call raises StatehouseError: ConnectionError when the daemon cannot be reached, went away or did not
    answer in time (the next call connects again), InvalidRequestError for a name or a value that the daemon
    refuses, TransactionError (ConflictError, LeaseError and AgentDeletedError are), OverloadedError, StorageError,
    UnauthenticatedError and PermissionDeniedError. An argument of a wrong type is a TypeError, one that the wire cannot
    carry a ValueError, both before anything is sent.

    Reads, aborts and replays whose connection is lost are tried again for a short while, and a replay goes on where
    it broke off; a watch does so for as long as it is asked for events. So is a transaction under an idempotency key,
    which the daemon carries out once; nothing else is sent twice, unless the daemon says that it did not look at it.

    Cancelling a call takes it back from the daemon if it can.
    """
