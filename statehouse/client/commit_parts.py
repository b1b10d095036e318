"""What a commit is made of, from the caller's words to the wire's: operations, preconditions, metadata."""

from collections.abc import Iterable

from statehouse.client.arguments import check_numbers, check_texts, check_whole_seconds
from statehouse.client.types import Precondition, Put, Remove
from statehouse.client.values import to_struct
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["operation_of", "operations_given", "precondition_of", "preconditions_given", "preconditions_of"]

_NUMBERS = ("version", "agent_commit_ts", "lease_epoch")


def operation_of(operation: Put | Remove, namespace: str) -> pb.TransactOperation:
    """One write or delete. TypeError and ValueError as the arguments of `Transaction.write`."""
    if not isinstance(operation, Put | Remove):
        raise TypeError(f"an operation must be a Put or a Remove, not a {type(operation).__name__}")
    name = namespace if operation.namespace is None else operation.namespace
    check_texts(agent_id=operation.agent_id, key=operation.key, namespace=name)
    message = pb.TransactOperation(namespace=name, agent_id=operation.agent_id, key=operation.key)
    if isinstance(operation, Put):
        message.value.SetInParent()  # an empty object is a value too
        to_struct(operation.value, message.value)
        if operation.ttl_s is not None:
            message.ttl_s = check_whole_seconds("ttl_s", operation.ttl_s)
    return message


def operations_given(operations: Iterable[Put | Remove]) -> tuple[Put | Remove, ...]:
    """All of them, read once. TypeError for one that is not in a sequence."""
    if isinstance(operations, Put | Remove):
        raise TypeError("operations must be a sequence of them")
    return tuple(operations)


def preconditions_given(preconditions: Iterable[Precondition]) -> tuple[Precondition, ...]:
    """All of them, read once. TypeError for one that is not in a sequence."""
    if isinstance(preconditions, Precondition):
        raise TypeError("preconditions must be a sequence of them")
    return tuple(preconditions)


def preconditions_of(preconditions: Iterable[Precondition], namespace: str) -> list[pb.Precondition]:
    """All of them, in their order, which is what `FailedPrecondition.index` counts."""
    return [precondition_of(each, namespace) for each in preconditions_given(preconditions)]


def precondition_of(given: Precondition, namespace: str) -> pb.Precondition:
    """One precondition. TypeError and ValueError for what the wire cannot carry."""
    if not isinstance(given, Precondition):
        raise TypeError(f"a precondition must be a Precondition, not a {type(given).__name__}")
    name = namespace if given.namespace is None else given.namespace
    check_texts(agent_id=given.agent_id, key=given.key, namespace=name)
    if given.condition == "exists":
        if not isinstance(given.expected, bool):
            raise TypeError(f"exists must be a bool, not a {type(given.expected).__name__}")
    elif given.condition in _NUMBERS:
        check_numbers(**{given.condition: given.expected})
    else:
        raise ValueError(f"{given.condition!r} is no condition; use the methods of Precondition")
    message = pb.Precondition(namespace=name, agent_id=given.agent_id, key=given.key)
    setattr(message, given.condition, given.expected)
    return message
