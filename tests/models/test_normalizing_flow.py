"""Spline flow: exact inverses and Jacobians, quantiles, angles, weights."""

from __future__ import annotations

import math

import pytest
import torch

from hepgen_ml.config import load_config
from hepgen_ml.models.normalizing_flow import SplineFlow, _apart, _for_all, _halves, _quantiles
from hepgen_ml.networks import splines
from hepgen_ml.phase_space.coordinates import wrap
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from tests.samples import learned, toy_top_pairs

SMALL = ["model=spline-flow", "spline_flow.couplings=4", "spline_flow.width=16",
         "spline_flow.bins=6"]  # fmt: skip


@pytest.fixture(scope="module")
def process() -> Process:
    return learned(toy_top_pairs(3000))


@pytest.fixture(scope="module")
def encoded(process: Process) -> Encoded:
    return process.encode(toy_top_pairs(3000))


@pytest.fixture
def flow(process: Process, encoded: Encoded) -> SplineFlow:
    """In double precision, with couplings that are no identities."""
    torch.manual_seed(0)
    flow = SplineFlow(process, load_config(None, SMALL))
    flow.fit_standardization(encoded)
    for coupling in flow.couplings:
        torch.nn.init.normal_(coupling.weight, std=0.2)
        torch.nn.init.normal_(coupling.bias, std=0.2)
    return flow.double()


def test_untrained_it_has_the_marginals(process: Process, encoded: Encoded) -> None:
    flow = SplineFlow(process, load_config(None, SMALL))
    flow.fit_standardization(encoded)
    z = flow.prepare(encoded.x, encoded.subprocess)
    drawn = flow.sample_z(encoded.subprocess, torch.Generator().manual_seed(1))
    for c, rows in flow.by_channel(encoded.subprocess):
        part = torch.linspace(0.05, 0.95, 10)
        for i in range(len(flow.layouts[c])):
            a, b = (torch.quantile(t[rows, i], part) for t in (z, drawn))
            torch.testing.assert_close(a, b, atol=0.35, rtol=0)


def test_couplings_invert_and_have_their_jacobian(flow: SplineFlow, encoded: Encoded) -> None:
    z = flow.prepare(encoded.x, encoded.subprocess).double()
    shown = flow.subprocess.of(encoded.subprocess)
    for channel, rows in flow.by_channel(encoded.subprocess):
        rows, d = rows[:40], len(flow.layouts[channel])
        u, log_jacobian = flow._to_base(z[rows, :d], shown[rows], channel)
        back = u
        for coupling in reversed(flow.couplings):
            back, _ = coupling(back, shown[rows], channel, inverse=True)
        back = back.clone()
        for circle in (False, True):
            columns, knots = flow._marginals(channel, circle)
            back[:, columns] = splines.inverse(back[:, columns], _for_all(knots, len(back)))
        periodic = torch.tensor([c.periodic for c in flow.layouts[channel]])
        away = torch.where(periodic, wrap(back - z[rows, :d]), back - z[rows, :d])
        assert away.abs().max() < 1e-7
        for k in range(3):
            one = shown[rows[k]][None]

            def mapped(x: torch.Tensor, one: torch.Tensor = one, c: int = channel) -> torch.Tensor:
                return flow._to_base(x[None], one, c)[0][0]

            matrix = torch.autograd.functional.jacobian(mapped, z[rows[k], :d])
            assert torch.linalg.slogdet(matrix)[1] == pytest.approx(
                float(log_jacobian[k].detach()), abs=1e-7
            )


def test_densities_do_not_see_whole_turns(flow: SplineFlow, encoded: Encoded) -> None:
    z = flow.prepare(encoded.x, encoded.subprocess).double()[:200]
    subprocess = encoded.subprocess[:200]
    turned = z.clone()
    for c, rows in flow.by_channel(subprocess):
        for i, coordinate in enumerate(flow.layouts[c]):
            turned[rows, i] += 2 * math.pi * coordinate.periodic
    before, after = (flow.log_prob_z(x, subprocess) for x in (z, turned))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


def test_pairs_of_couplings_map_all() -> None:
    for n in (1, 2, 5, 14):
        for number in (0, 2, 8):
            first, second = (_halves(n, number + k) for k in (0, 1))
            assert sorted({*first[0], *second[0]}) == list(range(n))
            assert not set(first[0]) & set(first[1])


def test_quantiles_and_atoms() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 2.0]).double()
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0]).double()
    assert _quantiles(values, weight, torch.tensor([0.0, 0.3, 0.6, 1.0]).double()).tolist() == [
        1.0, 2.0, 2.0, 3.0,
    ]  # fmt: skip
    assert (_apart(torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0])).diff() > 0).all()
