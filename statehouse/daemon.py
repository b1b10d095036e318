"""The daemon: what it starts, in which order, and how it stops.

`run_daemon` is the order. Its blocks nest as the parts need each other, so leaving them in reverse is the
orderly stop, and an exception that leaves one takes down what stands on it (certificates and tokens are read
between the first two, when nothing is opened yet):

    signals > data directory's lock > listener > server > engine (store and actors)

The address is taken before the store is opened: a taken port shows at once and not after a long recovery,
and calls that come during recovery are answered UNAVAILABLE (starting) instead of hanging. What is asked of
the engine ends before the engine does: the server is drained while the engine still runs.

The first SIGTERM or SIGINT drains. From then on both have their default action, so that a second one ends
the process at once, whatever the event loop is doing; the log makes that safe. SIGHUP reads certificates and
tokens again, SIGUSR1 logs what the edge holds; neither ever ends the daemon.
"""

import math
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Final, Protocol

import structlog
import trio
from attrs import define, evolve, field

from statehouse.actors.opening import open_engine
from statehouse.errors import ConfigError, LogPoisonedError
from statehouse.rpc.server.access import Authenticator
from statehouse.rpc.server.build_version import build_version
from statehouse.rpc.server.descriptors import connections_that_fit
from statehouse.rpc.server.handlers import statehouse_service
from statehouse.rpc.server.health import Phase, Serving, health_service
from statehouse.rpc.server.lifetime import LifetimeLimits
from statehouse.rpc.server.listener import is_beyond_loopback, open_listener, open_unix_listener
from statehouse.rpc.server.reflection import reflection_services
from statehouse.rpc.server.server import Server, max_request_bytes
from statehouse.rpc.server.tls import ServerTls
from statehouse.setting_forms import UnixAddress
from statehouse.settings import Settings
from statehouse.storage.lock import hold_data_directory

__all__ = ["run_daemon"]

SERVING: Final = "ok"

log = structlog.stdlib.get_logger(__name__)


class _Reloadable(Protocol):
    def reload(self) -> None: ...


@define
class _Life:
    """What a signal must know of the run."""

    stop: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    """Around everything; cancelled when the stop comes before there is anything to drain."""
    ready: bool = False
    on_hangup: dict[str, _Reloadable] = field(factory=dict)
    """What SIGHUP reads again, by what the log calls it."""
    serving: Serving = field(factory=Serving)
    """What the health service tells."""
    census: Callable[[], Mapping[str, object]] = dict
    """What SIGUSR1 logs."""
    tokens_changed: Callable[[], None] = lambda: None
    """Called when the tokens were read again."""

    async def reload(self) -> None:
        if not self.on_hangup:
            log.info("nothing to reload: neither certificates nor tokens are set")
        for what, held in self.on_hangup.items():
            if await _reload(what, held) and isinstance(held, Authenticator):
                self.tokens_changed()

    async def log_census(self) -> None:
        log.info("edge", **self.census())


