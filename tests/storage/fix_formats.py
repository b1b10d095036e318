"""The worked examples of docs/formats.md, as bytes."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
LINE = re.compile(r"([0-9a-f]{8})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  +\S.*)?")
EXAMPLE = re.compile(r"\n#### ([^\n]+)\n\n```\n(.+?\n)```\n", re.DOTALL)


def worked_examples(section):
    """The examples below a section of the page, by their headings."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return {name: example_bytes(block) for name, block in EXAMPLE.findall(text)}


def example_bytes(block):
    """The bytes of an example, whose lines are an offset, up to 16 bytes, and what they are."""
    content = b""
    for line in block.splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        assert int(match[1], 16) == len(content), line
        content += bytes.fromhex(match[2])
    return content
