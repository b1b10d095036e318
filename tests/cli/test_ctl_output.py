"""Listings that are printed as they come: the same bytes as in one piece, and nothing before the first."""

import json
from itertools import count, islice

import pytest

from statehouse.cli.ctl_output import json_text, print_array, print_lines, print_members

OBJECTS = {"none": {}, "one": {"a": {"v": 1}}, "several": {f"k\n{n}": {"v": [n, {}, "\x9b\n"]} for n in range(2_500)}}


@pytest.mark.parametrize("members", OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize("indented", [True, False])
def test_an_object_in_pieces_is_the_object(capsys, members, indented):
    print_members({"agent_id": "a\n"}, "keys", iter(members.items()), indented=indented)
    whole = {"agent_id": "a\n", "keys": members}
    assert capsys.readouterr().out == json_text(whole, indent=2 if indented else None) + "\n"


@pytest.mark.parametrize("length", [0, 1, 2, 1_000, 1_001, 2_500])
def test_an_array_in_pieces_is_the_array(capsys, length):
    values = [f"k{number}\x9b" for number in range(length)]
    print_array(iter(values))
    out = capsys.readouterr().out
    assert json.loads(out) == values
    assert out == json_text(values) + "\n"


def failing(before):
    yield from (str(number) for number in range(before))
    raise OSError


@pytest.mark.parametrize(
    "printing", [print_array, print_lines, lambda values: print_members({}, "keys", values, indented=True)]
)
def test_nothing_is_printed_of_what_fails_at_once(capsys, printing):
    with pytest.raises(OSError):  # noqa: PT011
        printing(failing(0))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("before", [1, 1_000, 1_234])
def test_lines_that_came_before_a_failure_are_printed(capsys, before):
    with pytest.raises(OSError):  # noqa: PT011
        print_lines(failing(before))
    assert capsys.readouterr().out == "".join(f"{number}\n" for number in range(before))


def test_lines_are_printed_as_they_come(capsys):
    seen = []

    def lines():
        for number in islice(count(), 3_500):
            if number == 2_500:
                seen.append(capsys.readouterr().out.count("\n"))
            yield str(number)

    print_lines(lines())
    assert seen == [2_000]
