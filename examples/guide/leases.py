"""A worker falls asleep, another takes its agent over, and what the first one writes when it wakes is refused.

python -m examples.guide.leases [--address HOST:PORT]
"""

import argparse
import os
import time

from statehouse import ConflictError, LeaseError, Put, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    agent = f"guide-leases-{time.time_ns()}"
    with Statehouse(parser.parse_args().address) as client:
        sleeper = client.lease(agent, "sleeper", ttl_s=1.0)
        client.transact([Put(agent, "step", {"n": 1})], preconditions=[sleeper.precondition])
        print(f"the sleeper wrote, with epoch {sleeper.epoch}")
        try:
            client.lease(agent, "other", ttl_s=60.0)
        except LeaseError:
            print("the other has to wait")

        time.sleep(1.2)  # and does not renew
        with client.lease(agent, "other", ttl_s=60.0) as other:
            client.transact([Put(agent, "step", {"n": 2})], preconditions=[other.precondition])
            print(f"the other wrote, with epoch {other.epoch}")
            try:
                client.transact([Put(agent, "step", {"n": 99})], preconditions=[sleeper.precondition])
            except ConflictError as conflict:
                print(f"the sleeper is refused: the newest epoch is {conflict.failed[0].lease_epoch}")
        print(f"in the end: {client.get_state(agent, 'step').value}")


if __name__ == "__main__":
    main()
