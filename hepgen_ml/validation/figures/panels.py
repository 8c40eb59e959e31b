"""Distributions of samples with their ratios to truth below, panel by panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.analysis.final_states import Signature, latex_of
from hepgen_ml.analysis.metrics import ChiSquare, bin_edges, histogram_chi2
from hepgen_ml.analysis.observables import Observable, ObservableTable, observables
from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo
from hepgen_ml.validation.figures.style import (
    LOOKS,
    MODEL_COLOR,
    Look,
    band,
    house_style,
    new_figure,
    plain_log_ticks,
    plotting,
    reach,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4


@dataclass(frozen=True)
class Curve:
    """One sample in a panel.

    Attributes
    ----------
    values, weight : (n,) array
    variations : (K, n) array, optional
        Weights of the events under K draws of the model, whose spread is its uncertainty.
    """

    values: npt.NDArray[Any]
    weight: FloatArray
    variations: FloatArray | None = None


@dataclass(frozen=True)
class Panel:
    """Content of one panel.

    Attributes
    ----------
    observable : Observable
    curves : tuple of Curve
        Truth first; in the order of the looks.
    test : ChiSquare, optional
        Test of the second curve against truth; computed by default.
    """

    observable: Observable
    curves: tuple[Curve, ...]
    test: ChiSquare | None = None


def overview(
    truth: EventSample,
    generated: EventSample,
    *,
    n_bins: int = 32,
    title: str = "",
    truth_label: str = LOOKS[0].label,
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
        Name of the first sample in the legend.

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
    pair = (table, others[shown])
    panels = [
        Panel(o, tuple(Curve(t[o.name], t.weight) for t in pair))
        for o in choose(table, 11 if several else 12)
    ]
    if several:
        counts = []
        for found in (tables, others):
            n = np.concatenate([np.full(len(t), len(s.final)) for s, t in found.items()])
            counts.append(Curve(n, np.concatenate([t.weight for t in found.values()])))
        panels.append(Panel(multiplicity, tuple(counts)))
    full = len(panels) - len(panels) % _COLUMNS if len(panels) > _COLUMNS else len(panels)
    return grid(
        panels[:full],
        looks=(replace(LOOKS[0], label=truth_label), *LOOKS[1:]),
        n_bins=n_bins,
        title=title or process_title(truth.run, shown),
    )


def process_title(run: RunInfo, shown: Signature) -> str:
    """Beams, final state and energy: ``p p -> t tbar j, 13 TeV``."""
    beams = r"\,".join(latex_of(b) for b in run.beam_pdg_id)
    first, second = run.beam_energy
    energy = 2 * np.sqrt(first * second) / 1000
    at = rf",  $\sqrt{{s}}$ = {energy:.4g} TeV" if energy > 0 else ""
    return rf"${beams} \to {shown.latex}${at}"


def choose(table: ObservableTable, most: int = 11) -> list[Observable]:
    """The most instructive observables of a final state, in the order of the figure.

    Transverse momenta, (pseudo)rapidities, pair masses and angles in turn, jets
    and leading particles first, so that any number of particles gives a mixture.
    """
    # in simple final states many observables are identical
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
    """List without the second and further particles of a class."""
    return [n for n in names if not n.rstrip(")")[-1].isdigit() or n.endswith("1)")]


def _ends(names: list[str], n: int) -> list[str]:
    """First and last of a list: the heaviest particles and the jets."""
    return names if len(names) <= n else names[: n - n // 2] + names[len(names) - n // 2 :]


def grid(
    panels: Sequence[Panel],
    *,
    looks: Sequence[Look] = LOOKS,
    columns: int = _COLUMNS,
    n_bins: int = 32,
    title: str = "",
) -> Figure:
    """Grid of normalised distributions, each with its ratio to truth below.

    Bands are one standard deviation: of the statistics of each sample, and of the model where
    its events have variations.

    Parameters
    ----------
    panels : sequence of Panel
    looks : sequence of Look
        Styles of the curves, in their order.
    columns : int
    n_bins : int
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = -(-len(panels) // columns)
    columns = min(columns, len(panels))
    with house_style():
        head = 0.95 if columns > 2 else 1.5  # a narrow figure has its legend below the title
        figure = new_figure(4.6 * columns + 0.3, 4.4 * rows + 0.15 + head)
        width, height = figure.get_size_inches()
        outer = figure.add_gridspec(
            rows, columns, left=0.95 / width, right=1 - 0.2 / width, top=1 - head / height,
            bottom=0.7 / height, hspace=0.27, wspace=0.25,
        )  # fmt: skip
        for number, panel in enumerate(panels):
            inner = outer[number // columns, number % columns].subgridspec(
                2, 1, height_ratios=[2.6, 1], hspace=0.05
            )
            upper = figure.add_subplot(inner[0])
            lower = figure.add_subplot(inner[1], sharex=upper)
            _draw(upper, lower, panel, looks, n_bins)
            if number % columns == 0:
                upper.set_ylabel("fraction per bin")
                lower.set_ylabel("ratio")
        curves = panels[0].curves
        handles = legend_handles(
            looks[: len(curves)], model=any(c.variations is not None for c in curves)
        )
        figure.legend(
            handles=handles,
            loc="upper right",
            bbox_to_anchor=(1 - 0.1 / width, 1.0 if columns > 2 else 1 - 0.5 / height),
            ncols=len(handles) if columns > 1 else 2,
            fontsize=17 if len(handles) * 4 <= 4.6 * columns else 14,
            columnspacing=1.4,
            handlelength=1.7,
        )
        figure.text(0.95 / width, 1 - 0.2 / height, title, fontsize=21, va="top")
    return figure


@dataclass(frozen=True)
class _Histogram:
    """Fractions per bin, their statistical errors and those of the model."""

    fraction: FloatArray
    error: FloatArray
    model_error: FloatArray | None


def _histogram(curve: Curve, edges: FloatArray) -> tuple[Any, _Histogram]:
    _, hist, _ = plotting()
    h = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Weight())
    h.fill(curve.values, weight=curve.weight)
    h = h * (1 / curve.weight.sum())
    spread = None
    if curve.variations is not None:
        x = curve.values
        draws = [np.histogram(x, edges, weights=w)[0] / w.sum() for w in curve.variations]
        spread = np.std(draws, axis=0, ddof=1)
    return h, _Histogram(h.values(), np.sqrt(h.variances()), spread)


