"""Reflection: its answers read with the published messages, and the contract rebuilt from them alone."""

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2 as their_health
from grpc_reflection.v1alpha import reflection_pb2 as theirs
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import given
from hypothesis import strategies as st
from purerpc import Cardinality

from statehouse.errors import InvalidRequestError
from statehouse.rpc.contract import METHODS
from statehouse.rpc.error_table import GrpcStatus
from statehouse.rpc.server.published import HEALTH, QUESTION_BYTES, REFLECTION_V1, REFLECTION_V1ALPHA
from statehouse.rpc.server.reflection import reflection_services
from statehouse.rpc.v1 import health_pb2, reflection_pb2
from statehouse.v1 import statehouse_pb2

SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "statehouse.v1.StatehouseService",
]
STATEHOUSE = "statehouse/v1/statehouse.proto"
STRUCT, TIMESTAMP = "google/protobuf/struct.proto", "google/protobuf/timestamp.proto"
FILES = {
    STATEHOUSE: {STRUCT, TIMESTAMP},
    STRUCT: set(),
    TIMESTAMP: set(),
    "grpc/health/v1/health.proto": set(),
    "grpc/reflection/v1/reflection.proto": set(),
    "grpc/reflection/v1alpha/reflection.proto": set(),
}
HOSTED = reflection_services()


@pytest.fixture(params=HOSTED, ids=lambda hosted: hosted.service.name)
def answer(request):
    """One question of the published form, answered."""
    handler = request.param.service.methods["ServerReflectionInfo"].method_fn

    def ask(**question):
        asked = theirs.ServerReflectionRequest(host="a.host:1", **question)
        response = theirs.ServerReflectionResponse.FromString(handler(asked.SerializeToString(), object()))
        assert response.original_request == asked
        assert response.valid_host == "a.host:1"
        return response

    return ask


def files(response):
    assert response.WhichOneof("message_response") == "file_descriptor_response"
    return [FileDescriptorProto.FromString(each) for each in response.file_descriptor_response.file_descriptor_proto]


def status(response):
    assert response.WhichOneof("message_response") == "error_response"
    assert response.error_response.error_message
    return GrpcStatus(response.error_response.error_code)


def test_both_versions_are_served():
    assert [hosted.service.name for hosted in HOSTED] == SERVICES[1:3]
    for hosted in HOSTED:
        ((name, method),) = hosted.service.methods.items()
        assert (name, method.signature.cardinality) == ("ServerReflectionInfo", Cardinality.STREAM_STREAM)
        assert hosted.open_to_all == hosted.always == frozenset()


@pytest.mark.parametrize("content", ["", "*"])
def test_list_services(answer, content):
    response = answer(list_services=content)
    assert [each.name for each in response.list_services_response.service] == SERVICES


@pytest.mark.parametrize("name", FILES)
def test_a_file_comes_first_and_then_what_it_needs(answer, name):
    first, *others = files(answer(file_by_filename=name))
    assert first.name == name
    assert sorted(each.name for each in others) == sorted(FILES[name])


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        *((service, None) for service in SERVICES),
        ("statehouse.v1.StatehouseService.Commit", STATEHOUSE),
        ("statehouse.v1.GetStateResponse", STATEHOUSE),
        ("statehouse.v1.GetStateResponse.value", STATEHOUSE),
        ("statehouse.v1.StatehouseError.DetailsEntry", STATEHOUSE),
        ("statehouse.v1.ErrorCode", STATEHOUSE),
        ("google.protobuf.Struct", STRUCT),
        ("google.protobuf.NullValue", STRUCT),
        ("google.protobuf.NULL_VALUE", STRUCT),
        ("google.protobuf.Value.kind", STRUCT),
        ("google.protobuf.Timestamp", TIMESTAMP),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"),
        ("grpc.health.v1.HealthCheckResponse.SERVICE_UNKNOWN", "grpc/health/v1/health.proto"),
        ("grpc.reflection.v1.ErrorResponse", "grpc/reflection/v1/reflection.proto"),
        ("grpc.reflection.v1alpha.ErrorResponse.error_code", "grpc/reflection/v1alpha/reflection.proto"),
    ],
)
def test_the_file_of_a_symbol(answer, symbol, file):
    found = files(answer(file_containing_symbol=symbol))
    if file is None:
        package, _, name = symbol.rpartition(".")
        assert found[0].package == package
        assert [service.name for service in found[0].service] == [name]
    else:
        assert found == files(answer(file_by_filename=file))


