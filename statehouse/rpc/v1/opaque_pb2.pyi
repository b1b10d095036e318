from statehouse.v1 import statehouse_pb2 as _statehouse_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OpaqueWriteRequest(_message.Message):
    __slots__ = ("txn_id", "namespace", "agent_id", "key", "value", "ttl_s")
    TXN_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    txn_id: str
    namespace: str
    agent_id: str
    key: str
    value: bytes
    ttl_s: int
    def __init__(self, txn_id: _Optional[str] = ..., namespace: _Optional[str] = ..., agent_id: _Optional[str] = ..., key: _Optional[str] = ..., value: _Optional[bytes] = ..., ttl_s: _Optional[int] = ...) -> None: ...

class OpaqueTransactOperation(_message.Message):
    __slots__ = ("namespace", "agent_id", "key", "value", "ttl_s")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    agent_id: str
    key: str
    value: bytes
    ttl_s: int
    def __init__(self, namespace: _Optional[str] = ..., agent_id: _Optional[str] = ..., key: _Optional[str] = ..., value: _Optional[bytes] = ..., ttl_s: _Optional[int] = ...) -> None: ...

class OpaqueTransactRequest(_message.Message):
    __slots__ = ("namespace", "operations", "preconditions", "idempotency_key", "metadata", "revive")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    PRECONDITIONS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    REVIVE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    operations: _containers.RepeatedCompositeFieldContainer[OpaqueTransactOperation]
    preconditions: _containers.RepeatedCompositeFieldContainer[_statehouse_pb2.Precondition]
    idempotency_key: str
    metadata: _containers.ScalarMap[str, str]
    revive: bool
    def __init__(self, namespace: _Optional[str] = ..., operations: _Optional[_Iterable[_Union[OpaqueTransactOperation, _Mapping]]] = ..., preconditions: _Optional[_Iterable[_Union[_statehouse_pb2.Precondition, _Mapping]]] = ..., idempotency_key: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., revive: bool = ...) -> None: ...
