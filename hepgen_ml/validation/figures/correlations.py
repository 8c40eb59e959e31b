"""Figures of correlations: matrices and planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hepgen_ml.analysis.correlations import Correlations, PlaneRatio
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.validation.figures.style import LOOKS, house_style, new_figure, plain_log_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DIVERGING = "PuOr_r"
"""Orange above, purple below: distinguishable for colour-blind readers."""


def matrices(found: Correlations, title: str = "", generated: str = LOOKS[1].label) -> Figure:
    """Draw the correlations of truth and generated events, and the pulls between them."""
    k = len(found.observables)
    labels = [f"${o.label}$" for o in found.observables]
    with house_style():
        figure = new_figure(16.5, 7.0)
        grid = figure.add_gridspec(
            1, 6, width_ratios=[1, 1, 0.05, 0.19, 1, 0.05], left=0.085, right=0.945, top=0.86,
            bottom=0.17, wspace=0.06,
        )  # fmt: skip
        highest = max(3.0, float(np.ceil(np.abs(found.pulls).max())))
        shown = (
            (0, LOOKS[0].label, found.truth, 1.0),
            (1, generated, found.generated, 1.0),
            (4, f"{generated} − {LOOKS[0].label}", found.pulls, highest),
        )
        for column, name, matrix, limit in shown:
            ax = figure.add_subplot(grid[column])
            image = ax.imshow(matrix, cmap=_DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
            ax.set_title(name, fontsize=19, pad=9)
            ax.set_xticks(range(k), labels, rotation=90, fontsize=14)
            ax.set_yticks(range(k), labels if column == 0 else [], fontsize=14)
            ax.tick_params(which="both", length=0)
            ax.minorticks_off()
            if column == 0:
                continue
            bar = figure.colorbar(image, cax=figure.add_subplot(grid[column + 1]))
            bar.set_label("correlation" if column == 1 else "difference / its error", fontsize=16)
            bar.ax.minorticks_off()
            if column == 4 and k <= 14:
                _write_numbers(ax, matrix, 0.6 * limit)
        figure.text(0.012, 0.95, title, fontsize=21, va="center")
    return figure


def _write_numbers(ax: Axes, matrix: FloatArray, dark_from: float) -> None:
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            if i != j:
                color = "white" if abs(matrix[i, j]) > dark_from else "#333333"
                ax.text(j, i, f"{matrix[i, j]:.1f}".replace("-", "−"), ha="center", va="center",
                        fontsize=10.5, color=color)  # fmt: skip


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
        needed = float(np.quantile(distance, 0.9)) if len(distance) else 0.5
        limit = next((x for x in (0.05, 0.1, 0.2, 0.3) if needed < x), 0.5)
        image: Any = None
        for ax, r in zip(axes, ratios, strict=True):
            ax.set_facecolor("#e6e6e6")
            image = ax.pcolormesh(
                *r.edges, r.ratio.T, cmap=_DIVERGING, vmin=1 - limit, vmax=1 + limit,
                rasterized=True,
            )  # fmt: skip
            for o, axis, edges in zip(r.observables, (ax.xaxis, ax.yaxis), r.edges, strict=True):
                axis.set_label_text(o.axis_label)
                if o.log:
                    scale = ax.set_xscale if axis is ax.xaxis else ax.set_yscale
                    scale("log")
                    plain_log_ticks(axis, edges)
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
