"""A density model in one file: a mixture of products of one-dimensional densities."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import Config, Section
from hepgen_ml.models.base import DensityModel, weighted_mean
from hepgen_ml.models.mixtures import (
    gaussian_log_prob,
    sample_gaussian,
    sample_von_mises,
    von_mises_log_prob,
)
from hepgen_ml.models.registry import register
from hepgen_ml.process.process import Process


class MixtureConfig(Section):
    """Settings, ``--set mixture.components=64``."""

    components: int = Field(32, ge=1, le=10_000, description="Products for each channel.")


@register("mixture", settings=MixtureConfig)
class Mixture(DensityModel):
    """Each channel's events as a sum of products of Gaussians, for angles von Mises densities."""

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process)
        components = config.section(MixtureConfig).components
        shape = (len(self.layouts), components, process.n_coordinates)
        self.logit = nn.Parameter(torch.zeros(shape[:2]))
        self.place = nn.Parameter(torch.randn(shape))
        self.log_width = nn.Parameter(torch.zeros(shape))

    def factor(self, channel: int, i: int) -> Tensor:
        """Parameters (K, 3) of a coordinate's densities: logit of the only one, place, width."""
        place, log_width = self.place[channel, :, i], self.log_width[channel, :, i]
        return torch.stack([torch.zeros_like(place), place, log_width], dim=-1)

    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        result = z.new_zeros(len(z))
        for channel, rows in self.by_channel(subprocess):
            total = F.log_softmax(self.logit[channel], -1).expand(len(rows), -1)  # (m, K)
            for i, coordinate in enumerate(self.layouts[channel]):
                log_p = von_mises_log_prob if coordinate.periodic else gaussian_log_prob
                total = total + log_p(z[rows, i].unsqueeze(-1), self.factor(channel, i))
            result = result.index_put((rows,), total.logsumexp(-1))
        return result

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        sizes = self.sizes[self.channel_of[subprocess]]
        return weighted_mean(-self.log_prob_z(z, subprocess), weight, sizes)

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z = torch.zeros(len(subprocess), self.mean.shape[1], device=self.mean.device)
        for channel, rows in self.by_channel(subprocess):
            p = self.logit[channel].softmax(-1)
            k = torch.multinomial(p, len(rows), replacement=True, generator=generator)
            for i, coordinate in enumerate(self.layouts[channel]):
                draw = sample_von_mises if coordinate.periodic else sample_gaussian
                z[rows, i] = draw(self.factor(channel, i)[k], generator).to(z)
        return z
