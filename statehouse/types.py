"""The vocabulary that storage, actors, edge and clients share."""

from typing import NamedTuple, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = "dict[str, JsonValue]"

DEFAULT_NAMESPACE = "default"
"""What an empty namespace means on the wire."""


class AgentId(NamedTuple):
    """One agent: the unit of partitioning. Names are compared byte for byte."""

    namespace: str
    agent_id: str
