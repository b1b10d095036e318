"""TLS, client certificates, tokens and the Unix socket, end to end: grpcio calls a `Server`."""

import datetime as dt
from contextlib import contextmanager

import attrs
import grpc
import pytest
import trio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rpc.fix_edge import PATIENCE_S, detail_of, refused, struct_of, write
from structlog.testing import capture_logs

from statehouse.errors import ErrorCode
from statehouse.rpc.server import refusals as refusals_module
from statehouse.rpc.server import server as server_module
from statehouse.rpc.server.access import Authenticator
from statehouse.rpc.server.health import Serving, health_service
from statehouse.rpc.server.listener import open_unix_listener
from statehouse.rpc.server.refusals import Refusal
from statehouse.rpc.server.tls import ServerTls
from statehouse.rpc.server.token_file import add_token, revoke_token
from statehouse.rpc.server.token_line import Role, new_token

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WRONG = "sth_0123456789ab_" + "A" * 43


def bearer(text):
    return (("authorization", f"Bearer {text}"),)


@contextmanager
def dialled(edge, credentials=None):
    """The edge with a channel of its own."""
    alone = [("grpc.use_local_subchannel_pool", 1)]
    if credentials is None:
        channel = grpc.insecure_channel(edge.address, alone)
    else:
        channel = grpc.secure_channel(edge.address, credentials, alone)
    with channel:
        yield attrs.evolve(edge, channel=channel)


def credentials(authority, identity=None):
    key, chain = (None, None) if identity is None else (identity.key.read_bytes(), identity.cert.read_bytes())
    return grpc.ssl_channel_credentials(authority.file.read_bytes(), key, chain)


def server_tls(authority, clients=None):
    issued = authority.issue()
    return ServerTls(issued.cert, issued.key, None if clients is None else clients.file)


async def works(edge, **fields):
    return (await edge.call("Health", **fields)).status == "ok"


# TLS


async def test_calls_over_tls(start_edge, authority):
    with dialled(await start_edge(tls=server_tls(authority)), credentials(authority)) as edge:
        text = "x" * 900_000
        await write(edge, "a", "k", {"text": text})
        assert (await edge.call("GetState", agent_id="a", key="k")).value["text"] == text
        assert [event.commit_ts for event in await edge.replay(agent_id="a")] == [1]


async def test_a_client_that_does_not_speak_tls_is_turned_away_and_counted(start_edge, authority):
    edge = await start_edge(tls=server_tls(authority))
    with dialled(edge) as plain:
        assert (await refused(plain, "Health")).code() is grpc.StatusCode.UNAVAILABLE
    assert edge.server.census()["failed_handshake"] >= 1
    with dialled(edge, credentials(authority)) as trusted:
        assert await works(trusted)


async def test_only_clients_of_the_authority_come_in(start_edge, authority, other_authority):
    edge = await start_edge(tls=server_tls(authority, clients=other_authority))
    client, stranger = other_authority.issue("client"), authority.issue("stranger")
    with dialled(edge, credentials(authority, client)) as known:
        assert await works(known)
    for identity in (None, stranger):
        with dialled(edge, credentials(authority, identity)) as unknown:
            assert (await refused(unknown, "Health")).code() is grpc.StatusCode.UNAVAILABLE
    assert edge.server.census()["failed_handshake"] >= 2


async def test_a_connection_that_only_opens_is_let_go_before_its_handshake(start_edge, authority, monkeypatch):
    monkeypatch.setattr(server_module, "PREFACE_S", 0.01)
    edge = await start_edge(tls=server_tls(authority))
    async with await edge.connect() as silent:
        with trio.fail_after(PATIENCE_S):
            while await silent.receive_some():
                pass
    with trio.fail_after(PATIENCE_S):
        while edge.server.census()["connections"]:
            await trio.lowlevel.checkpoint()
    assert edge.server.census()["failed_handshake"] == 1


# Tokens


class Tokens:
    """A token file, and who is known by it."""

    def __init__(self, path):
        self.path = path
        path.touch(0o600)
        self.authenticator = Authenticator(path)

    def add(self, role, **bounds):
        token, text = new_token(role, now=NOW, **bounds)
        add_token(self.path, token)
        self.authenticator.reload()
        return token.id, text

    def revoke(self, token_id):
        revoke_token(self.path, token_id)


@pytest.fixture
def tokens(tmp_path):
    return Tokens(tmp_path / "tokens")


@pytest.fixture
async def guarded(start_edge, tokens):
    """An edge that wants tokens."""
    edge = await start_edge(authenticator=tokens.authenticator, hosted=[health_service(Serving())])
    with dialled(edge) as edge:
        yield edge


GET = {"agent_id": "a", "key": "k"}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        bearer(WRONG),
        bearer(""),
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (("authorization", WRONG),),
        bearer("sth_"),
    ],
)
async def test_without_a_token_that_is_known_nobody_comes_in(guarded, tokens, metadata):
    tokens.add(Role.ADMIN)
    for name, fields in (("GetState", GET), ("BeginTransaction", {}), ("Version", {})):
        error = await refused(guarded, name, metadata=metadata, **fields)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert detail_of(error).code == ErrorCode.UNAUTHENTICATED
    assert guarded.server.census()["unauthenticated"] == 3


