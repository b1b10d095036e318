"""The requests that are answered with a stream: history, differences, replays."""

import pytest
from google.protobuf import timestamp_pb2

from statehouse.actors.watching import ReplayArguments, ReplayLogArguments
from statehouse.errors import InvalidRequestError
from statehouse.limits import METADATA_ENTRIES, Limits
from statehouse.rpc.server.requests_streams import DiffArguments, HistoryArguments, StreamRequests
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

REQUESTS = StreamRequests(Limits())
A = AgentId("default", "a")
TIME = timestamp_pb2.Timestamp(seconds=3, nanos=5)
TIME_NS = 3_000_000_005
NO_TIME = timestamp_pb2.Timestamp(nanos=-1)

REPLAYS = [(REQUESTS.replay, pb.ReplayRequest, {"agent_id": "a"}), (REQUESTS.replay_log, pb.ReplayLogRequest, {})]
RANGES = [
    (REQUESTS.diff, pb.DiffRequest, {"agent_id": "a"}, ("from_ts", "from_time")),
    (REQUESTS.diff, pb.DiffRequest, {"agent_id": "a"}, ("to_ts", "to_time")),
    *((*replay, ends) for replay in REPLAYS for ends in (("start_ts", "start_time"), ("end_ts", "end_time"))),
]


def refused(match, read, request):
    with pytest.raises(InvalidRequestError, match=match) as error:
        read(request.SerializeToString())
    return error.value.details.get("limit"), error.value.details.get("size")


def test_a_history():
    request = pb.HistoryRequest(namespace="n", agent_id="a", key="k", limit=2, before_version=2**64 - 1)
    found = REQUESTS.history(request.SerializeToString())
    assert found == HistoryArguments(AgentId("n", "a"), "k", 2, 2**64 - 1)
    everything = REQUESTS.history(pb.HistoryRequest(agent_id="a", key="k").SerializeToString())
    assert (everything.limit, everything.before_version) == (0, 0)
    refused("agent_id is empty", REQUESTS.history, pb.HistoryRequest(key="k"))
    refused("key is empty", REQUESTS.history, pb.HistoryRequest(agent_id="a"))
    over = refused("key is 1025 bytes", REQUESTS.history, pb.HistoryRequest(agent_id="a", key="x" * 1025))
    assert over == ("1024", "1025")


def test_a_difference():
    found = REQUESTS.diff(pb.DiffRequest(agent_id="a", from_ts=0, to_time=TIME, prefix="p").SerializeToString())
    assert found == DiffArguments(A, "p", 0, None, None, TIME_NS)
    found = REQUESTS.diff(pb.DiffRequest(agent_id="a", from_time=TIME, to_ts=2**64 - 1).SerializeToString())
    assert found == DiffArguments(A, "", None, TIME_NS, 2**64 - 1, None)
    assert REQUESTS.diff(pb.DiffRequest(agent_id="a").SerializeToString()) == DiffArguments(A, "", *[None] * 4)
    refused("agent_id is empty", REQUESTS.diff, pb.DiffRequest())
    refused("prefix is 1025 bytes", REQUESTS.diff, pb.DiffRequest(agent_id="a", prefix="x" * 1025))


@pytest.mark.parametrize(("read", "message", "fields", "ends"), RANGES)
def test_an_end_is_a_commit_or_a_time(read, message, fields, ends):
    ts, time = ends
    both = {ts: 0, time: TIME}
    refused(f"{ts} and {time} are both given", read, message(**fields, **both))
    refused(f"{time} is not a time", read, message(**fields, **{time: NO_TIME}))


def test_all_that_a_replay_can_ask_for():
    fields = {
        "start_ts": 0,
        "end_time": TIME,
        "follow": True,
        "limit": 2**64 - 1,
        "key_prefix": "é",
        "bookmarks": True,
        "metadata": {"run": "1"},
    }
    wanted = {
        "start_ts": 0,
        "end_time_ns": TIME_NS,
        "follow": True,
        "limit": 2**64 - 1,
        "key_prefix": "é".encode(),
        "bookmarks": True,
        "metadata": {"run": "1"},
    }
    found = REQUESTS.replay(pb.ReplayRequest(agent_id="a", **fields).SerializeToString())
    assert found == ReplayArguments(agent=A, **wanted)
    found = REQUESTS.replay_log(pb.ReplayLogRequest(namespace="n", agent_prefix="p", **fields).SerializeToString())
    assert found == ReplayLogArguments(namespace="n", agent_prefix="p", **wanted)
    found = REQUESTS.replay(pb.ReplayRequest(agent_id="a", start_time=TIME, end_ts=7).SerializeToString())
    assert found == ReplayArguments(agent=A, start_time_ns=TIME_NS, end_ts=7)


def test_a_replay_that_asks_for_nothing_in_particular():
    assert REQUESTS.replay(pb.ReplayRequest(agent_id="a").SerializeToString()) == ReplayArguments(agent=A)
    assert REQUESTS.replay_log(b"") == ReplayLogArguments()


def test_all_namespaces_and_the_default_one_are_two_things():
    assert REQUESTS.replay_log(pb.ReplayLogRequest().SerializeToString()).namespace is None
    assert REQUESTS.replay_log(pb.ReplayLogRequest(namespace="").SerializeToString()).namespace == "default"


@pytest.mark.parametrize(("read", "message", "fields"), REPLAYS)
def test_the_filters_of_a_replay_have_limits(read, message, fields):
    over = refused("key_prefix is 1025 bytes; the limit is 1024", read, message(**fields, key_prefix="x" * 1025))
    assert over == ("1024", "1025")
    metadata = {str(n): "" for n in range(METADATA_ENTRIES + 1)}
    assert refused("33 entries of metadata", read, message(**fields, metadata=metadata)) == ("32", "33")
    refused("a name in metadata is empty", read, message(**fields, metadata={"": ""}))
    refused("a value in metadata is 513 bytes", read, message(**fields, metadata={"n": "x" * 513}))


def test_the_names_of_a_replay_have_limits():
    refused("agent_id is empty", REQUESTS.replay, pb.ReplayRequest())
    assert refused("agent_prefix", REQUESTS.replay_log, pb.ReplayLogRequest(agent_prefix="é" * 129)) == ("256", "258")
    assert refused("namespace", REQUESTS.replay_log, pb.ReplayLogRequest(namespace="x" * 257)) == ("256", "257")


@pytest.mark.parametrize("read", [REQUESTS.history, REQUESTS.diff, REQUESTS.replay, REQUESTS.replay_log])
def test_what_is_no_request_is_refused(read):
    with pytest.raises(InvalidRequestError, match=r"^the request is not a well-formed \w+Request$"):
        read(b"\xff")
