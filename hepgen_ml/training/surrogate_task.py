"""Training task of a surrogate: the density of the kinematics, and the heads."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hepgen_ml.models.base import weighted_mean
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.encoded import Discrete, Encoded
from hepgen_ml.training.batches import Batches
from hepgen_ml.training.task import Part, Task


class SurrogateTask(Task[Batches]):
    """Task for the density and the heads of a surrogate, with the same events.

    Parameters
    ----------
    surrogate : Surrogate
        With its standardisation fitted.
    train, validation : Encoded
    device : torch.device
    n_events : int, optional
        Independent events in `train`, which Bayesian models weigh against their prior; by
        default all of them.
    rate : (m,) tensor, optional
        How often training events are drawn, see `hepgen_ml.training.drawing.draw_rates`.

    Attributes
    ----------
    loss_will_change : bool
        Whether the weights of events in the density's loss are not yet final.
    """

    parts: Mapping[str, Part] = {
        "density": Part("density.", averaging=1 / 3),
        "heads": Part("heads.", averaging=1 / 9, loss_name="validation_head_loss"),
    }
    module: Surrogate

    def __init__(
        self,
        surrogate: Surrogate,
        train: Encoded,
        validation: Encoded,
        *,
        device: torch.device,
        n_events: int | None = None,
        rate: Tensor | None = None,
    ) -> None:
        surrogate.to(device)
        surrogate.density.n_training = n_events or len(train)
        super().__init__(
            surrogate,
            Batches(surrogate, train, device, rate),
            Batches(surrogate, validation, device),
        )
        self.rate = rate
        self.loss_will_change = False
        # Posteriors still widen when the loss of their means no longer decreases.
        self._stops = surrogate.density.early_stopping and not surrogate.density.bayesian

    def loss(self, part: str, data: Batches, rows: Tensor) -> Tensor:
        z, subprocess = data.z[rows], data.subprocess[rows]
        weight = data.drawn_weight[rows]
        if part == "density":
            self.module.density.progress = self.progress
            return self.module.density.loss(z, subprocess, weight * data.factor[rows])
        d = data.discrete
        known = d.pattern[rows] >= 0
        if not known.any():
            return torch.stack([p.sum() for p in self.module.heads.parameters()]).sum() * 0.0
        if not known.all():
            rows, z, subprocess, weight = rows[known], z[known], subprocess[known], weight[known]
        discrete = Discrete(d.pattern[rows], d.branch[rows], d.free[rows])
        log_p = self.module.heads.log_prob(z, data.invariants[rows], subprocess, discrete)
        return weighted_mean(-log_p, weight)

    def may_end_early(self, part: str) -> bool:
        return part == "heads" or (self._stops and not self.loss_will_change)

    def state(self) -> dict[str, Tensor]:
        return {"factor/train": self.train.factor, "factor/validation": self.validation.factor}

    def weigh(self, train: Tensor, validation: Tensor) -> None:
        """Multiply the weights of the density's training and validation events by factors (m,)."""
        for data, factor in ((self.train, train), (self.validation, validation)):
            data.factor.copy_(factor)
