"""The proxy's process, as the proof holds it."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["ProxyProcess"]

PROGRAM: Final = Path(__file__).with_name("proxy.py")
END_S: Final = 10.0


class ProxyProcess:
    """Started on entering. `address` is where clients go; after the block, `counted` is what the proxy did."""

    def __init__(self, upstream: str, seed: int, every_s: float) -> None:
        self._command = [sys.executable, str(PROGRAM), "--upstream", upstream]
        self._command += ["--seed", str(seed), "--every", str(every_s)]
        self._process: subprocess.Popen[str] | None = None
        self.address = ""
        self.counted: dict[str, Any] = {}

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        if self._process.stdout is None or not (port := self._process.stdout.readline().strip()):
            raise RuntimeError("the proxy did not start")
        self.address = f"127.0.0.1:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            try:
                said, _ = self._process.communicate(timeout=END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise
            self.counted = json.loads(said) if self._process.returncode == 0 else {}
