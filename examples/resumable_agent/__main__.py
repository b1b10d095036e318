"""`python -m examples.resumable_agent RECORDING`: carry a recorded run out, then prove that replay gives it back.

Run from a checkout. Killed and started again with the same arguments, it goes on after the last committed step.
Exit codes: 0 proven, 1 not proven, 2 a bad argument or not a recording, 3 the daemon refused or did not answer.
"""

import argparse
import os
import sys
from pathlib import Path

from examples.resumable_agent.agent import TRANSACTION_LIFE_S, Agent, AgentError
from examples.resumable_agent.proof import NotProvenError, prove
from examples.resumable_agent.recording import RecordingError, read_recording
from statehouse import Statehouse, StatehouseError

NOT_PROVEN, BAD_INPUT, DAEMON_FAILED = 1, 2, 3


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = _parser().parse_args(arguments)
    try:
        recording = read_recording(options.recording)
        agent_id = recording.name if options.agent_id is None else options.agent_id
        with Statehouse(options.address, options.namespace, timeout_s=10.0, connect_timeout_s=2.0) as client:
            if not options.prove_only:
                Agent(
                    client,
                    agent_id,
                    recording,
                    say=_say,
                    work_s=options.work,
                    patience_s=options.patience,
                    life_s=options.transaction_life,
                ).run()
            proof = prove(client, agent_id, recording)
            if options.timeline:
                for line in client.replay_pretty(agent_id):
                    _say(line)
    except (RecordingError, AgentError, ValueError) as error:
        return _fail(str(error), BAD_INPUT)
    except NotProvenError as error:
        return _fail("NOT PROVEN: " + "\n  ".join(error.problems), NOT_PROVEN)
    except StatehouseError as error:
        return _fail(error.message, DAEMON_FAILED)
    _say(
        f"proven: {proof.keys} keys, each written once, in {proof.events - proof.starts} commits over {proof.starts} "
        f"start{'s' if proof.starts > 1 else ''} of the agent; rebuilt from replay, the recording is the same\n"
        f"  ({proof.text_bytes} bytes, sha256 {proof.sha256})"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.resumable_agent",
        description="Carry out a recorded agent run on a Statehouse daemon, one transaction a step, and prove that "
        "replay gives the recording back exactly. Killed at any moment and started again with the same arguments, it "
        "goes on after the last committed step.",
        epilog="exit codes: 0 proven; 1 not proven; 2 a bad argument or not a recording; 3 the daemon refused, or did "
        "not answer for --patience seconds",
    )
    parser.add_argument("recording", type=Path, help="a SWE-agent .traj file (JSON with `trajectory` or `history`)")
    parser.add_argument(
        "--address",
        default=os.environ.get("STATEHOUSE_ADDR", "localhost:50051"),
        metavar="HOST:PORT",
        help="where statehoused listens (default: $STATEHOUSE_ADDR, else localhost:50051)",
    )
    parser.add_argument("--agent-id", metavar="ID", help="one for each run (default: the file's name)")
    parser.add_argument("--namespace", default="default", metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--work", type=_seconds, default=0.0, metavar="S", help="seconds that each step's work takes (default: 0)"
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="how long to try again when the daemon does not answer (default: %(default)g)",
    )
    parser.add_argument(
        "--transaction-life",
        type=_life,
        default=TRANSACTION_LIFE_S,
        metavar="S",
        help="when a transaction expires; each start waits as long, to be sure of what a killed agent committed "
        "(default: %(default)g)",
    )
    parser.add_argument("--prove-only", action="store_true", help="carry nothing out; prove what is there")
    parser.add_argument("--timeline", action="store_true", help="print the replay, a line for each operation")
    return parser


def _seconds(text: str, least: float = 0.0) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= 3600:  # nan neither
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {least:g} to 3600")
    return seconds


def _life(text: str) -> float:
    return _seconds(text, least=0.1)


def _say(line: str) -> None:
    print(line, flush=True)


def _fail(message: str, exit_code: int) -> int:
    print(f"resumable_agent: {message}", file=sys.stderr, flush=True)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
