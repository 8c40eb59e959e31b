"""Densities of directions about other objects."""

from __future__ import annotations

import math

import pytest
import torch

from hepgen_ml.models.jetgpt import rings
from hepgen_ml.models.jetgpt.pointers import Rings


def about(n: int = 1) -> Rings:
    """Rings about two objects, one at a jet's distance across phi = pi, one collinear."""
    one = torch.tensor([[-0.3, 0.4], [-1.0, -2.0], [-0.5, 0.2], [0.5, -2.0], [0.7, -1.0]])
    parameters = one.expand(n, -1, -1)
    return Rings(
        parameters,
        torch.tensor([[0.5, -2.0]]).expand(n, -1),
        torch.tensor([[3.0, -1.0]]).expand(n, -1),
        torch.tensor([0.39, 0.0]),
    )


def test_rings_are_normalised() -> None:
    r"""The integral over R and alpha is one, and there is nothing inside the edge."""
    ring = about()
    u = torch.linspace(-12.0, 2.0, 4001)
    alpha = torch.linspace(-math.pi, math.pi, 201)[:-1]
    for k in range(2):
        edge = ring.edge[k]
        r = edge + torch.exp(u)
        deta = (r[:, None] * torch.cos(alpha)).flatten().unsqueeze(-1)
        dphi = (r[:, None] * torch.sin(alpha)).flatten().unsqueeze(-1)
        parameters = ring.parameters[:, :, k : k + 1].expand(len(deta), -1, -1)
        density = rings.log_prob(parameters, deta, dphi, edge.unsqueeze(0)).exp()
        measure = (
            (r * torch.exp(u))[:, None].expand(-1, 200).flatten()
            * (u[1] - u[0])
            * 2
            * math.pi
            / 200
        )
        assert float((density[:, 0] * measure).sum()) == pytest.approx(1.0, abs=2e-3)
    inside = rings.log_prob(ring.parameters[:, :, :1], *torch.full((2, 1, 1), 0.2), ring.edge[:1])
    assert float(inside) < -1000


def test_draws_follow_the_density() -> None:
    """The mean of p/q over draws from q is one, q being the rings with a plain density."""
    n = 40_000
    ring = about(n)
    generator = torch.Generator().manual_seed(0)
    rows, eta, phi = ring.draw(generator)
    share = 1 - rings.weights(ring.parameters[:1]).exp()[0, 0]
    assert len(rows) / n == pytest.approx(float(share), abs=0.01)
    assert phi.abs().max() <= math.pi
    some = Rings(ring.parameters[rows], ring.eta[rows], ring.phi[rows], ring.edge)
    log_q = some.join(torch.full_like(eta, -torch.inf), eta, phi)
    # A box that both rings reach into.
    box = ((eta - 0.5).abs() < 1) & (torch.cos(phi - 3.0) > math.cos(1.0))
    estimate = (box / log_q.exp()).mean() * share
    grid = torch.rand(200_000, 2, generator=generator) * 2 - 1
    dense = (
        about(len(grid)).join(
            torch.full((len(grid),), -torch.inf), grid[:, 0] + 0.5, grid[:, 1] + 3.0
        )
        > -20
    )
    assert float(estimate) == pytest.approx(4 * float(dense.double().mean()), rel=0.1)
