"""What the published client (statehouse 0.1.1) can do, done against a daemon. Run by proof_old_client.py.

Runs in the published client's own virtual environment, so it imports nothing of this repository. Prints a
line for each check, `ok` or `FAILED` and its name; the exit code is 1 when one failed.

`old_client_checks.py ADDRESS before` does the whole surface; `after`, run when the daemon was killed and
started again, checks that all of it is still there.

The published client shows numbers as floats and objects inside values as protobuf messages, which are read
by index here: that is its own doing, and not judged.
"""

# The published client has no public way to commit an id twice, and its results are positional.
# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204, FBT003, SLF001

import sys
import threading
import time
from contextlib import contextmanager
from importlib import metadata

import statehouse
from statehouse import ReplayEvent, StatehouseError, StateResult, TransactionError
from statehouse import Statehouse as PublishedClient

AGENT = "proof-agent"
VALUE = {"text": "first", "n": 3, "half": 0.5, "yes": True, "nothing": None}
NESTED = {"list": [1, "two", {"three": [{"four": 4}, None, []]}, None, [], {}], "object": {"inner": {"deep": True}}}


class Checks:
    """Counts and prints what held and what did not."""

    def __init__(self):
        self.failed = 0

    @contextmanager
    def __call__(self, name):
        """Whatever the block raises is a failed check; the next one goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self.failed += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}")
        else:
            print(f"ok      {name}")


def expect(found, wanted):
    if found != wanted:
        raise ValueError(f"got {found!r}, expected {wanted!r}")


@contextmanager
def raises(kind, text=""):
    try:
        yield
    except kind as error:
        if text not in str(error):
            raise ValueError(f"the error says {error}, not {text!r}") from error
    else:
        raise ValueError(f"no {kind.__name__} was raised")


def put(client, agent, key, value, **options):
    transaction = client.begin_transaction(**options)
    transaction.write(agent, key, value)
    return transaction.commit()


def commits(check, client):
    with check("health"):
        expect(client.health(), "ok")
    with check("version"):
        version, git_sha = client.version()
        expect((type(version), bool(version), type(git_sha)), (str, True, str))
    with check("a staged write is not seen before its commit"):
        transaction = client.begin_transaction()
        transaction.write(agent_id=AGENT, key="memory", value=VALUE)
        expect(client.get_state(AGENT, "memory"), StateResult(None, 0, 0, False))
    with check("the first commit of a new store has commit_ts 1"):
        expect(transaction.commit(), 1)
    with check("a write is read back"):
        expect(client.get_state(agent_id=AGENT, key="memory"), StateResult(VALUE, 1, 1, True))
    with check("an empty object is a value"):
        expect(put(client, AGENT, "empty", {}), 2)
        expect(client.get_state(AGENT, "empty"), StateResult({}, 1, 2, True))
    with check("lists of objects, nulls, empty lists and empty objects are kept"):
        expect(put(client, AGENT, "nested", NESTED), 3)
        value = client.get_state(AGENT, "nested").value
        items = value["list"]
        expect((len(items), items[0], items[1], items[3]), (6, 1, "two", None))
        expect((items[2]["three"][0]["four"], items[2]["three"][1], len(items[2]["three"][2])), (4, None, 0))
        expect((len(items[4]), len(items[5])), (0, 0))
        expect(value["object"]["inner"]["deep"], True)
    with check("two writes to a key in one transaction are two versions"):
        with client.begin_transaction() as transaction:
            transaction.write(AGENT, "memory", {"text": "second"})
            transaction.write(AGENT, "memory", {"text": "third"})
        expect(client.get_state(AGENT, "memory"), StateResult({"text": "third"}, 3, 4, True))
    with check("one transaction over several agents and an empty one"):
        with client.begin_transaction() as transaction:
            transaction.write("left", "k", {"side": "l"})
            transaction.write("right", "k", {"side": "r"})
        expect([client.get_state(agent, "k").commit_ts for agent in ("left", "right")], [5, 5])
        expect(client.begin_transaction().commit(), 6)
    with check("a delete leaves a tombstone with a version"):
        with client.begin_transaction() as transaction:
            transaction.delete(AGENT, "empty")
        expect(client.get_state(AGENT, "empty"), StateResult(None, 2, 7, False))


def reads(check, client):
    with check("a key that was never written"):
        expect(client.get_state(AGENT, "never"), StateResult(None, 0, 0, False))
        expect(client.get_state("nobody", "never"), StateResult(None, 0, 0, False))
    with check("reads at versions"):
        found = [client.get_state_at_version(AGENT, "memory", version) for version in (1, 2, 3)]
        expect(found[0], StateResult(VALUE, 1, 1, True))
        expect(found[1], StateResult({"text": "second"}, 2, 4, True))
        expect(found[2], StateResult({"text": "third"}, 3, 4, True))
    with check("reads at versions: a deleted one, and what was before it"):
        expect(client.get_state_at_version(AGENT, "empty", 1), StateResult({}, 1, 2, True))
        expect(client.get_state_at_version(AGENT, "empty", 2).exists, False)
    with check("reads at versions: unknown ones"):
        for version in (0, 4, 10**12):
            expect(client.get_state_at_version(AGENT, "memory", version), StateResult(None, 0, 0, False))
    with check("lists of keys are live keys in the order of their bytes"):
        expect(client.list_keys(AGENT), ["memory", "nested"])
        with client.begin_transaction() as transaction:
            for key in ("b", "a/2", "a/10", "é", "a", "🙂", "Z", "\x00"):
                transaction.write("listed", key, {"key": key})
        expect(client.list_keys("listed"), ["\x00", "Z", "a", "a/10", "a/2", "b", "é", "🙂"])
        expect(client.list_keys("nobody"), [])
    with check("prefix scans"):
        found = client.scan_prefix("listed", "a")
        expect([entry.value["key"] for entry in found], ["a", "a/10", "a/2"])
        expect({(entry.version, entry.exists) for entry in found}, {(1, True)})
        expect(len(client.scan_prefix("listed", "")), 8)
        expect(client.scan_prefix("listed", "none"), [])
    with check("namespaces and names that look alike are kept apart"):
        put(client, "c", "k", {"who": "a:b/c"}, namespace="a:b")
        put(client, "b:c", "k", {"who": "a/b:c"}, namespace="a")
        expect(client.get_state("c", "k", namespace="a:b").value, {"who": "a:b/c"})
        expect(client.get_state("b:c", "k", namespace="a").value, {"who": "a/b:c"})
        expect(client.get_state("c", "k").exists, False)
        with PublishedClient(client_address(), namespace="a") as other:
            expect(other.list_keys("b:c"), ["k"])


def replays(check, client):
    with check("replay: all events of one agent, in order, and nobody else's"):
        events = list(client.replay(AGENT))
        expect([event.commit_ts for event in events], [1, 2, 3, 4, 7])
        expect({type(event) for event in events}, {ReplayEvent})
        expect([(op.key, op.version) for op in events[3].operations], [("memory", 2), ("memory", 3)])
        expect([(op.key, op.value, op.version) for op in events[4].operations], [("empty", None, 2)])
        expect(len({event.txn_id for event in events}), 5)
        expect([op.value for event in client.replay("left") for op in event.operations], [{"side": "l"}])
    with check("replay: ranges include both ends"):
        expect([event.commit_ts for event in client.replay(AGENT, start_ts=3)], [3, 4, 7])
        expect([event.commit_ts for event in client.replay(AGENT, end_ts=3)], [1, 2, 3])
        expect([event.commit_ts for event in client.replay(AGENT, start_ts=2, end_ts=4)], [2, 3, 4])
        expect([event.commit_ts for event in client.replay(AGENT, start_ts=5, end_ts=6)], [])
        expect([event.commit_ts for event in client.replay(AGENT, start_ts=4, end_ts=2)], [])
    with check("replay: an unknown agent has no events"):
        expect(list(client.replay("nobody")), [])
    with check("replay: leaving it early"):
        events = client.replay(AGENT)
        expect(next(events).commit_ts, 1)
        events.close()
        expect(client.health(), "ok")
    with check("replay: folding the events gives the state"):
        state = {}
        for event in client.replay("listed"):
            for operation in event.operations:
                state[operation.key] = operation.value
        expect(sorted(state, key=str.encode), client.list_keys("listed"))
        expect(state["a"], client.get_state("listed", "a").value)


def endings(check, client):
    with check("a block that raises aborts"):
        with raises(KeyError), client.begin_transaction() as transaction:
            transaction.write(AGENT, "aborted", {})
            raise KeyError
        expect(client.get_state(AGENT, "aborted"), StateResult(None, 0, 0, False))
    with check("abort discards, and may be repeated"):
        transaction = client.begin_transaction()
        transaction.write(AGENT, "aborted", {})
        transaction.abort()
        transaction.abort()
        client._abort(transaction._txn_id)
        client._abort("no-such-transaction")
        expect(client.list_keys(AGENT), ["memory", "nested"])
    with check("commit after abort"):
        with raises(TransactionError):
            transaction.commit()
        with raises(StatehouseError, "NOT_FOUND"):
            client._commit(transaction._txn_id)
    with check("commit twice, write, delete and abort after commit"):
        transaction = client.begin_transaction()
        commit_ts = transaction.commit()
        for again in (transaction.commit, lambda: transaction.write(AGENT, "k", {}), transaction.abort):
            with raises(TransactionError):
                again()
        for again in (client._commit, client._abort):
            with raises(StatehouseError, "FAILED_PRECONDITION"):
                again(transaction._txn_id)
        with raises(StatehouseError, "FAILED_PRECONDITION"):
            client._delete(transaction._txn_id, "default", AGENT, "memory")
        expect(put(client, AGENT, "memory", {"text": "fourth"}), commit_ts + 1)
    with check("an unknown transaction"), raises(StatehouseError, "NOT_FOUND"):
        client._commit("no-such-transaction")
    with check("a transaction that runs out of time"):
        transaction = client.begin_transaction(timeout_ms=50)
        transaction.write(AGENT, "late", {})
        time.sleep(0.3)
        with raises(TransactionError, "DEADLINE_EXCEEDED"):
            transaction.write(AGENT, "late", {})
        with raises(TransactionError, "DEADLINE_EXCEEDED"):
            transaction.commit()
        transaction.abort()
        expect(client.get_state(AGENT, "late").exists, False)
    with check("requests that are refused"):
        transaction = client.begin_transaction()
        refused = [
            ("", "k", {}),
            (AGENT, "", {}),
            (AGENT, "k" * 1025, {}),
            ("a" * 257, "k", {}),
            (AGENT, "k", {"big": "x" * 1_100_000}),
            (AGENT, "k", {"n": float("nan")}),
        ]
        for agent, key, value in refused:
            with raises(TransactionError, "INVALID_ARGUMENT"):
                transaction.write(agent, key, value)
        with raises(StatehouseError, "INVALID_ARGUMENT"):
            client.get_state("", "k")
        with raises(StatehouseError, "INVALID_ARGUMENT"):
            client.begin_transaction(timeout_ms=3_600_001)
        transaction.write(AGENT, "k" * 1024, {"fits": True})
        transaction.abort()


def threads(check, client):
    with check("eight threads share a client: commit_ts has no gap and no repeat"):
        base = client.begin_transaction().commit()
        seen = []

        def work(number):
            seen.extend(put(client, f"thread-{number}", f"step/{step:03}", {"step": step}) for step in range(25))

        workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        expect(sorted(seen), list(range(base + 1, base + 201)))
        for number in range(8):
            steps = [event.operations[0].value["step"] for event in client.replay(f"thread-{number}")]
            expect(steps, list(range(25)))
    with check("a long history is replayed"):
        for start in range(0, 3000, 500):
            with client.begin_transaction() as transaction:
                for number in range(start, start + 500):
                    transaction.write("long", f"k{number:05}", {"n": number, "pad": "x" * 400})
        numbers = [op.value["n"] for event in client.replay("long") for op in event.operations]
        expect(numbers, list(range(3000)))
        expect(len(client.scan_prefix("long", "k")), 3000)
    with check("the committed state at the end"):
        put(client, AGENT, "last", {"commit_ts": client.begin_transaction().commit()})


def after_restart(check, client):
    with check("after kill -9 and a restart: state, versions and tombstones"):
        expect(client.get_state(AGENT, "memory").value, {"text": "fourth"})
        expect(client.get_state_at_version(AGENT, "memory", 1), StateResult(VALUE, 1, 1, True))
        expect(client.get_state(AGENT, "empty"), StateResult(None, 2, 7, False))
        expect(client.list_keys(AGENT), ["last", "memory", "nested"])
        expect(client.list_keys("listed"), ["\x00", "Z", "a", "a/10", "a/2", "b", "é", "🙂"])
    with check("after kill -9 and a restart: replay"):
        expect([event.commit_ts for event in client.replay(AGENT, end_ts=7)], [1, 2, 3, 4, 7])
        numbers = [op.value["n"] for event in client.replay("long") for op in event.operations]
        expect(numbers, list(range(3000)))
    with check("after kill -9 and a restart: commit_ts goes on, a commit is remembered"):
        last = client.get_state(AGENT, "last")
        expect(client.begin_transaction().commit(), last.commit_ts + 1)
        txn_id = list(client.replay(AGENT))[-1].txn_id
        with raises(StatehouseError, "FAILED_PRECONDITION"):
            client._commit(txn_id)


def client_address():
    return sys.argv[1]


def main():
    check = Checks()
    print(f"statehouse {metadata.version('statehouse')} from {statehouse.__file__}")
    with PublishedClient(url=client_address()) as client:
        parts = {"before": (commits, reads, replays, endings, threads), "after": (after_restart,)}
        for part in parts[sys.argv[2]]:
            part(check, client)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
