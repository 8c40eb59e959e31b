"""Flow matching: base density, paths, likelihood; pitfalls of published codes."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hepgen_ml.config import Config, load_config
from hepgen_ml.errors import ModelError
from hepgen_ml.models.conditions import Condition
from hepgen_ml.models.flow import flow_matching
from hepgen_ml.models.flow.base_distribution import UNREJECTED, BaseDistribution, concentration
from hepgen_ml.models.flow.flow_matching import FlowMatching, divergence
from hepgen_ml.models.flow.settings import FlowConfig
from hepgen_ml.models.flow.velocities import VELOCITIES
from hepgen_ml.phase_space import Acceptance, Coordinate, Cut
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from tests.samples import learned, toy_top_pairs

SMALL = ["network.width=32", "network.blocks=2", "network.heads=2"]


class Plane:
    """As much of a process as a flow needs: one real coordinate with a cut, and one angle."""

    n_coordinates = 2
    conditions = None

    def __init__(self, low: float = -math.inf) -> None:
        self.low = low
        self.channels = [SimpleNamespace(coordinates=(Coordinate("x"), Coordinate("phi", True)))]
        self.channel_of = torch.zeros(1, dtype=torch.int64)
        structure = SimpleNamespace(pdg_id=(21, 21, 6, -6), incoming=[0, 1], process_id=1)
        self.subprocesses = [SimpleNamespace(structure=structure, order=(2, 3), chart=0)]

    def kinematics(self, x: Tensor, subprocess: Tensor, phi: Tensor) -> Any:
        return SimpleNamespace(passes=x[:, 0] > self.low)


def plane_events(m: int) -> Encoded:
    """Two clusters, one of them across the end of the angle's interval."""
    g = torch.Generator().manual_seed(0)
    side = torch.rand(m, generator=g) < 0.5
    noise = torch.randn(m, 2, generator=g, dtype=torch.float64)
    x = torch.where(side, 1.0, -1.0) + 0.4 * noise[:, 0]
    phi = torch.where(side, math.pi, 1.0) + 0.3 * noise[:, 1]
    coordinates = torch.stack([x, torch.remainder(phi + math.pi, 2 * math.pi) - math.pi], -1)
    return encoded_from(coordinates)


def encoded_from(x: Tensor, weight: Tensor | None = None) -> Encoded:
    zero, one = torch.zeros(len(x), dtype=torch.int64), torch.ones(len(x), dtype=torch.float64)
    empty = torch.zeros(len(x), 0)
    return Encoded(x, zero, zero, zero, empty, one if weight is None else weight, empty, zero)


def flow_on(process: Any, encoded: Encoded, *settings: str, randomise: bool = True) -> FlowMatching:
    """Untrained flow whose output layer is random instead of zero, so that it bends."""
    torch.manual_seed(0)
    model = FlowMatching(process, load_config(None, ["model=mlp-cfm", *SMALL, *settings]))
    model.fit_standardization(encoded)
    if randomise:
        nn.init.normal_(model.velocity.head.weight, std=0.1)  # type: ignore[union-attr]
    return model.eval()


@pytest.fixture(scope="module")
def plane() -> FlowMatching:
    return flow_on(Plane(), plane_events(2000))


@pytest.fixture(scope="module")
def process() -> Process:
    process = learned(toy_top_pairs(2000))
    process.acceptance = Acceptance(
        [*process.acceptance.cuts, Cut("abs_eta", ("j",), high=0.8), Cut("pt", ("6",), low=40.0)]
    )
    return process


@pytest.fixture(scope="module")
def encoded(process: Process) -> Encoded:
    return process.encode(toy_top_pairs(2000))


@pytest.fixture(scope="module")
def cut(process: Process, encoded: Encoded) -> FlowMatching:
    return flow_on(process, encoded, "flow.base=cuts")


# The base distribution


def test_base_density_integrates_to_one_with_a_cut() -> None:
    """Pitfall: a base rejected to the cuts but not divided by their acceptance, and without a
    zero outside, integrates to more than one."""
    flow = flow_on(Plane(low=-0.5), plane_events(2000), "flow.base=cuts")
    base = flow.base
    assert 0.5 < float(base.acceptance[0]) < 0.9
    real = torch.linspace(-9, 9, 20_001)
    angle = torch.linspace(-math.pi, math.pi, 65)[:-1]
    # The cut lies within a cell of the grid, hence many cells.
    cells = (real[1] - real[0]) * (angle[1] - angle[0])
    total = torch.zeros((), dtype=torch.float64)
    for phi in angle:
        z = torch.stack([real, phi.expand(len(real))], -1)
        total += base.log_prob(z, torch.zeros(len(z), dtype=torch.int64)).exp().sum() * cells
    error = 4 * float(base.acceptance_error[0] / base.acceptance[0]) + 1e-3
    assert float(total) == pytest.approx(1.0, abs=error)


