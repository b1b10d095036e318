"""Proof A: the client that is published on PyPI, unmodified, does its whole surface against our daemon.

Makes a virtual environment of its own (`.venv-old-client`, kept for the next run), installs
`statehouse==0.1.1` in it from the package index, starts `statehoused` on a free port and an empty data
directory, and runs old_client_checks.py and the published `statehousectl` there. In between the daemon is
killed with -9 and started again. Prints a line for each check and a summary; the exit code is 0 or 1.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Final

from daemon_process import DaemonProcess

PUBLISHED: Final = "statehouse==0.1.1"
ROOT: Final = Path(__file__).resolve().parents[1]
ENVIRONMENT: Final = ROOT / ".venv-old-client"
CHECKS: Final = Path(__file__).with_name("old_client_checks.py")
TIMEOUT_S: Final = 300

# The published client's commands, and what each must print.
COMMANDS: Final = (
    (("health",), "healthy"),
    (("version",), "Version:"),
    (("get", "left", "k"), '"side": "l"'),
    (("keys", "listed"), "a/10"),
    (("replay", "left"), '"side": "l"'),
    (("tail", "left"), "k"),
    (("dump", "left"), '"side": "l"'),
)


def environment() -> Path:
    """The `bin` of a virtual environment that holds the published client and nothing of ours."""
    installed = ENVIRONMENT / "installed"
    binaries = ENVIRONMENT / "bin"
    if not installed.exists() or installed.read_text() != PUBLISHED:
        print(f"installing {PUBLISHED} into {ENVIRONMENT.name}")
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        pip = [str(binaries / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PUBLISHED]
        subprocess.run(pip, check=True)
        installed.write_text(PUBLISHED)
    return binaries


def checks(binaries: Path, address: str, part: str) -> list[bool]:
    """Run a part of the checks with the published client; whether each held."""
    # -I: neither this repository nor the caller's PYTHONPATH is importable there.
    command = [str(binaries / "python"), "-I", str(CHECKS), address, part]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S)
    print(done.stdout, end="")
    results = [line.startswith("ok ") for line in done.stdout.splitlines() if line.startswith(("ok ", "FAILED "))]
    if not results or done.returncode != (0 if all(results) else 1):
        print(f"FAILED  the checks ended with exit code {done.returncode}")
        results.append(False)
    return results


def commands(binaries: Path, address: str) -> list[bool]:
    """Run the published statehousectl; whether each command did what it should."""
    results = []
    for arguments, wanted in COMMANDS:
        command = [str(binaries / "python"), "-I", str(binaries / "statehousectl"), "--address", address, *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
        held = done.returncode == 0 and wanted in done.stdout
        results.append(held)
        shown = "" if held else f": exit code {done.returncode}, {done.stdout!r} {done.stderr[-500:]!r}"
        print(f"{'ok    ' if held else 'FAILED'}  statehousectl {' '.join(arguments)}{shown}")
    return results


def main() -> int:
    """Run the proof; 0 when every check held."""
    binaries = environment()
    with tempfile.TemporaryDirectory(prefix="statehouse-proof-a-") as directory:
        daemon = DaemonProcess(Path(directory) / "data").start()
        try:
            results = checks(binaries, daemon.address, "before")
            results += commands(binaries, daemon.address)
            daemon.kill()
            daemon.start()
            results += checks(binaries, daemon.address, "after")
            clean_stop = daemon.stop() == 0
        finally:
            if daemon.running:
                daemon.kill()
    print(f"{'ok    ' if clean_stop else 'FAILED'}  the daemon stops cleanly")
    results.append(clean_stop)
    failed = results.count(False)
    print(f"proof A: {len(results)} checks, {len(results) - failed} ok, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
