"""A real statehoused: how it starts, what it refuses, and how it stops."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import structlog
import trio
import trio.testing
from daemon_process import STATEHOUSED
from fix_daemon import refusal

import statehouse
from statehouse.cli.exit_codes import daemon_exit_for
from statehouse.daemon import _at_each, _Life, _say_who_may_come_in, run_daemon
from statehouse.limits import Limits
from statehouse.rpc import contract
from statehouse.rpc.server.health import Phase, Serving
from statehouse.setting_forms import Address
from statehouse.settings import Settings
from statehouse.v1 import statehouse_pb2 as pb


def test_the_ready_line(daemon, tmp_path):
    ready = daemon.ready
    assert ready["address"] == f"127.0.0.1:{ready['port']}"
    assert ready["port"] > 0
    assert ready["pid"] == daemon.pid
    assert ready["data_dir"] == str(tmp_path / "statehouse-data")
    assert 0 <= ready["recovery_s"] < 60
    assert ready["head_ts"] == 0
    with statehouse.Statehouse(daemon.address) as client:
        assert client.health() == "ok"


def test_what_was_committed_is_there_after_kill_9_on_the_same_address(daemon):
    with statehouse.Statehouse(daemon.address) as client:
        with client.begin_transaction() as txn:
            txn.write("agent", "key", {"n": 1})
        address, pid = daemon.address, daemon.pid
        daemon.restart()
        assert (daemon.address, daemon.ready["head_ts"]) == (address, 1)
        assert daemon.pid != pid
    with statehouse.Statehouse(daemon.address) as client:
        assert client.get_state("agent", "key").value == {"n": 1}


def test_settings_reach_the_daemon_in_the_order_of_precedence(make_daemon, tmp_path):
    """Three limits from three places, each seen in what the daemon refuses."""
    toml = tmp_path / "statehouse.toml"
    toml.write_text("[limits]\nkey_bytes = 10\nagent_id_bytes = 20\nnamespace_bytes = 30\n")
    daemon = make_daemon(
        options=["--config", str(toml), "--limit-key-bytes", "12"],
        environment={"STATEHOUSE_LIMIT_KEY_BYTES": "11", "STATEHOUSE_LIMIT_AGENT_ID_BYTES": "21"},
    ).start()
    with statehouse.Statehouse(daemon.address) as client:
        for largest, arguments in ((12, ("a", "k" * 13)), (21, ("a" * 22, "k")), (30, ("a", "k", "n" * 31))):
            with pytest.raises(statehouse.InvalidRequestError) as caught:
                client.get_state(*arguments)
            assert caught.value.details["limit"] == str(largest)


def test_a_bad_setting_is_refused_before_anything_is_opened(make_daemon, tmp_path):
    daemon = make_daemon(environment={"STATEHOUSE_TX_TIMEOUT_MS": "soon"})
    assert refusal(daemon, 2) == (
        "statehoused: bad value 'soon' for tx_timeout_ms from the environment variable STATEHOUSE_TX_TIMEOUT_MS: "
        "expected a whole number of milliseconds of at least 1"
    )
    daemon = make_daemon(environment={"STATEHOUSE_CONFIG": str(tmp_path / "none.toml")})
    assert "cannot read the configuration file" in refusal(daemon, 2)
    assert "No such option" in refusal(make_daemon(options=["--fsink"]), 2)
    assert "unexpected extra argument" in refusal(make_daemon(options=["start"]), 2)
    assert not daemon.data_dir.exists()


def test_a_port_that_is_taken_shows_before_the_store_is_opened(daemon, make_daemon, tmp_path):
    other = make_daemon(tmp_path / "other", listen=daemon.address)
    assert refusal(other, 4) == f"statehoused: cannot listen on {daemon.address}: Address already in use"
    assert len(other.lines) == 1
    assert not (other.data_dir / "log").exists()
    with statehouse.Statehouse(daemon.address) as client:
        assert client.health() == "ok"


@pytest.mark.parametrize("listen", ["192.0.2.1:0", "no-such-host.invalid:1"])
def test_an_address_that_cannot_be_had(listen, make_daemon):
    assert f"cannot listen on {listen}" in refusal(make_daemon(listen=listen), 4)


def test_a_data_directory_that_is_held(daemon, make_daemon):
    assert refusal(make_daemon(), 3) == (
        f"statehoused: the data directory {daemon.data_dir} is held by another statehoused (pid {daemon.pid})"
    )


def test_a_data_directory_that_cannot_be_used(make_daemon, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    assert refusal(make_daemon(tmp_path / "file"), 2).endswith(" is a file")
    assert "cannot be made" in refusal(make_daemon(tmp_path / "file" / "below"), 2)
    assert "not Statehouse's, such as 'thesis.tex'" in refusal(make_daemon(tmp_path / "foreign"), 2)
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]


def test_a_damaged_log_is_refused_by_name(daemon, make_daemon):
    with statehouse.Statehouse(daemon.address) as client:
        for n in range(3):
            with client.begin_transaction() as txn:
                txn.write("agent", "key", {"n": n})
    assert daemon.stop() == 0
    (segment,) = (daemon.data_dir / "log").glob("*.log")
    content = bytearray(segment.read_bytes())
    position = content.index(b"agent")
    content[position] ^= 1
    segment.write_bytes(content)
    assert str(segment) in refusal(make_daemon(options=["--verify-on-start", "full"]), 5)


def test_in_memory_nothing_touches_the_data_directory(make_daemon):
    daemon = make_daemon(environment={"STATEHOUSE_USE_MEMORY": "yes"}).start()
    with statehouse.Statehouse(daemon.address) as client:
        with client.begin_transaction() as txn:
            txn.write("agent", "key", {"n": 1})
        assert client.get_state("agent", "key").exists
    assert daemon.ready["data_dir"] == "in memory"
    (warning,) = daemon.events("nothing survives this daemon: use_memory is on")
    assert warning["level"] == "warning"
    assert daemon.stop() == 0
    assert not daemon.data_dir.exists()


def test_what_an_operator_left_beside_the_segments_is_let_be(daemon):
    daemon.stop()
    stray = daemon.data_dir / "log" / "00000000000000000001.log.bak"
    stray.write_text("x")
    assert daemon.restart().ready["head_ts"] == 0
    assert stray.read_text() == "x"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_an_idle_daemon(number, daemon):
    with statehouse.Statehouse(daemon.address) as client:
        client.health()
        daemon.send(number)
        assert daemon.wait() == 0
    assert [event["signal"] for event in daemon.events("stopping")] == [number.name]
    assert len(daemon.events("stopped")) == 1


def test_a_signal_while_it_starts_ends_the_start(make_daemon):
    daemon = make_daemon()
    daemon.launch()
    daemon.wait_for("starting")
    assert daemon.stop() == 0
    assert len(daemon.events("stopped")) == 1
    assert daemon.restart().ready["head_ts"] == 0


@pytest.fixture
def in_this_process(tmp_path, monkeypatch):
    """Run the daemon here, on an engine that does as told; it gets SIGTERM as soon as it is ready."""

    async def run(engine_of_the_test):
        monkeypatch.setattr("statehouse.daemon.open_engine", lambda *_, **__: engine_of_the_test)
        monkeypatch.setattr("statehouse.daemon._say_ready", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        await run_daemon(Settings(listen_addr=Address("127.0.0.1", 0), data_dir=tmp_path / "data"))

    return run


async def test_a_log_that_was_poisoned_shows_in_the_exit_code(in_this_process):
    @asynccontextmanager
    async def poisoned(_=None):
        yield SimpleNamespace(limits=Limits(), head_ts=7, health=lambda: "read-only")

    with pytest.raises(BaseExceptionGroup) as caught:
        await in_this_process(poisoned())
    assert daemon_exit_for(caught.value) == 6
    assert "read-only" in str(caught.value.exceptions[0])


async def test_the_health_service_follows_the_store_and_the_stop(tmp_path, monkeypatch):
    phases, told = [], []
    become = Serving.become
    monkeypatch.setattr(Serving, "become", lambda self, phase: (phases.append(phase), become(self, phase)))

    @asynccontextmanager
    async def engine(settings, *, became_read_only):
        told.append(became_read_only)
        yield SimpleNamespace(limits=Limits(), head_ts=7, health=lambda: "ok")

    def ready(*_, **__):
        told[0]()  # as the sequencer does when the log is poisoned
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("statehouse.daemon.open_engine", engine)
    monkeypatch.setattr("statehouse.daemon._say_ready", ready)
    await run_daemon(Settings(listen_addr=Address("127.0.0.1", 0), data_dir=tmp_path / "data"))
    assert phases == [Phase.SERVING, Phase.READ_ONLY, Phase.STOPPING]


async def test_an_engine_that_fails_takes_the_daemon_down(in_this_process):
    @asynccontextmanager
    async def failing():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield SimpleNamespace(limits=Limits(), head_ts=7, health=lambda: "ok")

    async def fail():
        raise ZeroDivisionError("a bug")

    with pytest.raises(BaseExceptionGroup) as caught:
        await in_this_process(failing())
    assert daemon_exit_for(caught.value) == 1


def test_sigterm_under_load_exits_0_and_keeps_every_answered_commit(daemon):
    answered = [0] * 4
    under_load = threading.Barrier(len(answered) + 1)

    def commit_until_refused(index):
        with statehouse.Statehouse(daemon.address) as client:
            try:
                while True:
                    with client.begin_transaction() as txn:
                        txn.write(f"agent-{index}", "count", {"n": answered[index] + 1})
                    answered[index] += 1
                    if answered[index] == 10:
                        under_load.wait(30)
            except (statehouse.ConnectionError, statehouse.TransactionError):
                return

    committers = [threading.Thread(target=commit_until_refused, args=(index,)) for index in range(len(answered))]
    for committer in committers:
        committer.start()
    under_load.wait(30)
    assert daemon.stop() == 0
    for committer in committers:
        committer.join(30)
    assert not any(committer.is_alive() for committer in committers)
    daemon.restart()
    with statehouse.Statehouse(daemon.address) as client:
        for index, count in enumerate(answered):
            stored = client.get_state(f"agent-{index}", "count").value["n"]
            assert count <= stored <= count + 1  # the last one may have been committed and not answered


def test_a_second_signal_stops_at_once(make_daemon):
    """A replay that nobody reads keeps the drain waiting for an hour; the second signal does not wait."""
    daemon = make_daemon(options=["--shutdown-grace-s", "3600"]).start()
    with statehouse.Statehouse(daemon.address) as client, client.begin_transaction() as txn:
        for n in range(30):
            txn.write("agent", f"key-{n}", {"text": "x" * 1_000_000})
    with stalled_replay(daemon.address):
        daemon.send(signal.SIGTERM)
        daemon.wait_for("stopping")
        daemon.send(signal.SIGTERM)
        assert daemon.wait() == -signal.SIGTERM
    assert daemon.events("stopped") == []


def stalled_replay(address):
    """A grpcio call that asks for a replay of 'agent' and then reads nothing but its first message."""
    import grpc

    from statehouse.v1 import statehouse_pb2 as pb

    class Stalled:
        def __enter__(self):
            self.channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
            replay = self.channel.unary_stream(
                "/statehouse.v1.StatehouseService/Replay",
                request_serializer=pb.ReplayRequest.SerializeToString,
                response_deserializer=bytes,
            )
            self.call = replay(pb.ReplayRequest(agent_id="agent"))
            self.call.initial_metadata()
            return self

        def __exit__(self, *_):
            self.call.cancel()
            self.channel.close()

    return Stalled()


# Who may come in


def grpc_health(address):
    """The daemon's health as grpcio hears it."""
    import grpc

    from statehouse.v1 import statehouse_pb2 as pb

    with grpc.insecure_channel(address) as channel:
        health = channel.unary_unary(
            "/statehouse.v1.StatehouseService/Health",
            request_serializer=pb.HealthRequest.SerializeToString,
            response_deserializer=pb.HealthResponse.FromString,
        )
        return health(pb.HealthRequest(), timeout=20).status


