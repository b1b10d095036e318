"""The command `statehoused`: from the command line to a running daemon, and from its end to an exit code.

The options are generated from the declarations in `settings.py`; nothing is said twice. What goes wrong
before the daemon serves is one line on stderr.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import structlog
import trio

from statehouse.cli.daemon_check import run_check
from statehouse.cli.exit_codes import DAEMON_EXIT_TEXTS, DaemonExit, daemon_exit_for, documented
from statehouse.cli.head_arguments import HEAD_HELP, HEADS_HELP, known_heads, parse_heads
from statehouse.cli.logs import configure_logs
from statehouse.config import CONFIG_VARIABLE, load
from statehouse.daemon import run_daemon
from statehouse.errors import ConfigError, StatehouseError
from statehouse.findings import Head
from statehouse.rpc.server.build_version import build_version
from statehouse.setting_forms import BOOLEAN
from statehouse.settings import Setting, declared_settings

log = structlog.stdlib.get_logger(__name__)

_HELP: Final = """Keep the state of AI agents: versioned, transactional, replayable, durable.

The daemon serves gRPC on one address and keeps everything below one data directory, which one daemon at a
time may hold. It runs in the foreground and logs to stderr; the line "ready" says where it listens, where
the data is, and what recovery did.

Each setting is a flag, an environment variable or a key of a TOML file (--config); a flag wins over the
environment, the environment over the file, the file over the default. An unknown name or a bad value is an
error before anything is opened.

SIGTERM or SIGINT stops: no new connections, time for the calls in flight (--shutdown-grace-s), exit code
0. A second signal stops at once; what was committed is safe either way. SIGHUP reads certificates and tokens
again; SIGUSR1 logs what the edge holds.

--check starts no daemon: it checks a store that none serves (log, state, snapshots, and heads that statehousectl head
printed), says what a start would do, and changes nothing in the data directory. The state's logs are copied to TMPDIR.
Findings go to stdout, with what to do; a daemon that serves the store is asked with statehousectl verify.
"""
_EPILOG: Final = f"""\b
Exit codes:
{documented(DAEMON_EXIT_TEXTS)}

\b
Examples:
  statehoused
  statehoused --listen unix:/run/statehouse/socket --data-dir /var/lib/statehouse
  statehoused --listen 0.0.0.0:50051 --token-file tokens --tls-cert tls.crt --tls-key tls.key
  statehoused --check --data-dir /var/lib/statehouse --heads /another/machine/heads
  STATEHOUSE_LOG=info,statehouse.rpc=debug statehoused --config /etc/statehouse.toml
"""


_NO_SETTINGS: Final = frozenset({"config", "check", "heads", "heads_file", "as_json", "version", "help"})


class _DaemonCommand(click.Command):
    """Help with the limits, which few change, in a section of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], "Settings": [], "Limits of a request": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name = parameter.name or ""
                section = "Limits of a request" if name.startswith("limits__") else "Settings"
                sections["Options" if name in _NO_SETTINGS else section].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _option_name(setting: Setting) -> str:
    return setting.name.replace(".", "__")


def _option(setting: Setting) -> click.Option:
    names = f"[{', then '.join(setting.variables)}; default {setting.shown_default}]"
    text = f"{setting.help_text} {names}"
    if setting.form is BOOLEAN:  # --use-memory alone means yes
        return click.Option(
            [setting.flag, _option_name(setting)], is_flag=False, flag_value="yes", metavar="[BOOL]", help=text
        )
    return click.Option([setting.flag, _option_name(setting)], metavar=setting.form.placeholder, help=text)


def _print_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:  # noqa: FBT001 - click's
    if asked:
        build = build_version(os.environ)
        click.echo(f"statehoused {build.version} ({build.git_sha})")
        context.exit()


def make_command() -> click.Command:
    """The command, with an option for each setting."""
    config = click.Option(
        ["--config"], metavar="PATH", help=f"A TOML file to read settings from. [{CONFIG_VARIABLE}; default none]"
    )
    check = click.Option(["--check"], is_flag=True, help="Check a store that no daemon serves, and start none.")
    head = click.Option(
        ["--head", "heads"], multiple=True, metavar="TS:CHAIN", callback=parse_heads, help=f"With --check. {HEAD_HELP}"
    )
    heads = click.Option(["--heads", "heads_file"], metavar="FILE", help=f"With --check. {HEADS_HELP}")
    as_json = click.Option(["--json", "as_json"], is_flag=True, help="With --check: print JSONL.")
    version = click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Show the version and exit.",
    )
    return _DaemonCommand(
        "statehoused",
        params=[config, check, head, heads, as_json, version, *(_option(setting) for setting in declared_settings())],
        callback=_run,
        help=_HELP,
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


def _run(
    config: str | None,
    *,
    check: bool,
    heads: tuple[Head, ...],
    heads_file: str | None,
    as_json: bool,
    **options: str | None,
) -> DaemonExit:
    if not check and (heads or heads_file is not None or as_json):
        raise click.UsageError("--head, --heads and --json go with --check")
    known = known_heads(heads, heads_file)
    flags = {
        setting.name: value for setting in declared_settings() if (value := options[_option_name(setting)]) is not None
    }
    toml_path = config or os.environ.get(CONFIG_VARIABLE)
    settings = load(flags, os.environ, Path(toml_path) if toml_path else None)
    if check and settings.use_memory:
        raise click.UsageError("--check is for a store on a disk, and use_memory is on")
    if check:
        return run_check(settings, known, as_json=as_json)
    configure_logs(settings.log, settings.log_format)
    trio.run(run_daemon, settings)
    return DaemonExit.STOPPED


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit the process; `arguments` default to the command line's."""
    for number in (signal.SIGHUP, signal.SIGUSR1):  # the daemon takes them over when it can
        signal.signal(number, signal.SIG_IGN)
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        command = make_command()
        with command.make_context("statehoused", list(sys.argv[1:] if arguments is None else arguments)) as context:
            code: DaemonExit = command.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as end:  # --help and --version
        return end.exit_code
    except click.ClickException as error:
        _say(f"{error.format_message()} (statehoused --help lists all settings)")
        return DaemonExit.BAD_CONFIGURATION
    except ConfigError as error:
        _say(error.message)
        return DaemonExit.BAD_CONFIGURATION
    except KeyboardInterrupt:  # Ctrl-C before the daemon watches for signals
        return 128 + signal.SIGINT
    except Exception as error:
        code = daemon_exit_for(error)
        for line in _lines_about(error):
            _say(line)
        if code is DaemonExit.BUG:
            log.critical("crashed", exc_info=error)
        return code
    return code


def _lines_about(error: BaseException) -> list[str]:
    """One line for each thing that went wrong; nurseries wrap even a single one in a group."""
    if isinstance(error, BaseExceptionGroup):
        return [line for member in error.exceptions for line in _lines_about(member)]
    if isinstance(error, StatehouseError):
        return [error.message]
    return ["".join(traceback.format_exception_only(error)).strip().replace("\n", " ")]


def _say(line: str) -> None:
    click.echo(f"statehoused: {line}", err=True)


if __name__ == "__main__":
    main()
