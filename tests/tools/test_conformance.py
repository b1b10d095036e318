"""The conformance tool: what it finds it runs, and a check that does not hold fails it."""

import subprocess
import sys
from pathlib import Path

import conformance
import pytest


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    return path


@pytest.fixture
def only(tmp_path, monkeypatch):
    """Run the tool where nothing is found but the programs made for it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(conformance, "BUILT", tmp_path / "built")

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["conformance.py", *arguments])
        return conformance.main()

    return main


def test_a_program_that_is_not_found_is_missing_and_fails_only_if_required(only, capsys):
    assert only() == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["missing", name] for name in conformance.CHECKS
    ]
    assert only("--require", "curl") == 1


def test_a_program_that_says_something_else_fails_its_check(only, tmp_path, capsys):
    program(tmp_path, "curl", "print('HTTP/2 200')")
    assert only() == 1
    assert "FAILED    curl: a GET is answered HTTP/2 200" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cases", "says"),
    [
        ("<testcase/><testcase/>", "2 cases passed"),
        ("<testcase/><testcase package='p' classname='c'><failure/></testcase>", "2 cases, 1 failed, 0 skipped: p c"),
        ("<testcase package='p' classname='c'><skipped/></testcase>", "1 cases, 0 failed, 1 skipped: p c"),
        ("", "0 cases, 0 failed, 0 skipped: "),
    ],
)
def test_every_case_of_h2spec_must_pass(tmp_path, cases, says):
    script = f"import sys; open(sys.argv[sys.argv.index('-j') + 1], 'w').write(\"<t>{cases}</t>\")"
    spec = program(tmp_path, "h2spec", script)
    try:
        said = conformance.h2spec(str(spec), "127.0.0.1:1", Path(tmp_path))
    except conformance.FailedError as error:
        said = str(error)
    assert said == says


def test_a_program_that_fails_says_why(tmp_path):
    failing = program(tmp_path, "x", "raise SystemExit('no such thing')")
    with pytest.raises(conformance.FailedError, match="x ended with 1: no such thing"):
        conformance.run([str(failing)])


def test_help_says_what_is_checked():
    said = subprocess.run([sys.executable, conformance.__file__, "--help"], check=True, capture_output=True, text=True)
    assert all(name in said.stdout for name in conformance.CHECKS)
