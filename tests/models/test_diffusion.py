"""Denoising diffusion: noise levels, samplers, likelihood, angles; pitfalls of published codes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hepgen_ml.config import Config, load_config
from hepgen_ml.models.conditions import Condition
from hepgen_ml.models.diffusion import chain
from hepgen_ml.models.diffusion.ddpm import Diffusion
from hepgen_ml.models.diffusion.settings import DiffusionConfig
from tests.models.flow.flows import SMALL, Plane, encoded_from

WIDTH, CENTRE, POINT = 0.3, 1.5, 0.05
"""Of a Gaussian on a line, in units of the noise."""


def diffusion(*settings: str, m: int = 4000, randomise: float = 0.0) -> Diffusion:
    """On a plane of a coordinate of unit variance and an angle around pi."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(m, 2, generator=g, dtype=torch.float64)
    angle = torch.remainder(0.3 * noise[:, 1] + 2 * math.pi, 2 * math.pi) - math.pi
    model = Diffusion(Plane(), load_config(None, ["model=ddpm", *SMALL, *settings]))  # type: ignore[arg-type]
    model.fit_standardization(encoded_from(torch.stack([noise[:, 0], angle], -1)))
    if randomise:
        nn.init.normal_(model.velocity.head.weight, std=randomise)  # type: ignore[union-attr]
    return model.eval()


class Exact(nn.Module):
    """Exact answer for N(CENTRE, WIDTH^2) on the line and N(1, POINT^2) on the circle."""

    def __init__(self, prediction: str) -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        angle = (1 - t) * math.pi / 2
        alpha, sigma = torch.cos(angle), torch.sin(angle)
        pull = (z[:, 0] - alpha * CENTRE) / (alpha**2 * WIDTH**2 + sigma**2)
        noise, clean = sigma * pull, CENTRE + alpha * WIDTH**2 * pull
        line = noise if self.prediction == "noise" else alpha * noise - sigma * clean
        size = chain.scale(angle, torch.tensor([False, True])).noise[:, 1]
        turns = torch.arange(-8, 9) * 2 * math.pi
        away = z[:, 1:] - 1.0 + turns
        variance = size**2 + POINT**2
        part = torch.softmax(-0.5 * away**2 / variance.unsqueeze(-1), -1)
        return torch.stack([line, size * (part * away).sum(-1) / variance], -1)


def exact(*settings: str, prediction: str = "velocity") -> Diffusion:
    model = diffusion(f"ddpm.prediction={prediction}", *settings)
    model.velocity = Exact(prediction)  # type: ignore[assignment]
    model.base.location.zero_()
    model.base.cholesky.copy_(torch.eye(2))
    model.variance.fill_(1.0)
    return model


def test_noise_levels() -> None:
    for schedule in ("linear", "cosine"):
        for n in (100, 1000):
            angles = chain.levels(schedule, n)
            assert (angles.diff() > 0).all()
            assert 0 < float(angles[0]) < 0.05
            # alpha_bar of what is left is negligible, and no smaller step is one too many
            assert 0 < math.cos(float(angles[-1])) < 0.01
    # prod(1 - beta) of the thousand steps of 2006.11239
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    last = torch.cos(chain.levels("linear", 1000)[-1]) ** 2
    assert float(last) == pytest.approx(float((1 - beta).prod()), rel=1e-6)


def test_noise_on_circles_ends_uniform_and_begins_as_on_lines() -> None:
    both = torch.tensor([False, True])
    for angle in (1e-3, 0.3, 1.0, 1.5):
        a = torch.tensor(angle, dtype=torch.float64, requires_grad=True)
        signal, noise = chain.scale(a, both)
        assert float(signal[1].detach()) == 1.0
        (slope,) = torch.autograd.grad(noise[1], a)
        assert float(chain.widening(a.detach())) == pytest.approx(float(slope))
    small = chain.scale(torch.tensor(1e-3, dtype=torch.float64), both).noise
    assert float(small[0]) == pytest.approx(float(small[1]), rel=1e-3)
    end = chain.scale(torch.tensor(math.pi / 2, dtype=torch.float64), both).noise
    assert float(end[1]) == pytest.approx(chain.WIDEST)


def test_samplers_reach_a_narrow_gaussian() -> None:
    """Published: DDIM narrows peaks; a second-order solver with as many evaluations does not."""
    sub = torch.zeros(5_000, dtype=torch.int64)
    width = {}
    for prediction in ("velocity", "noise"):
        for solver, steps in (("ancestral", 1), ("ddim", 24), ("dpm2m", 24), ("rk4", 6)):
            model = exact(f"ddpm.solver={solver}", f"ddpm.steps={steps}", prediction=prediction)
            z = model.sample_z(sub, torch.Generator().manual_seed(1))
            assert model.evaluations == (1000 if solver == "ancestral" else 24)
            width[solver, prediction] = float(z[:, 0].std()) / WIDTH
            assert float(z[:, 0].mean()) == pytest.approx(CENTRE, abs=0.02)
            assert z[:, 1].abs().max() <= math.pi
            assert float(torch.cos(z[:, 1] - 1.0).mean()) > 0.99
    for solver in ("ancestral", "dpm2m", "rk4"):
        for prediction in ("velocity", "noise"):
            assert width[solver, prediction] == pytest.approx(1.0, abs=0.05), solver
    assert width["ddim", "velocity"] < 0.97


