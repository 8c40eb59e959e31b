"""Style of all figures: colours, fonts, bands, file formats."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.files.outputs import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Look:
    """Line style and label of a sample.

    Attributes
    ----------
    label, color : str
    line : matplotlib line style
    width : float
    """

    label: str
    color: str
    line: Any = "-"
    width: float = 1.8


# Okabe-Ito colours, distinguishable for colour-blind readers and in grey
LOOKS = (
    Look("truth", "#0072B2", width=2.2),
    Look("hepgen-ml", "#D55E00", (0, (4, 1.5))),
    Look("reweighted", "#009E73", (0, (1.2, 1.0)), 2.2),
)
"""Styles of truth, generated and reweighted events."""

MODEL_COLOR, FLOOR_COLOR = "#CC79A7", "#666666"
"""Colours of the band of the model's uncertainty, and of truth against truth."""

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["TeX Gyre Heros", "Helvetica", "Arial", "DejaVu Sans"],
    "mathtext.fontset": "stixsans",
    "font.size": 15,
    "axes.labelsize": 17,
    "axes.linewidth": 1.0,
    "xtick.labelsize": 13,
    "ytick.labelsize": 13,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "legend.frameon": False,
    "legend.fontsize": 14,
    "pdf.fonttype": 42,
    "savefig.dpi": 110,
}


def plotting() -> tuple[ModuleType, ModuleType, ModuleType]:
    """Matplotlib, hist and mplhep.

    Raises
    ------
    UsageError
        One of them is not installed.
    """
    try:
        import hist
        import matplotlib
        import mplhep
    except ImportError as error:
        raise UsageError(
            f"figures need {error.name}", remedy="pip install 'hepgen-ml[plots]'"
        ) from error
    return matplotlib, hist, mplhep


def house_style() -> AbstractContextManager[Any]:
    """Context in which figures are drawn in the style of all others."""
    matplotlib, _, _ = plotting()
    context: AbstractContextManager[Any] = matplotlib.rc_context(STYLE)
    return context


def new_figure(width: float, height: float) -> Figure:
    """Empty figure of a size in inches, without a window of a backend."""
    plotting()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def band(
    ax: Axes, edges: FloatArray, center: FloatArray, error: FloatArray, color: str, **more: Any
) -> None:
    """Band of one error around a histogram."""
    ax.stairs(
        center + error,
        edges,
        baseline=center - error,
        fill=True,
        **{"color": color, "alpha": 0.25, "lw": 0, **more},
    )


def reach(ratio: FloatArray, error: FloatArray) -> float:
    """Half height of a ratio panel: four bins in five are inside with their errors."""
    distance = np.abs(ratio - 1) + error
    needed = float(np.nanquantile(distance, 0.8)) if np.isfinite(distance).any() else 0.5
    return next((r for r in (0.02, 0.05, 0.1, 0.2, 0.5) if needed < r), 1.0)


def plain_log_ticks(axis: Axis, edges: FloatArray) -> None:
    """Ticks at 1, 2, 5 times powers of ten, written as numbers: ranges are short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    if edges[-1] / edges[0] < 5:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
        return
    steps = (1.0, 2.0, 5.0) if edges[-1] / edges[0] < 200 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, *paths: str | Path) -> None:
    """Write a figure in the format of the suffix (``.png``, ``.pdf``, ``.svg``).

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    *paths : path-like
        Replaced if they exist; each appears when it is complete.
    """
    for path in map(Path, paths):
        kind = path.suffix.lstrip(".")
        if kind not in ("png", "pdf", "svg"):
            raise UsageError("unknown figure type", path=path, remedy="use .png, .pdf or .svg")
        with replacing(path, sync=False) as place, house_style():
            figure.savefig(place, format=kind)
