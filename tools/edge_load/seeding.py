"""A store with something in it, made by the engine without RPC, in a process of its own."""

import logging
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
import trio
from bench_engine import commit_many, commit_one, engine_at, value_of

from edge_load.jobs import answer_jobs
from statehouse.actors.watching import ReplayArguments
from statehouse.types import AgentId

RECORD_BYTES: Final = 200
EVENT_BYTES: Final = 200


async def seed(
    directory: Path, events: int, record: dict[str, str], history: dict[str, str], records: list[dict[str, str]]
) -> dict[str, Any]:
    """Write the record, the records, and an agent with so many events of about 200 encoded bytes."""
    rng = random.Random(3)
    async with engine_at(directory) as engine:
        for each in (record, *records):
            agent = AgentId(each["namespace"], each["agent_id"])
            await commit_one(engine, agent, each["key"], value_of(RECORD_BYTES, rng))
        probe, value = AgentId("probe", history["agent_id"]), value_of(100, rng)
        await commit_one(engine, probe, "key-00000000", value)
        encoded = [event async for chunk in engine.replay(ReplayArguments(agent=probe)) for event in chunk]
        around_bytes = len(encoded[0]) - len(value)  # ids, names, timestamps, lengths
        value = value_of(EVENT_BYTES - around_bytes, rng)
        agent = AgentId(history["namespace"], history["agent_id"])
        await commit_many(engine, range(events), lambda _: agent, lambda _: value)
    return {"events": events}


def main() -> None:
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=quiet, logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    answer_jobs({"seed": lambda directory, **more: trio.run(partial(seed, Path(directory), **more))})


if __name__ == "__main__":
    main()
