"""The proof of linearizability: a small run of it, and that it fails on forged histories and on money from nothing."""

import json
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import proof_linearizability
import pytest
from attrs import evolve
from histories import forged
from histories.oracle import Evidence, Oracle
from histories.submissions import Load, Outcome, Repeated, Submission
from kill_cycles.faults import Before, bring_back
from linearizability import bank, lives
from linearizability.money import (
    ACCOUNTS,
    BALANCE,
    LEDGER_ENTRIES,
    OPENING,
    TOTAL,
    MoneyJudge,
    ledger_key,
    wrong_replay,
    wrong_statement,
    wrong_sum,
)
from linearizability.proxied import ProxyProcess
from linearizability.snapshot_money import SnapshotMoney

from statehouse import AsyncStatehouse, ConflictError, Operation, ReplayEvent, StateResult
from statehouse.client.values import to_struct
from statehouse.storage.disk import RealDisk
from statehouse.storage.keys import WATERMARK_KEY, agent_prefix, state_key
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.snapshots import write_snapshot
from statehouse.storage.v1.log_pb2 import SnapshotHeader, Watermark
from statehouse.v1 import statehouse_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--lives", "2", "--clients", "16", "--connections", "2", "--cut-every", "0.1", "--seed", "7"]
OPERATIONS = 6000
RARE = (
    *("  transact", "  transact after a restart", "  batch", "  read at a commit", "  lease"),
    *("connections cut", "transfers in one call", "snapshots in one batch"),
    "transactions of earlier lives sent again under load",
)
SMALL_RUNS = 5
"""A run has next to none of some of them: one or two leases, on a machine that is busy with something else."""
HUNTS = 3
"""How often a planted fault is looked for."""
A, B = ACCOUNTS[0], ACCOUNTS[-1]


def test_a_small_run(tmp_path):
    tried = Counter()
    for number in range(SMALL_RUNS):
        found = tmp_path / f"found-{number}.json"
        command = [sys.executable, str(ROOT / "tools" / "proof_linearizability.py"), "--operations", "4000", *SMALL]
        ran = subprocess.run([*command, "--json", str(found)], capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
        tried.update(json.loads(found.read_text())["tried"])
        assert tried["operations"] >= 4000
        assert sum(count for kind, count in tried.items() if kind.startswith("  ")) == tried["operations"]
        if all(tried[kind] > 0 for kind in RARE):
            break
    assert [kind for kind in RARE if not tried[kind]] == []
    assert tried["transfers"] > tried["transfers in one call"]


@pytest.mark.parametrize("forgery", forged.FORGERIES, ids=lambda forgery: forgery.name)
def test_a_forged_history_is_caught_when_what_was_before_is_forgotten(forgery):
    assert any(forgery.found in violation for violation in forged.violations_of(forgery.change, forget=True))


@pytest.mark.parametrize("deduplicated", [True, False])
def test_a_transaction_of_a_run_that_is_forgotten_was_there_before(deduplicated):
    oracle = Oracle()
    sent = Submission("sent-1", (forged.set_to(forged.A, "x", 1),), Outcome.ACKNOWLEDGED, 1, at_once=True)
    event = forged.event_of(1, "sent-1", forged.A, ("x", 1, 1))
    states = {forged.A: {"x": forged.state_of(1, 1, 1)}}
    assert oracle.judge(Load([sent]), Evidence((event,), {}, states)) == []
    oracle.forget()
    again = Load(repeated=[Repeated("sent-1", 1, deduplicated)])
    assert len(oracle.judge(again, Evidence((), {}, states))) == (not deduplicated)


def test_a_transaction_that_was_kept_and_sent_again_is_kept_once():
    submissions = [Submission(f"sent-{number}") for number in range(lives.KEPT)]
    again = [Submission(submission.txn_id) for submission in submissions[::2]]
    kept = lives.kept_for_later(random.Random(1), submissions, again)
    assert sorted(each.txn_id for each in kept) == sorted(each.txn_id for each in submissions)
    assert all(each in kept for each in again)


def assert_caught(said, capsys):
    """Real clients meet as the machine has it, so a fault that few calls come upon may be missed by one run."""
    for _ in range(HUNTS):
        exit_code = proof_linearizability.main(["--operations", str(OPERATIONS), *SMALL])
        out = capsys.readouterr().out
        if exit_code == 0:
            continue
        assert exit_code == 1
        kept = Path(out.partition("the data directory is kept: ")[2].partition("\n")[0])
        shutil.rmtree(kept.parent)
        assert f"--seed 7 --operations {OPERATIONS}" in out
        if said in out:
            return
    raise AssertionError(f"{HUNTS} runs, and none said {said!r}; the last: {out}")


def test_a_client_that_shows_what_it_read_first_is_caught(monkeypatch, capsys):
    get_state, first = AsyncStatehouse.get_state, {}

    async def stale(self, agent_id, key, namespace=None, **options):
        state = await get_state(self, agent_id, key, namespace, **options)
        return first.setdefault((namespace, agent_id, key), state) if agent_id == "agent-00" else state

    monkeypatch.setattr(AsyncStatehouse, "get_state", stale)
    assert_caught("a stale read", capsys)


def test_a_daemon_that_forgets_everything_is_caught(monkeypatch, capsys):
    async def forget(daemon, plan):
        shutil.rmtree(daemon.data_dir)
        return await bring_back(daemon, evolve(plan, before=Before.NOTHING))

    monkeypatch.setattr(lives, "bring_back", forget)
    assert_caught("and is lost", capsys)


def test_money_from_nothing_is_caught(monkeypatch, capsys):
    staged = bank.Staged

    def generous(account, key, value):
        if key == BALANCE and value["number"] == 2:
            value = {**value, "amount": value["amount"] + 1}
        return staged(account, key, value)

    monkeypatch.setattr(bank, "Staged", generous)
    assert_caught(f"the accounts hold {TOTAL + 1}, not {TOTAL}", capsys)


def test_a_transaction_that_expires_before_its_time_is_caught(monkeypatch, capsys):
    begin = AsyncStatehouse.begin_transaction

    async def brief(self, timeout_ms=None, namespace=None, **options):
        return await begin(self, 1, namespace, **options)

    monkeypatch.setattr(AsyncStatehouse, "begin_transaction", brief)
    assert_caught("has expired", capsys)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"preconditions": ()}, "was committed under the condition"),
        ({"idempotency_key": None}, "is there twice"),
    ],
)
def test_a_transaction_that_is_sent_as_another_is_caught(other, said, monkeypatch, capsys):
    transact = AsyncStatehouse.transact

    async def altered(self, operations, **given):
        return await transact(self, operations, **{**given, **other})

    monkeypatch.setattr(AsyncStatehouse, "transact", altered)
    assert_caught(said, capsys)


