"""Reading what an operator set: flags, then environment variables, then a TOML file, then defaults.

`load` promises that every value it returns was checked, and that an unknown setting or a bad value is a
`ConfigError` which names the setting, where it came from and what is accepted, before anything is opened.
A misspelt name in the environment is an error as well: a daemon that runs without the fsync or the limit
that somebody believes to have set is worse than one that does not start.
"""

import difflib
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import fields

from statehouse.errors import ConfigError
from statehouse.limits import MIB, Limits
from statehouse.setting_forms import Form
from statehouse.settings import PREFIX, Setting, Settings, declared_settings
from statehouse.version import GIT_SHA_VARIABLE

CONFIG_VARIABLE: Final = "STATEHOUSE_CONFIG"
FOREIGN_VARIABLES: Final = frozenset(
    {
        CONFIG_VARIABLE,
        GIT_SHA_VARIABLE,
        "STATEHOUSE_NAMESPACE",
        "STATEHOUSE_TOKEN",
        "STATEHOUSE_CLIENT_TOKEN_FILE",
        "STATEHOUSE_CLIENT_CA_FILE",
        "STATEHOUSE_CLIENT_CERT_FILE",
        "STATEHOUSE_CLIENT_KEY_FILE",
        "STATEHOUSE_CLIENT_SERVER_NAME",
        "STATEHOUSE_CLIENT_INSECURE",
    }
)
"""Read by the command line, the Version call and statehousectl: known here, and not settings."""
_SERVICE_LINK = re.compile(r"STATEHOUSE_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP)(_[A-Z]+)?)?)")
"""What Kubernetes puts into every pod beside a service that is called statehouse."""

CONFIG_FILE_BYTES: Final = MIB
"""Longest configuration file: far past any real one, so what is longer was named by mistake."""

_LONGEST_RECORD_BYTES: Final = 1024 * MIB
"""A transaction is one record of the event log, whose length field has 31 bits; half is left for names and stamps."""


def load(flags: Mapping[str, str], environment: Mapping[str, str], toml_path: Path | None) -> Settings:
    """Read the settings: flags first, then environment variables, then the TOML file, then defaults.

    `flags` is by `Setting.name`. An environment variable that is empty counts as not set. Blocks on reading
    the file. Raises ConfigError.
    """
    settings = declared_settings()
    _refuse_unknown_variables(settings, environment)
    file_values = {} if toml_path is None else _read_toml(toml_path, settings)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in settings:
        variable = next((name for name in setting.variables if environment.get(name)), None)
        if setting.name in flags:
            sources[setting.name] = f"the flag {setting.flag}"
            value = _parse(setting, setting.form, flags[setting.name], sources[setting.name])
        elif variable is not None:
            sources[setting.name] = f"the environment variable {variable}"
            value = _parse(setting, setting.variable_form, environment[variable], sources[setting.name])
        elif setting.name in file_values:
            sources[setting.name] = f"the file {toml_path}"
            value = _parse_toml_value(setting, file_values[setting.name], sources[setting.name])
        else:
            sources[setting.name] = "the default"
            value = setting.default
        values[setting.name] = value
    _check_together(values, sources)
    limits = Limits(**{attribute.name: values.pop(f"limits.{attribute.name}") for attribute in fields(Limits)})
    return Settings(limits=limits, **values)


def _refuse_unknown_variables(settings: Iterable[Setting], environment: Mapping[str, str]) -> None:
    known = FOREIGN_VARIABLES.union(*(setting.variables for setting in settings))
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name):
            raise ConfigError(f"unknown setting: the environment variable {name}{_suggestion(name, known)}")


def _read_toml(path: Path, settings: Iterable[Setting]) -> dict[str, Any]:
    """The values of a TOML file by setting name, tables flattened; every name in it is known."""
    try:
        document = tomllib.loads(_read_file(path).decode())
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} is not TOML: {error}") from None
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key == "limits":
            if not isinstance(value, dict):
                raise ConfigError(f"bad value {value!r} for limits from the file {path}: expected a table, [limits]")
            values |= {f"limits.{name}": limit for name, limit in value.items()}
        else:
            values[key] = value
    known = {setting.name for setting in settings}
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown setting: {name} in the file {path}{_suggestion(name, known)}")
    return values


def _read_file(path: Path) -> bytes:
    """The bytes of a regular file: a device or a pipe may have no end, or never begin."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ConfigError(f"cannot read the configuration file {path}: it is not a regular file")
    with path.open("rb") as file:
        text = file.read(CONFIG_FILE_BYTES + 1)
    if len(text) > CONFIG_FILE_BYTES:
        raise ConfigError(
            f"cannot read the configuration file {path}: it is longer than {CONFIG_FILE_BYTES // MIB} MiB"
        )
    return text


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else "; statehoused --help lists all settings"


def _parse(setting: Setting, form: Form[Any], text: str, source: str) -> Any:
    try:
        return form.parse(text)
    except ValueError:
        raise ConfigError(f"bad value {text!r} for {setting.name} from {source}: expected {form.accepted}") from None


def _parse_toml_value(setting: Setting, value: object, source: str) -> Any:
    if type(value) not in setting.form.toml_types:
        raise ConfigError(f"bad value {value!r} for {setting.name} from {source}: expected {setting.form.accepted}")
    return _parse(setting, setting.form, str(value), source)


def _check_together(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    """Refuse values that are each fine and cannot be obeyed together."""
    ceilings = (
        ("tx_timeout_ms", "limits.timeout_ms"),
        ("limits.value_bytes", "limits.transaction_bytes"),
        ("limits.transaction_bytes", "limits.staged_bytes"),
    )
    for smaller, larger in ceilings:
        if values[smaller] > values[larger]:
            raise ConfigError(
                f"bad value {values[smaller]} for {smaller} from {sources[smaller]}: expected at most "
                f"{larger}, which is {values[larger]} from {sources[larger]}"
            )
    if values["limits.transaction_bytes"] > _LONGEST_RECORD_BYTES:
        raise ConfigError(
            f"bad value {values['limits.transaction_bytes']} for limits.transaction_bytes from "
            f"{sources['limits.transaction_bytes']}: expected at most 1GiB"
        )
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert")):
        if values[one] is not None and values[other] is None:
            raise ConfigError(f"{one} is set from {sources[one]}, and {other} is not: {one} needs it")
