"""Events with a nominal weight of zero: named weights have no ratio to it, and stay numbers."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hepgen_ml import read, write
from hepgen_ml.events.sample import EventSample
from hepgen_ml.events.weight_groups import declared
from hepgen_ml.events.weights import with_weights
from hepgen_ml.regression.point_files import training_sample
from hepgen_ml.reweighting.application import ClassifierWeights
from tests.parton_events import parton_sample


def with_zeros(n: int = 40) -> EventSample:
    """Events of strategy -4, every fourth of zero weight, with two named weights."""
    sample = parton_sample(n)
    weight = np.where(np.arange(n) % 4 == 0, 0.0, 2.0)
    named = {"scale up": np.full(n, 3.0), "scale down": 0.5 * weight}
    run = declared(sample.run.with_(weight_strategy=-4), dict.fromkeys(named, ""), group="scale")
    events = {**sample.events, "weight": weight}
    return EventSample(run, sample.offsets, sample.particles, events, weights=named)


def test_named_weights_without_a_ratio_are_kept() -> None:
    sample = with_zeros()
    made = with_weights(sample, 5 * sample.weight, sample.run)
    zero = sample.weight == 0
    np.testing.assert_array_equal(made.weights["scale up"], np.where(zero, 3.0, 15.0))
    np.testing.assert_array_equal(made.weights["scale down"], 2.5 * sample.weight)


def test_classifiers_multiply_named_weights_of_every_event() -> None:
    sample = with_zeros()
    ratio = np.linspace(0.5, 1.5, len(sample))
    facts = {"unweighting_limit": 1.0, "largest_weight": 2.0, "mean_weight_before_normalisation": 1}
    reweighter = SimpleNamespace(
        facts=facts, n_members=2, weights=lambda events: (ratio, np.stack([ratio, ratio]))
    )
    made = ClassifierWeights(reweighter, sample.run).apply(sample)  # type: ignore[arg-type]
    some = sample.weight > 0
    factor = made.weight[some][0] / sample.weight[some][0] / ratio[some][0]
    np.testing.assert_allclose(made.weight, sample.weight * ratio * factor)
    np.testing.assert_allclose(made.weights["scale up"], 3.0 * ratio * factor)


@pytest.mark.parametrize("suffix", [".lhe", ".lhe.gz", ".hepmc", ".root", ".lheh5"])
def test_files_hold_numbers_alone(suffix: str, tmp_path: Path) -> None:
    sample = with_zeros()
    path = tmp_path / f"events{suffix}"
    write(sample, path)
    found = read(path)
    scale = found.weight[1] / sample.weight[1]
    np.testing.assert_allclose(found.weight, scale * sample.weight, rtol=1e-6)
    for values, expected in zip(found.weights.values(), sample.weights.values(), strict=True):
        np.testing.assert_allclose(values, scale * expected, rtol=1e-6)
    if suffix == ".root":
        import uproot

        with uproot.open(path) as file:
            tree = file["Events"]
            lists = tree["LHEScaleWeight"].array(library="np")
            assert np.isfinite(np.stack(lists)).all()
            assert lists[0].tolist() == [1.0, 1.0]
            np.testing.assert_allclose(lists[1], [1.5, 0.5])
    elif suffix == ".lhe":
        assert "nan" not in path.read_text()


def test_regressions_leave_them_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.root"
    write(with_zeros(), path)
    with caplog.at_level(logging.WARNING):
        sample, learned = training_sample(path, "scale up")
    assert len(sample) == 30
    np.testing.assert_allclose(learned.values, 1.5)
    assert "10 events are left out" in caplog.text
