"""Ramp and ring of the papers: the posterior knows how wrong the density may be."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("mplhep")


@pytest.fixture(scope="module")
def toys() -> ModuleType:
    path = Path(__file__).parents[1] / "examples" / "toys.py"
    spec = importlib.util.spec_from_file_location("toys", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toys"] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def learned(
    toys: ModuleType, toy: str, density: str, n: int, steps: int, n_draws: int = 20,
    bayesian: str = "last",
):  # fmt: skip
    x = toys.TOYS[toy].draw(n, np.random.default_rng(1))
    more = [
        f"training.max_steps={steps}", "training.max_epochs=1e6", f"jetgpt.bayesian={bayesian}"
    ]  # fmt: skip
    model = toys.learn(x, toys.settings(density, 1e6, *more))
    return toys.band(toys.TOYS[toy], model, n, n_draws=n_draws)


@pytest.mark.parametrize("name", ["ramp", "ring"])
def test_truth_is_normalised_and_drawn(toys: ModuleType, name: str) -> None:
    toy = toys.TOYS[name]
    x = toy.draw(200_000, np.random.default_rng(3))
    width = np.diff(toy.edges)
    truth = toy.density(0.5 * (toy.edges[1:] + toy.edges[:-1])) * width
    assert truth.sum() == pytest.approx(1.0, abs=0.01)
    counts = np.histogram(toy.view(x), toy.edges)[0]
    pull = (counts - truth * len(x)) / np.sqrt(truth * len(x))
    assert np.sqrt(np.mean(pull**2)) < 1.4


def test_figure_is_drawn(
    toys: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys, "_FINE", 1)
    monkeypatch.setattr(toys, "_ACROSS", 8)
    monkeypatch.setattr("hepgen_ml.models.flow.base_distribution._PROPOSALS", 2000)
    monkeypatch.setattr("hepgen_ml.models.last_layers._STEPS", 10)
    bands = {kind: learned(toys, "ramp", kind, 4000, 20, n_draws=3) for kind in toys.COLORS}
    assert np.allclose(bands["bins"].draws.sum(1) * 0.025, 1.0, atol=0.3)
    for b in bands.values():
        assert (b.draws.sum(1) * 0.025 < 1.3).all()  # flows reach beyond the square
    toys.figures.save(toys.figure(toys.TOYS["ramp"], bands, 4000), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["ramp", "ring"])
def test_points_integrate_the_true_density(toys: ModuleType, name: str) -> None:
    """The mean over points at a value of the observable, times their length, is its density."""
    toy = toys.TOYS[name]
    values = np.linspace(0.8, 0.99, 5)
    points, length = toy.points(values)
    radius = np.hypot(points[..., 0], points[..., 1])
    ring = np.exp(-0.5 * ((radius - 1) / 0.1) ** 2) / (2 * np.pi * 0.1 * np.sqrt(2 * np.pi))
    plane = 2 * points[..., 1] if name == "ramp" else ring
    assert np.allclose(plane.mean(1) * length, toy.density(values))
    assert np.allclose(toy.view(points.reshape(-1, 2)), np.repeat(values, points.shape[1]))


def test_constrained_fit_has_its_shape(toys: ModuleType) -> None:
    """Errors of a slope and of a constant, and those of a radius, are found again."""
    x = np.linspace(0.01, 0.99, 40)
    shapes = toys.TOYS["ramp"].shapes(x)
    error = np.sqrt((0.1 * (x - 0.5)) ** 2 + 0.02**2)
    draws = np.stack([2 * x + error * k for k in (-1.0, 0.0, 1.0)])
    b = toys.Band(draws, 2 * x, error)
    assert np.allclose(b.fitted(shapes), error, rtol=1e-6)
    r = np.linspace(0.8, 1.2, 41)
    shape = np.abs(toys.TOYS["ring"].shapes(r)[0])
    assert shape.argmin() == 20  # the radius itself moves nothing where the ring is densest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("toy", "density", "bayesian"),
    # The radius of the ring is a correlation: it is learned by hidden layers too, of whose
    # uncertainty a posterior of the last layer knows nothing where it is a histogram.
    [
        ("ramp", "bins", "last"),
        ("ramp", "mixtures", "last"),
        ("ring", "mixtures", "last"),
        ("ring", "bins", "all"),
    ],
)
def test_band_covers_the_deviation_from_truth(
    toys: ModuleType, toy: str, density: str, bayesian: str
) -> None:
    """Pulls over the band and the statistics of the generated events; the statistical floor."""
    b = learned(toys, toy, density, 20_000, 2500, bayesian=bayesian)
    some = b.truth > 0.05 * b.truth.max()
    pull, ratio = b.pull[some], (b.error / b.floor)[some]
    assert np.sqrt(np.mean(pull**2)) < 1.4
    # neither far below what the training events can say, nor meaningless
    assert 0.25 < np.median(ratio) < 5
    # the density itself is as good as the training events allow
    assert np.sqrt(np.mean(((b.mean - b.truth) / b.floor)[some] ** 2)) < 2.5


@pytest.mark.slow
def test_uncertainty_falls_with_more_events(toys: ModuleType) -> None:
    few, many = (learned(toys, "ramp", "bins", n, 2500) for n in (10_000, 90_000))
    gain = np.median(few.error) / np.median(many.error)
    assert 2.0 < gain < 4.5  # the square root of nine, if statistics decide
