"""The command `statehousectl`: ask a running daemon, from a terminal or a script.

Every failure is one line on stderr and an exit code of `ControlExit`; answers go to stdout, and nothing
else does. Colour is for terminals only (and not when NO_COLOR is set).
"""

import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

import click

from statehouse.cli.ctl_agent import delete_agent, fork, lineage
from statehouse.cli.ctl_completion import answer_completion, completion
from statehouse.cli.ctl_connection import TOKEN_HINT, Target, target_options
from statehouse.cli.ctl_daemon import health, version
from statehouse.cli.ctl_events import replay, tail, watch
from statehouse.cli.ctl_lease import lease
from statehouse.cli.ctl_names import agents, namespaces
from statehouse.cli.ctl_output import CommandEnd
from statehouse.cli.ctl_past import diff, history
from statehouse.cli.ctl_state import dump, get, inspect, keys
from statehouse.cli.ctl_token import token
from statehouse.cli.ctl_transact import transact
from statehouse.cli.ctl_verify import head, verify
from statehouse.cli.exit_codes import CONTROL_EXIT_TEXTS, ControlExit, control_exit_for, documented
from statehouse.cli.interrupts import end_soon_when_interrupted
from statehouse.errors import StatehouseError, UnauthenticatedError
from statehouse.rpc.given import without_tokens
from statehouse.version import VERSION

_OUTPUT_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""How a file behind stdout fails. Files that a command opens tell their own errors, and sockets have others."""

_EPILOG: Final = f"""\b
Exit codes:
{documented(CONTROL_EXIT_TEXTS)}

\b
Examples:
  statehousectl health
  statehousectl get agent-7 plan/current
  statehousectl --address db:50051 replay agent-7 --json | jq .commit_ts
  statehousectl inspect agent-7 plan/current -n 5
  statehousectl transact --put agent-7 plan/current '{{"step": 2}}' --if-version agent-7 plan/current 1
  statehousectl tail -f agent-7
  statehousectl diff agent-7 --from-time 2030-01-31T12:00:00Z
  statehousectl fork agent-7 agent-7/try-2 --at 1200
  statehousectl head >> /another/machine/heads
  statehousectl verify --heads /another/machine/heads
  statehousectl token create --file tokens --role read-only --note dashboard
"""


@click.group(
    "statehousectl",
    epilog=_EPILOG,
    no_args_is_help=False,  # a missing command is bad usage like any other
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@target_options(fallback=True)
@click.version_option(VERSION, prog_name="statehousectl", message="%(prog)s %(version)s")
@click.pass_context
def command(context: click.Context, /, **target: Any) -> None:
    """Ask a running Statehouse daemon about its agents' state and events, and change them.

    Answers go to stdout, one line on stderr says what went wrong. --json is for programs; every command
    has its own --help.
    """
    context.obj = Target(**target)


_STATE: Final = (get, keys, dump, inspect, history, diff, transact, lease, fork, lineage, delete_agent)
_EVENTS: Final = (replay, tail, watch)
_STORE: Final = (agents, namespaces, health, version, head, verify, token, completion)

for _command in (*_STATE, *_EVENTS, *_STORE):
    command.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit the process; `arguments` default to the command line's."""
    end_soon_when_interrupted(ControlExit.INTERRUPTED)
    if sys.stdout is not None and isinstance(sys.stdout.buffer, io.RawIOBase):
        # PYTHONUNBUFFERED: Python would drop, without a word, what a pipe does not take at once.
        encoding, errors = sys.stdout.encoding, sys.stdout.errors
        raw = cast("io.RawIOBase", sys.stdout.detach())
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=True)
    sys.exit(exit_code_of(arguments))


def exit_code_of(arguments: Sequence[str] | None) -> int:
    """Run one command; the exit code for how it went."""
    if sys.stdout is None:  # it was closed: nothing is asked for, or done, that could not be told
        _say("cannot write the answer: stdout is closed")
        return ControlExit.OUTPUT_FAILED
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    try:
        answered = answer_completion(command)
        if answered is not None:
            return answered
        # Not command.main, which has exits of its own for a broken pipe and for Ctrl-C.
        given = list(sys.argv[1:] if arguments is None else arguments)
        with command.make_context("statehousectl", given, color=color) as context:
            command.invoke(context)
        sys.stdout.flush()  # so that a broken pipe shows here, and not while the interpreter ends
    except click.exceptions.Exit as end:  # --help and --version
        return end.exit_code
    except CommandEnd as end:
        if end.message is not None:
            _say(end.message)
        return end.code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "statehousectl"
        _say(f"{error.format_message()} (see {path} --help)")
        return ControlExit.USAGE
    except UnauthenticatedError as error:
        _say(f"{error.message}; {TOKEN_HINT}")
        return control_exit_for(error)
    except StatehouseError as error:
        _say(error.message)
        return control_exit_for(error)
    except BrokenPipeError:
        _drop_output()
        return ControlExit.BROKEN_PIPE
    except KeyboardInterrupt:
        return ControlExit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the process ends here, and 1 would mean 'not found'
        if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS and error.filename is None:
            _drop_output()
            _say(f"cannot write the answer: {error.strerror}")
            return ControlExit.OUTPUT_FAILED
        _say(f"a bug: {type(error).__name__}: {error}")
        return ControlExit.BUG
    return ControlExit.OK


def _drop_output() -> None:
    # What is still buffered must not be tried again when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    # The last line of defence: a token may stand wherever its holder put it, also for a command or an agent.
    if sys.stderr is None:  # it was closed: the exit code tells
        return
    line = without_tokens(" ".join(line.split()))
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    with suppress(OSError):  # a full disk behind stderr: likewise
        click.echo(f"{click.style('statehousectl:', fg='red')} {line}", err=True, color=color)


if __name__ == "__main__":
    main()
