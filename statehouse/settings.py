"""What an operator may set: one declaration for each setting, and nothing about it anywhere else.

A declaration has the default, the form of the values, and the text that `--help` and docs/operations.md
show. The flag (`--data-dir`), the environment variable (`STATEHOUSE_DATA_DIR`) and the TOML key
(`data_dir`) follow from the field's name. Every field of `Limits` is a setting too
(`--limit-key-bytes`, `STATEHOUSE_LIMIT_KEY_BYTES`, `key_bytes` in the table `[limits]`).

How they are read stands in `config.py`.
"""
# ruff: noqa: RUF009 - _setting declares a field, as attrs.field does

from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from attrs import frozen

from statehouse.limits import CONNECTIONS, MIB, Limits
from statehouse.setting_forms import (
    ADDRESS,
    BOOLEAN,
    LOG_SPEC,
    LOOSE_BOOLEAN,
    OPTIONAL_PATH,
    PATH,
    Address,
    Form,
    LogLevels,
    UnixAddress,
    one_of,
    seconds,
    size_of_at_least,
    whole_number,
)

T = TypeVar("T")

PREFIX: Final = "STATEHOUSE_"
_WEEK_S: Final = 7 * 24 * 60 * 60
_YEAR_S: Final = 365 * 24 * 60 * 60

_DECLARATION = "statehouse.setting"


class VerifyOnStart(StrEnum):
    """How much of the event log is checked when the daemon starts."""

    TAIL = "tail"
    FULL = "full"


