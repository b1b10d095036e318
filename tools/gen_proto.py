"""Generate the checked-in protobuf modules from `proto/`, or say which of them are stale.

    python tools/gen_proto.py           write statehouse/**/*_pb2.py and .pyi
    python tools/gen_proto.py --check   exit 1 and name each module that differs from what would be written

The compiler is pinned: protobuf promises that a runtime runs the code that the major version before it
generated, so the gencode of protobuf 6 is what runs on 6 and 7 alike (docs/adr/0004-generated-code.md).
It lives in a virtual environment of its own, because it pins a protobuf runtime that the project does not.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILER = "grpcio-tools==1.73.1"  # protoc 31, protobuf 6.31
COMPILER_VENV = ROOT / ".venv-proto"


def compiler_python() -> Path:
    """The interpreter that has the pinned compiler, installed on first use."""
    python = COMPILER_VENV / "bin" / "python"
    installed = COMPILER_VENV / "installed"
    if not installed.exists() or installed.read_text() != COMPILER:
        venv.create(COMPILER_VENV, with_pip=True, clear=True)
        # grpcio-tools imports pkg_resources, which setuptools 81 dropped.
        command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", COMPILER, "setuptools<81"]
        subprocess.run(command, check=True)
        installed.write_text(COMPILER)
    return python


def generate(destination: Path) -> list[Path]:
    """Compile every file below `proto/` into `destination`; return what was written, relative to it."""
    sources = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    outputs = [f"--python_out={destination}", f"--pyi_out={destination}"]
    command: list[str | Path] = [compiler_python(), "-m", "grpc_tools.protoc", "--proto_path=proto", *outputs, *sources]
    subprocess.run(command, check=True, cwd=ROOT)
    return sorted(path.relative_to(destination) for path in destination.rglob("*_pb2.py*"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the protobuf modules from proto/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a module is stale")
    check_only = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        modules = generate(Path(scratch))
        stale = 0
        for module in modules:
            fresh, checked_in = (Path(scratch) / module).read_bytes(), ROOT / module
            if checked_in.exists() and checked_in.read_bytes() == fresh:
                continue
            stale += 1
            if check_only:
                print(f"{module} is stale: run python tools/gen_proto.py", file=sys.stderr)
            else:
                checked_in.parent.mkdir(parents=True, exist_ok=True)
                checked_in.write_bytes(fresh)
                print(f"wrote {module}")
    return 1 if check_only and stale else 0


if __name__ == "__main__":
    sys.exit(main())
