"""The token file: what is written comes back, what is wrong is refused with a clear line, and changes are safe."""

import datetime as dt
import errno
import fcntl
import hashlib
import json
import os
import re
import threading
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.errors import ConfigError, NotFoundError
from statehouse.rpc.server import token_file
from statehouse.rpc.server.token_file import LINE_BYTES, add_token, read_tokens, revoke_token
from statehouse.rpc.server.token_line import TOKEN, Role, Token, new_token, token_of_line, token_to_line

NOW = dt.datetime(2026, 1, 2, 4, 4, 5, 999_999, tzinfo=dt.timezone(dt.timedelta(hours=1)))
PAGE = Path(__file__).resolve().parents[3] / "docs" / "formats.md"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.lists(TEXT.filter(bool), max_size=4).map(tuple)
TOKENS = st.builds(
    Token,
    id=st.from_regex(r"[0-9a-f]{12}", fullmatch=True),
    role=st.sampled_from([*Role]),
    namespaces=NAMES,
    agent_prefixes=NAMES,
    note=TEXT,
    created=st.just("2026-01-02T03:04:05Z"),
    salt=st.binary(min_size=16, max_size=16),
    digest=st.binary(min_size=32, max_size=32),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens"


def a_token(**fields):
    return attrs.evolve(new_token(Role.READ_ONLY, now=NOW)[0], **fields)


def private(path, content):
    path.touch(0o600)
    path.write_bytes(content)


# Tokens and lines


def test_a_new_token():
    token, text = new_token(Role.ADMIN, namespaces=("n",), agent_prefixes=("p",), note="why", now=NOW)
    token_id, secret = re.fullmatch(TOKEN, text.encode()).groups()
    assert (token.id.encode(), token.role, token.created) == (token_id, Role.ADMIN, "2026-01-02T03:04:05Z")
    assert (token.namespaces, token.agent_prefixes, token.note) == (("n",), ("p",), "why")
    assert token.digest == hashlib.sha256(token.salt + secret).digest()
    again, _ = new_token(Role.ADMIN, now=NOW)
    assert again.id != token.id
    assert again.salt != token.salt
    assert secret not in token_to_line(token)


@given(TOKENS)
def test_a_line_gives_its_token_back(token):
    line = token_to_line(token)
    assert line.index(b"\n") == len(line) - 1
    assert token_of_line(line) == token


def test_the_example_of_the_formats_page():
    section = PAGE.read_text().partition("## The token file\n")[2]
    line = section.partition("```json\n")[2].partition("```")[0].encode()
    token_id, secret = re.search(TOKEN, section.encode()).groups()
    token = token_of_line(line)
    assert token == Token(
        id=token_id.decode(),
        role=Role.READ_WRITE,
        namespaces=("team-a",),
        agent_prefixes=("planner/",),
        note="the planner",
        created="2026-01-02T03:04:05Z",
        salt=bytes(range(16)),
        digest=hashlib.sha256(bytes(range(16)) + secret).digest(),
    )
    assert token_to_line(token) == line


GOOD = json.loads(token_to_line(a_token()))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"rubbish", "not one JSON object"),
        (b"\xff", "not one JSON object"),
        (b"[" * 10_000, "not one JSON object"),
        (b"9" * 10_000, "not one JSON object"),
        (b"[]", "not one JSON object"),
        (b"{} {}", "not one JSON object"),
        (b"{}", "agent_prefixes, created, hash, id, namespaces, note, role, salt missing"),
        (GOOD | {"expires": "2026-01-01T00:00:00Z"}, "1 unknown members; known are id, role,"),
        (json.dumps(GOOD).replace("{", '{"id":"000000000000",').encode(), "a member stands there twice"),
        (GOOD | {"id": "0123456789AB"}, "id is not 12 hex digits"),
        (GOOD | {"id": "0123456789ab\n"}, "id is not 12 hex digits"),
        (GOOD | {"id": 12}, "id is not 12 hex digits"),
        (GOOD | {"role": "root"}, "role is not one of read-only, read-write, admin"),
        (GOOD | {"role": ["admin"]}, "role is not one of"),
        (GOOD | {"namespaces": "n"}, "namespaces is not a list of names that are not empty"),
        (GOOD | {"namespaces": [""]}, "namespaces is not a list"),
        (GOOD | {"namespaces": ["\ud800"]}, "namespaces is not a list"),
        (GOOD | {"namespaces": None}, "namespaces is not a list"),
        (GOOD | {"agent_prefixes": ["ok", 1]}, "agent_prefixes is not a list of prefixes that are not empty"),
        (GOOD | {"note": None}, "note is not text"),
        (GOOD | {"created": "yesterday"}, "created is not a time with its zone"),
        (GOOD | {"created": "2026-01-02T03:04:05"}, "created is not a time with its zone"),
        (GOOD | {"salt": "00"}, "salt is not 32 hex digits"),
        (GOOD | {"hash": "g" * 64}, "hash is not 64 hex digits"),
    ],
)
def test_a_line_that_is_wrong_is_refused_by_its_number_and_not_shown(path, line, message):
    content = line if isinstance(line, bytes) else json.dumps(line).encode()
    private(path, token_to_line(a_token()) + b"\n" + content + b"\n")
    with pytest.raises(ConfigError) as refused:
        read_tokens(path)
    assert refused.value.message.startswith(f"token file {path}, line 3: {message}")
    assert GOOD["hash"] not in refused.value.message


