"""What was fetched is kept for a second, is absent then, and is fetched anew; the plan lasts.

python -m examples.guide.ttl [--address HOST:PORT]
"""

import argparse
import os
import time

from statehouse import Precondition, Put, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    agent = f"guide-ttl-{time.time_ns()}"
    with Statehouse(parser.parse_args().address) as client:
        done = client.transact(
            [
                Put(agent, "cache/news", {"text": "rain"}, ttl_s=1),
                Put(agent, "cache/page", {"text": "old"}, ttl_s=1),
                Put(agent, "plan", {"step": 1}),
            ]
        )
        print(f"written: {', '.join(client.list_keys(agent, at_ts=done.commit_ts))}")

        time.sleep(1.1)
        print(f"a second later: {', '.join(client.list_keys(agent))}")
        for event in client.watch(agent, start_ts=done.commit_ts + 1, limit=1):
            deleted = [operation.key for operation in event.operations if operation.expired]
            print(f"the daemon deleted what had expired: {', '.join(deleted)}")

        client.transact(
            [Put(agent, "cache/page", {"text": "new"}, ttl_s=60)],
            preconditions=[Precondition.exists(agent, "cache/page", exists=False)],
        )
        print("the versions of the page, newest first:")
        for entry in client.history(agent, "cache/page"):
            print(f"  v{entry.version}: {entry.value}{'' if entry.expires_at is None else ', which expires'}")


if __name__ == "__main__":
    main()
