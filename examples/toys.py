"""Ramp and Gaussian ring: densities whose truth is known, learned by a Bayesian JetGPT.

Two-dimensional toys of arXiv:2305.10475 and 2412.12074 (section 4.2 of the thesis): each is
learned with bins and with mixtures, and the uncertainty that the posterior claims is compared
with the deviation from truth and with the statistical floor of the training events.

    python examples/toys.py --events 100000 --time 60 --out docs/figures
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hepgen_ml.config import Config, load_config
from hepgen_ml.models.autoregressive import AutoregressiveDensity
from hepgen_ml.networks.bayesian import posterior_draw
from hepgen_ml.phase_space import Coordinate
from hepgen_ml.tensors import Discrete, Encoded
from hepgen_ml.training.loop import Trainer

FloatArray = npt.NDArray[np.float64]

COLORS = {"mixtures": "#D55E00", "bins": "#0072B2"}


@dataclass(frozen=True)
class Toy:
    """A density in two dimensions, and the one-dimensional view that figures show.

    Attributes
    ----------
    name, label : str
    draw : callable
        Events (n, 2) from a number and a random generator.
    view : callable
        The observable (n,) of events (n, 2).
    density : callable
        Its true density.
    edges : array
        Of the bins of the observable.
    """

    name: str
    label: str
    draw: Callable[[int, np.random.Generator], FloatArray]
    view: Callable[[FloatArray], FloatArray]
    density: Callable[[FloatArray], FloatArray]
    edges: FloatArray


def _draw_ramp(n: int, rng: np.random.Generator) -> FloatArray:
    """p(x1, x2) = 2 x2 on the unit square (equation 4.13)."""
    return np.stack([rng.random(n), np.sqrt(rng.random(n))], axis=1)


def _draw_ring(n: int, rng: np.random.Generator) -> FloatArray:
    """Radius with density N(1, 0.1), every direction alike (equation 4.14)."""
    radius, angle = np.abs(rng.normal(1.0, 0.1, n)), rng.uniform(-math.pi, math.pi, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _gauss(r: FloatArray) -> FloatArray:
    return np.exp(-0.5 * ((r - 1.0) / 0.1) ** 2) / (0.1 * math.sqrt(2 * math.pi))


TOYS = {
    "ramp": Toy(
        "ramp", "$x_2$", _draw_ramp, lambda x: x[:, 1], lambda x: 2 * x, np.linspace(0.0, 1.0, 41)
    ),
    "ring": Toy(
        "ring", "$r$", _draw_ring, lambda x: np.hypot(x[:, 0], x[:, 1]), _gauss,
        np.linspace(0.7, 1.3, 41),
    ),
}  # fmt: skip


class Plane:
    """The space of the toys: one channel with two coordinates, one condition."""

    def __init__(self) -> None:
        self.coordinates = (Coordinate("x1"), Coordinate("x2"))
        self.channels, self.n_coordinates = [self], 2
        self.channel_of = torch.zeros(1, dtype=torch.int64)


class _Nothing(nn.Module):
    """In place of what events of a process have: conditions, and heads of discrete properties."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self) -> Tensor:
        return torch.zeros(1, self.width)

    def log_prob(self, z: Tensor, *_: Tensor | Discrete) -> Tensor:
        return z.new_zeros(len(z))


class ToySurrogate(nn.Module):
    """What `hepgen_ml.training.loop.Trainer` trains, without a process."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = _Nothing(config.network.width)
        self.density = AutoregressiveDensity(Plane(), self.heads, config)


def encoded(x: FloatArray) -> Encoded:
    """Events (n, 2) as training takes them."""
    n = len(x)
    none = torch.zeros(n, dtype=torch.int64)
    return Encoded(
        torch.from_numpy(x), none, none, none, torch.zeros(n, 3, dtype=torch.float64),
        torch.ones(n, dtype=torch.float64), torch.zeros(n, 1), torch.arange(n),
    )  # fmt: skip


def settings(density: str, seconds: float, *more: str) -> Config:
    """The paper's network for toys (table A.1), its last layer Bayesian."""
    return load_config(
        None,
        [
            "network.width=64",
            "network.mixtures=21",
            "jetgpt.bins=64",
            f"jetgpt.density={density}",
            "jetgpt.bayesian=last",
            "training.batch_size=1024",
            "training.weight_decay=0",
            "training.max_epochs=200",
            f"training.max_time={seconds}",
            *more,
        ],
    )


def learn(x: FloatArray, config: Config) -> AutoregressiveDensity:
    """Train a Bayesian density on events (n, 2)."""
    torch.manual_seed(config.seed)
    surrogate = ToySurrogate(config)
    data = encoded(x)
    held_out = max(1, int(len(x) * config.training.validation_fraction))
    surrogate.density.fit_standardization(data[held_out:])
    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(
            surrogate,  # type: ignore[arg-type]
            data[held_out:],
            data[:held_out],
            config.training,
            seed=config.seed,
            directory=Path(directory),
            device=torch.device("cpu"),
        )
        trainer.run()
    logging.info("%d steps, validation loss %.4f", trainer.step, trainer.best_loss)
    return surrogate.eval().density


@dataclass(frozen=True)
class Band:
    """Histogram densities of a toy under posterior draws.

    Attributes
    ----------
    draws : (K, b) array
        Density per bin of each draw.
    truth : (b,) array
        The true density, averaged over each bin.
    floor : (b,) array
        Statistical error of the training events.
    noise : (b,) array
        Statistical error of the mean over draws, from the generated events.
    """

    draws: FloatArray
    truth: FloatArray
    floor: FloatArray
    noise: FloatArray

    @property
    def mean(self) -> FloatArray:
        """(b,) posterior predictive density."""
        return self.draws.mean(0)

    @property
    def error(self) -> FloatArray:
        """(b,) spread of the draws: the uncertainty that the model claims."""
        return self.draws.std(0, ddof=1)

    @property
    def pull(self) -> FloatArray:
        """(b,) deviation from truth over the claimed uncertainty and the generated statistics."""
        return (self.mean - self.truth) / np.hypot(self.error, self.noise)


@torch.no_grad()
def band(
    toy: Toy, density: AutoregressiveDensity, n_training: int, n: int = 200_000, n_draws: int = 30
) -> Band:
    """Generate events of the mixture of posterior draws and fill one histogram per draw.

    Weight variations w_k = p_k / mean_j p_j, as `hepgen_ml.posterior` gives them to events: all
    draws share the same events, so that their statistics cancel in the spread.
    """
    from hepgen_ml.posterior import weights

    generator = torch.Generator().manual_seed(1)
    parts = []
    for k in range(n_draws):
        with posterior_draw(density, k):
            none = torch.zeros(n // n_draws, dtype=torch.int64)
            parts.append(density.sample(none, generator))
    x = torch.cat(parts)
    w = weights(density, x, torch.zeros(len(x), dtype=torch.int64), n_draws)
    values, width = toy.view(x.numpy()), np.diff(toy.edges)
    draws = np.stack([np.histogram(values, toy.edges, weights=row)[0] for row in w])
    counts = np.histogram(values, toy.edges)[0]
    grid = toy.edges[:-1, None] + width[:, None] * (np.arange(50) + 0.5) / 50
    truth = toy.density(grid).mean(1)
    return Band(
        draws / (len(x) * width),
        truth,
        np.sqrt(truth / (n_training * width)),
        np.sqrt(counts) / (len(x) * width),
    )
