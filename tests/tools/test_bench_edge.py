"""The edge's benchmark at a tiny size: every measurement runs, and what it says is a number."""

import json
import math
import subprocess
import sys
from pathlib import Path

import bench_edge
import pytest
from edge_load import replay_reader

TOOL = Path(bench_edge.__file__)
TINY = ["--rounds", "2", "--seconds", "0.1", "--events", "200", "--in-flight", "4", "--clients", "4"]
FIGURES = {
    "calls",
    "calls-frames",
    "cpu",
    "cpu-frames",
    "latency",
    "replay",
    "replay-no-turns",
    "transactions",
    "transactions-frames",
    "transact",
    "transact-frames",
    "transact-cpu-frames",
    "batch",
    "batch-frames",
    "batch-alone",
    "client-asyncio",
    "client-trio",
}


def run(*arguments):
    command = [sys.executable, str(TOOL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_measurement_at_a_tiny_size(tmp_path):
    ran = run(*TINY, "--before", "HEAD", "--load-processes", "2", "--dir", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["figures"].keys() == FIGURES
    for figure in result["figures"].values():
        for series in (figure["ours"], figure["against"], figure["ratio"]):
            assert len(series["rounds"]) == 2
            assert all(math.isfinite(value) and value > 0 for value in [series["median"], *series["rounds"]])
    assert 190 <= result["notes"]["event_bytes"]["ours"] <= 210
    assert not list(tmp_path.iterdir())  # stores and the earlier package are gone
    assert ran.stderr.splitlines()[-1].startswith("load: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds", "0"], "above 0"),
        (["--only", "nothing"], "choose from"),
        (["--dir", "/nowhere"], "/nowhere is not a directory"),
        (["--rounds", "many"], "not a whole number"),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        bench_edge.main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_revision_is_one_line(tmp_path):
    ran = run("--only", "transactions", "--before", "no-such-revision", "--dir", str(tmp_path))
    assert (ran.returncode, ran.stderr.splitlines()[1:]) == (
        2,
        ["bench_edge: git knows no revision 'no-such-revision' here: name another with --before"],
    )
    assert not list(tmp_path.iterdir())


def test_messages_are_counted_by_their_lengths():
    content = b"".join(b"\0" + len(text).to_bytes(4, "big") + text for text in (b"", b"one", b"x" * 300))
    assert replay_reader.messages_in(content) == 3
    with pytest.raises(RuntimeError, match="inside a message"):
        replay_reader.messages_in(content[:-1])
