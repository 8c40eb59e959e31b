"""Ramp and Gaussian ring: densities whose truth is known, learned by Bayesian models of all kinds.

Two-dimensional toys of arXiv:2305.10475 and 2412.12074 (section 4.2 of the thesis): each is
learned by JetGPT with bins and with mixtures, a spline flow, flow matching and diffusion. The
uncertainty that the posterior claims is compared with the deviation from truth, with the
statistical floor of the training events, and with that of a fit of the few parameters which the
toy has (arXiv:2104.04543, 2305.10475).

    python examples/toys.py --events 100000 --time 60 --out docs/figures
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from toy_figures import COLORS, figure

from hepgen_ml.config import Config, load_config
from hepgen_ml.models import registry
from hepgen_ml.models.base import DensityModel
from hepgen_ml.models.jetgpt.autoregressive import AutoregressiveDensity
from hepgen_ml.models.last_layers import find_axes
from hepgen_ml.phase_space import Coordinate
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.training.task import Part, Task
from hepgen_ml.training.trainer import Trainer
from hepgen_ml.validation import figures

FloatArray = npt.NDArray[np.float64]

SECTIONS = {"spline-flow": "spline_flow", "mlp-cfm": "flow", "ddpm": "ddpm"}

_FINE, _ACROSS = 3, 32
"""Points in each bin of the observable, and across it."""


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
    points : callable
        Points (n, k, 2) across the plane at values (n,) of the observable, and the length (n,) by
        which the mean over them becomes its density.
    shapes : callable
        Derivatives (p, n) of the density by the parameters of the constrained fit.
    """

    name: str
    label: str
    draw: Callable[[int, np.random.Generator], FloatArray]
    view: Callable[[FloatArray], FloatArray]
    density: Callable[[FloatArray], FloatArray]
    edges: FloatArray
    points: Callable[[FloatArray], tuple[FloatArray, FloatArray]]
    shapes: Callable[[FloatArray], FloatArray]

    @property
    def centres(self) -> FloatArray:
        """Centres of the bins of the observable."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])


def _draw_ramp(n: int, rng: np.random.Generator) -> FloatArray:
    """p(x1, x2) = 2 x2 on the unit square (equation 4.13)."""
    return np.stack([rng.random(n), np.sqrt(rng.random(n))], axis=1)


def _draw_ring(n: int, rng: np.random.Generator) -> FloatArray:
    """p(x1, x2) proportional to N(r; 1, 0.1) (equation 4.14), so that p(r) = r N(r; 1, 0.1)."""
    radius = np.zeros(0)
    while len(radius) < n:
        more = rng.normal(1.0, 0.1, 3 * n)
        radius = np.concatenate([radius, more[rng.random(3 * n) < more / 2]])
    angle = rng.uniform(-math.pi, math.pi, n)
    return radius[:n, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _ring_radius(r: FloatArray) -> FloatArray:
    return r * np.exp(-0.5 * ((r - 1.0) / 0.1) ** 2) / (0.1 * math.sqrt(2 * math.pi))


def _ring_shapes(r: FloatArray) -> FloatArray:
    """By radius and width: where the ring is densest, an error of its radius moves nothing."""
    pull = (r - 1.0) / 0.1
    return np.stack([pull, pull**2 - 1.0]) * _ring_radius(r) / 0.1


def _ramp_shapes(x: FloatArray) -> FloatArray:
    """By the slope a of a (x - 1/2) + 1, and by a constant, for the edges of the interval."""
    return np.stack([x - 0.5, np.ones_like(x)])


def _ramp_points(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    across = (np.arange(_ACROSS) + 0.5) / _ACROSS
    pair = np.broadcast_arrays(across[None], x[:, None])
    return np.stack(pair, axis=-1), np.ones(len(x))


def _ring_points(r: FloatArray) -> tuple[FloatArray, FloatArray]:
    angle = 2 * math.pi * (np.arange(_ACROSS) + 0.5) / _ACROSS
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return r[:, None, None] * unit, 2 * math.pi * r


TOYS = {
    "ramp": Toy(
        "ramp", "$x_2$", _draw_ramp, lambda x: x[:, 1], lambda x: 2 * x, np.linspace(0.0, 1.0, 41),
        _ramp_points, _ramp_shapes,
    ),
    "ring": Toy(
        "ring", "$r$", _draw_ring, lambda x: np.hypot(x[:, 0], x[:, 1]), _ring_radius,
        np.linspace(0.7, 1.3, 41), _ring_points, _ring_shapes,
    ),
}  # fmt: skip


class Plane:
    """The space of the toys: one channel with two coordinates, one condition."""

    conditions = None

    def __init__(self) -> None:
        self.coordinates = (Coordinate("x1"), Coordinate("x2"))
        self.channels, self.n_coordinates = [self], 2
        self.channel_of = torch.zeros(1, dtype=torch.int64)
        structure = SimpleNamespace(pdg_id=(), incoming=(), process_id=1)
        self.subprocesses = [SimpleNamespace(structure=structure, order=(), chart=0)]

    def kinematics(self, x: Tensor, *_: Tensor) -> SimpleNamespace:
        """There are no cuts."""
        return SimpleNamespace(passes=torch.ones(len(x), dtype=torch.bool))


class _NoCondition(nn.Module):
    """In place of what events of a process have: a vector for each subprocess."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self) -> Tensor:
        return torch.zeros(1, self.width)


class DensityTask(Task[Tensor]):
    """The training of a density, from standardised coordinates (n, 2)."""

    parts: Mapping[str, Part] = {"density": Part(averaging=1 / 3)}
    module: DensityModel

    def loss(self, part: str, data: Tensor, rows: Tensor) -> Tensor:
        z = data[rows]
        none = torch.zeros(len(z), dtype=torch.int64)
        return self.module.loss(z, none, torch.ones(len(z)))

    def may_end_early(self, part: str) -> bool:
        return False  # posteriors go on widening when the loss has stopped falling


