"""The guide: each of its pages is run, block by block, as its reader would, against a daemon of the page's own.

A `python` block is executed with `client` at hand and what the blocks before it left; each line that prints says, in
a comment, what: `print(x)  # this`. In a `console` block each line that begins with `$ ` is given to a shell, and the
lines after it are what it prints, `...` for anything. Other blocks are not code: `text`, and nothing else.
"""

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from statehouse import Statehouse

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide"
PAGES = sorted(GUIDE.glob("*.md"))
EXAMPLES = sorted(path for path in (ROOT / "examples" / "guide").glob("*.py") if path.stem != "__init__")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PRINTED = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)


class Block(NamedTuple):
    kind: str
    line: int
    code: str


def blocks(text):
    """Every fenced block of a page, in order, with the line that its code begins on."""
    return [Block(each[1], text.count("\n", 0, each.start(2)) + 1, each[2]) for each in _BLOCK.finditer(text)]


def run_python(block, page, names):
    """Execute a block; what it printed must be what its comments say."""
    printed = io.StringIO()
    # As many lines as stand before it, so that a traceback names the line of the page.
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    assert_printed(printed.getvalue(), "".join(f"{line}\n" for line in _PRINTED.findall(block.code)), page, block.line)


def run_console(block, page, environment):
    """Run each command of a block in a shell; what it printed, on either output, must be what follows it."""
    commands = re.split(r"^\$ ", block.code, flags=re.MULTILINE)
    assert commands[0] == "", f"{page}:{block.line}: a console block begins with a command"
    for each in commands[1:]:
        command, _, expected = each.partition("\n")
        while command.endswith("\\"):
            more, _, expected = expected.partition("\n")
            command = f"{command[:-1]}{more.removeprefix('> ')}"
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert_printed(done.stdout, expected, page, block.line, command)


def assert_printed(printed, expected, page, line, what="the block"):
    matches = doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)
    assert matches, f"{page}:{line}: {what}\nprinted:\n{printed}\nand not:\n{expected}"


@pytest.fixture
def environment(tmp_path, daemon):
    """What a reader of the guide has: both commands and Python in the path, and the daemon where it is looked for."""
    for name, module in (("python", ""), ("statehousectl", "-m statehouse.cli.statehousectl")):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        script.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATEHOUSE_")}
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, "PATH": path, "STATEHOUSE_ADDR": daemon.address}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_block_of_a_page(page, daemon, environment):
    with Statehouse(daemon.address) as client:
        names = {"client": client, "__name__": "guide"}
        for block in blocks(page.read_text()):
            if block.kind == "python":
                run_python(block, page, names)
            elif block.kind == "console":
                run_console(block, page, environment)
            else:
                assert block.kind == "text", f"{page}:{block.line}: a block of a kind that is not run"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_again_and_again(example, module_daemon):
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", f"examples.guide.{example.stem}", "--address", module_daemon.address],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("STATEHOUSE_")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


def test_the_code_of_the_readme_runs(daemon):
    code = [block.code for block in blocks((ROOT / "README.md").read_text()) if block.kind == "python"]
    first, more = (each.replace("localhost:50051", daemon.address) for each in code[:2])
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(first, names)
        exec(more.replace("start_ts=1)", "start_ts=1, limit=3)"), names)
    assert printed.getvalue().endswith("3 run-12\n")


def test_every_example_is_run_by_its_page():
    assert EXAMPLES
    for example in EXAMPLES:
        page = (GUIDE / f"{example.stem.replace('_', '-')}.md").read_text()
        assert f"$ python -m examples.guide.{example.stem}\n" in page


def test_the_index_has_every_page_and_no_link_is_dead():
    index = (GUIDE / "README.md").read_text()
    for page in PAGES:
        assert page.name == "README.md" or f"({page.name})" in index
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"


def test_a_block_that_does_not_do_what_it_says_is_told(environment):
    page = Path("page.md")
    found = blocks("text\n```python\nprint(1)  # 1\n```\n```console\n$ echo a b\na ...\n$ true\n```\n")
    assert [(block.kind, block.line) for block in found] == [("python", 3), ("console", 6)]
    run_python(found[0], page, {})
    run_console(found[1], page, environment)
    with pytest.raises(AssertionError, match=r"page.md:3: the block"):
        run_python(found[0]._replace(code="print(2)  # 1\n"), page, {})
    with pytest.raises(AssertionError, match="printed"):
        run_python(found[0]._replace(code="print(2)\n"), page, {})
    with pytest.raises(AssertionError, match=r"page.md:6: echo c"):
        run_console(found[1]._replace(code="$ echo c\nd\n"), page, environment)
