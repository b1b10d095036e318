"""The process of one attack: `python -m attacks.attacker NAME HOST:PORT SECONDS short|full`, in the folder tools.

It prints what the attack tells as a JSON line, and can be pointed at any server by hand.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from typing import Final

from attrs import asdict

from attacks import bad_calls, floods, header_bombs, leavers, slow_peers, tls_peers
from attacks.attack import Attack, Stage

__all__ = ["ATTACKS", "attack_named"]

ATTACKS: Final[Sequence[Attack]] = (
    *leavers.ATTACKS,
    *floods.ATTACKS,
    *header_bombs.ATTACKS,
    *bad_calls.ATTACKS,
    *slow_peers.ATTACKS,
    *tls_peers.ATTACKS,
)


def attack_named(name: str) -> Attack:
    """The attack of that name. KeyError when there is none."""
    return {attack.name: attack for attack in ATTACKS}[name]


def main() -> None:
    name, address, seconds, size = sys.argv[1:]
    host, _, port = address.rpartition(":")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a flood of connections has a descriptor for each
    duration_s = float(seconds)
    stage = Stage((host, int(port)), duration_s, size == "full", time.monotonic() + duration_s)
    print(json.dumps(asdict(attack_named(name).run(stage))))


if __name__ == "__main__":
    main()
