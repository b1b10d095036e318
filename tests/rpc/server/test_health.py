"""Health: what Check, List and Watch tell in each phase of the daemon's life, and when Watch says something."""

import pytest
import trio
import trio.testing
from grpc_health.v1 import health_pb2 as theirs
from purerpc import Cardinality

from statehouse.errors import ErrorCode, InvalidRequestError, NotFoundError, UnavailableError
from statehouse.rpc.contract import SERVICE_NAME
from statehouse.rpc.error_table import MESSAGE_BYTES, GrpcStatus, decode_error, encode_error
from statehouse.rpc.server.health import Phase, Serving, health_service
from statehouse.rpc.server.published import QUESTION_BYTES

NOBODY = object()  # the caller: health asks for none
EVERY_NAME = ["", SERVICE_NAME]
SERVING, NOT_SERVING = theirs.HealthCheckResponse.SERVING, theirs.HealthCheckResponse.NOT_SERVING
UNKNOWN = theirs.HealthCheckResponse.SERVICE_UNKNOWN
blocked = trio.testing.wait_all_tasks_blocked


class Health:
    """The service as the server has it, asked and read with the published messages."""

    def __init__(self):
        self.serving = Serving()
        self.hosted = health_service(self.serving)

    def call(self, name, request):
        return self.hosted.service.methods[name].method_fn(request.SerializeToString(), NOBODY)

    def check(self, name=""):
        response = self.call("Check", theirs.HealthCheckRequest(service=name))
        return theirs.HealthCheckResponse.FromString(response).status

    def list(self):
        statuses = theirs.HealthListResponse.FromString(self.call("List", theirs.HealthListRequest())).statuses
        return {name: each.status for name, each in statuses.items()}

    async def watch(self, told, name=""):
        """Adds each status to `told`, and at the end why it ended."""
        try:
            async for messages in self.call("Watch", theirs.HealthCheckRequest(service=name)):
                told += [theirs.HealthCheckResponse.FromString(each).status for each in messages]
        except UnavailableError as error:
            told.append(error.message)


@pytest.fixture
def health():
    return Health()


def test_what_is_served():
    hosted = Health().hosted
    assert hosted.service.name == "grpc.health.v1.Health"
    cardinalities = {name: method.signature.cardinality for name, method in hosted.service.methods.items()}
    unary = Cardinality.UNARY_UNARY
    assert cardinalities == {"Check": unary, "List": unary, "Watch": Cardinality.UNARY_STREAM}
    assert hosted.open_to_all == hosted.always == {"Check", "List", "Watch"}


@pytest.mark.parametrize("name", EVERY_NAME)
@pytest.mark.parametrize("phase", Phase)
def test_only_a_daemon_that_takes_commits_is_serving(health, phase, name):
    health.serving.become(phase)
    assert health.check(name) == health.list()[name] == (SERVING if phase is Phase.SERVING else NOT_SERVING)
    assert health.list().keys() == set(EVERY_NAME)


def test_the_daemon_s_life_goes_one_way(health):
    phases = []
    for phase in (Phase.SERVING, Phase.STARTING, Phase.READ_ONLY, Phase.SERVING, Phase.STOPPING, Phase.READ_ONLY):
        health.serving.become(phase)
        phases.append(health.serving.phase)
    assert phases == [Phase.SERVING] * 2 + [Phase.READ_ONLY] * 2 + [Phase.STOPPING] * 2


@pytest.mark.parametrize("name", ["statehouse.v1.Other", "grpc.health.v1.Health", "statehouse", "é\0\n", "x" * 4000])
def test_check_of_an_unknown_service_is_not_found(health, name):
    health.serving.become(Phase.SERVING)
    with pytest.raises(NotFoundError) as caught:
        health.check(name)
    encoded = encode_error(caught.value)
    assert encoded.status is GrpcStatus.NOT_FOUND
    assert encoded.message.isprintable()
    assert len(encoded.message.encode()) <= MESSAGE_BYTES
    decoded = decode_error(encoded.status, encoded.message, encoded.trailer)
    assert (type(decoded), decoded.code) == (NotFoundError, ErrorCode.UNKNOWN)  # it is no key that is not there


