"""The network of a regression, and its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from hepgen_ml.config import TrainingConfig
from hepgen_ml.errors import UsageError
from hepgen_ml.networks.bayesian import BayesianLinear, kl_divergence
from hepgen_ml.networks.elementwise import silu
from hepgen_ml.networks.event_networks import build, sizes
from hepgen_ml.regression.points import Encoder, Points
from hepgen_ml.training.task import Task
from hepgen_ml.training.trainer import Trainer

Loss = Literal["mse", "likelihood"]
LOSSES = get_args(Loss)

_LOG_VARIANCE = (-20.0, 10.0)
_SPREAD = 0.01
"""Weight of the likelihood of the variance relative to the squared deviation."""

_WARM_UP = 0.2
"""Initial fraction of a training with the likelihood in which the squared deviation is
minimised."""

_HIDDEN = 64
"""Number of inputs of a last layer with a posterior."""

_NO_LIMIT = 2**53

_RATES = {"mlp": 2e-3, "deep-sets": 2e-3, "transformer": 1e-3}
_RATE = 3e-3


@dataclass(frozen=True)
class Settings:
    """Settings of a regression.

    Attributes
    ----------
    network : str
        Name of the network, see `hepgen_ml.networks.event_networks`.
    sizes : dict
        Of the network, as far as they are not the defaults.
    loss : {"mse", "likelihood"}
        The squared deviation, beside which an uncertainty is learned that does not change it; or
        the likelihood of a Gaussian with mean and width, which learns less where the width is
        large.
    members : int
        Networks of an ensemble, trained one after another; their spread adds to the uncertainty.
    bayesian : bool
        The last layer has a posterior, whose spread adds to the uncertainty; with the likelihood.
    max_time : float
        Seconds for all members together.
    batch_size : int
    learning_rate : float, optional
        By default that of the network.
    max_steps : int
        Of each member at most.
    compile : bool
        Compile the networks with torch.compile; meant for GPUs.
    """

    network: str = "deep-sets"
    sizes: dict[str, Any] | None = None
    loss: Loss = "mse"
    members: int = 1
    bayesian: bool = False
    max_time: float = 600.0
    batch_size: int = 512
    learning_rate: float | None = None
    max_steps: int = _NO_LIMIT
    compile: bool = False

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(
                f"loss {self.loss!r} is not known", remedy=f"take {' or '.join(LOSSES)}"
            )
        if not 1 <= self.members <= 100:
            raise UsageError(
                f"an ensemble of {self.members} networks is not possible", remedy="take 1 to 100"
            )
        if not self.max_time > 0:
            raise UsageError("the time of the training is zero", remedy="give some seconds")
        sizes(self.network)

    @property
    def fixed(self) -> tuple[Any, ...]:
        """Settings that may not change when a training is resumed: all except its length."""
        sizes = sorted((self.sizes or {}).items())
        return (self.network, sizes, self.loss, self.members, self.bayesian, self.batch_size,
                self.learning_rate)  # fmt: skip

    def training(self, n_events: int) -> TrainingConfig:
        """Settings of the trainer of each member."""
        return TrainingConfig(
            batch_size=min(self.batch_size, n_events),
            learning_rate=self.learning_rate or _RATES.get(self.network, _RATE),
            weight_decay=0.0,
            max_steps=self.max_steps,
            max_epochs=float(_NO_LIMIT),
            max_time=self.max_time / self.members,
            ema=0.999,
            clip=1.0,
            validation_interval=500,
            patience=0 if self.bayesian else 20,
            compile=self.compile,
        )


class Network(nn.Module):
    """Mean and logarithm of the variance of a standardised target.

    Parameters
    ----------
    settings : dict
        Of the network of events, see `hepgen_ml.networks.event_networks.build`.
    bayesian : bool
    """

    def __init__(self, settings: dict[str, Any], bayesian: bool) -> None:
        super().__init__()
        n_out = _HIDDEN if bayesian else 2
        self.network = build(**{**settings, "n_out": n_out})
        self.head = BayesianLinear(nn.Linear(_HIDDEN, 2)) if bayesian else None

    def forward(self, points: Points) -> tuple[Tensor, Tensor]:
        """Mean (m,) and log variance (m,)."""
        mask = None if bool(points.mask.all()) else points.mask
        out = self.network(points.momenta, points.kinds, mask, points.globals_)
        if self.head is not None:
            out = self.head(silu(out))
        return out[:, 0], out[:, 1].clamp(*_LOG_VARIANCE)


class RegressionTask(Task[Points]):
    """Training of a `Network` on standardised targets.

    Parameters
    ----------
    network : Network
    train, validation : Points
    loss : {"mse", "likelihood"}
    """

    module: Network
    remedy = "try a smaller learning rate"

    def __init__(self, network: Network, train: Points, validation: Points, loss: Loss) -> None:
        super().__init__(network, train, validation)
        self.kind = loss
        self.n_training = len(train)

    def loss(self, part: str, data: Points, rows: Tensor) -> Tensor:
        some = data[rows]
        mean, log_variance = self.module(some)
        square = (some.target - mean) ** 2
        if self.kind == "likelihood":
            loss = 0.5 * (square * torch.exp(-log_variance) + log_variance).mean()
        else:
            loss = square.mean()
            if self.module.training:
                spread = 0.5 * (square.detach() * torch.exp(-log_variance) + log_variance)
                loss = loss + _SPREAD * spread.mean()
        if self.module.head is not None and self.module.training:
            loss = loss + kl_divergence(self.module.head) / self.n_training
        return loss


def network_settings(encoder: Encoder, settings: Settings) -> dict[str, Any]:
    """Arguments of `build` for events of a kind."""
    chosen = dict(settings.sizes or {})
    if settings.network == "deep-sets":
        chosen.setdefault("invariants", encoder.n_particles <= 12)
    return {
        "name": settings.network, "n_scalars": len(encoder.kinds),
        "n_particles": encoder.n_particles, "n_globals": len(encoder.columns), **chosen,
    }  # fmt: skip


def train_member(
    encoder: Encoder,
    train: Points,
    validation: Points,
    settings: Settings,
    *,
    seed: int,
    device: torch.device,
    report: Callable[[float], None],
    directory: Path | None = None,
    resume: bool = False,
) -> tuple[Network, dict[str, float]]:
    """One network and facts of its training, which may be resumed from its directory."""
    with torch.random.fork_rng():  # the caller's arrays are not changed
        torch.manual_seed(seed)
        network = Network(network_settings(encoder, settings), settings.bayesian).to(device)
        some = train[: min(len(train), 100_000)]
        mask = None if bool(some.mask.all()) else some.mask
        network.network.fit_standardization(some.momenta, some.kinds, mask, some.globals_)
        task = RegressionTask(network, train, validation, "mse")
        trainer = Trainer(
            task, settings.training(len(train)), seed=seed, directory=directory,
            progress=lambda stage, done, total, info: report(done),
        )  # fmt: skip
        if resume:
            trainer.resume()
        if settings.bayesian or settings.loss == "likelihood":
            if trainer.round == 0:
                trainer.run(until=_WARM_UP)
                trainer.loss_changed("network")
            task.kind = "likelihood"
        trainer.run()
    return network.eval(), {"steps": float(trainer.step), "seconds": trainer.seconds}