def test_a_repeated_transaction_that_claims_to_be_the_first_is_caught(monkeypatch, capsys):
    transact = AsyncStatehouse.transact

    async def first(self, operations, **given):
        return evolve(await transact(self, operations, **given), deduplicated=False)

    monkeypatch.setattr(AsyncStatehouse, "transact", first)
    assert_caught("two answers say that they are the first", capsys)


def test_a_conflict_over_what_was_never_there_is_caught(monkeypatch, capsys):
    transact = AsyncStatehouse.transact

    async def invented(self, operations, **given):
        try:
            return await transact(self, operations, **given)
        except ConflictError as error:
            failed = [evolve(each, version=each.version + 1_000) for each in error.failed]
            raise ConflictError(error.message, failed=failed) from None

    monkeypatch.setattr(AsyncStatehouse, "transact", invented)
    assert_caught("which no commit left standing", capsys)


def test_a_batch_of_another_moment_is_caught(monkeypatch, capsys):
    batch_get = AsyncStatehouse.batch_get

    async def now(self, keys, *, at_ts=None, **given):
        return await batch_get(self, keys, **given)

    monkeypatch.setattr(AsyncStatehouse, "batch_get", now)
    assert_caught("a read as of commit_ts", capsys)


# The judge of the money


def event(commit_ts, account, *writes):
    operations = tuple(Operation(key, value, 1) for key, value in writes)
    return ReplayEvent(f"t{commit_ts}", commit_ts, operations, *account)


def opening():
    return [event(1, account, (BALANCE, {"amount": OPENING, "number": 0})) for account in ACCOUNTS]


def moved(commit_ts, account, number, change, after):
    return event(
        commit_ts,
        account,
        (BALANCE, {"amount": after, "number": number}),
        (ledger_key(number), {"amount": change, "after": after, "number": number}),
    )


def test_honest_transfers():
    judge = MoneyJudge()
    first = [moved(3, A, 1, -100, OPENING - 100), moved(3, B, 1, 100, OPENING + 100)]
    second = [moved(4, A, 2, 50, OPENING - 50), moved(4, B, 2, -50, OPENING + 50)]
    assert list(judge.judge([*opening(), event(2, ("default", "agent"), ("x", {})), *first])) == []
    assert list(judge.judge(second)) == []
    assert judge.sums == 3


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([moved(3, A, 1, -1, OPENING - 1), moved(3, B, 1, 2, OPENING + 2)], f"hold {TOTAL + 1}, not {TOTAL}"),
        ([moved(3, A, 1, -1, OPENING - 1)], f"hold {TOTAL - 1}, not {TOTAL}"),
        ([moved(3, A, 1, -1, OPENING - 1), moved(4, B, 1, 1, OPENING + 1)], "commit_ts 3: the accounts hold"),
        ([moved(3, A, 2, -1, OPENING - 1), moved(3, B, 1, 1, OPENING + 1)], "left out or made twice"),
        ([moved(3, A, 1, -2, OPENING - 1), moved(3, B, 1, 1, OPENING + 1)], "the ledger says"),
        ([event(3, A, (BALANCE, None))], "has no amount"),
    ],
)
def test_money_that_does_not_add_up(events, said):
    judge = MoneyJudge()
    assert any(said in violation for violation in judge.judge([*opening(), *events]))


def test_accounts_that_are_not_opened_together():
    assert any(f"not {TOTAL}" in violation for violation in MoneyJudge().judge(opening()[1:]))


