r"""JetGPT with the multiplicity in its likelihood (arXiv:2412.12074, chapter 5 of the thesis).

Objects are added one by one, the way jets are radiated, and after each the event may stop:

.. math:: p(x_{1:n}) = \prod_{i=1}^n p_{kin}(x_i | x_{1:i-1})
          \prod_{i} p_{bin}(1 - \delta_{in} | p_{split}(x_{1:i})),

equation 5.16, with the networks of `hepgen_ml.models.jetgpt.growth`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hepgen_ml.config import Config
from hepgen_ml.models.base import Inside, weighted_mean
from hepgen_ml.models.jetgpt.calibration import calibrate_rates, emphasize, fit_edges
from hepgen_ml.models.jetgpt.extrapolation import Extrapolation
from hepgen_ml.models.jetgpt.growth import GrowingDensity
from hepgen_ml.models.jetgpt.pointers import Surroundings
from hepgen_ml.models.jetgpt.settings import SplittingConfig
from hepgen_ml.networks.bayesian import kl_divergence
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import values_of, which
from hepgen_ml.process.multiplicity import with_more_jets
from hepgen_ml.process.process import Process


class SplittingJetGPT(GrowingDensity):
    """Objects, their components and the number of jets as one autoregressive density.

    Parameters
    ----------
    process : Process
        From `adapt`.
    config : Config
    """

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process, config)
        settings = config.section(SplittingConfig)
        self.extrapolation = Extrapolation(process, self.families, settings)
        # Held-out events contain no bootstrapped ones.
        self.early_stopping = settings.extrapolation != "bootstrap"

    @classmethod
    def adapt(cls, process: Process, config: Config) -> Process:
        """Process with all multiplicities up to the largest to be generated."""
        return with_more_jets(process, config.section(SplittingConfig).max_jets)

    def fit_standardization(self, encoded: Encoded) -> None:
        super().fit_standardization(encoded)
        self.fit_families(encoded)
        self.extrapolation.fit(encoded)
        if self.components.pointers is not None:
            fit_edges(self, encoded)

    def before_training(self, events: Encoded, rate: Tensor | None) -> None:
        """Weigh the loss of later jets by how often they are drawn."""
        if not self.bayesian:  # a posterior weighs all events against its prior as they are
            emphasize(self, events.subprocess, events.weight, rate)

    def after_training(
        self, events: Encoded, inside: Inside, generator: torch.Generator, most: int
    ) -> None:
        """Make the mean probabilities of another jet those of the sample."""
        device = self.mean.device
        weight = events.weight.to(device, torch.float32)
        calibrate_rates(self, events.labels.to(device), weight, generator, inside, most)

    def _terms(self, z: Tensor, subprocess: Tensor, *, training: bool) -> Tensor:
        """Log density (m,); while training, with what an extrapolation makes of the last stop.

        Then, too, objects and splittings count as `emphasize` says.
        """
        labels, subprocess = subprocess, which(subprocess)
        total = self.log_family(labels).to(z.dtype)
        n_objects = self.n_objects[subprocess]
        for number, family in enumerate(self.families):
            in_family = self.family_of[subprocess] == number
            fixed, objects = self.fixed[number], self.objects[number]
            short = n_objects <= fixed + 1
            # Most events have few jets: they need no padding to the length of the others.
            for chosen in (in_family & short, in_family & ~short):
                rows = torch.nonzero(chosen).squeeze(-1)
                if len(rows) == 0:
                    continue
                zs, n = z[rows], n_objects[rows]
                length = int(n.max())
                momenta = self.momenta(zs, number, length, values_of(labels[rows]))
                hidden = self.histories(zs, momenta, number, length, self.shown(labels[rows]))
                by_kind: dict[int, list[tuple[int, list[int]]]] = {}
                for place, (kind, columns) in enumerate(objects[:length]):
                    by_kind.setdefault(kind, []).append((place, columns))
                for kind, places in by_kind.items():
                    some = [torch.nonzero(n > place).squeeze(-1) for place, _ in places]
                    values = [zs[i][:, c] for i, (_, c) in zip(some, places, strict=True)]
                    condition = [hidden[i, k] for i, (k, _) in zip(some, places, strict=True)]
                    around = [
                        self.lists.around(
                            momenta[i], number, length, place, values_of(labels[rows[i]])
                        )
                        for i, (place, _) in zip(some, places, strict=True)
                    ]
                    log_p = self.components.log_prob_given(
                        torch.cat(values),
                        torch.cat(condition),
                        kind,
                        around=None if places[0][0] == 0 else Surroundings.join(around),
                    )
                    if training:
                        factors = [self.emphasis[number, place + 1] for place, _ in places]
                        each = zip(factors, some, strict=True)
                        log_p = log_p * torch.cat([f.expand(len(i)) for f, i in each])
                    total = total.index_add(0, rows[torch.cat(some)], log_p)
                logits = self.log_odds(hidden, number)
                stops = torch.arange(fixed, length + 1, device=z.device)
                goes_on = (stops < n.unsqueeze(-1)).to(z.dtype)
                weight = (stops <= n.unsqueeze(-1)).to(z.dtype)
                if training:
                    last = n == fixed + family.top - family.fewest
                    self.extrapolation.change(
                        goes_on, weight, last, zs, labels[rows], n - fixed, self.restore
                    )
                    weight = weight * self.emphasis[number, fixed : length + 1]
                entropy = F.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")
                total = total.index_add(0, rows, -(weight * entropy).sum(-1))
        return total

    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        """Log density (m,) including the probability of the number of jets."""
        return self._terms(z, subprocess, training=False)

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        """Equation 5.21, or 5.22, 5.29; with KL over the training events (5.23) if Bayesian."""
        if self.training:
            z, subprocess, weight = self.extrapolation.bootstrapped(self, z, subprocess, weight)
        sizes = self.sizes[self.channel_of[which(subprocess)]] + 1  # and the number of jets
        loss = weighted_mean(-self._terms(z, subprocess, training=True), weight, sizes)
        return loss + kl_divergence(self) / self.n_training if self.training else loss
