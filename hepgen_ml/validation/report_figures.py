"""The figures of a report, in its order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hepgen_ml.analysis.final_states import latex_of, name_of
from hepgen_ml.events.sample import EventSample, FloatArray
from hepgen_ml.validation.comparison import GroupComparison
from hepgen_ml.validation.figures.correlations import matrices, planes
from hepgen_ml.validation.figures.judgement import judgements
from hepgen_ml.validation.figures.panels import Curve, Panel, grid, process_title
from hepgen_ml.validation.figures.peaks import mass_peaks
from hepgen_ml.validation.figures.rates import pull_distributions, rates
from hepgen_ml.validation.figures.training import training_curves
from hepgen_ml.validation.measurements import GroupDetails, Measurements

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PER_PAGE = 6
"""Number of panels of a figure that is readable on a slide."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure and its place in the report.

    Attributes
    ----------
    section : str
        Section of the page.
    name : str
        Name of its files, without suffix.
    caption : str
        Plain text.
    figure : matplotlib.figure.Figure
    """

    section: str
    name: str
    caption: str
    figure: Figure


def draw(
    found: Measurements, history: dict[str, FloatArray] | None = None
) -> Iterator[ReportFigure]:
    """Draw all figures, one after the other.

    Parameters
    ----------
    found : Measurements
    history : dict of str to (n,) array, optional
        Losses and learning rate of the training.
    """
    yield from _marginals(found)
    yield from _correlations(found)
    fitted = [p for p in found.peaks if any(s is not None for s in p.spectra)]
    if fitted:
        yield ReportFigure(
            "peaks",
            "peaks",
            "Masses with a fitted Breit-Wigner on a straight line, and their ratio to truth.",
            mass_peaks(fitted, "Mass peaks"),
        )
    yield from _rates(found)
    yield from _judges(found)
    if history is not None:
        yield ReportFigure(
            "training", "training", "Loss and learning rate.", training_curves(history, "Training")
        )


def _groups(found: Measurements) -> Iterator[tuple[int, GroupComparison, GroupDetails, str]]:
    """Numbers of the final states, their comparisons, details and titles."""
    groups = zip(found.comparisons[0].groups, found.details, strict=False)
    for number, (group, details) in enumerate(groups, 1):
        yield number, group, details, process_title(found.truth.run, group.signature)


def _marginals(found: Measurements) -> Iterator[ReportFigure]:
    for number, group, details, title in _groups(found):
        panels = _panels(found, group, details)
        for page, first in enumerate(range(0, len(panels), _PER_PAGE), 1):
            shown = panels[first : first + _PER_PAGE]
            names = ", ".join(p.observable.name for p in shown)
            uncertainty = " and the uncertainty of the model." if found.spreads else "."
            yield ReportFigure(
                "marginals",
                f"marginals_{number}_{page}",
                f"{group.signature}: distributions of {names}. Below, the ratio to truth with the "
                f"statistical error of both samples{uncertainty}",
                grid(shown, columns=3, title=title),
            )


def _correlations(found: Measurements) -> Iterator[ReportFigure]:
    for number, group, details, title in _groups(found):
        state = str(group.signature)
        for sample, c in zip(found.samples, details.correlations, strict=False):
            if len(c.observables) > 1:
                suffix = "" if sample is found.samples[0] else f"_{sample.label}"
                yield ReportFigure(
                    "correlations",
                    f"correlations_{number}{suffix}",
                    f"{state}, {sample.label} events: rank correlations, and their differences "
                    "over the statistical error.",
                    matrices(c, title),
                )
        if details.planes:
            yield ReportFigure(
                "correlations",
                f"planes_{number}",
                f"{state}: ratio of generated to truth in planes of correlated observables; grey "
                "where truth has fewer than 25 events in a bin.",
                planes(details.planes, title),
            )


def _rates(found: Measurements) -> Iterator[ReportFigure]:
    frequencies = [c.frequencies for c in found.comparisons]
    names = _mathtext(found.truth)
    if {"final state", "subprocess"} & set(frequencies[0]):
        yield ReportFigure(
            "rates",
            "rates",
            "Fractions of events; below, the difference over its error of truth and generated "
            "events together, without that of the training sample.",
            rates(frequencies, names, found.spreads, "Rates"),
        )
    if {"color flow", "helicity"} & set(frequencies[0]):
        yield ReportFigure(
            "rates",
            "pulls",
            "Pulls of all categories beside those of equal samples.",
            pull_distributions(frequencies, "Pulls of frequencies"),
        )


def _judges(found: Measurements) -> Iterator[ReportFigure]:
    for number, group, _, title in _groups(found):
        others = [found.group_of(i, group) for i in range(len(found.samples))]
        judged = [g.judged for g in others if g is not None]
        yield ReportFigure(
            "judge",
            f"judge_{number}",
            f"{group.signature}: ROC curve of the classifier, its distance from the diagonal, and "
            "its estimate of the density ratio for each event. On the left are events that truth "
            "lacks, on the right those that the generator lacks.",
            judgements(judged, group.judged_floor, title),
        )


def _panels(found: Measurements, group: GroupComparison, details: GroupDetails) -> list[Panel]:
    tests = {m.observable.name: m.test for m in group.marginals}
    variations = found.samples[0].variations
    panels = []
    for o in details.chosen:
        curves = [Curve(group.truth[o.name], group.truth.weight)]
        for i in range(len(found.samples)):
            g = found.group_of(i, group)
            if g is None or o.name not in {x.name for x in g.generated.observables}:
                continue
            varied = variations[:, g.generated.index] if i == 0 and variations is not None else None
            curves.append(Curve(g.generated[o.name], g.generated.weight, varied))
        finite = [_finite(c) for c in curves]
        if len(curves) == len(found.samples) + 1 and all(len(c.values) for c in finite):
            panels.append(Panel(o, tuple(finite), tests.get(o.name)))
    return panels


def _finite(curve: Curve) -> Curve:
    kept = np.isfinite(curve.values)
    if kept.all():
        return curve
    varied = None if curve.variations is None else curve.variations[:, kept]
    return Curve(curve.values[kept], curve.weight[kept], varied)


def _mathtext(truth: EventSample) -> dict[str, str]:
    """Mathtext of the names of all particles of a sample."""
    found = {name_of(i): f"${latex_of(i)}$" for i in np.unique(truth.pdg_id).tolist()}
    return {**found, "j": "$j$", ">": r"$\to$"}
