"""Feed the edge's connections whatever a peer may send, and see that nothing comes of it.

    python tools/fuzz_edge.py [--frames 1000000] [--seed S] [--only N]

Connections of the server's role and of the client's are sent valid conversations, damaged ones, floods, frames of
chance and bytes of chance (`edge_fuzz/conversations.py`), cut anywhere, while a caller answers, streams and resets
(`edge_fuzz/subjects.py`). After each piece: nothing was raised, what is sent is whole frames that a peer must
understand (`edge_fuzz/reader.py`), what is kept is bounded and the piece took little time. A connection that
has ended ignores everything. At the end the process must not have grown.

Prints what was sent and how the connections ended; exit 1 after a failure, with the seed, the piece in hex and the
command that repeats it.
"""

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final

from attrs import define, field
from edge_fuzz.conversations import conversation, pieces
from edge_fuzz.reader import OutputReader
from edge_fuzz.subjects import ClientSubject, ServerSubject, Subject

from statehouse.rpc.http2.frames import ErrorCode

PIECE_CPU_S: Final = 0.5
OUTPUT_BYTES: Final = 1_024
OUTPUT_PER_BYTE: Final = 32
"""What a piece may have a connection say, beside what waited: so much, and so much more for each of its bytes."""
KEPT_BYTES: Final = 8 * 1024 * 1024
"""What a connection may hold: requests that are not yet whole, above all."""
STREAMS: Final = 128
GROWTH_BYTES: Final = 32 * 1024 * 1024
"""Of the process, from a tenth of the way on."""
MAX_FRAME_SIZE: Final = b"\0\x05\0"
"""Where that setting stands with a value that is one."""
AFTER_THE_END: Final = 8
"""Pieces that a connection is still sent when it has ended."""


class FuzzError(Exception):
    """The connection did what it must not."""


@define
class Tally:
    """What was done."""

    frames: int = 0
    connections: int = 0
    sent_frames: int = 0
    slowest_s: float = 0.0
    ends: Counter[str] = field(factory=Counter)


def run(frames: int, seed: int, tally: Tally) -> Iterator[int]:
    """Fuzz until so many frames have been sent; yields the number of each connection before it begins."""
    resident = 0
    number = 0
    while tally.frames < frames:
        yield number
        fuzz_connection(seed, number, tally)
        number += 1
        if not resident and tally.frames >= frames // 10:
            resident = _resident_bytes()
    grown = _resident_bytes() - resident
    if grown > GROWTH_BYTES:
        raise FuzzError(f"the process grew by {grown} bytes")


