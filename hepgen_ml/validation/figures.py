"""Figures that put generated events beside truth; needs the extra ``plots``.

Nothing here touches matplotlib's global state: figures are made without pyplot
and drawn by the Agg and PDF backends, so no display is needed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import OutputError, SampleError, UsageError
from hepgen_ml.events import EventSample, FloatArray
from hepgen_ml.validation.layouts import Signature, latex_of
from hepgen_ml.validation.metrics import bin_edges, histogram_chi2
from hepgen_ml.validation.observables import Observable, ObservableTable, observables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito colours, told apart by colour-blind readers and in grey
TRUTH, GENERATED = "#0072B2", "#D55E00"
_COLUMNS = 4
TRUTH_LABEL, GENERATED_LABEL = "truth", "hepgen-ml"

_STYLE: dict[str, Any] = {
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
    "pdf.fonttype": 42,
    "savefig.dpi": 110,
}


def _plotting() -> tuple[ModuleType, ModuleType, ModuleType]:
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
    matplotlib, _, _ = _plotting()
    context: AbstractContextManager[Any] = matplotlib.rc_context(_STYLE)
    return context


def overview(
    truth: EventSample,
    generated: EventSample,
    *,
    n_bins: int = 32,
    title: str = "",
    truth_label: str = TRUTH_LABEL,
) -> Figure:
    """Draw twelve panels: the richest final state, and the multiplicity if it varies.

    The final state shown is the one with most particles among those that hold
    at least a tenth of the truth.

    Parameters
    ----------
    truth, generated : EventSample
    n_bins : int
    title : str
        Left of the legend; by default the process.
    truth_label : str
        What the first sample is called in the legend.

    Returns
    -------
    matplotlib.figure.Figure
    """
    tables, others = observables(truth), observables(generated)
    both = [s for s in tables if s in others]
    if not both:
        raise SampleError(
            "the samples share no final state", remedy="compare events of the same process"
        )
    common = [s for s in both if len(tables[s]) >= 0.1 * len(truth)] or both
    shown = max(common, key=lambda s: len(s.final))
    table = tables[shown]
    several = len({len(s.final) for s in tables}) > 1
    multiplicity = Observable("multiplicity", r"\mathrm{final\ state\ particles}")
    panels: list[_Panel] = [
        (o, table[o.name], others[shown][o.name], table.weight, others[shown].weight)
        for o in choose(table, 11 if several else 12)
    ]
    counts = []
    for found in (tables, others):
        n = np.concatenate([np.full(len(t), len(s.final)) for s, t in found.items()])
        counts.append((n, np.concatenate([t.weight for t in found.values()])))
    if several:
        panels.append((multiplicity, counts[0][0], counts[1][0], counts[0][1], counts[1][1]))
    full = len(panels) - len(panels) % _COLUMNS if len(panels) > _COLUMNS else len(panels)
    return grid(
        panels[:full],
        n_bins=n_bins,
        title=title or _process_title(truth, shown),
        truth_label=truth_label,
    )


def _process_title(truth: EventSample, shown: Signature) -> str:
    """Beams, final state and energy: ``p p -> t tbar j, 13 TeV``."""
    beams = r"\,".join(latex_of(b) for b in truth.run.beam_pdg_id)
    first, second = truth.run.beam_energy
    energy = 2 * np.sqrt(first * second) / 1000
    at = rf",  $\sqrt{{s}}$ = {energy:.4g} TeV" if energy > 0 else ""
    return rf"${beams} \to {shown.latex}${at}"


def choose(table: ObservableTable, most: int = 11) -> list[Observable]:
    """Observables that tell most about a final state, in the order to show them.

    Transverse momenta, (pseudo)rapidities, pair masses and angles in turn, jets
    and leading particles first, so that any number of particles gives a mixture.
    """
    # in simple final states many observables are one and the same
    known: dict[str, Observable] = {}
    for o in table.observables:
        values = table[o.name]
        again = any(np.allclose(values, table[k], rtol=1e-4) for k in known)
        if not (o.discrete or again or np.ptp(values) <= 1e-4):
            known[o.name] = o
    last_first = list(known)[::-1]

    def kind(prefix: str) -> list[str]:
        return [n for n in known if n.startswith(prefix + "(") and not n.endswith("*)")]

    massive = {n[1:] for n in kind("y")}
    angles = kind("y") + [n for n in kind("eta") if n[3:] not in massive]
    resonances = [n for n in known if n.startswith("mass(") and n.endswith("*)")]
    wanted: list[list[str]] = [
        _ends(_leading(kind("pt")), 3),
        _ends(_leading(angles), 2),
        resonances[:3] or _ends(kind("mass"), 2),
        _ends(kind("dr"), 1),
        kind("dphi")[:1],
        [n for n in ("sqrt_s_hat", "y_total", "scale") if n in known],
    ]
    names = [n for chosen in wanted for n in chosen][:most]
    names += [n for n in last_first if n not in names and n != "alpha_qcd"][: most - len(names)]
    return [known[n] for n in names]


def _leading(names: list[str]) -> list[str]:
    """Without the second and further particles of a class."""
    return [n for n in names if not n.rstrip(")")[-1].isdigit() or n.endswith("1)")]


def _ends(names: list[str], n: int) -> list[str]:
    """First and last of a list: the heaviest particles and the jets."""
    return names if len(names) <= n else names[: n - n // 2] + names[len(names) - n // 2 :]


_Panel = tuple[Observable, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]
"""Observable, truth, generated, and the weights of both."""


def grid(
    panels: Sequence[_Panel],
    *,
    columns: int = _COLUMNS,
    n_bins: int = 32,
    title: str = "",
    truth_label: str = TRUTH_LABEL,
) -> Figure:
    """Grid of normalised distributions, each with its ratio to truth below.

    Parameters
    ----------
    panels : sequence of (observable, truth, generated, truth weights, generated weights)
    columns : int
    n_bins : int
    title, truth_label : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    matplotlib, _, _ = _plotting()
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    columns = min(columns, len(panels))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6 * columns, 4.4 * rows + 1.0))
        top = 1 - 0.95 / (4.4 * rows + 1.0)
        outer = figure.add_gridspec(
            rows, columns, left=0.05, right=0.99, top=top, bottom=0.065, hspace=0.27, wspace=0.25
        )
        for number, panel in enumerate(panels):
            inner = outer[number // columns, number % columns].subgridspec(
                2, 1, height_ratios=[2.6, 1], hspace=0.05
            )
            upper = figure.add_subplot(inner[0])
            lower = figure.add_subplot(inner[1], sharex=upper)
            _draw(upper, lower, panel, n_bins)
            if number % columns == 0:
                upper.set_ylabel("fraction per bin")
                lower.set_ylabel("ratio")
        figure.legend(
            handles=_handles(truth_label),
            loc="upper right",
            bbox_to_anchor=(0.995, 1.0),
            ncols=4,
            frameon=False,
            fontsize=17,
        )
        figure.text(0.05, 1 - 0.2 / figure.get_figheight(), title, fontsize=21, va="top")
    return figure


