"""What is done to the files between a victim's death and the recovery that is to find it."""

import random
from pathlib import Path

from statehouse.storage.log_format import HEADER_BYTES, LENGTH, MAX_PAYLOAD_BYTES, RECORD_OVERHEAD_BYTES

__all__ = ["damage_view", "tear_last_record"]


def tear_last_record(log: Path, rng: random.Random) -> None:
    """Zeros from a drawn byte of the last record on, as when power is lost: it must not have been synced."""
    segment = max(log.glob("*.log"))
    content = bytearray(segment.read_bytes())
    start, end = HEADER_BYTES, HEADER_BYTES
    while end + LENGTH.size <= len(content):
        payload_bytes = LENGTH.unpack_from(content, end)[0] & MAX_PAYLOAD_BYTES
        if not payload_bytes:
            break
        start, end = end, end + RECORD_OVERHEAD_BYTES + payload_bytes
    if end == start:
        return
    torn = rng.randrange(start + 1, end)
    with segment.open("r+b") as file:
        file.seek(torn)
        file.write(bytes(end - torn))


def damage_view(state: Path, rng: random.Random) -> None:
    """Make a LevelDB that is found to be damaged when it is opened."""
    manifest = next(state.glob("MANIFEST-*"))
    match rng.choice(("condemned", "no CURRENT", "cut manifest")):
        case "condemned":
            (state / "CONDEMNED").touch()
        case "no CURRENT":
            (state / "CURRENT").unlink()
        case _:
            manifest.write_bytes(manifest.read_bytes()[: rng.randrange(1, 16)])
