"""statehousectl history and diff, and get, keys and dump as of a point."""

import datetime as dt
import json
import re

import pytest

from statehouse import Put, Remove
from statehouse.cli.exit_codes import ControlExit
from statehouse.client.types import DiffEntry, HistoryEntry, StateResult

AT = dt.datetime(2026, 3, 4, 5, 6, 7, 891234, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def past(module_client):
    """An agent's three commits, and the time between the first two."""
    first = module_client.transact(
        [Put("p", "a", {"n": 1}), Put("p", "gone", {}), Put("p", "odd\nkey", {"n": 1})], metadata={"run": "r-1"}
    )
    second = module_client.transact([Put("p", "a", {"n": 2}), Put("p", "brief", {})])
    third = module_client.transact([Remove("p", "gone"), Remove("p", "brief"), Put("p", "new", {"text": "x" * 90})])
    return [first.commit_ts, second.commit_ts, third.commit_ts]


def times(text):
    return re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text, flags=re.MULTILINE)


def test_history(ctl_there, past):
    first, second, _ = past
    code, out, err = ctl_there("history", "p", "a")
    lines = f'TIME  v=2  commit_ts={second}  WRITE  {{"n":2}}\nTIME  v=1  commit_ts={first}  WRITE  {{"n":1}}\n'
    assert (code, times(out), err) == (0, lines, "")
    assert times(ctl_there("history", "p", "gone", "-n", "1")[1]) == f"TIME  v=2  commit_ts={past[2]}  DEL\n"
    assert times(ctl_there("history", "p", "a", "--before-version", "2")[1]) == lines.splitlines(keepends=True)[1]
    assert ctl_there("history", "p", "a", "--before-version", "1") == (0, "", "")


def test_history_verbose_and_for_programs(ctl_there, past):
    out = times(ctl_there("history", "p", "a", "-v", "--before-version", "2")[1])
    txn = re.search(r"txn=(\S+)", out)[1]
    assert out == (
        f'TIME  v=1  commit_ts={past[0]}  WRITE  txn={txn}  metadata={{"run":"r-1"}}  {{"n":1}}\n  payload: {{"n":1}}\n'
    )
    newest, oldest = map(json.loads, ctl_there("history", "p", "a", "--json")[1].splitlines())
    assert (newest["value"], newest["version"], newest["exists"]) == ({"n": 2}, 2, True)
    assert (oldest["txn_id"], oldest["metadata"]) == (txn, {"run": "r-1"})


def test_the_history_of_what_was_never_written(ctl_there, past):
    assert ctl_there("history", "p", "nothing") == (
        1,
        "",
        "statehousectl: key 'nothing' of agent 'p' was never written\n",
    )


def test_what_came_before_a_failure_is_printed(run_ctl, made_up_client):
    def history(*_):
        yield HistoryEntry({}, 2, 9, exists=True, txn_id="t", committed_at=AT)
        raise ConnectionResetError

    made_up_client(history=history)
    code, out, _ = run_ctl("history", "p", "a")
    assert (code, out) == (ControlExit.BUG, "2026-03-04T05:06:07Z  v=2  commit_ts=9  WRITE  {}\n")


def test_diff(ctl_there, past):
    assert ctl_there("diff", "p", "--from", past[0]) == (
        0,
        (
            'CHANGED  key=a  v=1->2  {"n":2}\n'
            "ABSENT  key=brief  v=0->2\n"
            "REMOVED  key=gone  v=1->2\n"
            "ADDED  key=new  v=0->1  {text:…, n_fields=1}\n"
        ),
        "",
    )
    assert ctl_there("diff", "p", "--to", past[0], "--prefix", "o")[1] == 'ADDED  key=odd\\nkey  v=0->1  {"n":1}\n'
    assert ctl_there("diff", "p", "--from", past[2]) == (0, "", "")
    assert ctl_there("diff", "p", "--from-time", "2020-01-01T00:00:00Z", "--to", past[1], "--prefix", "a", "-v")[1] == (
        'ADDED  key=a  v=0->2  {"n":2}\n  after: {"n":2}\n'
    )


