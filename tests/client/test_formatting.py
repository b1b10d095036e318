import datetime as dt
import json

import pytest

from statehouse import Operation, ReplayEvent
from statehouse.client.formatting import event_json, event_lines, shorten_key, summarize

AT = dt.datetime(2026, 3, 4, 5, 6, 7, 891234, tzinfo=dt.UTC)


def event(*operations, **changes):
    fields = {"txn_id": "t-1", "commit_ts": 42, "namespace": "default", "agent_id": "agent-1", "committed_at": AT}
    return ReplayEvent(operations=operations, **{**fields, **changes})


def test_an_event_is_a_line_for_each_operation():
    lines = list(
        event_lines(
            event(
                Operation("memory", {"fact": "the sky is blue", "n": 1}, 3),
                Operation("tool/0001", {"name": "ls"}, 1),
                Operation("note/a", {"text": "x"}, 1),
                Operation("annotation/a", {}, 1),
                Operation("final/answer", {"a": [1, None, True, 1.5]}, 1),
                Operation("answer/x", {}, 2),
                Operation("tool/0000", None, 9),
                Operation("tools", {}, 1),
            )
        )
    )
    assert lines == [
        '05:06:07Z  agent=agent-1  WRITE  key=memory  v=3  {"fact":"the sky is blue","n":1}',
        '05:06:07Z  agent=agent-1  TOOL  key=tool/0001  v=1  {"name":"ls"}',
        '05:06:07Z  agent=agent-1  NOTE  key=note/a  v=1  {"text":"x"}',
        "05:06:07Z  agent=agent-1  NOTE  key=annotation/a  v=1  {}",
        '05:06:07Z  agent=agent-1  FINAL  key=final/answer  v=1  {"a":[1,null,true,1.5]}',
        "05:06:07Z  agent=agent-1  FINAL  key=answer/x  v=2  {}",
        "05:06:07Z  agent=agent-1  DEL  key=tool/0000  v=9",
        "05:06:07Z  agent=agent-1  WRITE  key=tools  v=1  {}",
    ]


def test_verbose_adds_ids_and_the_payload():
    lines = list(event_lines(event(Operation("k", {"b": "x" * 90, "a": 1}, 1), Operation("d", None, 2)), verbose=True))
    assert lines == [
        "05:06:07Z  agent=agent-1  WRITE  key=k  v=1  txn=t-1  event=42  {a:…, n_fields=2}",
        '  payload: {"a":1,"b":"' + "x" * 90 + '"}',
        "05:06:07Z  agent=agent-1  DEL  key=d  v=2  txn=t-1  event=42",
    ]


def test_what_does_not_last_says_so_and_what_has_expired():
    operations = Operation("k", {"n": 1}, 1, ttl_s=60), Operation("k", None, 2, expired=True), Operation("d", None, 3)
    assert list(event_lines(event(*operations))) == [
        '05:06:07Z  agent=agent-1  WRITE  key=k  v=1  ttl_s=60  {"n":1}',
        "05:06:07Z  agent=agent-1  DEL  key=k  v=2  expired",
        "05:06:07Z  agent=agent-1  DEL  key=d  v=3",
    ]
    assert json.loads(event_json(event(*operations)))["operations"] == [
        {"key": "k", "value": {"n": 1}, "version": 1, "ttl_s": 60},
        {"key": "k", "value": None, "version": 2, "expired": True},
        {"key": "d", "value": None, "version": 3},
    ]


def test_metadata_is_in_the_verbose_line_only_and_the_namespace_when_it_is_wanted():
    changed = event(Operation("k", {}, 1), metadata={"run": "r\n1", "a": "b"}, namespace="n\x1b")
    assert list(event_lines(changed)) == ["05:06:07Z  agent=agent-1  WRITE  key=k  v=1  {}"]
    assert list(event_lines(changed, namespace=True)) == [
        r"05:06:07Z  namespace=n\x1b  agent=agent-1  WRITE  key=k  v=1  {}"
    ]
    assert next(event_lines(changed, verbose=True)) == (
        r'05:06:07Z  agent=agent-1  WRITE  key=k  v=1  txn=t-1  event=42  metadata={"a":"b","run":"r\n1"}  {}'
    )


def test_the_time_is_utc_and_may_be_unknown():
    elsewhere = AT.astimezone(dt.timezone(dt.timedelta(hours=-7)))
    assert next(event_lines(event(Operation("k", {}, 1), committed_at=elsewhere))).startswith("05:06:07Z  ")
    assert next(event_lines(event(Operation("k", {}, 1), committed_at=None))).startswith("--:--:--Z  agent=")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("k" * 48, "k" * 48),
        ("k" * 49, "k" * 45 + "..."),
        ("head/" + "m" * 60 + "/tail", "head/" + "m" * 18 + "..." + "m" * 17 + "/tail"),
        ("a\nb", r"a\nb"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\u202eb", r"a\u202eb"),
        ("🙂/é", "🙂/é"),
    ],
)
def test_keys_are_cut_and_stay_on_one_line(key, shown):
    assert shorten_key(key) == shown
    assert len(shown) <= 48


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("short", "short"),
        ("two\nlines", r"two\nlines"),
        ("s" * 120, "s" * 120),
        ("s" * 121, "s" * 117 + "..."),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        ([1, "a", None], '[1,"a",null]'),
        (list(range(100)), "len=100"),
        ({"b": 1, "a": "two\nlines"}, r'{"a":"two\nlines","b":1}'),
        ({"a": "x" * 71}, '{"a":"' + "x" * 71 + '"}'),
        ({"a": "x" * 72}, "{a:…, n_fields=1}"),
        ({"zeta": "x" * 80, "alpha": 1, "mid": 2}, "{alpha:…, n_fields=3}"),
        ({"a": "\x7f\u2028"}, r'{"a":"\u007f\u2028"}'),
    ],
)
def test_values_are_summed_up(value, shown):
    assert summarize(value) == shown


def test_json_is_one_line_that_reads_back():
    changed = event(Operation("k\n\u2028", {"text": "a\nb\x7f", "list": [{}]}, 1), Operation("d", None, 2))
    line = event_json(changed)
    assert line.splitlines() == [line]
    assert json.loads(line) == changed.to_dict()
    assert changed.to_dict() == {
        "txn_id": "t-1",
        "commit_ts": 42,
        "committed_at": "2026-03-04T05:06:07.891234Z",
        "namespace": "default",
        "agent_id": "agent-1",
        "operations": [
            {"key": "k\n\u2028", "value": {"text": "a\nb\x7f", "list": [{}]}, "version": 1},
            {"key": "d", "value": None, "version": 2},
        ],
    }


def test_the_repr_of_an_event_is_short_and_tells_what_happened():
    assert repr(event(Operation("k", {"a": "x" * 1000}, 1), Operation("d", None, 2))) == (
        "ReplayEvent(commit_ts=42, agent_id='agent-1', namespace='default', txn_id='t-1', "
        "operations=[WRITE 'k' v1, DEL 'd' v2])"
    )
    many = repr(event(*[Operation(f"k{number}", {}, 1) for number in range(10)]))
    assert many.endswith("WRITE 'k3' v1, and 6 more])")
