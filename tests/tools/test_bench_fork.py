"""The benchmark of forks at a tiny size: every measurement runs, and what it says are numbers."""

import json
import subprocess
import sys
from pathlib import Path

import bench_fork
import pytest

TOOL = Path(bench_fork.__file__)
SIZES = ("--keys", "300", "--calls", "20")


def run(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=120, check=True)


def test_it_runs(tmp_path):
    said = json.loads(run(*SIZES, "--json", "--dir", str(tmp_path)).stdout)
    assert (said["keys"], said["forks"].keys()) == ({"small": 10, "large": 300}, {"small", "large", "commit"})
    assert min(said["large_over_small"], said["large_over_small_without_fsync"]) > 0
    reads = said["reads_by_levels"].values()
    assert [list(each) for each in reads] == [["0", "1", "8", "64"]] * 4
    unsynced = said["forks_without_fsync"].values()
    for times in [*said["forks"].values(), *unsynced, *(times for each in reads for times in each.values())]:
        assert 0 < times["median_us"] <= times["p99_us"]
    for each in said["space"].values():
        assert 60 < each["log_bytes"] < 500
        assert 60 < each["view_bytes"] < 2_000
    assert list(tmp_path.iterdir()) == []


def test_the_table():
    times, on_disk = {"median_us": 1000.0, "p99_us": 2345.6}, {"log_bytes": 120.5, "view_bytes": 300.0}
    found = {
        "calls": 7,
        "keys": {"small": 10, "large": 1_000_000},
        "forks": {"small": times, "large": times, "commit": times},
        "forks_without_fsync": {"large": times},
        "large_over_small": 1.25,
        "large_over_small_without_fsync": 1.5,
        "asked_at_most": 2.0,
        "space": {"small": on_disk, "large": on_disk},
        "reads_by_levels": {"get": {"64": times}},
    }
    said = bench_fork.table(found)
    assert "fork of 1,000,000 keys                    1000.0    2345.6\n" in said
    assert "large over small: 1.25 x (asked: at most 2 x)\n" in said
    assert "fork of 1,000,000 keys, no fsync          1000.0    2345.6\nlarge over small, no fsync: 1.5 x\n" in said
    assert "on disk, fork of 10 keys                   120.5 bytes of log, 300.0 of the view\n" in said
    assert said.endswith("\nget, 64 forks deep                        1000.0    2345.6")


@pytest.mark.parametrize("arguments", [["--keys", "0"], ["--calls", "many"]])
def test_bad_arguments_are_refused_before_anything_starts(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        bench_fork.main(arguments)
    assert caught.value.code == 2
    assert "is not a whole number from 1 up" in capsys.readouterr().err
