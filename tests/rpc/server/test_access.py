"""Who may do what, and who is let in."""

import datetime as dt
import hmac
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.errors import ConfigError, PermissionDeniedError, UnauthenticatedError
from statehouse.rpc.server import access
from statehouse.rpc.server.access import ANYONE, Authenticator, Caller, Role
from statehouse.rpc.server.token_file import add_token, revoke_token
from statehouse.rpc.server.token_line import new_token
from statehouse.types import AgentId

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
AGENT = AgentId("default", "a")
NAMES = st.text(st.sampled_from("aé/\0"), min_size=1, max_size=3)
BOUNDS = st.lists(NAMES, max_size=3).map(tuple)


def allowed(check, *arguments):
    try:
        check(*arguments)
    except PermissionDeniedError:
        return False
    return True


# Callers


@pytest.mark.parametrize(
    ("role", "reads", "writes"),
    [(Role.READ_ONLY, True, False), (Role.READ_WRITE, True, True), (Role.ADMIN, True, True)],
)
def test_a_role_decides_what_may_be_done(role, reads, writes):
    caller = Caller("x", role)
    assert allowed(caller.may_read, AGENT) is reads
    assert allowed(caller.may_write, AGENT) is writes
    assert allowed(caller.may_transact) is writes


def test_every_role_is_in_the_table_above():
    assert len(Role) == 3


def test_anyone_may_do_everything():
    assert ANYONE.role is Role.ADMIN
    ANYONE.may_read(AGENT)
    ANYONE.may_write(AGENT)
    ANYONE.may_transact()


@given(st.sampled_from([*Role]), BOUNDS, BOUNDS, NAMES, NAMES)
def test_an_agent_must_fit_both_bounds_byte_for_byte(role, namespaces, prefixes, namespace, agent_id):
    caller = Caller("x", role, namespaces, prefixes)
    in_namespace = not namespaces or namespace in namespaces
    has_prefix = not prefixes or any(agent_id.encode()[: len(each.encode())] == each.encode() for each in prefixes)
    fits = in_namespace and has_prefix
    agent = AgentId(namespace, agent_id)
    assert allowed(caller.may_read, agent) is fits
    assert allowed(caller.may_write, agent) is (fits and role is not Role.READ_ONLY)
    assert allowed(caller.may_transact) is (role is not Role.READ_ONLY)


@given(BOUNDS, BOUNDS, st.none() | NAMES, st.text(st.sampled_from("aé/\0"), max_size=3), NAMES, NAMES)
def test_a_listing_is_allowed_when_all_that_it_could_show_may_be_read(
    namespaces, prefixes, namespace, prefix, other_namespace, behind
):
    caller = Caller("x", Role.READ_ONLY, namespaces, prefixes)
    if allowed(caller.may_list, namespace, prefix):
        caller.may_read(AgentId(other_namespace if namespace is None else namespace, prefix + behind))
    else:
        assert namespaces or prefixes
        in_namespaces = not namespaces or namespace in namespaces
        assert not (in_namespaces and (not prefixes or prefix.startswith(prefixes)))


def test_a_listing_that_could_show_more_than_the_bounds_is_refused():
    caller = Caller("x", Role.READ_ONLY, ("n",), ("mine/", "ours/"))
    assert allowed(caller.may_list, "n", "mine/")
    assert allowed(caller.may_list, "n", "ours/1")
    for namespace, prefix in (
        ("n", ""),
        ("n", "mine"),
        ("n", "m"),
        ("n", "yours/"),
        ("default", "mine/"),
        (None, "mine/"),
    ):
        assert not allowed(caller.may_list, namespace, prefix)
    assert allowed(Caller("x", Role.READ_ONLY).may_list, None, "")
    assert allowed(Caller("x", Role.READ_ONLY, (), ("mine/",)).may_list, None, "mine/1")
    assert allowed(Caller("x", Role.READ_ONLY, ("n",)).may_list, "n", "")


def test_a_refusal_names_the_token_and_neither_the_agent_nor_the_bounds():
    caller = Caller("00112233aabb", Role.READ_WRITE, ("hidden",), ("also/",))
    with pytest.raises(PermissionDeniedError) as refused:
        caller.may_read(AgentId("other", "somebody"))
    assert "00112233aabb" in refused.value.message
    assert refused.value.details == {"caller": "00112233aabb"}
    assert not {word for word in ("hidden", "also/", "other", "somebody") if word in refused.value.message.split()}
    with pytest.raises(PermissionDeniedError, match="token reader is read-only"):
        Caller("reader", Role.READ_ONLY).may_write(AGENT)


def test_callers_are_compared_by_what_they_may():
    assert Caller("x", Role.ADMIN) == Caller("x", Role.ADMIN)
    assert Caller("x", Role.ADMIN) != Caller("x", Role.ADMIN, ("n",))


# The authenticator


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens"


@pytest.fixture
def make(path):
    """Add a token to the file; its line and its text as the client sends it."""

    def make(role=Role.READ_WRITE, **bounds):
        token, text = new_token(role, now=NOW, **bounds)
        add_token(path, token)
        return token, text.encode()

    return make


