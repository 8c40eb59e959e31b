"""Named weights of generated events against those of truth."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.analysis.metrics import bin_edges, histogram_chi2, shared_observables
from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.validation.comparison import Comparison

if TYPE_CHECKING:
    from hepgen_ml.generation.generator import Generator

FloatArray = npt.NDArray[np.float64]

_OF_MODEL = re.compile(r"(posterior|classifier)_\d+")
"""Weights of the model that truth does not have."""

_MOST_VALUES, _FEWEST_EVENTS, _MOST_EVENTS = 3_000_000, 5_000, 50_000
"""Events times weights that go into histograms of each observable, and bounds of the events."""


def compare_variations(
    truth: EventSample,
    generated: EventSample,
    comparison: Comparison,
    generator: Generator | None = None,
) -> list[dict[str, Any]]:
    """Measurements of each named weight of both samples.

    Parameters
    ----------
    truth, generated : EventSample
    comparison : Comparison
        Of the two; its observables are taken.
    generator : Generator, optional
        To predict the ratios of the events of truth.

    Returns
    -------
    list of dict
        For each weight ``name``; ``truth`` and ``generated``, its cross section over the nominal
        one, with ``truth_error`` and ``generated_error``, and their ``pull``; the largest
        ``chi2_per_ndf`` of a distribution with this weight, its ``observable``, and
        ``chi2_per_ndf_nominal`` of the same with the nominal weight. With a generator that has
        learned the weight: ``median_error`` of the ratio for the events of truth, and
        ``pull_width``, half the width of the central 68 % of its deviations over their errors.
    """
    names = [
        name for name, w in truth.weights.items()
        if name in generated.weights and not _OF_MODEL.fullmatch(name)
        and np.isfinite(w).all() and np.isfinite(generated.weights[name]).all()
    ]  # fmt: skip
    if not names:
        return []
    ratios = _predicted(truth, generator)
    shapes = _shapes(names, truth, generated, comparison)
    rows = []
    for name in names:
        sums = [_over_nominal(s, name) for s in (truth, generated)]
        error = float(np.hypot(sums[0][1], sums[1][1]))
        row: dict[str, Any] = {
            "name": name,
            "truth": sums[0][0], "truth_error": sums[0][1],
            "generated": sums[1][0], "generated_error": sums[1][1],
            "pull": (sums[1][0] - sums[0][0]) / error if error > 0 else 0.0,
            **shapes[name],
        }  # fmt: skip
        rows.append(row | ratios.get(name, {}))
    return rows


def _over_nominal(sample: EventSample, name: str) -> tuple[float, float]:
    """Sum of a weight over that of the nominal one, and its statistical error."""
    w, nominal = sample.weights[name], sample.weight
    value = w.sum() / nominal.sum()
    return float(value), float(np.sqrt(np.sum((w - value * nominal) ** 2)) / abs(nominal.sum()))


def _shapes(
    names: list[str], truth: EventSample, generated: EventSample, comparison: Comparison
) -> dict[str, dict[str, Any]]:
    """Largest chi2/ndf with each weight, by name."""
    n = int(np.clip(_MOST_VALUES // len(names), _FEWEST_EVENTS, _MOST_EVENTS))
    found: dict[str, dict[str, Any]] = {
        name: {"chi2_per_ndf": None, "observable": None, "chi2_per_ndf_nominal": None}
        for name in names
    }
    for group in comparison.groups:
        rng = np.random.default_rng(0)
        rows = [rng.permutation(len(t))[:n] for t in (group.truth, group.generated)]
        index = [t.index[r] for t, r in zip((group.truth, group.generated), rows, strict=True)]
        for o in shared_observables(group.truth, group.generated):
            a, b = group.truth[o.name][rows[0]], group.generated[o.name][rows[1]]
            edges = bin_edges([a, b], o)
            nominal = _per_ndf(a, b, edges, truth.weight[index[0]], generated.weight[index[1]])
            for name in names:
                value = _per_ndf(
                    a, b, edges, truth.weights[name][index[0]], generated.weights[name][index[1]]
                )
                before = found[name]["chi2_per_ndf"]
                if value is not None and (before is None or value > before):
                    found[name] = {
                        "chi2_per_ndf": value,
                        "observable": f"{o.name}, {group.signature}",
                        "chi2_per_ndf_nominal": nominal,
                    }
    return found


def _per_ndf(
    a: npt.NDArray[Any], b: npt.NDArray[Any], edges: FloatArray, of_a: FloatArray, of_b: FloatArray
) -> float | None:
    """The chi2/ndf of two histograms; None where weights do not have positive sums."""
    try:
        test = histogram_chi2(a, b, edges, of_a, of_b)
    except SampleError:
        return None
    return float(test.per_ndf) if test.ndf > 0 else None


def _predicted(truth: EventSample, generator: Generator | None) -> dict[str, dict[str, float]]:
    """Errors and pulls of predicted ratios for the events of truth that the model describes."""
    if generator is None or generator.ratios is None:
        return {}
    inside = generator.process.encode(truth).event.numpy()
    known = truth[np.sort(inside)[:_MOST_EVENTS]]
    known = known[known.weight != 0]
    if not len(known):
        return {}
    ratio, error = generator.weight_ratios(known)
    found = {}
    for k, name in enumerate(generator.ratios.names):
        if name not in known.weights:
            continue
        true = known.weights[name] / known.weight
        off = np.abs(ratio[:, k] - true)
        free = error[:, k] > 0  # what is exact in some subprocesses must not hide the others
        seen = free if free.any() else np.ones_like(free)
        size = np.abs(true[seen])
        size = size if (true > 0).all() else size.mean()
        found[name] = {"median_error": float(np.median(off[seen] / np.maximum(size, 1e-300)))}
        if free.any():
            width = np.quantile(off[free] / error[free, k], 0.6827)
            found[name]["pull_width"] = float(width)
    return found
