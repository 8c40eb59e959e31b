"""JetGPT: autoregressive density with mixture likelihoods (arXiv:2305.10475, 2412.12074).

p(x) = prod_i p(x_i | x_1 ... x_(i-1)), equation 17 of 2305.10475: a causal
transformer reads one coordinate per token and predicts the parameters of a
one-dimensional mixture for the next. The subprocess is a condition of every token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import Config
from hepgen_ml.models.base import DensityModel
from hepgen_ml.models.mixtures import (
    gaussian_log_prob,
    sample_gaussian,
    sample_von_mises,
    von_mises_log_prob,
)
from hepgen_ml.networks.transformer import CausalTransformer
from hepgen_ml.process import Process

_BATCH = {True: 2048, False: 65536}
"""Events sampled together, on a CPU (where keys and values should stay in the cache) or not."""

_HARMONICS = 4
_FEATURES = 1 + 2 * _HARMONICS


class SubprocessEmbedding(nn.Module):
    """Condition vector from the flavours of all particles.

    Flavours are embedded by position and summed, so that a rare subprocess
    profits from frequent ones with the same partons.

    Parameters
    ----------
    process : Process
    width : int
    """

    def __init__(self, process: Process, width: int) -> None:
        super().__init__()
        known: dict[tuple[int, int, str], int] = {}
        rows = []
        for sub in process.subprocesses:
            keys = [
                (i, sub.structure.pdg_id[r], "in") for i, r in enumerate(sub.structure.incoming)
            ]
            keys += [(i, sub.structure.pdg_id[r], "out") for i, r in enumerate(sub.order)]
            keys += [(sub.chart, 0, "channel"), (sub.structure.process_id, 0, "process")]
            rows.append([known.setdefault(key, len(known)) for key in keys])
        counts = torch.zeros(len(rows), len(known))
        for i, row in enumerate(rows):
            counts[i, row] = 1.0
        self.counts: Tensor
        self.register_buffer("counts", counts, persistent=False)
        self.flavours = nn.Linear(len(known), width)
        self.mix = nn.Linear(width, width)

    def forward(self) -> Tensor:
        """Vectors (S, width) of all subprocesses."""
        h = self.flavours(self.counts)
        return h + self.mix(F.gelu(h))


class JetGPT(DensityModel):
    """Autoregressive transformer over one-dimensional coordinates.

    Coordinates of the same name in different channels (the rapidity of the
    top quark, say) share their parameters, so that channels of different
    multiplicity are learned jointly.

    Parameters
    ----------
    process : Process
    config : Config
    """

    name = "jetgpt"

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process)
        net = config.network
        names: dict[str, bool] = {}
        for layout in self.layouts:
            names.update({c.name: c.periodic for c in layout})
        number = {name: i for i, name in enumerate(names)}
        self.numbers = [[number[c.name] for c in layout] for layout in self.layouts]
        self.periodic = [[c.periodic for c in layout] for layout in self.layouts]
        # Coordinates and mixture parameters need more digits than bfloat16 has; only the
        # transformer between them may run in it.
        self.bfloat16_blocks = config.training.precision == "bfloat16"
        self.condition = SubprocessEmbedding(process, net.width)
        self.target = nn.Embedding(len(names), net.width)
        self.value = nn.Parameter(torch.randn(len(names), _FEATURES, net.width) * 0.2)
        self.transformer = CausalTransformer(net.width, net.blocks, net.heads, net.mlp_ratio)
        self.head = nn.Parameter(torch.randn(len(names), net.width, 3 * net.mixtures) * 0.02)
        bias = torch.zeros(len(names), 3, net.mixtures)
        for name, periodic in names.items():
            k = torch.arange(net.mixtures)
            spread = (k + 0.5) / net.mixtures
            if periodic:
                bias[number[name], 1] = math.pi * (2 * spread - 1)
                bias[number[name], 2] = 1.5
            else:
                bias[number[name], 1] = 4 * spread - 2
                bias[number[name], 2] = -1.0
        self.head_bias = nn.Parameter(bias.reshape(len(names), -1))

    @staticmethod
    def features(z: Tensor) -> Tensor:
        """Inputs (..., F) of a coordinate (...): itself and its first harmonics.

        Angles enter the network continuously through the harmonics; their raw
        value is dropped by `embed`.
        """
        n = torch.arange(1, _HARMONICS + 1, device=z.device, dtype=z.dtype)
        angle = z.unsqueeze(-1) * n
        return torch.cat([z.unsqueeze(-1), torch.sin(angle), torch.cos(angle)], dim=-1)

    def _value_weights(self, channel: int) -> Tensor:
        """Embedding matrices (T, F, width) of a channel's coordinates."""
        weights = self.value[self.numbers[channel]]
        keep = torch.ones(weights.shape[:2], device=weights.device, dtype=weights.dtype)
        keep[:, 0] = torch.tensor([0.0 if p else 1.0 for p in self.periodic[channel]])
        return weights * keep.unsqueeze(-1)

    def mixture_parameters(self, z: Tensor, subprocess: Tensor, channel: int) -> Tensor:
        """Mixture parameters (m, T, 3K) of every coordinate of events of one channel."""
        numbers = self.numbers[channel]
        past = torch.einsum(
            "mtf,tfw->mtw",
            self.features(z[:, : len(numbers) - 1]),
            self._value_weights(channel)[:-1],
        )
        tokens = F.pad(past, (0, 0, 1, 0)) + self.target.weight[numbers]
        tokens = tokens + self.condition()[subprocess].unsqueeze(1)
        half = self.bfloat16_blocks and self.training
        with torch.autocast(z.device.type, torch.bfloat16, enabled=half):
            hidden = self.transformer(tokens)
        out = torch.einsum("mtw,twk->mtk", hidden.float(), self.head[numbers])
        return out + self.head_bias[numbers]

    def _log_prob(self, z: Tensor, subprocess: Tensor, channel: int) -> Tensor:
        z = z[:, : len(self.numbers[channel])]
        parameters = self.mixture_parameters(z, subprocess, channel)
        periodic = torch.tensor(self.periodic[channel])
        total = gaussian_log_prob(z[:, ~periodic], parameters[:, ~periodic]).sum(-1)
        if periodic.any():
            angles = von_mises_log_prob(z[:, periodic], parameters[:, periodic])
            total = total + angles.sum(-1)
        return total

    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        result = z.new_zeros(len(z))
        for channel, rows in self.by_channel(subprocess):
            result = result.index_put((rows,), self._log_prob(z[rows], subprocess[rows], channel))
        return result

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        return -(weight * self.log_prob_z(z, subprocess)).mean()

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z = torch.zeros(
            len(subprocess), self.mean.shape[1], device=self.head.device, dtype=self.head.dtype
        )
        conditions = self.condition()
        for channel, rows in self.by_channel(subprocess):
            for part in rows.split(_BATCH[z.device.type == "cpu"]):
                z[part, : len(self.numbers[channel])] = self._sample_channel(
                    conditions[subprocess[part]], channel, generator
                )
        return z

    def _sample_channel(
        self, condition: Tensor, channel: int, generator: torch.Generator | None
    ) -> Tensor:
        numbers, weights = self.numbers[channel], self._value_weights(channel)
        cache = self.transformer.start(len(condition), len(numbers))
        columns: list[Tensor] = []
        for t, number in enumerate(numbers):
            token = (condition + self.target.weight[number]).t()
            if columns:
                token = torch.addmm(token, weights[t - 1].t(), self.features(columns[-1]).t())
            hidden = self.transformer.step(
                token.clone(memory_format=torch.contiguous_format), cache
            )
            parameters = torch.addmm(self.head_bias[number], hidden.t(), self.head[number])
            draw = sample_von_mises if self.periodic[channel][t] else sample_gaussian
            columns.append(draw(parameters, generator))
        return torch.stack(columns, dim=-1)
