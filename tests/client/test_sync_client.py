"""The sync client: the async one behind a thread, shared by threads, dropped, forked, interrupted."""

import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from statehouse import (
    AsyncLease,
    AsyncStatehouse,
    AsyncTransaction,
    ConnectionError,
    Lease,
    Operation,
    Statehouse,
    StateResult,
    Transaction,
    TransactionError,
)


@pytest.fixture
def client(memory_server):
    with Statehouse(memory_server.url) as client:
        yield client


def run(program, *options):
    command = [sys.executable, *options, "-c", program]
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=30)


def loop_threads():
    return [thread for thread in threading.enumerate() if thread.name == "statehouse-client"]


def test_the_whole_surface(client):
    assert client.health() == "ok"
    assert client.version() == ("memory", "none")
    with client.begin_transaction(timeout_ms=1000) as txn:
        txn.write("a", "k", {"n": 1, "list": [{"x": []}, None]})
        txn.write("a", "k", {})
        txn.delete("a", "gone")
    assert txn.txn_id == "t1"
    assert repr(txn) == "Transaction(txn_id='t1', namespace='default', committed)"
    other = client.begin_transaction(namespace="elsewhere")
    other.write(agent_id="a", key="k", value={"n": 3})
    assert other.commit() == 2
    with pytest.raises(TransactionError):
        other.commit()
    client.begin_transaction().abort()

    assert client.get_state("a", "k") == StateResult({}, 2, 1, exists=True)
    assert client.get_state("a", "k", namespace="elsewhere").value == {"n": 3}
    assert client.get_state_at_version("a", "k", 1).value == {"n": 1, "list": [{"x": []}, None]}
    assert client.list_keys("a") == ["k"]
    assert client.scan_prefix("a", "") == [StateResult({}, 2, 1, exists=True, key="k")]
    (event,) = client.replay("a")
    assert event.operations[2] == Operation("gone", None, 1)
    assert list(client.replay_events("a", start_ts=2)) == []
    assert list(client.replay_pretty("a"))[1:] == [
        "--:--:--Z  agent=a  WRITE  key=k  v=2  {}",
        "--:--:--Z  agent=a  DEL  key=gone  v=1",
    ]
    assert len(list(client.replay_pretty("a", verbose=True))) == 5


@pytest.mark.parametrize(
    ("sync", "asynchronous"), [(Statehouse, AsyncStatehouse), (Transaction, AsyncTransaction), (Lease, AsyncLease)]
)
def test_both_clients_have_the_same_methods_and_arguments(sync, asynchronous):
    def surface(cls):
        return {
            name: [
                (each.name, each.kind, each.default)  # `fn` of update may be async in one of them
                for each in inspect.signature(member).parameters.values()
            ]
            for name, member in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    ours, theirs = surface(sync), surface(asynchronous)
    for name in ("forget_connection", "full_name", "local"):
        theirs.pop(name, None)
    assert ours == theirs
    assert all(getattr(sync, name).__doc__ for name in ours)


def test_a_block_that_raises_aborts(client, memory_server):
    with pytest.raises(KeyError), client.begin_transaction() as txn:  # noqa: PT012
        txn.write("a", "k", {})
        raise KeyError
    assert memory_server.open == {}
    assert client.list_keys("a") == []


def test_threads_share_a_client(client):
    def work(number):
        with client.begin_transaction() as txn:
            txn.write(f"agent-{number % 5}", f"k{number}", {"n": number})
        return client.get_state(f"agent-{number % 5}", f"k{number}").value["n"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(200))) == list(range(200))
    assert sum(len(list(client.replay(f"agent-{number}"))) for number in range(5)) == 200
    assert len(loop_threads()) == 1


def test_a_replay_is_read_as_it_is_iterated(client, memory_server):
    for _ in range(60):
        with client.begin_transaction() as txn:
            txn.write("a", "k", {"pad": "x" * 100_000})
    replay = client.replay("a")
    assert memory_server.sent_events == 0
    assert next(replay).commit_ts == 1
    assert memory_server.sent_events < 40
    memory_server.cancelled.clear()
    del replay
    deadline = time.monotonic() + 10
    while "Replay" not in memory_server.cancelled:
        assert time.monotonic() < deadline
        assert client.health() == "ok"
    assert memory_server.sent_events < 60