class LogFormat(StrEnum):
    """How log lines are written."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


@frozen(kw_only=True)
class _Declaration:
    form: Form[Any]
    help_text: str
    flag: str | None
    older_variable: str | None
    variable_form: Form[Any] | None


def _setting(
    default: T,
    form: Form[T],
    help_text: str,
    *,
    flag: str | None = None,
    older_variable: str | None = None,
    variable_form: Form[T] | None = None,
) -> T:
    """Declare a setting. `variable_form` is for an environment variable that reads its text in a way of its own."""
    declaration = _Declaration(
        form=form, help_text=help_text, flag=flag, older_variable=older_variable, variable_form=variable_form
    )
    declared: T = attrs.field(default=default, metadata={_DECLARATION: declaration})
    return declared


@frozen(kw_only=True)
class Settings:
    """Everything that the daemon was asked to do. Checked: see `load`."""

    listen_addr: Address | UnixAddress = _setting(
        Address("127.0.0.1", 50051),
        ADDRESS,
        "The one address to listen on. Port 0 takes any free port; the ready line says which. An address that other "
        "machines reach needs token_file or tls_client_ca. A Unix socket is open to the daemon's own user only.",
        flag="--listen",
        older_variable="STATEHOUSE_ADDR",
    )
    tls_cert: Path | None = _setting(
        None,
        OPTIONAL_PATH,
        "The daemon's certificate and then its chain, in PEM form: with it and tls_key every connection is TLS. Read "
        "at the start and on SIGHUP.",
    )
    tls_key: Path | None = _setting(
        None, OPTIONAL_PATH, "The private key of tls_cert, in PEM form and without a passphrase."
    )
    tls_client_ca: Path | None = _setting(
        None,
        OPTIONAL_PATH,
        "Mutual TLS: clients must have a certificate of one of the authorities in this file, in PEM form.",
    )
    token_file: Path | None = _setting(
        None,
        OPTIONAL_PATH,
        "Calls must carry a bearer token of this file (statehousectl token create writes it). Read at the start and on "
        "SIGHUP.",
    )
    insecure: bool = _setting(
        False,  # noqa: FBT003 - the default of a boolean setting
        BOOLEAN,
        "Listen on an address that other machines reach though nobody has to authenticate.",
    )
    max_connections: int = _setting(
        CONNECTIONS,
        whole_number("connections", at_least=1),
        "Connections that may be open at once. Past it, the one that has been without a call for longest, and for at "
        "least 5 s, makes room; if there is none, the new one is closed. The limit on open files may allow fewer.",
    )
    connection_idle_s: float = _setting(
        900.0,
        seconds(at_most=_WEEK_S),
        "A connection without a call for this long is told to go; 0 lets it stay.",
    )
    connection_age_s: float = _setting(
        0.0,
        seconds(at_most=_WEEK_S),
        "A connection that is older takes no new calls and ends when those under way have ended: its client comes "
        "back and shows its certificate anew. 0 lets it stay.",
    )
    data_dir: Path = _setting(
        Path("./statehouse-data"), PATH, "Where the store is kept. It is made if it does not exist."
    )
    use_memory: bool = _setting(
        False,  # noqa: FBT003 - the default of a boolean setting
        BOOLEAN,
        "Keep everything in memory, for tests: nothing survives the daemon, and the data directory is not touched. "
        "As an environment variable anything but empty, 0 or false means yes.",
        variable_form=LOOSE_BOOLEAN,
    )
    fsync_on_commit: bool = _setting(
        True,  # noqa: FBT003 - the default of a boolean setting
        BOOLEAN,
        "Sync each group of commits to the disk before it is answered. Without it a commit survives kill -9, "
        "but not power loss.",
    )
    snapshot_interval: int = _setting(
        500_000,
        whole_number("commits"),
        "Write a snapshot of the state after this many commits; 0 writes none. The event log is the truth and every "
        "start replays what the state misses, so a snapshot makes nothing safer: it shortens a rebuild of the state, "
        "which without one reads the whole log: about 10 s for the default at 50,000 commits/s. It waits until the log "
        "has grown by the last snapshot's size as well, so snapshots never write more than the log.",
    )
    snapshots_keep: int = _setting(
        2,
        whole_number("snapshots", at_least=1),
        "Keep this many snapshots. An older one serves when the newest is damaged.",
    )
    max_log_size: int = _setting(
        0,
        size_of_at_least(MIB, or_zero=True),
        "Refuse commits with RESOURCE_EXHAUSTED when the event log would grow past this; 0 means until the disk is "
        "full.",
    )
    tx_timeout_ms: int = _setting(
        30_000,
        whole_number("milliseconds", at_least=1),
        "How long a transaction that names no timeout may stay open.",
    )
    idempotency_window_s: int = _setting(
        24 * 60 * 60,
        whole_number("seconds", at_least=1, at_most=_YEAR_S),
        "How long an idempotency key is known: within this time a repeated request gives the first answer again, and "
        "another request with the same key is refused.",
    )
    max_resident_partitions: int = _setting(
        10_000,
        whole_number("agents", at_least=1),
        "Agents kept in memory for writing. More are served all the same: the least recently used make room, and more "
        "stay only while they have commits under way.",
    )
    verify_on_start: VerifyOnStart = _setting(
        VerifyOnStart.TAIL,
        one_of(VerifyOnStart),
        "Check the event log from the segment that the state was last known good in (tail), or from its first "
        "record (full: reads the whole log).",
    )
    log: LogLevels = _setting(
        LogLevels(),
        LOG_SPEC,
        "What is logged: a level for everything, then levels for modules, such as info,statehouse.rpc=debug.",
    )
    log_format: LogFormat = _setting(
        LogFormat.AUTO,
        one_of(LogFormat),
        "Log lines for people (console) or for programs (json: one object a line); auto is console on a terminal "
        "and json elsewhere.",
    )
    shutdown_grace_s: float = _setting(
        10.0,
        seconds(at_most=3600),
        "How long calls in flight may take to finish after SIGTERM or SIGINT.",
    )
    limits: Limits = Limits()


@frozen(kw_only=True)
class Setting:
    """A declared setting, with all its names.

    `name` is its place in the TOML file, with a dot after a table's name (`limits.key_bytes`), and the key
    under which `load` takes flags.
    """

    name: str
    flag: str
    variable: str
    older_variable: str | None
    default: Any
    form: Form[Any]
    variable_form: Form[Any]
    help_text: str

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it, the one that wins first."""
        return (self.variable,) if self.older_variable is None else (self.variable, self.older_variable)

    @property
    def shown_default(self) -> str:
        """The default as an operator would write it."""
        return self.form.show(self.default)


def declared_settings() -> tuple[Setting, ...]:
    """Every setting there is, in the order of their declaration; the limits come last."""
    settings = []
    for attribute in attrs.fields(Settings):
        declaration = attribute.metadata.get(_DECLARATION)
        if declaration is not None:
            settings.append(
                Setting(
                    name=attribute.name,
                    flag=declaration.flag or _flag(attribute.name),
                    variable=PREFIX + attribute.name.upper(),
                    older_variable=declaration.older_variable,
                    default=attribute.default,
                    form=declaration.form,
                    variable_form=declaration.variable_form or declaration.form,
                    help_text=declaration.help_text,
                )
            )
    for attribute in attrs.fields(Limits):
        form = _form_of_limit(attribute.name)
        settings.append(
            Setting(
                name=f"limits.{attribute.name}",
                flag=_flag(f"limit_{attribute.name}"),
                variable=f"{PREFIX}LIMIT_{attribute.name.upper()}",
                older_variable=None,
                default=attribute.default,
                form=form,
                variable_form=form,
                help_text=attribute.metadata["help"],
            )
        )
    return tuple(settings)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _form_of_limit(name: str) -> Form[int]:
    """The unit ends a limit's name."""
    if name.endswith("_bytes"):
        return size_of_at_least(1)
    unit = "milliseconds" if name.endswith("_ms") else name.rsplit("_", 1)[-1]
    return whole_number(unit, at_least=1)
