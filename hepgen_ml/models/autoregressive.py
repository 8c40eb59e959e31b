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
from hepgen_ml.models.conditions import (
    N_FEATURES,
    SubprocessEmbedding,
    coordinate_features,
    coordinate_numbers,
)
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
        names, self.numbers = coordinate_numbers(self.layouts)
        self.periodic = [[c.periodic for c in layout] for layout in self.layouts]
        # Coordinates and mixture parameters need more digits than bfloat16 has; only the
        # transformer between them may run in it.
        self.bfloat16_blocks = config.training.precision == "bfloat16"
        self.condition = SubprocessEmbedding(process, net.width)
        self.target = nn.Embedding(len(names), net.width)
        self.value = nn.Parameter(torch.randn(len(names), N_FEATURES, net.width) * 0.2)
        self.transformer = CausalTransformer(net.width, net.blocks, net.heads, net.mlp_ratio)
        self.head = nn.Parameter(torch.randn(len(names), net.width, 3 * net.mixtures) * 0.02)
        bias = torch.zeros(len(names), 3, net.mixtures)
        for i, periodic in enumerate(names.values()):
            k = torch.arange(net.mixtures)
            spread = (k + 0.5) / net.mixtures
            if periodic:
                bias[i, 1] = math.pi * (2 * spread - 1)
                bias[i, 2] = 1.5
            else:
                bias[i, 1] = 4 * spread - 2
                bias[i, 2] = -1.0
        self.head_bias = nn.Parameter(bias.reshape(len(names), -1))

    def _value_weights(self, channel: int) -> Tensor:
        """Embedding matrices (T, F, width) of a channel's coordinates, without raw angles."""
        weights = self.value[self.numbers[channel]]
        keep = torch.ones(weights.shape[:2], device=weights.device, dtype=weights.dtype)
        keep[:, 0] = torch.tensor([0.0 if p else 1.0 for p in self.periodic[channel]])
        return weights * keep.unsqueeze(-1)

    def mixture_parameters(self, z: Tensor, subprocess: Tensor, channel: int) -> Tensor:
        """Mixture parameters (m, T, 3K) of every coordinate of events of one channel."""
        numbers = self.numbers[channel]
        past = torch.einsum(
            "mtf,tfw->mtw",
            coordinate_features(z[:, : len(numbers) - 1]),
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
                token = torch.addmm(token, weights[t - 1].t(), coordinate_features(columns[-1]).t())
            hidden = self.transformer.step(
                token.clone(memory_format=torch.contiguous_format), cache
            )
            parameters = torch.addmm(self.head_bias[number], hidden.t(), self.head[number])
            draw = sample_von_mises if self.periodic[channel][t] else sample_gaussian
            columns.append(draw(parameters, generator))
        return torch.stack(columns, dim=-1)
