"""Weights between samples: right where the answer is known, exact in normalisation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hepgen_ml
from hepgen_ml.cli import app
from hepgen_ml.errors import ModelError, OutputError, SampleError, UsageError
from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.events.weights import unweighting_limit
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.generation import reweighting as tasks
from hepgen_ml.models.included import PRETRAINED
from hepgen_ml.reweighting import Reweighter, location, trees
from hepgen_ml.reweighting.application import ClassifierWeights
from hepgen_ml.reweighting.classifiers import NETWORKS, NetworkName
from hepgen_ml.reweighting.training import Schedule
from hepgen_ml.training.data import SampleSource
from tests.reweighting.conftest import kept, top_pt

SHORT = Schedule(epochs=5, batch_size=256)


@pytest.fixture(scope="module", autouse=True)
def _small_trees() -> Iterator[None]:
    """Seconds are enough."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_MOST", 60), ("_LEARNING_RATE", 0.15), ("_LEAVES", 8), ("_SETS", 1)):
            patch.setattr(trees, name, value)
        yield


@pytest.fixture(scope="module")
def fitted(truth: EventSample, distorted: EventSample) -> Reweighter:
    """Weights from the distorted sample to truth."""
    schedule = Schedule(epochs=8, batch_size=256)
    return Reweighter.fit(truth, distorted, network="mlp", folds=2, schedule=schedule)