@pytest.mark.parametrize("call", ["Check", "List", "Watch"])
def test_bytes_that_are_no_request_are_refused_at_once(health, call):
    handler = health.hosted.service.methods[call].method_fn
    for request in (b"\x0a\x05x", b"\x0a" + b"\xff" * 3):
        with pytest.raises(InvalidRequestError, match="not a well-formed Health"):
            handler(request, NOBODY)
    padded = b"\x12\x00" * (QUESTION_BYTES // 2)  # of a field that a newer client may know
    handler(padded, NOBODY)
    with pytest.raises(InvalidRequestError) as caught:
        handler(padded + b"\x12\x00", NOBODY)
    assert caught.value.details == {"limit": str(QUESTION_BYTES), "size": str(QUESTION_BYTES + 2)}


@pytest.mark.parametrize("name", EVERY_NAME)
async def test_watch_tells_the_status_at_once_and_then_its_changes(health, name, nursery):
    told, later = [], []
    nursery.start_soon(health.watch, told, name)
    await blocked()
    assert told == [NOT_SERVING]
    health.serving.become(Phase.SERVING)
    await blocked()
    assert told == [NOT_SERVING, SERVING]
    nursery.start_soon(health.watch, later, name)
    health.serving.become(Phase.SERVING)
    await blocked()
    assert (told, later) == ([NOT_SERVING, SERVING], [SERVING])
    health.serving.become(Phase.READ_ONLY)
    await blocked()
    assert (told, later) == ([NOT_SERVING, SERVING, NOT_SERVING], [SERVING, NOT_SERVING])
    nursery.cancel_scope.cancel()


async def test_watch_ends_when_the_daemon_stops_and_says_not_serving_first(health, nursery):
    told = []
    health.serving.become(Phase.SERVING)
    nursery.start_soon(health.watch, told)
    await blocked()
    health.serving.become(Phase.STOPPING)
    await blocked()
    assert told == [SERVING, NOT_SERVING, "the daemon is shutting down"]
    nursery.start_soon(health.watch, told)
    await blocked()
    assert told[3:] == [NOT_SERVING, "the daemon is shutting down"]


@pytest.mark.parametrize("before", [Phase.STARTING, Phase.READ_ONLY])
async def test_a_status_that_has_not_changed_is_not_told_again(health, before, nursery):
    told = []
    health.serving.become(before)
    nursery.start_soon(health.watch, told)
    await blocked()
    health.serving.become(Phase.READ_ONLY)
    await blocked()
    assert told == [NOT_SERVING]
    health.serving.become(Phase.STOPPING)
    await blocked()
    assert told == [NOT_SERVING, "the daemon is shutting down"]


async def test_a_change_while_the_client_reads_is_not_lost(health, autojump_clock):
    stream = health.call("Watch", theirs.HealthCheckRequest())
    statuses = []
    with trio.fail_after(1):  # a change that is lost is waited for until then
        for phase in (Phase.SERVING, Phase.READ_ONLY):
            (message,) = await anext(stream)
            statuses.append(theirs.HealthCheckResponse.FromString(message).status)
            health.serving.become(phase)  # nobody waits for it at this moment
        health.serving.become(Phase.STOPPING)
        (message,) = await anext(stream)
        statuses.append(theirs.HealthCheckResponse.FromString(message).status)
        with pytest.raises(UnavailableError):
            await anext(stream)
    assert statuses == [NOT_SERVING, SERVING, NOT_SERVING]


async def test_watch_of_an_unknown_service_stays_open_until_the_daemon_stops(health, nursery):
    told = []
    nursery.start_soon(health.watch, told, "statehouse.v1.Other")
    for phase in (Phase.SERVING, Phase.READ_ONLY):
        await blocked()
        health.serving.become(phase)
    await blocked()
    assert told == [UNKNOWN]
    health.serving.become(Phase.STOPPING)
    await blocked()
    assert told == [UNKNOWN, "the daemon is shutting down"]
