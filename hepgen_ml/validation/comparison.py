"""Complete comparison of generated events with truth, as numbers and as text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from hepgen_ml.analysis.classifier import AUC, Judgement, judge
from hepgen_ml.analysis.final_states import Signature
from hepgen_ml.analysis.frequencies import Frequencies, Kind, frequencies
from hepgen_ml.analysis.metrics import N_BINS, Marginal, marginals
from hepgen_ml.analysis.observables import ObservableTable, observables
from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.validation.user_observables import ObservableFunction, extended

MIN_GROUP, FEWEST = 1000, 400
"""Groups with fewer events in either sample are only counted, not compared; where all have fewer,
as in long decay chains, the largest ones are, down to the latter: a classifier needs 200 events of
each half of the truth."""


@dataclass(frozen=True)
class GroupComparison:
    """One final state. Each ``floor`` is truth against truth by the same procedure.

    Attributes
    ----------
    signature : Signature
    truth, generated : ObservableTable
        Kinematics of the events.
    judged, judged_floor : Judgement
        On the kinematics.
    judged_full, judged_full_floor : Judgement
        With flavours, helicities and colour flow among the inputs.
    marginals, marginals_floor : list of Marginal
    """

    signature: Signature
    truth: ObservableTable
    generated: ObservableTable
    judged: Judgement
    judged_floor: Judgement
    judged_full: Judgement
    judged_full_floor: Judgement
    marginals: list[Marginal]
    marginals_floor: list[Marginal]

    @property
    def areas(self) -> dict[str, AUC]:
        """AUC of every judgement: ``auc``, ``auc_floor``, ``auc_full``, ``auc_full_floor``."""
        return {
            "auc": self.judged.auc,
            "auc_floor": self.judged_floor.auc,
            "auc_full": self.judged_full.auc,
            "auc_full_floor": self.judged_full_floor.auc,
        }


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`.

    Attributes
    ----------
    groups : list of GroupComparison
        The largest first.
    left_out : float
        Fraction of the truth events in groups too small to compare.
    frequencies, frequencies_floor : dict of kind to Frequencies
    seconds : float
        Wall time.
    """

    groups: list[GroupComparison]
    left_out: float
    frequencies: dict[str, Frequencies]
    frequencies_floor: dict[str, Frequencies]
    seconds: float = field(default=0.0, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return {
            "groups": [
                {
                    "final_state": str(g.signature),
                    "n_truth": len(g.truth),
                    "n_generated": len(g.generated),
                    **{
                        name: {
                            "value": auc.value,
                            "error": auc.error,
                            "events_per_sample": auc.n_events,
                        }
                        for name, auc in g.areas.items()
                    },
                    "marginals": {
                        m.observable.name: {
                            "chi2": m.test.chi2,
                            "ndf": m.test.ndf,
                            "p_value": m.test.p_value,
                            "chi2_per_ndf_floor": floor,
                        }
                        for m, floor in with_floor(g)
                    },
                }
                for g in self.groups
            ],
            "left_out": self.left_out,
            "frequencies": {
                kind: {
                    "categories": len(f.names),
                    "chi2": f.test.chi2,
                    "ndf": f.test.ndf,
                    "p_value": f.test.p_value,
                    "worst": f.names[f.worst],
                    "worst_pull": float(f.pulls[f.worst]),
                    "worst_p_value": f.worst_p_value,
                    "truth": dict(zip(f.names, f.truth.tolist(), strict=True)),
                    "generated": dict(zip(f.names, f.generated.tolist(), strict=True)),
                }
                for kind, f in self.frequencies.items()
            },
            "seconds": self.seconds,
        }

    def summary(self) -> str:
        """Table for a terminal."""
        lines = []
        for g in self.groups:
            lines += [
                f"{g.signature}: {len(g.truth)} truth, {len(g.generated)} generated events",
                f"  {'classifier AUC':<34}{'generated':>18}{'truth vs truth':>18}",
                f"  {'  kinematics':<34}{g.judged.auc!s:>18}{g.judged_floor.auc!s:>18}",
                f"  {'  + flavours, helicities, colours':<34}{g.judged_full.auc!s:>18}"
                f"{g.judged_full_floor.auc!s:>18}",
                f"  {'chi2/ndf':<34}{'generated':>18}{'truth vs truth':>18}{'ndf':>6}{'p':>8}",
            ]
            lines += [
                f"    {m.observable.name:<32}{m.test.per_ndf:>18.2f}{floor:>18.2f}{m.test.ndf:>6}"
                f"{m.test.p_value:>8.3f}"
                for m, floor in with_floor(g)
            ]
            means = [
                np.mean([m.test.per_ndf for m in ms]) if ms else float("nan")
                for ms in (g.marginals, g.marginals_floor)
            ]
            lines += [f"    {'mean':<32}{means[0]:>18.2f}{means[1]:>18.2f}", ""]
        if self.left_out:
            lines += [
                f"{self.left_out:.2%} of the truth is in final states too rare to compare",
                "",
            ]
        lines.append(
            f"{'frequencies':<14}{'categories':>11}{'chi2/ndf':>10}{'p':>8}{'floor p':>9}"
            f"{'worst pull':>12}{'p':>8}  where"
        )
        for kind, f in self.frequencies.items():
            floor_test = self.frequencies_floor.get(kind)
            floor = floor_test.test.p_value if floor_test else float("nan")
            lines.append(
                f"{kind:<14}{len(f.names):>11}{f.test.per_ndf:>10.2f}{f.test.p_value:>8.3f}"
                f"{floor:>9.3f}{f.pulls[f.worst]:>+12.2f}{f.worst_p_value:>8.3f}"
                f"  {f.names[f.worst]}"
            )
        return "\n".join(lines)


def _has_labels(*tables: ObservableTable) -> bool:
    """Whether any discrete column differs between events."""
    for o in tables[0].observables:
        if o.discrete and len(np.unique(np.concatenate([t[o.name] for t in tables]))) > 1:
            return True
    return False


def with_floor(group: GroupComparison) -> list[tuple[Marginal, float]]:
    """Marginals of a group, each with chi2/ndf of truth against truth (nan without)."""
    floor = {m.observable.name: m.test.per_ndf for m in group.marginals_floor}
    return [(m, floor.get(m.observable.name, float("nan"))) for m in group.marginals]


def compare(
    truth: EventSample,
    generated: EventSample,
    *,
    n_marginal: int | None = 50_000,
    n_classifier: int = 100_000,
    n_bins: int = N_BINS,
    seed: int = 0,
    user: ObservableFunction | None = None,
    floor: Comparison | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Compare generated events with truth that the generator never saw.

    Parameters
    ----------
    truth, generated : EventSample
        Half of the truth against the other half is the floor.
    n_marginal, n_classifier : int
        At most so many events of each sample, per final state; None: all.
    n_bins : int
        Number of bins of each marginal. A perfect generator has chi2/ndf = 1 with a standard
        deviation of sqrt(2/n_bins): with 50 bins and 20 observables one in five
        comparisons has a value above 1.5 somewhere, which the p-values show.
    seed : int
    user : callable, optional
        Further observables, which are treated like all others.
    floor : Comparison, optional
        Earlier comparison with the same truth, from which truth against truth is taken.
    progress : callable
        Called with the name of the stage.

    Raises
    ------
    SampleError
        No final state has enough events in both samples.
    """
    start = time.perf_counter()
    # one computation for both: the kinematics are the columns that are not discrete
    tables = [extended(observables(s, discrete=True), s, user) for s in (truth, generated)]
    known = {g.signature: g for g in floor.groups} if floor else {}
    rng = np.random.default_rng(seed)
    groups, compared = [], 0
    common = {s: min(len(t), len(tables[1][s])) for s, t in tables[0].items() if s in tables[1]}
    fewest = max(min(MIN_GROUP, max(common.values(), default=0)), FEWEST)
    for signature, full in tables[0].items():
        if common.get(signature, 0) < fewest:
            continue
        other = tables[1][signature]
        progress(str(signature))
        compared += len(full)
        order = rng.permutation(len(full))
        pairs = [(full, other)]
        if signature not in known:
            pairs.append((full.take(order[::2]), full.take(order[1::2])))
        kinematic = [(a.kinematics(), b.kinematics()) for a, b in pairs]
        judged = [judge(*p, n_events=n_classifier, seed=seed) for p in kinematic]
        judged_full = judged[:]
        if _has_labels(full, other):
            judged_full = [judge(*p, n_events=n_classifier, seed=seed) for p in pairs]
        chi2 = [marginals(*p, n_events=n_marginal, n_bins=n_bins) for p in kinematic]
        if signature in known:
            before = known[signature]
            judged.append(before.judged_floor)
            judged_full.append(before.judged_full_floor)
            chi2.append(before.marginals_floor)
        groups.append(
            GroupComparison(
                signature, *kinematic[0], judged[0], judged[1], judged_full[0], judged_full[1],
                marginals=chi2[0], marginals_floor=chi2[1],
            )
        )  # fmt: skip
    if not groups:
        raise SampleError(
            f"no final state has {FEWEST} events in both samples",
            remedy="compare more events, or events of the same process",
        )
    progress("frequencies")
    # objects have no flavour beyond that of their final state
    kinds = [k for k in get_args(Kind) if not (truth.is_reconstructed and k == "subprocess")]
    found = {k: frequencies(truth, generated, k) for k in kinds}
    if floor is None:
        half = rng.permutation(len(truth))
        halves = truth[half[::2]], truth[half[1::2]]
        chance = {k: frequencies(*halves, k) for k in kinds}
    else:
        chance = dict(floor.frequencies_floor)
    return Comparison(
        groups,
        1 - compared / len(truth),
        {k: f for k, f in found.items() if f is not None},
        {k: f for k, f in chance.items() if f is not None},
        time.perf_counter() - start,
    )