def test_nothing_is_started_before_the_first_call():
    before = loop_threads()
    with Statehouse("127.0.0.1:1") as client:
        assert loop_threads() == before
        with pytest.raises(ConnectionError, match="cannot connect"):
            client.health()


def test_a_closed_client_says_so(memory_server):
    client = Statehouse(memory_server.url)
    replay = client.replay("a")
    txn = client.begin_transaction()
    client.close()
    client.close()
    assert loop_threads() == []
    for call in (client.health, txn.commit, lambda: next(replay)):
        with pytest.raises(ConnectionError, match="closed"):
            call()


def test_close_fails_the_calls_of_other_threads(memory_server):
    memory_server.hold = {"ListKeys"}
    client = Statehouse(memory_server.url)
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(client.list_keys, "a") for _ in range(5)]
        client.health()
        client.close()
        for call in calls:
            assert isinstance(call.exception(timeout=30), ConnectionError)


def test_a_dropped_client_ends_its_thread(memory_server):
    client = Statehouse(memory_server.url)
    client.health()
    (thread,) = loop_threads()
    cycle = [client]
    cycle.append(cycle)
    del client, cycle
    gc.collect()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_a_transaction_keeps_its_dropped_client_alive(memory_server):
    txn = Statehouse(memory_server.url).begin_transaction()
    gc.collect()
    assert txn.commit() == 1


def test_an_unclosed_client_keeps_no_program_alive(memory_server):
    program = (
        "import sys, statehouse\n"
        f"client = statehouse.Statehouse({memory_server.url!r})\n"
        "txn = client.begin_transaction()\n"
        "replay = client.replay('a')\n"
        "print(client.health(), flush=True)\n"
    )
    done = run(program, "-W", "error", "-X", "dev")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_forked_child_connects_anew(client, memory_server):
    program = (
        "import os, sys, statehouse\n"
        f"client = statehouse.Statehouse({memory_server.url!r})\n"
        "txn = client.begin_transaction(local=False)\n"
        "txn.write('a', 'parent', {})\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    txn.write('a', 'child', {})\n"
        "    assert client.health() == 'ok'\n"
        "    client.close()\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "txn.commit()\n"
        "print(*client.list_keys('a'))\n"
    )
    done = run(program, "-W", "ignore::DeprecationWarning")  # Python 3.12 warns of any fork beside threads
    assert (done.returncode, done.stdout, done.stderr) == (0, "child parent\n", "")


def test_an_interrupt_ends_a_call_that_waits(client, memory_server):
    memory_server.hold = {"ListKeys"}
    client.health()

    def interrupt():
        while not interrupted.wait(0.01):
            if len(memory_server.held) > 0:
                os.kill(os.getpid(), signal.SIGINT)
                return

    interrupted = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        client.list_keys("a")
    interrupted.set()
    thread.join()
    deadline = time.monotonic() + 10
    while "ListKeys" not in memory_server.cancelled:
        assert time.monotonic() < deadline
        assert client.health() == "ok"


def test_killed_in_the_middle_of_a_call(mortal_server):
    process, url = mortal_server()
    with Statehouse(url) as client, ThreadPoolExecutor(1) as pool:
        client.health()
        call = pool.submit(client.list_keys, "a")
        client.health()
        killed_at = time.monotonic()
        process.kill()
        assert isinstance(call.exception(timeout=30), ConnectionError)
        assert time.monotonic() - killed_at < 5.0  # long before its deadline


def test_a_call_has_a_deadline(memory_server):
    memory_server.hold = {"ListKeys"}
    with Statehouse(memory_server.url, timeout_s=0.2) as client:
        with pytest.raises(ConnectionError, match=r"within 0\.2 s|Deadline Exceeded"):  # the server may be faster
            client.list_keys("a")
        assert client.health(timeout_s=30) == "ok"
