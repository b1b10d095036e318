"""Health and reflection over a real socket, asked by grpcio's own packages."""

from functools import partial

import attrs
import grpc
import pytest
import trio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from rpc.fix_edge import PATIENCE_S
from rpc.fix_memory_peer import END_STREAM, FrameType, frame, message, no_window, settle, window_update

from statehouse.rpc.contract import METHODS, SERVICE_NAME
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.handlers import statehouse_service
from statehouse.rpc.server.health import Phase, Serving, health_service

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
VERSIONS = ["v1", "v1alpha"]
SERVICES = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "statehouse.v1.StatehouseService",
]


def in_thread(function, *arguments, **options):
    return trio.to_thread.run_sync(partial(function, *arguments, **options))


# Reflection


def converse(channel, version):
    return channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )


def listed(answer):
    return {each.name for each in answer.list_services_response.service}


async def test_grpcio_s_client_builds_the_contract_from_what_is_served(edge):
    def contract():
        database = ProtoReflectionDescriptorDatabase(edge.channel)
        service = DescriptorPool(database).FindServiceByName(SERVICE_NAME)
        return set(database.get_services()), {each.name for each in service.methods}

    services, methods = await in_thread(contract)
    assert set(SERVICES) <= services
    assert methods == METHODS.keys()


@pytest.mark.parametrize("version", VERSIONS)
async def test_questions_after_questions_on_one_stream(edge, version):
    def ask():
        asked = (
            reflection_pb2.ServerReflectionRequest(list_services=str(number))
            if number % 2
            else reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{SERVICE_NAME}.Commit")
            for number in range(300)
        )
        return list(converse(edge.channel, version)(asked, timeout=PATIENCE_S))

    answers = await in_thread(ask)
    assert len(answers) == 300
    assert all(set(SERVICES) <= listed(answer) for answer in answers[1::2])
    assert all(answer.file_descriptor_response.file_descriptor_proto for answer in answers[::2])


class Conversation:
    """A conversation over memory, of which a test sees every frame."""

    def __init__(self, connected, stream_id):
        self.connected, self.peer, self.stream_id = connected, connected.peer, stream_id

    async def ask(self, question, flags=0):
        await self.peer.send(frame(FrameType.DATA, flags, self.stream_id, message(question)))
        await settle()


@pytest.fixture
async def begin(over_memory):
    async def begin(settings=None, handler=lambda question, _caller: question):
        connected = await over_memory(conversation={"Ask": handler}, settings=settings)
        frames, stream_id = connected.peer.begin("/t/Ask")
        await connected.peer.send(frames)
        return Conversation(connected, stream_id)

    return begin


async def test_each_question_is_answered_when_it_comes(begin, autojump_clock):
    talk = await begin()
    for number in range(1, 4):
        await talk.ask(b"%d" % number)
        assert talk.peer.data[talk.stream_id] == b"".join(message(b"%d" % each) for each in range(1, number + 1))
    await talk.peer.send(frame(FrameType.DATA, END_STREAM, talk.stream_id))
    assert await talk.peer.status(talk.stream_id) == 0
    assert talk.connected.nothing_is_held()


async def test_a_conversation_without_a_question_is_over(begin, autojump_clock):
    talk = await begin()
    await talk.peer.send(frame(FrameType.DATA, END_STREAM, talk.stream_id))
    assert await talk.peer.status(talk.stream_id) == 0


async def test_answers_that_are_not_read_end_the_conversation_and_are_not_kept(begin, autojump_clock):
    talk = await begin(settings=no_window())
    await talk.peer.send(window_update(talk.stream_id, 20))
    await talk.ask(b"0123456789")
    await talk.ask(b"0123456789")
    assert await talk.peer.status(talk.stream_id) == 8
    assert talk.peer.data[talk.stream_id] == message(b"0123456789")
    await talk.ask(b"after the end")
    assert talk.connected.nothing_is_held()


