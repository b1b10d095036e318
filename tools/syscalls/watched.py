"""An engine as its clients see it, with every answer written down at the moment when it is given.

A client learns of an answer when its task runs next; what counts for a promise is when the engine gave it.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from attrs import define, field
from histories.subject import EngineSubject

from statehouse import ReplayEvent, StatehouseError, StateResult
from statehouse.actors.engine import Engine
from statehouse.actors.reply import Reply
from statehouse.types import AgentId
from syscalls.calls import Striker

__all__ = ["Refusal", "Watch", "Watched"]


@define
class Refusal:
    """A call that failed, and how many calls of the disk had been made by then."""

    error: StatehouseError
    after_calls: int


@define
class Watch:
    """What clients were told, across all engines of a case."""

    acknowledged: list[tuple[int, int]] = field(factory=list)
    """commit_ts, and how many calls of the disk had been made by then."""
    commits_failed: list[Refusal] = field(factory=list)
    reads: int = 0
    reads_failed: list[Refusal] = field(factory=list)
    became_read_only: int = 0

    def read_only(self) -> None:
        """The engine says that it takes no more commits."""
        self.became_read_only += 1


class Watched(EngineSubject):
    """An engine whose answers are written down."""

    def __init__(self, engine: Engine, watch: Watch, striker: Striker) -> None:
        super().__init__(engine)
        self._watch = watch
        self._striker = striker

    async def commit(self, txn_id: str) -> int:
        outer: Reply[int] = Reply()

        def settled(reply: Reply[int]) -> None:
            made, error = len(self._striker.calls), reply.error
            if error is None:
                self._watch.acknowledged.append((reply.result(), made))
                outer.succeed(reply.result())
            else:
                if isinstance(error, StatehouseError):
                    self._watch.commits_failed.append(Refusal(error, made))
                outer.fail(error)

        self.engine.commit(txn_id).then(settled)
        return await outer.wait()

    async def get(self, agent: AgentId, key: str) -> StateResult:
        with self._reading():
            return await super().get(agent, key)

    async def get_at_version(self, agent: AgentId, key: str, version: int) -> StateResult:
        with self._reading():
            return await super().get_at_version(agent, key, version)

    async def scan(self, agent: AgentId, prefix: str) -> dict[str, StateResult]:
        with self._reading():
            return await super().scan(agent, prefix)

    async def replay(self, agent: AgentId, first_ts: int = 0, last_ts: int | None = None) -> AsyncIterator[ReplayEvent]:
        with self._reading():
            async for event in super().replay(agent, first_ts, last_ts):
                yield event

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._watch.reads += 1
        try:
            yield
        except StatehouseError as error:
            self._watch.reads_failed.append(Refusal(error, len(self._striker.calls)))
            raise
