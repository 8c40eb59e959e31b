"""Figures of `toys.py`: densities with their bands, pulls, and uncertainties against the floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hepgen_ml.validation import figures

if TYPE_CHECKING:
    from toys import Band, Toy

FloatArray = npt.NDArray[np.float64]

COLORS = {
    "bins": "#0072B2", "mixtures": "#D55E00", "spline-flow": "#009E73", "mlp-cfm": "#CC79A7",
    "ddpm": "#8C6D1F",
}  # fmt: skip
NAMES = {
    "bins": "JetGPT, bins", "mixtures": "JetGPT, mixtures", "spline-flow": "spline flow",
    "mlp-cfm": "flow matching", "ddpm": "diffusion",
}  # fmt: skip
TRUTH, FLOOR, FIT = "black", "#666666", "#222222"

STYLES = {FLOOR: "--", FIT: ":"}


def figure(toy: Toy, bands: dict[str, Band], n_training: int) -> object:
    """Density with its band, pull from truth, and both uncertainties against the floor."""
    rows = len(bands)
    with figures.house_style():
        canvas = Figure(figsize=(16.5, 5.2 * rows + 0.9))
        top = 1 - 0.75 / canvas.get_figheight()
        grid = canvas.add_gridspec(
            rows, 3, left=0.055, right=0.99, top=top, bottom=0.13 / rows, wspace=0.24,
            hspace=0.26,
        )  # fmt: skip
        for row, (name, b) in enumerate(bands.items()):
            inner = grid[row, 0].subgridspec(2, 1, height_ratios=[2.6, 1], hspace=0.06)
            density = canvas.add_subplot(inner[0])
            _draw_density(density, toy, name, b)
            _draw_pull(canvas.add_subplot(inner[1], sharex=density), toy, name, b)
            absolute, relative = (canvas.add_subplot(grid[row, i]) for i in (1, 2))
            label = rf"absolute uncertainty of p({toy.label})"
            _draw_errors(absolute, toy, name, b, np.ones_like(b.truth), label, n_training)
            label = "relative uncertainty [%]"
            _draw_errors(relative, toy, name, b, 100 / b.truth, label, n_training)
        names = {"ramp": r"Ramp $p(x_1, x_2) = 2x_2$", "ring": r"Gaussian ring $N(r; 1, 0.1)$"}
        canvas.text(
            0.055, 1 - 0.18 / canvas.get_figheight(), names[toy.name], fontsize=21, va="top"
        )
    return canvas


def _draw_density(ax: Any, toy: Toy, name: str, b: Band) -> None:
    """Density with its band, and the truth."""
    color = COLORS[name]
    ax.stairs(
        b.mean + b.error, toy.edges, baseline=b.mean - b.error, fill=True, color=color, alpha=0.35,
        lw=0, label=r"posterior $\pm 1\sigma$",
    )  # fmt: skip
    _draw_line(ax, toy, b.mean, color, label=NAMES[name])
    _draw_line(ax, toy, b.truth, TRUTH, linestyle=(0, (4, 2)), label="truth")
    ax.set_ylabel(f"p({toy.label})")
    ax.yaxis.set_major_locator(MaxNLocator(5, prune="lower"))
    ax.set_ylim(0, 1.18 * b.truth.max())
    ax.set_xlim(toy.edges[0], toy.edges[-1])
    ax.tick_params(labelbottom=False)
    ax.legend(frameon=False, fontsize=13, loc="upper left" if toy.name == "ramp" else "best")


def _draw_pull(ax: Any, toy: Toy, name: str, b: Band) -> None:
    """Deviation from truth over the claimed uncertainty."""
    ax.axhspan(-1, 1, color=FLOOR, alpha=0.18, lw=0)
    ax.axhline(0, color=TRUTH, linewidth=1.0)
    reach = max(3.4, 1.15 * float(np.abs(b.pull).max()))
    ax.plot(toy.centres, b.pull, "o", color=COLORS[name], markersize=4)
    ax.set_ylim(-reach, reach)
    ax.set_ylabel("pull")
    ax.yaxis.set_major_locator(MaxNLocator(3, integer=True, symmetric=True))
    ax.set_xlabel(toy.label)


def _draw_errors(
    ax: Any, toy: Toy, name: str, b: Band, scale: FloatArray, label: str, n_training: int
) -> None:
    """Deviation from truth and uncertainties, times a scale."""
    some, color, deviation = b.truth > 0.02 * b.truth.max(), COLORS[name], np.abs(b.mean - b.truth)
    y = np.where(some, deviation * scale, np.nan)
    ax.plot(toy.centres, y, "o", color=color, alpha=0.45, ms=4, label="deviation from truth")
    for values, c, text in (
        (b.floor, FLOOR, f"statistics of {n_training:,} events"),
        (b.error, color, "posterior"),
        (b.fitted(toy.shapes(toy.centres)), FIT, "constrained fit"),
    ):
        y = np.where(some, values * scale, np.nan)
        _draw_line(ax, toy, y, c, label=text, linestyle=STYLES.get(c, "-"))
    ax.set_xlabel(toy.label)
    ax.set_ylabel(label)
    ax.set_xlim(toy.edges[0], toy.edges[-1])
    known = np.maximum(np.maximum(b.error, b.floor), deviation)
    ax.set_ylim(0, 1.45 * np.nanmax(np.where(some, known * scale, np.nan)))
    ax.yaxis.set_major_locator(MaxNLocator(6, prune="lower"))
    ax.legend(frameon=False, fontsize=13, loc="upper right", ncols=1)


def _draw_line(ax: Any, toy: Toy, y: FloatArray, color: str, **options: Any) -> None:
    ax.stairs(y, toy.edges, baseline=None, color=color, linewidth=1.8, **options)
