"""Fixtures live in `fix_*.py` modules by subject; this names them."""

from hypothesis import HealthCheck, settings

# How long an example takes is the machine's doing, and what it does beside: a busy one takes more than the 200 ms that
# are the default, for an example that has nothing wrong with it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

pytest_plugins = [
    "fix_certificates",
    "fix_daemon",
    "cli.fix_ctl",
    "client.fix_model",
    "client.fix_server",
    "rpc.fix_edge",
    "rpc.fix_fake_engine",
    "rpc.fix_memory_peer",
    "storage.fix_log",
    "storage.fix_store",
    "actors.fix_engine",
    "e2e.fix_targets",
    "e2e.fix_wire",
]