@pytest.fixture
def token_file(tmp_path):
    """A token file in which there is no token."""
    path = tmp_path / "tokens"
    path.touch(0o600)
    return path


def test_a_unix_socket(make_daemon, tmp_path):
    path = tmp_path / "s"
    daemon = make_daemon(listen=f"unix:{path}").start()
    assert (daemon.ready["address"], daemon.ready["port"]) == (f"unix:{path}", 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert grpc_health(daemon.address) == "ok"
    other = make_daemon(tmp_path / "other", listen=f"unix:{path}")
    assert refusal(other, 4) == f"statehoused: cannot listen on unix:{path}: Address already in use"
    assert grpc_health(daemon.address) == "ok"
    daemon.kill()
    assert path.is_socket()
    daemon.start()
    assert grpc_health(daemon.address) == "ok"
    assert daemon.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("options", [[], ["--tls-cert", "CERT", "--tls-key", "KEY"]])
def test_beyond_loopback_nobody_comes_in_unasked(options, make_daemon, authority):
    issued = authority.issue()
    files = {"CERT": str(issued.cert), "KEY": str(issued.key)}
    daemon = make_daemon(listen="0.0.0.0:0", options=[files.get(option, option) for option in options])
    said = refusal(daemon, 4)
    assert said.startswith("statehoused: cannot listen on 0.0.0.0:0: other machines reach 0.0.0.0, and nobody would")
    assert "token_file" in said


@pytest.mark.parametrize("options", [["--insecure"], ["--token-file", "FILE"]])
def test_beyond_loopback_is_tried_when_it_is_asked_for(options, make_daemon, token_file):
    """The address is nobody's, so that no test is reachable from elsewhere."""
    options = [str(token_file) if option == "FILE" else option for option in options]
    assert refusal(make_daemon(listen="192.0.2.1:0", options=options), 4).endswith("Cannot assign requested address")


@pytest.mark.parametrize(
    ("bound", "changes", "warned_of"),
    [
        ("192.0.2.1", {"insecure": True}, "insecure"),
        ("192.0.2.1", {"insecure": True, "tls_cert": "c"}, "insecure"),
        ("192.0.2.1", {"token_file": "t"}, "tls_cert"),
        ("192.0.2.1", {"token_file": "t", "tls_cert": "c"}, None),
        ("192.0.2.1", {"tls_client_ca": "a", "tls_cert": "c"}, None),
        ("127.0.0.1", {"insecure": True}, None),
        ("127.0.0.1", {"token_file": "t"}, None),
    ],
)
def test_what_an_address_beyond_loopback_is_warned_of(bound, changes, warned_of):
    listener = SimpleNamespace(socket=SimpleNamespace(family=socket.AF_INET, getsockname=lambda: (bound, 1)))
    tls = SimpleNamespace(expires="", asks_for_certificates=False) if "tls_cert" in changes else None
    tokens = ["token"] if "token_file" in changes else None
    with structlog.testing.capture_logs() as lines:
        _say_who_may_come_in(Settings(**changes), listener, tls, tokens)
    warnings = [line["setting"] for line in lines if line["log_level"] == "warning"]
    assert warnings == ([] if warned_of is None else [warned_of])


def test_on_loopback_nothing_is_warned_of(make_daemon, token_file):
    new_token(token_file)
    daemon = make_daemon(options=["--insecure", "--token-file", str(token_file)]).start()
    assert [line for line in daemon.lines if '"info"' not in line] == []


def test_a_certificate_or_a_token_file_that_cannot_be_used_is_refused_before_anything_is_opened(
    make_daemon, authority, other_authority, tmp_path
):
    cert, key = authority.issue().cert, other_authority.issue().key
    daemon = make_daemon(options=["--tls-cert", str(cert), "--tls-key", str(key)])
    assert refusal(daemon, 2) == f"statehoused: the TLS private key {key} does not belong to the certificate {cert}"
    assert str(tmp_path / "none") in refusal(make_daemon(options=["--token-file", str(tmp_path / "none")]), 2)
    assert not daemon.data_dir.exists()


def reloads(daemon):
    """What was reloaded and what was not, in order."""
    return [
        (line["level"], line["event"].partition(":")[0], line["what"], line.get("reason"))
        for line in map(json.loads, daemon.lines)
        if "reloaded" in line["event"]
    ]


def test_sighup_reloads_certificates_and_tokens_and_keeps_what_it_cannot_replace(
    make_daemon, authority, other_authority, token_file
):
    cert, key = authority.issue()
    options = ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", authority.file, "--token-file", token_file]
    daemon = make_daemon(options=[str(option) for option in options]).start()
    (tls,) = daemon.events("TLS is on")
    assert (tls["client_certificates"], tls["expires"][:2]) == (True, "30")
    daemon.send(signal.SIGHUP)
    daemon.wait_until(lambda: len(reloads(daemon)) == 2)
    key.write_bytes(other_authority.issue().key.read_bytes())
    daemon.send(signal.SIGHUP)
    daemon.wait_until(lambda: len(reloads(daemon)) == 4)
    authority.issue()
    token_file.chmod(0o644)
    daemon.send(signal.SIGHUP)
    daemon.wait_until(lambda: len(reloads(daemon)) == 6)
    done = [("info", "reloaded", "certificates", None), ("info", "reloaded", "tokens", None)]
    told = reloads(daemon)
    assert told[:2] == done
    assert told[2] == (
        "error",
        "not reloaded",
        "certificates",
        f"the TLS private key {key} does not belong to the certificate {cert}",
    )
    assert told[3:5] == [done[1], done[0]]
    assert told[5][:3] == ("error", "not reloaded", "tokens")
    assert daemon.stop() == 0


def read_securely(daemon, root, identity=None, token=None):
    """Read a state with grpcio over TLS; the call's status code."""
    import grpc

    from statehouse.v1 import statehouse_pb2 as pb

    key, cert = (None, None) if identity is None else (identity.key.read_bytes(), identity.cert.read_bytes())
    credentials = grpc.ssl_channel_credentials(root.read_bytes(), key, cert)
    with grpc.secure_channel(f"localhost:{daemon.port}", credentials) as channel:
        get_state = channel.unary_unary(
            "/statehouse.v1.StatehouseService/GetState",
            request_serializer=pb.GetStateRequest.SerializeToString,
            response_deserializer=pb.GetStateResponse.FromString,
        )
        metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        try:
            get_state(pb.GetStateRequest(agent_id="agent", key="key"), timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


def new_token(token_file):
    """Make a token as an operator does."""
    command = [sys.executable, "-m", "statehouse.cli.statehousectl", "token", "create", "--role", "read-only"]
    made = subprocess.run([*command, "--file", str(token_file)], capture_output=True, text=True, check=True).stdout
    return re.search(r"sth_[0-9a-f]{12}_[\w-]+", made)[0]


def test_tls_with_client_certificates_and_tokens(make_daemon, authority, other_authority, token_file):
    cert, key = authority.issue()
    options = ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", authority.file, "--token-file", token_file]
    token = new_token(token_file)
    daemon = make_daemon(options=[str(option) for option in options]).start()
    ours, theirs = authority.issue("ours"), other_authority.issue("theirs")
    assert read_securely(daemon, authority.file, ours, token) == "OK"
    assert read_securely(daemon, authority.file, ours) == "UNAUTHENTICATED"
    assert read_securely(daemon, authority.file, theirs, token) == "UNAVAILABLE"
    assert read_securely(daemon, authority.file, None, token) == "UNAVAILABLE"
    assert read_securely(daemon, other_authority.file, ours, token) == "UNAVAILABLE"
    late = new_token(token_file)
    assert read_securely(daemon, authority.file, ours, late) == "UNAUTHENTICATED"
    daemon.send(signal.SIGHUP)
    daemon.wait_until(lambda: len(reloads(daemon)) == 2)
    assert read_securely(daemon, authority.file, ours, late) == "OK"
    daemon.send(signal.SIGUSR1)
    assert daemon.wait_for("edge")["unauthenticated"] == 2
    assert not any(secret in line for line in daemon.lines for secret in (token, late))


def test_a_token_that_is_revoked_watches_no_more_after_sighup(make_daemon, token_file):
    kept, gone = new_token(token_file), new_token(token_file)
    daemon = make_daemon(options=["--token-file", str(token_file)]).start()

    def watch(channel, token):
        call = channel.unary_stream(
            f"/{contract.SERVICE_NAME}/Replay",
            request_serializer=pb.ReplayRequest.SerializeToString,
            response_deserializer=pb.ReplayEvent.FromString,
        )
        request = pb.ReplayRequest(agent_id="a", follow=True, bookmarks=True)
        watching = call(request, metadata=[("authorization", f"Bearer {token}")], timeout=20)
        assert next(watching).bookmark
        return watching

    with grpc.insecure_channel(daemon.address) as channel:
        watching = [watch(channel, kept), watch(channel, gone)]
        command = [sys.executable, "-m", "statehouse.cli.statehousectl", "token", "revoke", gone.split("_")[1]]
        subprocess.run([*command, "--file", str(token_file)], capture_output=True, check=True)
        daemon.send(signal.SIGHUP)
        for each in watching:
            with pytest.raises(grpc.RpcError) as ended:
                list(each)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert watch(channel, kept)
        with pytest.raises(grpc.RpcError) as refused:
            watch(channel, gone)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_sighup_and_sigusr1_never_end_the_daemon(make_daemon):
    daemon = make_daemon()
    daemon.launch()
    daemon.wait_for("starting")
    daemon.send(signal.SIGHUP)
    daemon.send(signal.SIGUSR1)
    daemon.wait_ready()
    daemon.wait_for("nothing to reload: neither certificates nor tokens are set")
    assert daemon.wait_for("edge")["level"] == "info"
    assert grpc_health(daemon.address) == "ok"
    assert daemon.stop() == 0


async def test_a_disk_that_does_not_answer_holds_up_a_reload_and_nothing_else():
    answers = threading.Event()
    life = _Life(on_hangup={"certificates": SimpleNamespace(reload=lambda: answers.wait(30))})
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.reload)
            await trio.testing.wait_all_tasks_blocked()
            await life.log_census()
            answers.set()
    assert [line["event"] for line in lines] == ["edge", "reloaded"]


async def test_a_bug_in_what_a_signal_asks_for_is_logged_and_ends_nothing():
    asked = [trio.Event(), trio.Event()]

    async def act():
        await trio.lowlevel.checkpoint()
        first = not asked[0].is_set()
        asked[0 if first else 1].set()
        if first:
            raise ZeroDivisionError

    with structlog.testing.capture_logs() as lines, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(_at_each, signal.SIGUSR1, act)
            for each in asked:
                os.kill(os.getpid(), signal.SIGUSR1)
                await each.wait()
            nursery.cancel_scope.cancel()
    assert [(line["event"], line["signal"]) for line in lines] == [("a signal was not obeyed", "SIGUSR1")]


def test_help_names_every_setting_and_exit_code():
    shown = subprocess.run([*STATEHOUSED, "--help"], capture_output=True, text=True, check=True).stdout
    for text in ("--data-dir PATH", "STATEHOUSE_LISTEN_ADDR, then", "--limit-key-bytes SIZE", "Exit codes:", "SIGTERM"):
        assert text in shown
    assert max(map(len, shown.splitlines())) <= 110


def test_version():
    shown = subprocess.run([*STATEHOUSED, "--version"], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(rf"statehoused {re.escape(statehouse.__version__)} \(\w+\)\n", shown)


def test_on_a_terminal_the_log_is_for_people(tmp_path):
    main, terminal = os.openpty()
    command = [*STATEHOUSED, "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(command, stderr=terminal, stdin=subprocess.DEVNULL) as process:
        os.close(terminal)
        shown = ""
        while "ready" not in shown or "\n" not in shown[shown.index("ready") :]:
            shown += os.read(main, 4096).decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    os.close(main)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert re.search(r"\[info +\] ready +.*address=127\.0\.0\.1:\d+", plain)


def test_the_daemon_takes_its_port_from_nobody(daemon):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", daemon.port))


def test_the_installed_command():
    command = Path(sys.executable).parent / "statehoused"
    shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("statehoused ")
