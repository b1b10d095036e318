"""One case: a victim that is led to a failpoint, what it does there, recoveries that may be struck too, the judge.

To be imported after `failpoints.here.activate`.
"""

import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from attrs import define, evolve, field, frozen
from histories.oracle import Oracle
from histories.submissions import Load
from histories.workload import AGENTS, KINDS
from victims.victim import Ended, Ending, Settings, Teller, judge, recover, run_victim

from failpoints.arming import EXIT_CODE, FAILURES, Action, Arm
from failpoints.cases import Acted, Case
from failpoints.here import FAILPOINTS
from failpoints.places import DEATHS, PLACES, Lead, Must
from failpoints.tearing import damage_view, tear_last_record
from statehouse.types import AgentId

__all__ = ["SETTINGS", "Tried", "UnwellError", "calibrate", "failed_case", "try_case"]

PACE: Final = 50
"""A value lasts 20 ms at least."""
SETTINGS: Final = Settings(
    segment_bytes=32 * 1024,
    snapshot_interval=20,
    clients=6,
    transactions=16,
    tx_timeout_ms=300 * PACE,
    pace=PACE,
    shape=evolve(
        Settings().shape,
        agents=(*AGENTS[:6], *AGENTS[-2:]),
        kinds={**KINDS, "fork": 9},
        forks=tuple(AgentId("default", f"fork-{number}") for number in range(8)),
        ttls_s={None: 60, 1: 30, 2: 10},
    ),
)
"""Small, so that a case takes a tenth of a second: about 80 commits, 4 rotations, 3 snapshots, and some sweeps."""
EXITS: Final = (-signal.SIGKILL, EXIT_CODE)
STRUCK_ALSO: Final = 0.25
"""Of the cases, those whose recovery is struck, too; and of these, those whose next one is."""
LIVES_AGAIN: Final = 0.3
"""Of the cases, those whose store serves once more before it is looked at, and may be ended once more."""
SECOND_LIFE: Final = evolve(SETTINGS, transactions=5)
LOADED: Final = tuple(name for name, place in PLACES.items() if place.lead is Lead.LOAD)
_NEEDED_BY_NO_OPEN: Final = frozenset({"snapshot", "mend", "rotation"})
"""The first words of places whose failure cannot keep a store from opening."""
RECOVERING: Final = tuple(name for name, place in PLACES.items() if place.lead is Lead.RECOVERY)
STRIKES: Final = (
    *RECOVERING,
    "recover.batch_folded",
    "recover.snapshot_loaded",
    "recover.setting_aside",
    "view.writing",
)
"""What a recovery may be struck at; whether it comes there depends on what it finds."""
WITHOUT_FSYNC: Final = 0.15
"""Of the cases, those whose store runs without."""
STALLS_S: Final[Mapping[tuple[float, float], int]] = {(0.001, 0.01): 80, (0.01, 0.05): 18, (0.35, 0.45): 2}
"""Mostly short, and some longer than a transaction may be open."""


@frozen
class Tried:
    """What came of a case."""

    case: Case
    acted: Acted
    reached: Counter[str]
    victims: int
    recoveries: int
    endings: Counter[str]
    violations: list[str]


class UnwellError(Exception):
    """The engine breaks a promise by itself."""


def calibrate(seed: int, runs: int = 3) -> Counter[str]:
    """How often a victim that nothing is done to comes to each place, at least. UnwellError: it is not well."""
    least: Counter[str] | None = None
    for number in range(runs):
        FAILPOINTS.forget()
        with tempfile.TemporaryDirectory(prefix="statehouse-failpoints-") as directory:
            ended = run_victim(Path(directory), seed + number, settings=SETTINGS)
        if ended.exit_code or ended.troubles:
            raise UnwellError(f"a victim that nothing was done to ended with {ended.exit_code}: {ended.troubles}")
        reached = FAILPOINTS.reached()
        least = reached if least is None else least & reached
    return Counter() if least is None else least


def try_case(case: Case, seed: int, usual: Mapping[str, int], *, keep: Path | None = None) -> Tried:
    """Carry out a case in a directory of its own; `usual` is what `calibrate` found."""
    FAILPOINTS.forget()
    with tempfile.TemporaryDirectory(prefix="statehouse-failpoints-") as directory:
        trial = _Trial(case, random.Random(f"{seed} {case.name}"), Path(directory), usual)
        trial.run()
        if keep is not None and trial.violations:
            shutil.copytree(directory, keep / case.name.replace(":", "-"), dirs_exist_ok=True)
    return Tried(
        case=case,
        acted=trial.acted,
        reached=FAILPOINTS.reached(),
        victims=trial.victims,
        recoveries=trial.recoveries,
        endings=trial.endings,
        violations=trial.violations,
    )


