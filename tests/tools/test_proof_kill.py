"""The kill proof: a few of its cycles, what its oracle has to catch, and that it fails when a daemon loses commits."""

import shutil
import subprocess
import sys
from pathlib import Path

import kill_cycles.faults
import proof_kill
import pytest
import trio
from attrs import evolve
from histories import forged, forged_at_once, forged_expiry, forged_forks
from histories.oracle import Evidence
from histories.submissions import Load, Outcome
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


@pytest.mark.parametrize("forgery", forged_at_once.FORGERIES_AT_ONCE, ids=lambda forgery: forgery.name)
def test_a_forged_history_of_conditions_is_caught(forgery):
    assert any(forgery.found in violation for violation in forged_at_once.violations_at_once(forgery.change))


def test_the_honest_history_of_conditions_is_accepted():
    assert forged_at_once.violations_at_once(lambda load: load.newest_ts) == []


@pytest.mark.parametrize("forget", [False, True], ids=["remembered", "forgotten"])
@pytest.mark.parametrize("forgery", forged_forks.FORGERIES_OF_FORKS, ids=lambda forgery: forgery.name)
def test_a_forged_history_of_forks_is_caught(forgery, forget):
    violations = forged_forks.violations_of_forks(forgery.change, forget=forget)
    assert any(forgery.found in violation for violation in violations)


@pytest.mark.parametrize("forget", [False, True], ids=["remembered", "forgotten"])
@pytest.mark.parametrize("forgery", forged_expiry.FORGERIES_OF_EXPIRY, ids=lambda forgery: forgery.name)
def test_a_forged_history_of_what_expires_is_caught(forgery, forget):
    violations = forged_expiry.violations_of_expiry(forgery.change, forget=forget)
    assert any(forgery.found in violation for violation in violations)


@pytest.mark.parametrize("forget", [False, True], ids=["remembered", "forgotten"])
@pytest.mark.parametrize("seen", [True, False], ids=["notes seen", "notes unseen"])
def test_the_honest_history_of_what_expires_is_accepted(seen, forget):
    def change(_: Load, evidence: Evidence) -> Evidence:
        return evidence if seen else evolve(evidence, noted=None)

    assert forged_expiry.violations_of_expiry(change, forget=forget) == []


@pytest.mark.parametrize("forget", [False, True], ids=["remembered", "forgotten"])
def test_the_honest_history_of_forks_is_accepted(forget):
    assert forged_forks.violations_of_forks(lambda _, evidence: evidence, forget=forget) == []


def test_the_self_test_tells_of_an_oracle_that_sees_nothing(monkeypatch, capsys):
    assert proof_kill.main(["--self-test"]) == 0
    monkeypatch.setattr(forged.Oracle, "judge", lambda *_: [])
    assert proof_kill.main(["--self-test"]) == 1
    tables = (
        forged.FORGERIES,
        forged_at_once.FORGERIES_AT_ONCE,
        forged_forks.FORGERIES_OF_FORKS,
        forged_expiry.FORGERIES_OF_EXPIRY,
    )
    assert capsys.readouterr().out.count("not caught") == sum(map(len, tables))


def test_a_daemon_that_forgets_everything_fails_the_proof(tmp_path, monkeypatch, capsys):
    async def forget(daemon, plan):
        shutil.rmtree(daemon.data_dir)
        return await bring_back(daemon, evolve(plan, before=Before.NOTHING))

    run_under_load = proof_kill.Proof._run_under_load

    async def until_acknowledged(proof, plan, load):
        """On a busy machine, nothing may be acknowledged in the half second that is planned: nothing could be lost."""

        async def strike(daemon, plan):
            while not load.count(Outcome.ACKNOWLEDGED):  # noqa: ASYNC110 - the load has no event for it
                await trio.sleep(0.01)
            return await kill_cycles.faults.strike(daemon, plan)

        monkeypatch.setattr(proof_kill, "strike", strike)
        return await run_under_load(proof, plan, load)

    monkeypatch.setattr(proof_kill, "bring_back", forget)
    monkeypatch.setattr(proof_kill.Proof, "_run_under_load", until_acknowledged)
    data_dir = tmp_path / "data"
    assert proof_kill.main(["--cycles", "1", "--seed", "1", "--clients", "6", "--data-dir", str(data_dir)]) == 1
    out = capsys.readouterr().out
    assert "and is lost" in out
    assert f"the data directory is kept: {data_dir}" in out


def test_a_data_directory_in_use_is_left_alone(tmp_path, capsys):
    (tmp_path / "precious").touch()
    assert proof_kill.main(["--data-dir", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().out
    assert (tmp_path / "precious").exists()
