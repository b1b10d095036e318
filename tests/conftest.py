"""Fixtures live in `fix_*.py` modules by subject; this names them."""

pytest_plugins = [
    "fix_certificates",
    "fix_daemon",
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
