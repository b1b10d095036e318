"""statehousectl fork, lineage and delete-agent, and what agents and transact say of forks and deleted agents."""

import io
import json
import os
import pty
import subprocess
import sys

import pytest

from statehouse import Put, Remove
from statehouse.client.types import AgentInfo, ForkOrigin, Lineage

STATEHOUSECTL = (sys.executable, "-m", "statehouse.cli.statehousectl")


class Terminal:
    """A stdin on which somebody types one line."""

    def __init__(self, line):
        self._line = line

    def isatty(self):
        return True

    def readline(self):
        return self._line


@pytest.fixture
def typed(monkeypatch):
    return lambda line: monkeypatch.setattr(sys, "stdin", Terminal(line))


@pytest.fixture(scope="module")
def main_run(module_client):
    """An agent of two commits; their commit_ts."""
    return [module_client.transact([Put("main", "plan", {"step": step})]).commit_ts for step in (1, 2)]


def test_fork(ctl_there, module_client, main_run):
    code, out, err = ctl_there("fork", "main", "side\n")
    forked = module_client.lineage("side\n").ancestors[0]
    assert (code, err) == (0, "")
    assert out == f"agent=side\\n  forked_from=main  at_ts={forked.at_ts}  commit_ts={forked.commit_ts}  depth=1\n"
    assert module_client.get_state("side\n", "plan").value == {"step": 2}


def test_fork_as_of_a_point(ctl_there, module_client, main_run):
    done = json.loads(ctl_there("fork", "main", "early", "--at", main_run[0], "--json")[1])
    assert done == {
        "agent_id": "early",
        "forked_from": "main",
        "at_ts": main_run[0],
        "commit_ts": done["commit_ts"],
        "depth": 1,
    }
    assert module_client.get_state("early", "plan").value == {"step": 1}
    assert (
        json.loads(ctl_there("fork", "early", "late", "--at-time", "9999-01-01T00:00:00Z", "--json")[1])["depth"] == 2
    )
    assert module_client.get_state("late", "plan").value == {"step": 1}


def test_what_cannot_be_forked(ctl_there, module_client, main_run):
    module_client.transact([Put("taken", "k", {})])
    for code, *arguments in (
        (6, "main", "taken"),
        (6, "main", "main"),
        (1, "nobody", "heir"),
        (4, "main", "unborn", "--at", 0),
        (4, "main", "unborn", "--at-time", "2020-01-01T00:00:00Z"),
    ):
        found, out, err = ctl_there("fork", *arguments)
        assert (found, out, err.count("\n")) == (code, "", 1), arguments
    assert module_client.list_keys("unborn") == []


def test_a_taken_name_as_json(ctl_there, module_client, main_run):
    module_client.transact([Put("occupied", "k", {})])
    code, out, err = ctl_there("fork", "main", "occupied", "--json")
    assert (code, out, err.count("\n")) == (6, '{"committed":false,"agent_id":"occupied"}\n', 1)


def test_lineage(ctl_there, module_client, main_run):
    first = module_client.fork("main", "root\t", at_ts=main_run[0])
    second = module_client.fork("root\t", "branch")
    third = module_client.fork("branch", "twig-1")
    fourth = module_client.fork("branch", "twig-2", at_ts=main_run[0])
    assert ctl_there("lineage", "branch") == (
        0,
        (
            f"ANCESTOR  agent=root\\t  at_ts={second.at_ts}  commit_ts={second.commit_ts}\n"
            f"ANCESTOR  agent=main  at_ts={main_run[0]}  commit_ts={first.commit_ts}\n"
            f"FORK  agent=twig-2  at_ts={main_run[0]}  commit_ts={fourth.commit_ts}\n"
            f"FORK  agent=twig-1  at_ts={third.at_ts}  commit_ts={third.commit_ts}\n"
        ),
        "",
    )
    assert ctl_there("lineage", "branch", "-n", "1")[1].count("FORK") == 1
    told = json.loads(ctl_there("lineage", "twig-2", "--json")[1])
    assert (told["agent_id"], told["forks"]) == ("twig-2", [])
    assert [each["agent_id"] for each in told["ancestors"]] == ["branch", "root\t", "main"]
    assert told["ancestors"][0] == {"agent_id": "branch", "at_ts": main_run[0], "commit_ts": fourth.commit_ts}


def test_the_lineage_of_an_agent_that_is_no_fork_is_empty(ctl_there, module_client):
    module_client.transact([Put("alone", "k", {})])
    assert ctl_there("lineage", "alone") == (0, "", "")
    assert ctl_there("lineage", "alone", "--json") == (0, '{"agent_id":"alone","ancestors":[],"forks":[]}\n', "")


