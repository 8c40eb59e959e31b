"""Boosted trees as classifiers: those of scikit-learn in numbers, without it in use."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import hepgen_ml
from hepgen_ml.cli import app
from hepgen_ml.errors import ModelError, SampleError, UsageError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.files.model_files import CLASSIFIER
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.reweighting import Reweighter, trees
from hepgen_ml.reweighting.classifiers import restored
from hepgen_ml.reweighting.features import Inputs
from hepgen_ml.reweighting.training import Labelled, Schedule
from hepgen_ml.reweighting.trees import Trees, grow
from tests.samples import toy_top_pairs


def events(n: int, seed: int = 0) -> tuple[Inputs, torch.Tensor, torch.Tensor]:
    """Inputs, labels and right logits."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, 4, generator=generator).round(decimals=1)  # with ties
    kinds = torch.randint(-2, 3, (n, 1), generator=generator)
    logit = values[:, 0].double() + (values[:, 1] > 0.3) * 0.5 + (kinds[:, 0] == 1) * 1.0
    truth = (torch.rand(n, generator=generator) < torch.sigmoid(logit)).float()
    return Inputs(values, kinds, torch.zeros(n, 0, 5)), truth, logit


def labelled(n: int, seed: int = 0) -> Labelled:
    inputs, truth, _ = events(n, seed)
    return Labelled(inputs, truth, torch.ones(n))


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are enough."""
    monkeypatch.setattr(trees, "_MOST", 30)
    monkeypatch.setattr(trees, "_AT_ONCE", 15)
    monkeypatch.setattr(trees, "_LEAVES", 15)


@pytest.fixture
def grown() -> Trees:
    return grow(labelled(4000), Schedule(), seed=0)[0]


def test_as_scikit_learn() -> None:
    """The logit is the decision function, mean over sets, for values on thresholds too."""
    classifier, _ = trees.boosting()
    inputs, truth, _ = events(3000)
    x = torch.cat([inputs.values, inputs.labels.float()], 1).numpy()
    models = [
        classifier(max_iter=20 + k, max_leaf_nodes=15, max_features=0.5, random_state=k).fit(
            x, truth.numpy(), 1.0 + (x[:, 1] > 0)
        )
        for k in range(2)
    ]
    ours = Trees.average(models)
    thresholds = np.unique(ours.value[ours.feature == 0])[:, None]
    on_them = torch.from_numpy(np.concatenate([thresholds, np.nextafter(thresholds, 9)]))
    other = Inputs(
        torch.cat([on_them, inputs.values[: len(on_them), 1:]], 1), inputs.labels[: len(on_them)],
        inputs.particles[: len(on_them)],
    )  # fmt: skip
    for some in (inputs, other, inputs[:0]):
        y = torch.cat([some.values, some.labels.float()], 1).numpy()
        expected = [m.decision_function(y) if len(y) else np.zeros(0) for m in models]
        np.testing.assert_allclose(ours.logits(some), np.mean(expected, axis=0), atol=1e-6)


def test_nothing_to_find() -> None:
    """Where there is no difference, the logit is that of the sums of weights, or nearly so."""
    inputs, _, _ = events(4000)
    truth = (torch.rand(4000, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    weight = torch.where(truth > 0.5, 3.0, 1.0)
    found, _ = grow(Labelled(inputs, truth, weight), Schedule(), seed=0)
    logits = found.logits(inputs)
    share = float((truth * weight).sum() / weight.sum())
    assert float(logits.mean()) == pytest.approx(np.log(share / (1 - share)), abs=0.1)
    assert logits.std() < 0.2
    none = replace(
        found, feature=found.feature[:0], value=found.value[:0], right=found.right[:0],
        start=found.start[:1],
    )  # fmt: skip
    assert torch.all(restored("trees", none.state_dict()).logits(inputs) == found.offset)


def test_finds_the_ratio(grown: Trees) -> None:
    """On new events the logit follows the right one."""
    inputs, _, right = events(4000, seed=5)
    assert np.corrcoef(grown.logits(inputs), right)[0, 1] > 0.93


def test_time_is_kept() -> None:
    """Growing ends soon after the time is over, with trees that are of use."""
    facts = grow(labelled(4000), Schedule(seconds=1e-3), seed=0)[1]
    assert 0 < facts["trees"] <= trees._SETS * trees._AT_ONCE


def test_restored(grown: Trees) -> None:
    """Tensors give the same trees again."""
    inputs = events(500, seed=2)[0]
    again = restored("trees", grown.state_dict())
    assert torch.equal(again.logits(inputs), grown.logits(inputs))


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("right", "inner", 0),
        ("right", "inner", 10**6),
        ("right", "last inner", "next tree"),
        ("feature", "inner", 5),
        ("feature", "leaf", -2),
        ("feature", "last", 0),
        ("value", "leaf", float("nan")),
        ("start", "last", 7),
        ("offset", None, float("inf")),
        ("start", "first", 1),
    ],
)  # fmt: skip
def test_impossible_trees(grown: Trees, name: str, place: str | None, value: object) -> None:
    """Nodes that would loop or read elsewhere are refused on loading."""
    tensors = {n: t.clone() for n, t in grown.state_dict().items()}
    inner = np.flatnonzero(grown.feature[: grown.start[1]] >= 0)
    where = {
        "inner": int(inner[0]), "last inner": int(inner[-1]), "last": -1, "first": 0,
        "leaf": int(grown.start[1]) - 1,
    }  # fmt: skip
    if value == "next tree":
        value = int(grown.start[1])
    tensors[name][where[place] if place else ()] = value
    with pytest.raises(ValueError, match="trees"):
        restored("trees", tensors)


def test_other_types_and_gaps(grown: Trees) -> None:
    """Missing tensors and other number types are refused."""
    tensors = grown.state_dict()
    with pytest.raises(KeyError):
        restored("trees", {n: t for n, t in tensors.items() if n != "right"})
    with pytest.raises(ValueError, match="types"):
        restored("trees", tensors | {"right": tensors["right"].long()})
    with pytest.raises(ValueError, match="sizes"):
        restored("trees", tensors | {"right": tensors["right"][:-1]})


def test_other_columns(grown: Trees) -> None:
    """Events with fewer observables are refused before memory is read."""
    inputs = events(10)[0]
    with pytest.raises(SampleError, match="observables"):
        grown.logits(Inputs(inputs.values[:, :2], inputs.labels, inputs.particles))


def test_negative_weights() -> None:
    """Refused, with the way out."""
    some = labelled(1000)
    some.weight[3] = -1.0
    with pytest.raises(SampleError, match="mlp"):
        grow(some, Schedule(), seed=0)


@pytest.fixture(scope="module")
def pair() -> tuple[EventSample, EventSample]:
    """Two samples of one distribution, one of which lacks hard tops."""
    truth, other = toy_top_pairs(2400, seed=1), toy_top_pairs(2400, seed=2)
    pt = np.maximum.reduceat(np.hypot(other.px, other.py), other.offsets[:-1])
    return truth, other[np.random.default_rng(0).random(len(other)) < np.clip(100 / pt, 0.2, 1)]


@pytest.mark.parametrize("full", [False, True])
def test_in_use_without_scikit_learn(
    pair: tuple[EventSample, EventSample], full: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Stored trees give the same weights where scikit-learn is missing; training says so."""
    fitted = Reweighter.fit(*pair, network="trees", folds=2, full=full)
    fitted.save(tmp_path)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    again = Reweighter.load(tmp_path)
    for one, two in zip(fitted.weights(pair[1]), again.weights(pair[1]), strict=True):
        np.testing.assert_array_equal(one, two)
    pt = np.maximum.reduceat(np.hypot(pair[1].px, pair[1].py), pair[1].offsets[:-1])
    right = 1 / np.clip(100 / pt, 0.2, 1)
    # most ratios are nearly one, and a thousand events show the others dimly
    assert np.corrcoef(np.log(fitted.held_out), np.log(right))[0, 1] > 0.3
    with pytest.raises(UsageError, match="scikit-learn"):
        Reweighter.fit(*pair, network="trees", folds=2)


