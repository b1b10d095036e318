"""Two workers want the same task, and one gets it; then four of them count together, and no step is lost.

python -m examples.guide.transactions [--address HOST:PORT]
"""

import argparse
import os
import threading
import time
from typing import Any

from statehouse import ConflictError, Precondition, Put, Remove, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    agent = f"guide-transactions-{time.time_ns()}"
    with Statehouse(parser.parse_args().address) as client:
        client.transact([Put(agent, "task/1", {"state": "open"})])
        claim(client, agent, "ada")
        claim(client, agent, "bob")
        count(client, agent)


def claim(client: Statehouse, agent: str, worker: str) -> None:
    """Take the task, if it is still as it was when it was made: both saw version 1."""
    try:
        done = client.transact(
            [Put(agent, "task/1", {"state": "taken", "by": worker}), Remove(agent, "inbox/1")],
            preconditions=[Precondition.version_is(agent, "task/1", 1)],
        )
        print(f"{worker} has it: the versions are {done.versions}")
    except ConflictError as conflict:
        print(f"{worker} was late: task/1 is at version {conflict.failed[0].version}")


def count(client: Statehouse, agent: str) -> None:
    """Four threads, ten steps each: `update` reads, computes, and commits if nobody was faster."""

    def one_more(value: dict[str, Any] | None) -> dict[str, Any]:
        return {"n": (value["n"] if value else 0) + 1}

    def work() -> None:
        for _ in range(10):
            client.update(agent, "steps", one_more, tries=100)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"counted together: {client.get_state(agent, 'steps').value}")


if __name__ == "__main__":
    main()