def test_likelihood_of_a_gaussian() -> None:
    for prediction in ("velocity", "noise"):
        model = exact(prediction=prediction)
        z = torch.zeros(9, 2)
        z[:, 0] = torch.linspace(CENTRE - 3 * WIDTH, CENTRE + 3 * WIDTH, 9)
        z[:, 1] = 1.0
        log_p = model.log_prob_z(z, torch.zeros(9, dtype=torch.int64))
        expected = -0.5 * ((z[:, 0] - CENTRE) / WIDTH) ** 2
        found = log_p - log_p[4]
        torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.02)


def test_density_integrates_to_one_and_samples_follow() -> None:
    model = diffusion(
        "ddpm.solver=rk4", "ddpm.steps=20", "ddpm.likelihood_steps=20", randomise=0.02
    )
    sub = torch.zeros(6000, dtype=torch.int64)
    x = torch.linspace(-9, 9, 121)
    angle = torch.linspace(-math.pi, math.pi, 65)[:-1]
    grid = torch.cartesian_prod(x, angle)
    p = model.log_prob_z(grid, torch.zeros(len(grid), dtype=torch.int64)).exp()
    cell = float(x[1] - x[0]) * float(angle[1] - angle[0])
    assert float(p.sum()) * cell == pytest.approx(1.0, abs=5e-3)
    drawn = model.sample_z(sub, torch.Generator().manual_seed(1))
    for value, on_grid in ((drawn[:, 0], grid[:, 0]), (torch.cos(drawn[:, 1]), grid[:, 1].cos())):
        mean = float((p * on_grid).sum()) * cell
        error = float(value.std()) / math.sqrt(len(value))
        assert float(value.mean()) == pytest.approx(mean, abs=4 * error + 5e-3)


def test_network_is_periodic_and_so_is_the_density() -> None:
    model = diffusion(randomise=0.1)
    z = torch.randn(50, 2)
    sub = torch.zeros(50, dtype=torch.int64)
    turned = z + torch.tensor([0.0, 2 * math.pi])
    torch.testing.assert_close(
        model.log_prob_z(z, sub), model.log_prob_z(turned, sub), atol=1e-3, rtol=0
    )


def test_gaussian_events_need_no_network() -> None:
    """The exact part of the default: correlated Gaussian events have no velocity left."""
    torch.manual_seed(0)
    factor = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    x = torch.randn(20_000, 2, dtype=torch.float64) @ factor.t()
    plane = Plane()
    for coordinate in plane.channels[0].coordinates:
        object.__setattr__(coordinate, "periodic", False)
    model = Diffusion(plane, load_config(None, ["model=ddpm", *SMALL]))  # type: ignore[arg-type]
    encoded = encoded_from(x)
    model.fit_standardization(encoded)
    z = model.sample_z(encoded.subprocess, torch.Generator().manual_seed(1))
    assert float(torch.corrcoef(z.t())[0, 1]) == pytest.approx(0.8, abs=0.02)
    torch.testing.assert_close(z.std(0), torch.ones(2), atol=0.03, rtol=0)


def test_evaluation_loss_is_a_number_of_the_network_alone() -> None:
    model = diffusion(randomise=0.1)
    z, sub = torch.randn(300, 2), torch.zeros(300, dtype=torch.int64)
    weight = torch.ones(300)
    with torch.no_grad():
        assert float(model.loss(z, sub, weight)) == float(model.loss(z, sub, weight))
    signed = torch.where(torch.arange(300) % 5 == 0, -1.0, 1.5)
    assert torch.isfinite(model.train().loss(z, sub, signed))


def test_wrong_settings_are_named() -> None:
    from hepgen_ml.errors import UsageError

    for text in (
        "ddpm.timesteps=1", "ddpm.schedule=square", "ddpm.solver=magic", "ddpm.steps=0",
    ):  # fmt: skip
        with pytest.raises(UsageError, match=text.split("=")[0]):
            load_config(None, ["model=ddpm", text])
    with pytest.raises(UsageError, match="ddpm: explicit_adams needs equal steps"):
        load_config(None, ["model=ddpm", "ddpm.likelihood_solver=explicit_adams", "ddpm.warp=2"])
    unequal = {"likelihood_solver": "explicit_adams", "warp": 2.0}  # of an older model
    stored = Config.of_stored({"model": "ddpm", "ddpm": unequal}).section(DiffusionConfig)
    assert (stored.warp, stored.likelihood_solver) == (1.0, "explicit_adams")


@pytest.mark.parametrize(
    ("given", "steps"),
    [([], 4), (["ddpm.solver=ddim"], 24), (["ddpm.solver=dpm2m", "ddpm.steps=8"], 8)],
)
def test_samplers_by_levels_have_enough_of_them(given: list[str], steps: int) -> None:
    config = load_config(None, ["model=ddpm", *given])
    assert config.section(DiffusionConfig).steps == steps
    stored = Config.of_stored(config.model_dump() | {"ddpm": {"solver": "ddim", "steps": 4}})
    assert stored.section(DiffusionConfig).steps == 4
