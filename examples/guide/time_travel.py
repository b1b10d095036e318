"""What did the agent know when it decided? Its state as of a commit, a key's versions, and what changed since.

python -m examples.guide.time_travel [--address HOST:PORT]
"""

import argparse
import os
import time

from statehouse import Put, Remove, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    agent = f"guide-time-travel-{time.time_ns()}"
    with Statehouse(parser.parse_args().address) as client:
        client.transact([Put(agent, "belief/weather", {"rain": False}), Put(agent, "belief/day", {"name": "Monday"})])
        decided = client.transact([Put(agent, "decision", {"umbrella": False})])
        client.transact([Put(agent, "belief/weather", {"rain": True}), Remove(agent, "belief/day")])

        print("what it knew when it decided:")
        for entry in client.iter_prefix(agent, "belief/", at_ts=decided.commit_ts):
            print(f"  {entry.key}: {entry.value}")
        print("what it believed about the weather, newest first:")
        for version in client.history(agent, "belief/weather"):
            print(f"  v{version.version}: {version.value}")
        print("what changed since:")
        for change in client.diff(agent, from_ts=decided.commit_ts):
            print(f"  {change.key}: {change.before.value} -> {change.after.value}")


if __name__ == "__main__":
    main()
