"""The attack suite: some of it on a real daemon, what its judge must see, and the bytes that its peer is made of."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import attack_edge
import pytest
from attacks import raw_http2, vitals
from attacks.attack import persist
from attacks.attacker import ATTACKS, attack_named
from attacks.raw_peer import RawPeer
from attrs import evolve
from client.scripted_server import ScriptedServer
from jh2.hpack import Decoder

ROOT = Path(__file__).resolve().parents[2]
SOME = ("clean_eof", "hpack_bomb", "not_http2", "half_handshakes")


@pytest.fixture
def scene(tmp_path):
    """A daemon with its honest client."""
    made = attack_edge.Scene.set(tmp_path)
    yield made
    made.clear()


def judged(monkeypatch, scene, attack, name="clean_eof"):
    """The verdict when `attack(pid)` is what the attacker does."""
    monkeypatch.setattr(attack_edge, "_attack", lambda *_: attack(scene.daemon.pid) or ({"note": "done"}, []))
    return attack_edge.judge(scene, attack_named(name), 0.1, "short")


def test_some_attacks(tmp_path):
    only = [argument for name in SOME for argument in ("--only", name)]
    told = tmp_path / "told.json"
    command = [sys.executable, str(ROOT / "tools" / "attack_edge.py"), *only, "--json", str(told)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("4 attacks, 0 of them did harm")
    rows = json.loads(told.read_text())
    assert [row["name"] for row in rows] == list(SOME)
    assert all(row["calls"] > 20 and 0 < row["p99_s"] < 1 and row["stranger_p99_s"] > 0 for row in rows)


def test_the_list_describes_every_attack_once(capsys):
    assert attack_edge.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) > 60
    assert all(attack.what and attack.row for attack in ATTACKS)
    assert all(attack.name in out for attack in ATTACKS)


def test_an_attack_that_does_not_exist(capsys):
    with pytest.raises(SystemExit):
        attack_edge.main(["--only", "kindness"])
    assert "there is no attack" in capsys.readouterr().err


def test_a_daemon_that_stands_still_is_found_out(monkeypatch, scene):
    def stop_for_a_while(pid):
        os.kill(pid, signal.SIGSTOP)
        try:
            subprocess.run(["sleep", "1.5"], check=True)
        finally:
            os.kill(pid, signal.SIGCONT)

    violations = judged(monkeypatch, scene, stop_for_a_while).violations
    assert any("the honest client's 99th percentile" in each for each in violations)
    assert any("on new connections" in each for each in violations)


def test_a_daemon_that_dies_is_found_out(monkeypatch, scene):
    violations = judged(monkeypatch, scene, lambda pid: os.kill(pid, signal.SIGKILL)).violations
    assert any("honest calls failed" in each for each in violations)
    assert "the daemon has ended with -9" in violations
    assert scene.hurt


def test_what_is_left_and_what_was_grown_is_found_out(monkeypatch, scene):
    monkeypatch.setattr(attack_edge, "GROWTH_BYTES", -(10**12))
    monkeypatch.setattr(vitals, "SETTLED_S", 0.0)
    assert scene.before.counts.keys() > set(vitals.COUNTED)
    with RawPeer(("127.0.0.1", scene.daemon.port)) as peer:
        assert peer.answers()
        peer.start("Commit")
        assert peer.is_heard()
        violations = judged(monkeypatch, scene, lambda pid: None).violations
        assert scene.hurt
    assert any("resident memory grew by" in each for each in violations)
    for what in ("sockets", *vitals.COUNTED):
        assert any(f" {what} " in each for each in violations), what


def test_complaints_of_the_attack_itself_count(monkeypatch, scene):
    monkeypatch.setattr(attack_edge, "_attack", lambda *_: ({"note": "", "complaints": ["no answer"]}, []))
    assert attack_edge.judge(scene, ATTACKS[0], 0.1, "short").violations == ["no answer"]


def test_an_attacker_that_fails_is_no_success():
    told, trouble = attack_edge._attack("clean_eof", "127.0.0.1:1", 0.1, "short")
    assert told == {}
    assert trouble[0].startswith("the attacker itself failed: ConnectionRefusedError")


def test_the_99th_percentile_is_the_nearest_rank():
    assert attack_edge.percentile_99([]) == 0.0
    assert attack_edge.percentile_99([3.0, 1.0, 2.0]) == 3.0
    assert attack_edge.percentile_99(list(range(1, 201))) == 198


def test_counts_are_compared_by_name_and_files_with_some_room():
    before = vitals.Vitals({"sockets": 3, "files": 10, "tasks": 5})
    after = evolve(before, counts={"sockets": 4, "files": 20, "calls": 7})
    assert after.beyond(before) == {"sockets": (3, 4)}


def test_the_census_is_read_wherever_it_stands():
    assert vitals._counts({"event": "edge", "tasks": 4, "edge": {"calls": 2}, "level": "info"}) == {
        "tasks": 4,
        "calls": 2,
    }


def test_a_daemon_that_does_not_count_is_not_judged(monkeypatch, capsys):
    monkeypatch.setattr(vitals, "answers_census", lambda pid: False)
    assert attack_edge.main(["--only", "clean_eof"]) == 1
    assert "does not catch SIGUSR1" in capsys.readouterr().out


def test_a_daemon_that_does_not_answer_the_census_is_found_out(monkeypatch, scene):
    monkeypatch.setattr(vitals, "CENSUS_S", 0.0)
    now = vitals.take(scene.daemon)
    assert now.beyond(scene.before) == {vitals.UNANSWERED: (0, 1)}


@pytest.mark.parametrize("size", [0, 100, raw_http2.FRAME_BYTES, raw_http2.FRAME_BYTES + 1, 50_000])
def test_a_header_block_is_cut_into_frames(size):
    block, found, at = bytes(size), b"", 0
    whole = raw_http2.headers_frame(7, block, end_stream=True)
    flags_seen = []
    while at < len(whole):
        high, low, kind, flags, stream_id = raw_http2.HEADER.unpack_from(whole, at)
        length = high << 16 | low
        found += whole[at + 9 : at + 9 + length]
        flags_seen.append((kind, flags))
        assert stream_id == 7
        at += 9 + length
    assert found == block
    assert flags_seen[0][0] == raw_http2.Kind.HEADERS
    assert [bool(flags & raw_http2.END_HEADERS) for _, flags in flags_seen] == [False] * (len(flags_seen) - 1) + [True]


def test_header_blocks_are_hpack():
    decoded = dict(Decoder().decode(raw_http2.call_block("Version", [("x", "y" * 300)])))
    assert decoded[":path"] == "/statehouse.v1.StatehouseService/Version"
    assert decoded["x"] == "y" * 300


@pytest.mark.parametrize(("value", "encoded"), [(10, b"\x0a"), (31, b"\x1f\x00"), (1337, b"\x1f\x9a\x0a")])
def test_integers_as_in_the_examples_of_rfc_7541(value, encoded):
    assert raw_http2.integer(value, 5) == encoded


class FourTimes:
    """A stage that is over when the attacker has connected four times."""

    def __init__(self, address):
        self._address = address
        self._connected = 0

    def connect(self, *, reads):
        self._connected += 1
        return RawPeer(self._address, reads=reads)

    @property
    def over(self):
        return self._connected >= 4


def test_an_attacker_comes_back_when_it_is_thrown_out():
    def throw_out(peer, stream_id):
        peer.h2.close_connection(error_code=raw_http2.Code.ENHANCE_YOUR_CALM)
        peer.hang_up()

    def once(peer):
        peer.call("Version")
        peer.ends()
        return 1

    server = ScriptedServer(throw_out)
    try:
        host, _, port = server.url.rpartition(":")
        report = persist(FourTimes((host, int(port))), once)
    finally:
        server.close()
    assert report.note == "3 sent on 4 connections (3 x ENHANCE_YOUR_CALM)"
