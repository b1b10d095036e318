"""The child's side of a load process: a JSON line on stdin is a job, a JSON line on stdout its answer.

The end of stdin ends the process, so none outlives its bench.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["answer_jobs"]


def answer_jobs(jobs: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """Do one job after another until there are no more. What a job raises is answered as {"error": ...}."""
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = jobs[arguments.pop("job")](**arguments)
        except Exception as error:  # noqa: BLE001 - the bench says what it was
            answer = {"error": _cause(error)}
        print(json.dumps(answer), flush=True)


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