async def test_a_secret_of_another_token_is_not_enough(guarded, tokens):
    (one, _), (_, other) = tokens.add(Role.ADMIN), tokens.add(Role.ADMIN)
    mixed = f"sth_{one}_{other.split('_', 2)[2]}"
    assert (await refused(guarded, "Version", metadata=bearer(mixed))).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_needs_no_token(guarded):
    assert await works(guarded)
    check = health_pb2_grpc.HealthStub(guarded.channel).Check
    answer = await trio.to_thread.run_sync(lambda: check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_token_that_was_revoked_is_refused_after_the_next_reload(guarded, tokens):
    token_id, text = tokens.add(Role.READ_WRITE)
    _, stays = tokens.add(Role.READ_WRITE)
    assert (await guarded.call("Version", metadata=bearer(text))).version == "1.2.3"
    tokens.revoke(token_id)
    assert (await guarded.call("Version", metadata=bearer(text))).version == "1.2.3"
    tokens.authenticator.reload()
    error = await refused(guarded, "Version", metadata=bearer(text))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (await guarded.call("Version", metadata=bearer(stays))).version == "1.2.3"


async def test_a_role_that_only_reads(guarded, tokens):
    _, text = tokens.add(Role.READ_ONLY)
    assert not (await guarded.call("GetState", metadata=bearer(text), **GET)).exists
    for name, fields in (("BeginTransaction", {}), ("Commit", {"txn_id": "t"})):
        error = await refused(guarded, name, metadata=bearer(text), **fields)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert detail_of(error).code == ErrorCode.PERMISSION_DENIED


async def test_a_token_that_is_bound_reaches_its_own_and_nothing_else(guarded, tokens):
    metadata = bearer(tokens.add(Role.READ_WRITE, namespaces=("team",), agent_prefixes=("bot/",))[1])
    txn_id = (await guarded.call("BeginTransaction", metadata=metadata)).txn_id
    own = {"namespace": "team", "agent_id": "bot/1", "key": "k"}
    await guarded.call("Write", metadata=metadata, txn_id=txn_id, value=struct_of({"n": 1}), **own)
    await guarded.call("Commit", metadata=metadata, txn_id=txn_id)
    assert (await guarded.call("GetState", metadata=metadata, **own)).value["n"] == 1
    for other in ({**own, "namespace": "other"}, {**own, "agent_id": "human"}, {"agent_id": "bot/1", "key": "k"}):
        error = await refused(guarded, "GetState", metadata=metadata, **other)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    request = {"namespace": "team", "agent_id": "human"}
    assert (await refused(guarded, "ListKeys", metadata=metadata, **request)).code() is (
        grpc.StatusCode.PERMISSION_DENIED
    )
    assert guarded.server.census()["permission_denied"] == 4


async def test_refusals_are_told_apart_and_logged_now_and_then(guarded, tokens):
    text = tokens.add(Role.READ_ONLY)[1]
    with capture_logs() as logged:
        for _ in range(20):
            await refused(guarded, "Version", metadata=bearer(WRONG))
            await refused(guarded, "BeginTransaction", metadata=bearer(text))
    counts = guarded.server.capacity.refusals.counts
    assert counts == {Refusal.UNAUTHENTICATED: 20, Refusal.PERMISSION_DENIED: 20}
    lines = [line for line in logged if line["event"] == "turned away"]
    assert 1 <= len(lines) <= 2  # 40 refusals in less than 20 s
    assert "127.0.0.1:" in str(lines[0]["latest"])
    assert WRONG.rpartition("_")[2] not in str(logged)
    assert text not in str(logged)


async def test_a_token_over_tls(start_edge, authority, tokens):
    text = tokens.add(Role.ADMIN)[1]
    edge = await start_edge(tls=server_tls(authority), authenticator=tokens.authenticator)
    both = grpc.composite_channel_credentials(credentials(authority), grpc.access_token_call_credentials(text))
    with dialled(edge, both) as known:
        assert (await known.call("Version")).version == "1.2.3"
    with dialled(edge, credentials(authority)) as unknown:
        assert (await refused(unknown, "Version")).code() is grpc.StatusCode.UNAUTHENTICATED


# The Unix socket


async def test_calls_over_a_unix_socket(start_edge, tmp_path):
    edge = await start_edge(listener=open_unix_listener(tmp_path / "s"))
    assert edge.address == f"unix:{tmp_path / 's'}"
    with dialled(edge) as near:
        await write(near, "a", "k", {"n": 1})
        assert (await near.call("GetState", agent_id="a", key="k")).value["n"] == 1
    edge.stop.set()
    with trio.fail_after(PATIENCE_S):
        await edge.ended.wait()
    assert not (tmp_path / "s").exists()


async def test_a_token_over_a_unix_socket(start_edge, tmp_path, tokens):
    text = tokens.add(Role.ADMIN)[1]
    listener = open_unix_listener(tmp_path / "s")
    with dialled(await start_edge(listener=listener, authenticator=tokens.authenticator)) as near:
        assert (await near.call("Version", metadata=bearer(text))).version == "1.2.3"
        assert (await refused(near, "Version")).code() is grpc.StatusCode.UNAUTHENTICATED
    assert near.server.census()["unauthenticated"] == 1


async def test_refusals_are_logged_when_they_are_due_though_nobody_is_refused_then(start_edge, tokens, monkeypatch):
    for module in (refusals_module, server_module):
        monkeypatch.setattr(module, "LOGGED_S", 0.2)
    started = await start_edge(authenticator=tokens.authenticator)
    with dialled(started) as guarded, capture_logs() as logged:
        for _ in range(3):
            await refused(guarded, "Version")
        with trio.fail_after(PATIENCE_S):
            while sum(line.get("unauthenticated", 0) for line in logged) < 3:  # noqa: ASYNC110 - the log has no event
                await trio.sleep(0.01)
