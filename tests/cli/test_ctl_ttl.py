"""What statehousectl says of values that do not last: when they expire, and that they did."""

import datetime as dt
import json
import re
from time import monotonic, sleep

import pytest

from statehouse.client.types import DiffEntry, HistoryEntry, Operation, ReplayEvent, StateResult

AT = dt.datetime(2026, 3, 4, 5, 6, 7, 891234, tzinfo=dt.UTC)
EXPIRY = "2026-03-04T05:06:07.891234Z"
BRIEF = StateResult({"n": 1}, 3, 9, exists=True, expires_at=AT)
"""Version 3, as it was written."""
ABSENT = StateResult(None, 3, 9, exists=False)
"""What is told of it once it has expired, and of a delete."""
BEFORE = StateResult({"n": 0}, 2, 5, exists=True)


@pytest.fixture
def made_up_state(made_up_client):
    """Have a key be found in this state, and its newest version to have written that."""

    def take(state, written=BRIEF):
        made_up_client(
            get_state=lambda *_, **__: state,
            get_state_at_version=lambda _, __, version: written if version == 3 else BEFORE,
        )

    return take


def test_get_tells_programs_when_a_value_expires(run_ctl, made_up_state):
    made_up_state(BRIEF)
    assert run_ctl("get", "a", "k") == (0, '{\n  "n": 1\n}\n', "")
    told = {"key": "k", "exists": True, "value": {"n": 1}, "version": 3, "commit_ts": 9, "expires_at": EXPIRY}
    assert json.loads(run_ctl("get", "a", "k", "--json")[1]) == told
    assert json.loads(run_ctl("get", "a", "k", "--at-version", "3", "--json")[1]) == told
    made_up_state(BEFORE)
    assert "expires_at" not in json.loads(run_ctl("get", "a", "k", "--json")[1])


def test_get_tells_an_expired_value_from_a_deleted_one(run_ctl, made_up_state):
    named = "statehousectl: key 'k' of agent 'a'"
    made_up_state(ABSENT)
    assert run_ctl("get", "a", "k") == (1, "", f"{named} expired at 2026-03-04T05:06:07Z (version 3)\n")
    code, out, err = run_ctl("get", "a", "k", "--json")
    told = {"key": "k", "exists": False, "value": None, "version": 3, "commit_ts": 9}
    assert (code, json.loads(out), err) == (1, told, "")
    made_up_state(ABSENT, ABSENT)
    assert run_ctl("get", "a", "k") == (1, "", f"{named} was deleted by version 3 (commit_ts 9)\n")


def test_inspect(run_ctl, made_up_state):
    versions = (
        'v=3  commit_ts=9  WRITE  expires_at=2026-03-04T05:06:07Z  {"n":1}\n'
        'v=2  commit_ts=5  WRITE  {"n":0}\n'
        'v=2  commit_ts=5  WRITE  {"n":0}\n'  # this client knows one version before
    )
    made_up_state(BRIEF)
    live = 'agent=a  key=k  v=3  commit_ts=9  live\n{\n  "n": 1\n}\n'
    assert run_ctl("inspect", "a", "k") == (0, live + versions, "")
    made_up_state(ABSENT)
    assert run_ctl("inspect", "a", "k") == (0, f"agent=a  key=k  v=3  commit_ts=9  expired\n{versions}", "")
    found = json.loads(run_ctl("inspect", "a", "k", "-n", "1", "--json")[1])
    assert (found["exists"], found["value"], found["expires_at"]) == (False, None, EXPIRY)
    assert found["history"] == [{"exists": True, "value": {"n": 1}, "version": 3, "commit_ts": 9, "expires_at": EXPIRY}]
    made_up_state(ABSENT, ABSENT)
    deleted = run_ctl("inspect", "a", "k", "-n", "1")[1]
    assert deleted == "agent=a  key=k  v=3  commit_ts=9  deleted\nv=3  commit_ts=9  DEL\n"


def test_history_and_diff(run_ctl, made_up_client):
    entries = [
        HistoryEntry(None, 3, 10, exists=False, txn_id="t", committed_at=AT),
        HistoryEntry(None, 2, 9, exists=False, txn_id="t", committed_at=AT, expired=True),
        HistoryEntry({}, 1, 8, exists=True, txn_id="t", committed_at=AT, expires_at=AT),
    ]
    made_up_client(history=lambda *_: iter(entries), diff=lambda *_, **__: iter([DiffEntry("k", BEFORE, BRIEF)]))
    time = "2026-03-04T05:06:07Z"
    assert run_ctl("history", "a", "k")[1] == (
        f"{time}  v=3  commit_ts=10  DEL\n{time}  v=2  commit_ts=9  DEL  expired\n"
        f"{time}  v=1  commit_ts=8  WRITE  expires_at={time}  {{}}\n"
    )
    newest, expired, oldest = map(json.loads, run_ctl("history", "a", "k", "--json")[1].splitlines())
    assert ("expired" in newest, expired["expired"], "expired" in oldest) == (False, True, False)
    assert ("expires_at" in newest, oldest["expires_at"]) == (False, EXPIRY)
    found = json.loads(run_ctl("diff", "a", "--json")[1])
    assert ("expires_at" in found["before"], found["after"]["expires_at"]) == (False, EXPIRY)


def test_dump_and_replay(run_ctl, made_up_client):
    entry = StateResult({"n": 1}, 3, 9, exists=True, key="k", expires_at=AT)
    event = ReplayEvent("t", 9, (Operation("k", {}, 1, ttl_s=5), Operation("l", None, 2, expired=True)), "n", "a", AT)
    made_up_client(iter_prefix=lambda *_, **__: iter([entry]), replay=lambda *_, **__: iter([event]))
    assert json.loads(run_ctl("dump", "a", "--jsonl")[1])["expires_at"] == EXPIRY
    assert run_ctl("replay", "a")[1] == (
        "05:06:07Z  agent=a  WRITE  key=k  v=1  ttl_s=5  {}\n05:06:07Z  agent=a  DEL  key=l  v=2  expired\n"
    )
    written, deleted = json.loads(run_ctl("replay", "a", "--json")[1])["operations"]
    assert (written["ttl_s"], deleted["expired"]) == (5, True)


def test_in_a_daemon(ctl_there):
    writes = ("--put", "a", "k", "{}", "--ttl", "1", "--if-absent", "a", "k")
    assert ctl_there("transact", *writes)[0] == ctl_there("transact", "--put", "a", "l", "{}")[0] == 0
    assert json.loads(ctl_there("get", "a", "k", "--at", "1", "--json")[1])["expires_at"]
    deadline = monotonic() + 20
    while (found := ctl_there("get", "a", "k"))[0] == 0:
        assert monotonic() < deadline
        sleep(0.02)
    named = "statehousectl: key 'k' of agent 'a' "
    # The delete comes soon, and may be there already.
    assert re.fullmatch(f"{named}(expired at .*Z \\(version 1\\)|was deleted by version 2 .*)\n", found[2])
    assert ctl_there("keys", "a") == (0, "l\n", "")
    while "expired" not in (shown := ctl_there("replay", "a")[1]):
        assert monotonic() < deadline
        sleep(0.02)
    assert shown.splitlines()[-1].endswith("  agent=a  DEL  key=k  v=2  expired")
    assert ctl_there("get", "a", "k")[2].startswith(f"{named}was deleted by version 2")
