"""Sockets and other streams as a connection sees them, and the one task that reads for all sockets."""

import socket

import pytest
import trio
import trio.testing
from rpc.fix_memory_peer import settle

from statehouse.rpc.server.link import SocketLink, StreamLink
from statehouse.rpc.server.poller import Poller


@pytest.fixture
async def poller(nursery):
    made = Poller()
    nursery.start_soon(made.run)
    return made


class Taken:
    """Takes what a link reads; no more once `full`."""

    def __init__(self):
        self.pieces, self.full, self.came = [], False, trio.Event()

    def __call__(self, received):
        self.pieces.append(received)
        self.came.set()
        return not self.full


async def test_a_socket_takes_what_its_buffer_holds_and_then_nothing(poller):
    ours, theirs = trio.socket.socketpair()
    async with trio.SocketStream(ours) as stream, trio.SocketStream(theirs) as peer:
        link = SocketLink(stream, poller)
        sent = 0
        while taken := link.send_now(bytearray(100_000)):
            sent += taken
        assert 0 < sent < 100_000_000
        received = 0
        while received < sent:
            received += len(await peer.receive_some())
        assert link.send_now(bytearray(10)) == 10


async def test_a_socket_whose_peer_is_gone_is_broken(poller):
    ours, theirs = trio.socket.socketpair()
    async with trio.SocketStream(ours) as stream:
        link = SocketLink(stream, poller)
        theirs.close()
        with pytest.raises(trio.BrokenResourceError):
            link.send_now(bytearray(b"x"))


async def test_a_socket_that_was_reset_is_at_its_end(poller):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        peer = await trio.open_tcp_stream(*listener.socket.getsockname())
        async with await listener.accept() as stream:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await peer.aclose()
            taken = Taken()
            await SocketLink(stream, poller).read(taken)
            assert taken.pieces == [b""]


@pytest.mark.parametrize("kind", ["socket", "stream"])
async def test_a_link_is_read_until_no_more_is_taken_and_loses_nothing(poller, kind):
    ours, theirs = trio.socket.socketpair()
    async with trio.SocketStream(ours) as stream, trio.SocketStream(theirs) as peer:
        link = SocketLink(stream, poller) if kind == "socket" else StreamLink(stream)
        taken = Taken()
        await peer.send_all(b"one")
        taken.full = True
        await link.read(taken)
        await peer.send_all(b"two")
        await settle()
        assert taken.pieces == [b"one"]
        taken.full = False
        taken.came = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.read, taken)
            await taken.came.wait()
            nursery.cancel_scope.cancel()
        await peer.send_all(b"three")
        await peer.send_eof()
        await link.read(taken)
        assert taken.pieces == [b"one", b"two", b"three", b""]


async def test_a_bug_of_who_takes_is_raised_where_it_reads_and_hurts_no_other(poller):
    def bug(_received):
        raise ZeroDivisionError

    ours, theirs = trio.socket.socketpair()
    async with trio.SocketStream(ours) as stream, trio.SocketStream(theirs) as peer:
        await peer.send_all(b"x")
        with pytest.raises(ZeroDivisionError):
            await SocketLink(stream, poller).read(bug)
        await peer.send_all(b"y")
        taken = Taken()
        taken.full = True
        await SocketLink(stream, poller).read(taken)
        assert taken.pieces == [b"y"]


async def test_a_poller_that_was_cancelled_can_still_be_left():
    poller, (ours, theirs) = Poller(), trio.socket.socketpair()
    with ours, theirs:
        poller.add(ours.fileno(), lambda: None)
        with trio.CancelScope() as scope:
            scope.cancel()
            await poller.run()
        poller.remove(ours.fileno())


async def test_any_other_stream_is_sent_by_the_task():
    ours, theirs = trio.testing.memory_stream_pair()
    link = StreamLink(ours)
    assert link.send_now(bytearray(b"x")) == 0
    await link.send_all(bytearray(b"all"))
    assert await theirs.receive_some() == b"all"
