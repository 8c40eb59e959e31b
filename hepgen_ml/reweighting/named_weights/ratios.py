r"""Ratios of named weights to the nominal weight, as functions of events.

Many weights of a sample (scales, members of a PDF set) are strongly correlated. The model learns
the P principal components of their logarithms; with coefficients :math:`u_p(x)` and the loadings of
the K weights,

.. math:: \log \frac{w_k(x)}{w_0(x)} = a_k + \sum_p u_p(x) L_{pk},

so that hundreds of weights need one network and one matrix product. Of weights whose ratio
changes sign (interference in an effective theory) the area hyperbolic sine of the ratio over its
typical size takes the place of the logarithm: such ratios often grow with a power of the energy.
Weights that vary in different sets of subprocesses have separate components.

A network gives :math:`u_p` as the sum of a function of flavour, x and scale of each incoming
parton (the same for both beams), one of scale and coupling, and one of the whole event, because
ratios of weights factorise like that at leading order. A second output is the logarithm of the
variance of :math:`u_p`, so that ratios come with an error. Subprocesses that differ by flavours of
quarks alone, or by the exchange of equal beams, share most of the function. Ratios of each
subprocess are then scaled so that every weight adds up to what it does in the sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hepgen_ml.events.sample import FloatArray
from hepgen_ml.process.process import Process
from hepgen_ml.reweighting.named_weights.features import (
    N_COUPLING,
    N_PARTON,
    Inputs,
    exchanged_inputs,
    kinds,
    n_event_inputs,
    representatives,
)

_PARTON_WIDTH, _COUPLING_WIDTH = 64, 32

_EXAMPLES = 8

_BATCH = 20_000
"""Number of events evaluated together, to bound the memory of the K ratios."""


@dataclass(frozen=True)
class NamedWeight:
    """A named weight and its properties.

    Attributes
    ----------
    name, text : str
        Name and description.
    logarithmic : bool
        Whether the logarithm of the size of the ratio is learned, because its sign is definite.
    constant : float or None
        The ratio, if it is the same for all events.
    facts : dict of str to float
        ``cross_section``, over the nominal one, ``median_error`` and ``largest_error`` (the 99th
        percentile) of the ratio of held-out events, over its size; where its sign changes, over
        its mean size. Events for whose subprocess it is exact do not count.
    """

    name: str
    text: str
    logarithmic: bool = True
    constant: float | None = None
    facts: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name, "text": self.text, "logarithmic": self.logarithmic,
            "constant": self.constant, "facts": self.facts,
        }  # fmt: skip


class RatioNetwork(nn.Module):
    """Coefficients of the principal components and the logarithms of their variances.

    Parameters
    ----------
    process : Process
    n_components : int
    width : int
        Width of the layers that act on the whole event.
    same_beams : bool
        Whether both beams are of the same particles, whose densities are the same functions.
    shared : bool
        Whether mirror images and subprocesses of a kind share what they have in common; not so in
        models of earlier versions.
    """

    def __init__(
        self, process: Process, n_components: int, width: int, same_beams: bool, shared: bool
    ) -> None:
        super().__init__()
        n_sub, n_inputs = len(process.subprocesses), n_event_inputs(process)
        flavours: dict[tuple[int, int], int] = {}
        table = torch.zeros(n_sub, 2, dtype=torch.int64)
        for s, sub in enumerate(process.subprocesses):
            for side, row in enumerate(sub.structure.incoming):
                key = sub.structure.pdg_id[row], 0 if same_beams else side
                table[s, side] = flavours.setdefault(key, len(flavours))
        alone = list(range(n_sub))
        image = representatives(process) if shared and same_beams else alone
        order, sign = exchanged_inputs(process)
        kind = kinds(process) if shared else [0] * n_sub
        for name, values in {
            "turned": [i != s for s, i in enumerate(image)], "order": order, "sign": sign,
            "channel": [process.subprocesses[i].chart for i in image],
            "kind": [kind[i] for i in image],
        }.items():  # fmt: skip
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.register_buffer("flavour", table[torch.tensor(image)], persistent=False)
        self.turned: Tensor
        self.order: Tensor
        self.sign: Tensor
        self.kind: Tensor
        shapes = {
            "parton": (N_PARTON,), "coupling": (N_COUPLING,),
            "event": (len(process.channels), n_inputs),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(f"{name}_mean", torch.zeros(shape))
            self.register_buffer(f"{name}_std", torch.ones(shape))
        self.flavour: Tensor
        self.channel: Tensor
        p = n_components
        self.parton = nn.ModuleList([
            nn.Linear(N_PARTON, _PARTON_WIDTH), nn.Embedding(max(len(flavours), 1), _PARTON_WIDTH),
            nn.Linear(_PARTON_WIDTH, _PARTON_WIDTH), nn.Linear(_PARTON_WIDTH, _PARTON_WIDTH),
            nn.Linear(_PARTON_WIDTH, p),
        ])  # fmt: skip
        self.coupling = nn.ModuleList([
            nn.Linear(N_COUPLING, _COUPLING_WIDTH), nn.Embedding(n_sub, _COUPLING_WIDTH),
            nn.Linear(_COUPLING_WIDTH, _COUPLING_WIDTH), nn.Linear(_COUPLING_WIDTH, p),
        ])  # fmt: skip
        self.event = nn.ModuleList([
            nn.Linear(n_inputs, width), nn.Embedding(n_sub, width), nn.Linear(width, width),
            nn.Linear(width, width), nn.Linear(width, p), nn.Linear(width, p),
        ])  # fmt: skip
        n_kinds = max(kind) + 1 if shared else 0
        self.of_kind = nn.ModuleList([
            nn.Embedding(n_kinds, _COUPLING_WIDTH), nn.Embedding(n_kinds, width)
        ] if n_kinds else [])  # fmt: skip
        with torch.no_grad():
            for part in (self.parton, self.coupling, self.event):
                next(part[1].parameters()).mul_(0.1)
            for common in self.of_kind:  # all of a kind begin with the same function
                next(common.parameters()).mul_(0.1)
            for part in (self.coupling, self.event) if n_kinds else ():
                next(part[1].parameters()).zero_()
            for last in self.event[-2:]:  # factorising terms are learned first
                for tensor in last.parameters():
                    tensor.zero_()

    def _oriented(self, inputs: Inputs) -> Inputs:
        """Events with the beams exchanged where their mirror image is another subprocess."""
        turned = self.turned[inputs.subprocess]
        if not bool(turned.any()):
            return inputs
        event = torch.where(turned[:, None], inputs.event[:, self.order] * self.sign, inputs.event)
        parton = torch.where(turned[:, None, None], inputs.parton.flip(1), inputs.parton)
        return Inputs(parton, inputs.coupling, event, inputs.subprocess)

    @torch.no_grad()
    def fit_standardization(self, inputs: Inputs) -> None:
        """Take means and standard deviations of the inputs, those of events by channel."""
        inputs = self._oriented(inputs)
        partons = inputs.parton.flatten(0, 1)
        for name, values in (("parton", partons), ("coupling", inputs.coupling)):
            _standardise(getattr(self, f"{name}_mean"), getattr(self, f"{name}_std"), values)
        channel = self.channel[inputs.subprocess]
        mean, std = self.get_buffer("event_mean"), self.get_buffer("event_std")
        for c in range(len(mean)):
            mine = inputs.event[channel == c]
            _standardise(mean[c], std[c], mine if len(mine) > 30 else inputs.event)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Coefficients (m, P) and logarithms of their variances (m, P)."""
        inputs = self._oriented(inputs)
        sub, act = inputs.subprocess, nn.functional.silu
        common = [table(self.kind[sub]) for table in self.of_kind] or [0.0, 0.0]
        x = self._standardised("parton", inputs.parton)
        first, flavour, second, third, last = self.parton
        h = act(first(x) + flavour(self.flavour[sub]))
        h = act(third(act(second(h)))) + h
        result = last(h).sum(1)
        first, of_sub, second, last = self.coupling
        h = act(first(self._standardised("coupling", inputs.coupling)) + of_sub(sub) + common[0])
        result = result + last(act(second(h)))
        mean, std = self.get_buffer("event_mean"), self.get_buffer("event_std")
        channel = self.channel[sub]
        x = ((inputs.event - mean[channel]) / std[channel]).clamp(-8, 8)
        first, of_sub, second, third, last, spread = self.event
        h = act(first(x) + of_sub(sub) + common[1])
        h = h + act(second(h))
        h = h + act(third(h))
        return result + last(h), spread(h.detach()).clamp(-20, 8)

    def _standardised(self, name: str, x: Tensor) -> Tensor:
        mean, std = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_std")
        return ((x - mean) / std).clamp(-8, 8)


