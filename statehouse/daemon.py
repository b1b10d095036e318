"""The daemon: what it starts, in which order, and how it stops.

`run_daemon` is the order. Its blocks nest as the parts need each other, so leaving them in reverse is the
orderly stop, and an exception that leaves one takes down what stands on it:

    signals > data directory's lock > listener > server > engine (store and actors)

The address is taken before the store is opened: a taken port shows at once and not after a long recovery,
and calls that come during recovery are answered UNAVAILABLE (starting) instead of hanging. What is asked of
the engine ends before the engine does: the server is drained while the engine still runs.

The first SIGTERM or SIGINT drains. From then on both have their default action, so that a second one ends
the process at once, whatever the event loop is doing; the log makes that safe.
"""

import os
import signal
import time
from contextlib import nullcontext
from typing import Final

import structlog
import trio
from attrs import define, evolve, field

from statehouse.actors.opening import open_engine
from statehouse.errors import LogPoisonedError
from statehouse.rpc.server.build_version import build_version
from statehouse.rpc.server.handlers import make_handlers
from statehouse.rpc.server.listener import open_listener
from statehouse.rpc.server.server import Server, max_request_bytes
from statehouse.settings import Settings
from statehouse.storage.lock import hold_data_directory

__all__ = ["run_daemon"]

SERVING: Final = "ok"

log = structlog.stdlib.get_logger(__name__)


@define
class _Life:
    """What a signal must know of the run."""

    stop: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    """Around everything; cancelled when the stop comes before there is anything to drain."""
    ready: bool = False


async def run_daemon(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; returns when everything is closed. Runs in the main thread.

    Raises DataDirectoryError, DataDirectoryHeldError and AddressError before the store is opened;
    StoreDamagedError and StorageError when it cannot be; LogPoisonedError at the end, when the log took no more
    commits at some time while the daemon served; anything else is a bug.
    """
    life = _Life()
    hold = nullcontext(settings.data_dir) if settings.use_memory else hold_data_directory(settings.data_dir)
    async with trio.open_nursery() as signals:
        await signals.start(_stop_on_signals, life, settings.shutdown_grace_s)
        with life.scope, hold as data_dir:
            settings = evolve(settings, data_dir=data_dir)
            async with (
                await open_listener(settings.listen_addr.host, settings.listen_addr.port) as listener,
                trio.open_nursery() as edge,
            ):
                server = Server(max_request_bytes(settings.limits))
                drained = trio.Event()
                address = await edge.start(_serve, server, listener, life.stop, settings.shutdown_grace_s, drained)
                build = build_version(os.environ)
                log.info("starting", version=build.version, git_sha=build.git_sha, data_dir=_shown_place(settings))
                if settings.use_memory:
                    log.warning("nothing survives this daemon: use_memory is on", setting="use_memory")
                started_s = time.monotonic()
                async with open_engine(settings) as engine:
                    server.open(make_handlers(engine, build))
                    life.ready = True
                    _say_ready(settings, address, recovery_s=time.monotonic() - started_s, head_ts=engine.head_ts)
                    await drained.wait()
                    health = engine.health()
            if health != SERVING:
                raise LogPoisonedError(f"stopped as asked; the store had become {health} (the log has the reason)")
        signals.cancel_scope.cancel()
    log.info("stopped")


async def _serve(
    server: Server,
    listener: trio.SocketListener,
    stop: trio.Event,
    grace_s: float,
    drained: trio.Event,
    task_status: trio.TaskStatus[str],
) -> None:
    await server.run(listener, stop=stop, grace_s=grace_s, task_status=task_status)
    drained.set()


async def _stop_on_signals(life: _Life, grace_s: float, task_status: trio.TaskStatus[None]) -> None:
    """At the first signal, drain what serves, or give up what starts."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        async for number in received:
            for either in (signal.SIGTERM, signal.SIGINT):
                signal.signal(either, signal.SIG_DFL)
            log.info("stopping", signal=signal.Signals(number).name, grace_s=grace_s)
            life.stop.set()
            if not life.ready:
                life.scope.cancel()
            await trio.sleep_forever()  # inside the block: leaving it would bring Python's handlers back


def _say_ready(settings: Settings, address: str, *, recovery_s: float, head_ts: int) -> None:
    log.info(
        "ready",
        address=address,
        port=int(address.rpartition(":")[2]),
        data_dir=_shown_place(settings),
        recovery_s=round(recovery_s, 3),
        head_ts=head_ts,
        pid=os.getpid(),
    )


def _shown_place(settings: Settings) -> str:
    return "in memory" if settings.use_memory else str(settings.data_dir)
