"""statehousectl watch and tail -f, and replays with filters: of one agent, of several, of the whole log."""

import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from statehouse import Put, Statehouse
from statehouse.cli.exit_codes import ControlExit
from statehouse.client.types import Bookmark, Operation, ReplayEvent

STATEHOUSECTL = (sys.executable, "-m", "statehouse.cli.statehousectl")


@pytest.fixture(scope="module")
def written(module_client):
    """Three commits: of two agents, of one of them, of a third one in another namespace."""
    both = [Put("w-1", "task/1", {"n": 1}), Put("w-1", "note", {}), Put("w-2", "task/1", {"n": 1})]
    module_client.transact(both, metadata={"run": "r-1", "model": "m"})
    module_client.transact([Put("w-1", "note", {"n": 2})], metadata={"run": "r-2"})
    return module_client.transact([Put("x-1", "task/1", {}, "other")], metadata={"run": "r-1"}).commit_ts


@contextmanager
def following(address, *arguments):
    """A command that goes on, and the lines of its answer."""
    command = [*STATEHOUSECTL, "--address", address, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def plain(text):
    return re.sub(r"^\d\d:\d\d:\d\dZ  ", "", text, flags=re.MULTILINE).splitlines()


def events(text):
    return [
        (event["commit_ts"], event["agent_id"], [each["key"] for each in event["operations"]])
        for event in map(json.loads, text.splitlines())
    ]


def event(commit_ts):
    return ReplayEvent("t", commit_ts, (Operation("k", {}, 1),), "default", "a")


def test_a_watch_of_what_was(ctl_there, written):
    code, out, err = ctl_there("watch", "w-1", "--start-ts", "1", "-n", "2")
    assert (code, err) == (0, "")
    assert plain(out) == [
        'agent=w-1  WRITE  key=task/1  v=1  {"n":1}',
        "agent=w-1  WRITE  key=note  v=1  {}",
        'agent=w-1  WRITE  key=note  v=2  {"n":2}',
    ]


@pytest.mark.parametrize("command", ["replay", "watch"])
def test_filters(ctl_there, written, command):
    def found(*arguments):
        return events(ctl_there(command, *arguments, "--start-ts", "1", "--end-ts", written, "--json")[1])

    assert found("w-1", "--key-prefix", "task/") == [(1, "w-1", ["task/1"])]
    assert found("w-1", "--meta", "run=r-2") == [(2, "w-1", ["note"])]
    assert found("w-1", "--meta", "run=r-1", "--meta", "model=m") == [(1, "w-1", ["task/1", "note"])]
    assert found("w-1", "--meta", "run=r-2", "--meta", "model=m") == []
    assert found("w-1", "-n", "1") == [(1, "w-1", ["task/1", "note"])]
    assert found("--agents", "w-") == [
        (1, "w-1", ["task/1", "note"]),
        (1, "w-2", ["task/1"]),
        (2, "w-1", ["note"]),
    ]
    assert found("--agents", "", "--namespace", "other") == [(3, "x-1", ["task/1"])]
    assert found("--all", "--key-prefix", "task/") == [
        (1, "w-1", ["task/1"]),
        (1, "w-2", ["task/1"]),
        (3, "x-1", ["task/1"]),
    ]


def test_replay_by_time(ctl_there, written):
    assert ctl_there("replay", "w-1", "--end-time", "2020-01-01T00:00:00Z") == (0, "", "")
    assert len(events(ctl_there("replay", "w-1", "--start-time", "2020-01-01T00:00:00Z", "--json")[1])) == 2


def test_the_whole_log_says_which_namespace(ctl_there, written):
    assert plain(ctl_there("tail", "--all", "-n", "1")[1]) == ["namespace=other  agent=x-1  WRITE  key=task/1  v=1  {}"]


def test_tail_f_goes_on_behind_what_it_printed(module_daemon, module_client, written):
    with following(module_daemon.address, "tail", "-f", "w-2", "-n", "1") as process:
        assert plain(process.stdout.readline()) == ['agent=w-2  WRITE  key=task/1  v=1  {"n":1}']
        module_client.transact([Put("w-2", "task/1", {"n": 2})])
        assert plain(process.stdout.readline()) == ['agent=w-2  WRITE  key=task/1  v=2  {"n":2}']
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stdout.read() == process.stderr.read() == ""


@pytest.mark.parametrize("command", [("watch", "w-3", "--start-ts", "1"), ("tail", "-f", "w-3", "-n", "1")])
def test_it_ends_when_its_reader_does_though_nothing_is_committed(module_daemon, module_client, command):
    module_client.transact([Put("w-3", "only", {})], idempotency_key="its one event")
    with following(module_daemon.address, *command) as process:
        assert "agent=w-3" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == ControlExit.BROKEN_PIPE
        assert process.stderr.read() == ""


def test_one_that_is_at_its_end_has_its_own_exit_code_though_its_reader_is_gone(module_daemon, written):
    with following(module_daemon.address, "watch", "w-1", "--start-ts", "1", "-n", "1") as process:
        for _ in range(2):
            process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == ControlExit.OK


def test_one_that_is_interrupted_with_its_reader_has_been_interrupted(module_daemon, written):
    with following(module_daemon.address, "watch", "w-1", "--start-ts", "1", "-n", "100") as process:
        assert "agent=w-1" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        assert process.wait(30) == ControlExit.INTERRUPTED


def test_bookmarks(module_daemon, module_client, written):
    with following(module_daemon.address, "watch", "quiet", "--bookmarks", "--json") as process:
        assert json.loads(process.stdout.readline())["bookmark"] >= written
        done = module_client.transact([Put("quiet", "k", {})])
        for line in process.stdout:
            if "bookmark" not in line:
                assert events(line) == [(done.commit_ts, "quiet", ["k"])]
                break


def test_bookmarks_for_people(run_ctl, made_up_client):
    made_up_client(watch=lambda *_, **__: iter([Bookmark(7)]))
    assert run_ctl("watch", "a", "--bookmarks") == (0, "-- all up to commit_ts=7\n", "")


@pytest.mark.parametrize("first", [Bookmark(7), event(8)], ids=["nothing new", "an event"])
def test_tail_f_is_one_watch_that_begins_before_it_looks_back(run_ctl, made_up_client, first):
    asked = []

    def watch(agent, **options):
        asked.append((agent, options))
        yield from [first, Bookmark(8), event(9)]

    def replay(agent, *, start_ts, end_ts, **_):
        yield from (event(ts) for ts in (6, 7, 8) if start_ts <= ts <= end_ts)

    made_up_client(replay=replay, watch=watch)
    code, out, _ = run_ctl("tail", "-f", "a", "-n", "2", "--key-prefix", "task/", "--json")
    expected = [6, 7, 9] if isinstance(first, Bookmark) else [6, 7, 8, 9]
    assert (code, [json.loads(line)["commit_ts"] for line in out.splitlines()]) == (0, expected)
    assert asked == [("a", {"bookmarks": True, "key_prefix": "task/", "metadata": {}})]


@pytest.mark.parametrize(
    ("count", "written", "windows"),
    [
        (2, [95, 99, 100], [(99, 100)]),
        (2, [1, 90, 91], [(99, 100), (85, 100)]),
        (3, [4, 5], [(98, 100), (77, 100), (1, 100)]),
        (10, [], [(91, 100), (21, 100), (1, 100)]),
    ],
)
def test_tail_looks_back_until_there_are_enough(run_ctl, made_up_client, count, written, windows):
    asked = []

    def replay(agent, *, start_ts, end_ts, **_):
        asked.append((start_ts, end_ts))
        yield from (event(ts) for ts in written if start_ts <= ts <= end_ts)

    def watch(agent, **_):
        yield Bookmark(100)

    made_up_client(replay=replay, watch=watch)
    code, out, _ = run_ctl("tail", "a", "-n", count, "--json")
    assert (code, [json.loads(line)["commit_ts"] for line in out.splitlines()]) == (0, written[-count:])
    assert asked == windows


def test_tail_of_an_empty_store(run_ctl, made_up_client):
    made_up_client(watch=lambda *_, **__: (each for each in [Bookmark(0)]))
    assert run_ctl("tail", "a") == (0, "", "")


def test_a_reader_that_stops_reading_ends_it_with_the_next_event(module_daemon, module_client, written):
    with following(module_daemon.address, "watch", "w-1", "--start-ts", "1") as process:
        process.stdout.readline()
        process.stdout.close()
        module_client.transact([Put("w-1", "note", {"n": 3})])
        assert process.wait(30) == 141
        assert process.stderr.read() == ""


def test_tail_f_goes_on_when_the_daemon_is_killed_and_comes_back(make_daemon):
    daemon = make_daemon().start()
    with Statehouse(daemon.address) as client:
        client.transact([Put("a", "k", {"n": 1})])
        with following(daemon.address, "tail", "-f", "a", "--json") as process:
            assert events(process.stdout.readline()) == [(1, "a", ["k"])]
            daemon.kill()
            daemon.start()
            client.update("a", "k", lambda value: {"n": 2})
            assert events(process.stdout.readline()) == [(2, "a", ["k"])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["watch"], "give one of AGENT, --agents PREFIX and --all"),
        (["watch", "a", "--all"], "give one of AGENT, --agents PREFIX and --all"),
        (["tail", "--agents", "a", "--all"], "give one of AGENT, --agents PREFIX and --all"),
        (["replay", "a", "--agents", "b"], "give one of AGENT, --agents PREFIX and --all"),
        (
            ["watch", "a", "--start-ts", "1", "--start-time", "2030-01-01T00:00:00Z"],
            "--start-ts and --start-time exclude",
        ),
        (["replay", "a", "--end-ts", "1", "--end-time", "2030-01-01T00:00:00Z"], "--end-ts and --end-time exclude"),
        (["watch", "a", "--start-time", "soon"], "'soon' is not a time"),
        (["watch", "a", "--meta", "run"], "'run' is not NAME=VALUE"),
        (["watch", "a", "-n", "0"], "0 is not in the range"),
    ],
)
def test_bad_usage(run_ctl, made_up_client, arguments, message):
    made_up_client()
    code, out, err = run_ctl(*arguments)
    assert (code, out) == (2, "")
    assert message in err
