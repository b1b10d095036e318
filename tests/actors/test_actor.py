"""The kernel: one turn at a time, in order, and nobody is left without an answer."""

import pytest
import trio
import trio.testing
from attrs import field, frozen

from statehouse.actors.actor import Actor
from statehouse.actors.reply import Reply
from statehouse.actors.supervisor import Supervisor
from statehouse.errors import InternalError, OverloadedError, StorageError, UnavailableError


@frozen
class Say:
    text: str
    reply: Reply[str] = field(factory=Reply)


class Fixture:
    def __init__(self, mailbox_messages=100):
        self.said = []
        self.on_turn = {}
        self.supervisor = Supervisor()
        self.actor = Actor(
            "parrot",
            self.turn,
            mailbox_messages=mailbox_messages,
            crashed=lambda message, error: self.supervisor.bug(error, last_message=repr(message)),
        )

    def turn(self, message):
        self.said.append(f"<{message.text}")
        if message.text in self.on_turn:
            self.on_turn[message.text]()
        self.said.append(f"{message.text}>")
        message.reply.succeed(message.text)

    def send(self, text):
        message = Say(text)
        self.actor.send(message)
        return message.reply


async def run_until_blocked(actor):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def test_an_idle_actor_answers_in_the_senders_turn():
    parrot = Fixture()
    assert parrot.send("a").result() == "a"
    assert parrot.actor.idle


async def test_a_message_sent_in_a_turn_waits_for_the_turns_end_and_keeps_its_place():
    parrot = Fixture()
    replies = []

    def more():
        replies.extend(parrot.send(text) for text in ("b", "c"))
        assert not any(reply.settled for reply in replies)

    parrot.on_turn["a"] = more
    parrot.send("a")
    replies.append(parrot.send("d"))  # the actor is in no turn any more, but b and c came first
    assert parrot.said == ["<a", "a>"]
    await run_until_blocked(parrot.actor)
    assert parrot.said == ["<a", "a>", "<b", "b>", "<c", "c>", "<d", "d>"]
    assert [reply.result() for reply in replies] == ["b", "c", "d"]


@pytest.mark.parametrize("seed", range(20))
async def test_handling_in_the_senders_turn_keeps_every_senders_order(seed):
    # Whatever mixes turns, queues, holds and the actor's task: what one sender sent is handled in its order.
    parrot = Fixture(10_000)
    parrot.on_turn = {f"1-{n}": (lambda n=n: parrot.send(f"in-{n}")) for n in range(0, 50, 7)}

    async def send(sender):
        for number in range(50):
            parrot.send(f"{sender}-{number}")
            if number % (seed % 5 + 2) == sender:
                parrot.actor.hold()
                await trio.lowlevel.checkpoint()
                parrot.actor.release()
            if number % 3 == 0:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(parrot.actor.run)
        async with trio.open_nursery() as senders:
            for sender in range(3):
                senders.start_soon(send, sender)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    handled = [text[1:] for text in parrot.said if text[0] == "<"]
    ended = [text[:-1] for text in parrot.said if text[-1] == ">"]
    assert handled == ended  # no turn within a turn
    for sender in ("0", "1", "2", "in"):
        numbers = [int(text.partition("-")[2]) for text in handled if text.startswith(f"{sender}-")]
        assert numbers == sorted(numbers)
    assert len(handled) == 3 * 50 + 8


async def test_a_held_actor_handles_nothing_until_the_last_release():
    parrot = Fixture()
    parrot.actor.hold()
    parrot.actor.hold()
    first = parrot.send("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parrot.actor.run)
        await trio.testing.wait_all_tasks_blocked()
        parrot.actor.release()
        await trio.testing.wait_all_tasks_blocked()
        assert not first.settled
        assert not parrot.actor.idle
        parrot.actor.release()
        second = parrot.send("b")
        assert not second.settled  # a came first
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert parrot.said == ["<a", "a>", "<b", "b>"]


async def test_a_turn_that_holds_its_actor_leaves_the_rest_in_line():
    parrot = Fixture()
    parrot.on_turn["b"] = parrot.actor.hold
    parrot.actor.hold()
    replies = [parrot.send(text) for text in "abc"]
    parrot.actor.release()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parrot.actor.run)
        await trio.testing.wait_all_tasks_blocked()
        assert [reply.settled for reply in replies] == [True, True, False]
        parrot.actor.release()
        await trio.testing.wait_all_tasks_blocked()
        assert replies[2].settled
        nursery.cancel_scope.cancel()


async def test_an_expected_failure_travels_in_the_reply_and_the_actor_goes_on():
    parrot = Fixture()

    def fail():
        raise StorageError("the disk")

    parrot.on_turn["a"] = fail
    with pytest.raises(StorageError, match="the disk"):
        parrot.send("a").result()
    assert parrot.send("b").result() == "b"


async def test_a_bug_is_an_internal_error_with_an_id_and_nothing_internal():
    parrot = Fixture()

    def fail():
        raise KeyError("/secret/path")

    parrot.on_turn["a"] = fail
    with pytest.raises(InternalError) as caught:
        parrot.send("a").result()
    error_id = caught.value.details["error_id"]
    assert len(error_id) == 16
    assert caught.value.message == f"internal error {error_id}"
    assert "secret" not in str(caught.value.details)
    assert caught.value.__cause__ is None
    assert parrot.actor.idle


async def test_closing_fails_everything_that_waits_and_everything_that_comes():
    parrot = Fixture()
    parrot.actor.hold()
    waiting = [parrot.send("a"), parrot.send("b")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parrot.actor.run)
        await trio.testing.wait_all_tasks_blocked()
        parrot.actor.close("gone")
    for reply in (*waiting, parrot.send("c")):
        with pytest.raises(UnavailableError, match="gone"):
            reply.result()
    assert parrot.said == []


async def test_an_actor_closed_before_its_task_began_ends():
    parrot = Fixture()
    parrot.actor.close("gone")
    await parrot.actor.run()


async def test_a_cancelled_actor_fails_what_it_owes():
    parrot = Fixture()
    parrot.actor.hold()
    waiting = parrot.send("a")
    await run_until_blocked(parrot.actor)
    with pytest.raises(UnavailableError, match="parrot has stopped"):
        waiting.result()


async def test_a_full_mailbox_fails_the_message_that_comes_and_no_other():
    parrot = Fixture(mailbox_messages=2)
    parrot.actor.hold()
    replies = [parrot.send(text) for text in "abc"]
    with pytest.raises(OverloadedError):
        replies[2].result()
    parrot.actor.release()
    await run_until_blocked(parrot.actor)
    assert [replies[0].result(), replies[1].result()] == ["a", "b"]


async def test_escalating_ends_the_supervisor_with_the_first_error():
    supervisor = Supervisor()
    supervisor.escalate(KeyError("first"))
    supervisor.escalate(ValueError("second"))
    with pytest.raises(KeyError, match="first"):
        await supervisor.run()