def failed_case(case: Case, why: str) -> Tried:
    """One that could not be tried to its end."""
    return Tried(case, Counter(), Counter(), victims=0, recoveries=0, endings=Counter(), violations=[why])


@define
class _Trial:
    """One case while it is carried out. All draws come from `rng`, in one order."""

    case: Case
    rng: random.Random
    directory: Path
    usual: Mapping[str, int]
    oracle: Oracle = field(factory=Oracle)
    load: Load = field(factory=Load)
    acted: Acted = field(factory=Counter)
    endings: Counter[str] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    victims: int = 0
    recoveries: int = 0
    fsync: bool = True

    def run(self) -> None:
        rng, case = self.rng, self.case
        lead = PLACES[case.place].lead
        struck: list[list[Arm]] = []
        if lead in {Lead.LOAD, Lead.GROUP_FAILS, Lead.VIEW_FAILS}:
            arms = [*_towards(lead, rng, self.usual), self._primary(), *self._stalls(LOADED, 3)]
        else:
            death = {Lead.TORN: "commit.appended", Lead.ROTATED: "rotation.installed", Lead.BEHIND: "commit.synced"}
            arms = [self._arm(death.get(lead, rng.choice(DEATHS)), Action.EXIT), *self._stalls(LOADED, 2)]
            struck.append([self._primary(), *self._stalls(RECOVERING, 2)])
        while rng.random() < STRUCK_ALSO:
            place = rng.choice(STRIKES)
            struck.append([self._arm(place, rng.choice(PLACES[place].actions), 1)])
        # Without fsync, too, whatever was answered survives the process.
        self.fsync = case.place == "log.syncing" or rng.random() >= WITHOUT_FSYNC
        died = self._live(SETTINGS, arms)
        self._hurt(lead, died=died)
        for arms_of_recovery in struck:
            self._recover(arms_of_recovery)
        if rng.random() < LIVES_AGAIN:
            self._live(SECOND_LIFE, [self._arm(rng.choice(LOADED), Action.EXIT, 20)])
        if not self.violations:
            self._recover([])

    def _live(self, settings: Settings, arms: list[Arm]) -> bool:
        """One victim; whether it was ended."""
        seed = self.rng.getrandbits(32)
        settings = evolve(settings, fsync=self.fsync)
        victim = run_victim(
            self.directory, seed, floor_ts=self.load.newest_ts, settings=settings, before=self._armed(arms)
        )
        self.victims += 1
        self._take(victim.load)
        self._look_at(victim, "a victim")
        return victim.exit_code in EXITS

    def _take(self, load: Load) -> None:
        """What a process was sent, told and shown is judged with what those before it were, at the next look."""
        self.load.submissions += load.submissions
        self.load.reads += load.reads
        self.load.forks += load.forks
        self.load.saw(load.newest_ts)

    def _primary(self) -> Arm:
        usual = self.usual.get(self.case.place, 0) if PLACES[self.case.place].lead is Lead.LOAD else 1
        lasting = self.case.action in FAILURES and self.rng.random() < 0.25
        return self._arm(self.case.place, self.case.action, usual, times=1_000_000 if lasting else 1)

    def _stalls(self, places: tuple[str, ...], count: int) -> list[Arm]:
        return [self._arm(place, Action.STALL) for place in self.rng.sample(places, count)]

    def _arm(self, place: str, action: Action, usual: int | None = None, times: int = 1) -> Arm:
        """At one of the hits that are usual there; of those that come late, some runs have fewer."""
        rng = self.rng
        usual = self.usual.get(place, 0) if usual is None else usual
        [(least_s, most_s)] = rng.choices(list(STALLS_S), list(STALLS_S.values()))
        return Arm(
            place,
            action,
            at_hit=rng.randint(1, max(usual * 4 // 5, 1)),
            times=times,
            stall_s=rng.uniform(least_s, most_s),
            softly=rng.random() < 0.5,
        )

    def _armed(self, arms: list[Arm]) -> Callable[[Teller], None]:
        def before(teller: Teller) -> None:
            FAILPOINTS.arm(arms, lambda arm: teller.tell("acted", arm.place, arm.action))

        return before

    def _recover(self, arms: list[Arm]) -> None:
        """Open the store and judge what it shows, if it gets so far: a recovery that is struck need not."""
        self.recoveries += 1
        settings = evolve(SETTINGS, fsync=self.fsync)
        ended = recover(
            self.directory, self.oracle, self.load, settings=settings, before=self._armed(arms), settles=not arms
        )
        self._look_at(ended, "a recovery")
        if ended.evidence is not None and ended.exit_code == Ending.DONE:
            self.violations += judge(self.oracle, self.load, evolve(ended, troubles=[]))
            self.load = Load(newest_ts=self.oracle.newest_ts)
        else:
            self._take(ended.load)
            if not arms:
                self.violations.append(f"the store was not recovered: exit code {ended.exit_code} {ended.refused}")

    def _look_at(self, ended: Ended, who: str) -> None:
        """Whether what was done to a process may have ended it so."""
        done_here = [(place, action) for what, *rest in ended.told if what == "acted" for place, action in [rest]]
        self.acted.update(done_here)
        acted = {action for _, action in done_here}
        failed = bool(acted & set(FAILURES))
        code = ended.exit_code
        self.endings[_name(code)] += 1
        allowed = (
            code == Ending.DONE
            or (code in EXITS and Action.EXIT in acted)
            or (code in {Ending.READ_ONLY, Ending.NO_COMMIT} and failed)
            or (code == Ending.NOT_OPENED and _may_keep_closed(done_here))
        )
        done = ", ".join(dict.fromkeys(f"{action.value} at {place}" for place, action in done_here)) or "nothing"
        if not allowed:
            self.violations.append(f"{who} ended with {_name(code)} {ended.refused} after {done}")
        self.violations += [f"{who}: {wrong}" for wrong in _not_as_it_must(ended, done_here)]
        if not failed and ended.failures.keys() - {"TransactionError"}:  # a stall may have let it expire
            self.violations.append(f"commits failed with {ended.failures} after {done}")
        self.violations += [f"{who}, after {done}: {trouble}" for trouble in ended.troubles]
        if ended.unread and not {Action.VIEW_FULL, Action.VIEW_BROKEN} & acted:
            self.violations.append(f"{who}, after {done}, which no view was struck by: {ended.unread[0]}")

    def _hurt(self, lead: Lead, *, died: bool) -> None:
        """What the victim's end does not do by itself."""
        if lead is Lead.TORN and died:
            tear_last_record(self.directory / "log", self.rng)
        elif lead is Lead.VIEW_GONE:
            shutil.rmtree(self.directory / "state")
        elif lead is Lead.VIEW_BAD:
            damage_view(self.directory / "state", self.rng)


def _may_keep_closed(done: list[tuple[str, Action]]) -> bool:
    """Whether one of the failures was of something that a store cannot be opened without: a snapshot is none."""
    return any(action in FAILURES and place.partition(".")[0] not in _NEEDED_BY_NO_OPEN for place, action in done)


def _not_as_it_must(ended: Ended, done: list[tuple[str, Action]]) -> list[str]:
    """What the failures of a process must have led to, and have not."""
    if ended.view_from is None or ended.exit_code in EXITS:
        return []  # it had not begun to serve, or was ended before it could show
    wrong = []
    for place, action in dict.fromkeys(done):
        must = PLACES[place].must.get(action)
        if must is Must.READ_ONLY and ended.exit_code != Ending.READ_ONLY:
            wrong.append(f"{action.value} at {place}, and the log took commits after it")
        elif must is Must.REFUSE and not (
            ended.unswept or ended.failures.keys() & {"DiskFullError", "StorageError", "LogPoisonedError"}
        ):
            wrong.append(f"{action.value} at {place}, and no commit was told that it had failed")
    return wrong


def _towards(lead: Lead, rng: random.Random, usual: Mapping[str, int]) -> list[Arm]:
    """The failure that leads to a place, a few times on end, from one of its usual hits on."""
    if lead is Lead.GROUP_FAILS and rng.random() < 0.6:
        place, action = rng.choice(("log.writing", "log.written")), Action.ENOSPC
    elif lead in {Lead.GROUP_FAILS, Lead.VIEW_FAILS}:
        place, action = "view.writing", rng.choice((Action.VIEW_FULL, Action.VIEW_BROKEN))
    else:
        return []
    return [Arm(place, action, at_hit=rng.randint(2, max(usual[place] * 3 // 4, 2)), times=rng.choice((1, 1, 2, 5)))]


def _name(code: int) -> str:
    if code in EXITS:
        return "killed" if code < 0 else "exited"
    return Ending(code).name.lower().replace("_", " ") if code in set(Ending) else f"exit code {code}"
