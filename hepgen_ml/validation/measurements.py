"""Measurements of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepgen_ml.analysis.correlations import (
    Correlations,
    PlaneRatio,
    correlated_pairs,
    correlations,
    plane_ratio,
)
from hepgen_ml.analysis.frequencies import Frequencies
from hepgen_ml.analysis.observables import Observable
from hepgen_ml.analysis.peaks import Peak, peaks
from hepgen_ml.events.laws.checks import LawResult, check_sample
from hepgen_ml.events.sample import EventSample, FloatArray
from hepgen_ml.events.weights import effective_size
from hepgen_ml.validation.comparison import Comparison, GroupComparison, compare
from hepgen_ml.validation.figures.panels import choose
from hepgen_ml.validation.user_observables import ObservableFunction

SHOWN_OBSERVABLES = 12
"""Largest number of observables in figures of a final state, including the user's; tables have
all."""

SHOWN_GROUPS = 6
"""Number of most frequent final states with separate figures; tables have all."""

_IN_MATRICES = 11
_ROC_POINTS = 41


@dataclass(frozen=True)
class Labelled:
    """A sample to compare with truth.

    Attributes
    ----------
    label : str
        ``generated`` or ``reweighted``.
    events : EventSample
    """

    label: str
    events: EventSample

    @property
    def effective_events(self) -> float:
        """Effective sample size, (sum of weights)^2 / sum of squared weights."""
        return effective_size(self.events.weight)

    @property
    def variations(self) -> FloatArray | None:
        """(K, n) weights of the posterior draws, None without."""
        found = [w for name, w in self.events.weights.items() if name.startswith("posterior_")]
        return np.array(found) if len(found) > 1 else None


@dataclass(frozen=True, eq=False)
class GroupDetails:
    """Further measurements of one final state.

    Attributes
    ----------
    chosen : list of Observable
        Shown in figures.
    correlations : list of Correlations
        Correlations of each sample.
    planes : list of PlaneRatio
        Ratios for the first sample.
    """

    chosen: list[Observable]
    correlations: list[Correlations]
    planes: list[PlaneRatio]


@dataclass(frozen=True, eq=False)
class Measurements:
    """All numbers of a report, and the data of its figures.

    Attributes
    ----------
    truth : EventSample
    samples : list of Labelled
    comparisons : list of Comparison
        Comparison of each sample with truth.
    details : list of GroupDetails
        Details of the first `SHOWN_GROUPS` groups of the first comparison.
    peaks : list of Peak
    laws : list of LawResult
        Laws tested on the first sample.
    """

    truth: EventSample
    samples: list[Labelled]
    comparisons: list[Comparison]
    details: list[GroupDetails]
    peaks: list[Peak]
    laws: list[LawResult]

    @property
    def spreads(self) -> dict[str, float]:
        """Uncertainty of the model of the fraction of each final state."""
        variations = self.samples[0].variations
        if variations is None:
            return {}
        total = variations.sum(axis=1)
        return {
            str(g.signature): float(
                np.std(variations[:, g.generated.index].sum(axis=1) / total, ddof=1)
            )
            for g in self.comparisons[0].groups
        }

    def group_of(self, number: int, group: GroupComparison) -> GroupComparison | None:
        """The same final state in the comparison of another sample."""
        found = (g for g in self.comparisons[number].groups if g.signature == group.signature)
        return next(found, None)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON; None for numbers that are not finite."""
        first = self.comparisons[0]
        names = {str(g.signature): d for g, d in zip(first.groups, self.details, strict=False)}
        result: dict[str, Any] = {
            "samples": [
                {
                    "label": s.label,
                    "events": len(s.events),
                    "effective_events": s.effective_events,
                    "comparison": c.to_dict(),
                    "correlations": {
                        name: _correlations(d.correlations[i])
                        for name, d in names.items()
                        if i < len(d.correlations)
                    },
                    "roc": {str(g.signature): _roc(g) for g in c.groups},
                }
                for i, (s, c) in enumerate(zip(self.samples, self.comparisons, strict=True))
            ],
            "planes": {
                name: [
                    {"observables": [o.name for o in p.observables], "chi2_per_ndf": p.chi2_per_ndf}
                    for p in d.planes
                ]
                for name, d in names.items()
            },
            "peaks": {p.name: p.to_dict() for p in self.peaks},
            "rates": {
                kind: _rates(f, self.truth, self.samples[0].events, self.spreads)
                for kind, f in first.frequencies.items()
            },
            "laws": [
                {
                    "name": law.name,
                    "judged": law.judged,
                    "events": law.n_events,
                    "broken": law.n_broken,
                    "text": law.text,
                }
                for law in self.laws
            ],
        }
        plain: dict[str, Any] = finite(result)
        return plain


