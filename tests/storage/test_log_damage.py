"""Damage of every kind is refused and named; a torn tail of every kind is cut and told; nothing else is ever read."""

import random
import re
import struct
import time
from zlib import crc32

import pytest
from storage.fix_log import DIRECTORY, FIRST, STORE_ID, commit, make_bench, payload

from statehouse.errors import NewerFormatError, StoreDamagedError
from statehouse.storage import log_damage
from statehouse.storage.event_log import LogHead, ViewDisagreesError
from statehouse.storage.log_damage import evidence_of_sync
from statehouse.storage.log_format import (
    HEADER_BYTES,
    RECORD_OVERHEAD_BYTES,
    SegmentHeader,
    encode_header,
    encode_record,
    genesis_chain,
)

SIZES = (20, 130, 64, 30, 41)


@pytest.fixture
def five(bench):
    """A closed log of five commits, each synced for itself: its contents, where each record begins, every head."""
    log = bench.open()
    contents = [payload(number, size) for number, size in enumerate(SIZES)]
    heads, starts = [log.head], []
    for content in contents:
        (placement,) = commit(log, [content])
        starts.append(placement.offset - RECORD_OVERHEAD_BYTES)
        heads.append(log.head)
    log.close()
    return contents, [*starts, starts[-1] + RECORD_OVERHEAD_BYTES + SIZES[-1]], heads


def refused(bench, match, **changes):
    """The next open is refused with this, and changes nothing."""
    before = {path: bench.content(path) for path in bench.segments()}
    with pytest.raises(StoreDamagedError, match=match) as caught:
        bench.open(**changes)
    assert {path: bench.content(path) for path in bench.segments()} == before
    return caught.value


@pytest.mark.parametrize("hole", [(0, 1), (0, 20), (0, 120), (2, 40), (30, 90), (40, 41)], ids=str)
def test_a_flipped_bit_before_a_record_that_was_synced_is_damage_whatever_torn_group_follows(bench, five, hole):
    """Found by tools/proof_simulation.py: a hole at the beginning of the torn group hid the record that was proof."""
    _, starts, heads = five
    whole = bench.content()
    torn = bytearray(encode_record(heads[-1].chain, payload(7, 300), after_sync=True) + b"more of the group")
    torn[hole[0] : hole[1]] = bytes(hole[1] - hole[0])
    for offset in range(starts[3], starts[4]):
        changed = bytearray(whole)
        changed[starts[5] : starts[5] + len(torn)] = torn
        changed[offset] ^= 1 << offset % 8
        bench.overwrite(FIRST, bytes(changed))
        refused(bench, f"damaged at offset {starts[3]}, commit_ts 4: .* was written after it had been synced")


# A torn tail


@pytest.mark.parametrize("grown_back", [False, True], ids=["file cut", "zeros"])
def test_the_tail_cut_at_every_byte_of_the_last_three_records(bench, five, grown_back):
    contents, starts, heads = five
    whole = bench.content()
    for cut in range(starts[2], starts[5]):
        bench.overwrite(FIRST, whole[:cut].ljust(len(whole), b"\0") if grown_back else whole[:cut])
        kept = sum(start <= cut for start in starts[1:])
        log = bench.open()
        assert bench.payloads() == contents[:kept]
        assert log.head == heads[kept]
        left = whole[starts[kept] : cut].rstrip(b"\0")
        if left:
            (told,) = bench.cuts
            assert (told.path, told.offset, told.commit_ts) == (FIRST, starts[kept], kept + 1)
            assert told.dropped_bytes == len(left)
            assert told.reason
        else:
            assert bench.cuts == []
        assert bench.content()[starts[kept] :].strip(b"\0") == b""
        commit(log, [payload(100)])
        log.close()
        bench.open(verify_all=True).close()
        assert bench.payloads() == [*contents[:kept], payload(100)]
        assert bench.cuts == []
        for path in bench.segments()[1:]:  # begun because the cut file had no room
            bench.disk.remove(path)


def test_a_cut_below_the_watermark_is_refused(bench, five):
    _, starts, heads = five
    whole = bench.content()
    for cut in range(starts[2], starts[5]):
        bench.overwrite(FIRST, whole[:cut])
        kept = sum(start <= cut for start in starts[1:])
        what = rf"damaged at offset {starts[kept]}, commit_ts {kept + 1}|ends at commit_ts {kept}, and the view has 5"
        refused(bench, what, known_good=heads[5])