def test_names_that_are_kept_from_a_token(run_ctl, made_up_client):
    hidden = ForkOrigin("", 4, 5)
    info = AgentInfo("default", "a", 1, 2, 3, 1, 9, forked_from=hidden)
    made_up_client(lineage=lambda *_, **__: Lineage((hidden,), ()), list_agents=lambda _: iter([info]))
    assert run_ctl("lineage", "a")[1] == "ANCESTOR  agent=  at_ts=4  commit_ts=5\n"
    assert run_ctl("agents")[1].endswith("  forked_from=  at_ts=4\n")


def test_agents_shows_forks_and_ends(ctl_there, module_client):
    one = module_client.transact([Put("a", "k", {}, "shown"), Put("a", "l", {}, "shown")]).commit_ts
    forked = module_client.fork("a", "b", namespace="shown")
    ended = module_client.delete_agent("a", namespace="shown").commit_ts
    assert ctl_there("agents", "--namespace", "shown") == (
        0,
        (
            f"agent=a  keys=0  commits=2  operations=4  first={one}  last={ended}  deleted\n"
            f"agent=b  keys=2  commits=1  operations=2  first={one}  last={one}  forked_from=a  at_ts={forked.at_ts}\n"
        ),
        "",
    )
    a, b = (json.loads(line) for line in ctl_there("agents", "--namespace", "shown", "--json")[1].splitlines())
    assert (a["deleted"], a["forked_from"]) == (True, None)
    assert b["deleted"] is False
    assert b["forked_from"] == {"agent_id": "a", "at_ts": forked.at_ts, "commit_ts": forked.commit_ts}


def test_a_fork_that_was_deleted_says_both(run_ctl, made_up_client):
    info = AgentInfo("default", "a", 0, 2, 3, 1, 9, deleted=True, forked_from=ForkOrigin("p\x1b", 4, 5))
    made_up_client(list_agents=lambda _: iter([info]))
    assert run_ctl("agents")[1] == (
        "agent=a  keys=0  commits=2  operations=3  first=1  last=9  forked_from=p\\x1b  at_ts=4  deleted\n"
    )


def test_delete_without_asking(ctl_there, module_client):
    module_client.transact([Put("gone", "k", {}), Put("gone", "l", {}), Put("gone", "m", {}), Remove("gone", "m")])
    code, out, err = ctl_there("delete-agent", "gone", "--yes", "--meta", "user=ada")
    [event] = module_client.replay("gone", start_ts=module_client.head().commit_ts)
    assert (code, out, err) == (0, f"agent=gone  commit_ts={event.commit_ts}  deleted_keys=2\n", "")
    assert dict(event.metadata) == {"user": "ada"}
    again = json.loads(ctl_there("delete-agent", "gone", "--yes", "--json")[1])
    assert again == {"agent_id": "gone", "commit_ts": event.commit_ts, "deleted_keys": 0}


def test_a_deleted_agent_is_written_to_only_when_that_is_meant(ctl_there, module_client):
    module_client.transact([Put("back", "k", {})])
    ended = module_client.delete_agent("back").commit_ts
    code, out, err = ctl_there("transact", "--put", "back", "k", "{}", "--json")
    assert (code, json.loads(out)["deleted_at_ts"], err.count("\n")) == (6, ended, 1)
    assert ctl_there("transact", "--put", "back", "k", "{}", "--revive")[0] == 0
    assert ctl_there("transact", "--put", "back", "k", "{}")[0] == 0


@pytest.mark.parametrize("answer", ["y\n", "YES\n", " y \n"])
def test_yes(ctl_there, module_client, typed, answer):
    agent = f"asked-{answer!r}"
    module_client.transact([Put(agent, "k", {})])
    typed(answer)
    code, out, err = ctl_there("delete-agent", agent)
    assert (code, out.endswith("deleted_keys=1\n")) == (0, True)
    assert err.startswith("Delete agent ")
    assert err.endswith(", which has 1 key? [y/N] ")
    assert module_client.list_keys(agent) == []


class Deliberate(Terminal):
    """Somebody who takes their time, in which something else is done."""

    def __init__(self, meanwhile):
        super().__init__("y\n")
        self._meanwhile = meanwhile

    def readline(self):
        self._meanwhile()
        return super().readline()