def measure(
    truth: EventSample,
    samples: Sequence[Labelled],
    *,
    user: ObservableFunction | None = None,
    seed: int = 0,
    stage: Callable[[str], None] = lambda name: None,
    **options: Any,
) -> Measurements:
    """Perform all measurements of a report.

    Parameters
    ----------
    truth : EventSample
        Events that the generator never saw.
    samples : sequence of Labelled
        Generated events, then the same with other weights.
    user : callable, optional
        Further observables.
    seed : int
    stage : callable
        Called at the start of each stage with its name.
    **options
        For `compare`.

    Raises
    ------
    SampleError
        Nothing can be compared.
    """
    comparisons: list[Comparison] = []
    for sample in samples:
        stage("judge")
        done = comparisons[0] if comparisons else None
        comparisons.append(
            compare(truth, sample.events, n_marginal=None, seed=seed, user=user, floor=done,
                    **options)
        )  # fmt: skip
    stage("correlations")
    details = []
    for group in comparisons[0].groups[:SHOWN_GROUPS]:
        own = [o for o in group.truth.observables if o.user]
        automatic = [o for o in choose(group.truth, SHOWN_OBSERVABLES + len(own)) if not o.user]
        chosen = _filled(automatic, own)
        matrix = [*automatic[:_IN_MATRICES], *own]
        others = [next((g for g in c.groups if g.signature == group.signature), None)
                  for c in comparisons]  # fmt: skip
        found = [correlations(group.truth, g.generated, matrix) for g in others if g is not None]
        pairs = correlated_pairs(found[0])
        planes = [plane_ratio(group.truth, group.generated, pair) for pair in pairs]
        details.append(GroupDetails(chosen, found, planes))
    stage("peaks")
    fitted = peaks(truth, *(s.events for s in samples))
    stage("laws")
    events = samples[0].events
    laws = check_sample(events.chunks(20_000), events.run)
    return Measurements(truth, list(samples), comparisons, details, fitted, laws)


def _filled(automatic: list[Observable], own: list[Observable]) -> list[Observable]:
    """Observables to show: those of the user after others, in complete rows of three."""
    n = min(len(automatic), max(SHOWN_OBSERVABLES - len(own), 3))
    if n + len(own) > 3:
        n -= min((n + len(own)) % 3, n)
    return [*automatic[:n], *own]


def _roc(group: GroupComparison) -> dict[str, list[list[float]]]:
    """Fractions of truth and generated above thresholds, and the same of truth with truth."""
    step = (group.judged.roc.shape[1] - 1) // (_ROC_POINTS - 1)
    return {
        "generated": group.judged.roc[:, ::step].tolist(),
        "truth against truth": group.judged_floor.roc[:, ::step].tolist(),
    }


def _correlations(c: Correlations) -> dict[str, Any]:
    i, j = c.worst
    return {
        "observables": [o.name for o in c.observables],
        "truth": c.truth.tolist(),
        "generated": c.generated.tolist(),
        "pulls": c.pulls.tolist(),
        "worst_pair": [c.observables[i].name, c.observables[j].name],
        "worst_pull": float(c.pulls[i, j]),
        "rms_pull": c.rms_pull,
    }


def _rates(
    f: Frequencies, truth: EventSample, generated: EventSample, spreads: dict[str, float]
) -> list[dict[str, Any]]:
    """Fractions with their statistical errors, the most frequent first."""
    sizes = [Labelled("", s).effective_events for s in (truth, generated)]
    return [
        {
            "name": f.names[i],
            "truth": float(f.truth[i]),
            "truth_error": float(np.sqrt(f.truth[i] * (1 - f.truth[i]) / sizes[0])),
            "generated": float(f.generated[i]),
            "generated_error": float(np.sqrt(f.generated[i] * (1 - f.generated[i]) / sizes[1])),
            "model_error": spreads.get(f.names[i]),
            "pull": float(f.pulls[i]),
        }
        for i in np.argsort(-f.truth, kind="stable")
    ]


def finite(value: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON does not allow."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
