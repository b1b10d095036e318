"""Counts the money in the snapshot files of a store, read with the code that rebuilds the view from them."""

from pathlib import Path
from typing import Final

from linearizability.money import ACCOUNTS, BALANCE, wrong_sum
from statehouse import StateResult
from statehouse.client.results import state_result
from statehouse.storage.disk import RealDisk
from statehouse.storage.keys import agent_prefix, state_key
from statehouse.storage.snapshots import SnapshotDamagedError, list_snapshots, load_snapshot, snapshot_commit_ts
from statehouse.storage.view import Write
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["SnapshotMoney"]

BALANCES: Final = {state_key(agent_prefix(account), BALANCE.encode()): account for account in ACCOUNTS}


class SnapshotMoney:
    """The snapshots of one store; each is read once."""

    def __init__(self, directory: Path, opened_ts: int) -> None:
        """The accounts were opened at commit_ts `opened_ts`."""
        self._directory = str(directory)
        self._opened_ts = opened_ts
        self._read: set[str] = set()

    @property
    def counted(self) -> int:
        """How many were read."""
        return len(self._read)

    def count_new(self) -> list[str]:
        """What is wrong with the snapshots that were not there before. Nobody may write or remove any meanwhile."""
        violations = []
        disk = RealDisk()
        for path in list_snapshots(disk, self._directory):
            if path not in self._read and snapshot_commit_ts(path) >= self._opened_ts:
                self._read.add(path)
                balances: dict[AgentId, StateResult] = {}
                try:
                    load_snapshot(disk, path, lambda rows, into=balances: _note(rows, into))  # type: ignore[misc]
                except SnapshotDamagedError as error:
                    violations.append(str(error))
                else:
                    wrong = wrong_sum(balances, path)
                    violations += [] if wrong is None else [wrong]
        return violations


def _note(rows: list[Write], into: dict[AgentId, StateResult]) -> None:
    for key, value in rows:
        account = BALANCES.get(key)
        if account is not None and value is not None:  # a balance is small: it stands in the row
            into[account] = state_result(pb.GetStateResponse.FromString(value))
