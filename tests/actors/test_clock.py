"""The engine's clock: it never goes back, always goes on, and meets the system's again."""

from attrs import define

from statehouse.actors.clock import Clock

S = 1_000_000_000


@define
class Times:
    wall_ns: int = 1_000 * S
    steady_s: float = 50.0

    def clock(self, not_before_ns=0):
        return Clock(lambda: self.wall_ns, lambda: self.steady_s, not_before_ns=not_before_ns)

    def pass_s(self, seconds):
        self.wall_ns += seconds * S
        self.steady_s += seconds


def test_it_is_the_systems_clock_while_that_goes_on():
    times = Times()
    clock = times.clock()
    assert clock.now_ns() == 1_000 * S
    times.pass_s(7)
    assert clock.now_ns() == 1_007 * S


def test_when_the_systems_clock_jumps_back_it_goes_on_at_half_its_pace_until_they_meet():
    times = Times()
    clock = times.clock()
    clock.now_ns()
    times.wall_ns -= 100 * S
    assert clock.now_ns() == 1_000 * S
    times.pass_s(60)
    assert clock.now_ns() == 1_030 * S
    assert clock.now_ns() == 1_030 * S
    times.pass_s(140)
    assert clock.now_ns() == times.wall_ns == 1_100 * S
    times.pass_s(1)
    assert clock.now_ns() == 1_101 * S


def test_it_is_never_behind_the_newest_commit():
    times = Times()
    clock = times.clock(not_before_ns=5_000 * S)
    assert clock.now_ns() == 5_000 * S
    times.pass_s(2)
    assert clock.now_ns() == 5_001 * S
