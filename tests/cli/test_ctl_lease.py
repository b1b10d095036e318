"""statehousectl lease."""

import datetime as dt
import json
import re

import pytest


def test_a_lease_is_taken_kept_and_given_back(ctl_there):
    code, out, _ = ctl_there("lease", "acquire", "a", "--holder", "me\n", "--ttl-s", "100", "--json")
    taken = json.loads(out)
    assert (code, taken["epoch"], taken["held"], taken["holder"]) == (0, 1, True, "me\n")
    left = dt.datetime.fromisoformat(taken["expires_at"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(seconds=60) < left <= dt.timedelta(seconds=101)

    code, out, err = ctl_there("lease", "acquire", "a", "--holder", "other")
    assert (code, out, err.count("\n")) == (6, "", 1)
    assert ctl_there("lease", "renew", "a", "2")[0] == 6

    code, out, _ = ctl_there("lease", "renew", "a", "1", "--ttl-s", "1000")
    assert code == 0
    assert re.fullmatch(
        r"agent=a  epoch=1  held  holder=me\\n  expires_at=[\d-]+T[\d:]+Z  commit_ts=2\n",
        out,
    )
    assert ctl_there("lease", "show", "a") == (0, out, "")
    assert ctl_there("lease", "release", "a", "1") == (0, "agent=a  epoch=1  released\n", "")
    assert ctl_there("lease", "release", "a", "1")[0] == 6
    code, out, err = ctl_there("lease", "show", "a")
    assert (code, "  not held  " in out, err) == (1, True, "")
    assert json.loads(ctl_there("lease", "acquire", "a", "--holder", "other", "--json")[1])["epoch"] == 2


def test_a_transaction_under_a_lease(ctl_there):
    epoch = json.loads(ctl_there("lease", "acquire", "t", "--holder", "me", "--json")[1])["epoch"]
    write = ("transact", "--put", "t", "k", "{}", "--lease", "t", epoch)
    assert ctl_there(*write)[0] == 0
    assert json.loads(ctl_there("lease", "release", "t", epoch, "--json")[1])["epoch"] == epoch
    code, _, err = ctl_there(*write)
    assert (code, "epoch 1 and is not held" in err) == (6, True)


def test_no_lease(ctl_there):
    nobody = "statehousectl: nobody ever had a lease on agent 'n'\n"
    assert ctl_there("lease", "show", "n") == (1, "", nobody)
    assert ctl_there("lease", "show", "n", "--json") == (1, '{"agent_id":"n","epoch":0,"held":false}\n', "")
    assert ctl_there("lease", "release", "n", "1")[0] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command."),
        (["acquire", "a"], "Missing option '--holder'."),
        (["acquire", "a", "--holder", "me", "--ttl-s", "0.5"], "0.5 is not in the range 1.0<=x<=86400.0."),
        (["acquire", "a", "--holder", "me", "--ttl-s", "86401"], "86401.0 is not in the range"),
        (["acquire", "a", "--holder", "me", "--ttl-s", "nan"], "nan is no number of seconds"),
        (["renew", "a", "0"], "0 is not in the range"),
        (["release", "a"], "Missing argument 'EPOCH'."),
    ],
)
def test_bad_usage(run_ctl, made_up_client, arguments, message):
    made_up_client()
    code, _, err = run_ctl("lease", *arguments)
    assert code == 2
    assert message in err


def test_what_the_daemon_refuses(ctl_there):
    assert ctl_there("lease", "acquire", "a" * 300, "--holder", "me")[0] == 4
    assert ctl_there("lease", "acquire", "b", "--holder", "x" * 257)[0] == 4
