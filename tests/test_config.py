"""Settings: what is accepted, from where, in which order, and what an operator reads when it is not."""

from pathlib import Path

import pytest
from attrs import evolve, fields

from statehouse.config import CONFIG_FILE_BYTES, load
from statehouse.errors import ConfigError
from statehouse.limits import MIB, Limits
from statehouse.setting_forms import Address, LogLevels, UnixAddress
from statehouse.settings import LogFormat, Settings, VerifyOnStart, declared_settings


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "statehouse.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(flags=None, environment=None, toml_path=None):
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, environment or {}, toml_path)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_nothing_set_gives_the_defaults():
    assert load({}, {}, None) == Settings()
    assert Settings().limits == Limits()
    assert str(Settings().listen_addr) == "127.0.0.1:50051"


def test_every_setting_and_every_limit_is_declared_under_names_of_its_own():
    settings = declared_settings()
    names = {setting.name for setting in settings}
    assert names == {f.name for f in fields(Settings)} - {"limits"} | {f"limits.{f.name}" for f in fields(Limits)}
    assert len({setting.flag for setting in settings}) == len(settings)
    assert len({name for setting in settings for name in setting.variables}) == len(settings) + 1
    for setting in settings:
        assert setting.help_text.endswith("."), setting.name
        assert setting.form.accepted, setting.name


@pytest.mark.parametrize("setting", declared_settings(), ids=lambda setting: setting.name)
def test_a_default_as_shown_reads_as_the_default_from_everywhere(setting, toml):
    shown = setting.shown_default
    head, _, tail = setting.name.rpartition(".")
    path = toml((f"[{head}]\n" if head else "") + f'{tail} = "{shown}"\n')
    for settings in (
        load({setting.name: shown}, {}, None),
        load({}, {setting.variable: shown}, None),
        load({}, {}, path),
    ):
        assert settings == Settings()


# Another value than the default for each setting, as text and as it is read.
EXAMPLES = {
    "listen_addr": ("[::1]:0", Address("::1", 0)),
    "tls_cert": ("/etc/statehouse/tls.crt", Path("/etc/statehouse/tls.crt")),
    "tls_key": ("tls.key", Path("tls.key")),
    "tls_client_ca": ("/etc/ca.pem", Path("/etc/ca.pem")),
    "token_file": ("./none", Path("none")),
    "insecure": ("yes", True),
    "max_connections": ("10", 10),
    "connection_idle_s": ("0", 0.0),
    "connection_age_s": ("86400", 86400.0),
    "data_dir": ("/srv/statehouse", Path("/srv/statehouse")),
    "use_memory": ("1", True),
    "fsync_on_commit": ("no", False),
    "snapshot_interval": ("1000", 1000),
    "snapshots_keep": ("3", 3),
    "max_log_size": ("2GiB", 2048 * MIB),
    "tx_timeout_ms": ("500", 500),
    "idempotency_window_s": ("3600", 3600),
    "max_resident_partitions": ("7", 7),
    "verify_on_start": ("full", VerifyOnStart.FULL),
    "log": ("warning,statehouse.rpc=debug", LogLevels("warning", (("statehouse.rpc", "debug"),))),
    "log_format": ("json", LogFormat.JSON),
    "shutdown_grace_s": ("0.5", 0.5),
    "limits.value_bytes": ("64KiB", 64 * 1024),
    "limits.key_bytes": ("10", 10),
    "limits.agent_id_bytes": ("11", 11),
    "limits.namespace_bytes": ("12", 12),
    "limits.transaction_operations": ("13", 13),
    "limits.transaction_bytes": ("14MiB", 14 * MIB),
    "limits.timeout_ms": ("60000", 60_000),
    "limits.open_transactions": ("15", 15),
    "limits.staged_bytes": ("160MiB", 160 * MIB),
}

# What another setting needs beside it.
COMPANIONS = {
    "tls_cert": {"tls_key": "k"},
    "tls_key": {"tls_cert": "c"},
    "tls_client_ca": {"tls_key": "k", "tls_cert": "c"},
}


