"""A tool call that costs money is recorded once, however often the agent asks, and after it lost its memory too.

python -m examples.guide.idempotency [--address HOST:PORT]
"""

import argparse
import os
import time

from statehouse import InvalidRequestError, Put, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    agent = f"guide-idempotency-{time.time_ns()}"
    with Statehouse(parser.parse_args().address) as client:
        call = [Put(agent, "tool/0001", {"name": "charge", "cents": 250})]
        first = client.transact(call, idempotency_key="tool-0001")
        print(f"deduplicated: {first.deduplicated}, versions: {first.versions}")

        # The answer was lost, the agent was started again: it does not know, and asks once more.
        again = client.transact(call, idempotency_key="tool-0001")
        print(f"deduplicated: {again.deduplicated}, the same commit: {again.commit_ts == first.commit_ts}")

        try:
            client.transact([Put(agent, "tool/0001", {"name": "charge", "cents": 999})], idempotency_key="tool-0001")
        except InvalidRequestError as error:
            print(f"another request is refused: {error.code.name}")
        print(f"charged {client.get_state(agent, 'tool/0001').version} time")


if __name__ == "__main__":
    main()
