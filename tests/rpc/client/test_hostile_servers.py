"""Servers that send whatever comes to mind: calls fail or go on, nothing raises, nothing grows."""

import random

import pytest
from rpc.client.h2_peer import HEADERS, PATH, H2Peer

from statehouse.rpc.client.call import Call
from statehouse.rpc.client.protocol import ClientProtocol, Keepalive
from statehouse.rpc.client.request_headers import Greeting

CALLS = 6
TRAFFIC_OF_CALLS = (1, 3, 5, 7, 9, 11)


def honest_frames():
    """What an honest server sends, frame by frame."""
    peer = H2Peer()
    client = new_client()
    start_calls(client)
    peer.take(bytes(client.take_output()))
    for stream_id in TRAFFIC_OF_CALLS:
        peer.answer(stream_id, b"one", b"x" * 3_000, headers=[*HEADERS, ("grpc-encoding", "gzip")])
    peer.h2.ping(b"12345678")
    peer.h2.close_connection(last_stream_id=11)
    data = peer.h2.data_to_send()
    frames = []
    while data:
        size = 9 + int.from_bytes(data[:3], "big")
        frames.append(data[:size])
        data = data[size:]
    return frames


def new_client():
    return ClientProtocol(Greeting("db:1"), Keepalive(), address="db:1", now=0.0)


def start_calls(client):
    calls = [Call("Replay", 100.0, 100.0, streaming=number % 2 == 0) for number in range(CALLS)]
    for call in calls:
        client.start(call, PATH, b"request", 100.0, 0.0)
    return calls


def mutated(rng, frames):
    for frame in frames:
        choice = rng.random()
        if choice < 0.1:
            continue
        if choice < 0.3:
            mutable = bytearray(frame)
            for _ in range(rng.randrange(1, 4)):
                mutable[rng.randrange(3, len(mutable))] = rng.randrange(256)
            yield bytes(mutable)
        elif choice < 0.4:
            payload = rng.randbytes(rng.choice([0, 1, 4, 5, 8, 40]))
            stream_id = rng.choice([0, 1, 2, 3, 11, 13, 2**31 - 1])
            head = len(payload).to_bytes(3, "big") + bytes([rng.randrange(12), rng.choice([0, 1, 4, 5, 8, 0x25, 255])])
            yield head + stream_id.to_bytes(4, "big") + payload
        elif choice < 0.45:
            yield frame * rng.randrange(2, 5)
        else:
            yield frame


@pytest.mark.parametrize("seed", range(300))
def test_mutated_answers(seed):
    rng = random.Random(seed)
    client = new_client()
    calls = start_calls(client)
    data = b"".join(mutated(rng, honest_frames()))
    now, at = 0.0, 0
    while at < len(data):
        size = rng.randrange(1, 2_000)
        client.receive(data[at : at + size], now)
        at += size
        now += 0.01
        client.tick(now)
        client.take_output()
        if rng.random() < 0.1:
            client.leave(rng.choice(calls))
        if rng.random() < 0.1 and client.ended is None and not client.draining:
            client.start(Call("GetState", 100.0, 100.0, streaming=False), PATH, b"", None, now)
    assert len(client.streams) <= CALLS + len(data)
    for stream in client.streams.values():
        assert not stream.call.over
    client.fail_all("gone")
    assert all(call.over for call in calls)


def test_endless_messages_of_no_length_end_the_connection():
    client = new_client()
    (call, *_) = start_calls(client)
    frames = honest_frames()
    client.receive(frames[0], 0.0)
    client.receive(next(frame for frame in frames if frame[3] == 1), 0.0)
    for _ in range(5_000):
        client.receive(b"\0\0\0\0\0\0\0\0\1", 0.0)
    assert client.ended is not None
    assert not call.messages


def test_pings_that_are_too_many_end_the_connection():
    client = new_client()
    client.receive(honest_frames()[0], 0.0)
    for _ in range(5_000):
        client.receive(b"\0\0\x08\6\0\0\0\0\0" + bytes(8), 0.0)
    assert client.ended is not None
    assert len(client.output) < 100_000


def test_the_frames_of_an_honest_server_are_good():
    client = new_client()
    calls = start_calls(client)
    client.receive(b"".join(honest_frames()), 0.0)
    assert [call.messages for call in calls] == [[b"one", b"x" * 3_000]] * CALLS
    assert [call.error for call in calls] == [None] * CALLS


def test_small_answers_are_no_flood_however_fast_they_come():
    client = new_client()
    (call, *_) = start_calls(client)
    frames = honest_frames()
    client.receive(frames[0], 0.0)
    client.receive(next(frame for frame in frames if frame[3] == 1), 0.0)
    event = b"\0\0\x06\0\0\0\0\0\1" + b"\0\0\0\0\1x"
    window = b"\0\0\4\x08\0\0\0\0\0\0\0\0\1"
    for _ in range(100):
        client.receive((event + window) * 1_000, 0.0)
        assert len(call.messages) == 1_000
        call.messages.clear()
        client.want(call)
    assert client.ended is None
