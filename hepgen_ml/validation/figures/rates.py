"""Figures of frequencies: final states and subprocesses with pulls, and pulls of patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hepgen_ml.analysis.frequencies import Frequencies
from hepgen_ml.events.sample import FloatArray, IntArray
from hepgen_ml.validation.figures.style import LOOKS, MODEL_COLOR, house_style, new_figure
from hepgen_ml.validation.verdict import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 18
"""Categories shown of a kind."""


def rates(
    found: Sequence[Mapping[str, Frequencies]],
    names: Mapping[str, str],
    spreads: Mapping[str, float],
    title: str = "",
) -> Figure:
    """Draw fractions of final states and subprocesses, with pulls below.

    Parameters
    ----------
    found : sequence of mappings of kind to Frequencies
        Frequencies of generated events, then of reweighted ones.
    names : mapping of str to str
        Mathtext for the words in the names of categories.
    spreads : mapping of str to float
        Uncertainty of the model of some final states.
    title : str
    """
    kinds = [k for k in ("final state", "subprocess") if k in found[0]]
    counts = [min(len(found[0][k].names), _MOST) for k in kinds]
    with house_style():
        figure = new_figure(max(9.0, min(16.5, 5 + 0.52 * sum(counts))), 7.0)
        width, height = figure.get_size_inches()
        grid = figure.add_gridspec(
            2, len(kinds), width_ratios=[max(c, 4) for c in counts], height_ratios=[2.2, 1],
            left=1.0 / width, right=1 - 0.2 / width, top=1 - 0.95 / height, bottom=1.6 / height,
            hspace=0.06, wspace=0.16,
        )  # fmt: skip
        for column, kind in enumerate(kinds):
            upper = figure.add_subplot(grid[0, column])
            lower = figure.add_subplot(grid[1, column], sharex=upper)
            _draw(upper, lower, [f[kind] for f in found if kind in f], names, spreads)
            if column == 0:
                upper.set_ylabel("fraction of events")
                lower.set_ylabel("pull")
                upper.legend(loc="lower left")
            upper.set_title(
                rf"{kind}: $\chi^2$/ndf = {found[0][kind].test.per_ndf:.2f}",
                fontsize=14, loc="right", color="#444444",
            )  # fmt: skip
        figure.text(0.3 / width, 1 - 0.32 / height, title, fontsize=21, va="center")
    return figure


def _draw(
    upper: Axes,
    lower: Axes,
    found: Sequence[Frequencies],
    names: Mapping[str, str],
    spreads: Mapping[str, float],
) -> None:
    from matplotlib.ticker import MultipleLocator

    first = found[0]
    order = np.argsort(-first.truth, kind="stable")[:_MOST]
    at = np.arange(len(order))
    look = LOOKS[0]
    upper.stairs(first.truth[order], np.append(at, len(at)) - 0.5, fill=True, color=look.color,
                 alpha=0.22, baseline=1e-9)  # fmt: skip
    upper.hlines(first.truth[order], at - 0.5, at + 0.5, color=look.color, lw=look.width,
                 label=look.label)  # fmt: skip
    lower.axhspan(-2, 2, color="#cccccc", alpha=0.5, lw=0)
    lower.axhspan(-1, 1, color="#999999", alpha=0.5, lw=0)
    highest = 3.5
    for number, (f, style) in enumerate(zip(found, LOOKS[1:], strict=False)):
        place = dict(zip(f.names, range(len(f.names)), strict=True))
        index = [place.get(first.names[i]) for i in order]
        shown = np.array([f.generated[i] if i is not None else np.nan for i in index])
        pulls = np.array([f.pulls[i] if i is not None else np.nan for i in index])
        shift = 0.0 if len(found) == 1 else 0.3 * (number - 0.5)
        upper.plot(at + shift, shown, "os"[number % 2], color=style.color, ms=8, label=style.label)
        lower.plot(at + shift, pulls, "os"[number % 2], color=style.color, ms=8)
        highest = max(highest, 1.2 * float(np.nanmax(np.abs(pulls))))
        if number == 0:
            _spread(upper, at, shown, [spreads.get(first.names[i], 0.0) for i in order])
    lower.axhline(0, color="#555555", lw=0.8)
    lower.set_ylim(-highest, highest)
    seen = first.truth[order]
    smallest = float(seen[seen > 0].min()) if (seen > 0).any() else 1e-4
    if seen.max() > 8 * smallest:
        upper.set_yscale("log")
        upper.set_ylim(0.2 * smallest, 3 * float(seen.max()))
    else:
        upper.set_ylim(0, 1.2 * float(seen.max()))
    upper.set_xlim(-0.5, len(order) - 0.5)
    labels = [" ".join(names.get(w, w) for w in first.names[i].split()) for i in order]
    if len(labels) > 3:
        lower.set_xticks(at, labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=15)
    else:
        lower.set_xticks(at, labels, fontsize=16)
    lower.yaxis.set_major_locator(MultipleLocator(2 * np.ceil(highest / 8)))
    upper.tick_params(labelbottom=False)
    for ax in (upper, lower):
        ax.tick_params(axis="x", which="both", length=0)


def _spread(ax: Axes, at: IntArray, center: FloatArray, spread: Sequence[float]) -> None:
    size = np.asarray(spread)
    if not np.any(size > 0.02 * center):  # too thin to be seen
        return
    ax.bar(at, 2 * size, 0.7, bottom=np.maximum(center - size, 1e-12), color=MODEL_COLOR,
           alpha=0.45, lw=0, label="model uncertainty")  # fmt: skip


def pull_distributions(found: Sequence[Mapping[str, Frequencies]], title: str = "") -> Figure:
    """Draw the pulls of subprocesses, colour flows and helicities over a Gaussian."""
    kinds = [k for k in ("subprocess", "color flow", "helicity") if k in found[0]]
    with house_style():
        figure = new_figure(5.5 * len(kinds), 5.2)
        width, height = figure.get_size_inches()
        axes = figure.subplots(1, len(kinds), squeeze=False)[0]
        figure.subplots_adjust(left=0.9 / width, right=1 - 0.2 / width, top=1 - 0.95 / height,
                               bottom=0.8 / height, wspace=0.25)  # fmt: skip
        edges = np.arange(-5, 5.1, 0.5)
        x = np.linspace(-5, 5, 201)
        for ax, kind in zip(axes, kinds, strict=True):
            total = len(found[0][kind].pulls)
            expected = total * 0.5 * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
            ax.plot(x, expected, color=LOOKS[0].color, lw=1.8, label="expected")
            for f, look in zip(found, LOOKS[1:], strict=False):
                if kind in f:
                    inside = np.clip(f[kind].pulls, -4.99, 4.99)
                    ax.stairs(np.histogram(inside, edges)[0], edges, color=look.color,
                              lw=look.width, ls=look.line, label=look.label)  # fmt: skip
            test = found[0][kind].test
            ax.set_title(rf"{counted(total, kind)}: $\chi^2$/ndf = {test.per_ndf:.2f}",
                         fontsize=14, loc="right", color="#444444")  # fmt: skip
            ax.set(xlabel="pull", xlim=(-5, 5))
            ax.set_ylim(0, 1.25 * max(expected.max(), ax.get_ylim()[1] / 1.05))
        axes[0].set_ylabel("categories per bin")
        axes[0].legend(loc="upper left", fontsize=12)
        figure.text(0.3 / width, 1 - 0.3 / height, title, fontsize=21, va="center")
    return figure
