"""Completion: the scripts, and what they are answered; in a shell where there is one."""

import os
import shutil
import subprocess
import sys

import pytest

from statehouse.cli.ctl_completion import COMPLETION_VARIABLE, SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_calls_back(run_ctl, shell):
    code, out, _ = run_ctl("completion", shell)
    assert code == 0
    assert f"{COMPLETION_VARIABLE}={shell}_complete" in out
    assert "statehousectl" in out


def test_another_shell_is_bad_usage(run_ctl):
    code, out, err = run_ctl("completion", "tcsh")
    assert (code, out) == (2, "")
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in err


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("statehousectl tra", ["transact"]),
        ("statehousectl fo", ["fork"]),
        ("statehousectl del", ["delete-agent"]),
        ("statehousectl fork agent-7 other --at-t", ["--at-time"]),
        ("statehousectl lease re", ["release", "renew"]),
        ("statehousectl transact --if-v", ["--if-version"]),
        ("statehousectl --address nowhere:1 hist", ["history"]),
        ("statehousectl completion z", ["zsh"]),
        ("statehousectl frob x", []),
    ],
)
def test_commands_and_options_are_completed_without_a_daemon(run_ctl, monkeypatch, line, offered):
    monkeypatch.setenv(COMPLETION_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    code, out, err = run_ctl()
    assert (code, out.split(), err) == (0, [f"plain,{each}" for each in offered], "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_in_bash(tmp_path):
    script = tmp_path / "statehousectl"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m statehouse.cli.statehousectl "$@"\n')
    script.chmod(0o755)
    pressed = 'eval "$(statehousectl completion bash)"; COMP_WORDS=(statehousectl nam); COMP_CWORD=1'
    done = subprocess.run(
        ["bash", "--norc", "-c", f'{pressed}; _statehousectl_completion statehousectl; echo "${{COMPREPLY[@]}}"'],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("namespaces\n", "")
