"""Every remedy for what purerpc does wrong: it is there in our daemon, and is not in purerpc as shipped.

The rows are those of the two tables of measured facts about purerpc 0.8.0, and of the paragraph after them about what
a production edge does instead. Each check is run twice: on our server, where it must pass, and on purerpc's own, where
it must fail; so no check passes because it sees nothing. `NOT_COMPARED` says which rows have no second run, and why.
"""

import gc
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import field, frozen
from daemon_process import STATEHOUSED
from e2e import checks_of_calls as calls
from e2e import checks_of_clients as clients
from e2e import checks_of_connections as connections
from e2e.fix_targets import (
    AS_SHIPPED_LISTENING_BY_ITSELF,
    AS_SHIPPED_PATIENCE_S,
    AS_SHIPPED_WITH_A_BUG,
    OURS_PATIENCE_S,
    OURS_PINGING_SOON,
    OURS_WITH_A_BUG,
)


@frozen
class Remedy:
    """A check of a server, the row that it stands for, and how the servers are started for it."""

    check: Callable
    row: str
    ours: dict = field(factory=dict)
    as_shipped: dict = field(factory=dict)

    def __str__(self) -> str:
        return self.check.__name__.removeprefix("check_")


ROOT = Path(__file__).resolve().parents[2]
A_BUG = {"command": (STATEHOUSED[0], "-c", OURS_WITH_A_BUG)}
PINGING = {"command": (STATEHOUSED[0], "-c", OURS_PINGING_SOON)}
LIMITED = {"options": ("--max-connections", "20", "--connection-idle-s", "1")}
AGING = {"options": ("--connection-age-s", "1")}
LEFT = "client killed, or a clean EOF, while a stream is idle or blocked: leaks for ever"
UNLIMITED = "no limit on resets, pings, settings or continuation frames"

REMEDIES = (
    # What purerpc does
    Remedy(calls.check_a_bug_is_told_by_its_id_alone, "CANCELLED with repr(sys.exc_info())", A_BUG, A_BUG),
    Remedy(calls.check_a_malformed_request_is_the_clients_fault, "an ordinary exception becomes CANCELLED"),
    Remedy(calls.check_a_reset_ends_the_call, "a client's RST_STREAM is ignored"),
    Remedy(calls.check_the_deadline_ends_the_call, "grpc-timeout is parsed and never enforced"),
    Remedy(calls.check_a_frame_for_a_stream_that_is_gone_is_ignored, "a frame for a stream that is gone"),
    Remedy(calls.check_streams_are_bounded, "65,536 concurrent streams"),
    Remedy(connections.check_resets_have_a_budget, UNLIMITED),
    Remedy(connections.check_pings_have_a_budget, "PING flood, 557,000 in 4 s: no limit"),
    Remedy(connections.check_settings_have_a_budget, UNLIMITED),
    Remedy(connections.check_continuations_have_a_budget, UNLIMITED),
    # Attacks and accidents
    Remedy(connections.check_a_killed_client_leaves_nothing, LEFT),
    Remedy(connections.check_a_clean_eof_ends_calls_and_connection, LEFT),
    Remedy(calls.check_paced_resets_leave_nothing, "3,000 paced HEADERS + RST_STREAM: 3,000 handlers"),
    Remedy(calls.check_a_bad_path_is_an_answer, "path /a/b/c: other calls of the connection stall or die"),
    Remedy(calls.check_a_message_over_the_limit_is_refused, "a message over the limit: the call never ends"),
    Remedy(calls.check_a_compressed_message_is_answered, "gzip: the call never ends"),
    Remedy(calls.check_a_bomb_is_not_inflated, "a deflate bomb of 398 KiB: 833 MiB resident"),
    Remedy(calls.check_uploads_that_nobody_reads_are_held_back, "4 x 60 MB to handlers that do not read"),
    Remedy(calls.check_much_metadata_is_refused, "60 KB of metadata: accepted"),
    Remedy(connections.check_what_is_not_http2_is_closed, "HTTP/1.1, garbage, half a frame: never closed"),
    Remedy(connections.check_idle_connections_are_closed, "500 idle connections: never closed", LIMITED),
    Remedy(connections.check_a_header_block_costs_little, "hpack 3.0.0: 256 KB of header bytes cost 5.3 s"),
    # What a production edge does
    Remedy(calls.check_a_goodbye_ends_the_calls, "a cancel scope per call, ended by GOAWAY"),
    Remedy(connections.check_empty_frames_have_a_budget, "a budget for empty frames"),
    Remedy(calls.check_windows_are_moderate, "stream windows of 64 KiB to 1 MiB"),
    Remedy(connections.check_unread_output_is_bounded, "bounded output per connection"),
    Remedy(calls.check_header_lists_have_a_limit, "header lists over 8 KiB refused"),
    Remedy(calls.check_control_characters_are_refused, "control characters refused"),
    Remedy(connections.check_connections_are_capped, "a connection cap", LIMITED),
    Remedy(connections.check_old_connections_are_closed, "age limits", AGING),
    Remedy(connections.check_a_peer_that_is_gone_is_found_out, "keepalive limits", PINGING),
)

