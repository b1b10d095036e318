from statehouse.v1 import statehouse_pb2 as _statehouse_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogRecord(_message.Message):
    __slots__ = ("sections",)
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    sections: _containers.RepeatedCompositeFieldContainer[_statehouse_pb2.ReplayEvent]
    def __init__(self, sections: _Optional[_Iterable[_Union[_statehouse_pb2.ReplayEvent, _Mapping]]] = ...) -> None: ...

class AgentMeta(_message.Message):
    __slots__ = ("first_commit_ts", "last_commit_ts", "commits", "operations", "live_keys")
    FIRST_COMMIT_TS_FIELD_NUMBER: _ClassVar[int]
    LAST_COMMIT_TS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    LIVE_KEYS_FIELD_NUMBER: _ClassVar[int]
    first_commit_ts: int
    last_commit_ts: int
    commits: int
    operations: int
    live_keys: int
    def __init__(self, first_commit_ts: _Optional[int] = ..., last_commit_ts: _Optional[int] = ..., commits: _Optional[int] = ..., operations: _Optional[int] = ..., live_keys: _Optional[int] = ...) -> None: ...

class Watermark(_message.Message):
    __slots__ = ("commit_ts", "chain", "format_version", "committed_at_ns")
    COMMIT_TS_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_NS_FIELD_NUMBER: _ClassVar[int]
    commit_ts: int
    chain: bytes
    format_version: int
    committed_at_ns: int
    def __init__(self, commit_ts: _Optional[int] = ..., chain: _Optional[bytes] = ..., format_version: _Optional[int] = ..., committed_at_ns: _Optional[int] = ...) -> None: ...

class SnapshotHeader(_message.Message):
    __slots__ = ("format_version", "store_id", "watermark")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    store_id: bytes
    watermark: Watermark
    def __init__(self, format_version: _Optional[int] = ..., store_id: _Optional[bytes] = ..., watermark: _Optional[_Union[Watermark, _Mapping]] = ...) -> None: ...
