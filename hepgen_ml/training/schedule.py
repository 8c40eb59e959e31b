"""Learning rates: a schedule, and its early end when the validation loss no longer decreases."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from hepgen_ml.config import TrainingConfig

_LENGTH = 0.25
"""Length of the decay to zero, as a fraction of the training before it."""

_START = 0.5
"""First learning rate of the decay, relative to the one before."""


_WARM_UP_STEPS = 100
"""Minimum number of steps of the warm-up, unless a tenth of all steps is less: Adam's second
moments start from zero."""


@dataclass
class Progress:
    """State of the schedule.

    Attributes
    ----------
    best : float
        Smallest validation loss.
    idle : int
        Validations since then.
    began, rate : float or None
        Fraction of the training at which the early fall began, and from which learning rate.
    """

    best: float = math.inf
    idle: int = 0
    began: float | None = None
    rate: float = 0.0


class LearningRate:
    """Learning rate of one part of a surrogate.

    Linear warm-up, then half a cosine to zero over the planned training. If the validation loss has
    not decreased for `patience` validations, the part returns to its best weights, and the rate
    decays to zero in a quarter of the training so far.

    Parameters
    ----------
    config : TrainingConfig
    n_steps : float
        Planned at most.
    """

    def __init__(self, config: TrainingConfig, n_steps: float = math.inf) -> None:
        self.config = config
        self.warm_up_steps = min(_WARM_UP_STEPS, max(n_steps / 10, 1.0))
        self.progress = Progress()

    def __call__(self, step: int, done: float) -> float:
        """Learning rate of a step at a completed fraction of the training."""
        began = self.progress.began
        if began is not None:
            position = (done - began) / max(self.end - began, 1e-9)
            return self.progress.rate * _cosine(position)
        done, warmup = min(done, 1.0), self.config.warmup
        start = min(1.0, (step + 1) / self.warm_up_steps)
        if done < warmup:
            start = min(start, max(done / warmup, 1e-2))
        return self.config.learning_rate * start * _cosine((done - warmup) / (1 - warmup))

    @property
    def end(self) -> float:
        """Fraction of the planned training at which this part ends."""
        began = self.progress.began
        return 1.0 if began is None else min((1 + _LENGTH) * began, 1.0)

    def finished(self, done: float) -> bool:
        """Whether this part has ended."""
        return done >= self.end

    def is_best(self, loss: float) -> bool:
        """Record a validation loss; return whether it is the smallest."""
        better = loss < self.progress.best
        self.progress.idle = 0 if better else self.progress.idle + 1
        if better:
            self.progress.best = loss
        return better

    def falls_early(self, step: int, done: float) -> bool:
        """Whether to return to the best weights now; the rate then decays to zero."""
        patience, state = self.config.patience, self.progress
        if not patience or state.idle < patience or state.began is not None or done >= 0.8:
            return False
        state.rate = _START * self(step, done)
        state.began = done
        return True

    def forget(self) -> None:
        """Reset the best loss, because later losses cannot be compared with earlier ones."""
        self.progress.best, self.progress.idle = math.inf, 0

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return asdict(self.progress)

    def restore(self, state: dict[str, Any], scale: float = 1.0) -> None:
        """Restore a state; fractions of its training are scaled to those of this one."""
        began, best = state["began"], state["best"]
        self.progress = Progress(
            math.inf if best is None else float(best), int(state["idle"]),
            None if began is None else scale * float(began), float(state["rate"]),
        )  # fmt: skip


def _cosine(position: float) -> float:
    """Half a cosine from one to almost zero, for a position from zero to one."""
    return max(0.5 * (1 + math.cos(math.pi * min(max(position, 0.0), 1.0))), 1e-3)
