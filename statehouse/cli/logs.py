"""Where log lines go and what they look like: one stream, one line an event, for people or for programs.

Every module logs through `structlog.stdlib.get_logger(__name__)` or the standard library's logging; both
meet in one handler, so that levels can be set for a module and everything below it
(`info,statehouse.rpc=debug`), and a library's lines look like our own.

Two promises about the contents. No secrets: the value of a field that is named like a credential is
replaced before anything is rendered, and tracebacks carry no local variables. One event is one line, and
no line is forged: agents' names and keys are other people's text, and control characters in them are
escaped (a traceback on a terminal is the one thing that takes more lines).
"""

import logging
import sys
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from statehouse.setting_forms import LogLevels
from statehouse.settings import LogFormat

SECRET_FIELDS: Final = frozenset({"authorization", "cookie", "credential", "password", "secret", "token"})
REDACTED: Final = "[redacted]"

_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}
_MANY_LINES: Final = frozenset({"exception", "stack"})


def configure_logs(levels: LogLevels, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send all log lines to `stream` (stderr) from now on; earlier handlers are replaced.

    Writing a line blocks until the stream has taken it.
    """
    destination = sys.stderr if stream is None else stream
    for_people = log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and destination.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _redact,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a logger that is made before this call must follow it too
    )
    handler = logging.StreamHandler(destination)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_console(colors=destination.isatty()) if for_people else _json()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(levels.default.upper())
    for module, level in levels.modules:
        logging.getLogger(module).setLevel(level.upper())
    logging.captureWarnings(capture=True)


def _console(*, colors: bool) -> list[Processor]:
    return [
        _escape_control_characters,
        # The default formatter of exceptions prints local variables when rich is installed.
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback),
    ]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, _first_things_first, structlog.processors.JSONRenderer(default=str)]


def _first_things_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """When, how grave and what come before the details, for whoever reads JSON with bare eyes."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event", "logger") if name in event}
    return {**first, **event}


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name in event:
        if any(word in SECRET_FIELDS for word in name.lower().split("_")):
            event[name] = REDACTED
    return event


def _escape_control_characters(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str) and name not in _MANY_LINES:
            event[name] = value.translate(_ESCAPES)
    return event
