"""Attack a real daemon in every way of the list, while an honest client works: it must not notice.

    python tools/attack_edge.py --short           each attack for about a second, 10,000 clients that leave included
    python tools/attack_edge.py --full            longer
    python tools/attack_edge.py --only ping_flood --only hpack_bomb
    python tools/attack_edge.py --list            what the attacks are

The daemon, the honest client (attacks/honest.py) and each attack (attacks/attacker.py) are processes of their own.
Some attacks are of a daemon with TLS, whose honest client speaks it.
The honest client is judged for all calls that are due while an attack runs. An attack has failed when
  * the 99th percentile of the honest client's calls stays under 1 s and none of them fails, on a connection that
    stands and on new ones (but while an attack takes all the connections that there are);
  * resident memory is at most 50 MB above what it was before the attack, at the worst moment;
  * 5 s after its end, descriptors, and the connections, calls, streams and tasks of the daemon's own count, are what
    they were;
  * the daemon lives, and has logged no error.
Exit code 0: every attack has failed. A daemon that an attack has hurt, or that keeps
more than 10 MB of memory after it, is replaced before the next one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from attacks import vitals
from attacks.attack import Attack
from attacks.attacker import ATTACKS, attack_named
from attacks.scene import GROWTH_BYTES, Scene
from attrs import define, field
from proof_processes import as_command

TOOLS: Final = Path(__file__).resolve().parent
SHORT_S: Final = 1.0
FULL_S: Final = 8.0
P99_S: Final = 1.0
ATTACK_S: Final = 180.0
"""Within which an attacker must have come back."""
AFTERWARDS_S: Final = 0.3
"""For so long the honest client goes on when the attack is over: clearing up must not hold it up either."""
BAD_LEVELS: Final = ('"level": "error"', '"level": "critical"')
LOG_LINES: Final = 1_000
"""An attack may make the daemon log so many lines: a full disk hurts too."""


class NoCensusError(Exception):
    """The daemon cannot be judged: it does not tell how many connections, calls and tasks it has."""


@define
class Verdict:
    """What was measured during an attack, and what is wrong with it."""

    name: str
    row: str
    note: str = ""
    calls: int = 0
    p99_s: float = 0.0
    stranger_p99_s: float = 0.0
    grew_bytes: int = 0
    back_s: float = 0.0
    violations: list[str] = field(factory=list)

    def line(self) -> str:
        """Its line of the table."""
        return (
            f"{'FAIL' if self.violations else 'ok':<5}{self.name:<32}{self.calls:>6}{1e3 * self.p99_s:>9.0f}"
            f"{1e3 * self.stranger_p99_s:>9.0f}{self.grew_bytes / 1e6:>8.1f}{self.back_s:>7.1f}  {self.note}"
        )


HEADINGS: Final = f"{'':<5}{'attack':<32}{'calls':>6}{'p99 ms':>9}{'new ms':>9}{'MB':>8}{'back s':>7}  what was done"


def judge(scene: Scene, attack: Attack, seconds: float, size: str) -> Verdict:
    """Attack the daemon of the scene, and measure."""
    verdict = Verdict(attack.name, attack.row)
    pid, lines = scene.daemon.pid, len(scene.daemon.lines)
    vitals.start_peak(pid)
    before_bytes = vitals.resident_bytes(pid)
    scene.honest.start()
    told, trouble = _attack(attack.name, scene.daemon.address, seconds, size)
    verdict.note, verdict.violations = told.get("note", ""), told.get("complaints", []) + trouble
    time.sleep(AFTERWARDS_S)
    ended_s = time.monotonic()
    _judge_watch(verdict, scene.honest.stop(), strangers=not attack.fills)
    if not scene.daemon.running:
        verdict.violations.append(f"the daemon has ended with {scene.daemon.wait()}")
        return verdict
    verdict.grew_bytes = vitals.peak_bytes(pid) - before_bytes
    if verdict.grew_bytes >= GROWTH_BYTES:
        verdict.violations.append(f"resident memory grew by {verdict.grew_bytes / 1e6:.0f} MB")
    now, _ = vitals.settled(scene.daemon, scene.before, vitals.SETTLED_S)
    verdict.back_s = time.monotonic() - ended_s
    for name, (before, after) in now.beyond(scene.before).items():
        verdict.violations.append(f"{after} {name} {verdict.back_s:.0f} s after the end, {before} before")
    new_lines = list(scene.daemon.lines)[lines:]
    if len(new_lines) > LOG_LINES:
        verdict.violations.append(f"the daemon logged {len(new_lines)} lines")
    bad_lines = [line for line in new_lines if any(level in line for level in BAD_LEVELS)]
    if bad_lines:
        verdict.violations.append(f"{len(bad_lines)} errors in the daemon's log, first: {bad_lines[0][:300]}")
    return verdict


def _judge_watch(verdict: Verdict, watch: dict[str, Any], *, strangers: bool) -> None:
    verdict.calls = len(watch["latencies_s"])
    verdict.p99_s = percentile_99(watch["latencies_s"])
    verdict.stranger_p99_s = percentile_99(watch["stranger_latencies_s"])
    if verdict.p99_s >= P99_S:
        verdict.violations.append(f"the honest client's 99th percentile was {verdict.p99_s:.2f} s")
    if watch["failed"]:
        verdict.violations.append(f"{watch['failed']} honest calls failed, first: {watch['failures'][0]}")
    if strangers and verdict.stranger_p99_s >= P99_S:
        verdict.violations.append(f"on new connections the 99th percentile was {verdict.stranger_p99_s:.2f} s")
    if strangers and watch["stranger_failed"]:
        failed = f"{watch['stranger_failed']} calls on new connections failed"
        verdict.violations.append(f"{failed}, first: {watch['stranger_failures'][0]}")


def _attack(name: str, address: str, seconds: float, size: str) -> tuple[dict[str, Any], list[str]]:
    """Run an attacker; what it told, and what went wrong with it itself."""
    command = [sys.executable, "-m", "attacks.attacker", name, address, str(seconds), size]
    try:
        ran = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, timeout=ATTACK_S, check=False)
    except subprocess.TimeoutExpired:
        return {}, [f"the attacker did not come back within {ATTACK_S:.0f} s"]
    if ran.returncode:
        return {}, [f"the attacker itself failed: {(ran.stderr.splitlines() or ['it said nothing'])[-1]}"]
    told: dict[str, Any] = json.loads(ran.stdout)
    return told, []


def percentile_99(values: Sequence[float]) -> float:
    """The nearest-rank 99th percentile; 0 of nothing."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * 99 // 100) - 1] if ordered else 0.0