def test_what_was_shown_is_deleted_and_nothing_newer(ctl_there, module_client, monkeypatch):
    shown = module_client.transact([Put("watched", "k", {})]).commit_ts
    newest = []

    def write():
        newest.append(module_client.transact([Put("watched", "late", {})]).commit_ts)

    monkeypatch.setattr(sys, "stdin", Deliberate(write))
    code, out, err = ctl_there("delete-agent", "watched")
    assert (code, out, err.count("\n")) == (6, "", 1)
    assert err.endswith(
        " statehousectl: agent 'watched' was changed after the question "
        "(what expires changes it, too), and was not deleted\n"
    )
    code, out, _ = ctl_there("delete-agent", "watched", "--json")
    failed = {
        "index": 0,
        "condition": "agent_commit_ts",
        "agent_id": "watched",
        "expected": newest[0],
        "found": {"agent_commit_ts": newest[1]},
    }
    assert (code, json.loads(out)) == (6, {"committed": False, "failed": [failed]})
    assert shown < newest[0]
    assert module_client.list_keys("watched") == ["k", "late"]
    # Without a question there is nothing that it could have changed since.
    assert ctl_there("delete-agent", "watched", "--yes")[0] == 0


def test_a_fork_that_was_not_written_to_is_deleted_as_shown(ctl_there, module_client, main_run, typed):
    module_client.fork("main", "untouched", at_ts=main_run[0])
    typed("y\n")
    assert ctl_there("delete-agent", "untouched")[0] == 0
    assert module_client.list_keys("untouched") == []


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yo\n"])
def test_anything_else_is_no(ctl_there, module_client, typed, answer):
    module_client.transact([Put("kept", "k", {}), Put("kept", "l", {}), Put("kept-2", "k", {})])
    typed(answer)
    assert ctl_there("delete-agent", "kept") == (
        1,
        "",
        "Delete agent 'kept', which has 2 keys? [y/N] statehousectl: agent 'kept' was not deleted\n",
    )
    assert module_client.list_keys("kept") == ["k", "l"]


def test_nothing_is_asked_about_what_is_not_there_or_deleted(ctl_there, module_client, typed):
    module_client.transact([Put("ended", "k", {}), Put("nobody-but-longer", "k", {})])
    ended = module_client.delete_agent("ended").commit_ts
    typed("no\n")
    assert ctl_there("delete-agent", "nobody") == (1, "", "statehousectl: there is no agent 'nobody'\n")
    assert ctl_there("delete-agent", "ended") == (0, f"agent=ended  commit_ts={ended}  deleted_keys=0\n", "")
    assert ctl_there("delete-agent", "nobody", "--yes")[:2] == (1, "")


@pytest.mark.parametrize("stdin", [io.StringIO("y\n"), None], ids=["piped", "closed"])
def test_without_a_terminal_nothing_is_deleted(ctl_there, module_client, monkeypatch, stdin):
    module_client.transact([Put("safe", "k", {})])
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, err = ctl_there("delete-agent", "safe")
    assert (code, out) == (2, "")
    assert err.startswith("statehousectl: there is no terminal to ask on; --yes deletes without asking (see ")
    assert err.count("\n") == 1
    assert module_client.list_keys("safe") == ["k"]


def test_on_a_real_terminal(module_daemon, module_client):
    module_client.transact([Put("typed", "k", {})])
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"y\n")
        done = subprocess.run(
            [*STATEHOUSECTL, "delete-agent", "typed", "--json"],
            env={**os.environ, "STATEHOUSE_ADDR": module_daemon.address},
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "Delete agent 'typed', which has 1 key? [y/N] ")
    assert json.loads(done.stdout)["deleted_keys"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fork", "a"], "Missing argument 'NEW'"),
        (["fork", "a", "b", "--at", "1", "--at-time", "2030-01-01T00:00:00Z"], "--at and --at-time exclude each other"),
        (["fork", "a", "b", "--at", "-1"], "-1 is not in the range"),
        (["fork", "a", "b", "--at-time", "soon"], "'soon' is not a time"),
        (["fork", "a", "\udcff"], r"'\udcff' is not UTF-8"),
        (["lineage"], "Missing argument 'AGENT'"),
        (["lineage", "a", "-n", "0"], "0 is not in the range"),
        (["delete-agent", "--yes"], "Missing argument 'AGENT'"),
        (["delete-agent", "a", "--yes", "--meta", "user"], "'user' is not NAME=VALUE"),
    ],
)
def test_bad_usage_sends_nothing(run_ctl, made_up_client, arguments, message):
    made_up_client()
    code, out, err = run_ctl(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
