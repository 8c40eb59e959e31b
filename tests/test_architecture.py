"""Rooms import from those below them only, and the core knows no file format."""

from __future__ import annotations

import ast
import re

from hepgen_ml.models.names import BUILT_IN
from tests.architecture import ROOMS, between_rooms, cycles, imported, modules, room

FILE_LIBRARIES = {"pylhe", "uproot", "pyhepmc", "fastjet", "pythia8mc", "isal"}


def test_every_room_is_named() -> None:
    assert {room(module) for module in modules()} <= set(ROOMS)


def test_no_room_imports_from_one_above_it() -> None:
    back = {
        pair: imports
        for pair, imports in between_rooms().items()
        if ROOMS.index(pair[1]) >= ROOMS.index(pair[0])
    }
    assert not back


def test_no_modules_import_each_other() -> None:
    assert not cycles()


def test_only_models_name_a_model() -> None:
    names = [re.escape(name) for name in BUILT_IN] + [
        node.name
        for module, path in modules().items()
        if room(module) == "models"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and "loss" in {getattr(n, "name", "") for n in node.body}
    ]
    pattern = re.compile(rf"\b({'|'.join({*names} - {'DensityModel'})})\b")
    found = [
        f"{module}: {line.strip()}"
        for module, path in modules().items()
        if room(module) != "models"
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert not found


def test_the_core_knows_no_file_format() -> None:
    for name, path in modules().items():
        libraries = {other.partition(".")[0] for other in imported(path)}
        assert not libraries & FILE_LIBRARIES, name
        assert "hepgen_adapters" not in libraries, name
