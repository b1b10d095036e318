"""The fuzz of the edge: some of its frames, and that it catches a connection that does wrong."""

import re
import subprocess
import sys
from pathlib import Path

import fuzz_edge
import pytest
from edge_fuzz.reader import OutputError, OutputReader

from statehouse.rpc.client.protocol import ClientProtocol
from statehouse.rpc.http2 import connection as connection_module
from statehouse.rpc.http2.connection import Connection
from statehouse.rpc.http2.frames import FrameType, frame
from statehouse.rpc.server.protocol import ServerProtocol

ROOT = Path(__file__).resolve().parents[2]
SEED = 20_260_801
GREETING = frame(FrameType.SETTINGS, 0, 0)


def test_twenty_thousand_frames():
    command = [sys.executable, str(ROOT / "tools" / "fuzz_edge.py"), "--frames", "20000"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout  # the seed is in it
    assert re.search(r"^seed \d+: 2\d{4} frames to \d{3} connections", ran.stdout)
    for code in ("PROTOCOL_ERROR", "FRAME_SIZE_ERROR", "COMPRESSION_ERROR", "none"):
        assert re.search(rf"{code} \d", ran.stdout)


def take_with(monkeypatch, kind, take):
    taken = list(Connection._TAKE)
    taken[kind] = take
    monkeypatch.setattr(Connection, "_TAKE", tuple(taken))


def raise_often(monkeypatch):
    def ping(connection, flags, stream_id, payload):
        raise ValueError("a ping")

    take_with(monkeypatch, FrameType.PING, ping)


def reset_what_is_idle(monkeypatch):
    def priority(connection, flags, stream_id, payload):
        connection.output += frame(FrameType.RST_STREAM, 0, stream_id, bytes(4))

    take_with(monkeypatch, FrameType.PRIORITY, priority)


def answer_with_half_a_frame(monkeypatch):
    real = connection_module.frame
    monkeypatch.setattr(connection_module, "frame", lambda *parts: real(*parts)[: -1 if parts[0] == 6 else None])


def hear_on_after_the_end(monkeypatch):
    real = Connection.receive

    def receive(self, received, now):
        ended, self.ended = self.ended, None
        real(self, received, now)
        self.ended = self.ended or ended

    monkeypatch.setattr(Connection, "receive", receive)


def keep_what_requests_held(monkeypatch):
    monkeypatch.setattr(ServerProtocol, "_let_go_of_bytes", lambda *_: None)


def remember_everything(monkeypatch):
    real = Connection.receive

    def receive(self, received, now):
        self.all = [*getattr(self, "all", []), bytes(1_000_000)]
        real(self, received, now)

    monkeypatch.setattr(Connection, "receive", receive)


def leave_callers_waiting(monkeypatch):
    monkeypatch.setattr(ClientProtocol, "fail_all", lambda *_: None)


FAULTS = {
    raise_often: "ValueError: a ping",
    reset_what_is_idle: "OutputError: ",
    answer_with_half_a_frame: "OutputError: ",
    hear_on_after_the_end: "a connection that had ended took notice",
    keep_what_requests_held: "bytes of the budget are held",
    leave_callers_waiting: "hangs",
    remember_everything: "the connection holds",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_caught_and_repeated(fault, monkeypatch, capsys):
    fault(monkeypatch)
    assert fuzz_edge.main(["--frames", "20000", "--seed", str(SEED)]) == 1
    out = capsys.readouterr().out
    assert FAULTS[fault] in out
    again = re.search(r"again: python tools/fuzz_edge.py --seed (\d+) --only (\d+)", out)
    assert again is not None
    assert fuzz_edge.main(["--seed", again[1], "--only", again[2]]) == 1
    assert FAULTS[fault] in capsys.readouterr().out


def test_the_piece_is_shown_in_hex(monkeypatch, capsys):
    raise_often(monkeypatch)
    fuzz_edge.main(["--frames", "20000", "--seed", str(SEED)])
    shown = re.search(r"^piece \d+ of \d+, \d+ bytes: ([0-9a-f]+)$", capsys.readouterr().out, re.MULTILINE)
    assert shown is not None
    assert b"8 bytes." in bytes.fromhex(shown[1]) or b"\x06" in bytes.fromhex(shown[1])


@pytest.mark.parametrize(
    "output",
    [
        GREETING[:5],
        frame(FrameType.PING, 0, 0, bytes(8)),
        GREETING + frame(FrameType.PING, 0, 0, bytes(7)),
        GREETING + frame(FrameType.PING, 0, 1, bytes(8)),
        GREETING + frame(FrameType.PUSH_PROMISE, 0, 1, bytes(4)),
        GREETING + frame(FrameType.WINDOW_UPDATE, 0, 0, bytes(4)),
        GREETING + frame(FrameType.GOAWAY, 0, 0, bytes(7)),
        GREETING + frame(FrameType.SETTINGS, 1, 0, bytes(6)),
        GREETING + frame(FrameType.DATA, 0, 1, b"no headers"),
        GREETING + frame(FrameType.HEADERS, 4, 3, b"\x88"),
        GREETING + frame(FrameType.HEADERS, 4, 2, b"\x88"),
        GREETING + frame(FrameType.HEADERS, 0x24, 1, bytes(5) + b"\x88"),
        GREETING + frame(FrameType.HEADERS, 0, 1, b"\x88") + frame(FrameType.DATA, 0, 1),
        GREETING + frame(FrameType.HEADERS, 5, 1, b"\x88") + frame(FrameType.DATA, 0, 1),
        GREETING + frame(FrameType.RST_STREAM, 0, 1, bytes(4)) + frame(FrameType.HEADERS, 4, 1, b"\x88"),
        GREETING + frame(FrameType.HEADERS, 4, 1, b"\x88") + frame(FrameType.DATA, 0, 1, bytes(16_385)),
    ],
)
def test_the_reader_refuses(output):
    with pytest.raises(OutputError):
        OutputReader(client=False, frame_bytes=16_384).read(output, 1)


def test_the_reader_takes_what_is_right():
    answer = frame(FrameType.HEADERS, 0, 1, b"\x88") + frame(FrameType.CONTINUATION, 4, 1)
    answer += frame(FrameType.DATA, 0, 1, bytes(16_384)) + frame(FrameType.HEADERS, 5, 1, b"\x88")
    assert OutputReader(client=False, frame_bytes=16_384).read(GREETING + answer, 1) == 5
