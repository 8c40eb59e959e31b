"""Boosted trees and a perceptron together: better than either, stored, refused like them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepgen_ml.errors import SampleError
from hepgen_ml.reweighting import trees
from hepgen_ml.reweighting.classifiers import NetworkName, TreesAndMLP, restored, trained
from hepgen_ml.reweighting.features import Inputs
from hepgen_ml.reweighting.folds import calibrate
from hepgen_ml.reweighting.training import Labelled, Schedule, loss_of

_SCHEDULE = Schedule(epochs=8)


def events(n: int, seed: int) -> Labelled:
    """Densities that differ by many edges, for trees, and by correlations, for perceptrons."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 9, generator=generator)
    comb = torch.where((10 * x[:, 0]).floor() % 2 == 0, 0.5, -0.5)
    logit = comb + 0.5 * torch.tanh(x[:, 1:8] * x[:, 2:9]).sum(1)
    truth = (torch.rand(n, generator=generator) < torch.sigmoid(logit)).float()
    labels = torch.zeros(n, 0, dtype=torch.int64)
    return Labelled(Inputs(x, labels, torch.zeros(n, 0, 5)), truth, torch.ones(n))


def train(name: NetworkName, some: Labelled, schedule: Schedule = _SCHEDULE) -> TreesAndMLP:
    torch.manual_seed(1)
    found = trained(name, some, schedule, seed=0, device=torch.device("cpu"))[0]
    return found  # type: ignore[return-value]


def test_better_than_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one sees, the other may not; the loss on other events is the lowest."""
    monkeypatch.setattr(trees, "_MOST", 50)
    some, other = events(12_000, 0), events(20_000, 1)
    names: tuple[NetworkName, ...] = ("trees", "mlp", "trees+mlp")
    losses = []
    for name in names:
        logits = train(name, some).logits(other.inputs)
        found = calibrate(logits, other)
        losses.append(float(loss_of((found.slope * logits + found.offset).float(), other)))
    assert losses[2] < min(losses[:2]) - 0.001
    assert max(losses) < math.log(2)


def test_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors give the same logits again; without some of them there is no classifier."""
    monkeypatch.setattr(trees, "_MOST", 20)
    found, inputs = train("trees+mlp", events(2000, 0), Schedule(epochs=1)), events(300, 1).inputs
    tensors = found.state_dict()
    assert torch.equal(restored("trees+mlp", tensors).logits(inputs), found.logits(inputs))
    assert not torch.equal(found.trees.logits(inputs), found.logits(inputs))
    for part in ("trees", "mlp"):
        with pytest.raises((KeyError, RuntimeError)):
            restored(
                "trees+mlp", {n: t for n, t in tensors.items() if not n.startswith(f"{part}.")}
            )
    with pytest.raises(ValueError, match="coefficients"):
        restored("trees+mlp", tensors | {"coefficients": torch.tensor([1.0, math.nan])})


def test_progress_and_time() -> None:
    """The fraction that is over grows to one; little time is enough for a classifier."""
    seen: list[float] = []
    found, facts = trained(
        "trees+mlp", events(2000, 0), Schedule(seconds=0.2), seed=0, device=torch.device("cpu"),
        progress=seen.append,
    )  # fmt: skip
    assert seen == sorted(seen)
    assert 0 < seen[0] < 0.5 < seen[-1] <= 1
    assert (facts["coefficient_of_trees"], facts["coefficient_of_mlp"]) == found.coefficients  # type: ignore[attr-defined]
    assert np.all(np.isfinite(found.logits(events(100, 1).inputs).numpy()))


def test_negative_weights() -> None:
    """Refused with the way out, as trees do."""
    some = events(1000, 0)
    some.weight[0] = -1.0
    with pytest.raises(SampleError, match="--network mlp"):
        train("trees+mlp", some)
