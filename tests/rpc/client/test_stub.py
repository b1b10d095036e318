"""The stub, and what the client's half is made of."""

import ast
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import statehouse
from statehouse.rpc.client.credentials import Target
from statehouse.rpc.client.stub import Stub
from statehouse.rpc.client.transport import Transport
from statehouse.rpc.contract import METHODS
from statehouse.v1 import statehouse_pb2 as pb

NOT_OURS = {"h2", "hpack", "hyperframe", "purerpc"}


def test_the_types_of_the_calls_are_the_contract_s():
    hints = get_type_hints(Stub)
    assert hints.keys() == METHODS.keys()
    for name, method in METHODS.items():
        types = get_args(hints[name])
        assert types == (
            (method.request_type,) if method.server_streaming else (method.request_type, method.response_type)
        )


def test_calls_by_their_names(run, memory_server):
    host, _, port = memory_server.url.rpartition(":")

    async def main():
        async with Transport(Target(host, int(port))) as transport:
            stub = Stub(transport)
            txn_id = (await stub.BeginTransaction(pb.BeginTransactionRequest())).txn_id
            await stub.Write(pb.WriteRequest(txn_id=txn_id, agent_id="a", key="k", value={}))
            assert (await stub.Commit(pb.CommitRequest(txn_id=txn_id), timeout_s=5)).commit_ts == 1
            events = [event.txn_id async for event in stub.Replay(pb.ReplayRequest(agent_id="a"))]
            assert events == [txn_id]
            with pytest.raises(ValueError, match="timeout_s"):
                stub.Replay(pb.ReplayRequest(agent_id="a"), timeout_s=-1)

    run(main)


def test_the_framing_is_ours():
    folders = [Path(statehouse.__file__).parent / name for name in ("client", "rpc/client", "rpc/http2")]
    files = [file for folder in folders for file in folder.glob("*.py")]
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & NOT_OURS, file