def value_of(settings, name):
    return getattr(settings.limits, name.removeprefix("limits.")) if "." in name else getattr(settings, name)


@pytest.mark.parametrize("setting", declared_settings(), ids=lambda setting: setting.name)
def test_flag_over_environment_over_file_over_default(setting, toml):
    text, expected = EXAMPLES[setting.name]
    assert expected != setting.default
    head, _, tail = setting.name.rpartition(".")
    with_example = toml((f"[{head}]\n" if head else "") + f'{tail} = "{text}"\n')
    default = {setting.name: setting.shown_default}
    default_variable = {setting.variable: setting.shown_default}
    beside = COMPANIONS.get(setting.name, {})

    def read(flags, environment, path):
        return value_of(load(flags | beside, environment, path), setting.name)

    assert read({}, {}, with_example) == expected
    assert read({}, {setting.variable: text}, None) == expected
    assert read({setting.name: text}, default_variable, None) == expected
    if not beside:  # unset, it would leave its companion alone, which is refused
        assert read({}, default_variable, with_example) == setting.default
        assert read(default, {setting.variable: text}, with_example) == setting.default


def test_toml_types(toml):
    path = toml(
        "use_memory = true\nfsync_on_commit = 0\ntx_timeout_ms = 1500\nmax_log_size = 1048576\nshutdown_grace_s = 1.5\n"
        '[limits]\nkey_bytes = 99\nvalue_bytes = "2MiB"\n'
    )
    assert load({}, {}, path) == Settings(
        use_memory=True,
        fsync_on_commit=False,
        tx_timeout_ms=1500,
        max_log_size=MIB,
        shutdown_grace_s=1.5,
        limits=evolve(Limits(), key_bytes=99, value_bytes=2 * MIB),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("localhost:65535", Address("localhost", 65535)),
        ("[::]:0", Address("::", 0)),
        *((text, None) for text in ("", ":1", "host", "host:", "host:65536", "host:-1", "::1:1", "[::1]", "a b:1")),
        *((text, None) for text in ("http://host:1", "host:\uff11", "host:1x")),
        ("unix:/run/statehouse.sock", UnixAddress(Path("/run/statehouse.sock"))),
        ("unix:///run/s", UnixAddress(Path("/run/s"))),
        (f"unix:/{'n' * 106}", UnixAddress(Path("/" + "n" * 106))),
        *((text, None) for text in ("unix:", "unix:/", "unix:///", "unix:run/s", "unix:/a\0b", "unix:@abstract")),
        *((text, None) for text in (f"unix:/{'n' * 107}", f"unix:/{'é' * 54}", "unix:~nobody-of-this-name/s")),
    ],
)
def test_addresses(text, expected):
    if expected is None:
        assert "expected HOST:PORT" in refused({"listen_addr": text})
    else:
        assert load({"listen_addr": text}, {}, None).listen_addr == expected
        assert load({"listen_addr": str(expected)}, {}, None).listen_addr == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1048576", MIB),
        ("64MiB", 64 * MIB),
        ("64 mib", 64 * MIB),
        ("1024KiB", MIB),
        ("1TiB", MIB * MIB),
        ("0", 0),
        *((text, None) for text in ("", "64MB", "64M", "-1", "1.5GiB", "1_000_000", "MiB", "1KiB", "0x10", "9" * 30)),
    ],
)
def test_sizes(text, expected):
    if expected is None:
        assert "expected a size in bytes" in refused({"max_log_size": text})
    else:
        assert load({"max_log_size": text}, {}, None).max_log_size == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, True) for text in ("1", "true", "yes", "TRUE", " Yes ")),
        *((text, False) for text in ("0", "false", "no", "False")),
        *((text, None) for text in ("2", "on", "y", "maybe")),
    ],
)
def test_booleans(text, expected):
    environment = {"STATEHOUSE_FSYNC_ON_COMMIT": text}
    if expected is None:
        assert "expected 1, true or yes, or 0, false or no" in refused(environment=environment)
    else:
        assert load({}, environment, None).fsync_on_commit is expected


