"""An agent's end: what deletes all that it has left is found and built here, in worker threads.

There may be so many keys that neither finding them nor encoding what deletes them must stop the event loop. The agent's
partition is held meanwhile, and nothing of it is pending, so what the view has of it is all that there is.

What is built holds memory until it is durable, so only ENDS_AT_ONCE are under way, each from when its keys are looked
for until nothing that was sent before it is done is in line any more; the others wait for a place.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NoReturn

import trio
from attrs import frozen

from statehouse.actors.errands import Errands
from statehouse.actors.reply import Reply
from statehouse.errors import InvalidRequestError, StatehouseError
from statehouse.limits import DELETED_KEYS, DELETED_KEYS_BYTES, ENDS_AT_ONCE
from statehouse.storage.commit import AgentCounters, PreparedSection, prepare_section
from statehouse.storage.keys import agent_prefix
from statehouse.storage.section import agent_fields
from statehouse.types import AgentId

__all__ = ["Ending", "Endings"]

LiveKeys = Callable[[AgentId, int, int], list[tuple[bytes, int]] | None]
"""The live keys of an agent with their versions, in byte order, so many; None: they are more than so many bytes.

Blocks; StorageError, also when they are not so many."""


@frozen
class Ending:
    """The end of one agent, which has `counters`."""

    txn_id: str
    agent: AgentId
    metadata: bytes
    counters: AgentCounters


class Endings:
    """`barrier()` is the sequencer's."""

    def __init__(self, live_keys: LiveKeys, barrier: Callable[[], Reply[None]], errands: Errands) -> None:
        self._live_keys = live_keys
        self._barrier = barrier
        self._errands = errands
        self._places = trio.CapacityLimiter(ENDS_AT_ONCE)
        self._threads = trio.CapacityLimiter(ENDS_AT_ONCE)

    def build(self, ending: Ending) -> Reply[PreparedSection]:
        """The section that deletes every key that the agent has, perhaps without any operation.

        What it is for is sent to the sequencer in the turn that settles the reply. InvalidRequestError when there are
        too many keys; StorageError, UnavailableError.
        """
        return self._errands.send(
            partial(trio.to_thread.run_sync, partial(_section, ending, self._live_keys), limiter=self._threads),
            within=self._place,
            txn_id=ending.txn_id,
            agent=ending.agent,
        )

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        async with self._places:
            yield
            with suppress(StatehouseError):  # it is none of ours
                await self._barrier().wait()


def _section(ending: Ending, live_keys: LiveKeys) -> PreparedSection:
    """In a worker thread."""
    agent = ending.agent
    count = ending.counters.live_keys
    if count > DELETED_KEYS:
        _refuse(agent, f"{count} keys, more than the {DELETED_KEYS}", limit=DELETED_KEYS, size=count)
    found = live_keys(agent, count, DELETED_KEYS_BYTES) if count else []
    if found is None:
        _refuse(agent, f"more than the {DELETED_KEYS_BYTES} bytes of keys", limit=DELETED_KEYS_BYTES)
    return prepare_section(
        agent_prefix(agent),
        agent_fields(agent),
        ending.txn_id,
        [(key, None, version + 1) for key, version in found],
        ending.counters.plus(operations=len(found), live_keys=-len(found)),
        ending.metadata,
    )


def _refuse(agent: AgentId, what: str, **details: int) -> NoReturn:
    raise InvalidRequestError(
        f"the agent {agent.namespace}/{agent.agent_id} has {what} that one commit can delete: delete some before it is "
        f"deleted as a whole",
        details={name: str(number) for name, number in details.items()},
    )