async def test_a_bug_in_an_answer_ends_the_conversation_with_an_error_id(begin, autojump_clock):
    def answer(question, _caller):
        if question == b"why?":
            raise ZeroDivisionError
        return question

    talk = await begin(handler=answer)
    await talk.ask(b"who?")
    await talk.ask(b"why?")
    assert await talk.peer.status(talk.stream_id) == 13
    assert talk.peer.data[talk.stream_id] == message(b"who?")
    assert talk.peer.headers[talk.stream_id]["grpc-message"].startswith("internal error ")


# Health


@attrs.define
class Health:
    edge: object
    serving: Serving
    stub: health_pb2_grpc.HealthStub

    async def check(self, name=""):
        response = await in_thread(self.stub.Check, health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_S)
        return response.status

    def watch(self, name=""):
        """The statuses as they come; None at the end, and then `code` says why."""
        call = self.stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_S)

        def following():
            try:
                return next(call).status
            except grpc.RpcError:
                return None

        return call, partial(in_thread, following)


@pytest.fixture
async def health(start_edge):
    """Of an edge that has no engine yet."""
    serving = Serving()
    edge = await start_edge(opened=False, hosted=[health_service(serving)], grace_s=1000)
    with grpc.insecure_channel(edge.address) as channel:
        edge = attrs.evolve(edge, channel=channel)
        yield Health(edge, serving, health_pb2_grpc.HealthStub(channel))


async def test_health_follows_the_daemon_s_life(health, fake_engine):
    call, following = health.watch(SERVICE_NAME)
    assert await following() == await health.check() == NOT_SERVING
    with pytest.raises(grpc.RpcError, match="starting"):
        await health.edge.call("Version")
    health.edge.server.open([statehouse_service(fake_engine, BuildVersion("1", "2"))])
    health.serving.become(Phase.SERVING)
    assert await following() == await health.check(SERVICE_NAME) == SERVING
    statuses = (await in_thread(health.stub.List, health_pb2.HealthListRequest(), timeout=PATIENCE_S)).statuses
    assert {name: each.status for name, each in statuses.items()} == {"": SERVING, SERVICE_NAME: SERVING}
    health.serving.become(Phase.READ_ONLY)
    assert await following() == await health.check() == NOT_SERVING
    health.serving.become(Phase.STOPPING)
    assert await following() is None
    assert call.code() is grpc.StatusCode.UNAVAILABLE


async def test_watchers_do_not_hold_up_the_stop(health):
    watched = [health.watch(name) for name in ("", SERVICE_NAME, "unknown")]
    for _, following in watched:
        assert await following() is not None
    health.serving.become(Phase.STOPPING)
    health.edge.stop.set()
    with trio.fail_after(PATIENCE_S):
        await health.edge.ended.wait()
    for call, following in watched:
        assert await following() is None
        assert call.code() is grpc.StatusCode.UNAVAILABLE


async def test_health_is_answered_while_the_last_call_has_its_grace(health, fake_engine):
    health.edge.server.open([statehouse_service(fake_engine, BuildVersion("1", "2"))])
    health.serving.become(Phase.SERVING)
    fake_engine.scan_gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(health.edge.call, "ListKeys", agent_id="a"))
        with trio.fail_after(PATIENCE_S):
            await fake_engine.scanning.wait()
        health.serving.become(Phase.STOPPING)
        assert await health.check() == NOT_SERVING
        fake_engine.scan_gate.set()


@pytest.mark.parametrize("name", ["grpc.health.v1.Health", "unknown"])
async def test_an_unknown_service(health, name):
    with pytest.raises(grpc.RpcError) as raised:
        await health.check(name)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    _, following = health.watch(name)
    assert await following() == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_a_watcher_that_leaves_is_forgotten(health):
    call, following = health.watch()
    await following()
    assert health.edge.server.census()["calls"] == 1
    call.cancel()
    with trio.fail_after(PATIENCE_S):
        while health.edge.server.census()["calls"]:
            await trio.lowlevel.checkpoint()
