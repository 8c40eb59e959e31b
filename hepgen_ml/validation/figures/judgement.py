"""Figures of a classifier: ROC curves and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hepgen_ml.analysis.classifier import Judgement
from hepgen_ml.validation.figures.style import (
    FLOOR_COLOR,
    LOOKS,
    Look,
    house_style,
    new_figure,
    plain_log_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_DECADES = 3.0
"""Decades of weights that are shown on each side of one."""


def judgements(judged: Sequence[Judgement], floor: Judgement, title: str = "") -> Figure:
    """Draw ROC curves, their distance from the diagonal, and the weights of the classifier.

    Parameters
    ----------
    judged : sequence of Judgement
        Results for generated events, then for reweighted ones.
    floor : Judgement
        Truth against truth.
    title : str
    """
    with house_style():
        figure = new_figure(16.5, 5.7)
        curve, distance, weights = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.06, right=0.985, top=0.87, bottom=0.14, wspace=0.27)
        _floor(curve, distance, floor, judged[0].auc.n_events)
        highest = 3 * floor.auc.error
        for j, look in zip(judged, LOOKS[1:], strict=False):
            label = f"{look.label}: {j.auc.value:.4f} ± {j.auc.error:.4f}"
            curve.plot(*j.roc, color=look.color, lw=look.width + 0.6, ls=look.line, label=label)
            away = j.roc[1] - j.roc[0]
            distance.plot(j.roc[0], away, color=look.color, lw=look.width + 0.6, label=look.label)
            highest = max(highest, float(np.abs(j.roc[1] - j.roc[0]).max()))
        axis = "truth above threshold"
        curve.set(xlim=(0, 1), ylim=(0, 1), xlabel=axis, ylabel="generated above threshold")
        curve.legend(
            loc="lower right", fontsize=13, title="area under the curve", title_fontsize=13
        )
        distance.set(xlim=(0, 1), xlabel=axis, ylabel="distance from the diagonal")
        distance.set_ylim(-1.35 * highest, 1.9 * highest)
        distance.legend(loc="upper left", fontsize=13)
        _weights(weights, judged, floor)
        figure.text(0.012, 0.95, title, fontsize=21, va="center")
    return figure


def _floor(curve: Axes, distance: Axes, floor: Judgement, n_events: int) -> None:
    text = f"truth against truth: {floor.auc.value:.4f} ± {floor.auc.error:.4f}"
    curve.plot(*floor.roc, color=FLOOR_COLOR, lw=1.3, label=text)
    distance.axhline(0, color="#999999", lw=0.8)
    x = floor.roc[0]
    # fractions of n events each above a threshold differ by binomial fluctuations
    sigma = np.sqrt(2 * x * (1 - x) / n_events)
    distance.fill_between(x, -2 * sigma, 2 * sigma, color=FLOOR_COLOR, alpha=0.2, lw=0,
                          label="equal samples: 95 %")  # fmt: skip
    distance.plot(x, floor.roc[1] - x, color=FLOOR_COLOR, lw=1.3, label="truth against truth")


def _weights(ax: Axes, judged: Sequence[Judgement], floor: Judgement) -> None:
    shown = [(judged[0], 0, LOOKS[0])]
    shown += [(j, 1, look) for j, look in zip(judged, LOOKS[1:], strict=False)]
    shown += [(floor, 0, Look("truth against truth", FLOOR_COLOR, width=1.2))]
    furthest = max(float(np.abs(j.log_weight[side]).max()) for j, side, _ in shown) / np.log(10)
    decades = float(np.clip(1.15 * furthest, 0.35, _MOST_DECADES))
    edges = np.linspace(-decades, decades, 51)
    for j, side, look in shown:
        # the outermost bins include overflow and underflow
        place = np.clip(j.log_weight[side] / np.log(10), edges[0] + 1e-9, edges[-1] - 1e-9)
        h = np.histogram(place, edges, weights=j.weight[side])[0] / j.weight[side].sum()
        ax.stairs(h, 10**edges, color=look.color, lw=look.width, ls=look.line, label=look.label)
    ax.axvline(1, color="#999999", lw=0.8)
    ax.set(xscale="log", yscale="log", xlabel="weight  $w = D/(1-D)$",
           ylabel="fraction of events per bin")  # fmt: skip
    ax.set_xlim(10.0**-decades, 10.0**decades)
    plain_log_ticks(ax.xaxis, np.array([10.0**-decades, 10.0**decades]) * (1.01, 1.0))
    ax.set_ylim(0.5 / len(judged[0].weight[0]), 30)
    ax.legend(loc="upper left", fontsize=13)
