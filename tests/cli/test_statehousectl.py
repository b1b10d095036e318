"""statehousectl against a real daemon: what it prints, line by line, and how it exits."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_process import DaemonProcess

import statehouse
from statehouse.cli import ctl_connection
from statehouse.cli.exit_codes import CONTROL_EXIT_TEXTS, ControlExit
from statehouse.cli.statehousectl import exit_code_of
from statehouse.errors import LogPoisonedError

STATEHOUSECTL = (sys.executable, "-m", "statehouse.cli.statehousectl")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A daemon whose agent 'a' has a short history over three commits, and a neighbour in another namespace."""
    with DaemonProcess(tmp_path_factory.mktemp("ctl") / "data") as daemon:
        with statehouse.Statehouse(daemon.address) as client:
            with client.begin_transaction() as txn:
                txn.write("a", "plan", {"steps": ["look", "leap"], "done": False})
                txn.write("a", "tool/0001", {"name": "grep"})
            with client.begin_transaction() as txn:
                txn.write("a", "plan", {"done": True})
                txn.write("a", "odd\nkey", {})
            with client.begin_transaction() as txn:
                txn.delete("a", "tool/0001")
            with client.begin_transaction(namespace="other") as txn:
                txn.write("a", "plan", {"of": "other"})
            with client.begin_transaction() as txn:
                txn.write("big", "blob", {"text": "x" * 300_000})
        yield daemon.address


