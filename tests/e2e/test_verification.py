"""A real daemon verified under load; and logs that were cut, or written anew, which only a kept head shows."""

import hashlib
import shutil
import threading

import pytest

import statehouse
from statehouse import Head, OverloadedError, VerifyFinding, VerifyVerdict
from statehouse.cli.statehousectl import exit_code_of
from statehouse.cli.statehoused import _exit_code
from statehouse.storage.log_format import HEADER_BYTES, LENGTH, MAX_PAYLOAD_BYTES, RECORD_OVERHEAD_BYTES, next_chain


def write(client, first, count):
    for number in range(first, first + count):
        with client.begin_transaction() as txn:
            txn.write(f"agent-{number % 5}", f"key/{number % 7}", {"paid": f"{number:08}"})
            if number % 3 == 0:
                txn.delete(f"agent-{number % 5}", "key/0")


def test_a_daemon_is_verified_under_load(daemon):
    stop, wrong = threading.Event(), []

    def load(number):
        with statehouse.Statehouse(daemon.address, namespace=f"n{number}") as client:
            first = 0
            while not stop.is_set():
                write(client, first, 10)
                first += 10

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    with statehouse.Statehouse(daemon.address) as client:
        write(client, 0, 100)
        heads = [client.head()]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                heads.append(client.head())
                for event in client.verify(heads):
                    wrong += [event] if isinstance(event, VerifyFinding) else []
                assert isinstance(event, VerifyVerdict)
                assert event.sound
                assert event.head.commit_ts >= heads[-1].commit_ts
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert client.head().commit_ts > heads[-1].commit_ts
        assert heads[-1].commit_ts > heads[0].commit_ts
    daemon.kill()
    assert _exit_code(["--check", "--data-dir", str(daemon.data_dir), "--head", str(heads[-1])]) == 0


def test_a_second_verification_is_refused(daemon):
    with statehouse.Statehouse(daemon.address) as client:
        write(client, 0, 2_000)
        first = client.verify()
        next(first)
        refused = 0
        try:
            list(client.verify())
        except OverloadedError as error:
            refused, message = 1, error.message
        list(first)
        if refused:  # unless the first was over before the second was asked for
            assert "one runs at a time" in message
        assert list(client.verify())[-1].sound


@pytest.fixture
def kept(daemon):
    """A stopped daemon with 40 commits, and its head as an operator keeps it."""
    with statehouse.Statehouse(daemon.address) as client:
        write(client, 0, 40)
        head = client.head()
    assert daemon.stop() == 0
    return head


def only_the_log(daemon):
    """What whoever changes a log does to what bears witness of it."""
    for name in ("state", "snapshots"):
        shutil.rmtree(daemon.data_dir / name, ignore_errors=True)
    (segment,) = (daemon.data_dir / "log").glob("*.log")
    return segment


def records(content):
    """Offset and payload of each record, by the format's page."""
    at = HEADER_BYTES
    while at + RECORD_OVERHEAD_BYTES <= len(content) and (length := LENGTH.unpack_from(content, at)[0]):
        stop = at + RECORD_OVERHEAD_BYTES + (length & MAX_PAYLOAD_BYTES)
        yield at, content[at + RECORD_OVERHEAD_BYTES : stop]
        at = stop


def verified_by(daemon, capsys, *heads):
    """Exit codes and lines of both ways to verify: at rest, and served."""
    options = [option for head in heads for option in ("--head", str(head))]
    at_rest = _exit_code(["--check", "--data-dir", str(daemon.data_dir), *options])
    lines = capsys.readouterr().out.splitlines()
    daemon.start()
    served = exit_code_of(["--address", daemon.address, "verify", *options])
    lines += capsys.readouterr().out.splitlines()
    assert daemon.stop() == 0
    return at_rest, served, [line for line in lines if line.startswith("FOUND")]


def test_a_cut_tail_is_found_by_its_head_alone(daemon, kept, capsys):
    segment = only_the_log(daemon)
    content = segment.read_bytes()
    *_, (before_last, _), (last, _) = records(content)
    segment.write_bytes(content[:before_last] + bytes(len(content) - before_last))
    assert last > before_last
    assert verified_by(daemon, capsys) == (0, 0, [])
    at_rest, served, found = verified_by(daemon, capsys, kept)
    assert (at_rest, served, len(found)) == (5, 1, 2)
    for line in found:
        assert line.startswith("FOUND head-cut  file=log  commit_ts=40  the log ends at commit_ts 38, before the head")


def test_a_history_that_was_written_anew_is_found_by_its_head_alone(daemon, kept, capsys):
    segment = only_the_log(daemon)
    content = bytearray(segment.read_bytes())
    chain = hashlib.sha256(content[12:28]).digest()
    changed = 0
    for at, payload in list(records(bytes(content))):
        forged = payload.replace(b"00000017", b"99999917")
        changed += forged != payload
        length_field = bytes(content[at : at + 4])
        chain = next_chain(chain, length_field, forged)
        content[at + 4 : at + RECORD_OVERHEAD_BYTES + len(forged)] = chain + forged
    assert changed == 1
    segment.write_bytes(content)
    assert verified_by(daemon, capsys) == (0, 0, [])  # nothing in the store shows it
    at_rest, served, found = verified_by(daemon, capsys, Head(0, hashlib.sha256(content[12:28]).digest()), kept)
    assert (at_rest, served, len(found)) == (5, 1, 2)
    for line in found:
        assert line.startswith("FOUND head-rewritten  file=log  commit_ts=40  another commit 40 than the head")
    with statehouse.Statehouse(daemon.start().address) as client:
        assert client.get_state_at_version("agent-2", "key/3", 1).value == {"paid": "99999917"}
