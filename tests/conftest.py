"""Fixtures live in `fix_*.py` modules by subject; this names them."""

pytest_plugins = [
    "client.fix_server",
    "storage.fix_log",
]
