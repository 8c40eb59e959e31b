"""Figures of correlations: matrices and planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hepgen_ml.validation.correlations import Correlations, PlaneRatio
from hepgen_ml.validation.figures.style import LOOKS, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DIVERGING = "PuOr_r"
"""Orange above, purple below: told apart by colour-blind readers."""


def matrices(found: Correlations, title: str = "", generated: str = LOOKS[1].label) -> Figure:
    """Draw the correlations of truth and generated events, and the pulls between them."""
    k = len(found.observables)
    labels = [f"${o.label}$" for o in found.observables]
    with house_style():
        figure = new_figure(16.5, 6.9)
        axes = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.075, right=0.985, top=0.82, bottom=0.16, wspace=0.06)
        highest = max(3.0, float(np.ceil(np.abs(found.pulls).max())))
        shown = (
            (LOOKS[0].label, found.truth, 1.0, "correlation"),
            (generated, found.generated, 1.0, "correlation"),
            (f"{generated} − {LOOKS[0].label}", found.pulls, highest, "difference / its error"),
        )
        for number, (ax, (name, matrix, limit, what)) in enumerate(zip(axes, shown, strict=True)):
            image = ax.imshow(matrix, cmap=_DIVERGING, vmin=-limit, vmax=limit)
            ax.set_title(name, fontsize=18, pad=10)
            ax.set_xticks(range(k), labels, rotation=90, fontsize=12)
            ax.set_yticks(range(k), labels if number == 0 else [], fontsize=12)
            ax.tick_params(which="both", length=0)
            ax.minorticks_off()
            bar = figure.colorbar(image, ax=ax, shrink=0.84, pad=0.02, aspect=28)
            bar.set_label(what, fontsize=14)
            bar.ax.minorticks_off()
            if number == 2 and k <= 14:
                for i in range(k):
                    for j in range(k):
                        if i != j:
                            dark = abs(matrix[i, j]) > 0.6 * limit
                            ax.text(j, i, f"{matrix[i, j]:.1f}", ha="center", va="center",
                                    fontsize=9, color="white" if dark else "#333333")  # fmt: skip
        figure.text(0.012, 0.955, title, fontsize=21, va="center")
    return figure


def planes(ratios: Sequence[PlaneRatio], title: str = "") -> Figure:
    """Draw the ratio of generated to truth in planes of two observables."""
    with house_style():
        columns = len(ratios)
        figure = new_figure(5.6 * columns + 1.2, 5.6)
        width, height = figure.get_size_inches()
        axes = figure.subplots(1, columns, squeeze=False)[0]
        figure.subplots_adjust(
            left=1.0 / width, right=1 - 1.25 / width, top=1 - 1.0 / height, bottom=0.85 / height,
            wspace=0.3,
        )  # fmt: skip
        distance = np.concatenate([np.abs(r.ratio[np.isfinite(r.ratio)] - 1) for r in ratios])
        needed = float(np.quantile(distance, 0.98)) if len(distance) else 0.5
        limit = next((x for x in (0.1, 0.2, 0.3, 0.5) if needed < x), 1.0)
        image: Any = None
        for ax, r in zip(axes, ratios, strict=True):
            ax.set_facecolor("#e6e6e6")
            image = ax.pcolormesh(
                *r.edges, r.ratio.T, cmap=_DIVERGING, vmin=1 - limit, vmax=1 + limit,
                rasterized=True,
            )  # fmt: skip
            for o, axis in zip(r.observables, (ax.xaxis, ax.yaxis), strict=True):
                axis.set_label_text(o.axis_label)
                if o.log:
                    scale = ax.set_xscale if axis is ax.xaxis else ax.set_yscale
                    scale("log")
                    _plain(axis)
            ax.set_xlim(*r.edges[0][[0, -1]])
            ax.set_ylim(*r.edges[1][[0, -1]])
            ax.set_title(
                rf"$\chi^2$/ndf = {r.chi2_per_ndf:.2f}", fontsize=13, loc="right", color="#444444"
            )
        place = figure.add_axes((1 - 1.05 / width, 0.85 / height, 0.22 / width, 1 - 1.85 / height))
        bar = figure.colorbar(image, cax=place, extend="both")
        bar.set_label(f"{LOOKS[1].label} / {LOOKS[0].label}")
        figure.text(0.02, 1 - 0.3 / height, title, fontsize=21, va="center")
    return figure


def _plain(axis: Any) -> None:
    """Logarithmic ticks written as numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())
