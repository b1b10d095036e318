"""What a daemon says of its build: the package's version, and the commit that it was built from."""

import pytest

from statehouse.rpc.server.build_version import BuildVersion, build_version, checkout_sha
from statehouse.version import VERSION

SHA = "0123456789abcdef0123456789abcdef01234567"


def test_the_version_is_the_package_s_and_the_commit_the_packager_s():
    assert build_version({"STATEHOUSE_GIT_SHA": "f00"}) == BuildVersion(VERSION, "f00")


def git_directory(path, **files):
    for name, text in files.items():
        file = path / name.replace("__", "/").replace("_", "-")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


@pytest.mark.parametrize(
    "files",
    [
        {"HEAD": SHA + "\n"},
        {"HEAD": "ref: refs/heads/main\n", "refs__heads__main": SHA + "\n"},
        {
            "HEAD": "ref: refs/heads/main\n",
            "packed_refs": f"# pack-refs\n{'1' * 40} refs/heads/x\n{SHA} refs/heads/main",
        },
    ],
)
def test_the_commit_of_a_checkout(tmp_path, files):
    git_directory(tmp_path / ".git", **files)
    assert checkout_sha(tmp_path) == SHA


def test_the_commit_of_a_linked_worktree(tmp_path):
    git_directory(tmp_path / "main" / ".git", refs__heads__side=SHA)
    git_directory(tmp_path / "main" / ".git" / "worktrees" / "side", HEAD="ref: refs/heads/side", commondir="../..\n")
    (tmp_path / "side").mkdir()
    (tmp_path / "side" / ".git").write_text(f"gitdir: {tmp_path}/main/.git/worktrees/side\n")
    assert checkout_sha(tmp_path / "side") == SHA


@pytest.mark.parametrize("files", [{}, {"HEAD": "ref: refs/heads/unborn"}, {"HEAD": "rubbish"}])
def test_a_commit_that_cannot_be_found_is_unknown(tmp_path, files):
    git_directory(tmp_path / ".git", **files)
    assert checkout_sha(tmp_path) == "unknown"
