"""From the bytes of an answer to its message."""

from google.protobuf.message import DecodeError, Message

from statehouse.errors import InvalidRequestError, StatehouseError
from statehouse.rpc.contract import Method
from statehouse.rpc.messages import Compressed

__all__ = ["decode_answer"]


def decode_answer(method: Method, message: bytes | Compressed) -> Message:
    """The message that came, inflated if it must be. StatehouseError when it is none."""
    try:
        content = message.inflate() if isinstance(message, Compressed) else message
        return method.response_type.FromString(content)
    except (DecodeError, InvalidRequestError) as error:
        raise StatehouseError(f"the answer to {method.name} is not readable: {error}") from error
