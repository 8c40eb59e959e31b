"""Calibration of single classifiers and of their mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepgen_ml.analysis.final_states import Signature
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.reweighting import trees
from hepgen_ml.reweighting.features import Group, Inputs
from hepgen_ml.reweighting.folds import Calibration, Folds, calibrate, of_mean
from hepgen_ml.reweighting.training import Labelled, Schedule, logistic, loss_of


def test_calibration() -> None:
    """Over-confident logits are scaled back, right ones are left alone."""
    generator = torch.Generator().manual_seed(0)
    ratio = torch.randn(40_000, generator=generator, dtype=torch.float64)
    label = (torch.rand(40_000, generator=generator) < torch.sigmoid(ratio)).float()
    weight = torch.ones(40_000)
    nothing = torch.zeros(40_000, 0)
    events = Labelled(Inputs(nothing, nothing.long(), nothing), label, weight)
    right = calibrate(ratio, events)
    assert right.slope == pytest.approx(1.0, abs=0.05)
    assert right.offset == pytest.approx(0.0, abs=0.05)
    assert calibrate(2 * ratio, events).slope == pytest.approx(0.5, abs=0.03)
    assert calibrate(-ratio, events).slope == 0.0


def test_slope_of_the_mean() -> None:
    """Noise of single logits averages out, so that their mean may be believed more."""
    rng = np.random.default_rng(0)
    signal = rng.normal(1.0, 0.3, 50_000)
    logits = torch.from_numpy(signal + rng.normal(0.0, 0.2, (4, 50_000)))
    slope = 0.3**2 / (0.3**2 + 0.2**2)
    single = Calibration(slope, 1.0 - slope)  # right for the signal at its mean
    mean = of_mean(single, logits)
    assert mean.slope == pytest.approx(0.3**2 / (0.3**2 + 0.2**2 / 4), rel=0.02)
    assert mean.slope * 1.0 + mean.offset == pytest.approx(1.0, abs=0.01)
    assert of_mean(single, logits[:1]) == single
    assert of_mean(single, torch.zeros(4, 10)) == single


def draw(n: int, ratio: bool, rng: np.random.Generator) -> FloatArray:
    """(n, 8) normal numbers, reweighted by a smooth function if `ratio`."""
    x = rng.normal(size=(6 * n, 8))
    logit = 0.25 * (x[:, 0] * x[:, 1] + x[:, 2])
    keep = rng.random(len(x)) < np.exp(logit - 1.5) if ratio else np.full(len(x), True)
    assert keep.sum() >= n
    return x[keep][:n]


def inputs(x: FloatArray) -> Inputs:
    """Observables alone."""
    values = torch.from_numpy(x.astype(np.float32))
    return Inputs(values, torch.zeros(len(x), 0, dtype=torch.int64), torch.zeros(len(x), 0, 5))


def group(x: FloatArray, weight: float = 1.0) -> Group:
    """Events of one final state."""
    names = tuple(str(i) for i in range(x.shape[1]))
    signature = Signature((), ())
    index = np.arange(len(x))
    return Group(signature, index, np.full(len(x), weight), names, inputs(x), odd=())


def test_new_events_get_the_best_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean, as it is calibrated without having been tried, is right for independent events."""
    for name, value in (("_MOST", 50), ("_LEARNING_RATE", 0.1), ("_SETS", 1)):
        monkeypatch.setattr(trees, name, value)
    rng = np.random.default_rng(1)
    folds = Folds(
        group(draw(8000, True, rng)), group(draw(16_000, False, rng), 3.0), "trees", 3,
        Schedule(), 0, None,
    )  # fmt: skip
    assert len(folds.spare) == 1600
    assert folds.events.truth[folds.spare].sum() == 0, "all of truth is in some fold"
    members = [folds.member(k, lambda fraction: None) for k in range(3)]
    ratio, held_out = folds.finish(members, 1.0)
    assert len(held_out) == 24_000
    # of equal sums in every fold: weights are one on average, on events known and unknown
    assert np.exp(held_out[8000:]).mean() == pytest.approx(1.0, abs=0.02)
    n = 60_000
    x = Inputs.join(inputs(draw(n, True, rng)), inputs(draw(n, False, rng)))
    new = Labelled(x, torch.cat([torch.ones(n), torch.zeros(n)]), torch.ones(2 * n))
    logits = torch.stack([m.logits(x) for m in members]).mean(0)
    best = calibrate(logits, new)
    assert ratio.mean.slope > 1.1 * ratio.single.slope
    assert ratio.mean.slope == pytest.approx(best.slope, rel=0.12)

    def gain(log_weights: FloatArray) -> float:
        return math.log(2) - float(loss_of(torch.from_numpy(log_weights).float(), new))

    nominal, _ = ratio.log_weights(x)
    assert gain(nominal) > 1.01 * gain(ratio.single(logits))
    assert np.exp(nominal[n:]).mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_coefficients_of_least_loss(k: int) -> None:
    """Where the loss, with what holds the coefficients near their start, has no slope."""
    generator = torch.Generator().manual_seed(k)
    n = 3_001
    columns = torch.randn(n, k, dtype=torch.float64, generator=generator)
    columns[:, -1] *= 2
    truth = (torch.rand(n, generator=generator) < torch.sigmoid(columns[:, 0]).float()).float()
    weight = torch.rand(n, generator=generator) + 0.5
    inputs = Inputs(torch.zeros(n, 1), torch.zeros(n, 1).long(), torch.zeros(n, 0, 5))
    start = (0.3,) * k
    found = logistic(columns, Labelled(inputs, truth, weight), start, strength=10.0)
    found.requires_grad_()
    logits = columns @ found
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, truth.double(), weight.double(), reduction="sum"
    )
    total = each + 5.0 * ((found - torch.tensor(start, dtype=torch.float64)) ** 2).sum()
    total.backward()
    assert found.grad is not None
    assert float(found.grad.abs().max()) < 1e-6
