"""What a reader wants of an event, cut out of its bytes; protobuf judges what is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse.storage.section import agent_fields, metadata_fields, section_body, stamp
from statehouse.storage.section_filter import SectionFilter
from statehouse.storage.wire import WireError
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import ReplayEvent

ALICE = AgentId("n", "alice")
KEYS = st.text(alphabet="ab", max_size=3)
METADATA = st.dictionaries(st.sampled_from("pqr"), st.sampled_from("xy"), max_size=3)


def section(keys, metadata):
    operations = [(key.encode(), None if at % 2 else b"", at + 1) for at, key in enumerate(keys)]
    return section_body(agent_fields(ALICE), "t1", operations, metadata_fields(metadata)).encoded + stamp(
        7, 1_500_000_000
    )


@given(st.lists(KEYS, min_size=1, max_size=6), METADATA, KEYS, METADATA)
def test_what_is_left_is_what_is_wanted(keys, metadata, prefix, wanted):
    encoded = section(keys, metadata)
    expected = ReplayEvent.FromString(encoded)
    kept = [operation for operation in expected.operations if operation.key.startswith(prefix)]
    found = SectionFilter(prefix.encode(), wanted).apply(encoded)
    if not kept or not wanted.items() <= metadata.items():
        assert found is None
    else:
        del expected.operations[:]
        expected.operations.extend(kept)
        assert ReplayEvent.FromString(found) == expected


def test_nothing_to_filter_leaves_the_bytes_alone():
    encoded = section(["a", "b"], {"p": "x"})
    assert SectionFilter().lets_all_pass
    assert SectionFilter().apply(encoded) is encoded
    assert SectionFilter(b"", {"p": "x"}).apply(encoded) is encoded


def test_fields_of_a_later_version_pass():
    later = section(["a", "b"], {}) + b"\xfa\x3f\x02hi"  # field 1023
    assert SectionFilter(b"b").apply(later).endswith(b"\xfa\x3f\x02hi")


def test_what_is_no_section():
    with pytest.raises(WireError):
        SectionFilter(b"a").apply(b"\x1a\x7f")
