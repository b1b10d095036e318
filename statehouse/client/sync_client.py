"""The sync client: `Statehouse`.

Each method is the async client's method of the same name, run in a Trio loop in a background thread
(loop_thread.py); what it does and raises stands there, and its docstring is taken from there. The call
blocks its thread; others may use the same client meanwhile.

    with Statehouse("localhost:50051") as client:
        with client.begin_transaction() as txn:
            txn.write("agent-1", "memory", {"fact": "the sky is blue"})
        state = client.get_state("agent-1", "memory")

Its calls stand by subject in sync_transacting.py, sync_agents.py, sync_reading.py and sync_watching.py, over
sync_calls.py.
"""

from statehouse.client.sync_agents import SyncAgents
from statehouse.client.sync_transacting import SyncTransacting
from statehouse.client.sync_watching import SyncWatching

__all__ = ["Statehouse"]


class Statehouse(SyncTransacting, SyncAgents, SyncWatching):
    """A client of one daemon. May be shared by threads; `with Statehouse(...) as client`, or `close()` at the end.

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

    A client that is dropped without `close` lets its connection and thread go by itself. In a forked child it
    connects anew.
    """
