"""A worker waits for tasks without asking again and again, is stopped, and goes on where it was.

python -m examples.guide.watching [--address HOST:PORT]
"""

import argparse
import os
import threading
import time

from statehouse import Put, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    address = parser.parse_args().address
    agent = f"guide-watching-{time.time_ns()}"
    with Statehouse(address) as client:
        first = client.transact([Put(agent, "task/1", {"do": "look"})])
        planner = threading.Thread(target=plan, args=[client, agent])
        planner.start()
        print("the worker begins with what is there, and waits for more:")
        done = work(address, agent, start_ts=first.commit_ts, tasks=2)
        print("it is started again, and begins behind what it has done:")
        work(address, agent, start_ts=done + 1, tasks=2)
        planner.join()


def plan(client: Statehouse, agent: str) -> None:
    """Write a task now and then, and a note that no worker wants to see."""
    for number in (2, 3, 4):
        time.sleep(0.1)
        client.transact([Put(agent, f"task/{number}", {"do": f"step {number}"}), Put(agent, "note/mood", {})])


def work(address: str, agent: str, start_ts: int, tasks: int) -> int:
    """Do some tasks; the commit_ts of the last, which a real worker keeps with its results."""
    with Statehouse(address) as client:
        for event in client.watch(agent, start_ts, key_prefix="task/"):
            for operation in event.operations:
                print(f"  {operation.key}: {operation.value}")
            tasks -= 1
            if tasks == 0:
                return event.commit_ts
    raise RuntimeError("a watch without an end has none")


if __name__ == "__main__":
    main()
