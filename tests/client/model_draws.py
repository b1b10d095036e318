"""What the model tests write and ask for: the names, values and times to live that Hypothesis draws from."""

from hypothesis import strategies as st

from statehouse.limits import VALUE_INLINE_BYTES

NAMESPACES = ("{}", "{}:b", "{}\0é🔑")
AGENTS = ("a", "b:\0")
KEYS = ("k", "k/1", "k\0", "ключ🔑")
SHORT_S = 1
"""What lasts so long expires while a test runs: time is real here."""
LONG_S = 100_000

namespaces = st.integers(0, len(NAMESPACES) - 1)
agents = st.tuples(namespaces, st.sampled_from(AGENTS))
keys = st.sampled_from(KEYS)
prefixes = st.sampled_from(("", "k", "k/", "k\0", "ю"))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | texts
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
large = st.sampled_from((VALUE_INLINE_BYTES - 20, VALUE_INLINE_BYTES, 5_000)).map(lambda size: {"filler": "x" * size})
telling = st.just({"yes": True, "one": 1, "minus zero": -0.0, "empty": [{}, []], "nothing": None})
values = st.dictionaries(texts, json_values, max_size=3) | large | telling
ttls = st.sampled_from((None, None, None, LONG_S, SHORT_S))
staged = st.tuples(agents, keys, values, ttls) | st.tuples(agents, keys, st.none(), st.none())
"""A write, or, without a value, a delete."""
several = st.lists(staged, min_size=4, max_size=10)
checks = st.lists(st.tuples(agents, keys, st.integers(0, 3) | st.booleans()), max_size=2)
"""Versions that are often those of keys that were never or seldom written, or whether there is a value."""
offsets = st.none() | st.integers(-1, 15)
"""How far before the newest commit."""
