"""Every density with every service of a trained model: posteriors, conditions, shards, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.config import load_config
from hepgen_ml.errors import HepgenError
from hepgen_ml.events.formats import read, write
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.generation.generator import Generator
from hepgen_ml.generation.judged import JudgedModel
from hepgen_ml.models.names import BUILT_IN
from tests.models.test_models import SMALL
from tests.samples import toy_z_jets
from tests.scans import labelled

N = 1200
FAST = [*SMALL, "training.max_steps=20", "training.batch_size=128", "training.max_epochs=1000",
        "flow.likelihood_steps=2", "ddpm.steps=2", "ddpm.likelihood_steps=2",
        "spline_flow.couplings=2", "spline_flow.width=16",
        'conditions=["mass", "model"]']  # fmt: skip
SECTION = {"jetgpt": "jetgpt", "jetgpt-splitting": "jetgpt", "spline-flow": "spline_flow"}
WAYS = {"last": "{section}.bayesian=last", "all": "{section}.bayesian=all",
        "ensemble": "network.ensemble=2"}  # fmt: skip


def section_of(model: str) -> str:
    return SECTION.get(model) or ("flow" if model.endswith("-cfm") else model.partition("-")[0])


def jets_with_labels() -> EventSample:
    """Z + jets with conditions that have nothing to do with them."""
    sample = toy_z_jets(N, most=2)
    mass = np.random.default_rng(1).uniform(600.0, 1400.0, N)
    sample.attributes["mass"] = mass.astype(str)
    sample.attributes["model"] = np.where(mass < 1000, "light", "heavy")
    return sample


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", BUILT_IN)
def test_every_model_has_every_service(
    model: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepgen_ml.models.last_layers._STEPS", 20)
    jets = model == "jetgpt-splitting"
    sample = jets_with_labels() if jets else labelled(N)
    settings = [f"model={model}", *FAST, WAYS[way].format(section=section_of(model))]
    out = tmp_path / "model"
    if way != "ensemble" and (model == "gan" or "gatr" in model):
        with pytest.raises(HepgenError, match=r"no Bayesian weights|no such setting"):
            Generator.train(sample, out=out, config=load_config(None, settings), device="cpu")
        return
    Generator.train(sample, out=out, config=load_config(None, settings), device="cpu")
    generator = Generator.load(out, device="cpu")
    density = generator.surrogate.density
    draws = int(min(4, density.most_draws))
    bands = 0 if density.costly_likelihood else draws
    assert JudgedModel(out, "cpu").draws(4) == bands  # of reports, by default
    assert draws == {"ensemble": 2 * density.has_likelihood}.get(way, 4)
    mass = np.linspace(700.0, 1300.0, 6)
    given = {"mass": mass, "model": np.where(mass < 1000, "light", "heavy")}
    asked = {"seed": 1, "condition": given, "posterior": draws or None}
    events = generator.sample(60, **asked)
    assert np.isfinite(events.momentum).all()
    np.testing.assert_allclose(events.attributes["mass"].astype(float), np.tile(mass, 10))
    ratios = np.array([w / events.weight for w in events.weights.values()])
    assert len(ratios) == draws
    if draws:
        np.testing.assert_allclose(ratios.mean(0), 1.0, atol=1e-6)
        assert ratios.std() > 1e-4
        assert np.isfinite(generator.log_prob(events)).all()
    else:
        with pytest.raises(HepgenError, match="no likelihood"):
            generator.sample(10, posterior=2)

    parts = [chunk for i in range(2) for chunk in generator.stream(60, shard=(i, 2), **asked)]
    again = concatenate(parts)
    assert np.array_equal(again.momentum, events.momentum)
    assert all(np.array_equal(again.weights[k], w) for k, w in events.weights.items())
    path = tmp_path / ("events.root" if jets else "events.lhe.gz")
    write(events, path)
    stored = read(path, selection=Selection(parse_objects("Muon:2,Jet:0-2")) if jets else None)
    np.testing.assert_allclose(stored.momentum, events.momentum, rtol=1e-6, atol=1e-6)
    for name, weight in events.weights.items():
        np.testing.assert_allclose(stored.weights[name], weight, rtol=1e-6)
    generator.save(tmp_path / "half", half=True)
    half = Generator.load(tmp_path / "half", device="cpu").sample(20, **asked)
    assert np.isfinite(half.momentum).all()
