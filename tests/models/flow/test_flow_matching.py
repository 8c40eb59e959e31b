"""Flow matching: paths, loss, likelihood; pitfalls of published codes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hepgen_ml.config import Config, load_config
from hepgen_ml.models.conditions import Condition
from hepgen_ml.models.flow import flow_matching
from hepgen_ml.models.flow.flow_matching import FlowMatching, divergence
from hepgen_ml.models.flow.settings import FlowConfig
from hepgen_ml.models.flow.velocities import VELOCITIES
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from tests.models.flow.flows import Plane, encoded_from, flow_on, plane_events


def test_constant_coordinate_stays_finite() -> None:
    """Pitfall: a nearly constant coordinate, divided by its tiny width, is amplified noise."""
    x = plane_events(1500).x.clone()
    x[:, 0] = 91.1876
    flow = flow_on(Plane(), encoded_from(x))
    z, sub = flow.prepare(x, torch.zeros(len(x)).long()), torch.zeros(len(x)).long()
    assert torch.isfinite(flow.loss(z, sub, torch.ones(len(z))))
    assert (flow.sample(sub[:100]) - 91.1876)[:, 0].abs().max() < 5


# Paths and loss


def test_path_goes_the_short_way_round(plane: FlowMatching) -> None:
    start, end = torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, -3.0]])
    change = plane.displacement(start, end, 0)
    assert torch.allclose(change, torch.tensor([[1.0, 2 * math.pi - 6.0]]), atol=1e-6)


@pytest.mark.parametrize("name", sorted(VELOCITIES))
def test_field_is_periodic_in_angles(name: str, process: Process, encoded: Encoded) -> None:
    """Pitfall: a network that reads raw angles has a field with a step at the end of the range."""
    flow = flow_on(process, encoded, f"model={name}-cfm")
    z, sub = flow.prepare(encoded.x, encoded.subprocess), encoded.subprocess
    for c, rows in flow.by_channel(sub):
        d = len(flow.layouts[c])
        t = torch.rand(len(rows))
        turned = z[rows, :d] + 2 * math.pi * flow.periodic[c, :d]
        v = flow.speed(t, z[rows, :d], Condition(sub[rows], c))
        assert v.shape == (len(rows), d)
        assert torch.allclose(v, flow.speed(t, turned, Condition(sub[rows], c)), atol=1e-4)


def test_no_coordinate_dominates_the_loss(cut: FlowMatching, encoded: Encoded) -> None:
    """Pitfall: angles that are not standardised have several times the weight of the rest."""
    z, sub = cut.prepare(encoded.x, encoded.subprocess), encoded.subprocess
    start = cut.base.sample(sub, torch.Generator().manual_seed(9))
    for c, rows in cut.by_channel(sub):
        square = cut.displacement(start[rows], z[rows], c) ** 2
        scaled = square.mean(0) / cut.variance[c, : square.shape[1]]
        assert torch.allclose(scaled, torch.ones_like(scaled), atol=0.2)


def test_loss_honours_weights_and_evaluates_the_same_each_time(
    cut: FlowMatching, encoded: Encoded
) -> None:
    z, sub = cut.prepare(encoded.x, encoded.subprocess), encoded.subprocess
    one, part = torch.ones(len(z)), torch.rand(len(z))
    whole = cut.loss(z, sub, one)
    assert whole.item() == cut.loss(z, sub, one).item()
    assert torch.allclose(cut.loss(z, sub, part) + cut.loss(z, sub, one - part), whole)
    cut.train()
    assert cut.loss(z, sub, one).item() != cut.loss(z, sub, one).item()
    cut.eval()


def test_reduced_precision_trains(process: Process, encoded: Encoded) -> None:
    flow = flow_on(process, encoded, "model=transformer-cfm", "training.precision=bfloat16")
    z, sub = flow.prepare(encoded.x, encoded.subprocess), encoded.subprocess
    exact = flow.loss(z, sub, torch.ones(len(z)))
    flow.velocity.train()
    rough = flow.loss(z, sub, torch.ones(len(z)))
    assert exact.item() != rough.item()
    assert exact.item() == pytest.approx(rough.item(), rel=1e-2)


# Likelihood


class LinearField(nn.Module):
    """dz/dt = z A^T, solved by z_1 = z_0 exp(A)^T."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        d = z.shape[1]
        return z @ self.a[:d, :d].t()


