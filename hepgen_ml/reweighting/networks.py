"""Classifier networks: logits of events of one final state from observables and momenta."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.networks import event_networks
from hepgen_ml.networks.lgatr import LGATr
from hepgen_ml.networks.lgatr.embedding import (
    append_channels,
    embed_components,
    embed_momenta,
    reference_components,
)
from hepgen_ml.networks.transformer import Transformer
from hepgen_ml.reweighting.features import Inputs

LOGIT_BATCH = 16_384
"""Events whose logits are computed together; bounds the memory."""

_WIDTH = 128
_KNOTS = 129
_FOR_QUANTILES = 40_000  # torch.quantile takes 16 million numbers at most
_MIN_PT = 1e-3  # GeV


class Network(nn.Module, ABC):
    """Logit of truth against generated for events of one final state.

    The initial logit is zero.

    Parameters
    ----------
    n_values : int
        Observables of an event.
    categories : sequence of (d_i,) int tensor
        Values that occur of each label; others count as one more.
    n_particles : int
    """

    def __init__(self, n_values: int, categories: Sequence[Tensor], n_particles: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(n_values))
        self.register_buffer("std", torch.ones(n_values))
        self.knots: Tensor
        self.register_buffer("knots", torch.linspace(-1, 1, _KNOTS).repeat(n_values, 1))
        self.n_labels = len(categories)
        for i, known in enumerate(categories):
            self.register_buffer(f"known{i}", known)
        # last row of each table: values that do not occur in the training
        tables = [nn.Embedding(len(k) + 1, _WIDTH) for k in categories]
        for table in tables:
            nn.init.zeros_(table.weight)
        self.tables = nn.ModuleList(tables)

    def fit(self, inputs: Inputs) -> None:
        """Take means and widths from a sample."""
        self.mean.copy_(inputs.values.mean(0))
        width = inputs.values.std(0)
        self.std.copy_(torch.where(width > 1e-6, width, torch.ones_like(width)))
        some = inputs.values[:_FOR_QUANTILES]
        levels = torch.linspace(0, 1, _KNOTS, device=some.device)
        self.knots.copy_(torch.quantile(some, levels, dim=0).t())

    def label_vector(self, inputs: Inputs) -> Tensor | float:
        """Sum (m, width) of the vectors of all labels, 0 without any."""
        total: Tensor | float = 0.0
        for i, table in enumerate(self.tables):
            known = getattr(self, f"known{i}")
            column = inputs.labels[:, i].contiguous()
            place = torch.searchsorted(known, column).clamp_max(len(known) - 1)
            total = total + table(torch.where(known[place] == column, place, len(known)))
        return total

    def values(self, inputs: Inputs) -> Tensor:
        """Observables (m, 2 k): standardised, and their quantile in the sample from -1 to 1.

        The latter resolves narrow peaks and steep edges, like the bins of boosted trees.
        """
        standard = ((inputs.values - self.mean) / self.std).clamp(-10, 10)
        columns = inputs.values.t().contiguous()
        right = torch.searchsorted(self.knots, columns).clamp(1, _KNOTS - 1)
        low, high = self.knots.gather(1, right - 1), self.knots.gather(1, right)
        inside = ((columns - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        place = (right - 1 + inside) * (2 / (_KNOTS - 1)) - 1
        return torch.cat([standard, 1.7 * place.t()], dim=1)

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (m,)."""

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (n,) float64 of events on the CPU, without gradients."""
        self.eval()
        parts = [
            self(inputs[slice(i, i + LOGIT_BATCH)].to(self.mean.device)).cpu()
            for i in range(0, len(inputs), LOGIT_BATCH)
        ]
        return torch.cat(parts).double() if parts else torch.zeros(0, dtype=torch.float64)


class MLPClassifier(Network):
    """Perceptron on observables: invariants, angles, transverse momenta."""

    def __init__(self, n_values: int, categories: Sequence[Tensor], n_particles: int) -> None:
        super().__init__(n_values, categories, n_particles)
        self.first = nn.Linear(2 * n_values, _WIDTH)
        self.hidden = nn.ModuleList(nn.Linear(_WIDTH, _WIDTH) for _ in range(3))
        self.last = nn.Linear(_WIDTH, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, inputs: Inputs) -> Tensor:
        h = F.gelu(self.first(self.values(inputs)) + self.label_vector(inputs))
        for layer in self.hidden:
            h = h + F.gelu(layer(h))
        return self.last(h).squeeze(-1)


class TransformerClassifier(Network):
    """Attention between particles, with the observables as one more token."""

    def __init__(self, n_values: int, categories: Sequence[Tensor], n_particles: int) -> None:
        super().__init__(n_values, categories, n_particles)
        self.particle = nn.Linear(5, _WIDTH)
        self.place = nn.Parameter(torch.randn(n_particles, _WIDTH) * 0.2)
        self.event = nn.Linear(2 * n_values, _WIDTH)
        self.network = Transformer(_WIDTH, blocks=3, heads=4, mlp_ratio=2)
        self.last = nn.Linear(_WIDTH, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, inputs: Inputs) -> Tensor:
        tokens = self.particle(particle_features(inputs.particles)) + self.place
        event = self.event(self.values(inputs)) + self.label_vector(inputs)
        h = self.network(torch.cat([tokens, event.unsqueeze(1)], dim=1))
        return self.last(h.mean(1)).squeeze(-1)


class LGATrClassifier(Network):
    """Lorentz-equivariant attention between momenta, broken to the symmetry of the beams.

    The logit is an invariant output, averaged over particles (arXiv:2405.14806, section 4).
    """

    _SCALARS = 32

    def __init__(self, n_values: int, categories: Sequence[Tensor], n_particles: int) -> None:
        super().__init__(n_values, categories, n_particles)
        self.unit: Tensor
        self.references: Tensor
        self.register_buffer("unit", torch.ones(()))
        references = reference_components("plane", True)
        self.register_buffer("references", references, persistent=False)
        self.place = nn.Parameter(torch.randn(n_particles, self._SCALARS) * 0.2)
        self.event = nn.Linear(2 * n_values, self._SCALARS)
        self.label = nn.Linear(_WIDTH, self._SCALARS, bias=False)
        self.network = LGATr(
            blocks=3,
            in_channels=1 + len(references),
            channels=8,
            in_scalars=self._SCALARS,
            out_scalars=1,
            scalars=self._SCALARS,
            heads=4,
        )
        self.last = nn.Linear(1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def fit(self, inputs: Inputs) -> None:
        super().fit(inputs)
        self.unit.copy_(inputs.particles[..., 3].mean())

    def forward(self, inputs: Inputs) -> Tensor:
        event = self.event(self.values(inputs))
        if self.n_labels:
            event = event + self.label(self.label_vector(inputs))
        vectors = embed_momenta(
            inputs.particles[..., :4] / self.unit, event.unsqueeze(1) + self.place, "lorentz"
        )
        fixed = embed_components(self.references.unsqueeze(0), "lorentz")
        out = self.network(append_channels(vectors, fixed))
        return self.last(out.scalars[..., -1:].mean(1)).squeeze(-1)


class EventClassifier(Network):
    """Any network of events, with the observables as global features.

    Attributes
    ----------
    name : str
        See `hepgen_ml.networks.event_networks.build`.
    sizes : dict
    """

    name: str
    sizes: Mapping[str, Any]

    def __init__(self, n_values: int, categories: Sequence[Tensor], n_particles: int) -> None:
        super().__init__(n_values, categories, n_particles)
        self.place: Tensor
        self.register_buffer("place", torch.eye(n_particles))
        self.network = event_networks.build(
            self.name,
            n_scalars=n_particles + 1,
            n_out=1,
            n_particles=n_particles,
            n_globals=2 * n_values + (_WIDTH if categories else 0),
            **self.sizes,
        )
        self.last = nn.Linear(1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def fit(self, inputs: Inputs) -> None:
        super().fit(inputs)
        with torch.no_grad():
            self.network.fit_standardization(*self._event(inputs))

    def _event(self, inputs: Inputs) -> tuple[Tensor, Tensor, None, Tensor]:
        mass = torch.log1p(inputs.particles[..., 4:].clamp_min(0.0)) / 3
        scalars = torch.cat([self.place.expand(len(inputs), -1, -1), mass], dim=-1)
        globals_ = [self.values(inputs)]
        if self.n_labels:
            label = self.label_vector(inputs)
            assert isinstance(label, Tensor)
            globals_.append(label)
        return _turned(inputs.particles), scalars, None, torch.cat(globals_, dim=-1)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.last(self.network(*self._event(inputs))).squeeze(-1)


class DeepSetsClassifier(EventClassifier):
    """Deep sets of particles and observables."""

    name, sizes = "deep-sets", MappingProxyType({})


class GATrClassifier(EventClassifier):
    """Attention between momenta that is equivariant under rotations, broken by the beams."""

    name = "gatr"
    sizes = MappingProxyType(
        {"channels": 8, "scalars": 32, "blocks": 2, "heads": 4, "references": "plane"}
    )


class GAPClassifier(EventClassifier):
    """Geometric algebra without attention, broken to the symmetry of the beams."""

    name = "gap"
    sizes = MappingProxyType({"channels": 8, "scalars": 32, "references": "plane+time"})


def _turned(particles: Tensor) -> Tensor:
    """Momenta (m, n, 4) rotated about the beams to azimuth zero of the first particle."""
    px, py = particles[..., 0], particles[..., 1]
    pt = torch.hypot(px[:, :1], py[:, :1]).clamp_min(_MIN_PT)
    cos, sin = px[:, :1] / pt, py[:, :1] / pt
    return torch.stack(
        [cos * px + sin * py, cos * py - sin * px, particles[..., 2], particles[..., 3]], dim=-1
    )


def particle_features(particles: Tensor) -> Tensor:
    """Features (m, n, 5): log pT, rapidity, direction relative to the first particle, mass.

    The azimuth of the whole event has been left out.
    """
    px, py, pz, _, mass = particles.unbind(-1)
    pt = torch.hypot(px, py).clamp_min(_MIN_PT)
    mass = mass.clamp_min(0.0)
    y = torch.asinh(pz / torch.hypot(pt, mass))
    phi = torch.atan2(py, px)
    phi = phi - phi[:, :1]
    return torch.stack(
        [torch.log(pt / 50), y / 2, torch.sin(phi), torch.cos(phi), torch.log1p(mass) / 3], -1
    )


_BY_NAME: dict[str, Callable[[int, Sequence[Tensor], int], Network]] = {
    "mlp": MLPClassifier,
    "transformer": TransformerClassifier,
    "lgatr": LGATrClassifier,
    "deep-sets": DeepSetsClassifier,
    "gatr": GATrClassifier,
    "gap": GAPClassifier,
}


def build(name: str, n_values: int, categories: Sequence[Tensor], n_particles: int) -> Network:
    """Network by name, its output zero."""
    return _BY_NAME[name](n_values, categories, n_particles)


def restored(name: str, tensors: Mapping[str, Tensor]) -> Network:
    """Network from its tensors; its size follows from their shapes."""
    categories: list[Tensor] = []
    while f"known{len(categories)}" in tensors:
        categories.append(tensors[f"known{len(categories)}"])
    n_particles = len(tensors["place"]) if "place" in tensors else 0
    network = build(name, len(tensors["mean"]), categories, n_particles)
    network.load_state_dict(tensors)
    return network.eval()
