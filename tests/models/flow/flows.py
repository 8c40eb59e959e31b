"""Flows on a plane and on top pairs, as tests need them."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from hepgen_ml.config import load_config
from hepgen_ml.models.flow.flow_matching import FlowMatching
from hepgen_ml.phase_space import Coordinate
from hepgen_ml.process.encoded import Encoded

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
