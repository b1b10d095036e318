"""What is tried: cases, each decided by its name and the seed alone, so that one can be repeated without the others."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from failpoints.arming import FAILURES, Action
from failpoints.places import PLACES, Lead

__all__ = ["Acted", "Case", "first_round", "missing", "next_round", "parse_case"]

Acted = Counter[tuple[str, Action]]
"""How often each action was carried out at each place."""

LEAST_SHARE = 5
"""Each action of a place is carried out a fifth of the times that the place is acted on, at least."""


@frozen
class Case:
    """One attempt: this action at this place; `number` tells attempts of the same kind apart."""

    place: str
    action: Action
    number: int

    @property
    def name(self) -> str:
        """As `--only` takes it."""
        return f"{self.place}:{self.action.name}:{self.number}"


def parse_case(name: str) -> Case:
    """The case of a name. ValueError when there is none."""
    place, action, number = name.split(":")
    if place not in PLACES or action not in Action.__members__:
        raise ValueError(f"no such failpoint or action: {name}")
    return Case(place, Action[action], int(number))


def first_round(times: int, places: Iterable[str]) -> list[Case]:
    """About as many cases as `times` takes. Stalls come with every case, but where few come."""
    cases: list[Case] = []
    for place in places:
        failures = [action for action in PLACES[place].actions if action in FAILURES]
        exits = times * 2 // LEAST_SHARE if failures else times * 3 // LEAST_SHARE
        stalls = 0 if PLACES[place].lead in {Lead.LOAD, Lead.RECOVERY} else times // LEAST_SHARE
        counts = {Action.EXIT: exits, Action.STALL: stalls}
        counts |= dict.fromkeys(failures, -(-exits // max(len(failures), 1)))
        for action, count in counts.items():
            cases += [Case(place, action, number) for number in range(count)]
    return sorted(cases, key=lambda case: case.number)  # something of everything first


def missing(
    times: int, places: Iterable[str], acted: Mapping[tuple[str, Action], int]
) -> dict[tuple[str, Action], int]:
    """How many more of each action it takes, where it is too few."""
    short: dict[tuple[str, Action], int] = {}
    for place in places:
        actions = PLACES[place].actions
        counts = {action: acted.get((place, action), 0) for action in actions}
        for action, count in counts.items():
            if count < times // LEAST_SHARE:
                short[place, action] = times // LEAST_SHARE - count
        left = times - sum(counts.values()) - sum(short.get((place, action), 0) for action in actions)
        if left > 0:
            short[place, Action.EXIT] = short.get((place, Action.EXIT), 0) + left
    return short


def next_round(short: Mapping[tuple[str, Action], int], tried: Counter[tuple[str, Action]]) -> Iterator[Case]:
    """As many further cases of each kind as are short; `tried` says which numbers there were."""
    for (place, action), count in short.items():
        begin = tried[place, action]
        for number in range(begin, begin + count):
            yield Case(place, action, number)
