"""The benchmark of watching at a tiny size: every watcher is told, and what it says are numbers."""

import json
import subprocess
import sys
from pathlib import Path

import bench_watch

TOOL = Path(bench_watch.__file__)


def test_it_runs(tmp_path):
    sizes = ["--watchers", "120", "--many", "200", "--commits", "20", "--pause", "0", "--dir", str(tmp_path)]
    ran = subprocess.run([sys.executable, TOOL, *sizes], capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(ran.stdout)
    assert [(said[name]["watchers"], said[name]["connections"]) for name in ("one_agent", "many_agents")] == [
        (120, 2),
        (200, 2),
    ]
    for each in (said["one_agent"], said["many_agents"]):
        assert 0 < each["all_reached_ms"]["median"] <= each["all_reached_ms"]["p99"]
        assert 0 < each["resident_mib"]["empty"] <= each["resident_mib"]["idle"]
    assert list(tmp_path.iterdir()) == []
