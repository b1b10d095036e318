"""The order of Trio's tasks, and what the proofs share of it and of groups of failures."""

import trio
from proof_report import flat
from seeded_turns import seeded_turns


def order(seed: int) -> list[int]:
    """In which order ten tasks had their turns."""
    turns: list[int] = []

    async def take_turns(number: int) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            turns.append(number)

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(take_turns, number)

    with seeded_turns() as seed_turns:
        seed_turns(seed)
        trio.run(all_of_them)
    return turns


def test_the_seed_decides_the_order():
    assert order(1) == order(1)
    assert order(1) != order(2)


def test_trio_draws_on_from_where_it_was():
    scheduler = trio._core._run
    before = scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    order(3)
    assert (scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before


def test_failures_in_groups_are_told_one_after_the_other():
    first, second, third = KeyError(1), ValueError(2), OSError(3)
    group = ExceptionGroup("", [first, ExceptionGroup("", [second, ExceptionGroup("", [third])])])
    assert flat(group) == [first, second, third]
    assert flat(first) == [first]