CLIENT_REMEDIES = {
    clients.check_a_lost_connection_ends_the_call: "a call in flight hangs for ever when the server dies",
    clients.check_a_deadline_is_sent: "the client stub cannot send a deadline",
}

NOT_COMPARED = {
    "binds every interface with SO_REUSEPORT": "compared below, on loopback: no test binds every interface",
    "pins h2 < 4": "metadata of a package; our data path does without: tests/rpc/test_data_path.py",
    "`sanitize_headers` refuses trailers that begin `grpc-`": "no fault: our trailer has another name, and passes",
    "`protoc-gen-purerpc` refuses proto3 `optional`": "nothing is generated with it (contract.py)",
    "TLS: grpcio connects only when ALPN offers h2": "the server as shipped is given no certificates; "
    "tests/rpc/server/test_tls.py::test_a_client_that_does_not_offer_h2_is_turned_away",
    "5 s for the TLS handshake": "as TLS; tests/rpc/server/test_who_may_come_in.py"
    "::test_a_connection_that_only_opens_is_let_go_before_its_handshake",
    "the append is shielded": "nothing is appended by the server as shipped; "
    "tests/rpc/server/test_cancelling.py::test_a_deadline_ends_the_wait_and_not_the_commit",
    "a global cap on calls": "10,000 calls: "
    "tests/rpc/server/test_connection_calls.py::test_all_connections_together_have_a_cap",
    "counted until the handler has ended": "the server as shipped has no count; "
    "tests/rpc/server/test_connection_calls.py::test_work_that_outlives_its_connection_counts_until_it_has_ended",
    "messages up to 4 MiB": "the server as shipped takes them, too; below, on ours",
    "flow control returned as messages are consumed": "held back in uploads_that_nobody_reads; to the byte: "
    "tests/rpc/server/test_request_budget.py::test_no_more_is_let_in_than_the_message_needs",
    "its details in the log alone": "the server as shipped logs none; "
    "tests/rpc/server/test_call_errors.py::test_a_bug_is_an_error_id_and_nothing_else",
}


@pytest.mark.parametrize("remedy", REMEDIES, ids=str)
def test_a_remedy_is_there(remedy, our_daemons):
    target = our_daemons(**remedy.ours)
    with target.peers:
        remedy.check(target)


@pytest.mark.parametrize("remedy", REMEDIES, ids=str)
def test_purerpc_as_shipped_has_no_remedy(remedy, as_shipped):
    target = as_shipped(AS_SHIPPED_WITH_A_BUG) if remedy.as_shipped else as_shipped()
    with pytest.raises(AssertionError):
        remedy.check(target)


@pytest.mark.parametrize(
    "check", [calls.check_a_message_just_under_the_limit_is_answered, calls.check_large_requests_wait_their_turn]
)
def test_what_is_within_the_limits_is_served(check, our_daemons):
    target = our_daemons()
    with target.peers:
        check(target)


@pytest.mark.parametrize("check", CLIENT_REMEDIES, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_our_client_has_the_remedy(check):
    await check(clients.ours, OURS_PATIENCE_S)


@pytest.mark.parametrize("check", CLIENT_REMEDIES, ids=lambda check: check.__name__.removeprefix("check_"))
async def test_purerpcs_client_as_shipped_has_none(check):
    with pytest.raises(AssertionError):
        await check(clients.as_shipped, AS_SHIPPED_PATIENCE_S)
    with warnings.catch_warnings():  # it leaves its streams open, too
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_our_address_is_ours_alone(our_daemons):
    connections.check_nobody_else_can_listen_there(our_daemons())


def test_purerpc_as_shipped_shares_its_address(as_shipped):
    target = as_shipped(AS_SHIPPED_LISTENING_BY_ITSELF)
    with pytest.raises(AssertionError):
        connections.check_nobody_else_can_listen_there(target)


def test_what_is_not_compared_is_tested_where_it_says():
    named = [
        match.groups() for why in NOT_COMPARED.values() for match in re.finditer(r"(tests/[\w/]+\.py)(?:::(\w+))?", why)
    ]
    assert len(named) > 5
    for path, test in named:
        assert test is None or re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE), test
        assert (ROOT / path).is_file(), path
