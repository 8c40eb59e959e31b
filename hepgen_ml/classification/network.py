"""Network from jets to the logarithms of their class probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hepgen_ml.classification.inputs import KINEMATIC, JetTensors, kinematic, turned
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.files import probe
from hepgen_ml.networks.event_networks import build

_LAST = ("network.last.", "network.network.last.")
"""Prefixes of the names of the weights of the last layer, which gives the classes."""

_TOKENS_TRAINING, _TOKENS = 20_000, 40_000
"""Largest number of constituents, padding included, in one call of the network."""

_EXAMPLES = 5

_FOR_STANDARDIZATION = 10_000  # jets
_SMALLEST = 1e-6  # GeV


class JetNetwork(nn.Module):
    """Network of events by name, with a jet's constituents as particles.

    Parameters
    ----------
    name : str
        See `hepgen_ml.networks.event_networks.build`.
    n_features : int
        Numbers of each constituent in the file.
    n_classes : int
    with_kinematics : bool
        Constituents also have the numbers of `hepgen_ml.classification.inputs.KINEMATIC`.
    most : int
        Constituents of a jet, at most.
    **sizes
        Of the network.

    Attributes
    ----------
    reduced : bool
        Whether a GPU computes matrix products in half precision.
    """

    def __init__(
        self, name: str, n_features: int, n_classes: int, with_kinematics: bool, most: int,
        **sizes: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.with_kinematics, self.reduced = with_kinematics, False
        n_scalars = n_features + (len(KINEMATIC) if with_kinematics else 0)
        self.network = build(name, n_scalars, n_classes, n_particles=most, **sizes)

    def inputs(self, data: JetTensors, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Momenta (m, k, 4), numbers (m, k, s) and mask (m, k) of some jets."""
        momenta, features, mask = data.padded(rows)
        momenta = turned(momenta)
        if self.with_kinematics:
            features = torch.cat([kinematic(momenta), features], dim=-1)
        return momenta, features, mask

    def fit(self, data: JetTensors) -> None:
        """Take means and widths of inputs from jets, which are in random order.

        Momenta are in units of the mean energy of constituents, whatever the references, so that
        networks with and without can be compared. The masses of pairs of constituents, which are
        the unit of invariant networks for other events, are fifteen times smaller.
        """
        rows = torch.arange(min(len(data), _FOR_STANDARDIZATION), device=data.offsets.device)
        momenta, features, mask = self.inputs(data, rows)
        self.network.fit_standardization(momenta, features, mask)
        self.network.unit.copy_(momenta[..., 3][mask].double().mean().clamp_min(_SMALLEST))

    def forward(self, data: JetTensors, rows: Tensor) -> Tensor:
        """Logits (m, C) of some jets."""
        parts, places = [], []
        most = _TOKENS_TRAINING if self.training else _TOKENS
        kind = rows.device.type
        for place in data.groups(rows, most):
            inputs = self.inputs(data, rows[place])
            reduced = self.reduced and kind != "cpu"
            with torch.autocast(kind, torch.bfloat16, enabled=reduced):
                parts.append(self.network(*inputs).float())
            places.append(place)
        return torch.cat(parts)[torch.argsort(torch.cat(places))]


@torch.no_grad()
def example(module: JetNetwork, n_features: int, most: int) -> FloatArray:
    """Logits (n, C) of fixed jets, to test a stored network."""
    device, k = next(module.parameters()).device, min(_EXAMPLES, most)
    momenta = torch.from_numpy(probe.momenta(_EXAMPLES, k)).float()
    momenta = momenta.flatten(0, 1)
    features = torch.linspace(-1, 1, len(momenta) * n_features)
    features = features.reshape(len(momenta), n_features)
    n = torch.arange(_EXAMPLES)
    data = JetTensors(
        *(t.to(device) for t in (torch.arange(_EXAMPLES + 1) * k, momenta, features, n, n + 1.0))
    )
    training, reduced = module.training, module.reduced
    module.reduced = False
    found = module.eval()(data, n.to(device))
    module.train(training)
    module.reduced = reduced
    return found.double().cpu().numpy()


def is_last(name: str) -> bool:
    """Whether a parameter belongs to the layer that gives the classes."""
    return name.startswith(_LAST)
