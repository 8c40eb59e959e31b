"""Figures of mass peaks with their fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hepgen_ml.analysis.peaks import Peak, Spectrum
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.validation.figures.style import LOOKS, band, house_style, new_figure, reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2


def mass_peaks(found: Sequence[Peak], title: str = "") -> Figure:
    """Draw every peak: masses, fitted curves and the ratio to truth."""
    columns = min(_COLUMNS, len(found))
    rows = -(-len(found) // columns)
    with house_style():
        figure = new_figure(7.6 * columns, 5.6 * rows + 0.9)
        width, height = figure.get_size_inches()
        outer = figure.add_gridspec(
            rows, columns, left=1.0 / width, right=1 - 0.2 / width, top=1 - 0.85 / height,
            bottom=0.75 / height, hspace=0.24, wspace=0.2,
        )  # fmt: skip
        for number, peak in enumerate(found):
            inner = outer[number // columns, number % columns].subgridspec(
                2, 1, height_ratios=[3, 1], hspace=0.05
            )
            upper = figure.add_subplot(inner[0])
            lower = figure.add_subplot(inner[1], sharex=upper)
            _draw(upper, lower, peak)
            if number % columns == 0:
                upper.set_ylabel("fraction per bin")
                lower.set_ylabel("ratio")
        figure.text(0.3 / width, 1 - 0.3 / height, title, fontsize=21, va="center")
    return figure


def _draw(upper: Axes, lower: Axes, peak: Peak) -> None:
    middle = (peak.edges[1:] + peak.edges[:-1]) / 2
    truth = peak.spectra[0]
    highest, furthest = 0.0, 0.02
    for number, (s, look) in enumerate(zip(peak.spectra, LOOKS, strict=False)):
        if s is None:
            continue
        label = (
            f"{look.label}\n"
            rf"$m$ = {s.position:.3f} ± {s.position_error:.3f}, "
            rf"$\Gamma$ = {s.width:.3f} ± {s.width_error:.3f} GeV"
        )
        upper.errorbar(middle, s.fraction, s.error, fmt="os^"[number], ms=3.5, lw=1,
                       color=look.color, alpha=0.75)  # fmt: skip
        upper.plot(middle, s.curve, color=look.color, lw=look.width, ls=look.line, label=label)
        highest = max(highest, float(s.fraction.max()))
        if truth is None:
            continue
        # pairs of bins, to reduce fluctuations
        (content, error), (base, base_error) = (_paired(x) for x in (s, truth))
        base = np.where(base > 0, base, np.nan)
        band(lower, peak.edges[::2], content / base, error / base, look.color)
        if number:
            lower.stairs(content / base, peak.edges[::2], color=look.color, lw=1.6, baseline=None)
            furthest = max(furthest, reach(content / base, np.hypot(error, base_error) / base))
    lower.axhline(1, color=LOOKS[0].color, lw=1.2)
    lower.set_ylim(1 - furthest, 1 + furthest)
    lower.set_yticks([1 - furthest / 2, 1, 1 + furthest / 2])
    lower.set_xlabel(rf"$m({peak.label})$ [GeV]")
    upper.set_xlim(peak.edges[0], peak.edges[-1])
    upper.set_ylim(0, 1.6 * highest)
    upper.tick_params(labelbottom=False, which="both")
    upper.legend(loc="upper left", fontsize=12)


def _paired(s: Spectrum) -> tuple[FloatArray, FloatArray]:
    """Fractions and errors in bins of twice the width."""
    return s.fraction.reshape(-1, 2).sum(1), np.sqrt((s.error.reshape(-1, 2) ** 2).sum(1))