def test_old_bytes_of_a_cut_tail_never_remain(bench):
    log = bench.open(segment_bytes=1 << 16)
    _, placement = commit(log, [payload(1)], [payload(2, 30_000)])
    log.close()
    whole = bench.content()
    bench.disk.flip_bit(FIRST, placement.offset + 50)
    bench.open().close()
    assert bench.payloads() == [payload(1)]
    assert bench.content() == whole[: placement.offset - RECORD_OVERHEAD_BYTES].ljust(len(whole), b"\0")


@pytest.mark.parametrize("seed", range(300))
def test_an_unsynced_group_torn_by_power_loss_recovers_an_exact_prefix_with_all_that_was_synced(seed):
    rng = random.Random(seed)
    bench = make_bench()
    log = bench.open()
    synced, written = [], []
    for turn in range(rng.randint(1, 8)):
        contents = [payload(turn * 100 + number, rng.randint(2, 1500)) for number in range(rng.randint(1, 5))]
        if rng.random() < 0.5 and log.next_segment_needed:
            log.prepare_next_segment()
        log.append(contents)
        written += contents
        if rng.random() < 0.1:
            log.roll_back()
            del written[-len(contents) :]
        if turn == 0 or rng.random() < 0.8:
            log.sync()
            synced = list(written)
    for after_crash in range(4):
        found = make_bench(bench.disk.crash(rng))
        after = found.open()
        payloads = found.payloads()
        assert payloads == written[: len(payloads)], (seed, after_crash)
        assert len(payloads) >= len(synced), (seed, after_crash)
        assert after.head.commit_ts == len(payloads)
        commit(after, [payload(10_000)])
        after.close()
        found.open(verify_all=True).close()
        assert found.payloads() == [*payloads, payload(10_000)]
        assert found.cuts == []


# A bad record


@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("known", [None, "below", "above"])
def test_a_bit_flipped_in_every_byte_of_an_earlier_record_is_refused_and_named(bench, five, victim, known):
    _, starts, heads = five
    known_good = {None: None, "below": heads[victim], "above": heads[5]}[known]
    for offset in range(starts[victim], starts[victim + 1]):
        bit = random.Random(offset).randrange(8)
        bench.disk.flip_bit(FIRST, offset, bit)
        error = refused(
            bench,
            f"^{FIRST}: damaged at offset {starts[victim]}, commit_ts {victim + 1}: .*nothing was changed",
            known_good=known_good,
        )
        assert error.details == {"file": FIRST, "offset": str(starts[victim]), "commit_ts": str(victim + 1)}
        bench.disk.flip_bit(FIRST, offset, bit)
    bench.open(known_good=known_good).close()


