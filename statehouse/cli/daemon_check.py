"""`statehoused --check`: a store at rest is verified, and nothing in it is changed."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from types import FrameType

from statehouse.cli.exit_codes import DaemonExit
from statehouse.cli.verify_output import VerifyOutput
from statehouse.findings import Head
from statehouse.settings import Settings
from statehouse.storage.offline import check_store

__all__ = ["run_check"]


def run_check(settings: Settings, heads: Iterable[Head], *, as_json: bool) -> DaemonExit:
    """Check the store that the settings name. Findings and the verdict go to stdout. Raises what `check_store` does."""
    output = VerifyOutput(as_json=as_json, progress=None)
    store = check_store(settings.data_dir, heads, fsync=settings.fsync_on_commit)
    with _ended_by(signal.SIGTERM, signal.SIGHUP), closing(store) as events:
        for event in events:
            if event is not None:
                output.show(event)
    sound = output.verdict is not None and output.verdict.sound
    return DaemonExit.STOPPED if sound else DaemonExit.STORE_DAMAGED


@contextmanager
def _ended_by(*signals: signal.Signals) -> Iterator[None]:
    """Leave the block at a signal, which would otherwise leave the copy of the view behind."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
