"""A run chooses badly. A fork of it, as it was before the choice, tries the other way; both are kept.

python -m examples.guide.forking [--address HOST:PORT]
"""

import argparse
import os
import time

from statehouse import Put, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    agent = f"guide-forking-{time.time_ns()}"
    branch = f"{agent}/try-2"
    with Statehouse(parser.parse_args().address) as client:
        client.transact([Put(agent, "task", {"find": "a hotel"})])
        client.transact([Put(agent, "found/1", {"city": "Bern", "price": 140})])
        looked = client.transact([Put(agent, "found/2", {"city": "Basel", "price": 310})])
        book(client, agent, "found/2")
        print(f"the run chose {booking(client, agent)}")

        client.fork(agent, branch, at_ts=looked.commit_ts)
        cities = [str(entry.value["city"]) for entry in client.iter_prefix(branch, "found/") if entry.value]
        print(f"its branch knows of {', '.join(cities)}, and has booked: {client.get_state(branch, 'booked').exists}")
        book(client, branch, "found/1")
        print(f"the branch chose {booking(client, branch)}")

        [origin] = client.lineage(branch).ancestors
        events = list(client.replay(branch))
        inherited = sum(event.commit_ts <= origin.at_ts for event in events)
        print(f"of the branch's {len(events)} events, {inherited} are the run's")
        print(f"the run still has {booking(client, agent)}")


def book(client: Statehouse, agent: str, key: str) -> None:
    """Take what was found under a key."""
    client.transact([Put(agent, "booked", client.get_state(agent, key).value or {})])


def booking(client: Statehouse, agent: str) -> str:
    """What was booked, in words."""
    booked = client.get_state(agent, "booked").value or {}
    return f"{booked['city']}, for {booked['price']:.0f}"


if __name__ == "__main__":
    main()
