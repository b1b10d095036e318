"""A recording as commits, and back: which part of it stands under which key.

One commit holds what one step of the run left behind, in this order of keys:

| commit | keys |
|---|---|
| 0 | `task`: name, number of steps, digest, and the members that are known before the first step |
| n = 1, 2, ... | `step/000n`: what the agent thought and did; `tool/000n`: what the environment answered |
| the last | `final/answer`: how it ended (`info`) |

Any of them may also hold `note/history/000n`, the messages that this step added to the history, and
`note/exact/000n`, what the wire would have changed (exact.py). A file that has only a history is carried out message
by message: each message of the assistant begins a step, and what follows it is the answer of its tools.

Everything is a pure function here. A key is written by one commit only, so its version is 1, or a step was done twice.
"""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Final, cast

from attrs import frozen

from examples.resumable_agent.exact import pack, unpack
from examples.resumable_agent.recording import Recording
from statehouse.types import JsonObject, JsonValue

__all__ = ["Commit", "RebuildError", "commits_of", "rebuild"]

TOOL_MEMBERS: Final = ("observation", "execution_time", "state")
"""Of a step, what the environment answered; the rest is the agent's."""
TITLE_CHARACTERS: Final = 60

Messages = list[JsonObject]


class RebuildError(Exception):
    """The values are not those of a recording that was carried out to its end; the message says what is missing."""


@frozen
class Commit:
    """One transaction: its place, what to call it, and what it writes, in order."""

    number: int
    title: str
    values: dict[str, JsonObject]


def commits_of(recording: Recording) -> list[Commit]:
    """The transactions that carry the recording out."""
    source = dict(recording.source)
    trajectory = cast("Messages | None", source.pop("trajectory", None))
    history = cast("Messages | None", source.pop("history", None))
    outcome: JsonObject = {"info": source.pop("info")} if "info" in source else {}
    if trajectory is None:
        before, *turns = _turns(history or [])
        steps = [_parts(turn[0], _holding(turn[1:]) if turn[1:] else {}) for turn in turns]
        notes = [before, *([] for _ in turns)]
    else:
        steps = [_parts(*_split(step)) for step in trajectory]
        notes = _spread(_turns(history or []), len(steps) + 1)
    task: JsonObject = {
        "recording": recording.name,
        "sha256": recording.sha256,
        "steps": len(steps),
        "carried_out": "history" if trajectory is None else "trajectory",
        "has_history": history is not None,
        "members": source,
    }
    contents = [{"task": task}, *({f"{kind}/{{}}": part for kind, part in step.items()} for step in steps)]
    commits = [
        _commit(number, _title(number, len(steps), content), content, messages)
        for number, (content, messages) in enumerate(zip(contents, notes, strict=True))
    ]
    answer: JsonObject = {"steps": len(steps), **outcome}
    return [*commits, _commit(len(commits), "answer", {"final/answer": answer}, [])]


def rebuild(values: Mapping[str, JsonObject]) -> JsonObject:
    """The recording's JSON object, from nothing but the values under the agent's keys. RebuildError."""
    try:
        return _rebuild(_exact(values))
    except KeyError as error:
        raise RebuildError(f"nothing was committed under {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise RebuildError(f"the values are not those of a recording: {error}") from error


def _rebuild(values: Mapping[str, JsonObject]) -> JsonObject:
    task, answer = values["task"], values["final/answer"]
    numbers = [_name(number) for number in range(cast("int", task["steps"]) + 1)]
    members = cast("JsonObject", task["members"])
    info: JsonObject = {"info": answer["info"]} if "info" in answer else {}
    notes = [_messages(values.get(f"note/history/{number}")) for number in numbers]
    steps = [(values[f"step/{number}"], values.get(f"tool/{number}", {})) for number in numbers[1:]]
    if task["carried_out"] == "trajectory":
        trajectory: JsonObject = {"trajectory": [did | answered for did, answered in steps]}
        history = _joined(notes)
    else:
        trajectory = {}
        history = _joined([*notes[:1], *([did, *_messages(answered)] for did, answered in steps)])
    return members | trajectory | ({"history": history} if task["has_history"] else {}) | info


def _turns(history: Messages) -> list[Messages]:
    """The messages before the agent's first one, then each of its messages with what follows it."""
    turns: list[Messages] = [[]]
    for message in history:
        if message.get("role") == "assistant":
            turns.append([])
        turns[-1].append(message)
    return turns


def _spread(turns: list[Messages], commits: int) -> list[Messages]:
    """A turn to each commit; turns past the last commit go to the last, and a commit may have none."""
    first, last = turns[: commits - 1], turns[commits - 1 :]
    spread = [*first, [message for turn in last for message in turn]]
    return spread + [[] for _ in range(commits - len(spread))]


def _split(step: JsonObject) -> tuple[JsonObject, JsonObject]:
    answered = {name: member for name, member in step.items() if name in TOOL_MEMBERS}
    return {name: member for name, member in step.items() if name not in TOOL_MEMBERS}, answered


def _parts(did: JsonObject, answered: JsonObject) -> dict[str, JsonObject]:
    return {"step": did, "tool": answered} if answered else {"step": did}


def _commit(number: int, title: str, content: Mapping[str, JsonObject], messages: Messages) -> Commit:
    named = {key.format(_name(number)): value for key, value in content.items()}
    if messages:
        named[f"note/history/{_name(number)}"] = _holding(messages)
    values: dict[str, JsonObject] = {}
    exact: JsonObject = {}
    for key, value in named.items():
        values[key], texts = pack(value)
        if texts:
            exact[key] = cast("JsonObject", texts)
    if exact:
        values[f"note/exact/{_name(number)}"] = exact
    return Commit(number, title, values)


def _exact(values: Mapping[str, JsonObject]) -> dict[str, JsonObject]:
    """The values as they were before the wire."""
    texts: dict[str, dict[str, str]] = {}
    for key, value in values.items():
        if key.startswith("note/exact/"):
            texts |= cast("dict[str, dict[str, str]]", value)
    if not texts.keys() <= values.keys():
        raise KeyError(min(texts.keys() - values.keys()))
    return {key: unpack(value, texts.get(key, {})) for key, value in values.items()}


def _title(number: int, steps: int, content: Mapping[str, JsonObject]) -> str:
    if not number:
        return "task"
    action = content["step/{}"].get("action")
    # Enough of the action for a line on a terminal, and nothing that steers one.
    line = "".join(takewhile(str.isprintable, " ".join(action.split()))) if isinstance(action, str) else ""
    shown = line if len(line) <= TITLE_CHARACTERS else f"{line[: TITLE_CHARACTERS - 3]}..."
    return f"step {number}/{steps}: {shown}" if shown else f"step {number}/{steps}"


def _holding(messages: Messages) -> JsonObject:
    return {"messages": cast("list[JsonValue]", messages)}


def _messages(value: "JsonObject | None") -> Messages:
    return cast("Messages", (value or {}).get("messages", []))


def _joined(parts: Iterable[Messages]) -> list[JsonValue]:
    return [message for part in parts for message in part]


def _name(number: int) -> str:
    return f"{number:04}"
