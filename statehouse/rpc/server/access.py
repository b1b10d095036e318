"""Who a call comes from and what it may do: decided here, and nowhere else on the way to the engine.

The server asks the `Authenticator` for the `Caller` behind a call's `authorization`; the handlers ask the caller
before they ask the engine. A refusal depends on the token and on the names in the request alone, never on what is
stored, so it cannot be used to find out what exists.

What a token is bound to (namespaces, agent prefixes) is checked where an agent is named: reads, leases, Write, Delete,
DeleteAgent, both agents of a ForkAgent (a read of the one, a write of the other), each operation of a Transact, and
each precondition, whose answer tells what was found and which is therefore a read.
Listings of agents and ReplayLog name no agent but a namespace and a prefix: all that these can let through must lie
within the bounds, or the call is refused as a whole (`may_list`); nothing is left out in silence. What an agent was
forked from, and what was forked from it, may lie outside: that is told without its name (`sees`). ListNamespaces gives
sums over all agents of a namespace, and is for callers that are bound to nothing. Commit and Abort name a transaction
only. Its id has 128 random bits and is told to nobody but who began it, so having the id
is the right to end it, and whatever was staged under it was checked when it was staged. (An event shows the id of its
transaction when that is over, and good for nothing.) Head and Verify are about the whole store, and for callers that
are bound to nothing. commit_ts counts the commits of all agents: a bound token sees
from it how many there were, and nothing about them.
"""

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Final

from attrs import field, frozen

from statehouse.errors import PermissionDeniedError, UnauthenticatedError
from statehouse.rpc.server.token_file import read_tokens
from statehouse.rpc.server.token_line import TOKEN, Role, Token
from statehouse.types import AgentId

__all__ = ["ANYONE", "Authenticator", "Caller", "Role"]

_AUTHORIZATION: Final = re.compile(rb"(?i:bearer) +" + TOKEN)


@frozen
class Caller:
    """Who calls. Empty `namespaces` or `agent_prefixes` mean all; an agent must fit both.

    Names are compared as they are: the namespace that an empty one on the wire stands for is `default`.
    """

    name: str
    """For the log: a token's id, never its secret."""
    role: Role
    namespaces: tuple[str, ...] = ()
    agent_prefixes: tuple[str, ...] = ()
    _reads_all: bool = field(init=False, repr=False, eq=False)
    _writes: bool = field(init=False, repr=False, eq=False)
    _writes_all: bool = field(init=False, repr=False, eq=False)

    # Computed once: a call takes tens of microseconds, and most callers are not bound.
    @_reads_all.default
    def _(self) -> bool:
        return not (self.namespaces or self.agent_prefixes)

    @_writes.default
    def _(self) -> bool:
        return self.role is not Role.READ_ONLY

    @_writes_all.default
    def _(self) -> bool:
        return self._writes and self._reads_all

    def may_read(self, agent: AgentId) -> None:
        """Raise PermissionDeniedError unless the caller may read this agent's state and events."""
        if not self._reads_all:
            self._check_bounds(agent)

    def may_write(self, agent: AgentId) -> None:
        """Raise PermissionDeniedError unless the caller may change this agent's state."""
        if not self._writes_all:
            self.may_transact()
            self._check_bounds(agent)

    @property
    def is_bound(self) -> bool:
        """Whether there may be agents that the caller may not read."""
        return not self._reads_all

    def sees(self, agent: AgentId) -> bool:
        """Whether the caller may read this agent's state and events."""
        return self._reads_all or self._is_within(agent)

    def may_transact(self) -> None:
        """Raise PermissionDeniedError unless the caller may begin, commit and abort transactions."""
        if not self._writes:
            raise PermissionDeniedError(f"token {self.name} is {self.role}", details={"caller": self.name})

    def may_list(self, namespace: str | None, agent_prefix: str) -> None:
        """Raise PermissionDeniedError unless the caller may read every agent that there could be in a listing.

        That is of the agents whose id begins with `agent_prefix`, in one namespace or (None) in all.
        """
        if self._reads_all:
            return
        namespaces, prefixes = self.namespaces, self.agent_prefixes
        if (namespaces and namespace not in namespaces) or (prefixes and not agent_prefix.startswith(prefixes)):
            message = f"token {self.name} is bound to namespaces or agents, and more could be listed than these"
            raise PermissionDeniedError(message, details={"caller": self.name})

    def may_see_all(self) -> None:
        """Raise PermissionDeniedError for a caller that is bound to namespaces or agents."""
        if not self._reads_all:
            message = f"token {self.name} is bound to namespaces or agents, and this is about all of them"
            raise PermissionDeniedError(message, details={"caller": self.name})

    def may_administer(self) -> None:
        """Raise PermissionDeniedError unless the caller is an admin and bound to nothing."""
        if self.role is not Role.ADMIN:
            message = f"token {self.name} is {self.role}, and this takes admin"
            raise PermissionDeniedError(message, details={"caller": self.name})
        self.may_see_all()

    def _check_bounds(self, agent: AgentId) -> None:
        if not self._is_within(agent):
            message = f"token {self.name} is bound to namespaces or agents that this one is not among"
            raise PermissionDeniedError(message, details={"caller": self.name})

    def _is_within(self, agent: AgentId) -> bool:
        namespaces, prefixes = self.namespaces, self.agent_prefixes
        return (not namespaces or agent.namespace in namespaces) and (
            not prefixes or agent.agent_id.startswith(prefixes)
        )


ANYONE: Final = Caller("anyone", Role.ADMIN)
"""What a daemon without authentication takes everybody for."""


@frozen
class _Known:
    """A token as it is compared."""

    caller: Caller
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)


def _known(token: Token) -> _Known:
    caller = Caller(token.id, token.role, token.namespaces, token.agent_prefixes)
    return _Known(caller, token.salt, token.digest)


class Authenticator:
    """The tokens of a token file, as of the last time that it was read."""

    def __init__(self, path: Path) -> None:
        """Read the file. ConfigError when it cannot be used."""
        self._path = path
        self._known: dict[bytes, _Known] = {}  # by id
        # What the secret of an unknown id is compared with, so that it takes as long as any other.
        self._nobody = _Known(Caller("nobody", Role.READ_ONLY), secrets.token_bytes(16), secrets.token_bytes(32))
        self.reload()

    def __len__(self) -> int:
        """How many tokens are known."""
        return len(self._known)

    def reload(self) -> None:
        """Read the file again; the calls that begin from now on are judged by it, those under way go on.

        Raises ConfigError when it cannot be used, and keeps what was known. Blocks on the disk; may be called in
        a worker thread.
        """
        self._known = {token.id.encode(): _known(token) for token in read_tokens(self._path).values()}

    def caller(self, authorization: bytes | None) -> Caller:
        """Who sent this value of `authorization` (None: none was sent; empty: more than one).

        Raises UnauthenticatedError, which does not tell an unknown id from a wrong secret.
        """
        if authorization is None:
            raise UnauthenticatedError("a token is needed: send it as metadata, authorization: Bearer sth_...")
        match = _AUTHORIZATION.fullmatch(authorization)
        if match is None:
            raise UnauthenticatedError("authorization is not of the form: Bearer sth_<id>_<secret>")
        token_id, secret = match.groups()
        known = self._known.get(token_id, self._nobody)
        digest = hashlib.sha256(known.salt + secret).digest()
        if not hmac.compare_digest(digest, known.digest) or known is self._nobody:
            raise UnauthenticatedError("the token is not known: revoked, mistyped, or another daemon's")
        return known.caller