def test_a_token_is_taken_for_what_the_file_says(path, make):
    token, text = make(Role.READ_ONLY, namespaces=("n",), agent_prefixes=("p/", "q"), note="not the name")
    _, other = make(Role.ADMIN)
    authenticator = Authenticator(path)
    assert len(authenticator) == 2
    assert authenticator.caller(b"Bearer " + text) == Caller(token.id, Role.READ_ONLY, ("n",), ("p/", "q"))
    assert authenticator.caller(b"Bearer " + other).role is Role.ADMIN


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER   "])
def test_the_scheme_in_any_case(path, make, scheme):
    token, text = make()
    assert Authenticator(path).caller(scheme + text).name == token.id


def test_what_is_no_token_is_refused(path, make):
    _, text = make()
    authenticator = Authenticator(path)
    with pytest.raises(UnauthenticatedError, match="a token is needed"):
        authenticator.caller(None)
    good = b"Bearer " + text
    for bad in (b"", text, b"Bearer", b"Bearer ", b"Bearer" + text, b"Basic " + text, b" " + good, good + b" "):
        with pytest.raises(UnauthenticatedError, match="is not of the form"):
            authenticator.caller(bad)
    for bad in (good + b"\n", good + b"A", good[:-1], good + b"," + good, b"Bearer\t" + text, good.upper()):
        with pytest.raises(UnauthenticatedError, match="is not of the form"):
            authenticator.caller(bad)


def test_an_unknown_id_and_a_wrong_secret_look_and_cost_alike(path, make, monkeypatch):
    token, text = make()
    _, other = make()
    known, unknown = token.id.encode(), b"0" * 12
    swapped = text[:17] + other[17:]  # the one's id with the other's secret
    authenticator = Authenticator(path)
    compared = []
    monkeypatch.setattr(
        access.hmac,
        "compare_digest",
        lambda a, b, real=hmac.compare_digest: compared.append((len(a), len(b))) or real(a, b),
    )
    messages = set()
    for bad in (swapped, text.replace(known, unknown)):
        with pytest.raises(UnauthenticatedError) as refused:
            authenticator.caller(b"Bearer " + bad)
        messages.add((refused.value.message, *refused.value.details))
    assert len(messages) == 1
    assert compared == [(32, 32)] * 2


def test_nobody_is_let_in_even_when_its_digest_is_met(path, make, monkeypatch):
    make()
    authenticator = Authenticator(path)
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: True)
    with pytest.raises(UnauthenticatedError):
        authenticator.caller(b"Bearer sth_" + b"0" * 12 + b"_" + b"A" * 43)


@pytest.fixture(scope="module")
def module_tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("access") / "tokens"
    token, text = new_token(Role.ADMIN, now=NOW)
    add_token(path, token)
    return Authenticator(path), b"Bearer " + text.encode()


@given(position=st.integers(7, 66), character=st.sampled_from(string.printable))
def test_a_token_with_one_other_character_is_another(module_tokens, position, character):
    authenticator, good = module_tokens
    changed = good[:position] + character.encode() + good[position + 1 :]
    assert len(changed) == len(good) == 67
    if changed != good:
        with pytest.raises(UnauthenticatedError):
            authenticator.caller(changed)
    assert authenticator.caller(good)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"Bearer sth_" + rest))
def test_rubbish_is_unauthenticated_and_nothing_else(module_tokens, authorization):
    with pytest.raises(UnauthenticatedError):
        module_tokens[0].caller(authorization)


def test_a_reload_takes_over_what_was_made_and_what_was_revoked(path, make):
    first, first_text = make()
    authenticator = Authenticator(path)
    second, second_text = make()
    with pytest.raises(UnauthenticatedError):
        authenticator.caller(b"Bearer " + second_text)
    revoke_token(path, first.id)
    assert authenticator.caller(b"Bearer " + first_text)
    authenticator.reload()
    assert authenticator.caller(b"Bearer " + second_text).name == second.id
    with pytest.raises(UnauthenticatedError):
        authenticator.caller(b"Bearer " + first_text)


def test_a_reload_that_fails_keeps_what_was_known(path, make):
    token, text = make()
    authenticator = Authenticator(path)
    path.write_text("rubbish\n")
    with pytest.raises(ConfigError, match="line 1"):
        authenticator.reload()
    path.unlink()
    with pytest.raises(ConfigError, match="there is none"):
        authenticator.reload()
    assert authenticator.caller(b"Bearer " + text).name == token.id


def test_without_a_file_there_is_no_authenticator(path):
    with pytest.raises(ConfigError, match="statehousectl token create"):
        Authenticator(path)


def test_when_the_last_token_is_revoked_nobody_comes_in(path, make):
    token, text = make()
    revoke_token(path, token.id)
    authenticator = Authenticator(path)
    assert len(authenticator) == 0
    with pytest.raises(UnauthenticatedError):
        authenticator.caller(b"Bearer " + text)


def test_nothing_shows_a_secret(path, make):
    token, text = make()
    authenticator = Authenticator(path)
    shown = repr(token) + repr(vars(authenticator)) + repr(authenticator.caller(b"Bearer " + text))
    for bad in (text[:-1] + b"!", text[:4] + b"0" * 12 + text[16:]):
        with pytest.raises(UnauthenticatedError) as refused:
            authenticator.caller(b"Bearer " + bad)
        shown += repr(refused.value) + repr(refused.value.details)
    for secret in (text[17:].decode(), token.digest.hex(), repr(token.digest), token.salt.hex(), repr(token.salt)):
        assert secret not in shown
    assert token.id in shown
