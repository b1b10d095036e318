"""How many connections fit beside the store's files, by the limits of the system."""

import resource

import pytest

from statehouse.errors import ConfigError
from statehouse.limits import STORE_DESCRIPTORS as STORE
from statehouse.rpc.server import descriptors

ANY = resource.RLIM_INFINITY


@pytest.fixture
def limits(monkeypatch):
    """Pretend that the process has these limits; `set` has what was set."""

    def pretend(soft, hard):
        monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda which, limits: pretend.set.append(limits))

    pretend.set = []
    return pretend


@pytest.mark.parametrize(
    ("soft", "hard", "fitting", "raised_to"),
    [
        (ANY, ANY, 1_000, None),
        (STORE + 1_000, STORE + 1_000, 1_000, None),
        (STORE + 5_000, ANY, 1_000, None),
        (1_024, ANY, 1_000, STORE + 1_000),
        (1_024, STORE + 1_000, 1_000, STORE + 1_000),
        (256, STORE + 999, 999, STORE + 999),
        (STORE + 1, STORE + 1, 1, STORE + 1),
    ],
)
def test_connections_leave_the_store_its_files(limits, soft, hard, fitting, raised_to):
    limits(soft, hard)
    assert descriptors.connections_that_fit(1_000) == fitting
    assert limits.set == ([] if raised_to is None else [(raised_to, hard)])


def test_a_limit_without_room_for_one_connection_is_refused_by_name(limits):
    limits(STORE, STORE)
    with pytest.raises(ConfigError, match=rf"the limit on open files is {STORE}.*ulimit -n"):
        descriptors.connections_that_fit(1_000)
