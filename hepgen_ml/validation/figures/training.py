"""Figure of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hepgen_ml.events.sample import FloatArray
from hepgen_ml.validation.figures.style import LOOKS, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(history: dict[str, FloatArray], title: str = "") -> Figure:
    """Draw losses and learning rate against steps.

    Parameters
    ----------
    history : dict of str to (n,) array
        Columns of a training's history.
    title : str
    """
    with house_style():
        figure = new_figure(14.0, 5.4)
        losses, rate = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.85, bottom=0.15, wspace=0.22)
        step = history["step"] / 1000
        marks = {"marker": "o", "ms": 4} if len(step) < 40 else {}
        shown = []
        for name, label, look in (
            ("train_loss", "training", LOOKS[0]),
            ("validation_loss", "validation, averaged weights", LOOKS[1]),
        ):
            if np.isfinite(history[name]).any():
                losses.plot(step, history[name], color=look.color, lw=2, label=label, **marks)
                shown.append(history[name][np.isfinite(history[name])])
        if shown:
            pooled = np.concatenate([s[len(s) // 10 :] for s in shown])
            low, high = float(pooled.min()), float(pooled.max())
            margin = 0.06 * max(high - low, 1e-6)
            losses.set_ylim(low - margin, high + margin)
        losses.set(xlabel="1000 steps", ylabel="loss per event")
        losses.legend()
        rate.plot(step, history["learning_rate"], color=LOOKS[2].color, lw=2, **marks)
        rate.set(xlabel="1000 steps", ylabel="learning rate", yscale="log")
        figure.text(0.012, 0.94, title, fontsize=21, va="center")
    return figure