def test_damaged_file(pair: tuple[EventSample, EventSample], tmp_path: Path) -> None:
    """A loop of nodes in the file is named with the file."""
    Reweighter.fit(*pair, network="trees", folds=2).save(tmp_path)
    tensors, document = load_tensors(tmp_path / CLASSIFIER)
    inner = int(torch.nonzero(tensors["0.1.feature"] >= 0)[0])
    tensors["0.1.right"][inner] = 0
    save_tensors(tmp_path / CLASSIFIER, tensors, document)
    with pytest.raises(ModelError, match="children in wrong places"):
        Reweighter.load(tmp_path)


def test_command(pair: tuple[EventSample, EventSample], tmp_path: Path) -> None:
    """The verb takes trees by name, and mlp where weights are negative."""
    for name, sample in zip(("truth", "source"), pair, strict=True):
        if name == "truth":
            sign = np.where(np.arange(len(sample)) % 9 == 0, -1.0, 1.0)
            sample.events["weight"] = sample.weight * sign
        hepgen_ml.write(sample, tmp_path / f"{name}.root")
    command = ["reweight", "--source", str(tmp_path / "source.root"), "--truth"]
    command += [str(tmp_path / "truth.root"), "--folds", "2", "--max-time", "1s"]
    command += ["--out", str(tmp_path / "out.root"), "--network"]
    refused = CliRunner().invoke(app, [*command, "trees"])
    assert refused.exit_code == SampleError.exit_code
    assert "--network mlp" in refused.output
    assert CliRunner().invoke(app, [*command, "mlp"]).exit_code == 0
