"""A dashboard of a hundred agents: which there are, and how far each is, all of one moment.

python -m examples.guide.many_at_once [--address HOST:PORT]
"""

import argparse
import os
import time

from statehouse import Put, Statehouse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"))
    # A namespace of its own, so that it has these agents and no others.
    namespace = f"guide-many-{time.time_ns()}"
    with Statehouse(parser.parse_args().address, namespace) as client:
        done = client.transact([Put(f"worker-{number:03}", "progress", {"n": number}) for number in range(100)])
        print(f"one transaction over {len(done.versions)} agents")

        agents = [info.agent_id for info in client.list_agents("worker-")]
        print(f"{len(agents)} agents, from {agents[0]} to {agents[-1]}")
        found = client.batch_get([(agent, "progress") for agent in agents])
        print(f"all of them together did {sum(int(str((each.value or {})['n'])) for each in found)} steps")
        for info in client.list_namespaces(namespace):
            print(f"the namespace has {info.agents} agents and {info.live_keys} keys")


if __name__ == "__main__":
    main()