@pytest.mark.parametrize(
    "question",
    [
        {"file_by_filename": ""},
        {"file_by_filename": "statehouse/rpc/v1/health.proto"},
        {"file_by_filename": "statehouse/storage/v1/log.proto"},
        {"file_containing_symbol": ""},
        {"file_containing_symbol": "statehouse"},
        {"file_containing_symbol": ".statehouse.v1.StatehouseService"},
        {"file_containing_symbol": "statehouse.v1.StatehouseService.commit"},
        {"file_containing_symbol": "statehouse.rpc.v1.Health"},
        {"file_containing_extension": {}},
        {"file_containing_extension": {"containing_type": "statehouse.v1.CommitRequest", "extension_number": 100}},
        {"all_extension_numbers_of_type": ""},
        {"all_extension_numbers_of_type": "statehouse.v1.ErrorCode"},
        {"all_extension_numbers_of_type": "statehouse.v1.StatehouseService"},
    ],
    ids=str,
)
def test_what_is_not_here_is_not_found(answer, question):
    assert status(answer(**question)) is GrpcStatus.NOT_FOUND


def test_a_known_message_has_no_extensions(answer):
    for name in ("statehouse.v1.CommitRequest", "grpc.health.v1.HealthListResponse.StatusesEntry"):
        response = answer(all_extension_numbers_of_type=name)
        assert response.WhichOneof("message_response") == "all_extension_numbers_response"
        assert response.all_extension_numbers_response.base_type_name == name
        assert not response.all_extension_numbers_response.extension_number


def test_no_question_is_an_invalid_one(answer):
    assert status(answer()) is GrpcStatus.INVALID_ARGUMENT


@pytest.mark.parametrize("hosted", HOSTED, ids=lambda hosted: hosted.service.name)
def test_bytes_that_are_no_question_are_refused(hosted):
    handler = hosted.service.methods["ServerReflectionInfo"].method_fn
    for request in (b"\x1a\x05x", b"\x1a\x01\xff", b"\x0f"):
        with pytest.raises(InvalidRequestError, match="not a well-formed ServerReflectionRequest"):
            handler(request, object())
    longest = theirs.ServerReflectionRequest(host="h" * (QUESTION_BYTES - 3)).SerializeToString()
    assert len(longest) == QUESTION_BYTES
    handler(longest, object())
    with pytest.raises(InvalidRequestError) as caught:
        handler(longest + b"\x3a\x00", object())
    assert caught.value.details == {"limit": str(QUESTION_BYTES), "size": str(QUESTION_BYTES + 2)}


def test_the_whole_contract_can_be_rebuilt_from_what_is_served(answer):
    pool = DescriptorPool()
    added = set()
    for service in answer(list_services="").list_services_response.service:
        # Imports stand behind what imports them, and a pool wants them first.
        for file in reversed(files(answer(file_containing_symbol=service.name))):
            if file.name not in added:
                pool.Add(file)
                added.add(file.name)
    assert added == FILES.keys()
    calls = {}
    for name in SERVICES:
        for method in pool.FindServiceByName(name).methods:
            shape = (method.input_type.full_name, method.output_type.full_name)
            calls[method.full_name] = (*shape, method.client_streaming, method.server_streaming)
    expected = {
        f"statehouse.v1.StatehouseService.{each.name}": (
            each.request_type.DESCRIPTOR.full_name,
            each.response_type.DESCRIPTOR.full_name,
            False,
            each.server_streaming,
        )
        for each in METHODS.values()
    }
    check, response = "grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse"
    expected["grpc.health.v1.Health.Check"] = (check, response, False, False)
    expected["grpc.health.v1.Health.Watch"] = (check, response, False, True)
    listing = (check.replace("Check", "List"), response.replace("Check", "List"))
    expected["grpc.health.v1.Health.List"] = (*listing, False, False)
    for package in ("grpc.reflection.v1", "grpc.reflection.v1alpha"):
        shape = (f"{package}.ServerReflectionRequest", f"{package}.ServerReflectionResponse")
        expected[f"{package}.ServerReflection.ServerReflectionInfo"] = (*shape, True, True)
    assert calls == expected
    ours = FileDescriptorProto()
    statehouse_pb2.DESCRIPTOR.CopyToProto(ours)
    served = FileDescriptorProto()
    pool.FindFileByName(STATEHOUSE).CopyToProto(served)
    assert served == ours