def test_base_density_integrates_to_one_in_more_dimensions(
    process: Process, encoded: Encoded, cut: FlowMatching
) -> None:
    g = torch.Generator().manual_seed(3)
    for c, layout in enumerate(cut.layouts):
        assert float(cut.base.acceptance[c]) < 0.97
        m, d, width = 100_000, len(layout), 1.3
        sub = torch.full((m,), int(torch.nonzero(process.channel_of == c)[0]))
        z = width * torch.randn(m, process.n_coordinates, generator=g)
        log_q = -0.5 * (z / width) ** 2 - math.log(width * math.sqrt(2 * math.pi))
        angles = cut.periodic[c]
        uniform = (2 * torch.rand(z.shape, generator=g) - 1) * math.pi
        z = torch.where(angles, uniform, z)
        log_q = torch.where(angles, torch.tensor(-math.log(2 * math.pi)), log_q)
        z[:, d:] = 0
        weight = (cut.base.log_prob(z, sub) - log_q[:, :d].sum(-1)).exp()
        assert float(weight.mean()) == pytest.approx(1, abs=5 * float(weight.std()) / m**0.5)


def test_base_draws_obey_the_cuts_and_their_density(cut: FlowMatching, encoded: Encoded) -> None:
    g = torch.Generator().manual_seed(4)
    sub = encoded.subprocess.repeat(5)
    z = cut.base.sample(sub, g)
    x = cut.restore(z, sub)
    outside = 1 - cut.base.process.kinematics(x, sub, torch.zeros(len(x))).passes.double().mean()
    assert 0 < outside < 3 * UNREJECTED
    # Without the part that is not rejected, log p0 would be -inf somewhere.
    assert torch.isfinite(cut.base.log_prob(z, sub)).all()


def test_base_without_cuts_is_a_gaussian(process: Process, encoded: Encoded) -> None:
    """Edges of the base are structure that a network would have to learn for nothing."""
    flow = flow_on(process, encoded)
    g, sub = torch.Generator().manual_seed(4), encoded.subprocess
    z = flow.base.sample(sub, g)
    inside = flow.base.process.kinematics(flow.restore(z, sub), sub, torch.zeros(len(z))).passes
    assert inside.double().mean() < 0.95
    assert (flow.base.acceptance == 1).all()
    for c, rows in flow.by_channel(sub):
        expected = flow.base._log_proposal(z[rows].double(), c)
        assert torch.equal(flow.base.log_prob(z[rows], sub[rows]), expected)


def test_base_of_equivariant_and_of_older_models_has_the_cuts() -> None:
    for name, within in (("mlp", False), ("transformer", False), ("lgatr", True)):
        config = load_config(None, [f"model={name}-cfm", *SMALL])
        assert VELOCITIES[name].within_cuts == within
        assert config.section(FlowConfig).base == "auto"
        stored = config.model_dump()
        assert Config.of_stored(stored) == config
        del stored["flow"]["base"]
        assert Config.of_stored(stored).section(FlowConfig).base == "cuts"


def test_base_that_never_reaches_the_cuts_is_an_error() -> None:
    process = Plane()
    base = BaseDistribution(process, [process.channels[0].coordinates])  # type: ignore[arg-type]
    process.low = math.inf
    with pytest.raises(ModelError, match="does not reach the cuts"):
        base.sample(torch.zeros(3, dtype=torch.int64))


def test_base_is_fitted_to_the_weighted_events() -> None:
    g = torch.Generator().manual_seed(0)
    factor = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    x = torch.randn(20_000, 2, generator=g, dtype=torch.float64) @ factor.t()
    weight = (x[:, 0] > 0).double() * 2
    process = Plane()
    layout = (Coordinate("x"), Coordinate("y"))
    base = BaseDistribution(process, [layout])  # type: ignore[arg-type]
    base.fit(x, torch.zeros(len(x)).long(), weight, torch.zeros(1, 2), torch.ones(1, 2))
    assert base.location[0, 0].item() == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)
    covariance = base.cholesky[0] @ base.cholesky[0].t()
    assert covariance[0, 0].item() == pytest.approx(1 - 2 / math.pi, abs=0.02)
    assert concentration(0.3) == pytest.approx(0.6295, abs=2e-3)


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