def test_an_honest_replay_of_an_account():
    assert wrong_replay([opening()[0], moved(3, A, 1, -5, OPENING - 5), moved(9, A, 2, 7, OPENING + 2)]) is None
    assert wrong_replay([]) is None


@pytest.mark.parametrize(
    "last",
    [
        moved(9, A, 3, 7, OPENING + 2),
        moved(9, A, 2, 7, OPENING + 3),
        event(9, A, (BALANCE, {"amount": 9, "number": 2})),
    ],
)
def test_a_replay_of_an_account_that_does_not_add_up(last):
    assert "a replay shows" in wrong_replay([moved(3, A, 1, -5, OPENING - 5), last])


def standing(amount, number=0, **entry):
    return StateResult({"amount": amount, "number": number, **entry}, 1, 1, exists=True)


def test_sums():
    balances = {account: standing(OPENING) for account in ACCOUNTS}
    assert wrong_sum(balances, "here") is None
    assert (
        wrong_sum({**balances, A: standing(OPENING + 1)}, "here") == f"here: the accounts hold {TOTAL + 1}, not {TOTAL}"
    )
    assert "1 accounts are missing" in wrong_sum({**balances, A: StateResult(None, 2, 2, exists=False)}, "here")


def statement(transfers):
    """An account that took part in so many transfers of 5."""
    found = {BALANCE: standing(OPENING + 5 * transfers, transfers)}
    for number in range(1, transfers + 1):
        found[ledger_key(number)] = standing(5, number, after=OPENING + 5 * number)
    return found


@pytest.mark.parametrize("transfers", [0, 1, LEDGER_ENTRIES, LEDGER_ENTRIES + 1, 3 * LEDGER_ENTRIES])
def test_an_honest_statement(transfers):
    assert wrong_statement(A, statement(transfers)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({BALANCE: None}, "no balance"),
        ({BALANCE: standing(OPENING + 20, 3)}, "entry 3"),
        ({BALANCE: standing(OPENING + 15, 4)}, "after 4 transfers the ledger has"),
        ({ledger_key(2): None}, "after 3 transfers the ledger has"),
        ({ledger_key(2): standing(5, 2, after=OPENING)}, "entry 2"),
        ({ledger_key(1): standing(6, 1, after=OPENING + 5)}, "its ledger begins with"),
    ],
)
def test_a_statement_that_does_not_add_up(changes, said):
    found = {key: state for key, state in {**statement(3), **changes}.items() if state is not None}
    assert said in wrong_statement(A, found)


@pytest.mark.parametrize("amount", [OPENING, OPENING + 1])
def test_money_in_snapshots(tmp_path, amount):
    view = MemoryView()
    mark = Watermark(commit_ts=5, chain=bytes(32))
    view.apply([(WATERMARK_KEY, mark.SerializeToString())])
    for account in ACCOUNTS:
        state = pb.GetStateResponse(version=1, commit_ts=1, exists=True)
        to_struct({"amount": amount if account == A else OPENING, "number": 0}, state.value)
        view.apply([(state_key(agent_prefix(account), BALANCE.encode()), state.SerializeToString(deterministic=True))])
    header = SnapshotHeader(format_version=2, watermark=mark)
    write_snapshot(RealDisk(), str(tmp_path / "snapshots"), view.snapshot(), header, lambda *_: None)
    snapshots = SnapshotMoney(tmp_path / "snapshots", 1)
    assert [f"not {TOTAL}" in violation for violation in snapshots.count_new()] == [True] * (amount != OPENING)
    assert snapshots.counted == 1
    assert snapshots.count_new() == []


# The proxy


def echo(listener):
    """Answer each connection with what it sends, until the listener is closed."""

    def serve(connection):
        with connection:
            try:
                while chunk := connection.recv(65536):
                    connection.sendall(chunk)
            except OSError:
                return

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=[connection], daemon=True).start()


@pytest.fixture
def upstream():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=echo, args=[listener], daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def dial(proxy):
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_the_proxy_hands_everything_on(upstream):
    sent = bytes(range(256)) * 8000
    with ProxyProcess(upstream, 1, 0) as proxy, dial(proxy) as sock:
        writer = threading.Thread(target=sock.sendall, args=[sent])
        writer.start()
        came = b""
        while len(came) < len(sent):
            came += sock.recv(65536)
        writer.join()
        assert came == sent
    assert proxy.counted == {"connections": 1, "cuts": {}}


def test_the_proxy_cuts_in_every_way(upstream):
    ends = 0
    with ProxyProcess(upstream, 1, 0.002) as proxy:
        while ends < 60:
            try:  # "at once" may be before the connection is made
                with dial(proxy) as sock:
                    while sock.send(b"x" * 100) and sock.recv(65536):
                        pass
            except OSError:
                pass
            ends += 1
    assert set(proxy.counted["cuts"]) == {"at once", "answers", "requests", "torn"}


def test_the_proxy_ends_what_has_nobody_behind_it():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    # It may end it before the connection is reported as made.
    with ProxyProcess(nobody, 1, 0) as proxy, pytest.raises(ConnectionResetError), dial(proxy) as sock:
        sock.recv(1)
