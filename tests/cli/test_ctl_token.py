"""statehousectl token: what it prints, what it never prints, and how it exits. The file itself: test_token_file.py."""

import json
import re
import subprocess
import sys

import pytest

from statehouse.cli.exit_codes import ControlExit
from statehouse.cli.statehousectl import exit_code_of
from statehouse.rpc.server.access import Authenticator, Caller, Role
from statehouse.rpc.server.token_file import read_tokens

TOKEN = r"sth_[0-9a-f]{12}_[\w-]{43}"


@pytest.fixture
def ctl(tmp_path, capsys, monkeypatch):
    """Run a token command beside the file `tokens`; its exit code, what it printed, what it said on stderr."""
    for name in ("STATEHOUSE_ADDR", "STATEHOUSE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, before=()):
        code = exit_code_of([*before, "token", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def tokens(tmp_path):
    return tmp_path / "tokens"


def test_a_made_token_is_printed_once_and_lets_in(ctl, tokens):
    code, out, err = ctl("create", "--file", "tokens", "--role", "read-only")
    assert code == 0
    assert re.fullmatch(TOKEN + "\n", out)
    token = out.strip()
    token_id = token.split("_")[1]
    assert err == f"token {token_id} is in tokens; a running daemon takes it over at SIGHUP. It is not shown again.\n"
    assert Authenticator(tokens).caller(b"Bearer " + token.encode()) == Caller(token_id, Role.READ_ONLY)
    assert token.split("_", 2)[2] not in tokens.read_text()


def test_a_token_is_bound_and_noted_as_asked(ctl, tokens):
    bounds = ["--namespace", "a", "--namespace", "b", "--namespace", "a", "--agent-prefix", "x/", "--note", "why"]
    code, out, _ = ctl("create", "--file", "tokens", "--role", "admin", *bounds, "--json")
    made = json.loads(out)
    assert (code, out.count("\n")) == (0, 1)
    assert re.fullmatch(TOKEN, made.pop("token"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created"])
    (token,) = read_tokens(tokens).values()
    assert made == {
        "id": token.id,
        "role": "admin",
        "namespaces": ["a", "b"],
        "agent_prefixes": ["x/"],
        "note": "why",
        "created": token.created,
    }
    assert (token.role, token.namespaces, token.agent_prefixes, token.note) == (Role.ADMIN, ("a", "b"), ("x/",), "why")


def test_the_namespace_of_the_environment_binds_no_token(ctl, tokens, monkeypatch):
    monkeypatch.setenv("STATEHOUSE_NAMESPACE", "other")
    assert ctl("create", "--file", "tokens", "--role", "admin")[0] == 0
    (token,) = read_tokens(tokens).values()
    assert token.namespaces == ()


def test_list(ctl, tokens):
    bounds = ["--namespace", "a\nb", "--namespace", "c", "--agent-prefix", "x/", "--note", "the\x1b[2Jplanner"]
    first = ctl("create", "--file", "tokens", "--role", "read-write", *bounds)[1]
    second = ctl("create", "--file", "tokens", "--role", "admin")[1]
    ids = [text.split("_")[1] for text in (first, second)]
    made = [token.created for token in read_tokens(tokens).values()]
    code, out, err = ctl("list", "--file", "tokens")
    assert (code, err) == (0, "")
    assert out == (
        f"{ids[0]}  read-write  {made[0]}  namespace=a\\nb  namespace=c  agents=x/*  the\\x1b[2Jplanner\n"
        f"{ids[1]}  admin       {made[1]}\n"
    )
    code, as_json, _ = ctl("list", "--file", "tokens", "--json")
    assert [each["id"] for each in json.loads(as_json)] == ids
    assert json.loads(as_json)[0]["namespaces"] == ["a\nb", "c"]
    for token in read_tokens(tokens).values():
        for secret in (
            token.salt.hex(),
            token.digest.hex(),
            *(text.split("_", 2)[2].strip() for text in (first, second)),
        ):
            assert secret not in out + as_json


def test_revoke(ctl, tokens):
    token_id = ctl("create", "--file", "tokens", "--role", "admin")[1].split("_")[1]
    assert ctl("revoke", token_id, "--file", "tokens") == (
        0,
        "",
        f"token {token_id} is no longer in tokens; a running daemon takes it over at SIGHUP\n",
    )
    assert ctl("list", "--file", "tokens") == (0, "", "")
    assert ctl("list", "--file", "tokens", "--json") == (0, "[]\n", "")
    assert ctl("revoke", token_id, "--file", "tokens") == (
        ControlExit.NEGATIVE,
        "",
        f"statehousectl: there is no token {token_id} in tokens\n",
    )


def test_a_whole_token_is_no_id_and_is_not_repeated(ctl):
    token = ctl("create", "--file", "tokens", "--role", "admin")[1].strip()
    code, out, err = ctl("revoke", token, "--file", "tokens")
    assert (code, out, err.count("\n")) == (ControlExit.USAGE, "", 1)
    assert "ID is the 12 hex digits after 'sth_'" in err
    assert token.split("_", 2)[2] not in err


MAKE = ["create", "--file", "tokens", "--role", "admin"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command. (see statehousectl token --help)"),
        (["frob"], "No such command 'frob'. (see statehousectl token --help)"),
        (["list"], "Missing option '--file'. (see statehousectl token list --help)"),
        (["create", "--file", "tokens"], "Missing option '--role'."),
        (["create", "--file", "tokens", "--role", "root"], "'root' is not one of 'read-only', 'read-write', 'admin'."),
        ([*MAKE, "--namespace", ""], "--namespace is empty; leave it out to bind the token to none"),
        ([*MAKE, "--agent-prefix", ""], "--agent-prefix is empty; leave it out"),
        ([*MAKE, "--note", "\udcff"], r"'\udcff' is not UTF-8"),
        ([*MAKE, "--note", "x" * 20_000], "the limit is 16384"),
        (["list", "--file", "tokens"], "tokens: there is none; 'statehousectl token create --file"),
        (["revoke", "0" * 12, "--file", "tokens"], "tokens: there is none; 'statehousectl token create --file"),
        (["create", "--file", "no/where", "--role", "admin"], "token file no/where: No such file or directory"),
        (["list", "--file", "."], "token file .: not a file"),
    ],
)
def test_bad_usage_is_one_line_and_2(arguments, message, ctl, tmp_path):
    code, out, err = ctl(*arguments)
    assert (code, out, err.count("\n")) == (ControlExit.USAGE, "", 1)
    assert err.startswith("statehousectl: ")
    assert message in err
    assert not (tmp_path / "tokens").exists()


def test_a_file_that_others_may_read_is_refused(ctl, tokens):
    ctl(*MAKE)
    tokens.chmod(0o644)
    for arguments in (["list", "--file", "tokens"], MAKE, ["revoke", "0" * 12, "--file", "tokens"]):
        code, out, err = ctl(*arguments)
        assert (code, out, err.count("\n")) == (ControlExit.USAGE, "", 1)
        assert "(mode 0644): chmod 600 " in err


def test_options_of_other_commands_are_not_taken_for_bounds(ctl, tokens):
    code, _, err = ctl(*MAKE, before=("--namespace", "a"))
    assert code == ControlExit.USAGE
    assert "a token is bound with: token create --namespace NAME" in err
    code, _, err = ctl("list", "--file", "tokens", before=("--address", "db:1"))
    assert code == ControlExit.USAGE
    assert "--address means nothing to token" in err
    assert not tokens.exists()


def test_help_teaches(ctl):
    code, out, _ = ctl("--help")
    assert code == 0
    for word in ("authorization: Bearer", "SIGHUP", "create", "list", "revoke", "Examples:"):
        assert word in out
    code, out, _ = ctl("create", "--help")
    assert code == 0
    for role in Role:
        assert re.search(rf"^ +{role} ", out, flags=re.MULTILINE)
    assert ctl("revoke", "--help")[0] == 0


def test_commands_at_once_all_happen(ctl, tokens):
    command = [sys.executable, "-m", "statehouse.cli.statehousectl", "token", *MAKE]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    made = [process.communicate(timeout=60)[0].decode().split("_")[1] for process in running]
    assert {*read_tokens(tokens)} == {*made}
    assert len({*made}) == 4