@pytest.mark.parametrize("bit", range(32))
def test_every_bit_of_an_earlier_length(bench, five, bit):
    _, starts, _ = five
    bench.disk.flip_bit(FIRST, starts[3] + 3 - bit // 8, bit % 8)
    refused(
        bench,
        f"offset {starts[3]}, commit_ts 4: .*the record at offset {starts[4]} was written after it had been synced",
    )


def test_the_reason_is_told(bench, five):
    _, starts, heads = five
    bench.disk.flip_bit(FIRST, starts[1] + 40)
    refused(bench, f"the record at offset {starts[2]} was written after it had been synced")
    refused(bench, r"the view has all commits up to 3", known_good=heads[3])


def test_a_length_that_becomes_zero_is_not_the_end(bench):
    log = bench.open()
    placements = commit(log, [payload(1, 64)], [payload(2)])
    log.close()
    start = placements[0].offset - RECORD_OVERHEAD_BYTES
    bench.overwrite(FIRST, bench.content()[:start] + bytes(4) + bench.content()[start + 4 :])
    refused(bench, f"offset {start}, commit_ts 1: a length of zero, and it is not the end")


def test_the_last_record_is_a_torn_tail_unless_the_view_has_it(bench, five):
    contents, starts, heads = five
    for offset in range(starts[4], starts[5]):
        bench.disk.flip_bit(FIRST, offset)
        refused(bench, f"offset {starts[4]}, commit_ts 5", known_good=heads[5])
        whole = bench.content()
        bench.open(known_good=heads[4]).close()
        assert bench.found == []
        assert bench.cuts[0].commit_ts == 5
        bench.overwrite(FIRST, whole)
        bench.disk.flip_bit(FIRST, offset)
    bench.open().close()
    assert bench.payloads() == contents


def test_within_the_last_group_a_bad_record_is_a_torn_tail_though_whole_ones_follow(bench):
    log = bench.open()
    commit(log, [payload(1)])
    placements = log.append([payload(number) for number in range(2, 8)])
    log.sync()
    log.close()
    bench.disk.flip_bit(FIRST, placements[2].offset)
    bench.open().close()
    assert bench.payloads() == [payload(1), payload(2), payload(3)]
    assert bench.cuts[0].dropped_bytes == 4 * 96


def test_without_fsync_nothing_says_what_was_synced_and_the_rest_is_cut_and_told(bench):
    log = bench.open(fsync=False)
    commit(log, *[[payload(number)] for number in range(5)])
    log.close()
    bench.disk.flip_bit(FIRST, HEADER_BYTES + 96 + 50)
    bench.open(fsync=False).close()
    assert bench.payloads() == [payload(0)]
    assert bench.cuts[0].dropped_bytes == 4 * 96


@pytest.mark.parametrize("before_the_border", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [60, 800])
def test_without_fsync_the_zeros_of_a_length_at_a_sectors_end_are_no_loss_of_power(bench, before_the_border, size):
    log = bench.open(fsync=False)
    filler = 512 - before_the_border - HEADER_BYTES - RECORD_OVERHEAD_BYTES
    placements = commit(log, [payload(1, filler)], [payload(2, size)], [payload(3)])
    head = log.head
    log.close()
    whole, start = bench.content(), placements[1].offset - RECORD_OVERHEAD_BYTES
    for offset in range(start + 4, start + RECORD_OVERHEAD_BYTES + size):
        bench.overwrite(FIRST, whole[:offset] + bytes((whole[offset] ^ 1,)) + whole[offset + 1 :])
        error = refused(bench, f"damaged at offset {start}, commit_ts 2: .*the view has", known_good=head, fsync=False)
        assert error.details["offset"] == str(start)
    lost = bytes(before_the_border)
    bench.overwrite(FIRST, whole[:start] + lost + whole[512:])  # as it was before the record was written
    if any(whole[start:512]):
        with pytest.raises(ViewDisagreesError):
            bench.open(known_good=head, fsync=False)
    else:
        bench.open(known_good=head, fsync=False).close()


def test_without_fsync_a_length_that_reaches_into_the_zeros_at_the_end_is_no_loss_of_power(bench):
    log = bench.open(fsync=False)
    commit(log, [payload(1)], [payload(2, 700)])
    head = log.head
    log.close()
    whole, start = bench.content(), HEADER_BYTES + RECORD_OVERHEAD_BYTES + 60
    refusals = set()
    for bit in range(32):
        length = int.from_bytes(whole[start : start + 4]) ^ 1 << bit
        bench.overwrite(FIRST, whole[:start] + length.to_bytes(4) + whole[start + 4 :])
        refusals.add(refused(bench, "damaged at offset", known_good=head, fsync=False).details["offset"])
    assert refusals == {str(start)}


@pytest.mark.parametrize("wreck", ["zeros", "noise", "newlines"])
@pytest.mark.parametrize("group", [1, 3])
def test_many_records_wrecked_at_once_are_refused_when_two_whole_ones_follow(bench, wreck, group):
    log = bench.open(segment_bytes=1 << 16)
    placements = commit(log, *[[payload(turn * group + number) for number in range(group)] for turn in range(30)])
    log.close()
    start, stop = placements[10 * group].offset - 20, placements[20 * group].offset + 7
    noise = {
        "zeros": bytes(stop - start),
        "noise": random.Random(1).randbytes(stop - start),
        "newlines": b"\n" * (stop - start),
    }
    content = bench.content()
    bench.overwrite(FIRST, content[:start] + noise[wreck] + content[stop:])
    refused(bench, rf"commit_ts {10 * group + 1}: .*the record at offset \d+ was written after it had been synced")


def test_a_whole_last_group_is_found_though_all_before_it_is_wrecked(bench):
    log = bench.open()
    placements = commit(log, *[[payload(number)] for number in range(5)], [payload(5), payload(6)])
    log.close()
    start, stop = HEADER_BYTES + 10, placements[5].offset - RECORD_OVERHEAD_BYTES
    content = bench.content()
    bench.overwrite(FIRST, content[:start] + random.Random(1).randbytes(stop - start) + content[stop:])
    refused(bench, f"commit_ts 1: .*the record at offset {stop} was written after it had been synced")


def test_the_search_is_near_linear_in_a_large_torn_tail():
    rng = random.Random(4)
    words = (b"\n\x04tool", b"\x12\x02id\n", bytes(5), b"\x80\x01\n", b'{"key": 1}\n')
    tails = {
        "noise": rng.randbytes(1 << 20),
        "words": b"".join(rng.choices(words, k=1 << 17)),
        "newlines": b"\n" * (1 << 19),
        "lengths": (b"\0\0\1\0" + b"\n" * 60) * (1 << 13),
    }
    for name, tail in tails.items():
        before = time.process_time()
        evidence = evidence_of_sync(b"\0\0\0\x09" + tail + bytes(1 << 20), bytes(32), 72)
        assert evidence is None or "too much like records" in evidence
        assert time.process_time() - before < 30, name  # a second or so; quadratic would be hours


def test_a_tail_made_to_look_like_records_everywhere_is_refused_and_not_hashed_for_ever(monkeypatch):
    # Every 40 bytes a header whose record ends at the last one: each candidate is worth a hash of all that follows.
    count = 4000
    tail = b"".join(struct.pack(">I", 40 * (count - index) - 36) + b"c" * 32 + b"\n..." for index in range(count))
    monkeypatch.setattr(log_damage, "_SEARCH_HASH_FACTOR", 2)
    assert "too much like records" in evidence_of_sync(tail + bytes(1000), bytes(32), 72)


def test_a_flagged_record_in_the_middle_of_what_follows_is_found_behind_unflagged_ones(bench):
    log = bench.open()
    commit(log, [payload(1), payload(2), payload(3)], [payload(4)])
    log.close()
    for victim in (0, 1, 2):
        offset = HEADER_BYTES + victim * 96 + 36
        bench.disk.flip_bit(FIRST, offset)
        refused(bench, f"commit_ts {victim + 1}: .*the record at offset {HEADER_BYTES + 3 * 96} was")
        bench.disk.flip_bit(FIRST, offset)


@pytest.mark.parametrize("lost", ["the first sector", "the second sector"])
@pytest.mark.parametrize("header_bytes_before_the_border", [1, 4, 5, 36, 37, 100, 512])
@pytest.mark.parametrize("hit", [1, 3, 4, 40])
def test_a_torn_tail_behind_it_hides_no_record_that_was_written_after_a_sync(
    bench, lost, header_bytes_before_the_border, hit
):
    """Found by tools/proof_simulation.py: power loss in a commit, and a bit of the last but one that was answered."""
    log = bench.open()
    border = 1024
    filler = border - header_bytes_before_the_border - HEADER_BYTES - 3 * RECORD_OVERHEAD_BYTES - 2 * 60
    placements = commit(log, [payload(1, filler)], [payload(2, 60)], [payload(3, 60)])
    log.append([payload(4, 1400)])
    torn = placements[2].offset + 60
    assert torn == border - header_bytes_before_the_border
    content = bytearray(bench.content())
    start, stop = (torn, border) if lost == "the first sector" else (border, border + 512)
    content[start:stop] = bytes(stop - start)
    bench.overwrite(FIRST, bytes(content))
    bench.disk.flip_bit(FIRST, placements[1].offset - RECORD_OVERHEAD_BYTES + hit)
    refused(
        bench, f"commit_ts 2: .*the record at offset {placements[2].offset - RECORD_OVERHEAD_BYTES} was written after"
    )


# Segments


@pytest.fixture
def segments(bench):
    """A closed log of seven segments with two commits each: the paths, and every head."""
    log = bench.open()
    heads = [log.head]
    for number in range(14):
        commit(log, [payload(number, 1900)])
        heads.append(log.head)
    log.close()
    paths = bench.segments()
    assert [int(path[-24:-4]) for path in paths] == [1, 3, 5, 7, 9, 11, 13]
    return paths, heads


def opens_that_refuse(bench, heads, match):
    """Full, from nothing, and with the view up to date: all refuse."""
    for changes in ({"verify_all": True, "known_good": heads[14]}, {}, {"known_good": heads[14]}):
        refused(bench, match, **changes)


@pytest.mark.parametrize("cut", [1, 100, 1936, 1937, 3800])
def test_a_sealed_segment_cut_at_its_end(bench, segments, cut):
    paths, heads = segments
    bench.overwrite(paths[2], bench.content(paths[2])[:-cut])
    offset, commit_ts = (HEADER_BYTES + 1936, 6) if cut <= 1936 else (HEADER_BYTES, 5)
    opens_that_refuse(bench, heads, f"{paths[2]}: damaged at offset {offset}, commit_ts {commit_ts}: ")


@pytest.mark.parametrize("index", [0, 2, 6])
def test_a_segment_cut_in_its_header(bench, segments, index):
    paths, heads = segments
    whole = bench.content(paths[index])
    for size in range(0, HEADER_BYTES, 9):
        bench.overwrite(paths[index], whole[:size])
        opens_that_refuse(bench, heads, f"{paths[index]}: damaged at offset 0, .*cut: {size} of 72")


def test_a_sealed_segment_with_a_flipped_bit(bench, segments):
    paths, heads = segments
    match = f"{paths[2]}: damaged at offset {HEADER_BYTES + 1936}, commit_ts 6: the chain value .*{paths[3]} follows"
    bench.disk.flip_bit(paths[2], HEADER_BYTES + 1936 + 500)
    for changes in (
        {"verify_all": True, "known_good": heads[14]},
        {},
        {"known_good": heads[6]},
        {"known_good": heads[5]},
    ):
        refused(bench, match, **changes)
    bench.open(known_good=heads[14]).close()  # below the watermark's segment, only joins are checked


def test_a_missing_segment(bench, segments):
    paths, heads = segments
    kept = bench.content(paths[2])
    bench.disk.remove(paths[2])
    opens_that_refuse(
        bench, heads, f"{paths[1]}: damaged at offset .*, commit_ts 5: .*{paths[3]}, begins at commit_ts 7"
    )
    bench.overwrite(paths[2], kept)
    bench.disk.remove(paths[0])
    opens_that_refuse(bench, heads, f"{paths[1]}: damaged at offset 0, commit_ts 1: .*begins at commit_ts 3.*missing")


def test_a_missing_last_segment_is_seen_by_the_view(bench, segments):
    paths, heads = segments
    bench.disk.remove(paths[6])
    end = HEADER_BYTES + 2 * 1936
    said = f"{paths[5]}, offset {end}: the log ends at commit_ts 12, and the view has 14"
    error = refused(bench, said, known_good=heads[14])
    assert error.details == {"file": paths[5], "offset": str(end), "commit_ts": "13"}
    log = bench.open(known_good=heads[12])  # to a view that has not got there, it never was
    commit(log, [payload(99)])
    log.close()
    assert len(bench.segments()) == 7


def test_all_segments_missing_is_seen_by_the_view_and_no_new_log_is_begun(bench, segments):
    paths, heads = segments
    for path in paths:
        bench.disk.remove(path)
    error = refused(bench, "offset 0: the log ends at commit_ts 0, and the view has 14", known_good=heads[14])
    assert error.details == {"file": FIRST, "offset": "0", "commit_ts": "1"}
    assert bench.disk.list_dir(DIRECTORY) == ["taken-back"]


def test_a_folder_where_a_segment_should_be(bench, segments):
    paths, heads = segments
    for path, first_ts in ((paths[2], 5), (paths[6], 13)):
        kept = bench.content(path)
        bench.disk.remove(path)
        bench.disk.make_dir(path)
        with pytest.raises(StoreDamagedError, match="a folder where the segment should be") as caught:
            bench.open(known_good=heads[14])
        assert caught.value.details == {"file": path, "offset": "0", "commit_ts": str(first_ts)}
        bench.disk.rename(path, "/aside")
        bench.overwrite(path, kept)
        bench.disk.rename("/aside", f"/aside-{first_ts}")
    bench.open(known_good=heads[14]).close()


def test_swapped_segments(bench, segments):
    paths, heads = segments
    second, third = bench.content(paths[1]), bench.content(paths[2])
    bench.overwrite(paths[1], third)
    bench.overwrite(paths[2], second)
    opens_that_refuse(
        bench, heads, f"{paths[1]}: damaged at offset 0, commit_ts 3: .*begins at commit_ts 5, its name says 3"
    )


def test_a_doubled_segment(bench, segments):
    paths, heads = segments
    double = f"{DIRECTORY}/{15:020d}.log"
    bench.overwrite(double, bench.content(paths[2]))
    opens_that_refuse(bench, heads, f"{double}: damaged at offset 0, commit_ts 15: .*begins at commit_ts 5")


def test_a_segment_that_overlaps(bench, segments):
    paths, heads = segments
    double = f"{DIRECTORY}/{4:020d}.log"
    bench.overwrite(
        double, encode_header(SegmentHeader(STORE_ID, 4, heads[3].chain)) + bench.content(paths[1])[72 + 1936 :]
    )
    opens_that_refuse(
        bench, heads, f"{double}: damaged at offset 0, commit_ts 4: the segment does not follow {paths[1]}"
    )


def test_a_segment_whose_header_has_another_chain_value(bench, segments):
    paths, heads = segments
    for index in (0, 3):
        content = bench.content(paths[index])
        bench.overwrite(paths[index], encode_header(SegmentHeader(STORE_ID, 2 * index + 1, b"?" * 32)) + content[72:])
        opens_that_refuse(bench, heads, f"{paths[index]}: damaged at offset 0, commit_ts {2 * index + 1}: ")
        bench.overwrite(paths[index], content)
    bench.open(known_good=heads[14]).close()


def test_a_segment_of_another_store(bench, segments):
    paths, heads = segments
    other = make_bench()
    log = other.open(new_store_id=lambda: b"another store's!")
    commit(log, *[[payload(number, 1900)] for number in range(14)])
    log.close()
    for index in (0, 2, 6):
        content = bench.content(paths[index])
        bench.overwrite(paths[index], other.content(paths[index]))
        opens_that_refuse(bench, heads, f"{paths[max(index, 1)]}: damaged at offset 0, .*another store")
        bench.overwrite(paths[index], content)


def test_records_of_another_store_never_verify(bench, five):
    other = make_bench()
    other.open(new_store_id=lambda: b"another store's!").close()
    bench.overwrite(FIRST, other.content()[:HEADER_BYTES] + bench.content()[HEADER_BYTES:])
    refused(bench, f"{FIRST}: damaged at offset {HEADER_BYTES}, commit_ts 1: the chain value does not match")


@pytest.mark.parametrize("index", [0, 3, 6])
def test_a_bit_flipped_in_every_byte_of_a_header(bench, segments, index):
    paths, heads = segments
    for offset in range(HEADER_BYTES):
        bit = random.Random(offset).randrange(8)
        bench.disk.flip_bit(paths[index], offset, bit)
        error = refused(bench, f"{paths[index]}: damaged at offset 0, commit_ts {2 * index + 1}", known_good=heads[14])
        assert not isinstance(error, NewerFormatError)
        bench.disk.flip_bit(paths[index], offset, bit)


def test_a_newer_format_is_refused_as_such(bench, segments):
    paths, heads = segments
    for path in (paths[0], paths[6]):
        whole = bench.content(path)
        content = bytearray(whole)
        content[8:12] = struct.pack(">I", 2)
        content[68:72] = struct.pack(">I", crc32(content[:68]))
        bench.overwrite(path, bytes(content))
        error = refused(
            bench, f"{path}: written by a newer Statehouse: format 2, this one reads 1", known_good=heads[14]
        )
        assert isinstance(error, NewerFormatError)
        assert error.details == {"file": path, "format": "2"}
        bench.overwrite(path, whole)


def test_a_log_file_by_another_name_is_refused_and_other_files_are_not(bench, five):
    bench.overwrite(f"{DIRECTORY}/notes.txt", b"x")
    bench.overwrite(f"{DIRECTORY}/next.tmp", b"x")
    bench.open().close()
    bench.overwrite(f"{DIRECTORY}/1.log", b"x")
    refused(bench, f"{DIRECTORY}/1.log: .*not that of a segment")


def test_a_sealed_segment_that_was_not_trimmed_is_fine_wherever_it_is(bench, segments):
    paths, heads = segments
    for known_good in (heads[14], None):
        bench.overwrite(paths[2], bench.content(paths[2]).ljust(9000, b"\0"))
        log = bench.open(known_good=known_good)
        assert log.size_bytes == 7 * HEADER_BYTES + 14 * 1936
        log.close()
        assert len(bench.content(paths[2])) == HEADER_BYTES + 2 * 1936
    bench.overwrite(paths[2], bench.content(paths[2]).ljust(9000, b"\0"))
    whole = bench.content(paths[6])
    bench.overwrite(paths[6], whole[:100] + b"?" + whole[101:])
    refused(bench, f"{paths[6]}: damaged", known_good=heads[14])
    assert len(bench.content(paths[2])) == 9000  # what is refused is left as it is
    bench.overwrite(paths[6], whole)
    bench.overwrite(paths[2], bench.content(paths[2]).ljust(9000, b"\0") + b"x")
    refused(bench, f"{paths[2]}: damaged at offset {HEADER_BYTES + 2 * 1936}, commit_ts 7: a length of zero")


@pytest.mark.parametrize("size", [100, 5000, 70_000, 1_100_000])
def test_joins_are_found_behind_records_of_any_size(bench, size):
    log = bench.open()
    commit(log, [payload(1, 30)], [payload(2, size)], [payload(3, size)], [payload(4, 4000)])
    known_good = log.head
    log.close()
    bench.open(known_good=known_good).close()
    assert bench.found == []


# The view


def test_a_view_of_another_history_is_told_before_any_record(bench, five):
    _, _, heads = five
    for commit_ts in range(6):
        for verify_all in (False, True):
            with pytest.raises(ViewDisagreesError):
                bench.open(known_good=LogHead(commit_ts, b"?" * 32), verify_all=verify_all)
            assert bench.found == []
            bench.open(known_good=heads[commit_ts], verify_all=verify_all).close()
            assert [record.commit_ts for record in bench.found] == list(range(commit_ts + 1, 6))


def test_a_view_of_another_history_over_segments(bench, segments):
    _, heads = segments
    for commit_ts in range(15):
        with pytest.raises(ViewDisagreesError):
            bench.open(known_good=LogHead(commit_ts, b"?" * 32))
        assert bench.found == []
        bench.open(known_good=heads[commit_ts]).close()
        assert [record.commit_ts for record in bench.found] == list(range(commit_ts + 1, 15))


def test_a_view_of_another_history_is_kept_when_the_log_is_damaged_behind_that(bench, segments):
    paths, heads = segments
    other = LogHead(4, heads[5].chain)
    with pytest.raises(ViewDisagreesError):
        bench.open(known_good=other)
    whole = bench.content(paths[4])
    bench.overwrite(paths[4], whole[:500] + b"?" + whole[501:])
    refused(bench, f"{paths[4]}: damaged at offset {HEADER_BYTES}, commit_ts 9", known_good=other)


def test_a_view_without_a_log_disagrees_with_the_new_one(bench):
    with pytest.raises(ViewDisagreesError):
        bench.open(known_good=LogHead(0, genesis_chain(b"another store's!")))
    bench.open().close()


def test_a_record_forged_with_a_good_chain_is_a_record(bench):
    """The chain finds damage, not a forger with the whole log: only a head kept elsewhere does. Nothing hidden here."""
    bench.open().close()
    content = bench.content()
    forged = encode_record(genesis_chain(STORE_ID), payload(1), after_sync=False)
    bench.overwrite(FIRST, content[:HEADER_BYTES] + forged + content[HEADER_BYTES + len(forged) :])
    bench.open().close()
    assert bench.payloads() == [payload(1)]
    refused(bench, re.escape("and the view has 2"), known_good=LogHead(2, b"?" * 32))