def fuzz_connection(seed: int, number: int, tally: Tally) -> None:
    """One connection, from its first byte to its end."""
    chance = Random(f"{seed}/{number}")
    to_client = chance.random() < 0.25
    now = chance.random() * 1_000
    subject: Subject = ClientSubject(chance, now) if to_client else ServerSubject(chance, now)
    sent = conversation(chance, to_client=to_client)
    reader = OutputReader(client=to_client, frame_bytes=_frame_bytes(b"".join(sent)))
    came = pieces(chance, sent)
    tally.connections += 1
    _take(subject, reader, tally)
    fed = ended = 0
    with _shown_if_it_fails(came) as next_piece:
        for piece in next_piece:
            if subject.connection.ended is None:
                now += chance.random() * 0.01
                _feed(subject, reader, piece, now, tally)
                fed += 1
            elif ended < AFTER_THE_END:
                ended += 1
                _feed_ended(subject, piece, now)
            else:
                break
    tally.frames += max(1, len(sent) * fed // len(came))
    end = subject.connection.ended
    tally.ends["none" if end is None else ErrorCode(end.code).name] += 1
    if number % 16 == 0 and (kept := _kept_bytes(subject.connection)) > KEPT_BYTES:
        raise FuzzError(f"the connection holds {kept} bytes")
    if held := subject.leave():
        raise FuzzError("; ".join(held))


def _feed(subject: Subject, reader: OutputReader, piece: bytes, now: float, tally: Tally) -> None:
    connection = subject.connection
    begun = time.thread_time()
    connection.receive(piece, now)
    answer_bytes = len(connection.output)
    if connection.ended is None:
        subject.act(now)
    took_s = time.thread_time() - begun
    tally.slowest_s = max(tally.slowest_s, took_s)
    if took_s > PIECE_CPU_S:
        raise FuzzError(f"{took_s:.3f} s for {len(piece)} bytes")
    if len(connection.streams) > STREAMS:
        raise FuzzError(f"{len(connection.streams)} streams")
    if answer_bytes > subject.waiting_bytes + OUTPUT_BYTES + OUTPUT_PER_BYTE * len(piece):
        raise FuzzError(f"{len(piece)} bytes were answered with {answer_bytes}")
    _take(subject, reader, tally)


def _take(subject: Subject, reader: OutputReader, tally: Tally) -> None:
    connection = subject.connection
    output = bytes(connection.take_output())
    tally.sent_frames += reader.read(output, connection.highest_stream_id)
    if connection.ended is not None and not reader.says_goodbye:
        raise FuzzError("the connection ended without GOAWAY")


def _feed_ended(subject: Subject, piece: bytes, now: float) -> None:
    connection = subject.connection
    before = connection.ended, set(connection.streams), subject.count()
    connection.receive(piece, now)
    if connection.output or before != (connection.ended, set(connection.streams), subject.count()):
        raise FuzzError("a connection that had ended took notice")


def _frame_bytes(sent: bytes) -> int:
    """The longest frame that may be answered with. One that was right when it was written may be read after the peer
    has lowered its MAX_FRAME_SIZE, so who names that setting at all is taken to allow the most.
    """
    return 2**24 - 1 if MAX_FRAME_SIZE in sent else 2**14


def _kept_bytes(whole: Any) -> int:
    """The size of everything that can be reached, but for code."""
    seen: set[int] = set()
    ahead = [whole]
    kept = 0
    while ahead:
        each = ahead.pop()
        if id(each) in seen or isinstance(each, type) or callable(each):
            continue
        seen.add(id(each))
        kept += sys.getsizeof(each)
        if isinstance(each, dict):
            ahead += [*each.keys(), *each.values()]
        elif isinstance(each, str | bytes | bytearray | int | float):
            continue
        elif hasattr(each, "__iter__"):
            ahead += each
        else:
            ahead += vars(each).values() if hasattr(each, "__dict__") else ()
            names = (name for kind in type(each).__mro__ for name in getattr(kind, "__slots__", ()))
            ahead += [getattr(each, name) for name in names if name != "__weakref__" and hasattr(each, name)]
    return kept


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _shown_if_it_fails(came: list[bytes]) -> Iterator[Iterator[bytes]]:
    """Hand out the pieces, and show the last one if something goes wrong with it; a panic in Rust passes here, too."""
    at = -1

    def each() -> Iterator[bytes]:
        nonlocal at
        for piece in came:
            at += 1
            yield piece

    done = False
    try:
        yield each()
        done = True
    finally:
        if not done and at >= 0:
            print(f"piece {at + 1} of {len(came)}, {len(came[at])} bytes: {came[at].hex()}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000, help="how many to send")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**32), help="to repeat a run")
    parser.add_argument("--only", type=int, help="the number of one connection of that run")
    options = parser.parse_args(arguments)
    tally = Tally()
    begun = time.monotonic()
    number = options.only
    passed = False
    try:
        if options.only is None:
            for number in run(options.frames, options.seed, tally):  # noqa: B007 - told below
                pass
        else:
            fuzz_connection(options.seed, options.only, tally)
        passed = True
    except FuzzError as error:
        print(f"failed: {error}")
    except Exception:  # noqa: BLE001 - whatever the connection raised is what is looked for
        print(f"failed: {traceback.format_exc()}")
    finally:
        if not passed:
            print(f"again: python tools/fuzz_edge.py --seed {options.seed} --only {number}")
    took_s = time.monotonic() - begun
    print(f"seed {options.seed}: {tally.frames} frames to {tally.connections} connections in {took_s:.1f} s")
    print(f"{tally.sent_frames} frames in answer; the slowest piece took {tally.slowest_s * 1e3:.1f} ms")
    print("ended: " + ", ".join(f"{code} {count}" for code, count in sorted(tally.ends.items())))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
