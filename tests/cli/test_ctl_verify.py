"""statehousectl head and verify against a real daemon: lines, exit codes, progress."""

import json

import pytest
from daemon_process import DaemonProcess

import statehouse
from statehouse.cli.statehousectl import exit_code_of
from statehouse.cli.verify_output import VerifyOutput, progress_line
from statehouse.findings import Head, VerifyFinding, VerifyProgress, VerifyVerdict

NOWHERE = f"9:{'ab' * 32}"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with DaemonProcess(tmp_path_factory.mktemp("verify") / "data") as daemon:
        with statehouse.Statehouse(daemon.address) as client:
            for number in range(8):
                with client.begin_transaction() as txn:
                    txn.write("a", f"k{number % 3}", {"n": number})
        yield daemon.address


@pytest.fixture
def ctl(address, capsys):
    def run(*arguments):
        code = exit_code_of(["--address", address, *arguments])
        captured = capsys.readouterr()
        return int(code), captured.out, captured.err

    return run


def test_head(ctl):
    code, out, err = ctl("head")
    head = Head.parse(out)
    assert (code, head.commit_ts, err) == (0, 8, "")
    _, out, _ = ctl("head", "--json")
    assert json.loads(out)["head"] == str(head)
    assert len(bytes.fromhex(json.loads(out)["store_id"])) == 16


def test_verify(ctl):
    head = ctl("head")[1].strip()
    code, out, err = ctl("verify", "--head", head, "--head", head)
    assert (code, err) == (0, "")
    assert out.startswith(f"sound; head {head}; 8 records, ")
    assert "1 known head" in out
    code, out, _ = ctl("verify", "--head", NOWHERE)
    finding, verdict = out.splitlines()
    assert code == 1
    assert finding.startswith(
        "FOUND head-cut  file=log  commit_ts=9  the log ends at commit_ts 8, before the head that was kept"
    )
    assert verdict.startswith("NOT SOUND: 1 finding;")


def test_verify_for_programs(ctl):
    code, out, _ = ctl("verify", "--json", "--head", NOWHERE)
    finding, verdict = map(json.loads, out.splitlines())
    assert (code, finding["type"], finding["kind"], finding["commit_ts"]) == (1, "finding", "head-cut", 9)
    assert finding["offset"] is None
    assert (verdict["type"], verdict["sound"], verdict["findings"]) == ("verdict", False, 1)


def test_progress_when_it_is_asked_for(ctl):
    assert "records" in ctl("verify", "--progress")[2]
    assert ctl("verify", "--no-progress")[2] == ""


def test_a_file_of_heads(ctl, tmp_path):
    file = tmp_path / "heads"
    file.write_text(ctl("head")[1] * 3)
    assert ctl("verify", "--heads", str(file))[0] == 0
    file.write_text("nonsense")
    code, _, err = ctl("verify", "--heads", str(file))
    assert code == 2
    assert "line 1: a head is TS:CHAIN" in err


@pytest.mark.parametrize("head", ["8", "8:12", "x", f"8:{'g' * 64}"])
def test_a_head_that_is_none_is_bad_usage(ctl, head):
    code, out, err = ctl("verify", "--head", head)
    assert (code, out) == (2, "")
    assert "a head is TS:CHAIN" in err


def test_a_daemon_that_is_not_there(capsys):
    assert exit_code_of(["--address", "127.0.0.1:1", "verify"]) == 3
    assert exit_code_of(["--address", "127.0.0.1:1", "head"]) == 3
    capsys.readouterr()


def test_progress_lines():
    log = VerifyProgress(stage="log", done=2**20, total=4 * 2**20, records=1_000, rows=0)
    line = "log: 1.0 of 4.0 MiB, 1,000 records, 250 records/s, 6 s left"
    assert progress_line(log, stage_s=2, whole_s=4) == line
    view = VerifyProgress(stage="view", done=0, total=10, records=0, rows=0)
    assert progress_line(view, stage_s=0, whole_s=0) == "view: 0 of 10 rows, 0 records"


def test_findings_that_were_too_many_are_counted(capsys):
    output = VerifyOutput(as_json=False, progress=False)
    output.show(VerifyFinding(kind="row-wrong", message="a\nb\x1b"))
    counts = {"log_bytes": 0, "records": 0, "rows": 0, "snapshots": 0, "heads": 0, "seconds": 0.0}
    output.show(VerifyVerdict(sound=False, findings=7, notes=0, head=Head(0, bytes(32)), **counts))
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["FOUND row-wrong  a\\nb\\x1b", "6 more findings are not shown"]
