"""The benchmark of values that expire at a tiny size: every measurement runs, and what it says are numbers."""

import json
import subprocess
import sys
from pathlib import Path

import bench_ttl
import pytest

TOOL = Path(bench_ttl.__file__)
SIZES = ("--values", "300", "--agents", "3", "--calls", "10")


def run(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=120, check=True)


def test_it_runs(tmp_path):
    said = json.loads(run(*SIZES, "--json", "--dir", str(tmp_path)).stdout)
    for name in bench_ttl.LINES:
        assert said[name]["ratio"] > 0
        for kind in ("lasting", "expiring"):
            assert 0 < said[name][kind]["median_us"] <= said[name][kind]["p99_us"]
    assert 60 < said["space"]["lasting"]["log_bytes"] < said["space"]["expiring"]["log_bytes"] < 500
    assert 60 < said["space"]["lasting"]["view_bytes"] < said["space"]["expiring"]["view_bytes"] < 2_000
    swept = said["sweep"]
    assert (swept["values"], swept["agents"]) == (300, 3)
    assert min(swept["took_s"], swept["values_per_s"]) > 0
    for times in (swept["others_before"], swept["others_meanwhile"]):
        assert times["commits"] > 0
        assert 0 < times["median_us"] <= times["p99_us"] <= times["max_us"]
    assert list(tmp_path.iterdir()) == []


def test_the_table():
    times = {"median_us": 1000.0, "p99_us": 2345.6}
    called = {"lasting": times, "expiring": times, "ratio": 1.25}
    others = {**times, "max_us": 70_000.0, "commits": 12}
    found = {
        **dict.fromkeys(bench_ttl.LINES, called),
        "calls": 7,
        "space": {"expiring": {"log_bytes": 120.5, "view_bytes": 300.0}},
        "sweep": {
            "values": 100_000,
            "agents": 10,
            "written_s": {"lasting": 2.5, "expiring": 3.5},
            "took_s": 4.0,
            "values_per_s": 25_000,
            "others_before": others,
            "others_meanwhile": others,
        },
    }
    said = bench_ttl.table(found)
    assert "commit of one key               1000.0    2345.6    1000.0    2345.6   1.25 x\n" in said
    assert "on disk, one value, expiring: 120.5 bytes of log, 300.0 of the view\n" in said
    assert "\n100,000 values of 10 agents written in 2.5 s, with a TTL in 3.5 s\n" in said
    assert "expired at once, and were deleted in 4.0 s: 25,000 a second\n" in said
    assert said.endswith("commits of others meanwhile     1000.0    2345.6, at most 70,000 (12 commits)")


@pytest.mark.parametrize("arguments", [["--values", "0"], ["--agents", "-1"], ["--calls", "many"]])
def test_bad_arguments_are_refused_before_anything_starts(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        bench_ttl.main(arguments)
    assert caught.value.code == 2
    assert "is not a whole number from 1 up" in capsys.readouterr().err
