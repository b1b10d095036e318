"""A server of one engine on one address: what most tests of the edge want."""

import os

import trio

from statehouse.rpc.server.build_version import build_version
from statehouse.rpc.server.handlers import statehouse_service
from statehouse.rpc.server.listener import open_listener
from statehouse.rpc.server.server import Server, max_request_bytes


async def serve(engine, host, port, *, stop, grace_s, build=None, task_status=trio.TASK_STATUS_IGNORED):
    """Listen and serve until `stop` is set and the connections are gone; tells the address by `task_status`."""
    async with await open_listener(host, port) as listener:
        server = Server(max_request_bytes(engine.limits))
        server.open([statehouse_service(engine, build or build_version(os.environ))])
        await server.run(listener, stop=stop, grace_s=grace_s, task_status=task_status)
