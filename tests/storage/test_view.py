"""What every view promises: one suite over LevelDB and its twin in memory, judged by a dict."""

import random
import threading
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statehouse.storage.leveldb_view import LevelDBView
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.view import ViewClosedError

ALL = (b"", b"\xff")
MANY = 3_000
"""More rows than any chunk of a scan holds."""


@pytest.fixture(params=["leveldb", "memory"])
def make_view(request, tmp_path):
    """Makes empty views, and closes them at the end."""
    views = []

    def make():
        path = str(tmp_path / f"view-{len(views)}")
        views.append(MemoryView() if request.param == "memory" else LevelDBView.open(path, create=True))
        return views[-1]

    yield make
    for view in views:
        view.close()


@pytest.fixture
def view(make_view):
    return make_view()


def numbered(count, value=b"old"):
    return [(b"%06d" % number, value) for number in range(count)]


def test_a_key_is_what_was_last_written_to_it(view):
    assert view.get(b"k") is None
    view.apply([(b"k", b"1"), (b"other", b""), (b"k", b"2")])
    assert view.get(b"k") == b"2"
    assert view.get(b"other") == b""
    view.apply([(b"k", None), (b"never", None)])
    assert view.get(b"k") is None
    view.apply([(b"k", None), (b"k", b"3")])
    assert view.get(b"k") == b"3"
    view.apply([])


keys = st.binary(min_size=1, max_size=3)
bounds = st.binary(max_size=3)
batches = st.lists(st.lists(st.tuples(keys, st.none() | st.binary(max_size=3)), max_size=8), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(batches, batches, bounds, bounds)
def test_a_view_and_its_snapshots_are_what_a_dict_would_be(make_view, before, after, start, stop):
    with closing(make_view()) as view:
        model = {}
        for batch in before:
            view.apply(batch)
            model.update(batch)
        snapshot = view.snapshot()
        old = {key: value for key, value in model.items() if value is not None}
        scans = [
            (reader.scan(start, stop, reverse=back), back) for reader in (view, snapshot) for back in (False, True)
        ]
        for batch in after:
            view.apply(batch)
            model.update(batch)
        new = {key: value for key, value in model.items() if value is not None}

        def rows(source, *, reverse):
            return sorted(((k, v) for k, v in source.items() if start <= k < stop), reverse=reverse)

        for scan, reverse in scans:
            assert list(scan) == rows(old, reverse=reverse)
        for reverse in (False, True):
            assert list(snapshot.scan(start, stop, reverse=reverse)) == rows(old, reverse=reverse)
            assert list(view.scan(start, stop, reverse=reverse)) == rows(new, reverse=reverse)
        for key in model:
            assert snapshot.get(key) == old.get(key)
            assert view.get(key) == new.get(key)
        asked = [*model, b"never", *model] * 40
        assert snapshot.get_many(asked) == [old.get(key) for key in asked]
        assert view.get_many(asked) == [new.get(key) for key in asked]
        snapshot.close()


def test_a_reverse_scan_whose_only_row_is_its_start_has_it(view):
    view.apply([(key, b"v") for key in (b"", b"a", b"a\x01", b"b", b"z")])
    for start, stop in ((b"", b"a"), (b"a", b"a\x01"), (b"a\x01", b"b"), (b"b", b"c"), (b"z", b"\xff")):
        assert [key for key, _ in view.scan(start, stop, reverse=True)] == [start]
    assert [key for key, _ in view.scan(b"a\x02", b"c", reverse=True)] == [b"b"]
    assert list(view.scan(b"a\x02", b"a\x03", reverse=True)) == []


def test_a_scan_includes_its_start_and_not_its_stop(view):
    view.apply(numbered(5))
    assert [key for key, _ in view.scan(b"000001", b"000003")] == [b"000001", b"000002"]
    assert [key for key, _ in view.scan(b"000001", b"000003", reverse=True)] == [b"000002", b"000001"]
    assert list(view.scan(b"000003", b"000003")) == []
    assert list(view.scan(b"000003", b"000001")) == []
    assert list(view.scan(b"000003", b"000001", reverse=True)) == []


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 255, 256, 257, 512, MANY])
def test_scans_of_any_length_are_whole(view, count, reverse):
    rows = numbered(count)
    view.apply(rows)
    assert list(view.scan(*ALL, reverse=reverse)) == (rows[::-1] if reverse else rows)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_sees_the_moment_of_its_call_whatever_is_written_meanwhile(view, reverse):
    view.apply(numbered(MANY))
    scan = view.scan(*ALL, reverse=reverse)
    view.apply([(b"%06d" % n, None) for n in range(0, MANY, 2)])
    found = [next(scan)]
    view.apply([(b"%06dx" % n, b"new") for n in range(MANY)] + [(b"%06d" % n, b"new") for n in range(MANY)])
    found += scan
    assert found == (numbered(MANY)[::-1] if reverse else numbered(MANY))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_snapshot_stays_as_it_was_while_writes_go_on_in_another_thread(view, seed):
    """Every batch moves one amount from an account to another: the sum is always the same."""
    rng = random.Random(seed)
    accounts = {b"%03d" % n: 100 for n in range(300)}
    view.apply([(key, b"%d" % amount) for key, amount in accounts.items()])
    stop = threading.Event()
    moves = []

    def move():
        while not stop.is_set():
            source, target = rng.sample(list(accounts), 2)
            accounts[source] -= 1
            accounts[target] += 1
            view.apply([(key, b"%d" % accounts[key]) for key in (source, target)])
            moves.append((source, target))

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(20):
            seen = len(moves)
            with closing(view.snapshot()) as snapshot:
                one = list(snapshot.scan(*ALL))
                while len(moves) < seen + 5:
                    assert mover.is_alive()
                other = list(snapshot.scan(*ALL, reverse=True))
                assert sum(int(amount) for _, amount in one) == 300 * 100
                assert one == other[::-1]
                assert all(snapshot.get(key) == value for key, value in one[:20])
            assert sum(int(amount) for _, amount in view.scan(*ALL)) == 300 * 100
    finally:
        stop.set()
        mover.join()