@pytest.mark.parametrize(
    ("text", "expected"), [("1", True), ("on", True), ("no", True), ("", False), ("0", False), ("False", False)]
)
def test_the_environment_says_memory_with_anything_but_empty_0_or_false(text, expected):
    assert load({}, {"STATEHOUSE_USE_MEMORY": text}, None).use_memory is expected


def test_a_flag_says_memory_in_plain_booleans_only():
    assert load({"use_memory": "no"}, {"STATEHOUSE_USE_MEMORY": "1"}, None).use_memory is False
    assert "from the flag --use-memory" in refused({"use_memory": "on"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("debug", LogLevels("debug")),
        ("WARN", LogLevels("warning")),
        ("statehouse.rpc=debug", LogLevels("info", (("statehouse.rpc", "debug"),))),
        ("error, trio=critical,statehouse=info", LogLevels("error", (("trio", "critical"), ("statehouse", "info")))),
        *((text, None) for text in ("", "loud", "info,debug", "info,=debug", "info,a..b=debug", "a=b=debug", "info,")),
    ],
)
def test_log_levels(text, expected):
    if expected is None:
        assert "such as info,statehouse.rpc=debug" in refused({"log": text})
    else:
        settings = load({"log": text}, {}, None)
        assert settings.log == expected
        assert load({"log": str(expected)}, {}, None) == settings


def test_the_older_name_of_the_address_gives_way_to_the_newer():
    assert str(load({}, {"STATEHOUSE_ADDR": "h:1"}, None).listen_addr) == "h:1"
    both = {"STATEHOUSE_ADDR": "h:1", "STATEHOUSE_LISTEN_ADDR": "h:2"}
    assert str(load({}, both, None).listen_addr) == "h:2"
    assert "the environment variable STATEHOUSE_ADDR" in refused(environment={"STATEHOUSE_ADDR": "nowhere"})


def test_an_empty_variable_is_not_set():
    assert load({}, {"STATEHOUSE_TX_TIMEOUT_MS": "", "STATEHOUSE_ADDR": ""}, None) == Settings()


@pytest.mark.parametrize(
    "name",
    [
        "STATEHOUSE_GIT_SHA",
        "STATEHOUSE_CONFIG",
        "STATEHOUSE_NAMESPACE",
        "STATEHOUSE_SERVICE_HOST",
        "STATEHOUSE_SERVICE_PORT",
        "STATEHOUSE_SERVICE_PORT_GRPC",
        "STATEHOUSE_PORT",
        "STATEHOUSE_PORT_50051_TCP",
        "STATEHOUSE_PORT_50051_TCP_ADDR",
        "NOT_STATEHOUSE_FOO",
    ],
)
def test_variables_of_others_are_let_be(name):
    assert load({}, {name: "x"}, None) == Settings()


def test_an_unknown_variable_is_named_with_its_neighbour():
    message = refused(environment={"STATEHOUSE_FSYNC_ON_COMIT": "0"})
    assert message == (
        "unknown setting: the environment variable STATEHOUSE_FSYNC_ON_COMIT; did you mean STATEHOUSE_FSYNC_ON_COMMIT?"
    )
    assert "--help lists all settings" in refused(environment={"STATEHOUSE_XYZZY": "0"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tx_timeout = 1\n", "unknown setting: tx_timeout in the file {path}; did you mean tx_timeout_ms?"),
        ("[limits]\nkey_byte = 1\n", "unknown setting: limits.key_byte in the file {path}; did you mean"),
        ("[server]\nport = 1\n", "unknown setting: server in the file {path}"),
        ("limits = 3\n", "bad value 3 for limits from the file {path}: expected a table, [limits]"),
        (
            "tx_timeout_ms = 1.5\n",
            "bad value 1.5 for tx_timeout_ms from the file {path}: expected a whole number of mil",
        ),
        ("tx_timeout_ms = true\n", "bad value True for tx_timeout_ms from the file {path}"),
        ("data_dir = 5\n", "bad value 5 for data_dir from the file {path}: expected a path"),
        ("log = ['info']\n", "bad value ['info'] for log from the file {path}"),
        ("log_format = 'xml'\n", "bad value 'xml' for log_format from the file {path}: expected auto, console or json"),
        ("log_format =\n", "the configuration file {path} is not TOML: "),
    ],
)
def test_a_bad_file_is_refused_by_name(text, expected, toml):
    path = toml(text)
    assert refused(toml_path=path).startswith(expected.format(path=path))