def _draw(upper: Axes, lower: Axes, panel: _Panel, n_bins: int) -> None:
    _, hist, mplhep = _plotting()
    observable, *values, truth_weight, generated_weight = panel
    integer = observable.name == "multiplicity"
    if integer:
        pooled = np.concatenate(values)
        edges = np.arange(pooled.min() - 0.5, pooled.max() + 1)
    else:
        edges = bin_edges(values, observable, n_bins, uniform=True)
    histograms, fractions, errors = [], [], []
    for x, weight in zip(values, (truth_weight, generated_weight), strict=True):
        h = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Weight())
        h.fill(x, weight=weight)
        h = h * (1 / weight.sum())
        histograms.append(h)
        fractions.append(h.values())
        errors.append(np.sqrt(h.variances()))
    style = {"ax": upper, "flow": "none", "yerr": False}
    mplhep.histplot(histograms[0], histtype="fill", color=TRUTH, alpha=0.22, **style)
    mplhep.histplot(histograms[0], color=TRUTH, linewidth=2.2, **style)
    mplhep.histplot(histograms[1], color=GENERATED, linewidth=1.6, linestyle=(0, (4, 1.5)), **style)

    base = np.where(fractions[0] > 0, fractions[0], np.nan)
    ratio, ratio_error = fractions[1] / base, errors[1] / base
    _band(lower, edges, np.ones_like(base), errors[0] / base, TRUTH)
    _band(lower, edges, ratio, ratio_error, GENERATED)
    lower.stairs(ratio, edges, color=GENERATED, linewidth=1.6, baseline=None)
    lower.axhline(1, color=TRUTH, linewidth=1.2)
    reach = _reach(ratio, np.hypot(errors[0] / base, ratio_error))
    lower.set_ylim(1 - reach, 1 + reach)
    lower.set_yticks([1 - reach / 2, 1, 1 + reach / 2])

    resolved = edges if integer else bin_edges(values, observable)
    test = histogram_chi2(values[0], values[1], resolved, truth_weight, generated_weight)
    upper.set_title(
        rf"$\chi^2$/ndf = {test.per_ndf:.2f}", fontsize=13, loc="right", pad=5, color="#444444"
    )
    if observable.log:
        upper.set_xscale("log")
        upper.set_yscale("log")
        upper.set_ylim(top=2.2 * max(f.max() for f in fractions))
        _plain_log_ticks(lower, edges)
    else:
        upper.set_ylim(0, 1.15 * max(f.max() for f in fractions))
    if integer:
        upper.set_xticks(np.unique(np.concatenate(values)))
        upper.tick_params(axis="x", which="minor", bottom=False, top=False)
        lower.tick_params(axis="x", which="minor", bottom=False, top=False)
    upper.set_xlim(edges[0], edges[-1])
    upper.tick_params(labelbottom=False, which="both")
    upper.set_xlabel("")
    lower.set_xlabel(observable.axis_label)


