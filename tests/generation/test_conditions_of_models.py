"""Conditions with all else that models can do: posteriors, jets, other machines, resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import hepgen_ml
from hepgen_ml.cli import app
from hepgen_ml.config import load_config
from hepgen_ml.errors import UsageError
from hepgen_ml.events.conditions import parse_conditions
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.base import DensityModel
from hepgen_ml.models.registry import register
from hepgen_ml.process.process import Process
from hepgen_ml.training.encoded import encode_sample
from tests.generation.test_conditions import SMALL, trained
from tests.samples import toy_z_jets
from tests.scans import labelled, pair_masses, point


@register("deaf")
class Deaf(DensityModel):
    """A density that knows nothing of conditions."""

    has_likelihood = False

    def __init__(self, process: Process, config: object) -> None:
        super().__init__(process)

    def loss(self, z: torch.Tensor, subprocess: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return z.mean()

    def sample_z(self, subprocess: torch.Tensor, generator: object = None) -> torch.Tensor:
        return torch.zeros(len(subprocess), self.mean.shape[1])


def test_densities_that_take_no_conditions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot depend on conditions"):
        trained(tmp_path / "m", labelled(1200), "model=deaf", 'conditions=["mass"]')


def test_posteriors_and_members_at_a_condition(tmp_path: Path) -> None:
    sample = labelled(1500)
    for number, more in enumerate((("jetgpt.bayesian=last",), ("network.ensemble=2",))):
        generator = trained(tmp_path / f"m{number}", sample, "model=jetgpt", *more,
                            'conditions=["mass"]', "training.max_steps=10")  # fmt: skip
        events = generator.sample(100, seed=1, condition={"mass": 1000}, posterior=2)
        ratios = np.stack(list(events.weights.values())) / events.weight
        np.testing.assert_allclose(ratios.mean(0), 1.0, atol=1e-6)
        assert abs(np.median(pair_masses(events)) / 1000 - 1) < 0.02
        # of several values, each event has its own, whichever draw it is of
        mass = np.linspace(700, 1300, 8)
        events = generator.sample(24, seed=1, condition={"mass": mass}, posterior=2)
        np.testing.assert_allclose(events.attributes["mass"].astype(float), np.tile(mass, 3))


def jets_by_condition(n: int, seed: int = 0) -> EventSample:
    """Z + jets, labelled by their number: few or many."""
    sample = toy_z_jets(n, seed)
    jets = sample.counts - 2
    rng = np.random.default_rng(seed)
    sample.attributes["activity"] = np.where(
        rng.random(n) < 0.9, np.where(jets > 1, "high", "low"), np.where(jets > 1, "low", "high")
    )
    return sample


@pytest.mark.slow
def test_numbers_of_jets_follow_conditions(tmp_path: Path) -> None:
    sample = jets_by_condition(2000)
    generator = trained(tmp_path / "m", sample, "model=jetgpt-splitting",
                        'conditions=["activity"]', "training.max_steps=100",
                        "training.learning_rate=0.01")  # fmt: skip
    mean = {}
    for value in ("low", "high"):
        events = generator.sample(500, seed=1, condition={"activity": value})
        assert np.isfinite(generator.log_prob(events)).all()
        mean[value] = (events.counts - 2).mean()
    true = [sample.counts[sample.attributes["activity"] == v].mean() for v in ("low", "high")]
    assert mean["high"] - mean["low"] > 0.5 * (true[1] - true[0])


def test_encoded_sample_and_resumed_training(tmp_path: Path) -> None:
    encoded = encode_sample(labelled(1500), conditions=parse_conditions(["mass"]))
    encoded.save(tmp_path / "s.safetensors")
    whole = trained(tmp_path / "a", tmp_path / "s.safetensors", "model=jetgpt",
                    "training.max_steps=20")  # fmt: skip
    direct = trained(tmp_path / "b", labelled(1500), "model=jetgpt", 'conditions=["mass"]',
                     "training.max_steps=20")  # fmt: skip
    events = [g.sample(50, seed=3, condition={"mass": 800}) for g in (whole, direct)]
    np.testing.assert_allclose(events[0].px, events[1].px, rtol=1e-4)
    with pytest.raises(UsageError, match="encoded without the condition"):
        trained(tmp_path / "c", tmp_path / "s.safetensors", 'conditions=["model"]')


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_command_line(tmp_path: Path) -> None:
    files = []
    for mass in (600, 1000):
        files.append(tmp_path / f"{mass}.lhe")
        hepgen_ml.write(point(mass, 600, mass), files[-1])
    model, out, values = tmp_path / "m", tmp_path / "e.lhe", tmp_path / "values.txt"
    settings = [x for s in [*SMALL, "training.max_steps=10"] for x in ("--set", s)]
    told = run("train", *files, "--condition", "mass:32", "--model", "jetgpt", "--out", model,
               *settings)  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "mass:32, values from 600 to 1000; 2 points" in " ".join(told.output.split())
    generate = ["generate", "--model", model, "-n", "20", "--out", out, "--force", "--condition"]
    assert run(*generate, "mass:32=800").exit_code == 0
    assert set(hepgen_ml.read(out).attributes["mass_32"]) == {"800"}
    values.write_text("# mass:32\n" + "\n".join(f"{600 + 20 * i}" for i in range(20)) + "\n")
    assert run(*generate, values).exit_code == 0
    found = hepgen_ml.read(out).attributes["mass_32"].astype(float)
    np.testing.assert_array_equal(found, 600 + 20 * np.arange(20))
    np.savez(tmp_path / "values.npz", **{"mass:32": np.full(3, 700.0)})
    assert run(*generate, tmp_path / "values.npz").exit_code == 0
    assert set(hepgen_ml.read(out).attributes["mass_32"]) == {"700"}
    assert run("info", model).exit_code == 0
    for given, what in (("mass=3", "no condition 'mass'"), ("nofile", "cannot be read"),
                        ("mass:32=x", "not a finite number")):  # fmt: skip
        told = run(*generate, given)
        assert told.exit_code != 0
        assert what in " ".join(told.output.split())


def test_a_stored_model_is_checked(tmp_path: Path) -> None:
    config = load_config(None, [*SMALL, "model=jetgpt", 'conditions=["mass"]',
                                "training.max_steps=2"])  # fmt: skip
    generator = Generator.train(labelled(1200), out=tmp_path / "m", config=config, device="cpu")
    document = generator.process.to_config()
    for change in (
        {"shares": []}, {"scan": 3}, {"each": []}, {"points": [[1.0, 2.0]]},
        {"cross_sections": [1.0]},
    ):  # fmt: skip
        broken = {**document, "conditions": {**document["conditions"], **change}}
        with pytest.raises(ValueError):  # noqa: PT011 - pydantic says which entry
            Process.from_config(broken)
    with pytest.raises(ValueError, match="another number of conditions"):
        Process.from_config({k: v for k, v in document.items() if k != "conditions"})


def test_peaks_of_reconstructed_muons_follow(tmp_path: Path) -> None:
    partons = labelled(3000)
    rows = np.arange(len(partons))[:, None] * 5 + [3, 4]
    size = np.hypot(partons.px, partons.py)[rows]
    rows = np.take_along_axis(rows, np.argsort(-size, axis=1), axis=1).ravel()
    columns = ("pdg_id", "px", "py", "pz", "energy", "mass")
    sample = EventSample(
        partons.run, 2 * np.arange(len(partons) + 1),
        {name: partons.particles[name][rows] for name in columns},
        {"weight": np.ones(len(partons))}, attributes={"mass": partons.attributes["mass"]},
    )  # fmt: skip
    generator = trained(tmp_path / "m", sample, "model=jetgpt", 'conditions=["mass"]')
    events = generator.sample(400, seed=1, condition={"mass": 1000})
    p = events.momentum.reshape(-1, 2, 4).sum(1)
    mass = np.sqrt(p[:, 3] ** 2 - (p[:, :3] ** 2).sum(1))
    assert abs(np.median(mass) / 1000 - 1) < 0.01
    assert np.quantile(mass, 0.75) - np.quantile(mass, 0.25) < 50.0
    assert np.isfinite(generator.log_prob(events)).all()
