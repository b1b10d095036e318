"""statehousectl transact: what is sent, in which order; what is refused before; what a conflict says."""

import json
import os
import subprocess
import sys

import pytest

from statehouse import AgentDeletedError, ConflictError, LeaseError
from statehouse.client.types import Precondition, Put, Remove, Transacted
from statehouse.errors import FailedPrecondition
from statehouse.limits import TTL_MOST_S

STATEHOUSECTL = (sys.executable, "-m", "statehouse.cli.statehousectl")


@pytest.fixture
def sent(made_up_client):
    """What a client that is made up was asked to do."""
    requests = []

    def transact(operations, **options):
        requests.append((operations, options))
        return Transacted(7, tuple(range(1, len(operations) + 1)), "t-1", deduplicated=len(requests) > 1)

    made_up_client(transact=transact)
    return requests


def test_everything_in_the_order_in_which_it_stands(run_ctl, sent, tmp_path):
    file = tmp_path / "operations.jsonl"
    file.write_text(
        '{"agent_id": "f", "key": "1", "value": {"n": 1}}\n\n'
        '{"agent_id": "f", "key": "2", "value": null, "namespace": "other"}'
    )
    code, out, err = run_ctl(
        *("transact", "--put", "a", "k", '{"x": [1, null]}', "--remove", "b", "k", "--file", file),
        *("--remove", "a", "k", "--put", "a", "k", "{}"),
        *("--if-version", "a", "k", "0", "--if-absent", "a", "k", "--if-exists", "b", "k"),
        *("--if-agent-at", "c", "9", "--lease", "a", "3", "--lease", "b", "4"),
        *("--idempotency-key", "once", "--meta", "run=r=1", "--meta", "user="),
    )
    assert (code, err) == (0, "")
    [(operations, options)] = sent
    assert operations == [
        Put("a", "k", {"x": [1, None]}),
        Remove("b", "k"),
        Put("f", "1", {"n": 1}),
        Remove("f", "2", "other"),
        Remove("a", "k"),
        Put("a", "k", {}),
    ]
    assert options == {
        "preconditions": [
            Precondition.version_is("a", "k", 0),
            Precondition.exists("a", "k", exists=False),
            Precondition.exists("b", "k"),
            Precondition.agent_at("c", 9),
            Precondition.lease("a", 3),
            Precondition.lease("b", 4),
        ],
        "idempotency_key": "once",
        "metadata": {"run": "r=1", "user": ""},
        "revive": False,
    }
    assert out.splitlines()[:3] == [
        "commit_ts=7  txn=t-1",
        "agent=a  WRITE  key=k  v=1",
        "agent=b  DEL  key=k  v=2",
    ]


def test_for_programs(run_ctl, sent):
    arguments = ("transact", "--json", "--put", "a", "k", "{}", "--remove", "a", "l")
    done = {"committed": True, "commit_ts": 7, "txn_id": "t-1", "deduplicated": False, "versions": [1, 2]}
    assert [json.loads(run_ctl(*arguments)[1]) for _ in range(2)] == [done, done | {"deduplicated": True}]
    assert run_ctl(*arguments[:1], *arguments[2:])[1].startswith("commit_ts=7  txn=t-1  deduplicated\n")


def test_revive(run_ctl, sent):
    assert run_ctl("transact", "--put", "a", "k", "{}", "--revive")[0] == 0
    assert sent[0][1]["revive"] is True


def test_how_long_values_last(run_ctl, sent, tmp_path):
    file = tmp_path / "operations.jsonl"
    file.write_text(
        '{"agent_id": "f", "key": "1", "value": {}, "ttl_s": 5}\n'
        '{"agent_id": "f", "key": "2", "value": {}, "ttl_s": null}\n'
        '{"agent_id": "f", "key": "3", "value": null, "ttl_s": null}\n'
    )
    code, out, err = run_ctl(
        *("transact", "--put", "a", "k", "{}", "--file", file, "--ttl", "60", "--remove", "a", "l"),
        *("--put", "a", "m", "{}"),
    )
    assert (code, err) == (0, "")
    assert sent[0][0] == [
        Put("a", "k", {}, ttl_s=60),
        Put("f", "1", {}, ttl_s=5),
        Put("f", "2", {}),
        Remove("f", "3"),
        Remove("a", "l"),
        Put("a", "m", {}, ttl_s=60),
    ]
    assert out.splitlines()[1:4] == [
        "agent=a  WRITE  key=k  v=1  ttl_s=60",
        "agent=f  WRITE  key=1  v=2  ttl_s=5",
        "agent=f  WRITE  key=2  v=3",
    ]


