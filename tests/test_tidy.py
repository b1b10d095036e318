"""The source keeps to its drawing; and on made-up trees, each rule of tools/tidy.py can fail."""

from pathlib import Path

import pytest
import tidy

ROOT = Path(__file__).resolve().parent.parent


def test_the_project_is_tidy():
    assert [str(breach) for breach in tidy.breaches(ROOT)] == []


def test_every_long_module_is_there_and_has_a_reason():
    assert all(reason and (ROOT / file).exists() for file, reason in tidy.LONG_MODULES.items())


@pytest.fixture
def breaches_of(tmp_path):
    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return [str(breach) for breach in tidy.breaches(tmp_path)]

    return write


DOC = '"""A module."""\n'


def test_a_tidy_tree_has_no_breach(breaches_of):
    assert (
        breaches_of(
            {
                "statehouse/__init__.py": "",
                "statehouse/errors.py": DOC,
                "statehouse/storage/__init__.py": DOC + "from statehouse import errors\n",
                "statehouse/storage/leveldb_view.py": DOC
                + "import plyvel\nfrom statehouse.errors import StorageError\n",
                "statehouse/storage/v1/log_pb2.py": "import plyvel, asyncio\n",
                "statehouse/actors/engine.py": DOC + "import trio\nfrom statehouse.storage import leveldb_view\n",
                "statehouse/rpc/server/server.py": DOC
                + "import purerpc\nfrom statehouse.actors.engine import Engine\n",
                "statehouse/rpc/client/half.py": DOC + "from ... import errors\n",
                "statehouse/client/core.py": DOC + "from statehouse.rpc.client.half import Transport\n",
                "statehouse/cli/statehousectl.py": DOC + "import click, statehouse\n",
                "tools/bench.py": DOC + "assert True\nfrom statehouse.storage import leveldb_view\n",
            }
        )
        == []
    )


@pytest.mark.parametrize(
    ("file", "source", "line", "what"),
    [
        ("storage/disk.py", "import trio", 2, "trio may be named by"),
        ("storage/disk.py", "from statehouse.actors import engine", 2, "may not import statehouse.actors"),
        (
            "storage/disk.py",
            "def f():\n    import statehouse.actors.engine",
            3,
            "may not import statehouse.actors.engine",
        ),
        ("storage/disk.py", "import statehouse", 2, "statehouse.storage may not import statehouse"),
        ("storage/disk.py", "from ..config import load", 2, "may not import statehouse.config"),
        ("storage/disk.py", "from .. import config", 2, "may not import statehouse"),
        ("storage/store.py", "import plyvel", 2, "plyvel may be named by statehouse.storage.leveldb_view only"),
        ("actors/engine.py", "from statehouse.rpc import server", 2, "may not import statehouse.rpc"),
        ("actors/engine.py", "from purerpc.server import Service", 2, "purerpc may be named by statehouse.rpc only"),
        ("rpc/server/x.py", "import h2.connection", 2, "h2 may be named by nobody"),
        ("rpc/server/x.py", "from hpack import Decoder", 2, "hpack may be named by nobody"),
        ("rpc/server/x.py", "import hyperframe", 2, "hyperframe may be named by nobody"),
        ("rpc/server/x.py", "from purerpc import grpclib", 2, "purerpc.grpclib may be named by nobody"),
        ("rpc/server/x.py", "import purerpc.grpclib.connection", 2, "purerpc.grpclib may be named by nobody"),
        ("rpc/client/x.py", "from purerpc.grpc_socket import GRPCSocket", 2, "purerpc.grpc_socket may be named by"),
        ("rpc/http2/frames.py", "import jh2", 2, "jh2 may be named by statehouse.rpc.http2.header_blocks only"),
        ("rpc/handlers.py", "from statehouse.storage.keys import K", 2, "may not import statehouse.storage.keys"),
        ("rpc/handlers.py", "import asyncio", 2, "asyncio may be named by"),
        ("client/core.py", "from statehouse.actors import reply", 2, "may not import statehouse.actors"),
        ("client/core.py", "from statehouse.daemon import run_daemon", 2, "may not import statehouse.daemon"),
        ("config.py", "from statehouse.storage import disk", 2, "may not import statehouse.storage"),
        ("errors.py", "from statehouse.types import T", 2, "may not import statehouse.types"),
        ("daemon.py", "import click", 2, "click may be named by statehouse.cli only"),
        ("daemon.py", "from statehouse.cli import exit_codes", 2, "may not import statehouse.cli"),
        ("cli/ctl.py", "from statehouse.storage import disk", 2, "may not import statehouse.storage"),
        ("extras.py", "X = 1", 1, "has no place in the layers"),
        ("storage/disk.py", "assert X", 2, "python -O strips assert"),
        ("storage/disk.py", "try:\n    X\nexcept:\n    pass", 4, "this swallows Cancelled"),
        ("storage/disk.py", "try:\n    X\nexcept BaseException:\n    raise", 4, "this swallows Cancelled"),
        ("storage/disk.py", "try:\n    X\nexcept (OSError, BaseException):\n    pass", 4, "this swallows Cancelled"),
        ("storage/disk.py", "\n" * tidy.LINES_AT_MOST, 351, "351 lines; at most 350"),
    ],
)
def test_a_breach_is_found_where_it_is(file, source, line, what, breaches_of):
    breach, *more = breaches_of({f"statehouse/{file}": f"{DOC}{source}\n" if source.strip() else DOC + source})
    assert more == []
    assert breach.startswith(f"statehouse/{file}:{line}: ")
    assert what in breach


@pytest.mark.parametrize("file", ["statehouse/storage/disk.py", "tools/bench.py", "examples/agent/run.py"])
def test_a_module_without_a_docstring(file, breaches_of):
    assert breaches_of({file: "X = 1\n"}) == [f"{file}:1: a module says in its docstring what it owns and promises"]


REACHES = "a client reaches the engine"
SHARED = "statehouse.rpc.shared -> statehouse.actors.reply"


def test_what_the_client_reaches_through_a_shared_module_counts(breaches_of):
    assert breaches_of(
        {
            "statehouse/actors/reply.py": DOC,
            "statehouse/rpc/shared.py": DOC + "\nfrom statehouse.actors.reply import Reply\n",
            "statehouse/rpc/client/call.py": DOC + "from statehouse.rpc.shared import X\n",
            "statehouse/client/core.py": DOC + "from statehouse.rpc.client.call import Y\n",
        }
    ) == [
        f"statehouse/client/core.py:2: {REACHES}: statehouse.rpc.client.call -> {SHARED}",
        f"statehouse/rpc/client/call.py:2: {REACHES}: {SHARED}",
    ]


def test_the_command_exits_with_1_when_there_is_a_breach(breaches_of, tmp_path, monkeypatch, capsys):
    breaches_of({"tools/bench.py": "X = 1\n"})
    monkeypatch.setattr("sys.argv", ["tidy.py", str(tmp_path)])
    assert tidy.main() == 1
    assert capsys.readouterr().out == "tools/bench.py:1: a module says in its docstring what it owns and promises\n"
    (tmp_path / "tools/bench.py").write_text(DOC)
    assert tidy.main() == 0