def test_grpcio_s_own_client_finds_everything_in_the_answers(monkeypatch):
    alpha = HOSTED[1].service.methods["ServerReflectionInfo"].method_fn

    class Stub:
        """The published client's stub, without a socket."""

        def __init__(self, channel):
            pass

        def ServerReflectionInfo(self, requests):  # noqa: N802 - the published name
            return (
                theirs.ServerReflectionResponse.FromString(alpha(each.SerializeToString(), None)) for each in requests
            )

    monkeypatch.setattr("grpc_reflection.v1alpha.proto_reflection_descriptor_database.ServerReflectionStub", Stub)
    database = ProtoReflectionDescriptorDatabase(channel=None)
    assert sorted(database.get_services()) == SERVICES
    pool = DescriptorPool(database)
    for name in SERVICES:
        assert pool.FindServiceByName(name).methods
    assert len(pool.FindServiceByName("statehouse.v1.StatehouseService").methods) == len(METHODS)
    with pytest.raises(KeyError):
        pool.FindServiceByName("statehouse.rpc.v1.Health")


# The messages are those of the published interface


@pytest.mark.parametrize(
    ("published", "original"),
    [(HEALTH, their_health.DESCRIPTOR), (REFLECTION_V1ALPHA, theirs.DESCRIPTOR), (REFLECTION_V1, theirs.DESCRIPTOR)],
    ids=["health", "v1alpha", "v1"],
)
def test_the_files_are_the_published_ones(published, original):
    expected = FileDescriptorProto()
    original.CopyToProto(expected)
    expected.ClearField("options")  # for other languages' generators
    expected.name = expected.name.replace("grpc_", "grpc/")
    if published is REFLECTION_V1:  # the package has v1alpha alone
        expected = text_format.Parse(str(expected).replace("v1alpha", "v1"), FileDescriptorProto())
    assert published.file() == expected


words = st.text(max_size=20)
questions = st.one_of(
    *(
        words.map(lambda word, name=name: {name: word})
        for name in ("file_by_filename", "file_containing_symbol", "all_extension_numbers_of_type", "list_services")
    ),
    st.builds(
        lambda name, number: {"file_containing_extension": {"containing_type": name, "extension_number": number}},
        words,
        st.integers(-(2**31), 2**31 - 1),
    ),
)


@given(words, questions)
def test_questions_read_alike_with_their_messages_and_ours(host, question):
    ours = reflection_pb2.ServerReflectionRequest(host=host, **question)
    their = theirs.ServerReflectionRequest(host=host, **question)
    assert theirs.ServerReflectionRequest.FromString(ours.SerializeToString()) == their
    assert reflection_pb2.ServerReflectionRequest.FromString(their.SerializeToString()) == ours


@given(st.dictionaries(words, st.sampled_from(range(4)), max_size=4))
def test_health_messages_read_alike(statuses):
    def listing(pb):
        return pb.HealthListResponse(
            statuses={name: pb.HealthCheckResponse(status=status) for name, status in statuses.items()}
        )

    ours, their = listing(health_pb2), listing(their_health)
    assert their_health.HealthListResponse.FromString(ours.SerializeToString()) == their
    assert health_pb2.HealthListResponse.FromString(their.SerializeToString()) == ours