@given(st.binary(max_size=200))
def test_random_bytes_are_no_token(line):
    with pytest.raises(ValueError, match=r"not one JSON object|missing"):
        token_of_line(line)


@given(
    st.fixed_dictionaries({name: st.just(value) | st.none() | st.lists(TEXT) | TEXT for name, value in GOOD.items()})
)
def test_a_line_is_taken_as_it_is_or_refused(members):
    try:
        token = token_of_line(json.dumps(members).encode())
    except ValueError:
        return
    assert json.loads(token_to_line(token)) == members


# Reading


def test_blank_lines_and_a_missing_line_break_are_harmless(path):
    tokens = [a_token(), a_token()]
    private(path, b"\n" + token_to_line(tokens[0]) + b"  \r\n" + token_to_line(tokens[1]).rstrip())
    assert [*read_tokens(path).values()] == tokens


def test_an_id_stands_for_one_token(path):
    token = a_token()
    private(path, token_to_line(token) * 2)
    with pytest.raises(ConfigError, match=f"line 2: the id {token.id} stands there twice"):
        read_tokens(path)
    with pytest.raises(ConfigError, match="twice"):
        add_token(path, a_token())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o601])
def test_a_file_that_others_may_use_is_refused(path, mode):
    add_token(path, a_token())
    path.chmod(mode)
    for use in (lambda: read_tokens(path), lambda: add_token(path, a_token())):
        with pytest.raises(ConfigError, match=f"mode {mode:04o}.: chmod 600 {re.escape(str(path))}"):
            use()
    path.chmod(0o400)
    assert len(read_tokens(path)) == 1


def test_what_is_no_file_is_refused_and_not_waited_for(path, tmp_path):
    os.mkfifo(path, 0o600)
    for no_file in (path, tmp_path):
        with pytest.raises(ConfigError, match=f"{re.escape(str(no_file))}: not a file"):
            read_tokens(no_file)


def test_a_line_has_a_limit(path):
    most = a_token(note="")
    room = LINE_BYTES - len(token_to_line(most))
    add_token(path, attrs.evolve(most, note="x" * room))
    assert len(read_tokens(path)) == 1
    with pytest.raises(ConfigError, match="takes 16385 bytes; the limit is 16384"):
        add_token(path, a_token(note="x" * (room + 1)))
    private(path, b"x" * LINE_BYTES + b"\n")
    with pytest.raises(ConfigError, match="line 1: longer than 16384 bytes"):
        read_tokens(path)


def test_the_number_of_tokens_has_a_limit(path, monkeypatch):
    monkeypatch.setattr(token_file, "TOKENS_AT_MOST", 3)
    for _ in range(3):
        add_token(path, a_token())
    with pytest.raises(ConfigError, match="it holds 3 tokens"):
        add_token(path, a_token())
    assert len(read_tokens(path)) == 3
    private(path, path.read_bytes() + token_to_line(a_token()))
    with pytest.raises(ConfigError, match="line 4: more than 3 tokens"):
        read_tokens(path)


# Changing


def test_adding_and_revoking(path):
    tokens = [a_token(), a_token(namespaces=("ü",)), a_token()]
    for token in tokens:
        add_token(path, token)
    assert [*read_tokens(path).values()] == tokens
    assert revoke_token(path, tokens[1].id) == tokens[1]
    assert [*read_tokens(path)] == [tokens[0].id, tokens[2].id]
    with pytest.raises(NotFoundError, match=f"there is no token {tokens[1].id} in {re.escape(str(path))}"):
        revoke_token(path, tokens[1].id)
    with pytest.raises(ConfigError, match="there is a token"):
        add_token(path, tokens[0])
    for token in (tokens[0], tokens[2]):
        revoke_token(path, token.id)
    assert read_tokens(path) == {}