@pytest.fixture(scope="module")
def model(fitted: Reweighter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model directory with a classifier."""
    directory = tmp_path_factory.mktemp("model") / "tops"
    shutil.copytree(PRETRAINED / "ttbar01j", directory)
    fitted.save(directory)
    return directory


def test_known_ratio(fitted: Reweighter, distorted: EventSample) -> None:
    """Held-out weights undo the known distortion."""
    right = 1 / kept(distorted)
    right /= right.mean()
    found = fitted.held_out
    assert found is not None
    assert found.mean() == pytest.approx(1.0, abs=1e-12)
    error = np.std(np.log(found / right))
    assert error < 0.65 * np.std(np.log(right))
    assert abs(np.mean(np.log(found / right))) < 0.1
    for group in fitted.facts["groups"].values():
        assert 0.55 < group["auc_held_out"] < group["auc_in_training"] + 0.01


def test_marginal_after_weights(
    fitted: Reweighter, truth: EventSample, distorted: EventSample
) -> None:
    """The distorted observable is located, and right after weighting."""
    assert fitted.held_out is not None
    found = location.locate(truth, distorted, fitted.held_out)
    assert len(found) == 2
    for one in found:
        by_name = {d.observable.name: d for d in one.deviations}
        assert by_name["pt(t)"].before > 3.5
        assert by_name["pt(t)"].after < 2
        assert one.deviations[0].before >= one.deviations[-1].before
        assert {t.side for t in one.tails} == {"low", "high"}
        high = next(t for t in one.tails if t.side == "high")
        leading = {m.observable.name: m for m in high.marks[:6]}
        assert leading["pt(t)"].separation > 0.3
    text = location.summary(found)
    assert "pt(t)" in text
    assert "sigma" in text
    json.dumps(location.to_dict(found), allow_nan=False)


@pytest.mark.parametrize("network", ["trees+mlp", "trees", "mlp"])
def test_same_distribution(network: NetworkName, shipped_sample: Path) -> None:
    """Where there is nothing to find, over-fitting is seen and hardly reaches the weights."""
    sample = hepgen_ml.read(shipped_sample)[:6000]
    found = Reweighter.fit(
        sample[::2],
        sample[1::2],
        network=network,
        folds=2,
        schedule=Schedule(epochs=8, patience=8, batch_size=256),
    )
    for group in found.facts["groups"].values():
        assert group["auc_held_out"] == pytest.approx(0.5, abs=0.035)
        assert group["auc_in_training"] > group["auc_held_out"]
    assert found.facts["effective_sample_size"] > 0.97


@pytest.mark.parametrize(
    ("network", "full"),
    [(n, full) for n in NETWORKS for full in (False, True) if (n, full) != ("gatr", True)],
)
def test_networks(network: str, full: bool, truth: EventSample, distorted: EventSample) -> None:
    """Every network learns something, with and without labels."""
    n = 1200 if network in ("lgatr", "gatr") else 1600
    found = Reweighter.fit(
        truth[:n],
        distorted[:n],
        network=network,  # type: ignore[arg-type]
        folds=2,
        full=full,
        schedule=Schedule(epochs=2, batch_size=64),
    )
    assert found.facts["groups"]["t t~"]["auc_held_out"] > 0.55


def test_signed_truth(truth: EventSample, distorted: EventSample) -> None:
    """Events that cancel on average change the weights by their statistics only."""
    rng = np.random.default_rng(3)
    some = rng.permutation(len(truth))[:1500]
    pairs = concatenate([truth, truth[some], truth[some]])
    sign = np.concatenate([np.ones(len(truth)), np.ones(1500), -np.ones(1500)])
    pairs.events["weight"] = pairs.weight * sign
    found = Reweighter.fit(pairs, distorted, network="mlp", folds=2, schedule=SHORT)
    assert found.held_out is not None
    right = 1 / kept(distorted)
    assert np.corrcoef(np.log(right), np.log(found.held_out))[0, 1] > 0.75


def test_rates(truth: EventSample, distorted: EventSample) -> None:
    """Final states get the ratio of their frequencies, rare ones nothing else."""
    n_final = np.bincount(truth.event_index, truth.status == 1, len(truth))
    few = truth[(n_final == 2) | (np.arange(len(truth)) % 40 == 0)]
    found = Reweighter.fit(few, distorted, network="mlp", folds=2, schedule=Schedule(epochs=1))
    group = found.facts["groups"]["t t~ j"]
    assert "auc_held_out" not in group
    assert found.held_out is not None
    n_made = np.bincount(distorted.event_index, distorted.status == 1, len(distorted))
    share = found.held_out[n_made == 3].sum() / len(distorted)
    expected = np.mean(np.bincount(few.event_index, few.status == 1, len(few)) == 3)
    assert share == pytest.approx(expected, rel=0.3)  # ten events of prior on sixty
    assert len(np.unique(found.held_out[n_made == 3])) == 1


def test_unweighting_limit() -> None:
    """At the limit, no more than the stated fraction of all weight is lost."""
    w = np.random.default_rng(0).lognormal(0, 0.5, 100_000)
    limit = unweighting_limit(w, 1e-3)
    lost = np.maximum(w - limit, 0).sum() / w.sum()
    assert 0.9e-3 < lost <= 1e-3
    assert unweighting_limit(np.ones(10)) == 1.0


def test_stored(fitted: Reweighter, distorted: EventSample, tmp_path: Path) -> None:
    """A stored classifier gives the same weights."""
    fitted.save(tmp_path)
    again = Reweighter.load(tmp_path)
    for one, two in zip(fitted.weights(distorted), again.weights(distorted), strict=True):
        np.testing.assert_array_equal(one, two)
    assert again.facts == json.loads(json.dumps(fitted.facts))


def test_damaged(fitted: Reweighter, tmp_path: Path) -> None:
    """A cut or foreign file is refused by name."""
    path = fitted.save(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=path.name):
        Reweighter.load(tmp_path)
    path.unlink()
    with pytest.raises(ModelError, match="missing"):
        Reweighter.load(tmp_path)
    shutil.copy(PRETRAINED / "ttbar01j" / "model.safetensors", path)
    with pytest.raises(ModelError, match="damaged"):
        Reweighter.load(tmp_path)


def test_stored_classifiers_say_what_they_said(
    fitted: Reweighter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose weights or code have changed is refused; one of before has no examples."""
    path = fitted.save(tmp_path)
    tensors, document = load_tensors(path)
    document["groups"][0]["probe"]["outputs"][0] += 0.5
    save_tensors(path, tensors, document)
    with pytest.raises(ModelError, match="gives other outputs than when hepgen-ml"):
        Reweighter.load(tmp_path)
    for group in document["groups"]:
        group.pop("probe", None)
        group.pop("names")
    save_tensors(path, {n: t for n, t in tensors.items() if ".example." not in n}, document)
    assert len(Reweighter.load(tmp_path).ratios) == len(fitted.ratios)


def test_other_columns_are_refused(fitted: Reweighter, distorted: EventSample) -> None:
    """Weights of events whose numbers have another order or meaning are not made up."""
    for ratio in fitted.ratios.values():
        assert len(ratio.names) == ratio.examples.values.shape[1]
        changed = replace(ratio, names=(*ratio.names[:-1], "m_other"))
        other = Reweighter(
            fitted.network, dict.fromkeys(fitted.ratios, changed), fitted.full, fitted.facts
        )
        with pytest.raises(SampleError, match=r"other numbers .*: they lack m_other"):
            other.weights(distorted)


@pytest.mark.parametrize("suffix", ["lhe.gz", "hepmc", "root"])
def test_normalised_files(model: Path, suffix: str, tmp_path: Path) -> None:
    """The mean weight of every file is the cross section; each classifier is a named weight."""
    generator = hepgen_ml.Generator.load(model)
    made = generator.sample(700, seed=1, weights="classifier")
    sigma = generator.run.cross_section
    path = tmp_path / f"weighted.{suffix}"
    hepgen_ml.write(made, path)
    back = hepgen_ml.read(path)
    assert back.weight.mean() == pytest.approx(sigma, rel=1e-9)
    assert back.run.cross_section == pytest.approx(sigma, rel=1e-6)
    assert abs(back.run.weight_strategy) == 4
    assert np.std(back.weight) > 0.01 * sigma
    for name in ("classifier_1", "classifier_2"):
        assert back.weights[name].mean() == pytest.approx(sigma, rel=1e-6)
        assert not np.allclose(back.weights[name], back.weight)
    np.testing.assert_allclose(back.weight, made.weight, rtol=1e-9)


def test_blocks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block is normalised, and the last is not a tiny one."""
    monkeypatch.setattr("hepgen_ml.generation.blocks.BLOCK", 500)
    generator = hepgen_ml.Generator.load(model)
    sizes = []
    for chunk in generator.stream(1001, chunk=334, seed=2, weights="classifier"):
        assert chunk.weight.mean() == pytest.approx(generator.run.cross_section, rel=1e-12)
        sizes.append(len(chunk))
    assert sizes == [334, 334, 333]
    assert generator.weighting is not None
    assert generator.weighting.n_drawn == 1001
    assert 0.5 < generator.weighting.effective_fraction < 1
    for options in ({"weights": "classifier"}, {"unweight": True}):
        whole = generator.sample(1001, seed=2, **options)
        parts = [
            p for i in range(3) for p in generator.stream(1001, seed=2, shard=(i, 3), **options)
        ]
        joined = hepgen_ml.events.sample.concatenate(parts)
        assert np.array_equal(joined.px, whole.px)
        assert np.array_equal(joined.weight, whole.weight)


def test_unweighted(model: Path, fitted: Reweighter) -> None:
    """Unit weights, and the same distribution as with weights."""
    generator = hepgen_ml.Generator.load(model)
    weighted = generator.sample(4000, seed=3, weights="classifier")
    made = generator.sample(4000, seed=4, unweight=True)
    assert len(made) == 4000
    assert len(np.unique(made.weight)) == 1
    assert made.run.weight_strategy == generator.run.weight_strategy
    values, weights = top_pt(weighted), weighted.weight / weighted.weight.sum()
    mean = float(np.sum(values * weights))
    error = np.std(values) * np.sqrt(2 / 4000) * 1.3
    assert top_pt(made).mean() == pytest.approx(mean, abs=3.5 * error)
    assert abs(values.mean() - mean) > 5 * error  # the weights do something here
    assert generator.weighting is not None
    efficiency = generator.weighting.efficiency
    limit = fitted.facts["unweighting_limit"] * fitted.facts["mean_weight_before_normalisation"]
    average = fitted.weights(generator.sample(4000, seed=5))[0].mean()
    assert efficiency == pytest.approx(average / limit, rel=0.1)


def test_named_weights_follow(fitted: Reweighter, distorted: EventSample) -> None:
    """Variations that an event has already are multiplied by the same factor."""
    some = distorted[:300]
    some.weights = {"up": 1.1 * some.weight}
    weighting = ClassifierWeights(fitted, some.run)
    made = weighting.apply(some)
    np.testing.assert_allclose(made.weights["up"], 1.1 * made.weight)
    assert list(made.weights) == ["up", "classifier_1", "classifier_2"]
    assert set(made.run.weight_names) >= {"classifier_1", "classifier_2"}


def test_no_classifier() -> None:
    """A model without a classifier says how to make one."""
    generator = hepgen_ml.Generator.load("ttbar01j")
    with pytest.raises(UsageError, match="reweight"):
        generator.sample(10, weights="classifier")
    with pytest.raises(UsageError, match="reweight"):
        generator.run_of(unweight=True)


def test_refusals(truth: EventSample, distorted: EventSample) -> None:
    """Samples that cannot be compared."""
    n_final = np.bincount(truth.event_index, truth.status == 1, len(truth))
    n_made = np.bincount(distorted.event_index, distorted.status == 1, len(distorted))
    with pytest.raises(SampleError, match="share no final state"):
        Reweighter.fit(truth[n_final == 2], distorted[n_made == 3])
    nothing = truth[:10]
    nothing.events["weight"] = np.zeros(10)
    with pytest.raises(SampleError, match="positive sum"):
        Reweighter.fit(nothing, distorted)
    with pytest.raises(UsageError, match="folds"):
        Reweighter.fit(truth, distorted, folds=1)
    with pytest.raises(UsageError, match="boosted"):
        tasks.Options(network="boosted").fit(truth, distorted, None)


def test_model_run(model: Path, shipped_sample: Path, tmp_path: Path) -> None:
    """The verb stores a classifier, replaces none unasked, and refuses training events."""
    directory = tmp_path / "model"
    shutil.copytree(model, directory)
    command = ["reweight", "--model", str(directory), "--truth", str(shipped_sample)]
    command += ["-n", "2500", "--folds", "2", "--max-time", "1s"]
    report = tmp_path / "where.json"
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == OutputError.exit_code
    assert "--force" in refused.output
    done = CliRunner().invoke(app, [*command, "--force", "--report", str(report)])
    assert done.exit_code == 0, done.output
    assert "held out" in done.output
    document = json.loads(report.read_text())
    assert document["truth_events"] == 2500
    assert document["generated_events"] == tasks.GENERATED * 2500
    assert len(document["located"]) == 2
    made = hepgen_ml.Generator.load(directory).sample(20, weights="classifier")
    assert len(made.weights) == 2

    path = directory / "config.json"
    text = path.read_text()
    own = json.loads(text)["training"]["sample_sha256"]
    source = SampleSource([shipped_sample])
    path.write_text(text.replace(own, source.fingerprint()))
    refused = CliRunner().invoke(app, [*command, "--force"])
    assert refused.exit_code == UsageError.exit_code
    assert "--training-events" in refused.output


def test_weights_that_are_given_count(fitted: Reweighter, distorted: EventSample) -> None:
    """Events that a classifier was trained on have the weight of the one that was not."""
    assert fitted.held_out is not None
    weighted = ClassifierWeights(fitted, distorted.run).apply(distorted, fitted.held_out)
    ratio = weighted.weight / (fitted.held_out * distorted.weight)
    assert np.allclose(ratio, ratio[0])
    mean = ClassifierWeights(fitted, distorted.run).apply(distorted)
    assert not np.allclose(mean.weight, weighted.weight, rtol=1e-3)
