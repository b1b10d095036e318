"""Each commit says which run, model and tool call it comes from; later one asks who wrote what.

python -m examples.guide.metadata [--address HOST:PORT]
"""

import argparse
import os
import time

from statehouse import Put, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    agent = f"guide-metadata-{time.time_ns()}"
    with Statehouse(parser.parse_args().address) as client:
        for run, answer in (("r-1", "about 40"), ("r-2", "42"), ("r-2", "42, checked")):
            client.transact([Put(agent, "final/answer", {"text": answer})], metadata={"run": run, "model": "m-large"})

        print("who wrote the answer:")
        for entry in client.history(agent, "final/answer"):
            print(f"  v{entry.version}  run {entry.metadata['run']}  {entry.value}")
        print("what did run r-2 do:")
        for event in client.replay(agent, metadata={"run": "r-2"}):
            print(f"  {[operation.key for operation in event.operations]} by {event.metadata['model']}")


if __name__ == "__main__":
    main()