@pytest.mark.parametrize("kind", ["exact", "hutchinson"])
def test_density_of_a_linear_field_is_analytic(kind: str) -> None:
    settings = f"flow.divergence={kind}", "flow.gaussian=false"
    flow = flow_on(Plane(low=-1.0), plane_events(2000), *settings)
    a = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    flow.velocity = LinearField(a)  # type: ignore[assignment]
    z, sub = torch.randn(200, 2), torch.zeros(200, dtype=torch.int64)
    start = z @ torch.linalg.matrix_exp(-a).t()
    expected = flow.base.log_prob(start, sub) - torch.trace(a)
    found = flow.log_prob_z(z, sub)
    # A start on the cut itself may fall on either side.
    assert torch.isclose(found, expected, atol=1e-4).double().mean() > 0.98


def test_hutchinson_agrees_with_the_exact_divergence_on_average(plane: FlowMatching) -> None:
    z, sub = torch.randn(2, 2).repeat(1500, 1), torch.zeros(3000, dtype=torch.int64)
    exact = plane.log_prob_z(z[:2], sub[:2])
    plane.settings = FlowConfig(divergence="hutchinson")
    estimates = plane.log_prob_z(z, sub).reshape(-1, 2)
    plane.settings = FlowConfig()
    error = estimates.std(0) / math.sqrt(len(estimates))
    assert (error > 0).all()
    assert ((estimates.mean(0) - exact).abs() < 4 * error + 1e-4).all()