def test_a_file_that_cannot_be_read(tmp_path):
    assert refused(toml_path=tmp_path / "none.toml") == (
        f"cannot read the configuration file {tmp_path / 'none.toml'}: No such file or directory"
    )
    for irregular in (tmp_path, Path("/dev/zero")):
        assert refused(toml_path=irregular) == (
            f"cannot read the configuration file {irregular}: it is not a regular file"
        )
    long = tmp_path / "long.toml"
    long.write_bytes(b"#" * CONFIG_FILE_BYTES)
    assert load({}, {}, long) == Settings()
    long.write_bytes(b"#" * (CONFIG_FILE_BYTES + 1))
    assert refused(toml_path=long) == f"cannot read the configuration file {long}: it is longer than 1 MiB"
    (tmp_path / "latin.toml").write_bytes(b'data_dir = "\xe9"')
    assert "is not TOML" in refused(toml_path=tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"tx_timeout_ms": "0"}, "expected a whole number of milliseconds of at least 1"),
        ({"tx_timeout_ms": "-5"}, "bad value '-5' for tx_timeout_ms from the flag --tx-timeout-ms"),
        ({"snapshots_keep": "0"}, "expected a whole number of snapshots of at least 1"),
        ({"shutdown_grace_s": "3601"}, "expected a number of seconds from 0 to 3600"),
        ({"shutdown_grace_s": "nan"}, "expected a number of seconds"),
        ({"verify_on_start": "none"}, "expected tail or full"),
        ({"max_log_size": "1023KiB"}, "of at least 1MiB, or 0"),
        ({"limits.key_bytes": "0"}, "from the flag --limit-key-bytes: expected a size in bytes"),
        ({"limits.open_transactions": "none"}, "expected a whole number of transactions of at least 1"),
        ({"data_dir": ""}, "expected a path"),
        ({"data_dir": "~nobody-of-this-name/x"}, "expected a path"),
    ],
)
def test_values_out_of_bounds(flags, expected):
    assert expected in refused(flags)


def test_a_path_that_is_none_is_not_set():
    assert load({"token_file": "none"}, {"STATEHOUSE_TOKEN_FILE": "/etc/tokens"}, None).token_file is None
    assert load({}, {"STATEHOUSE_TOKEN_FILE": "None"}, None).token_file is None
    assert "expected a path, or none" in refused({"token_file": ""})


def test_settings_of_tls_that_need_each_other(toml):
    assert (
        refused({"tls_cert": "c"}) == "tls_cert is set from the flag --tls-cert, and tls_key is not: tls_cert needs it"
    )
    assert refused(environment={"STATEHOUSE_TLS_KEY": "k"}) == (
        "tls_key is set from the environment variable STATEHOUSE_TLS_KEY, and tls_cert is not: tls_key needs it"
    )
    path = toml('tls_client_ca = "a"\n')
    assert refused(toml_path=path) == (
        f"tls_client_ca is set from the file {path}, and tls_cert is not: tls_client_ca needs it"
    )


def test_values_that_cannot_be_obeyed_together():
    assert refused({"tx_timeout_ms": "3600001"}) == (
        "bad value 3600001 for tx_timeout_ms from the flag --tx-timeout-ms: expected at most limits.timeout_ms, "
        "which is 3600000 from the default"
    )
    assert "expected at most limits.transaction_bytes" in refused({"limits.value_bytes": "33MiB"})
    assert "expected at most limits.staged_bytes" in refused({"limits.transaction_bytes": "257MiB"})
    huge = {"limits.transaction_bytes": "2GiB", "limits.staged_bytes": "4GiB"}
    assert "expected at most 1GiB" in refused(huge)
