"""Log lines: one a line, for people or programs, without secrets."""

import io
import json
import logging
import re
import warnings

import pytest
import structlog

from statehouse.cli.logs import configure_logs
from statehouse.setting_forms import LOG_SPEC
from statehouse.settings import LogFormat


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def logs():
    """Configure logs into a stream of the test's; everything is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def configure(spec="info", log_format=LogFormat.JSON, stream=None):
        stream = stream or io.StringIO()
        configure_logs(LOG_SPEC.parse(spec), log_format, stream)
        return stream

    yield configure
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("statehouse.rpc", "statehouse.storage"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line(logs):
    stream = logs()
    structlog.stdlib.get_logger("statehouse.daemon").info("ready", port=50051, agent="a\nb")
    (line,) = lines(stream)
    assert list(line)[:4] == ["timestamp", "level", "event", "logger"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "event": "ready",
        "port": 50051,
        "agent": "a\nb",
        "level": "info",
        "logger": "statehouse.daemon",
    }


def test_what_a_library_logs_looks_the_same(logs):
    stream = logs()
    logging.getLogger("trio.abc").warning("%d of %s", 3, "them", extra={"password": "p"})
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("3 of them", "trio.abc", "warning")
    assert line["password"] == "[redacted]"


def test_a_warning_of_python_is_a_line(logs):
    stream = logs()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logs(stream=stream)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "DeprecationWarning: old" in lines(stream)[0]["event"]


def test_levels_by_module(logs):
    stream = logs("warning,statehouse.rpc=debug,statehouse.storage=error")
    for name in ("statehouse.daemon", "statehouse.rpc.server.server", "statehouse.storage", "statehouse.rpcx"):
        logger = structlog.stdlib.get_logger(name)
        logger.debug("d")
        logger.warning("w")
    assert [(line["logger"], line["event"]) for line in lines(stream)] == [
        ("statehouse.daemon", "w"),
        ("statehouse.rpc.server.server", "d"),
        ("statehouse.rpc.server.server", "w"),
        ("statehouse.rpcx", "w"),
    ]


def test_a_logger_made_before_follows(logs):
    logger = structlog.stdlib.get_logger("statehouse.early")
    first, second = logs("error"), logs("debug")
    logger.debug("late")
    assert first.getvalue() == ""
    assert lines(second)[0]["event"] == "late"


@pytest.mark.parametrize("name", ["password", "api_token", "Authorization", "client_secret"])
@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.CONSOLE])
def test_no_secret_is_rendered(name, log_format, logs):
    stream = logs(log_format=log_format)
    structlog.stdlib.get_logger("x").info("e", **{name: "hunter2", "tokens_seen": 5})
    assert "hunter2" not in stream.getvalue()
    assert "5" in stream.getvalue()


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.CONSOLE])
def test_a_traceback_shows_no_local_variables(log_format, logs):
    stream = logs(log_format=log_format)
    secret_value = "hunter" + "2"
    try:
        len(secret_value, None)
    except TypeError:
        structlog.stdlib.get_logger("x").exception("failed")
    assert "TypeError" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_for_people_a_line_is_readable_and_cannot_be_forged(logs):
    stream = logs(log_format=LogFormat.AUTO, stream=Terminal())
    structlog.stdlib.get_logger("x").info("ready", agent="a\n2026 [error] forged \x1b[31m\x9b31m", port=1)
    (line,) = stream.getvalue().splitlines()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
    assert "ready" in plain
    assert "port=1" in plain
    assert r"a\n2026 [error] forged \x1b[31m\x9b31m" in plain.replace("\\\\", "\\")
    assert "\x9b" not in line


def test_auto_is_json_when_nobody_looks(logs):
    stream = logs(log_format=LogFormat.AUTO)
    structlog.stdlib.get_logger("x").info("e")
    assert lines(stream)[0]["event"] == "e"
