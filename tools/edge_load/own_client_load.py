"""The load of our own client, in a process of its own: GetState through AsyncStatehouse, under asyncio or Trio.

Every answer becomes the StateResult that a user gets, its value a dict.
"""

from functools import partial
from typing import Any

import anyio

from edge_load.jobs import answer_jobs
from edge_load.meter import call_repeatedly
from statehouse import AsyncStatehouse


async def get_state(target: str, server_pid: int, seconds: float, in_flight: int, names: dict[str, str]) -> Any:
    """So many GetStates in flight on one client."""
    async with AsyncStatehouse(target) as client:
        call = partial(client.get_state, names["agent_id"], names["key"], names["namespace"])
        if not (await call()).exists:
            raise RuntimeError("the server has no such record")
        return await call_repeatedly([call] * in_flight, seconds, server_pid)


def main() -> None:
    answer_jobs({"get_state": lambda backend, **arguments: anyio.run(partial(get_state, **arguments), backend=backend)})


if __name__ == "__main__":
    main()
