"""Servers for the clients' tests: one that keeps the contract in memory, and those that do not."""

import subprocess
import sys
from contextlib import ExitStack

import anyio
import pytest
from client import memory_service, scripted_server


async def cancelled_once(is_so, call):
    """Cancel a call once that is so: after a time, a busy machine may not even have sent its request."""

    async def cancel():
        while not is_so():  # noqa: ASYNC110 - it comes about in other threads, which have no event for it
            await anyio.sleep(0.005)
        calling.cancel_scope.cancel()

    async with anyio.create_task_group() as calling:
        calling.start_soon(cancel)
        await call
        raise AssertionError("the call ended by itself")


@pytest.fixture
def memory_server():
    """The service in memory, served by grpcio; `url` says where."""
    service = memory_service.MemoryService()
    server, port = memory_service.serve(service)
    service.url = f"127.0.0.1:{port}"
    yield service
    service.released.set()
    server.stop(grace=None).wait()


@pytest.fixture
def mortal_server():
    """Starts the service in memory as a process, which a test may kill; the process and its url."""
    with ExitStack() as stack:

        def start():
            command = [sys.executable, memory_service.__file__]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            return process, f"127.0.0.1:{int(process.stdout.readline())}"

        yield start


@pytest.fixture
def scripted():
    """Starts a `ScriptedServer`."""
    with ExitStack() as stack:

        def start(script, **arguments):
            server = scripted_server.ScriptedServer(script, **arguments)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def raw_server():
    """Starts a `RawServer`."""
    with ExitStack() as stack:

        def start(*arguments, **named):
            server = scripted_server.RawServer(*arguments, **named)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(params=["trio", "asyncio"])
def run(request):
    """Runs an async function under each of the two event loops, within a bounded time."""

    def run(function):
        async def bounded():
            with anyio.fail_after(60):
                return await function()

        return anyio.run(bounded, backend=request.param)

    return run
