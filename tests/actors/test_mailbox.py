"""The bounded mailbox."""

import pytest
import trio
import trio.testing

from statehouse.actors.mailbox import Mailbox
from statehouse.errors import OverloadedError


def test_messages_come_out_in_the_order_in_which_they_were_put():
    mailbox = Mailbox("box", 10)
    for number in range(5):
        mailbox.put(number)
    assert len(mailbox) == 5
    assert mailbox.peek() == 0
    assert [mailbox.take(), mailbox.take()] == [0, 1]
    assert mailbox.take_all() == [2, 3, 4]
    assert len(mailbox) == 0
    with pytest.raises(IndexError):
        mailbox.take()


def test_a_full_mailbox_refuses_and_drops_nothing():
    mailbox = Mailbox("box", 2)
    mailbox.put(1)
    mailbox.put(2)
    with pytest.raises(OverloadedError, match="box has 2 messages") as caught:
        mailbox.put(3)
    assert caught.value.details == {"limit": "2"}
    assert mailbox.take() == 1
    mailbox.put(3)
    assert mailbox.take_all() == [2, 3]


async def test_a_waiting_reader_is_woken_once():
    mailbox = Mailbox("box", 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.wait)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.put(1)
        mailbox.put(2)
    with trio.testing.assert_checkpoints():
        await mailbox.wait()
    assert mailbox.take_all() == [1, 2]


async def test_sleeping_ignores_what_waits_already():
    mailbox = Mailbox("box", 10)
    mailbox.put(1)
    with trio.move_on_after(0) as scope:
        await mailbox.sleep()
    assert scope.cancelled_caught
    mailbox.put(2)  # nobody sleeps any more, and nothing goes wrong
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.sleep)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.wake()
    assert len(mailbox) == 2
