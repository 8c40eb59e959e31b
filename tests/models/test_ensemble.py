"""Ensembles: members, their mixture, and their densities as weights of events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml.config import load_config
from hepgen_ml.errors import HepgenError, UsageError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.generator import Generator
from hepgen_ml.generation.judged import JudgedModel
from hepgen_ml.models.ensemble import Ensemble
from hepgen_ml.networks.bayesian import posterior_draw
from tests.samples import toy_top_pairs, toy_z_jets

SMALL = ["network.width=16", "network.blocks=1", "network.heads=2", "network.mixtures=4",
         "training.batch_size=128", "training.max_steps=40", "spline_flow.couplings=2",
         "spline_flow.width=16"]  # fmt: skip


def trained(path: Path, sample: EventSample, *settings: str, **more: object) -> Generator:
    config = load_config(None, [*SMALL, *settings])
    Generator.train(sample, out=path, config=config, device="cpu", **more)  # type: ignore[arg-type]
    return Generator.load(path, device="cpu")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return trained(tmp_path_factory.mktemp("ensemble") / "m", toy_top_pairs(1500),
                   "model=spline-flow", "network.ensemble=3")  # fmt: skip


def test_mixture_has_the_mean_density_of_its_members(generator: Generator) -> None:
    density = generator.surrogate.density
    assert isinstance(density, Ensemble)
    sub = torch.zeros(400, dtype=torch.int64)
    z = density.sample_z(sub, torch.Generator().manual_seed(1))
    with torch.no_grad():
        each = density.log_prob_draws(z, sub, 3).double()
        assert (each[0] != each[1]).any()
        mean = torch.logsumexp(each, 0) - np.log(3)
        torch.testing.assert_close(density.log_prob_z(z, sub), mean, atol=1e-5, rtol=0)
        with posterior_draw(density, 1):
            alone = density.log_prob_z(z, sub)
            one = density.sample_z(sub, torch.Generator().manual_seed(1))
        torch.testing.assert_close(alone, each[1], atol=1e-5, rtol=0)
        expected = density.members[1].sample_z(sub, torch.Generator().manual_seed(1))
    assert torch.equal(one, expected)
    assert density.drawn is None


def test_weights_are_written_as_those_of_a_posterior(generator: Generator) -> None:
    events = generator.sample(600, seed=1, posterior=3)
    w = np.stack(list(events.weights.values())) / events.weight
    assert list(events.weights) == ["posterior_1", "posterior_2", "posterior_3"]
    assert np.allclose(w.mean(0), 1.0, atol=1e-9)
    assert (w > 0).all()
    assert w.std() > 0.01
    with pytest.raises(UsageError, match="4 draws do not fit an ensemble of 3"):
        generator.sample(10, posterior=4)
    assert len(generator.sample(50, seed=2)) == 50
    assert np.isfinite(generator.log_prob(events[:20])).all()


@pytest.mark.parametrize(
    "settings", [["model=jetgpt-splitting"], ["model=jetgpt", "jetgpt.bayesian=last"]]
)
def test_members_of_any_kind(tmp_path: Path, settings: list[str]) -> None:
    """With rates of their own, or posteriors of their own, which are drawn member by member."""
    generator = trained(tmp_path / "m", toy_z_jets(1500, rate=0.3, most=2), *settings,
                        "network.ensemble=2")  # fmt: skip
    bayesian = generator.surrogate.density.bayesian
    assert len(generator.sample(100, seed=1)) == 100
    events = generator.sample(200, seed=1, posterior=4 if bayesian else 2)
    w = np.stack(list(events.weights.values())) / events.weight
    assert np.allclose(w.mean(0), 1.0, atol=1e-9)
    assert len({tuple(row) for row in w.round(12)}) == len(w)


@pytest.mark.usefixtures("few_draws")
def test_without_likelihood_or_with_another_number(tmp_path: Path) -> None:
    sample = toy_top_pairs(1500)
    generator = trained(tmp_path / "gan", sample, "model=gan", "network.ensemble=2")
    assert len(generator.sample(50, seed=1)) == 50
    with pytest.raises(UsageError, match="no likelihood"):
        generator.sample(10, posterior=2)
    assert JudgedModel(tmp_path / "gan", "cpu").draws(10) == 0  # reports have no band
    trained(tmp_path / "flow", sample, "model=mlp-cfm", "network.ensemble=2")
    assert JudgedModel(tmp_path / "flow", "cpu").draws(10) == 0  # it would take too long
    with pytest.raises(HepgenError):
        load_config(None, ["network.ensemble=0"])
