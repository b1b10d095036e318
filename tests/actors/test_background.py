"""Work beside the commits: done when it is due, one run at a time, tried again after a while."""

import pytest
import trio
import trio.testing

from statehouse.actors.background import Background
from statehouse.errors import StorageError
from statehouse.limits import BACKGROUND_RETRY_S

blocked = trio.testing.wait_all_tasks_blocked


class Work:
    """Something that is due so many times, and fails as told."""

    def __init__(self):
        self.left = 0
        self.runs = []
        self.errors = []
        self.background = Background("testing", due=lambda: self.left > 0, work=self.run)

    def run(self):
        self.runs.append(trio.current_time())
        if self.errors:
            raise self.errors.pop(0)
        self.left -= 1


@pytest.fixture
async def work(inline_threads, nursery):
    work = Work()
    nursery.start_soon(work.background.run)
    yield work
    inline_threads.release()


async def test_nothing_runs_that_is_not_due(work):
    work.background.poke()
    await blocked()
    assert work.runs == []


async def test_what_is_due_runs_until_it_is_not(work):
    work.left = 3
    work.background.poke()
    await blocked()
    assert len(work.runs) == 3
    work.left = 1
    work.background.poke()
    await blocked()
    assert len(work.runs) == 4


async def test_one_run_at_a_time(work, inline_threads):
    inline_threads.hold()
    work.left = 2
    for _ in range(5):
        work.background.poke()
        await blocked()
    assert inline_threads.waiting == 1
    inline_threads.release()
    await blocked()
    assert len(work.runs) == 2


@pytest.mark.parametrize("error", [OSError("no space"), StorageError("broken")])
async def test_what_the_disk_refuses_is_tried_again_after_a_while(autojump_clock, work, error):
    started_s = trio.current_time()
    work.left, work.errors = 1, [error, error]
    work.background.poke()
    await trio.sleep(5 * BACKGROUND_RETRY_S)
    assert [run_s - started_s for run_s in work.runs] == [0, BACKGROUND_RETRY_S, 2 * BACKGROUND_RETRY_S]


async def test_a_bug_ends_it(inline_threads):
    work = Work()
    work.left, work.errors = 1, [KeyError("bug")]
    work.background.poke()
    with pytest.raises(KeyError):
        await work.background.run()
