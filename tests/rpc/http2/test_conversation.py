"""A client's and a server's connection talk to each other in random pieces: what was sent is what arrives.

The model is a list for each stream and direction of what was sent. What a reset overtakes may be missing at the end;
nothing else may be missing, doubled, or in another order.
"""

from typing import Any

from attrs import define, field
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rpc.http2.fix_connection import Recorder

from statehouse.rpc.http2.frames import ErrorCode, Setting
from statehouse.rpc.http2.header_blocks import BLOCK_BYTES, HeaderEncoder
from statehouse.rpc.http2.streams import State, Stream

CLIENT, SERVER = "client", "server"
OTHER = {CLIENT: SERVER, SERVER: CLIENT}
sides = st.sampled_from([CLIENT, SERVER])
lists = st.lists(
    st.tuples(st.sampled_from([b"a", b"key", b"long"]), st.sampled_from([b"", b"1", b"v" * 3_000, b"w" * 20_000])),
    min_size=1,
    max_size=4,
).filter(lambda fields: sum(len(name) + len(value) for name, value in fields) <= BLOCK_BYTES // 2)


class Side(Recorder):
    """A recorder that takes settings to heart."""

    def __init__(self, *, client: bool, window: int) -> None:
        super().__init__(client=client, ours={Setting.INITIAL_WINDOW_SIZE: window})
        self.encoder = HeaderEncoder()
        self.mine: dict[int, Stream] = {}

    def _setting_came(self, name: int, value: int) -> None:
        if name == Setting.HEADER_TABLE_SIZE:
            self.encoder.limit_table(value)


@define
class Sent:
    """In one direction of a stream."""

    headers: list[list[tuple[bytes, bytes]]] = field(factory=list)
    content: bytearray = field(factory=bytearray)
    ended: bool = False


class Conversation(RuleBasedStateMachine):
    """Steps of both sides; the wire between them holds what is not yet delivered."""

    # A server's smaller window would hold before its client can know of it.
    @initialize(windows=st.tuples(st.integers(0, 100_000), st.integers(65_535, 150_000)))
    def begin(self, windows: tuple[int, int]) -> None:
        self.sides = {CLIENT: Side(client=True, window=windows[0]), SERVER: Side(client=False, window=windows[1])}
        self.wire = {CLIENT: bytearray(), SERVER: bytearray()}  # by who receives it
        self.sent: dict[tuple[str, int], Sent] = {}
        self.reset: set[int] = set()
        self.granted: dict[tuple[str, int], int] = {}

    def flush(self) -> None:
        for side, connection in self.sides.items():
            self.wire[OTHER[side]] += connection.take_output()

    def pick(self, side: str, number: int) -> Stream | None:
        """A stream on which that side may still send."""
        known = self.sides[side].mine if side == CLIENT else self.sides[side].opened
        may = [each for each in known.values() if each.state in (State.OPEN, State.HALF_CLOSED_REMOTE)]
        return may[number % len(may)] if may else None

    @rule(fields=lists, ends=st.booleans())
    def call(self, fields: list[tuple[bytes, bytes]], *, ends: bool) -> None:
        client = self.sides[CLIENT]
        stream = client.open()
        client.mine[stream.id] = stream
        self.send_list(CLIENT, stream, fields, ends=ends)

    @rule(side=sides, number=st.integers(0, 20), fields=lists, ends=st.booleans())
    def more_headers(self, side: str, number: int, fields: list[tuple[bytes, bytes]], *, ends: bool) -> None:
        if (stream := self.pick(side, number)) is not None:
            self.send_list(side, stream, fields, ends=ends)

    def send_list(self, side: str, stream: Stream, fields: list[tuple[bytes, bytes]], *, ends: bool) -> None:
        connection = self.sides[side]
        connection.send_headers(stream, connection.encoder.encode(fields), ends=ends)
        sent = self.sent.setdefault((side, stream.id), Sent())
        sent.headers.append(fields)
        sent.ended |= ends

    @rule(
        side=sides, number=st.integers(0, 20), size=st.integers(0, 80_000), seed=st.integers(0, 255), ends=st.booleans()
    )
    def content(self, side: str, number: int, size: int, seed: int, *, ends: bool) -> None:
        if (stream := self.pick(side, number)) is None:
            return
        connection = self.sides[side]
        piece = (bytes((seed,)) + b"content ") * (max(0, min(size, connection.room(stream))) // 9)
        connection.send_data(stream, piece, ends=ends)
        sent = self.sent.setdefault((side, stream.id), Sent())
        sent.content += piece
        sent.ended |= ends

    @rule(side=sides, number=st.integers(0, 20), size=st.integers(1, 50_000))
    def grant(self, side: str, number: int, size: int) -> None:
        streams = list(self.sides[side].streams.values())
        if streams:
            self.sides[side].grant(streams[number % len(streams)], size)

    @rule(side=sides, number=st.integers(0, 20))
    def give_up(self, side: str, number: int) -> None:
        streams = list(self.sides[side].streams.values())
        if streams:
            stream = streams[number % len(streams)]
            self.reset.add(stream.id)
            self.sides[side].reset(stream, ErrorCode.CANCEL)

    @rule(side=sides)
    def ping(self, side: str) -> None:
        self.sides[side].ping(b"question")

    @rule(side=sides, size=st.integers(1, 100_000), cut=st.integers(1, 40_000))
    def deliver(self, side: str, size: int, cut: int) -> None:
        self.flush()
        came = bytes(self.wire[side][:size])
        del self.wire[side][:size]
        for at in range(0, len(came), cut):
            self.sides[side].receive(came[at : at + cut], 0.0)

    @precondition(lambda self: hasattr(self, "sides"))
    @invariant()
    def nobody_finds_fault(self) -> None:
        for connection in self.sides.values():
            assert connection.ended is None, connection.ended
            assert all(stream.receive_window >= 0 for stream in connection.streams.values())
            assert connection.send_window >= 0
        for side in OTHER:
            self.compare(side, whole=False)

    def compare(self, side: str, *, whole: bool) -> None:
        """What this side received with what the other one sent."""
        arrived: dict[int, Sent] = {}
        for kind, stream_id, *rest in (event for event in self.sides[side].events if len(event) > 2):
            got = arrived.setdefault(stream_id, Sent())
            if kind in ("opened", "headers", "data"):
                assert not got.ended
                got.ended = rest[1]
            if kind == "data":
                got.content += rest[0]
            elif kind in ("opened", "headers"):
                got.headers.append([(name, value) for name, value, _ in rest[0]])
            elif kind == "reset":
                assert stream_id in self.reset
        for stream_id, got in arrived.items():
            sent = self.sent.get((OTHER[side], stream_id), Sent())
            assert got.headers == sent.headers[: len(got.headers)]
            assert sent.content.startswith(got.content)
            assert sent.ended or not got.ended
            if got.ended or (whole and stream_id not in self.reset):
                assert got == sent

    def teardown(self) -> None:
        if not hasattr(self, "sides"):
            return
        self.flush()
        while any(self.wire.values()):
            for side in OTHER:
                self.deliver(side, 1_000_000, 100_000)
            self.flush()
        self.nobody_finds_fault()
        for side in OTHER:
            self.compare(side, whole=True)
        assert self.sides[CLIENT].streams.keys() == self.sides[SERVER].streams.keys()
        for stream_id, ours in self.sides[CLIENT].streams.items():
            theirs = self.sides[SERVER].streams[stream_id]
            assert (ours.send_window, ours.receive_window) == (theirs.receive_window, theirs.send_window)


TestConversation: Any = Conversation.TestCase
TestConversation.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
