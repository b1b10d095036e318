"""The kill proof: a few of its cycles, what its oracle has to catch, and that it fails when a daemon loses commits."""

import shutil
import subprocess
import sys
from pathlib import Path

import proof_kill
import pytest
from attrs import evolve
from kill_cycles import forged
from kill_cycles.faults import Before, bring_back

ROOT = Path(__file__).resolve().parents[2]


def test_a_few_cycles(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "proof_kill.py"), "--cycles", "3", "--clients", "6"]
    ran = subprocess.run([*command, "--data-dir", str(tmp_path / "data")], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout  # the seed is in it
    assert "cycle   3/3" in ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("passed")
    assert not (tmp_path / "data").exists()


def test_the_honest_history_is_accepted():
    assert forged.violations_of(lambda _, evidence: evidence) == []


@pytest.mark.parametrize("forgery", forged.FORGERIES, ids=lambda forgery: forgery.name)
def test_a_forged_history_is_caught(forgery):
    assert any(forgery.found in violation for violation in forged.violations_of(forgery.change))


def test_the_self_test_tells_of_an_oracle_that_sees_nothing(monkeypatch, capsys):
    assert proof_kill.main(["--self-test"]) == 0
    monkeypatch.setattr(forged.Oracle, "judge", lambda *_: [])
    assert proof_kill.main(["--self-test"]) == 1
    assert capsys.readouterr().out.count("not caught") == len(forged.FORGERIES)


def test_a_daemon_that_forgets_everything_fails_the_proof(tmp_path, monkeypatch, capsys):
    async def forget(daemon, plan):
        shutil.rmtree(daemon.data_dir)
        return await bring_back(daemon, evolve(plan, before=Before.NOTHING))

    monkeypatch.setattr(proof_kill, "bring_back", forget)
    data_dir = tmp_path / "data"
    assert proof_kill.main(["--cycles", "1", "--seed", "1", "--clients", "6", "--data-dir", str(data_dir)]) == 1
    out = capsys.readouterr().out
    assert "and is lost" in out
    assert f"data directory   {data_dir}" in out


def test_a_data_directory_in_use_is_left_alone(tmp_path, capsys):
    (tmp_path / "precious").touch()
    assert proof_kill.main(["--data-dir", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().out
    assert (tmp_path / "precious").exists()
