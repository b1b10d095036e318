"""Fixtures live in `fix_*.py` modules by subject; this names them."""

pytest_plugins = [
    "storage.fix_log",
]
