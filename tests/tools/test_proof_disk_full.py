"""The proof of a full disk: some of its rounds, daemons that fail them, and where nothing can be mounted."""

import os
import sys
from functools import partial

import proof_disk_full
import pytest
from daemon_process import DaemonProcess
from small_disk import trial, volume
from small_disk.volume import MIB, CannotMountError, mounted

SIZE = 16 * MIB

SAYS_INTERNAL = (
    "import sys\n"
    "from statehouse.errors import StorageError\n"
    "from statehouse.storage.store import Store\n"
    "Store._failed_view = lambda *_: StorageError('planted')\n"
    "from statehouse.cli.statehoused import main\n"
    "main(sys.argv[1:])\n"
)
"""A full disk is not told as one."""
FORGETS_TO_FAIL = (
    "import sys\n"
    "from statehouse.errors import DiskFullError\n"
    "from statehouse.storage.store import Store\n"
    "commit = Store.commit\n"
    "def careless(self, group):\n"
    "    try:\n"
    "        commit(self, group)\n"
    "    except DiskFullError:\n"
    "        if group.last_commit_ts % 3:\n"
    "            raise\n"
    "Store.commit = careless\n"
    "from statehouse.cli.statehoused import main\n"
    "main(sys.argv[1:])\n"
)
"""Some commits are acknowledged that found no room."""


@pytest.fixture(scope="module", autouse=True)
def mounting(tmp_path_factory):
    """Nothing of this can be tried where no file system can be mounted."""
    try:
        with mounted(tmp_path_factory.mktemp("probe"), SIZE):
            pass
    except CannotMountError as error:
        pytest.skip(f"no file system can be mounted here: {error}")


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path, SIZE) as made:
        yield made


def test_ballast_leaves_what_it_is_told_to(small_disk):
    for free_bytes in (5 * MIB, MIB):
        small_disk.leave(free_bytes)
        assert 0 <= small_disk.free_bytes - free_bytes <= 128 * 1024
    small_disk.leave(0)
    assert small_disk.free_bytes == 0
    with pytest.raises(OSError, match="No space"), (small_disk.where / "more").open("wb") as file:
        file.write(bytes(64 * 1024))
    small_disk.throw_off()
    small_disk.throw_off()  # there is none
    assert small_disk.free_bytes > SIZE // 2


@pytest.fixture
def proof(monkeypatch, capsys):
    """Run the command with the quicker half of its moments; its exit code and what it printed."""
    moments = ("commits take the rest", "full between two commits")
    monkeypatch.setattr(proof_disk_full, "MOMENTS", {name: proof_disk_full.MOMENTS[name] for name in moments})

    def proof(command=None):
        if command is not None:
            monkeypatch.setattr(proof_disk_full, "DaemonProcess", partial(DaemonProcess, command=command))
        exit_code = proof_disk_full.main(["--seed", "1"])
        return exit_code, capsys.readouterr().out

    return proof


def test_a_disk_that_fills_and_empties(proof):
    exit_code, out = proof()
    assert exit_code == 0, out
    counted = {name.strip(): number for name, _, number in (line.rpartition("  ") for line in out.splitlines())}
    assert counted["rounds"].strip() == "3"
    assert counted["starts on a full disk, refused with one clear line"].strip() == "1"
    assert int(counted["of these while the disk was full"].replace(",", "")) >= 3 * trial.READS_WHILE_FULL
    assert out.splitlines()[-1].startswith("passed")


@pytest.mark.parametrize(
    ("daemon", "found"),
    [(SAYS_INTERNAL, "StorageError under load"), (FORGETS_TO_FAIL, "and is lost")],
    ids=["another error", "acknowledged all the same"],
)
def test_a_daemon_that_does_not_stand_a_full_disk_fails(proof, daemon, found):
    exit_code, out = proof((sys.executable, "-c", daemon))
    assert exit_code == 1, out
    assert found in out


def test_without_the_right_to_mount_nothing_is_proven(monkeypatch, capsys):
    refused = {"_ext4": "not permitted", "_tmpfs": "not permitted either"}
    for attempt, why in refused.items():
        monkeypatch.setattr(volume, attempt, lambda *_, why=why: why)
    assert proof_disk_full.main([]) == 1
    (said,) = {line for line in capsys.readouterr().out.splitlines() if line.startswith("VIOLATION")}
    assert said == (
        "VIOLATION no file system can be mounted here, so nothing was proven: "
        "ext4 on a loop device: not permitted; tmpfs: not permitted either"
    )
    assert volume.IN_NAMESPACE not in os.environ
