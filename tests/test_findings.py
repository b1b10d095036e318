"""Heads as text, and findings as lines."""

from pathlib import Path

import pytest

from statehouse.findings import HEADS_AT_MOST, FindingKind, Head, VerifyFinding, VerifyVerdict, distinct

CHAIN = bytes(range(32))


def test_a_head_is_a_line_and_back():
    head = Head(12, CHAIN, b"store")
    assert str(head) == f"12:{CHAIN.hex()}"
    assert Head.parse(f"  {str(head).upper()}\n") == head
    assert Head.parse(str(Head(0, CHAIN))).commit_ts == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        f"12:{CHAIN.hex()[1:]}",
        f"12:{CHAIN.hex()}0",
        f"-1:{CHAIN.hex()}",
        f"x:{CHAIN.hex()}",
        f"{2**64}:{CHAIN.hex()}",
        f"\N{ARABIC-INDIC DIGIT ONE}:{CHAIN.hex()}",
        f"1:{'g' * 64}",
        f"1::{CHAIN.hex()}",
    ],
)
def test_what_is_no_head(text):
    with pytest.raises(ValueError, match="TS:CHAIN"):
        Head.parse(text)


def test_heads_in_a_file():
    text = f"# kept by cron\n\n1:{CHAIN.hex()}\n  # again\n2:{CHAIN.hex()}\r\n"
    assert Head.parse_lines(text) == [Head(1, CHAIN), Head(2, CHAIN)]
    with pytest.raises(ValueError, match="line 2: "):
        Head.parse_lines(f"1:{CHAIN.hex()}\nnothing")


def test_distinct_heads():
    assert distinct([Head(1, CHAIN), Head(1, CHAIN, b"s"), Head(2, CHAIN)]) == [Head(1, CHAIN), Head(2, CHAIN)]
    with pytest.raises(ValueError, match="at most"):
        distinct(Head(ts, CHAIN) for ts in range(HEADS_AT_MOST + 1))
    with pytest.raises(ValueError, match="32 bytes"):
        distinct([Head(1, b"short")])
    with pytest.raises(ValueError, match="64 bits"):
        distinct([Head(2**64, CHAIN)])


def test_a_finding_says_what_where_and_what_to_do():
    finding = VerifyFinding(
        kind=FindingKind.RECORD_DAMAGED, message="bad", remedy="restore", file="log/1.log", offset=0, commit_ts=3
    )
    assert str(finding) == "FOUND record-damaged  file=log/1.log  offset=0  commit_ts=3  bad; restore"
    assert str(VerifyFinding(kind="leftover", message="m", is_note=True)) == "note leftover  m"


def test_a_verdict_in_a_line():
    counts = {"log_bytes": 1234, "records": 1, "rows": 2, "snapshots": 0, "heads": 1, "seconds": 1.25}
    sound = VerifyVerdict(sound=True, findings=0, notes=1, head=Head(1, CHAIN), **counts)
    assert str(sound) == (
        f"sound, 1 note; head 1:{CHAIN.hex()}; 1 record, 2 rows, 0 snapshots, 1 known head; 1,234 bytes of log; 1.2 s"
    )
    assert str(VerifyVerdict(sound=False, findings=2, notes=0, head=Head(1, CHAIN), **counts)).startswith(
        "NOT SOUND: 2 findings; head"
    )


def test_every_finding_is_on_the_page_and_every_note_is_called_one():
    page = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("### What is found")[2].partition("### ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    for kind in FindingKind:
        (row,) = [line for line in rows if f"`{kind}`" in line.split("|")[1]]
        assert ("(note" in row.split("|")[1]) is kind.is_note, row