def settings(kind: str, seconds: float, *more: str) -> Config:
    """As table A.1, but a smaller network, and twice the bins: 64 smear the ring visibly."""
    own = ["model=jetgpt", f"jetgpt.density={kind}", "jetgpt.bins=128", "jetgpt.bayesian=last"]
    if kind in SECTIONS:
        own = [f"model={kind}", f"{SECTIONS[kind]}.bayesian=last"]
    if kind == "spline-flow":
        own += ["spline_flow.width=32", "spline_flow.couplings=6"]
    small = ["network.width=32", "network.blocks=2", "network.mixtures=21"]
    training = [
        "training.batch_size=256", "training.weight_decay=0", "training.max_epochs=200",
        f"training.max_time={seconds}",
    ]  # fmt: skip
    return load_config(None, [*small, *own, *training, *more])


def learn(x: FloatArray, config: Config) -> DensityModel:
    """Train a Bayesian density on events (n, 2)."""
    torch.manual_seed(config.seed)
    density: DensityModel
    if config.model == "jetgpt":
        density = AutoregressiveDensity(Plane(), _NoCondition(config.network.width), config)
    else:
        density = registry.build(Plane(), config)  # type: ignore[arg-type]
    data, none = torch.from_numpy(x), torch.zeros(len(x), dtype=torch.int64)
    held_out = max(1, int(len(x) * config.training.validation_fraction))
    density.n_training = len(x) - held_out
    zero, weight = torch.zeros(len(x), 3), torch.ones(len(x), dtype=torch.float64)
    encoded = Encoded(data, none, none, none, zero, weight, zero, torch.arange(len(x)))
    density.fit_standardization(encoded[held_out:])
    z = density.prepare(data, none)
    task = DensityTask(density, z[held_out:], z[:held_out])
    Trainer(task, config.training, seed=config.seed).run()
    find_axes(density, encoded[held_out:], config.seed)
    return density.eval()


@dataclass(frozen=True)
class Band:
    """Densities of a toy under posterior draws, averaged over bins.

    Attributes
    ----------
    draws : (K, b) array
        Density per bin of each draw.
    truth : (b,) array
        The true density, averaged over each bin.
    floor : (b,) array
        Statistical error of the training events.
    """

    draws: FloatArray
    truth: FloatArray
    floor: FloatArray

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
        """(b,) deviation from truth over the claimed uncertainty."""
        return (self.mean - self.truth) / self.error

    def fitted(self, shapes: FloatArray) -> FloatArray:
        """(b,) errors of a fit of parameters by which the density changes as shapes (p, b).

        The uncertainties of the parameters are those that describe the posterior's best.
        """
        some = self.truth > 0.02 * self.truth.max()
        squares, chosen = shapes**2, list(range(len(shapes)))
        while True:
            design = (squares[chosen] / self.error**2)[:, some].T
            size = np.linalg.lstsq(design, np.ones(len(design)))[0]
            if (size >= 0).all():
                return np.sqrt(size @ squares[chosen])
            chosen.pop(int(np.argmin(size)))


@torch.no_grad()
def band(toy: Toy, density: DensityModel, n_training: int, n_draws: int = 20) -> Band:
    """Densities of posterior draws in the bins of the observable, by integration on a grid.

    Histograms of generated events would add their own statistical errors to the draws.
    """
    width = np.diff(toy.edges)
    values = toy.edges[:-1, None] + width[:, None] * (np.arange(_FINE) + 0.5) / _FINE
    points, measure = toy.points(values.ravel())
    x = torch.from_numpy(points.reshape(-1, 2))
    none = torch.zeros(len(x), dtype=torch.int64)
    log_p = density.log_prob_draws(density.prepare(x, none), none, n_draws).double()
    p = torch.exp(log_p - torch.log(density.std[0]).sum()).numpy()
    draws = p.reshape(n_draws, len(width), _FINE, -1).mean(-1) * measure.reshape(-1, _FINE)
    truth = toy.density(values).mean(1)
    return Band(draws.mean(-1), truth, np.sqrt(truth / (n_training * width)))


def main() -> None:
    """Learn both toys in all ways and draw a figure of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toys", nargs="+", choices=TOYS, default=list(TOYS))
    parser.add_argument("--densities", nargs="+", choices=COLORS, default=list(COLORS))
    parser.add_argument("--events", type=float, default=1e5, help="training events")
    parser.add_argument("--time", type=float, default=55.0, help="seconds of each training")
    parser.add_argument("--out", type=Path, default=Path("toys"), help="directory of the figures")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    n, begun = int(options.events), time.monotonic()
    for name in options.toys:
        toy, bands = TOYS[name], {}
        x = toy.draw(n, np.random.default_rng(1))
        for density in options.densities:
            model = learn(x, settings(density, options.time, *options.set))
            bands[density] = b = band(toy, model, n)
            some = b.truth > 0.02 * b.truth.max()
            inner = some & (np.abs(np.arange(len(some)) - (len(some) - 1) / 2) < len(some) / 2 - 2)
            rms, rms_inner = (np.sqrt(np.mean(b.pull[rows] ** 2)) for rows in (some, inner))
            print(
                f"{name}, {density}: root mean square pull {rms:.2f}, without two bins at each end "
                f"{rms_inner:.2f}, uncertainty over statistics "
                f"{np.median((b.error / b.floor)[some]):.2f}",
                flush=True,
            )
        path = options.out / f"toy_{name}.png"
        figures.save(figure(toy, bands, n), path)
        print(f"{path} after {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
