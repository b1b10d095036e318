from statehouse.v1 import statehouse_pb2 as _statehouse_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogRecord(_message.Message):
    __slots__ = ("sections", "idempotency", "lease", "fork", "end", "swept_until_ns")
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    FORK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SWEPT_UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    sections: _containers.RepeatedCompositeFieldContainer[_statehouse_pb2.ReplayEvent]
    idempotency: Idempotency
    lease: LeaseChange
    fork: Fork
    end: AgentEnd
    swept_until_ns: int
    def __init__(self, sections: _Optional[_Iterable[_Union[_statehouse_pb2.ReplayEvent, _Mapping]]] = ..., idempotency: _Optional[_Union[Idempotency, _Mapping]] = ..., lease: _Optional[_Union[LeaseChange, _Mapping]] = ..., fork: _Optional[_Union[Fork, _Mapping]] = ..., end: _Optional[_Union[AgentEnd, _Mapping]] = ..., swept_until_ns: _Optional[int] = ...) -> None: ...

class Idempotency(_message.Message):
    __slots__ = ("key", "fingerprint")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    key: str
    fingerprint: bytes
    def __init__(self, key: _Optional[str] = ..., fingerprint: _Optional[bytes] = ...) -> None: ...

class LeaseChange(_message.Message):
    __slots__ = ("namespace", "agent_id", "epoch", "holder", "expires_at_ns")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_NS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    agent_id: str
    epoch: int
    holder: str
    expires_at_ns: int
    def __init__(self, namespace: _Optional[str] = ..., agent_id: _Optional[str] = ..., epoch: _Optional[int] = ..., holder: _Optional[str] = ..., expires_at_ns: _Optional[int] = ...) -> None: ...

class Fork(_message.Message):
    __slots__ = ("namespace", "agent_id", "parent_id", "at_ts", "inherited", "commit_ts")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    AT_TS_FIELD_NUMBER: _ClassVar[int]
    INHERITED_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    agent_id: str
    parent_id: str
    at_ts: int
    inherited: AgentMeta
    commit_ts: int
    def __init__(self, namespace: _Optional[str] = ..., agent_id: _Optional[str] = ..., parent_id: _Optional[str] = ..., at_ts: _Optional[int] = ..., inherited: _Optional[_Union[AgentMeta, _Mapping]] = ..., commit_ts: _Optional[int] = ...) -> None: ...

class AgentEnd(_message.Message):
    __slots__ = ("namespace", "agent_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    agent_id: str
    def __init__(self, namespace: _Optional[str] = ..., agent_id: _Optional[str] = ...) -> None: ...

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
