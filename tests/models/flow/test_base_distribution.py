"""Base distribution of flow matching: its density, its cuts, and how it is fitted."""

from __future__ import annotations

import math

import pytest
import torch

from hepgen_ml.config import Config, load_config
from hepgen_ml.errors import ModelError
from hepgen_ml.models.flow.base_distribution import UNREJECTED, BaseDistribution, concentration
from hepgen_ml.models.flow.flow_matching import FlowMatching
from hepgen_ml.models.flow.settings import FlowConfig
from hepgen_ml.models.flow.velocities import VELOCITIES
from hepgen_ml.phase_space import Coordinate
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from tests.models.flow.flows import SMALL, Plane, flow_on, plane_events


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