def test_diff_for_programs(ctl_there, past):
    found = [json.loads(line) for line in ctl_there("diff", "p", "--from", past[0], "--json")[1].splitlines()]
    assert [each["key"] for each in found] == ["a", "brief", "gone", "new"]
    assert found[0]["before"] == {"exists": True, "value": {"n": 1}, "version": 1, "commit_ts": past[0]}
    assert found[2]["after"] == {"exists": False, "value": None, "version": 2, "commit_ts": past[2]}


def test_diff_shows_both_values_when_asked(run_ctl, made_up_client):
    before, after = StateResult({"n": 1}, 1, 1, exists=True), StateResult({"n": 2}, 2, 2, exists=True)
    made_up_client(diff=lambda *_, **__: iter([DiffEntry("k\x1b", before, after)]))
    assert run_ctl("diff", "a", "-v")[1] == (
        'CHANGED  key=k\\x1b  v=1->2  {"n":2}\n  before: {"n":1}\n  after: {"n":2}\n'
    )


def test_get_as_of_a_point(ctl_there, past):
    assert json.loads(ctl_there("get", "p", "a", "--at", past[0])[1]) == {"n": 1}
    assert json.loads(ctl_there("get", "p", "a", "--at", 2**64 - 1)[1]) == {"n": 2}
    now = dt.datetime.now(dt.timezone(dt.timedelta(hours=9))) + dt.timedelta(minutes=1)
    assert json.loads(ctl_there("get", "p", "a", "--at-time", now.isoformat())[1]) == {"n": 2}
    assert ctl_there("get", "p", "a", "--at-time", "2020-01-01T00:00:00+00:00") == (
        1,
        "",
        "statehousectl: key 'a' of agent 'p' was not written yet\n",
    )
    assert ctl_there("get", "p", "gone", "--at", past[2])[0] == 1


def test_keys_and_dump_as_of_a_point(ctl_there, past):
    assert ctl_there("keys", "p", "--at", past[1]) == (0, "a\nbrief\ngone\nodd\\nkey\n", "")
    assert ctl_there("keys", "p", "--at-time", "2020-01-01T00:00:00Z") == (0, "", "")
    dumped = json.loads(ctl_there("dump", "p", "--at", past[0])[1])
    assert dumped["keys"] == {
        key: {"value": value, "version": 1, "commit_ts": past[0]}
        for key, value in (("a", {"n": 1}), ("gone", {}), ("odd\nkey", {"n": 1}))
    }
    assert ctl_there("dump", "p", "--jsonl", "--at", 0) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "p", "a", "--at", "1", "--at-time", "2030-01-01T00:00:00Z"], "--at and --at-time exclude each other"),
        (["get", "p", "a", "--at", "1", "--at-version", "1"], "--at-version and a point in time exclude each other"),
        (["keys", "p", "--at", "-1"], "-1 is not in the range"),
        (["keys", "p", "--at-time", "yesterday"], "'yesterday' is not a time; write it as 2030-01-31T12:00:00Z"),
        (["dump", "p", "--at-time", "2030-01-01T00:00:00"], "has no time zone; write 2030-01-31T12:00:00Z"),
        (["get", "p", "a", "--at-time", "0001-01-01T00:00:00+05:00"], "is outside the years 1 to 9999, in UTC"),
        (["replay", "p", "--start-time", "0001-01-01T00:00:00+05:00"], "is outside the years 1 to 9999, in UTC"),
        (["diff", "p", "--to-time", "9999-12-31T23:59:59-05:00"], "is outside the years 1 to 9999, in UTC"),
        (["diff", "p", "--from", "1", "--from-time", "2030-01-01T00:00:00Z"], "--from and --from-time exclude"),
        (["diff", "p", "--to", "1", "--to-time", "2030-01-01T00:00:00Z"], "--to and --to-time exclude each other"),
        (["history", "p", "a", "--before-version", "0"], "0 is not in the range"),
        (["history", "p", "a", "-n", "0"], "0 is not in the range"),
    ],
)
def test_bad_usage(run_ctl, made_up_client, arguments, message):
    made_up_client()
    code, out, err = run_ctl(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