@pytest.fixture
def ctl(address, capsys, monkeypatch):
    """Run a command; its exit code, what it printed, what it said on stderr."""
    for name in ("STATEHOUSE_ADDR", "STATEHOUSE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, at=address):
        code = exit_code_of(["--address", at, *arguments] if at else arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def without_times(text):
    return re.sub(r"^\d\d:\d\d:\d\dZ", "HH:MM:SSZ", text, flags=re.MULTILINE)


def test_health(ctl):
    assert ctl("health") == (0, "ok\n", "")
    assert ctl("health", "--json") == (0, '{"status":"ok"}\n', "")


def test_version(ctl):
    code, out, _ = ctl("version")
    assert code == 0
    assert re.fullmatch(rf"{re.escape(statehouse.__version__)} \(\w+\)\n", out)
    code, out, _ = ctl("version", "--json")
    assert json.loads(out)["version"] == statehouse.__version__


def test_get(ctl):
    assert ctl("get", "a", "plan") == (0, '{\n  "done": true\n}\n', "")
    assert ctl("get", "a", "plan", "--json") == (
        0,
        '{"key":"plan","exists":true,"value":{"done":true},"version":2,"commit_ts":2}\n',
        "",
    )
    code, out, _ = ctl("get", "a", "plan", "--at-version", "1")
    assert (code, json.loads(out)) == (0, {"steps": ["look", "leap"], "done": False})


def test_get_of_what_is_not_there(ctl):
    assert ctl("get", "a", "nothing") == (1, "", "statehousectl: key 'nothing' of agent 'a' was never written\n")
    assert ctl("get", "a", "tool/0001") == (
        1,
        "",
        "statehousectl: key 'tool/0001' of agent 'a' was deleted by version 2 (commit_ts 3)\n",
    )
    assert ctl("get", "a", "plan", "--at-version", "9") == (
        1,
        "",
        "statehousectl: key 'plan' of agent 'a' has no version 9\n",
    )
    assert ctl("get", "a", "tool/0001", "--json") == (
        1,
        '{"key":"tool/0001","exists":false,"value":null,"version":2,"commit_ts":3}\n',
        "",
    )


def test_keys(ctl):
    assert ctl("keys", "a") == (0, "odd\\nkey\nplan\n", "")
    assert ctl("keys", "a", "--json") == (0, '["odd\\nkey","plan"]\n', "")
    assert ctl("keys", "nobody") == (0, "", "")
    assert ctl("keys", "nobody", "--json") == (0, "[]\n", "")


def test_namespace_before_and_after_the_command_and_in_the_environment(ctl, monkeypatch):
    expected = (0, '{\n  "of": "other"\n}\n', "")
    assert ctl("--namespace", "other", "get", "a", "plan") == expected
    assert ctl("get", "a", "plan", "--namespace", "other") == expected
    assert ctl("--namespace", "default", "get", "a", "plan", "--namespace", "other") == expected
    monkeypatch.setenv("STATEHOUSE_NAMESPACE", "other")
    assert ctl("get", "a", "plan") == expected
    assert ctl("get", "a", "plan", "--namespace", "default")[1] == '{\n  "done": true\n}\n'


def test_the_address_before_and_after_the_command_and_in_the_environment(ctl, address, monkeypatch):
    monkeypatch.setenv("STATEHOUSE_ADDR", "127.0.0.1:1")
    assert ctl("health", at=None)[0] == ControlExit.UNREACHABLE
    assert ctl("health", "--address", address, at=None)[0] == 0
    assert ctl("health", at=address)[0] == 0
    monkeypatch.setenv("STATEHOUSE_ADDR", address)
    assert ctl("health", at=None)[0] == 0


REPLAY = r"""HH:MM:SSZ  agent=a  WRITE  key=plan  v=1  {"done":false,"steps":["look","leap"]}
HH:MM:SSZ  agent=a  TOOL  key=tool/0001  v=1  {"name":"grep"}
HH:MM:SSZ  agent=a  WRITE  key=plan  v=2  {"done":true}
HH:MM:SSZ  agent=a  WRITE  key=odd\nkey  v=1  {}
HH:MM:SSZ  agent=a  DEL  key=tool/0001  v=2
"""


def test_replay(ctl):
    code, out, err = ctl("replay", "a")
    assert (code, without_times(out), err) == (0, REPLAY, "")
    assert ctl("replay", "nobody") == (0, "", "")


def test_replay_of_a_range(ctl):
    whole = REPLAY.splitlines(keepends=True)
    assert without_times(ctl("replay", "a", "--start-ts", "2", "--end-ts", "2")[1]) == "".join(whole[2:4])
    assert without_times(ctl("replay", "a", "--start-ts", "3")[1]) == whole[4]


def test_replay_as_jsonl(ctl):
    code, out, _ = ctl("replay", "a", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [event["commit_ts"] for event in events] == [1, 2, 3]
    assert events[0]["operations"][0] == {
        "key": "plan",
        "value": {"steps": ["look", "leap"], "done": False},
        "version": 1,
    }
    assert events[2]["operations"] == [{"key": "tool/0001", "value": None, "version": 2}]


def test_replay_verbose(ctl):
    out = without_times(ctl("replay", "a", "--end-ts", "1", "-v")[1])
    txn = re.search(r"txn=(\S+)", out)[1]
    first = f"HH:MM:SSZ  agent=a  WRITE  key=plan  v=1  txn={txn}  event=1  "
    assert out.startswith(first)
    assert '\n  payload: {"done":false,"steps":["look","leap"]}\n' in out


def test_tail(ctl):
    assert without_times(ctl("tail", "a")[1]) == REPLAY
    assert without_times(ctl("tail", "a", "-n", "1")[1]) == REPLAY.splitlines(keepends=True)[-1]
    assert [json.loads(line)["commit_ts"] for line in ctl("tail", "a", "-n", "2", "--json")[1].splitlines()] == [2, 3]


def test_dump(ctl):
    expected = {
        "namespace": "default",
        "agent_id": "a",
        "keys": {
            "odd\nkey": {"value": {}, "version": 1, "commit_ts": 2},
            "plan": {"value": {"done": True}, "version": 2, "commit_ts": 2},
        },
    }
    code, out, err = ctl("dump", "a")
    assert (code, json.loads(out), err) == (0, expected, "")
    assert out.count("\n") > 5
    code, out, _ = ctl("dump", "a", "--json")
    assert (json.loads(out), out.count("\n")) == (expected, 1)
    assert ctl("dump", "a", "--jsonl")[1] == (
        '{"key":"odd\\nkey","value":{},"version":1,"commit_ts":2}\n'
        '{"key":"plan","value":{"done":true},"version":2,"commit_ts":2}\n'
    )
    assert ctl("dump", "a", "--jsonl", "--json")[0] == ControlExit.USAGE


LIVE = """agent=a  key=plan  v=2  commit_ts=2  live
{
  "done": true
}
v=2  commit_ts=2  WRITE  {"done":true}
v=1  commit_ts=1  WRITE  {"done":false,"steps":["look","leap"]}
"""
DELETED = """agent=a  key=tool/0001  v=2  commit_ts=3  deleted
v=2  commit_ts=3  DEL
v=1  commit_ts=1  WRITE  {"name":"grep"}
"""


def test_inspect(ctl):
    assert ctl("inspect", "a", "plan") == (0, LIVE, "")
    assert ctl("inspect", "a", "tool/0001") == (0, DELETED, "")
    code, out, _ = ctl("inspect", "a", "plan", "-n", "1", "--json")
    assert code == 0
    latest = {"exists": True, "value": {"done": True}, "version": 2, "commit_ts": 2}
    assert json.loads(out) == {"namespace": "default", "agent_id": "a", "key": "plan", **latest, "history": [latest]}
    assert ctl("inspect", "a", "nothing") == (1, "", "statehousectl: key 'nothing' of agent 'a' was never written\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "a"], "Missing argument 'KEY'. (see statehousectl get --help)"),
        (
            ["get", "a", "k", "--at-version", "0"],
            "0 is not in the range 1<=x<=18446744073709551615. (see statehousectl get --help)",
        ),
        (["tail", "a", "-n", "x"], "'x' is not a valid integer range. (see statehousectl tail --help)"),
        (["get", "a", "k", "--at-version", "9" * 20], f"{'9' * 20} is not in the range"),
        (["replay", "a", "--start-ts", str(2**64)], f"{2**64} is not in the range"),
        (["replay", "a", "--end-ts", str(2**64)], f"{2**64} is not in the range"),
        (["tail", "a", "-n", "9" * 23], "is not in the range 1<=x<=1000000."),
        (["inspect", "a", "k", "-n", "9" * 23], "is not in the range 1<=x<=1000000."),
        (["get", "a", "\udcff"], r"'\udcff' is not UTF-8 (see statehousectl get --help)"),
        (["keys", "\udcff"], r"'\udcff' is not UTF-8"),
        (["keys", "a", "--namespace", "\udcff"], r"'\udcff' is not UTF-8"),
        (["health", "--address", ""], "use host:port"),
        (["--address", "", "health"], "use host:port"),
        ([], "Missing command. (see statehousectl --help)"),
        (["frob"], "No such command 'frob'. (see statehousectl --help)"),
        (["health", "--address", "nowhere"], "use host:port"),
    ],
)
def test_bad_usage_is_one_line_and_2(arguments, message, ctl):
    code, out, err = ctl(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("statehousectl: ")
    assert message in err
    assert err.count("\n") == 1


def test_no_daemon(ctl):
    code, out, err = ctl("health", at="127.0.0.1:1")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert err.startswith("statehousectl: ")
    assert "127.0.0.1:1" in err


def test_what_the_daemon_refuses(ctl):
    code, out, err = ctl("get", "a" * 300, "k")
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "256" in err


def test_what_fails_inside_is_told_apart(ctl, monkeypatch):
    class Failing:
        def __init__(self, *_, **options):
            self.closed = False

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def health(self):
            return "read-only"

        def iter_keys(self, agent, **options):
            raise LogPoisonedError("the disk\nfailed")

        def version(self):
            raise RuntimeError("oops")

    monkeypatch.setattr(ctl_connection, "Statehouse", Failing)
    assert ctl("health") == (1, "read-only\n", "")
    assert ctl("keys", "a") == (5, "", "statehousectl: the disk failed\n")
    assert ctl("version") == (70, "", "statehousectl: a bug: RuntimeError: oops\n")


def test_help_documents_every_exit_code(ctl):
    code, out, _ = ctl("--help")
    assert code == 0
    for number, text in CONTROL_EXIT_TEXTS.items():
        assert re.search(rf"^ +{int(number)}  {re.escape(text)}$", out, flags=re.MULTILINE)
    assert ctl("tail", "--help")[0] == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_reading(address, unbuffered):
    """| head"""
    command = [*STATEHOUSECTL, "--address", address, "replay", "big", "--verbose"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["agents"], ["replay", "big", "--verbose"], ["--help"]], ids=" ".join)
def test_a_full_disk_behind_stdout(address, arguments, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [*STATEHOUSECTL, "--address", address, *arguments]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, check=False, timeout=30)
    assert done.stderr == b"statehousectl: cannot write the answer: No space left on device\n"
    assert done.returncode == 74


def closed(*descriptors, arguments):
    """A command that was started with these closed; its exit code, and what it wrote to the others."""
    closing = " ".join(f"{descriptor}>&-" for descriptor in descriptors)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *STATEHOUSECTL, *arguments],
        capture_output=True,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stdout, done.stderr


def test_without_a_stdout_nothing_is_done(address):
    put = ["--address", address, "transact", "--put", "unsent", "k", "{}"]
    for arguments in (put, ["--address", address, "health"], ["--help"]):
        told = b"statehousectl: cannot write the answer: stdout is closed\n"
        assert closed(1, arguments=arguments) == (74, b"", told)
    assert closed(1, 2, arguments=put) == (74, b"", b"")
    with statehouse.Statehouse(address) as client:
        assert client.list_keys("unsent") == []


def test_without_a_stderr_the_exit_code_tells(address):
    assert closed(2, arguments=["--address", address, "health"])[0] == 0
    assert closed(2, arguments=["--address", address, "get", "nobody", "k"]) == (1, b"", b"")
    assert closed(2, arguments=["nonsense"]) == (2, b"", b"")
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run([*STATEHOUSECTL, "nonsense"], stderr=full, check=False, timeout=30).returncode == 2


def test_a_slow_reader_gets_all_of_it_without_buffering_too(address):
    command = [*STATEHOUSECTL, "--address", address, "replay", "big", "--verbose"]
    buffered = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        received = b"".join(iter(lambda: os.read(process.stdout.fileno(), 100), b""))
        assert process.wait(30) == 0
    assert received == buffered


def test_ctrl_c_is_quiet():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        command = [*STATEHOUSECTL, "--address", f"127.0.0.1:{port}", "health"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            connection.close()
            assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


def test_json_cannot_steer_a_terminal_and_stays_json(ctl, address):
    with statehouse.Statehouse(address) as client, client.begin_transaction() as txn:
        txn.write("evil", "k", {"t": "\x1b[2J\x9b2J\u202eé"})
    _, out, _ = ctl("get", "evil", "k")
    assert json.loads(out) == {"t": "\x1b[2J\x9b2J\u202eé"}
    assert not set(out) & set("\x1b\x9b\u202e")
    assert "é" in out


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_is_for_terminals_and_not_for_who_declines_it(environment, coloured):
    main, terminal = os.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run([*STATEHOUSECTL, "frob"], stderr=terminal, env=inherited | environment, check=False)
    os.close(terminal)
    assert (b"\x1b[" in os.read(main, 4096)) is coloured
    os.close(main)
    piped = subprocess.run([*STATEHOUSECTL, "frob"], capture_output=True, env=inherited | environment, check=False)
    assert b"\x1b[" not in piped.stderr