def _draw(upper: Axes, lower: Axes, panel: Panel, looks: Sequence[Look], n_bins: int) -> None:
    _, _, mplhep = plotting()
    observable, values = panel.observable, [c.values for c in panel.curves]
    integer = observable.name == "multiplicity"
    if integer:
        pooled = np.concatenate(values)
        edges = np.arange(pooled.min() - 0.5, pooled.max() + 1)
    else:
        edges = bin_edges(values, observable, n_bins, uniform=True)
    drawn = [_histogram(curve, edges) for curve in panel.curves]
    style = {"ax": upper, "flow": "none", "yerr": False}
    mplhep.histplot(drawn[0][0], histtype="fill", color=looks[0].color, alpha=0.22, **style)
    for (h, _), look in zip(drawn, looks, strict=False):
        mplhep.histplot(h, color=look.color, linewidth=look.width, linestyle=look.line, **style)

    truth = drawn[0][1]
    base = np.where(truth.fraction > 0, truth.fraction, np.nan)
    band(lower, edges, np.ones_like(base), truth.error / base, looks[0].color)
    lower.axhline(1, color=looks[0].color, linewidth=1.2)
    furthest = 0.02
    for (_, h), look in zip(drawn[1:], looks[1:], strict=False):
        ratio, error = h.fraction / base, h.error / base
        if h.model_error is not None:
            band(lower, edges, ratio, h.model_error / base, MODEL_COLOR, alpha=0.45)
            band(upper, edges, h.fraction, h.model_error, MODEL_COLOR, alpha=0.45)
        band(lower, edges, ratio, error, look.color)
        lower.stairs(ratio, edges, color=look.color, linewidth=1.6, baseline=None)
        furthest = max(furthest, reach(ratio, np.hypot(truth.error / base, error)))
    lower.set_ylim(1 - furthest, 1 + furthest)
    lower.set_yticks([1 - furthest / 2, 1, 1 + furthest / 2])

    if panel.test is None:
        resolved = edges if integer else bin_edges(values[:2], observable)
        truth_weight, weight = (c.weight for c in panel.curves[:2])
        test = histogram_chi2(values[0], values[1], resolved, truth_weight, weight)
    else:
        test = panel.test
    upper.set_title(
        rf"$\chi^2$/ndf = {test.per_ndf:.2f}", fontsize=13, loc="right", pad=5, color="#444444"
    )
    highest = max(h.fraction.max() for _, h in drawn)
    if observable.log:
        upper.set_xscale("log")
        upper.set_yscale("log")
        upper.set_ylim(top=2.2 * highest)
        plain_log_ticks(lower.xaxis, edges)
    else:
        upper.set_ylim(0, 1.15 * highest)
    if integer:
        upper.set_xticks(np.unique(np.concatenate(values)))
        upper.tick_params(axis="x", which="minor", bottom=False, top=False)
        lower.tick_params(axis="x", which="minor", bottom=False, top=False)
    upper.set_xlim(edges[0], edges[-1])
    upper.tick_params(labelbottom=False, which="both")
    upper.set_xlabel("")
    lower.set_xlabel(observable.axis_label)


def legend_handles(looks: Sequence[Look], *, model: bool = False) -> list[Any]:
    """Lines and bands for a legend of the whole figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines: list[Any] = [
        Line2D([], [], color=k.color, linewidth=k.width, ls=k.line, label=k.label) for k in looks
    ]
    bands = [Patch(facecolor="#888888", alpha=0.35, lw=0, label="statistical error")]
    if model:
        bands.append(Patch(facecolor=MODEL_COLOR, alpha=0.45, lw=0, label="model uncertainty"))
    return lines + bands
