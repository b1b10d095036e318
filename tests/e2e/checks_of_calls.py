"""What a server must do with single calls: each check asserts one remedy, on any server that is a `Target`."""

import re
import zlib

from attacks.attack import LARGE, MANY, get_state, replay
from attacks.bad_calls import bomb
from attacks.raw_http2 import (
    END_STREAM,
    FIRST_WINDOW,
    FRAME_BYTES,
    Kind,
    Setting,
    call_block,
    frame,
    message,
    reset,
    varint,
    window_update,
)
from jh2.hpack import Decoder

NO_WINDOW = {Setting.INITIAL_WINDOW_SIZE: 0}
EVENTS_ASKED = replay(MANY)
CALLS = 50
STRAY_TASKS = 10
"""Of connections of other tests that are just ending."""
GROWTH_BYTES = 50_000_000
BOMB_CPU_S = 1.0
"""Within which a server that inflates 400 MiB has inflated more than it may."""
STREAMS = 100
FIELD_BYTES = 32
"""What a header counts for besides its name and value (RFC 9113, 6.5.2)."""
HEADER_LISTS = (8_192, 8_193, 8_500)
OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 1, 3, 4, 8, 12, 13


def blocked_calls(target, peer):
    """Calls that cannot send their answers, because the peer gives them no window."""
    streams = [peer.call("Replay", EVENTS_ASKED) for _ in range(CALLS)]
    peer.is_heard(target.patience_s)
    return streams


def check_a_reset_ends_the_call(target):
    peer, before = target.connect(wanted=NO_WINDOW), target.tasks()
    for _ in range(4):  # twice as many as a connection may have: none would be let in if those before were there still
        peer.send(b"".join(map(reset, blocked_calls(target, peer))))
    assert target.comes_true(lambda: target.tasks() <= before + STRAY_TASKS)
    assert peer.answers(target.patience_s)


def check_paced_resets_leave_nothing(target):
    peer, before = target.connect(), target.tasks()
    for _ in range(4 * CALLS):
        stream_id = peer.start("Commit")
        peer.read_for(0.001)
        peer.send(reset(stream_id))
    assert peer.answers(target.patience_s)
    assert target.comes_true(lambda: target.tasks() <= before + STRAY_TASKS)


def check_the_deadline_ends_the_call(target):
    peer, before = target.connect(wanted=NO_WINDOW), target.tasks()
    streams = [peer.call("Replay", EVENTS_ASKED, [("grpc-timeout", "50m")]) for _ in range(CALLS)]
    assert peer.until(lambda: peer.over >= set(streams), target.patience_s)
    assert all(each in peer.resets or peer.status(each) == DEADLINE_EXCEEDED for each in streams)
    assert target.comes_true(lambda: target.tasks() <= before + STRAY_TASKS)


def check_a_goodbye_ends_the_calls(target):
    peer, before = target.connect(wanted=NO_WINDOW), target.tasks()
    blocked_calls(target, peer)
    peer.send(frame(Kind.GOAWAY, payload=bytes(8)))
    assert target.comes_true(lambda: target.tasks() <= before + STRAY_TASKS)
    assert peer.ends(target.patience_s)


def check_a_bad_path_is_an_answer(target):
    peer = target.connect()
    assert peer.status(peer.call("/a/b/c"), target.patience_s) == UNIMPLEMENTED
    assert peer.answers(target.patience_s)


def check_a_message_over_the_limit_is_refused(target):
    peer = target.connect()
    stream_id = peer.start("GetState")
    peer.send(frame(Kind.DATA, 0, stream_id, message(bytes(1_000), length=2**31)))
    assert peer.status(stream_id, target.patience_s) is not None
    assert peer.answers(target.patience_s)


def check_a_compressed_message_is_answered(target):
    """With gzip: either it is understood, or the call is told that it is not; it does not hang."""
    peer = target.connect()
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    packed = packer.compress(get_state(*LARGE)) + packer.flush()
    stream_id = peer.start("GetState", [("grpc-encoding", "gzip")])
    peer.send(frame(Kind.DATA, END_STREAM, stream_id, message(packed, flag=1)))
    assert peer.status(stream_id, target.patience_s) in {OK, UNIMPLEMENTED}
    assert peer.answers(target.patience_s)


def check_a_bomb_is_not_inflated(target):
    before_bytes = target.start_peak()
    for encoding, window_bits in (("deflate", zlib.MAX_WBITS), ("gzip", zlib.MAX_WBITS | 16)):
        peer, packed = target.connect(), bomb(window_bits)
        stream_id = peer.start("GetState", [("grpc-encoding", encoding)])
        for at in range(0, len(packed), FRAME_BYTES):
            peer.send(frame(Kind.DATA, 0, stream_id, packed[at : at + FRAME_BYTES]))
        peer.send(frame(Kind.DATA, END_STREAM, stream_id))
        peer.status(stream_id, target.patience_s)
    target.works_until_idle(BOMB_CPU_S)
    assert target.grown_bytes(before_bytes) < GROWTH_BYTES


