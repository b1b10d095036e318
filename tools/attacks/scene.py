"""What is attacked: a daemon, plain or with TLS, with an honest client, and what it held before anyone attacked it."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Self, TextIO

import trustme
from attrs import frozen
from daemon_process import DaemonProcess

from attacks import preparation, vitals

__all__ = ["GROWTH_BYTES", "HonestProcess", "Scene"]

TOOLS: Final = Path(__file__).resolve().parents[1]
WARM_UP_S: Final = 1.0
GROWTH_BYTES: Final = 50_000_000
RETAINED_BYTES: Final = GROWTH_BYTES // 5
"""A daemon that keeps more than this is replaced, so that an attack is not blamed for the ones before it."""
MANY_EVENTS: Final = 300


class HonestProcess:
    """The honest client, started and stopped from here."""

    def __init__(self, address: str, authority: Path | None) -> None:
        command = [sys.executable, "-m", "attacks.honest", address, *([] if authority is None else [str(authority)])]
        self._process = subprocess.Popen(
            command, cwd=TOOLS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._read()

    def start(self) -> None:
        """It calls from now on."""
        self._tell("start")

    def stop(self) -> dict[str, Any]:
        """It rests from now on; a `Watch` as JSON, and how often calls failed."""
        watch: dict[str, Any] = json.loads(self._tell("stop"))
        return watch

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _tell(self, command: str) -> str:
        self._pipe(self._process.stdin).write(f"{command}\n")
        return self._read()

    def _read(self) -> str:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise RuntimeError("the honest client has ended")
        return line

    @staticmethod
    def _pipe(pipe: Any) -> TextIO:
        stream: TextIO = pipe
        return stream


@frozen
class Scene:
    """A daemon, its honest client, and what the daemon held before anyone attacked it."""

    daemon: DaemonProcess
    honest: HonestProcess
    resident_bytes: int
    before: vitals.Vitals
    is_of_tls: bool

    @classmethod
    def set(cls, directory: Path, *, tls: bool = False) -> Self:
        """Start all of it, warmed up. The daemon's data are in the directory, and stay for the next one there."""
        options, authority = _certified(directory) if tls else ([], None)
        daemon = DaemonProcess(directory / "data", options=options).start()
        preparation.fill(daemon.address, MANY_EVENTS, authority)
        honest = HonestProcess(daemon.address, authority)
        honest.start()
        time.sleep(WARM_UP_S)
        honest.stop()
        time.sleep(0.2)  # its last new connection is closed by then
        return cls(daemon, honest, vitals.resident_bytes(daemon.pid), vitals.take(daemon), tls)

    def clear(self) -> None:
        """End all of it."""
        self.honest.close()
        if self.daemon.running:
            self.daemon.kill()

    @property
    def hurt(self) -> bool:
        """Whether the daemon is not what it was, and so no fair target of a further attack."""
        if not self.daemon.running:
            return True
        grown = vitals.resident_bytes(self.daemon.pid) - self.resident_bytes
        return grown > RETAINED_BYTES or bool(vitals.take(self.daemon).beyond(self.before))


def _certified(directory: Path) -> tuple[list[str], Path]:
    """What a daemon is told to speak TLS, with a new certificate; and the authority that its clients trust."""
    authority, cert, key = (directory / name for name in ("authority.pem", "daemon.crt", "daemon.key"))
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(authority)
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    return ["--tls-cert", str(cert), "--tls-key", str(key)], authority
