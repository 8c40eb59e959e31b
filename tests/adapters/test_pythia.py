"""Pythia showers what we hand it, from a file and from memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hepgen_adapters.pythia import LHAupSample, shower_acceptance

from hepgen_ml.errors import InputError, SampleError, UsageError
from hepgen_ml.events.formats import read
from hepgen_ml.events.sample import EventSample
from tests.parton_events import changed, parton_sample


@pytest.fixture(scope="module")
def tops(shipped_sample: Path) -> EventSample:
    pytest.importorskip("pythia8mc")
    return read(shipped_sample, max_events=60)


def test_file_and_memory_agree(tops: EventSample, shipped_sample: Path) -> None:
    from_file = shower_acceptance(shipped_sample, 60, hadronize=False)
    from_memory = shower_acceptance(tops, hadronize=False)
    assert from_file == from_memory
    assert from_file.n_events == from_file.n_accepted == 60
    assert from_file.acceptance == 1.0
    # strategy -4: Pythia takes the mean weight, whatever the run says
    assert from_file.cross_section == pytest.approx(tops.weight.mean(), rel=1e-9)


def test_hand_made_events_are_hadronized() -> None:
    pytest.importorskip("pythia8mc")
    sample = parton_sample(20)
    result = shower_acceptance(sample)
    assert (result.n_events, result.n_failed) == (20, 0)
    assert result.cross_section == pytest.approx(sample.run.cross_section)


def test_what_pythia_refuses_is_counted(tops: EventSample) -> None:
    row = int(tops.offsets[5])
    colourless = changed(tops, "color1", row, 0)
    result = shower_acceptance(colourless, hadronize=False)
    assert (result.n_events, result.n_failed) == (60, 1)
    heavy = changed(tops, "px", row + 2, 500.0)
    assert shower_acceptance(heavy, hadronize=False).n_failed == 1


def test_errors(tops: EventSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such file"):
        shower_acceptance(tmp_path / "none.lhe")
    (tmp_path / "bad.lhe").write_text("no events")
    with pytest.raises(InputError, match="refuses the file"):
        shower_acceptance(tmp_path / "bad.lhe")
    with pytest.raises(UsageError, match="does not know"):
        shower_acceptance(tops, settings=["Not:aSetting = 1"])
    momenta = {k: tops.particles[k] for k in ("px", "py", "pz", "energy")}
    with pytest.raises(SampleError, match="pdg_id"):
        LHAupSample(EventSample(tops.run, tops.offsets, momenta))
    for name in ("pythia8mc", "pythia8"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"hepgen-ml\[pythia\]"):
        shower_acceptance(tops)
    assert np.isfinite(tops.weight).all()