def test_a_deleted_agent_ends_like_a_conflict(run_ctl, made_up_client):
    def transact(operations, **_):
        raise AgentDeletedError("it was deleted; to bring it back, say so", details={"commit_ts": "9"})

    made_up_client(transact=transact)
    command = ("transact", "--put", "a", "k", "{}")
    said = "statehousectl: it was deleted; to bring it back, say so (--revive says so)\n"
    assert run_ctl(*command) == (6, "", said)
    assert run_ctl(*command, "--json") == (6, '{"committed":false,"failed":[],"deleted_at_ts":9}\n', said)


def test_conditions_alone_are_enough(run_ctl, sent):
    assert run_ctl("transact", "--if-exists", "a", "k")[0] == 0
    assert sent[0][0] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do; give --put, --remove, --file or a condition"),
        (["--meta", "a=b"], "nothing to do"),
        (["--put", "a", "k"], "Option '--put' requires 3 arguments."),
        (["--put", "a", "k", "{"], "'--put': not JSON: Expecting property name"),
        (["--put", "a", "k", "[1]"], "a value is a JSON object"),
        (["--put", "a", "k", '{"n": NaN}'], "NaN is not a JSON number"),
        (["--put", "a", "k", '{"n": 9007199254740993}'], "value.n: an integer beyond 2**53"),
        (["--put", "a", "k", "[" * 100_000], "not JSON: nested too deep"),
        (["--put", "a", "\udcff", "{}"], r"'\udcff' is not UTF-8"),
        (["--put", "a", "k", "{}", "--ttl", "0"], "0 is not in the range 1<=x<="),
        (["--put", "a", "k", "{}", "--ttl", "-1"], "-1 is not in the range 1<=x<="),
        (["--put", "a", "k", "{}", "--ttl", str(TTL_MOST_S + 1)], f"is not in the range 1<=x<={TTL_MOST_S}"),
        (["--put", "a", "k", "{}", "--ttl", "1.5"], "'1.5' is not a valid integer"),
        (["--remove", "a", "k", "--ttl", "1"], '--ttl is of --put, and there is none; a line of a file has "ttl_s"'),
        (["--if-version", "a", "k", "-1"], "-1 is not in the range"),
        (["--if-agent-at", "a", "x"], "'x' is not a valid integer"),
        (["--lease", "a", str(2**64)], "is not in the range"),
        (["--if-exists", "a", "k", "--meta", "a"], "'a' is not NAME=VALUE"),
        (["--if-exists", "a", "k", "--meta", "=b"], "'=b' is not NAME=VALUE"),
        (["--if-exists", "a", "k", "--meta", "a=b", "--meta", "a=c"], "'a' is given twice"),
        (["--file", "/nowhere"], "the file of operations /nowhere cannot be read: No such file or directory"),
        (["--file", "-", "--file", "-"], "stdin can be read once; --file - is given twice"),
        (["agent"], "unexpected extra argument (agent)"),
    ],
)
def test_bad_usage_sends_nothing(run_ctl, sent, arguments, message):
    code, out, err = run_ctl("transact", *arguments)
    assert (code, out, sent) == (2, "", [])
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "a value is a JSON object"),
        (b"\xff", "not UTF-8"),
        (b'{"agent_id": "a", "key": "k"}', "'value' is missing; null deletes the key"),
        (b'{"key": "k", "value": {}}', "'agent_id' is missing"),
        (b'{"agent_id": "a", "key": "k", "vlaue": {}}', "'vlaue' is no member of an operation"),
        (b'{"agent_id": "a", "key": "k", "value": {}, "ttl_s": 0}', "'ttl_s' is 0, and not a whole number from 1"),
        (b'{"agent_id": "a", "key": "k", "value": {}, "ttl_s": -1}', "'ttl_s' is -1, and not"),
        (b'{"agent_id": "a", "key": "k", "value": {}, "ttl_s": 1e300}', "'ttl_s' is 1e+300, and not"),
        (b'{"agent_id": "a", "key": "k", "value": {}, "ttl_s": 316224001}', "'ttl_s' is 316224001, and not"),
        (b'{"agent_id": "a", "key": "k", "value": {}, "ttl_s": true}', "'ttl_s' is true, and not"),
        (b'{"agent_id": "a", "key": "k", "value": {}, "ttl_s": "1"}', "'ttl_s' is \"1\", and not"),
        (b'{"agent_id": "a", "key": "k", "value": null, "ttl_s": 1}', "'ttl_s' is of a write"),
        (b'{"agent_id": "a", "key": 7, "value": {}}', "'key' is 7, and no string"),
        (b'{"agent_id": "a", "key": "k", "value": 7}', "'value' is neither a JSON object nor null"),
        (b'{"agent_id": "a", "key": "k", "value": {}, "namespace": null}', "'namespace' is null, and no string"),
        (b'{"agent_id": "a", "key": "k", "value": {"n": 1e999}}', "value.value.n: inf is not a JSON number"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_sent(run_ctl, sent, tmp_path, line, message):
    file = tmp_path / "operations.jsonl"
    file.write_bytes(b'{"agent_id": "a", "key": "k", "value": {}}\n' + line + b"\n")
    code, _, err = run_ctl("transact", "--file", file)
    assert (code, sent) == (2, [])
    assert f"the file of operations {file}, line 2: {message}" in err


def test_an_empty_file_is_nothing_to_do(run_ctl, sent, tmp_path):
    file = tmp_path / "empty"
    file.write_text("\n \n")
    assert run_ctl("transact", "--file", file)[0] == 2
    assert sent == []


def test_a_conflict_names_all_that_failed(run_ctl, made_up_client):
    def transact(operations, **_):
        failed = [
            FailedPrecondition(0, version=4, exists=True),
            FailedPrecondition(1, version=4, exists=True),
            FailedPrecondition(2, version=2),
            FailedPrecondition(3, agent_commit_ts=8),
            FailedPrecondition(4, lease_epoch=2, lease_held=True),
            FailedPrecondition(5),
        ]
        raise ConflictError("6 preconditions did not hold", failed=failed)

    made_up_client(transact=transact)
    arguments = ("--if-version", "a", "k", 3, "--if-absent", "a", "k", "--if-exists", "a", "l")
    more = ("--if-agent-at", "a", 9, "--lease", "a", 1, "--lease", "b\n", 1)
    code, out, err = run_ctl("transact", "--put", "a", "k", "{}", *arguments, *more)
    assert (code, out) == (6, "")
    assert err == (
        "statehousectl: nothing was changed: key 'k' of agent 'a' is at version 4, not 3; key 'k' of agent 'a' exists "
        "(version 4); key 'l' of agent 'a' has no value (version 2); agent 'a' is at commit_ts 8, not 9; the newest "
        "lease on agent 'a' has epoch 2 and is held, epoch 1 was shown; agent 'b\\\\n' has no lease\n"
    )
    code, out, _ = run_ctl("transact", "--json", *arguments, *more)
    told = json.loads(out)
    assert (code, told["committed"], len(told["failed"])) == (6, False, 6)
    assert told["failed"][0] == {
        "index": 0,
        "condition": "version",
        "agent_id": "a",
        "expected": 3,
        "key": "k",
        "found": {"version": 4, "exists": True},
    }
    assert told["failed"][3]["found"] == {"agent_commit_ts": 8}
    assert told["failed"][4]["found"] == {"lease_epoch": 2, "lease_held": True}


def test_a_conflict_of_which_nothing_is_said(run_ctl, made_up_client):
    def transact(operations, **_):
        raise ConflictError("a precondition did not hold")

    made_up_client(transact=transact)
    said = (6, "", "statehousectl: a precondition did not hold\n")
    assert run_ctl("transact", "--put", "a", "k", "{}") == said


def test_a_lease_of_somebody_else_ends_likewise(run_ctl, made_up_client):
    def lease(*_, **__):
        raise LeaseError("agent a is held by other")

    made_up_client(lease=lease)
    assert run_ctl("lease", "acquire", "a", "--holder", "me")[0] == 6


def test_against_a_daemon(ctl_there, module_client):
    code, out, _ = ctl_there("transact", "--put", "t", "k", '{"n": 1}', "--put", "t", "k", '{"n": 2}', "--json")
    done = json.loads(out)
    assert (code, done["versions"]) == (0, [1, 2])
    assert module_client.get_state("t", "k").value == {"n": 2}
    once = (
        "transact",
        "--put",
        "t",
        "k",
        '{"n": 3}',
        "--if-version",
        "t",
        "k",
        "2",
        "--idempotency-key",
        "a",
        "--json",
    )
    first, again = json.loads(ctl_there(*once)[1]), json.loads(ctl_there(*once)[1])
    assert again == first | {"deduplicated": True}
    code, _, err = ctl_there("transact", "--remove", "t", "k", "--if-version", "t", "k", "2", "--if-exists", "t", "x")
    assert code == 6
    assert err == (
        "statehousectl: nothing was changed: key 'k' of agent 't' is at version 3, not 2; key 'x' of agent 't' was "
        "never written (version 0)\n"
    )
    assert ctl_there("transact", "--put", "t", "k", "{}", "--idempotency-key", "a")[0] == 4
    assert ctl_there("transact", "--put", "t", "k", "{}", "--meta", "x=" + "y" * 513)[0] == 4
    assert module_client.get_state("t", "k").version == 3


def test_from_stdin(module_daemon, module_client):
    done = subprocess.run(
        [*STATEHOUSECTL, "transact", "--file", "-", "--namespace", "piped"],
        env={**os.environ, "STATEHOUSE_ADDR": module_daemon.address},
        input=b"".join(b'{"agent_id": "s", "key": "k%d", "value": {"n": %d}}\n' % (n, n) for n in range(100)),
        capture_output=True,
        check=True,
    )
    assert done.stdout.count(b"\n") == 101
    assert module_client.get_state("s", "k99", "piped").value == {"n": 99}
