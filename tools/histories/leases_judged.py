"""Judges what was told of leases: they leave no events, and each has a commit_ts of its own."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from attrs import define, field

from histories.agents_judged import name_of
from histories.submissions import Leased
from statehouse.types import AgentId

__all__ = ["Leases"]


@define
class Leases:
    """All leases that were answered, in the order of their commits."""

    _answered: dict[AgentId, list[Leased]] = field(factory=lambda: defaultdict(list))

    def epoch(self, agent: AgentId, commit_ts: int) -> int:
        """The epoch of the newest lease before a commit; 0 when it had been released."""
        before = [leased for leased in self._answered[agent] if (leased.commit_ts or 0) < commit_ts]
        return before[-1].epoch if before and before[-1].what != "released" else 0

    def judge(self, leased: Iterable[Leased], taken: dict[int, str], newest_ts: int) -> Iterator[str]:
        """Epochs grow, and a lease change has a commit_ts of its own, which is put into `taken`."""
        answered = sorted((one for one in leased if one.commit_ts), key=lambda one: one.commit_ts or 0)
        for one in answered:
            commit_ts, before = one.commit_ts or 0, self._answered[one.agent]
            epoch = before[-1].epoch if before else 0
            if one.what == "acquired" and one.epoch <= epoch:
                yield f"commit_ts {commit_ts}: {name_of(one.agent)} has a lease of epoch {one.epoch} after {epoch}"
            if one.what != "acquired" and one.epoch < epoch:
                yield f"commit_ts {commit_ts}: {name_of(one.agent)}: epoch {one.epoch} was {one.what} after {epoch}"
            if commit_ts in taken or commit_ts <= newest_ts:
                yield f"commit_ts {commit_ts} is used twice, the second time by a lease"
            if commit_ts <= one.floor_ts:
                yield f"a lease was {one.what} when commit_ts {one.floor_ts} had been told, and is at {commit_ts}"
            taken[commit_ts] = f"a lease of {name_of(one.agent)}"
            before.append(one)
