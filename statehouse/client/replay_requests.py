"""The requests for events, from what callers say: which agents, from where to where, and what of it."""

import datetime as dt
from collections.abc import Mapping
from typing import TypeVar

from attrs import frozen

from statehouse.client.arguments import (
    check_counts,
    check_metadata,
    check_optional_numbers,
    check_texts,
    one_of,
    timestamp,
)
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["Window", "log_request", "replay_request"]

R = TypeVar("R", pb.ReplayRequest, pb.ReplayLogRequest)


@frozen
class Window:
    """From where to where, and what of it. As in `AsyncStatehouse.replay`."""

    start_ts: int | None = None
    end_ts: int | None = None
    start_time: dt.datetime | None = None
    end_time: dt.datetime | None = None
    limit: int | None = None
    key_prefix: str = ""
    metadata: Mapping[str, str] | None = None


def replay_request(namespace: str, agent_id: str, window: Window) -> pb.ReplayRequest:
    """For the events of one agent. TypeError and ValueError for what the wire cannot carry."""
    check_texts(agent_id=agent_id)
    return _windowed(pb.ReplayRequest(namespace=namespace, agent_id=agent_id), window)


def log_request(namespace: str | None, agent_prefix: str, window: Window) -> pb.ReplayLogRequest:
    """For those of many; `namespace` None: of all namespaces."""
    check_texts(agent_prefix=agent_prefix)
    if namespace is not None:
        check_texts(namespace=namespace)
    return _windowed(pb.ReplayLogRequest(namespace=namespace, agent_prefix=agent_prefix), window)


def _windowed(request: R, window: Window) -> R:
    check_optional_numbers(start_ts=window.start_ts, end_ts=window.end_ts)
    one_of(start_ts=window.start_ts, start_time=window.start_time)
    one_of(end_ts=window.end_ts, end_time=window.end_time)
    check_counts(2**64 - 1, limit=window.limit)
    check_texts(key_prefix=window.key_prefix)
    if window.start_ts is not None:
        request.start_ts = window.start_ts
    if window.end_ts is not None:
        request.end_ts = window.end_ts
    start, end = timestamp("start_time", window.start_time), timestamp("end_time", window.end_time, whole=True)
    if start is not None:
        request.start_time.CopyFrom(start)
    if end is not None:
        request.end_time.CopyFrom(end)
    request.limit = window.limit or 0
    request.key_prefix = window.key_prefix
    request.metadata.update(check_metadata(window.metadata))
    return request
