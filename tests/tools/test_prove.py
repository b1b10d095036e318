"""The runner of the proofs: what fails, what breaks off and what says nothing counts as failed."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import prove
import pytest
from prove import BEGIN, END, STEPS, Result, Step

HONEST = (
    "import sys, json, pathlib; "
    "pathlib.Path(sys.argv[-1]).write_text(json.dumps({'tried': {'cases': 1200}, 'violations': []})); "
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(*programs: str, arguments: tuple[str, ...] = ()) -> int:
        steps = tuple(Step(f"p{number}", "a proof", ("-c", program)) for number, program in enumerate(programs))
        monkeypatch.setattr(prove, "STEPS", steps)
        return prove.main(["--out", str(tmp_path), *arguments])

    return run


def test_all_pass(run, capsys, tmp_path):
    assert run(HONEST, HONEST + "print('said')") == 0
    out = capsys.readouterr().out
    assert "1,200 cases" in out
    assert "2 proofs passed" in out
    assert (tmp_path / "p1.log").read_text() == "said\n"


@pytest.mark.parametrize("program", [HONEST + "sys.exit(1)", "pass", "raise SystemExit('no')"])
def test_a_proof_that_fails_or_says_nothing_fails_the_run(run, capsys, program):
    assert run(HONEST, program) == 1
    assert "FAILED: p1" in capsys.readouterr().out


def test_an_old_summary_does_not_count(run, tmp_path):
    assert run(HONEST) == 0
    assert json.loads((tmp_path / "p0.json").read_text())["tried"]
    assert run("pass") == 1


def test_one_of_them(run, capsys):
    assert run(HONEST, "sys.exit(1)", arguments=("--only", "p0")) == 0
    with pytest.raises(SystemExit):
        run(HONEST, arguments=("--only", "p7"))
    assert "no proof called p7" in capsys.readouterr().err


def test_the_page_gets_the_run(run, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old{END}\nafter\n")
    assert run(HONEST, arguments=("--page", str(page))) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert re.search(r"\| p0 \| passed \| \d+ s \| 0 \| 1,200 cases \|", text)
    assert "old" not in text
    with pytest.raises(LookupError):
        prove.written("no markers", [Result(STEPS[0], passed=True, seconds=1.0, found={})], full_size=False)


SIZES = [(step, True) for step in STEPS] + [(step, False) for step in STEPS if step.ci]


@pytest.mark.parametrize(("step", "full_size"), SIZES, ids=lambda one: getattr(one, "name", one))
def test_every_step_is_a_command_that_takes_its_options(step, full_size):
    """Options that exclude each other are refused before --help is looked at."""
    command = [sys.executable, *step.arguments(full_size=full_size), *(("--json", "x") if step.reports else ())]
    ran = subprocess.run([*command, "--help"], cwd=prove.ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "usage" in ran.stdout


def test_one_row_does_not_become_the_whole_page(run, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}old{END}\n")
    with pytest.raises(SystemExit):
        run(HONEST, HONEST, arguments=("--only", "p0", "--page", str(page)))
    assert "--page takes the outcome of a whole run" in capsys.readouterr().err
    assert "old" in page.read_text()


def test_who_says_nothing_of_violations_has_not_had_none():
    page = f"{BEGIN}{END}"
    result = Result(Step("fuzz", "frames", ("-c", "")), passed=True, seconds=1.0, found={"notes": ["passed"]})
    assert "| fuzz | passed | 1 s | - | passed |" in prove.written(page, [result], full_size=False)


HANGS = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
told = pathlib.Path(sys.argv[-1]).with_suffix('.told')
told.write_text(f'{os.getpid()} {child.pid}')
told.rename(told.with_suffix('.pids'))
time.sleep(60)
"""


def test_a_proof_that_hangs_is_ended_with_what_it_started_and_has_failed(run, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(prove, "END_S", 0.2)
    pids = tmp_path / "p0.pids"
    for limit_s in (3.0, 30.0):  # on a busy machine, the shorter one may be over before it has begun
        monkeypatch.setattr(prove, "LIMIT_S", limit_s)
        assert run(HANGS) == 1
        out = capsys.readouterr().out
        assert "FAILED: p0" in out
        assert f"ended, for it took more than {limit_s / 60:g} minutes" in out
        if pids.exists():
            break
    for pid in map(int, pids.read_text().split()):
        assert not is_alive(pid)


@pytest.mark.parametrize("path", prove.SEEDED_BY)
def test_a_commit_of_code_has_a_seed_of_its_own_and_one_of_pages_has_not(tmp_path, monkeypatch, path):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # as a hook of git has them: they name another repository
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setattr(prove, "ROOT", tmp_path)
    assert prove.seed_of_code() is None
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)

    def file(name: str) -> Path:
        return tmp_path / name if "." in name else tmp_path / name / "code.py"

    def seed_after(changed: Path, content: str) -> int | None:
        changed.write_text(content)
        as_somebody = ("-c", "user.name=a", "-c", "user.email=a@b")
        for command in (("add", "."), (*as_somebody, "commit", "--quiet", "-m", "a change")):
            subprocess.run(["git", *command], cwd=tmp_path, check=True)
        return prove.seed_of_code()

    for name in prove.SEEDED_BY:
        file(name).parent.mkdir(exist_ok=True)
        file(name).write_text("a = 0")
    first = seed_after(file(path), "a = 1")
    assert seed_after(tmp_path / "README.md", "a page") == first
    assert seed_after(file(path), "a = 2") not in {None, first}


def is_alive(pid: int) -> bool:
    """Whether it is, and is no zombie, a little later."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except (FileNotFoundError, ProcessLookupError):
            return False
        time.sleep(0.05)
    return True
