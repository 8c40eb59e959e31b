"""The collector of cyclic garbage is as it was after many objects are made."""

from __future__ import annotations

import gc

import pytest

from hepgen_ml.files.garbage import uncollected


@pytest.mark.parametrize("enabled", [True, False])
def test_collector_is_as_before(enabled: bool) -> None:
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()

    @uncollected()
    def inside(fails: bool) -> bool:
        if fails:
            raise ValueError("fails")
        with uncollected():
            return gc.isenabled()

    try:
        assert not inside(fails=False)
        assert gc.isenabled() == enabled
        with pytest.raises(ValueError, match="fails"):
            inside(fails=True)
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()