def _standardise(mean: Tensor, std: Tensor, values: Tensor) -> None:
    mean.copy_(values.mean(0))
    spread = values.std(0) if len(values) > 1 else torch.zeros_like(mean)
    std.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))


class WeightRatios(nn.Module):
    """Ratios of K named weights to the nominal one, with errors.

    Parameters
    ----------
    process : Process
    weights : sequence of NamedWeight
    groups : str
        Inside of ``<initrwgt>`` that declares them.
    n_components, width : int
        See `RatioNetwork`; no network without components, where all ratios are constants.
    same_beams, shared : bool
    """

    def __init__(
        self,
        process: Process,
        weights: list[NamedWeight],
        groups: str,
        n_components: int,
        width: int,
        same_beams: bool,
        shared: bool = True,
    ) -> None:
        super().__init__()
        self.process, self.weights, self.groups = process, weights, groups
        self.width, self.same_beams, self.n_components = width, same_beams, n_components
        self.shared = shared
        self.varying = [k for k, w in enumerate(weights) if w.constant is None]
        n, p, n_sub = len(self.varying), n_components, len(process.subprocesses)
        self.network = RatioNetwork(process, p, width, same_beams, shared) if p else None
        for name, tensor in {
            "unit": torch.ones(n, dtype=torch.float64),
            "centre": torch.zeros(n, dtype=torch.float64),
            "loadings": torch.zeros(p, n, dtype=torch.float64),
            "rest": torch.zeros(n, dtype=torch.float64),
            "error_scale": torch.ones(n, dtype=torch.float64),
            "least": torch.zeros(n, dtype=torch.float64),
            "most": torch.zeros(n, dtype=torch.float64),
            "calibration": torch.zeros(n_sub, n, dtype=torch.float64),
            "is_pinned": torch.zeros(n_sub, n, dtype=torch.bool),
            "pinned": torch.zeros(n_sub, n, dtype=torch.float64),
        }.items():
            self.register_buffer(name, tensor)
        self.unit: Tensor  # sign, where the logarithm is learned, or typical size
        self.centre: Tensor
        self.loadings: Tensor
        self.rest: Tensor
        self.error_scale: Tensor
        self.least: Tensor
        self.most: Tensor
        self.calibration: Tensor
        self.is_pinned: Tensor  # ratios that are the same in all of a subprocess
        self.pinned: Tensor
        logarithmic = torch.tensor([weights[k].logarithmic for k in self.varying], dtype=torch.bool)
        self.register_buffer("logarithmic", logarithmic, persistent=False)
        self.logarithmic: Tensor

    @property
    def names(self) -> list[str]:
        """Names of the weights."""
        return [w.name for w in self.weights]

    @torch.inference_mode()
    def forward(self, inputs: Inputs, *, errors: bool = False) -> tuple[Tensor, Tensor]:
        """Ratios (m, K) float64 and their errors (m, K), on the CPU; zeros unless asked for."""
        parts = [self._some(inputs[rows], errors) for rows in _batches(len(inputs))]
        ratio, error = (torch.cat(some) for some in zip(*parts, strict=True))
        return ratio, error

    def _some(self, inputs: Inputs, errors: bool) -> tuple[Tensor, Tensor]:
        m, k = len(inputs), len(self.weights)
        ratio = torch.ones(m, k, dtype=torch.float64)
        error = torch.zeros(m, k if errors else 0, dtype=torch.float64)
        for i, weight in enumerate(self.weights):
            if weight.constant is not None:
                ratio[:, i] = weight.constant
        if not self.varying:
            return ratio, error
        inputs = inputs.to(self.centre.device)
        value, variance = self.transformed(inputs, errors=errors)
        found = self.calibrated(self.ratios(value), inputs.subprocess)
        pinned = self.is_pinned[inputs.subprocess]
        found = torch.where(pinned, self.pinned[inputs.subprocess], found)
        ratio[:, self.varying] = found.cpu()
        if errors:
            curved = torch.where(self.unit > 0, torch.sqrt(found**2 + self.unit**2), 1.0)
            size = torch.where(self.logarithmic, found.abs(), curved)
            off = torch.sqrt(variance) * size * self.error_scale
            error[:, self.varying] = off.masked_fill(pinned, 0.0).cpu()
        return ratio, error

    def example(self) -> FloatArray:
        """Ratios (n, K') that vary, for fixed inputs, one for each subprocess."""
        n = min(len(self.process.subprocesses), _EXAMPLES)
        sizes = (2 * N_PARTON, N_COUPLING, n_event_inputs(self.process))
        some = torch.sin(torch.arange(n * sum(sizes)).float()).reshape(n, -1)
        parton, coupling, event = some.split(sizes, dim=1)
        inputs = Inputs(parton.reshape(n, 2, N_PARTON), coupling, event, torch.arange(n))
        return self(inputs)[0][:, self.varying].numpy()

    def ratios(self, value: Tensor) -> Tensor:
        """Ratios of what is learned of them, and was transformed."""
        size = torch.where(self.unit > 0, self.unit * torch.sinh(value), value)
        return torch.where(self.logarithmic, self.unit * torch.exp(value), size)

    def calibrated(self, ratio: Tensor, subprocess: Tensor) -> Tensor:
        """Ratios scaled or, if their sign changes, shifted to their sums in the sample."""
        shift = self.calibration[subprocess]
        return torch.where(self.logarithmic, ratio * torch.exp(shift), ratio + shift)

    def transformed(self, inputs: Inputs, *, errors: bool = False) -> tuple[Tensor, Tensor]:
        """What is learned of the ratios that vary, see `ratios`, before they are calibrated.

        Returns
        -------
        value, variance : (m, K') float64 tensors
        """
        m = len(inputs)
        value = self.centre.expand(m, -1)
        variance = (self.rest**2).expand(m, -1)
        if self.network is not None:
            u, log_variance = self.network(inputs)
            value = value + u.double() @ self.loadings
            if errors:
                variance = variance + log_variance.double().exp() @ self.loadings**2
        # not beyond the range of the sample
        return torch.minimum(torch.maximum(value, self.least), self.most), variance


def _batches(n: int) -> tuple[Tensor, ...]:
    return torch.arange(n).split(_BATCH) if n else (torch.arange(0),)