async def run_daemon(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; returns when everything is closed. Runs in the main thread.

    Raises ConfigError, for certificates, tokens and too few descriptors, before anything is opened; DataDirectoryError,
    DataDirectoryHeldError and AddressError before the store is opened; StoreDamagedError and StorageError when it
    cannot be; LogPoisonedError at the end, when the log took no more commits at some time while the daemon served;
    anything else is a bug.
    """
    life = _Life()
    hold = nullcontext(settings.data_dir) if settings.use_memory else hold_data_directory(settings.data_dir)
    async with trio.open_nursery() as signals:
        await signals.start(_at_each, signal.SIGHUP, life.reload)
        await signals.start(_at_each, signal.SIGUSR1, life.log_census)
        await signals.start(_stop_on_signals, life, settings.shutdown_grace_s)
        tls, authenticator = _who_may_come_in(settings, life)
        connections = connections_that_fit(settings.max_connections)
        with life.scope, hold as data_dir:
            settings = evolve(settings, data_dir=data_dir)
            async with (
                _listening(settings) as listener,
                trio.open_nursery() as edge,
            ):
                server = Server(
                    max_request_bytes(settings.limits),
                    tls=tls,
                    authenticator=authenticator,
                    lifetime=_lifetime_limits(settings),
                    max_connections=connections,
                    hosted=[health_service(life.serving), *reflection_services()],
                )
                life.census, life.tokens_changed = server.census, server.judge_callers_anew
                drained = trio.Event()
                address = await edge.start(_serve, server, listener, life.stop, settings.shutdown_grace_s, drained)
                build = build_version(os.environ)
                log.info("starting", version=build.version, git_sha=build.git_sha, data_dir=_shown_place(settings))
                if settings.use_memory:
                    log.warning("nothing survives this daemon: use_memory is on", setting="use_memory")
                if connections < settings.max_connections:
                    log.warning("the limit on open files leaves room for fewer connections", connections=connections)
                _say_who_may_come_in(settings, listener, tls, authenticator)
                started_s = time.monotonic()
                read_only = partial(life.serving.become, Phase.READ_ONLY)
                async with open_engine(settings, became_read_only=read_only) as engine:
                    server.open([statehouse_service(engine, build)])
                    life.ready = True
                    life.serving.become(Phase.SERVING)
                    _say_ready(settings, address, recovery_s=time.monotonic() - started_s, head_ts=engine.head_ts)
                    await drained.wait()
                    health = engine.health()
            if health != SERVING:
                raise LogPoisonedError(f"stopped as asked; the store had become {health} (the log has the reason)")
        signals.cancel_scope.cancel()
    log.info("stopped")


def _who_may_come_in(settings: Settings, life: _Life) -> tuple[ServerTls | None, Authenticator | None]:
    """Read certificates and tokens, and have SIGHUP read them again. Blocks on the files; ConfigError."""
    tls = None
    if settings.tls_cert is not None and settings.tls_key is not None:  # `load` refuses one without the other
        tls = life.on_hangup["certificates"] = ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    authenticator = None
    if settings.token_file is not None:
        authenticator = life.on_hangup["tokens"] = Authenticator(settings.token_file)
    return tls, authenticator


def _lifetime_limits(settings: Settings) -> LifetimeLimits:
    return LifetimeLimits(idle_s=settings.connection_idle_s or math.inf, age_s=settings.connection_age_s or math.inf)


@asynccontextmanager
async def _listening(settings: Settings) -> AsyncIterator[trio.SocketListener]:
    address = settings.listen_addr
    if isinstance(address, UnixAddress):
        async with open_unix_listener(address.path) as listener:
            yield listener
    else:
        allowed = settings.insecure or settings.token_file is not None or settings.tls_client_ca is not None
        async with await open_listener(address.host, address.port, beyond_loopback=allowed) as listener:
            yield listener


def _say_who_may_come_in(
    settings: Settings, listener: trio.SocketListener, tls: ServerTls | None, authenticator: Authenticator | None
) -> None:
    if tls is not None:
        _say_tls(tls)
    if authenticator is not None:
        _say_tokens(authenticator)
    if not is_beyond_loopback(listener):
        return
    if authenticator is None and settings.tls_client_ca is None:
        log.warning("whoever reaches the address may read and change everything: insecure is on", setting="insecure")
    elif tls is None:
        log.warning("data and tokens cross the network unencrypted: tls_cert is not set", setting="tls_cert")


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
            life.serving.become(Phase.STOPPING)
            life.stop.set()
            if not life.ready:
                life.scope.cancel()
            await trio.sleep_forever()  # inside the block: leaving it would bring Python's handlers back


async def _at_each(
    number: signal.Signals, act: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[None]
) -> None:
    """Act at each of these signals; those that come meanwhile count as one. A bug in it ends nothing."""
    with trio.open_signal_receiver(number) as received:
        task_status.started()
        async for _ in received:
            try:
                await act()
            except Exception:
                log.exception("a signal was not obeyed", signal=number.name)


async def _reload(what: str, held: _Reloadable) -> bool:
    """Whether it was read."""
    try:
        # In a thread: the files may be on a disk that does not answer, and calls go on meanwhile.
        await trio.to_thread.run_sync(held.reload, abandon_on_cancel=True)
    except ConfigError as error:
        log.error("not reloaded: those in use stay in use", what=what, reason=error.message)  # noqa: TRY400 - no bug
        return False
    log.info("reloaded", what=what)
    if isinstance(held, Authenticator):
        _say_tokens(held)
    elif isinstance(held, ServerTls):
        _say_tls(held)
    return True


def _say_tokens(authenticator: Authenticator) -> None:
    if len(authenticator):
        log.info("calls need a token", known=len(authenticator))
    else:
        log.warning("calls need a token, and none is known: nobody can call", setting="token_file")


def _say_tls(tls: ServerTls) -> None:
    log.info("TLS is on", expires=tls.expires, client_certificates=tls.asks_for_certificates)


def _say_ready(settings: Settings, address: str, *, recovery_s: float, head_ts: int) -> None:
    log.info(
        "ready",
        address=address,
        port=0 if isinstance(settings.listen_addr, UnixAddress) else int(address.rpartition(":")[2]),
        data_dir=_shown_place(settings),
        recovery_s=round(recovery_s, 3),
        head_ts=head_ts,
        pid=os.getpid(),
    )


def _shown_place(settings: Settings) -> str:
    return "in memory" if settings.use_memory else str(settings.data_dir)
