"""An agent is done and deleted, a worker comes late, and somebody wants it back after all.

python -m examples.guide.ending [--address HOST:PORT]
"""

import argparse
import os
import time

from statehouse import AgentDeletedError, Precondition, Put, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    agent = f"guide-ending-{time.time_ns()}"
    with Statehouse(parser.parse_args().address) as client:
        last = client.transact([Put(agent, key, {"of": key}) for key in ("plan", "draft", "result")])
        ended = client.delete_agent(agent, preconditions=[Precondition.agent_at(agent, last.commit_ts)])
        print(f"done: {ended.deleted_keys} keys are deleted in one commit")
        try:
            client.transact([Put(agent, "draft", {"of": "a worker that slept"})])
        except AgentDeletedError:
            print("the late worker is refused")
        kept = client.list_keys(agent, at_ts=last.commit_ts)
        print(f"as of the commit before, it still has {', '.join(kept)}")

        client.transact([Put(agent, "plan", {"of": "somebody who means it"})], revive=True)
        print(f"revived, it has: {', '.join(client.list_keys(agent))}")
        client.fork(agent, f"{agent}/saved", at_ts=last.commit_ts)
        print(f"saved in a fork, it has: {', '.join(client.list_keys(f'{agent}/saved'))}")


if __name__ == "__main__":
    main()
