"""The import hook: Statehouse's modules, compiled with their failpoints as calls.

`# failpoint: <name>` becomes `__failpoint__("<name>")`, on the same line, so that tracebacks fit. Only a process that
calls `install`, before it imports anything of Statehouse, has such code; nothing is written to the bytecode cache.
"""

import builtins
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

__all__ = ["failpoints_in", "install", "with_calls"]

PACKAGE: Final = "statehouse"
_LINE: Final = re.compile(r"^(?P<indent>[ ]*)# failpoint: (?P<name>[a-z][a-z_]*\.[a-z][a-z_]*)$", re.MULTILINE)
_NEARLY: Final = re.compile(r"#\s*fail_?point\b", re.IGNORECASE)
CALL: Final = "__failpoint__"


def install(hit: Callable[[str], None]) -> None:
    """From now on, import Statehouse with its failpoints as calls of `hit`. RuntimeError when it is too late."""
    if any(name == PACKAGE or name.startswith(f"{PACKAGE}.") for name in sys.modules):
        raise RuntimeError("statehouse is imported already: its failpoints are comments, and stay so")
    setattr(builtins, CALL, hit)
    sys.meta_path.insert(0, _Finder())


def with_calls(source: str) -> str:
    """The source with its failpoints as calls."""
    return _LINE.sub(rf'\g<indent>{CALL}("\g<name>")', source)


def failpoints_in(directory: Path) -> dict[str, list[str]]:
    """Where each failpoint below a directory is, as FILE:LINE. ValueError for a comment that is nearly one."""
    found: dict[str, list[str]] = {}
    for path in sorted(directory.rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            failpoint = _LINE.match(line)
            if failpoint is not None:
                found.setdefault(failpoint["name"], []).append(f"{path.relative_to(directory)}:{number}")
            elif _NEARLY.search(line):
                raise ValueError(f"{path}:{number}: a failpoint is a line of its own, `# failpoint: <area>.<what>`")
    return found


class _Loader(SourceFileLoader):
    """Compiles each time: bytecode with calls must never be found by a process that did not ask for them."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path).decode("utf-8")
        return compile(with_calls(source), path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PACKAGE and not fullname.startswith(f"{PACKAGE}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
