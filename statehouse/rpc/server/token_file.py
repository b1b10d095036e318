"""The token file: who may come in, one token a line, changed by `statehousectl token` and read by the daemon.

A change is written beside the file, synced, and renamed over it, so a reader and a crash find the old file or the
new one. Who changes the file holds `<file>.lock` with flock, so two changes at once both happen. The file is for its
owner alone: it is made with mode 0600, and refused when others may read or write it.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from statehouse.errors import ConfigError, NotFoundError
from statehouse.rpc.given import without_secrets
from statehouse.rpc.server.token_line import Token, token_of_line, token_to_line

__all__ = ["add_token", "read_tokens", "revoke_token"]

TOKENS_AT_MOST: Final = 10_000
LINE_BYTES: Final = 16 * 1024
"""The longest line, its line break included."""

LOCK_WAIT_S: Final = 10.0
"""How long a change waits for another one; a change takes milliseconds."""
LOCK_POLL_S: Final = 0.01

_OTHERS: Final = 0o077
_MODE: Final = 0o600


def read_tokens(path: Path) -> dict[str, Token]:
    """The tokens of a file by id, in its order.

    Raises ConfigError, which names the file, the line where there is one, and what is to be done; never what
    stands in the line. Reads the file, so it blocks.
    """
    tokens: dict[str, Token] = {}
    try:
        with open(path, "rb", opener=_open_private) as file:
            number = 0
            while line := file.readline(LINE_BYTES + 1):
                number += 1
                where = f"{_called(path)}, line {number}"
                if len(line) > LINE_BYTES:
                    raise ConfigError(f"{where}: longer than {LINE_BYTES} bytes")
                if not line.strip():
                    continue
                try:
                    token = token_of_line(line)
                except ValueError as error:
                    raise ConfigError(f"{where}: {error}") from None
                if token.id in tokens:
                    raise ConfigError(f"{where}: the id {token.id} stands there twice")
                if len(tokens) == TOKENS_AT_MOST:
                    raise ConfigError(f"{where}: more than {TOKENS_AT_MOST} tokens")
                tokens[token.id] = token
    except FileNotFoundError:
        made_by = f"statehousectl token create --file {without_secrets(str(path))}"
        raise ConfigError(f"{_called(path)}: there is none; '{made_by}' makes it") from None
    except OSError as error:
        raise _unusable(path, error) from error
    return tokens


def _open_private(path: str, flags: int) -> int:
    """Open for reading what is a file, and its owner's alone; a pipe is not waited for."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) and not mode & _OTHERS:
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{_called(path)}: not a file")
    raise ConfigError(
        f"{_called(path)}: others than its owner may use it (mode {stat.S_IMODE(mode):04o}): "
        f"chmod 600 {without_secrets(str(path))}"
    )


def add_token(path: Path, token: Token) -> None:
    """Add a token; a file that is not there is made. ConfigError when the file cannot be read or written."""
    with _changing(path) as target:
        tokens = read_tokens(target) if target.exists() else {}
        if token.id in tokens:  # 48 random bits: not by chance
            raise ConfigError(f"{_called(path)}: there is a token {token.id} already")
        if len(tokens) >= TOKENS_AT_MOST:
            raise ConfigError(f"{_called(path)}: it holds {TOKENS_AT_MOST} tokens, the most there may be")
        _write(target, {**tokens, token.id: token})


def revoke_token(path: Path, token_id: str) -> Token:
    """Take a token out of the file. NotFoundError when it has none of this id, ConfigError as for `add_token`."""
    read_tokens(path)  # a file that cannot be used is refused before a lock is left beside it
    with _changing(path) as target:
        tokens = read_tokens(target)
        revoked = tokens.pop(token_id, None)
        if revoked is None:
            raise NotFoundError(f"there is no token {token_id} in {without_secrets(str(path))}")
        _write(target, tokens)
        return revoked


@contextmanager
def _changing(path: Path) -> Iterator[Path]:
    """Hold the file's lock; the path without symbolic links, so that none is replaced.

    Waits for it, and raises ConfigError after LOCK_WAIT_S.
    """
    try:
        target = Path(os.path.realpath(path))
        lock = os.open(f"{target}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            _take(lock, path)
            yield target
        finally:
            os.close(lock)
    except OSError as error:
        raise _unusable(path, error) from error


def _take(lock: int, path: Path) -> None:
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while True:  # flock itself would wait for ever, and who stopped in the middle of a change may never go on
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                held = f"another process has held its lock for {LOCK_WAIT_S:g} s, and may be changing it"
                raise ConfigError(f"{_called(path)}: {held}; nothing was changed") from None
        time.sleep(LOCK_POLL_S)


def _write(target: Path, tokens: Mapping[str, Token]) -> None:
    """Replace the file; its owner stays who it was, or root's change would shut the daemon out."""
    lines = []
    for token in tokens.values():
        line = token_to_line(token)
        if len(line) > LINE_BYTES:
            raise ConfigError(f"token {token.id} takes {len(line)} bytes; the limit is {LINE_BYTES}: fewer names")
        lines.append(line)
    fresh = target.with_name(f"{target.name}.new")
    fresh.unlink(missing_ok=True)  # a crash's; whoever else writes one would hold the lock
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with suppress(FileNotFoundError):
                owner = target.stat()
                if owner.st_uid != os.geteuid():
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.writelines(lines)
            file.flush()
            os.fsync(descriptor)
        fresh.rename(target)
    finally:
        fresh.unlink(missing_ok=True)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _called(path: Path | str) -> str:
    # Whoever mistakes --file for the token itself must not find it in a message, and in the daemon's log.
    return f"token file {without_secrets(str(path))}"


def _unusable(path: Path, error: OSError) -> ConfigError:
    reason = os.strerror(error.errno) if error.errno is not None else str(error)
    hint = ": its owner's tokens are its owner's to change" if error.errno == errno.EPERM else ""
    return ConfigError(f"{_called(path)}: {reason}{hint}")
