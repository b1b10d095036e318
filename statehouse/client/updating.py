"""Read, compute, write, and again when somebody else was faster: the rules of `update`, for both clients."""

import random
from collections.abc import Mapping
from typing import Final

from statehouse.client.arguments import check_counts, check_metadata, check_texts, check_whole_seconds
from statehouse.client.types import Precondition, Put, Remove, StateResult, Transacted, UpdateResult
from statehouse.errors import ConflictError
from statehouse.rpc.client.retry import Backoff
from statehouse.types import JsonObject

__all__ = ["UPDATE_TRIES", "Updating"]

UPDATE_TRIES: Final = 10
CONFLICT_PAUSE_S: Final = 0.005
"""After the first conflict at most this: about as long as the commit that was faster took."""
CONFLICT_PAUSE_CAP_S: Final = 0.5
_MOST_TRIES: Final = 1_000_000


class Updating:
    """One call of `update`: what it writes, under which condition, and how long it rests after a conflict."""

    def __init__(
        self,
        agent_id: str,
        key: str,
        namespace: str,
        tries: int,
        metadata: Mapping[str, str] | None,
        ttl_s: int | None,
    ) -> None:
        check_texts(agent_id=agent_id, key=key)
        check_counts(_MOST_TRIES, tries=tries)
        self._left = tries
        self._ttl_s = None if ttl_s is None else check_whole_seconds("ttl_s", ttl_s)
        self._backoff = Backoff(random.random, CONFLICT_PAUSE_S, CONFLICT_PAUSE_CAP_S)
        self.agent_id: Final = agent_id
        self.key: Final = key
        self.namespace: Final = namespace
        self.metadata: Final = check_metadata(metadata)

    def operation(self, value: "JsonObject | None") -> Put | Remove:
        """What is written."""
        if value is None:
            return Remove(self.agent_id, self.key)
        return Put(self.agent_id, self.key, value, ttl_s=self._ttl_s)

    def unchanged_since(self, state: StateResult) -> Precondition:
        """That the key is as it was read."""
        return Precondition.version_is(self.agent_id, self.key, state.version)

    def pause_s(self, conflict: ConflictError) -> float:
        """How long to wait before the next try; raises the conflict when there is none."""
        self._left -= 1
        if self._left == 0:
            raise conflict
        return self._backoff.pause_s()

    @staticmethod
    def result(value: "JsonObject | None", done: Transacted) -> UpdateResult:
        """What came of it."""
        return UpdateResult(value, done.versions[0], done.commit_ts)
