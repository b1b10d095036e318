"""`statehoused` with one failpoint armed: the first argument says which, the others are the daemon's own.

    python tools/failpoints/daemon.py commit.synced:EXIT:40 --listen 127.0.0.1:0 --data-dir DIR

The log has a line `failpoint` just before it acts.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from failpoints.arming import Arm
from failpoints.cases import parse_case
from failpoints.here import FAILPOINTS, activate

__all__ = ["main"]


def main() -> None:
    """Run the daemon; it exits the process, unless its failpoint does."""
    case = parse_case(sys.argv.pop(1))
    activate()
    from statehouse.cli.statehoused import main as statehoused  # not before the failpoints are in place

    FAILPOINTS.arm([Arm(case.place, case.action, at_hit=case.number)], _say)
    statehoused()


def _say(arm: Arm) -> None:
    line = {"event": "failpoint", "level": "info", "place": arm.place, "action": arm.action.value}
    print(json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