def test_what_is_made_is_for_its_owner_only(path):
    before = os.umask(0)
    try:
        add_token(path, a_token())
    finally:
        os.umask(before)
    assert {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {
        "tokens": 0o600,
        "tokens.lock": 0o600,
    }


def test_a_change_that_is_refused_leaves_nothing_behind(path, tmp_path):
    for missing in (path, tmp_path / "nowhere" / "tokens"):
        with pytest.raises(ConfigError):
            revoke_token(missing, "0" * 12)
    with pytest.raises(ConfigError, match="No such file or directory"):
        add_token(tmp_path / "nowhere" / "tokens", a_token())
    assert [*tmp_path.iterdir()] == []


def test_changes_at_once_all_happen(path):
    """Each thread opens the lock anew, as another process would."""
    doomed = [a_token() for _ in range(4)]
    for token in doomed:
        add_token(path, token)
    kept = [[a_token() for _ in range(5)] for _ in doomed]
    start = threading.Barrier(len(doomed))

    def change(revoked, added):
        start.wait()
        revoke_token(path, revoked.id)
        for token in added:
            add_token(path, token)

    threads = [threading.Thread(target=change, args=each) for each in zip(doomed, kept, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*read_tokens(path)} == {token.id for tokens in kept for token in tokens}


def test_a_lock_that_another_process_holds_is_not_waited_for_without_end(path, monkeypatch):
    monkeypatch.setattr(token_file, "LOCK_WAIT_S", 0.0)
    add_token(path, a_token(id="0" * 12))
    lock = os.open(f"{path}.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    said = f"token file {re.escape(str(path))}: another process has held its lock for 0 s.*nothing was changed"
    with pytest.raises(ConfigError, match=said):
        add_token(path, a_token())
    with pytest.raises(ConfigError, match=said):
        revoke_token(path, "0" * 12)
    os.close(lock)
    revoke_token(path, "0" * 12)
    assert read_tokens(path) == {}


def test_a_token_in_the_place_of_the_file_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, token = new_token(Role.READ_ONLY, now=NOW)
    with pytest.raises(ConfigError, match=r"token file sth_\.\.\.: there is none; 'statehousectl") as caught:
        read_tokens(Path(token))
    assert token[17:] not in str(caught.value)
    Path(token).mkdir()
    for attempt in (lambda: read_tokens(Path(token)), lambda: add_token(Path(token), a_token())):
        with pytest.raises(ConfigError, match=r"token file .*sth_") as caught:
            attempt()
        assert token[17:] not in str(caught.value)


def test_a_change_is_synced_before_it_takes_the_place_of_the_old(path, monkeypatch):
    steps = []
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink()}"))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda old, new: steps.append(f"rename {old}") or rename(old, new))
    add_token(path, a_token())
    assert steps == [f"sync {path}.new", f"rename {path}.new", f"sync {path.parent}"]


def test_a_change_that_fails_leaves_the_old_file(path, monkeypatch):
    add_token(path, a_token())
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match=f"token file {re.escape(str(path))}: No space left on device"):
        add_token(path, a_token())
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.iterdir()} == {"tokens", "tokens.lock"}


def test_what_a_crash_left_is_written_over(path):
    add_token(path, a_token())
    left = path.with_name("tokens.new")
    left.write_bytes(b"half a line")
    left.chmod(0o644)
    add_token(path, a_token())
    assert len(read_tokens(path)) == 2
    assert not left.exists()


def test_a_link_stays_a_link(path, tmp_path):
    (tmp_path / "really").mkdir()
    path.symlink_to(tmp_path / "really" / "tokens")
    add_token(path, a_token())
    add_token(path, a_token())
    assert path.is_symlink()
    assert len(read_tokens(tmp_path / "really" / "tokens")) == 2
    assert {each.name for each in tmp_path.iterdir()} == {"tokens", "really"}


def test_the_file_keeps_its_owner(path, monkeypatch):
    """Root's change must not shut the daemon out; whoever is not root and not the owner cannot make one."""
    add_token(path, a_token())
    owner = path.stat()
    monkeypatch.setattr(os, "geteuid", lambda: owner.st_uid + 1)
    given_to = []
    monkeypatch.setattr(os, "fchown", lambda fd, uid, gid: given_to.append((uid, gid)))
    add_token(path, a_token())
    assert given_to == [(owner.st_uid, owner.st_gid)]

    def refuse(descriptor, uid, gid):
        raise PermissionError(errno.EPERM, "not root")

    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(ConfigError, match="Operation not permitted: its owner's tokens"):
        add_token(path, a_token())
    assert len(read_tokens(path)) == 2