def _band(ax: Axes, edges: FloatArray, center: FloatArray, error: FloatArray, color: str) -> None:
    ax.stairs(
        center + error, edges, baseline=center - error, fill=True, color=color, alpha=0.25, lw=0
    )


def _reach(ratio: FloatArray, error: FloatArray) -> float:
    """Half height of a ratio panel: four bins in five are inside with their errors."""
    distance = np.abs(ratio - 1) + error
    needed = float(np.nanquantile(distance, 0.8)) if np.isfinite(distance).any() else 0.5
    return next((r for r in (0.02, 0.05, 0.1, 0.2, 0.5) if needed < r), 1.0)


def _plain_log_ticks(ax: Axes, edges: FloatArray) -> None:
    """Ticks at 1, 2, 5 times powers of ten, written as numbers: ranges are short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    if edges[-1] / edges[0] < 5:
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        return
    steps = (1.0, 2.0, 5.0) if edges[-1] / edges[0] < 200 else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=steps))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _handles(truth_label: str) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    band = Patch(facecolor="#888888", alpha=0.35, lw=0, label="statistical error")
    return [
        Line2D([], [], color=TRUTH, linewidth=2.2, label=truth_label),
        Line2D([], [], color=GENERATED, linewidth=1.6, ls=(0, (4, 1.5)), label=GENERATED_LABEL),
        band,
    ]


def save(figure: Figure, *paths: str | Path) -> None:
    """Write a figure; the suffix says how (``.png``, ``.pdf``, ``.svg``).

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    *paths : path-like
        Replaced if they exist; each appears when it is whole.
    """
    matplotlib, _, _ = _plotting()
    for path in map(Path, paths):
        kind = path.suffix.lstrip(".")
        if kind not in ("png", "pdf", "svg"):
            raise UsageError("unknown figure type", path=path, remedy="use .png, .pdf or .svg")
        partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
        try:
            with matplotlib.rc_context(_STYLE):
                figure.savefig(partial, format=kind)
            os.replace(partial, path)
        except OSError as error:
            raise OutputError(
                f"cannot be written: {error.strerror or error}",
                path=path,
                remedy="check the directory and its free space",
            ) from error
        finally:
            partial.unlink(missing_ok=True)
