"""What the programs of HTTP/2's and gRPC's world say about the edge: h2spec, grpcurl, curl and h2load.

    python tools/conformance.py [--get] [--require NAME ...]

Starts a daemon on a free port of loopback and an empty store, and has each program that is found do its part:

    h2spec    the cases of its groups generic, http2 and hpack; each must pass
    grpcurl   lists, describes and calls us by reflection, without our proto
    curl      speaks HTTP/2 with prior knowledge: a call, and a request that is none
    h2load    50,000 calls over four connections, of which none may fail

`--get` builds h2spec and grpcurl with Go, at the versions below, into `.conformance/` when they are not found.
Prints a line for each check. Exit code: 0 when none failed, 1 when one did or a required program is missing. A
program that is not found is said to be missing, and nothing more.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from daemon_process import DaemonProcess

ROOT: Final = Path(__file__).resolve().parents[1]
BUILT: Final = ROOT / ".conformance"
SOURCES: Final = {
    "h2spec": "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible",
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
}
SERVICE: Final = "statehouse.v1.StatehouseService"
HOSTED: Final = {
    SERVICE,
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
TIMEOUT_S: Final = 120
LOAD_CALLS: Final = 50_000
EMPTY_MESSAGE: Final = bytes(5)


class FailedError(Exception):
    """A check does not hold; says what was seen."""


def run(command: list[str], *, text: bytes | None = None) -> str:
    """What a program prints; FailedError when it fails."""
    done = subprocess.run(command, check=False, input=text, capture_output=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise FailedError(
            f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
        )
    return done.stdout.decode(errors="replace")


def h2spec(program: str, address: str, folder: Path) -> str:
    """Every case of its three groups."""
    host, port = address.rsplit(":", 1)
    report = folder / "h2spec.xml"
    path = f"/{SERVICE}/Health"
    command = [program, "-h", host, "-p", port, "-P", path, "-j", str(report), "generic", "http2", "hpack"]
    subprocess.run(command, check=False, capture_output=True, timeout=TIMEOUT_S)
    cases = list(ET.parse(report).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    names = [f"{case.get('package')} {case.get('classname')}" for case in (*bad, *skipped)]
    if names or not cases:
        raise FailedError(f"{len(cases)} cases, {len(bad)} failed, {len(skipped)} skipped: {'; '.join(names)}")
    return f"{len(cases)} cases passed"


def grpcurl(program: str, address: str, folder: Path) -> str:  # noqa: ARG001 - as the others
    """List, describe and call, by reflection."""
    plain = [program, "-plaintext"]
    listed = set(run([*plain, address, "list"]).split())
    if listed != HOSTED:
        raise FailedError(f"lists {sorted(listed)}")
    described = run([*plain, address, "describe", f"{SERVICE}.Commit"])
    if "statehouse.v1.CommitResponse" not in described:
        raise FailedError(f"describes Commit as {described}")
    txn = json.loads(run([*plain, "-d", "{}", address, f"{SERVICE}/BeginTransaction"]))
    key = {"agentId": "a", "key": "k"}
    run([*plain, "-d", json.dumps({**txn, **key, "value": {"n": 1}}), address, f"{SERVICE}/Write"])
    run([*plain, "-d", json.dumps(txn), address, f"{SERVICE}/Commit"])
    state = json.loads(run([*plain, "-d", json.dumps(key), address, f"{SERVICE}/GetState"]))
    if state != {"value": {"n": 1}, "version": "1", "commit_ts": "1", "exists": True}:
        raise FailedError(f"read {state}")
    events = run([*plain, "-d", json.dumps({"agentId": "a"}), address, f"{SERVICE}/Replay"])
    if '"commit_ts": "1"' not in events:
        raise FailedError(f"replayed {events}")
    if json.loads(run([*plain, address, "grpc.health.v1.Health/Check"])) != {"status": "SERVING"}:
        raise FailedError("the health check is not SERVING")
    return "listed, described, wrote, read, replayed, checked health"


def curl(program: str, address: str, folder: Path) -> str:  # noqa: ARG001 - as the others
    """A call of ours, and a browser's request, over HTTP/2 without TLS."""
    begin = [program, "--silent", "--show-error", "--include", "--http2-prior-knowledge"]
    page = run([*begin, f"http://{address}/"])
    if not page.startswith("HTTP/2 405") or "Statehouse daemon" not in page:
        raise FailedError(f"a GET is answered {page}")
    grpc = ["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@-"]
    answer = run([*begin, *grpc, f"http://{address}/{SERVICE}/Health"], text=EMPTY_MESSAGE)
    if "grpc-status: 0" not in answer or "\x02ok" not in answer:
        raise FailedError(f"Health is answered {answer!r}")
    return "called Health; a GET gets 405"


def h2load(program: str, address: str, folder: Path) -> str:
    """Many calls at once."""
    message = folder / "message"
    message.write_bytes(EMPTY_MESSAGE)
    load = [program, "-n", str(LOAD_CALLS), "-c", "4", "-m", "16", "-d", str(message)]
    grpc = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    said = run([*load, *grpc, f"http://{address}/{SERVICE}/Health"])
    if f" {LOAD_CALLS} succeeded, 0 failed, 0 errored, 0 timeout" not in said:
        raise FailedError(f"said {said}")
    rate = re.search(r"([0-9.]+) req/s", said)
    return f"{LOAD_CALLS:,} calls succeeded, {float(rate[1]) if rate else 0:,.0f} calls/s"


CHECKS: Final[Mapping[str, Callable[[str, str, Path], str]]] = {
    "h2spec": h2spec,
    "grpcurl": grpcurl,
    "curl": curl,
    "h2load": h2load,
}


def find(name: str, *, get: bool) -> str | None:
    """A program's path: what stands in PATH or was built here; with `get` it is built if it can be."""
    found = shutil.which(name) or shutil.which(name, path=str(BUILT))
    if found is None and get and name in SOURCES and shutil.which("go"):
        print(f"building  {SOURCES[name]}", flush=True)
        environment = {**os.environ, "GOBIN": str(BUILT)}
        subprocess.run(["go", "install", SOURCES[name]], check=False, env=environment, capture_output=True)
        found = shutil.which(name, path=str(BUILT))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--get", action="store_true", help="build what can be built and is not found")
    parser.add_argument("--require", action="append", choices=CHECKS, default=[], help="fail when it is not found")
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, check in CHECKS.items():
            program = find(name, get=arguments.get)
            if program is None:
                print(f"missing   {name}")
                failed += name in arguments.require
                continue
            with DaemonProcess(Path(folder) / name) as daemon:
                try:
                    print(f"ok        {name}: {check(program, daemon.address, Path(folder))}", flush=True)
                except (FailedError, subprocess.TimeoutExpired) as error:
                    failed += 1
                    print(f"FAILED    {name}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
