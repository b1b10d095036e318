"""Hold the source to the drawing in ARCHITECTURE.md: who may import whom, and a few rules that no linter has.

    python tools/tidy.py [ROOT]     print each breach as FILE:LINE: what, exit 1 when there is one

Imports are read from the syntax tree, so one inside a function counts like any other: a layer that is
reached lazily is reached. The client's half of the edge is judged by everything that it reaches, because
one import of a shared module that itself imports the engine would bring the engine into every client.

`tests/test_tidy.py` runs this on the project, and on made-up trees to show that each rule can fail.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

LINES_AT_MOST: Final = 350
LONG_MODULES: Final[Mapping[str, str]] = {}
"""Modules that may be longer, each with the reason."""

VOCABULARY: Final = (
    "statehouse.errors",
    "statehouse.findings",
    "statehouse.limits",
    "statehouse.types",
    "statehouse.version",
)
GENERATED: Final = ("statehouse.v1", "statehouse.storage.v1", "statehouse.rpc.v1")
SETTINGS: Final = ("statehouse.setting_forms", "statehouse.settings", "statehouse.config")
CLIENT_HALF: Final = ("statehouse.client", "statehouse.rpc.client")

# Package or module -> what of ours it may import besides itself; the longest name that fits a module decides.
LAYERS: Final[Mapping[str, tuple[str, ...]]] = {
    "statehouse": (
        "statehouse.client",
        "statehouse.errors",
        "statehouse.findings",
        "statehouse.types",
        "statehouse.version",
    ),
    "statehouse.errors": (),
    "statehouse.findings": (),
    "statehouse.limits": (),
    "statehouse.types": (),
    "statehouse.version": (),
    "statehouse.setting_forms": VOCABULARY,
    "statehouse.settings": (*VOCABULARY, "statehouse.setting_forms"),
    "statehouse.config": (*VOCABULARY, "statehouse.setting_forms", "statehouse.settings"),
    "statehouse.v1": (),
    "statehouse.storage.v1": GENERATED,
    "statehouse.rpc.v1": GENERATED,
    "statehouse.storage": (*VOCABULARY, *GENERATED),
    "statehouse.actors": (*VOCABULARY, *GENERATED, "statehouse.settings", "statehouse.storage"),
    # The edge writes its answers in protobuf's encoding with the same few functions as the log.
    "statehouse.rpc": (*VOCABULARY, *GENERATED, "statehouse.actors", "statehouse.storage.wire"),
    "statehouse.client": (*VOCABULARY, *GENERATED, "statehouse.rpc"),
    "statehouse.daemon": (
        *VOCABULARY,
        *SETTINGS,
        "statehouse.storage",
        "statehouse.actors",
        "statehouse.rpc",
    ),
    "statehouse.cli": (
        *VOCABULARY,
        *SETTINGS,
        "statehouse",
        "statehouse.client",
        "statehouse.daemon",
        "statehouse.storage.offline",
        "statehouse.rpc.given",
        "statehouse.rpc.server.build_version",
        "statehouse.rpc.server.token_file",
        "statehouse.rpc.server.token_line",
    ),
}
CLIENT_HALF_MAY_NOT_REACH: Final = ("statehouse.actors", "statehouse.storage", "statehouse.daemon", *SETTINGS)

# Library, or a part of one -> the only places that may name it.
CONFINED: Final[Mapping[str, tuple[str, ...]]] = {
    "plyvel": ("statehouse.storage.leveldb_view",),
    "purerpc": ("statehouse.rpc",),
    # Installed with purerpc, and off the data path: HTTP/2 is our own, on jh2's HPACK.
    "purerpc.grpclib": (),
    "purerpc.grpc_proto": (),
    "purerpc.grpc_socket": (),
    "h2": (),
    "hpack": (),
    "hyperframe": (),
    "jh2": ("statehouse.rpc.http2.header_blocks",),
    "click": ("statehouse.cli",),
    # The synchronous client runs a loop of its own.
    "trio": (
        "statehouse.actors",
        "statehouse.rpc",
        "statehouse.daemon",
        "statehouse.cli",
        "statehouse.client.loop_thread",
    ),
    "asyncio": ("statehouse.rpc.client.loops",),
}


class Breach(NamedTuple):
    """A rule that is broken, and where."""

    file: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


class Module(NamedTuple):
    """A source file."""

    name: str
    file: Path
    lines: int
    tree: ast.Module


def modules(root: Path) -> list[Module]:
    """The modules of the package, the tools and the examples; generated ones are left out."""
    found = []
    for folder in ("statehouse", "tools", "examples"):
        for path in sorted((root / folder).rglob("*.py")):
            if path.stem.endswith("_pb2"):
                continue
            source = path.read_text(encoding="utf-8")
            file = path.relative_to(root)
            name = ".".join(part for part in file.with_suffix("").parts if part != "__init__")
            found.append(Module(name, file, len(source.splitlines()), ast.parse(source, str(file))))
    return found


def breaches(root: Path) -> list[Breach]:
    """Every breach below `root`, in the order of files."""
    everything = modules(root)
    package = [module for module in everything if _is_in(module.name, ("statehouse",))]
    names = {module.name for module in package}
    imports = {module.name: list(_imports(module, names)) for module in package}
    found = [breach for module in everything for breach in _form(module)]
    for module in package:
        found += _layering(module, imports[module.name])
        found += _statements(module)
    found += _reach(package, imports)
    return sorted(set(found))


def _is_in(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _imports(module: Module, names: set[str]) -> Iterator[tuple[int, str]]:
    """Line and full module name of every import; `from a import b` names `a.b` when that is a module of ours."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.name.split(".")
                keep = len(package) - node.level + (module.file.name == "__init__.py")
                base = ".".join([*package[:keep], *([base] if base else [])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                known = submodule in names or submodule in CONFINED or alias.name.endswith("_pb2")
                yield node.lineno, submodule if known else base


def _layer(module: Module) -> str:
    return max((place for place in LAYERS if _is_in(module.name, (place,))), key=len)


def _layering(module: Module, imports: list[tuple[int, str]]) -> Iterator[Breach]:
    layer = _layer(module)
    if layer == "statehouse" and module.name != "statehouse":
        yield Breach(module.file, 1, f"{module.name} has no place in the layers of tools/tidy.py")
        return
    for line, name in imports:
        # The root exports the client: who imports the root imports the client, and is not in every layer.
        if _is_in(name, ("statehouse",)) and not _may_import(layer, name):
            yield Breach(module.file, line, f"{layer} may not import {name}")
        library = max((each for each in CONFINED if _is_in(name, (each,))), key=len, default=None)
        if library is not None and not _is_in(module.name, CONFINED[library]):
            places = f"{', '.join(CONFINED[library])} only" if CONFINED[library] else "nobody"
            yield Breach(module.file, line, f"{library} may be named by {places}")


def _may_import(layer: str, name: str) -> bool:
    if name == "statehouse":
        return "statehouse" in LAYERS[layer]
    return _is_in(name, (*(place for place in LAYERS[layer] if place != "statehouse"), layer))


def _reach(package: list[Module], imports: Mapping[str, list[tuple[int, str]]]) -> Iterator[Breach]:
    """The client's half of the edge, and whatever it imports, stays clear of the engine."""
    for module in package:
        if not _is_in(module.name, CLIENT_HALF):
            continue
        for line, first in imports[module.name]:
            if not _may_import(_layer(module), first):
                continue  # a breach already
            seen: set[str] = set()
            ahead: list[tuple[str, ...]] = [(first,)]
            while ahead:
                path = ahead.pop()
                if path[-1] in seen:
                    continue
                seen.add(path[-1])
                if _is_in(path[-1], CLIENT_HALF_MAY_NOT_REACH) and not _is_in(path[-1], GENERATED):
                    yield Breach(module.file, line, f"a client reaches the engine: {' -> '.join(path)}")
                    break
                ahead += [(*path, name) for _, name in imports.get(path[-1], [])]


def _form(module: Module) -> Iterator[Breach]:
    if module.tree.body and ast.get_docstring(module.tree) is None:
        yield Breach(module.file, 1, "a module says in its docstring what it owns and promises")
    if module.lines > LINES_AT_MOST and str(module.file) not in LONG_MODULES:
        yield Breach(
            module.file, module.lines, f"{module.lines} lines; at most {LINES_AT_MOST}, or a reason in tidy.py"
        )


def _statements(module: Module) -> Iterator[Breach]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assert):
            yield Breach(module.file, node.lineno, "python -O strips assert: raise")
        elif isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or (isinstance(kind, ast.Name) and kind.id == "BaseException") for kind in caught):
                yield Breach(module.file, node.lineno, "name what is caught: this swallows Cancelled")


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    found = breaches(root)
    for breach in found:
        print(breach)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
