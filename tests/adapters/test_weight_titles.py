"""Titles of NanoAOD's lists of weights, from files that nobody vouches for."""

from __future__ import annotations

import time

from hepgen_adapters.root.weights import _texts


def test_long_titles_take_no_long_time() -> None:
    begun = time.process_time()
    texts = _texts("[0] is  MUF=1 " + " " * 200_000 + "MUR=2; [1]is  x ", 3)
    assert time.process_time() - begun < 5.0  # minutes if each blank begins a search of its own
    assert texts == ["MUF=1 MUR=2", "x", ""]
