"""Rooms of the package and the imports between them, counted: python -m tests.architecture.

With --matrix, which rooms import from which.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

ROOMS = (
    "errors", "config", "files", "events", "phase_space", "process", "analysis",
    "networks", "models", "training", "regression", "classification", "reweighting", "generation",
    "validation", "__init__", "cli", "__main__",
)  # fmt: skip
"""Each room imports from those before it only."""

GROUND = frozenset({"errors", "config", "files", "events"})
"""Rooms that every other may use: what they hold are the words and the paper of all others."""

Arrows = dict[str, set[str]]
"""Modules and what each of them imports."""


@cache
def modules() -> dict[str, Path]:
    """Dotted names and files of all modules of `hepgen_ml`."""
    found = {}
    for path in sorted((ROOT / "hepgen_ml").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Names that a file imports, whether lazily or for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else node.module


@cache
def arrows() -> Arrows:
    """Imports between modules of `hepgen_ml`."""
    found: Arrows = defaultdict(set)
    for name, path in modules().items():
        found[name] = {other for other in imported(path) if other in modules()} - {name}
    return found


def room(module: str) -> str:
    """Room of a module: its first folder, or its own name at the top level."""
    return [*module.split("."), "__init__"][1]


def between_rooms() -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Pairs of rooms with the imports between them."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for module, others in arrows().items():
        for other in others:
            if room(module) != room(other):
                found[room(module), room(other)].append((module, other))
    return found


def cycles() -> list[list[str]]:
    """Groups of modules that import each other, directly or not (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for other in sorted(arrows()[module]):
            if other not in index:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], index[other])
        if lowest[module] == index[module]:
            group = []
            while not group or group[-1] != module:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for module in modules():
        if module not in index:
            visit(module)
    return found


LONGEST_FILE, LONGEST_FUNCTION = 400, 60
"""Numbers of lines that files and functions should not have many more of."""


def sources() -> list[Path]:
    """Files of the package and its adapters."""
    return [p for place in ("hepgen_ml", "adapters") for p in sorted((ROOT / place).rglob("*.py"))]


def long_functions(path: Path) -> list[tuple[str, int]]:
    """Names and lengths of long functions, without signature and docstring.

    Functions inside a function count as its lines, and not once more.
    """
    found = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = child.body[ast.get_docstring(child) is not None :]
                length = child.end_lineno - body[0].lineno + 1 if body and child.end_lineno else 0
                if length > LONGEST_FUNCTION:
                    found.append((child.name, length))
            else:
                visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def main() -> None:
    """Print the counts of docs/architecture.md."""
    top = sorted((ROOT / "hepgen_ml").iterdir())
    n_modules = sum(p.suffix == ".py" for p in top)
    n_rooms = sum((p / "__init__.py").exists() for p in top if p.is_dir())
    pairs = between_rooms()
    sizes = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in modules().values()}
    print(f"modules and packages at the top level: {n_modules}, {n_rooms}")
    ground = sum(to in GROUND for _, to in pairs)
    print(
        f"pairs of rooms with imports: {len(pairs)}, of which {ground} lead to the ground "
        f"({', '.join(sorted(GROUND))}) and {len(pairs) - ground} are of the building"
    )
    print(f"cycles of modules: {len(cycles())}")
    print(f"modules that the file of a training imports: {len(arrows()['hepgen_ml.training.fit'])}")
    print(f"lines of hepgen_ml: {sum(sizes.values())}")
    for path in sources():
        n = len(path.read_text(encoding="utf-8").splitlines())
        if n > LONGEST_FILE:
            print(f"over {LONGEST_FILE} lines: {path.relative_to(ROOT)} ({n})")
    for path in sources():
        for name, n in long_functions(path):
            print(f"over {LONGEST_FUNCTION} lines: {path.relative_to(ROOT)}: {name} ({n})")


def matrix() -> None:
    """Print the pairs of rooms with the imports between them."""
    pairs = sorted(between_rooms().items(), key=lambda p: [ROOMS.index(r) for r in p[0]])
    for (a, b), imports in pairs:
        print(f"{a} -> {b}: {len(imports)}")
        if b not in GROUND:
            for module, other in sorted(imports):
                print(f"    {module} <- {other}")


if __name__ == "__main__":
    matrix() if "--matrix" in sys.argv else main()