def check_uploads_that_nobody_reads_are_held_back(target):
    """4 x 60 MB to calls that read one message."""
    before_bytes, peer = target.start_peak(), target.connect()
    streams = [peer.start("Commit") for _ in range(4)]
    messages = message(bytes(2**20 - 5)) * 60
    sent = dict.fromkeys(streams, 0)
    still = 0
    while still < 5:  # once may only mean that others had the processor
        peer.until(lambda: False, 0.1)
        rest = {each: messages[sent[each] :] for each in streams if each not in peer.over and not peer.closed}
        progress = 0
        for stream_id, content in rest.items():
            room = peer.upload(stream_id, content)
            sent[stream_id], progress = sent[stream_id] + room, progress + room
        still = 0 if progress else still + 1
    assert target.grown_bytes(before_bytes) < GROWTH_BYTES


def _padded(size_bytes):
    """A request of nothing that anybody knows: a field of the number 15."""
    field = varint(15 << 3 | 2)
    return field + varint(size_bytes) + bytes(size_bytes)


def _send_all(target, peer, requests):
    """Send requests by their streams, all at once, as the windows let them through; whether all of it came through."""
    rest = {stream_id: message(content) for stream_id, content in requests.items()}

    def sends():
        for stream_id, content in list(rest.items()):
            rest[stream_id] = content[peer.upload(stream_id, content[:FIRST_WINDOW]) :]
            if not rest[stream_id]:
                del rest[stream_id]
                peer.send(frame(Kind.DATA, END_STREAM, stream_id))
        peer.take()
        return not rest

    return target.comes_true(sends)


def check_a_message_just_under_the_limit_is_answered(target):
    peer = target.connect()
    stream_id = peer.start("Version")
    assert _send_all(target, peer, {stream_id: _padded(4 * 2**20 - 10)})
    assert peer.status(stream_id, target.patience_s) == OK


def check_large_requests_wait_their_turn(target):
    """31 MiB at once on one connection: flow control makes them wait, and none is refused."""
    peer = target.connect()
    requests = {peer.start("Version"): _padded(2**20) for _ in range(31)}
    assert _send_all(target, peer, requests)
    assert [peer.status(each, target.patience_s) for each in requests] == [OK] * 31


def check_much_metadata_is_refused(target):
    """60 KB; a refusal may be a status, a reset of the stream, or the end of the connection."""
    peer = target.connect()
    stream_id = peer.call("Version", extra=[(f"x-{at}", "v" * 1_000) for at in range(60)])
    assert peer.until(lambda: stream_id in peer.over, target.patience_s) or peer.closed
    assert peer.headers.get(stream_id, {}).get(b"grpc-status") != b"0"


def check_header_lists_have_a_limit(target):
    """To the byte, as RFC 9113 counts them: what is just under it passes."""
    peer = target.connect()
    statuses = [peer.status(peer.call("Version", extra=_filling(size)), target.patience_s) for size in HEADER_LISTS]
    assert statuses == [OK, RESOURCE_EXHAUSTED, RESOURCE_EXHAUSTED]
    assert peer.answers(target.patience_s)


def _filling(list_bytes):
    """The header that makes a call's list so long."""
    own = Decoder().decode(call_block("Version"), raw=True)
    rest_bytes = list_bytes - sum(len(name) + len(value) + FIELD_BYTES for name, value in own)
    return [("x-long", "v" * (rest_bytes - len("x-long") - FIELD_BYTES))]


def check_control_characters_are_refused(target):
    peer = target.connect()
    stream_id = peer.call("Version", extra=[("x-note", b"a\r\nb\0")])
    assert peer.until(lambda: stream_id in peer.over, target.patience_s)
    assert peer.headers.get(stream_id, {}).get(b"grpc-status") != b"0"
    assert peer.answers(target.patience_s)


def check_a_bug_is_told_by_its_id_alone(target):
    peer = target.connect()
    stream_id = peer.call("GetState", get_state(*LARGE))
    assert peer.status(stream_id, target.patience_s) == INTERNAL
    told = b" ".join(peer.headers[stream_id].values())
    assert not re.search(rb"secret|ZeroDivision|Traceback|exc_info", told)
    assert re.search(rb"internal(%20| )error(%20| )\w+", told)


def check_a_malformed_request_is_the_clients_fault(target):
    peer = target.connect()
    assert peer.status(peer.call("GetState", b"\xff\xff\xff"), target.patience_s) == INVALID_ARGUMENT


def check_a_frame_for_a_stream_that_is_gone_is_ignored(target):
    peer = target.connect()
    over = peer.call("Version")
    assert all(peer.answers() for _ in range(3)), "the connection does not work at all"
    peer.send(window_update(over, 7) + reset(over))
    assert peer.answers(target.patience_s)


def check_streams_are_bounded(target):
    """Those beyond the bound are refused alone."""
    peer, before = target.connect(wanted=NO_WINDOW), target.tasks()
    streams = [peer.call("Replay", EVENTS_ASKED) for _ in range(3 * STREAMS)]
    assert peer.until(lambda: len(peer.over & set(streams)) >= 2 * STREAMS, target.patience_s)
    assert before + STRAY_TASKS < target.tasks() <= before + STREAMS + STRAY_TASKS
    assert peer.server_settings[Setting.MAX_CONCURRENT_STREAMS] <= STREAMS


def check_windows_are_moderate(target):
    """64 KiB to 1 MiB for a stream, and no more than 16 MiB for the connection."""
    peer = target.connect()
    assert peer.answers()
    assert 2**16 - 1 <= peer.server_settings.get(Setting.INITIAL_WINDOW_SIZE, 2**16 - 1) <= 2**20
    assert peer.credit.get(0, 0) <= 16 * 2**20
