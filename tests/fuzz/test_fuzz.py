"""A small campaign in the tests; see `tests.fuzz.campaign` for a large one."""

from __future__ import annotations

from tests.fuzz.campaign import run


def test_damaged_files_are_refused_by_name() -> None:
    tally = run(500, seed=1)
    assert sum(tally.codes.values()) >= 500
    assert not tally.defects, "\n".join(tally.defects)
