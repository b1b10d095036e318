"""What a stream that broke off asks for next, and what of the answer is new."""

import datetime as dt

import pytest

from statehouse.rpc.client.resuming import LogResume, ReplayResume
from statehouse.v1 import statehouse_pb2 as pb


def event(commit_ts):
    return pb.ReplayEvent(commit_ts=commit_ts, agent_id="a")


def bookmark(commit_ts):
    return pb.ReplayEvent(commit_ts=commit_ts, bookmark=True)


@pytest.mark.parametrize(
    "request_",
    [
        pb.ReplayRequest(agent_id="a"),
        pb.ReplayRequest(agent_id="a", start_ts=3, limit=2, key_prefix="k"),
        pb.ReplayRequest(agent_id="a", start_ts=3, end_ts=7),
    ],
)
def test_a_watch_of_an_agent_without_events_begins_where_it_began(request_):
    resume = ReplayResume(request_)
    told = [bookmark(5), bookmark(7)]
    assert resume.take(told) == told
    assert resume.rest() == request_
    # It has come to be as a fork.
    assert resume.take([event(4)]) == [event(4)]
    assert resume.rest().start_ts == 5


def test_a_start_in_time_is_kept_until_an_event_has_come():
    request = pb.ReplayRequest(agent_id="a")
    request.start_time.FromDatetime(dt.datetime(2030, 1, 31, tzinfo=dt.UTC))
    resume = ReplayResume(request)
    resume.take([bookmark(5)])
    assert resume.rest() == request
    resume.take([event(4), bookmark(9)])
    assert (resume.rest().start_ts, resume.rest().HasField("start_time")) == (10, False)


def test_behind_an_event_a_bookmark_is_where_to_go_on():
    resume = ReplayResume(pb.ReplayRequest(agent_id="a", start_ts=1, limit=3))
    assert resume.take([bookmark(1), event(2), bookmark(6)]) == [bookmark(1), event(2), bookmark(6)]
    assert resume.rest() == pb.ReplayRequest(agent_id="a", start_ts=7, limit=2)
    assert resume.take([bookmark(5), event(2), event(6), event(7)]) == [bookmark(5), event(7)]
    assert resume.rest() == pb.ReplayRequest(agent_id="a", start_ts=8, limit=1)
    resume.take([event(8)])
    assert resume.rest() is None


def test_a_bookmark_is_where_the_log_goes_on():
    resume = LogResume(pb.ReplayLogRequest(agent_prefix="a", start_ts=1))
    resume.take([bookmark(5)])
    assert resume.rest() == pb.ReplayLogRequest(agent_prefix="a", start_ts=6)