def test_a_batch_that_cannot_be_collected_leaves_the_view_as_it_was(view):
    def writes():
        yield b"a", b"1"
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="own"):
        view.apply(writes())
    assert view.get(b"a") is None
    view.apply([(b"a", b"2")])
    assert view.get(b"a") == b"2"


def test_a_scan_may_be_carried_on_by_another_thread(view):
    view.apply(numbered(MANY))
    scan = view.scan(*ALL)
    found = [next(scan)]
    carrying = threading.Thread(target=lambda: found.extend(scan))
    carrying.start()
    carrying.join()
    assert found == numbered(MANY)


def test_scans_and_snapshots_are_closed_by_whoever_drops_them(view):
    view.apply(numbered(MANY))
    for _ in range(50):
        scan = view.scan(*ALL)
        next(scan)
        scan.close()
        assert list(scan) == []
        view.scan(*ALL).close()
        view.scan(*ALL)
        next(view.scan(*ALL))
    snapshot = view.snapshot()
    snapshot.close()
    snapshot.close()
    view.apply(numbered(1, b"new"))
    assert view.get(b"000000") == b"new"


def test_a_closed_snapshot_is_refused_and_its_view_goes_on(view):
    view.apply(numbered(MANY))
    snapshot = view.snapshot()
    scan = snapshot.scan(*ALL)
    next(scan)
    snapshot.close()
    with pytest.raises(ViewClosedError):
        snapshot.get(b"000000")
    with pytest.raises(ViewClosedError):
        snapshot.scan(*ALL)
    with pytest.raises(ViewClosedError):
        list(scan)
    assert len(list(view.scan(*ALL))) == MANY


def test_a_closed_view_is_refused(view):
    view.apply(numbered(MANY))
    snapshot = view.snapshot()
    scans = [view.scan(*ALL), snapshot.scan(*ALL), view.scan(*ALL, reverse=True)]
    for scan in scans:
        next(scan)
    view.close()
    view.close()
    for use in (
        lambda: view.get(b"k"),
        lambda: view.scan(*ALL),
        lambda: view.apply([(b"k", b"v")]),
        view.snapshot,
        lambda: snapshot.get(b"k"),
        lambda: snapshot.scan(*ALL),
        *(lambda scan=scan: list(scan) for scan in scans),
    ):
        with pytest.raises(ViewClosedError):
            use()
    snapshot.close()
    for scan in scans:
        scan.close()


def test_closing_beneath_threads_at_work_ends_them_and_harms_nobody(make_view):
    """LevelDB frees what a reader is reading: without the view's care this crashes the process."""
    for _ in range(5):
        view = make_view()
        view.apply(numbered(MANY))
        endings = []
        at_work = threading.Barrier(7)

        def work(use, view=view, endings=endings, at_work=at_work):
            at_work.wait()
            try:
                while True:
                    use(view)
            except ViewClosedError as error:
                endings.append(error)

        uses = [
            lambda view: view.get(b"000001"),
            lambda view: list(view.scan(*ALL)),
            lambda view: list(view.scan(*ALL, reverse=True)),
            lambda view: next(view.scan(*ALL)),
            lambda view: view.apply([(b"000001", b"new")]),
            _through_a_snapshot,
        ]
        threads = [threading.Thread(target=work, args=(use,)) for use in uses]
        for thread in threads:
            thread.start()
        at_work.wait()
        for _ in range(200):
            view.get(b"000002")
        view.close()
        for thread in threads:
            thread.join()
        assert len(endings) == len(uses)


def _through_a_snapshot(view):
    with closing(view.snapshot()) as snapshot:
        snapshot.get(b"000001")
        list(snapshot.scan(b"0001", b"0002"))
