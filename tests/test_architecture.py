"""Rooms import from those below them only, and the core knows no file format."""

from __future__ import annotations

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
    inside_models = [group for group in cycles() if {room(m) for m in group} == {"models"}]
    assert cycles() == inside_models  # densities still name each other


def test_the_core_knows_no_file_format() -> None:
    for name, path in modules().items():
        libraries = {other.partition(".")[0] for other in imported(path)}
        assert not libraries & FILE_LIBRARIES, name
        assert "hepgen_adapters" not in libraries, name