def test_probe_is_the_same_over_a_trajectory(
    plane: FlowMatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall: a probe redrawn at every stage breaks the error control of adaptive solvers."""
    probes: list[Tensor] = []

    def spy(v: Tensor, z: Tensor, probe: Tensor | None = None) -> Tensor:
        assert probe is not None
        probes.append(probe.clone())
        return divergence(v, z, probe)

    monkeypatch.setattr(flow_matching, "divergence", spy)
    plane.settings = FlowConfig(divergence="hutchinson", likelihood_solver="dopri5", tolerance=1e-5)
    z, sub = torch.randn(50, 2), torch.zeros(50, dtype=torch.int64)
    first = plane.log_prob_z(z, sub)
    assert len(probes) == plane.evaluations > 6
    assert all(torch.equal(p, probes[0]) for p in probes)
    assert set(probes[0].unique().tolist()) == {-1.0, 1.0}
    plane.settings = FlowConfig(divergence="hutchinson", likelihood_steps=100)
    # An adaptive and a fine fixed grid integrate the same function.
    assert torch.allclose(plane.log_prob_z(z, sub), first, atol=2e-2)
    plane.settings = FlowConfig()


def test_events_are_never_left_out(cut: FlowMatching, encoded: Encoded) -> None:
    """Pitfall: events whose likelihood is not finite or extreme were dropped from its mean."""
    some = encoded[:40]
    z, sub = cut.prepare(some.x, some.subprocess), some.subprocess
    whole = cut.log_prob_z(z, sub)
    z[3, 0], z[7, 0] = math.nan, 300.0
    found = cut.log_prob_z(z, sub)
    assert found.shape == (40,)
    assert torch.isnan(found[3])
    assert found[7] < -1000 or torch.isnan(found[7])
    others = [i for i in range(40) if i not in (3, 7)]
    assert torch.allclose(found[others], whole[others], atol=1e-4)


def test_likelihood_under_inference_mode(cut: FlowMatching, encoded: Encoded) -> None:
    some = encoded[:30]
    outside = cut.log_prob(some.x, some.subprocess)
    with torch.inference_mode():
        z = cut.prepare(some.x, some.subprocess)
        assert torch.allclose(
            cut.log_prob_z(z, some.subprocess), cut.log_prob_z(z, some.subprocess)
        )
        inside = cut.log_prob(some.x, some.subprocess)
    assert torch.allclose(inside, outside)
    assert all(p.grad is None for p in cut.parameters())


@pytest.mark.parametrize("name", ["mlp-cfm", "transformer-cfm"])
@pytest.mark.parametrize("bayesian", ["last", "all"])
def test_likelihood_of_draws_under_inference_mode(name: str, bayesian: str) -> None:
    """Events are generated in this mode, with the densities of posterior draws as weights."""
    events = plane_events(300)
    settings = f"model={name}", f"flow.bayesian={bayesian}"
    flow = flow_on(Plane(), events, *settings, randomise=False).eval()
    z, sub = flow.prepare(events.x[:20], events.subprocess[:20]), events.subprocess[:20]
    with torch.no_grad():
        outside = flow.log_prob_draws(z, sub, 2)
    with torch.inference_mode():
        inside = flow.log_prob_draws(z.clone(), sub, 2)
    assert not torch.allclose(outside[0], outside[1])
    torch.testing.assert_close(inside, outside, atol=1e-5, rtol=1e-5)


def test_way_back_ends_at_the_start(cut: FlowMatching, encoded: Encoded) -> None:
    sub = encoded.subprocess[:200]
    start = cut.base.sample(sub, torch.Generator().manual_seed(1))
    cut.settings = FlowConfig(steps=30)
    end = cut.transport(start, sub)
    assert cut.evaluations == 120
    back = cut.transport(end, sub, backward=True)
    cut.settings = FlowConfig()
    moved = torch.cat(
        [cut.displacement(start[r], end[r], c).abs().flatten() for c, r in cut.by_channel(sub)]
    )
    assert moved.mean() > 0.05
    for c, rows in cut.by_channel(sub):
        assert cut.displacement(start[rows], back[rows], c).abs().max() < 2e-3


def test_generated_events_have_a_likelihood(cut: FlowMatching, encoded: Encoded) -> None:
    """Pitfall: log p of generated events was held to be ill-defined because of the cuts."""
    sub = encoded.subprocess[:300]
    x = cut.sample(sub, torch.Generator().manual_seed(1))
    assert torch.isfinite(cut.log_prob(x, sub)).all()


def test_trained_density_integrates_to_one_and_improves() -> None:
    encoded = plane_events(4000)
    flow = flow_on(Plane(low=-2.5), encoded, randomise=False)
    z, sub = flow.prepare(encoded.x, encoded.subprocess), encoded.subprocess
    before = flow.log_prob_z(z[:500], sub[:500]).mean()
    flow.train()
    optimizer = torch.optim.Adam(flow.parameters(), 5e-3)
    for step in range(200):
        i = torch.randint(len(z), (512,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        flow.loss(z[i], sub[i], torch.ones(512)).backward()
        optimizer.step()
    flow.eval()
    assert flow.log_prob_z(z[:500], sub[:500]).mean() > before + 0.3
    real, angle = torch.linspace(-6, 6, 121), torch.linspace(-math.pi, math.pi, 49)[:-1]
    grid = torch.cartesian_prod(real, angle)
    log_p = flow.log_prob_z(grid, torch.zeros(len(grid), dtype=torch.int64))
    total = log_p.exp().sum() * (real[1] - real[0]) * (angle[1] - angle[0])
    assert float(total) == pytest.approx(1.0, abs=0.02)


def test_settings_are_those_of_the_configuration() -> None:
    config = load_config(None, ["flow.solver=dopri5", "flow.tolerance=1e-3"])
    assert config.section(FlowConfig).solver == "dopri5"
    # A model stored before there were flows.
    stored = {k: v for k, v in Config().model_dump().items() if k != "flow"}
    assert Config.model_validate(stored) == Config()