def run(attacks: Sequence[Attack], seconds: float, size: str) -> list[Verdict]:
    """All the attacks, one after the other, on as few daemons as they leave whole."""
    verdicts: list[Verdict] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="statehouse-attacks-")))
        newest = stack.enter_context(ExitStack())
        scene: Scene | None = None
        _say(HEADINGS)
        for attack in attacks:
            if scene is None or scene.hurt or scene.is_of_tls != attack.is_of_tls:
                newest.close()
                scene = Scene.set(directory, tls=attack.is_of_tls)
                newest.callback(scene.clear)
                if not vitals.answers_census(scene.daemon.pid):
                    raise NoCensusError("the daemon does not catch SIGUSR1: there is nobody to say what it holds")
            verdicts.append(judge(scene, attack, seconds, size))
            _say(verdicts[-1].line())
            for violation in verdicts[-1].violations:
                _say(f"     VIOLATION {attack.name}: {violation}")
    return verdicts


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        for attack in ATTACKS:
            _say(f"{attack.name:<32} {attack.what}\n{'':<32} [{attack.row}]")
        return 0
    try:
        attacks = [attack_named(name) for name in options.only] if options.only else ATTACKS
    except KeyError as error:
        parser.error(f"there is no attack {error}; --list has them")
    started_s = time.monotonic()
    try:
        verdicts = run(attacks, FULL_S if options.full else SHORT_S, "full" if options.full else "short")
    except NoCensusError as error:
        _say(f"attack_edge: {error}")
        return 1
    violated = [verdict for verdict in verdicts if verdict.violations]
    for verdict in violated:
        for violation in verdict.violations:
            _say(f"VIOLATION {verdict.name}: {violation}")
    if options.json:
        rows = [_row(verdict) for verdict in verdicts]
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    took_s = time.monotonic() - started_s
    _say(f"{len(verdicts)} attacks, {len(violated)} of them did harm; {took_s:.0f} s")
    return 1 if violated else 0


def _row(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in Verdict.__annotations__}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help=f"each attack for about {SHORT_S:g} s (the default)")
    length.add_argument("--full", action="store_true", help=f"each attack for about {FULL_S:g} s")
    parser.add_argument("--only", action="append", metavar="NAME", help="this attack; may be given more than once")
    parser.add_argument("--list", action="store_true", help="list the attacks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there as well")
    return parser


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    as_command(main)
