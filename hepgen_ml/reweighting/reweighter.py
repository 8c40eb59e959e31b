r"""Weights that turn one sample into another.

A classifier between truth and generated events, trained with equal numbers of
both, tends to D(x) = p(x)/(p(x) + q(x)), so that

.. math:: w(x) = D(x) / (1 - D(x)) = p(x) / q(x)

(arXiv:2305.10475, section 5; 2305.16774). Every final state has separate classifiers, and the ratio
of its frequencies is a factor. Each of K classifiers leaves out a different part of the events: its
output there measures overfitting and calibrates it, and the spread of the classifiers is the
uncertainty of the weights. New events get the mean of their logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepgen_ml.analysis.final_states import Signature
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import EventSample, FloatArray
from hepgen_ml.events.source import Progress
from hepgen_ml.events.weights import effective_size, unweighting_limit
from hepgen_ml.process.conditions import Condition
from hepgen_ml.process.symmetry import has_equal_beams
from hepgen_ml.reweighting.classifiers import NetworkName
from hepgen_ml.reweighting.features import Group, groups
from hepgen_ml.reweighting.folds import NONE, Folds, GroupRatio
from hepgen_ml.reweighting.storage import load_classifiers, save_classifiers
from hepgen_ml.reweighting.training import Schedule

MIN_EVENTS = 500
"""Minimum number of events in each sample; rarer final states have the ratio of frequencies
only."""

_PRIOR = 10.0  # pseudo-events of either sample in every final state


class Reweighter:
    """Weights that turn one sample into another, from classifiers between the two.

    `fit` and `load` create one.

    Attributes
    ----------
    network : str
        Name of the classifier network.
    ratios : dict of Signature to GroupRatio
        Classifiers and ratio of frequencies of each final state.
    facts : dict
        Numbers about the training, as plain values; ``groups`` has those of each final state.
    held_out, held_out_truth : (n,) and (m,) float array, or None
        Weights of the generated and of the true events after `fit`, each from the classifier
        that was not trained on the event. The mean of the former is one. They are not stored.
    """

    def __init__(
        self,
        network: NetworkName,
        ratios: dict[Signature, GroupRatio],
        full: bool,
        facts: dict[str, Any],
        held_out: FloatArray | None = None,
        held_out_truth: FloatArray | None = None,
    ) -> None:
        self.network, self.ratios, self.full, self.facts = network, ratios, full, facts
        self.held_out, self.held_out_truth = held_out, held_out_truth

    @classmethod
    def fit(
        cls,
        truth: EventSample,
        generated: EventSample,
        *,
        network: NetworkName = "trees+mlp",
        folds: int = 5,
        full: bool = False,
        schedule: Schedule | None = None,
        seed: int = 0,
        device: torch.device | None = None,
        progress: Progress | None = None,
        conditions: Sequence[Condition] = (),
    ) -> Reweighter:
        """Train classifiers between two samples.

        Parameters
        ----------
        truth, generated : EventSample
            The samples, with their weights of either sign. The generator must not have been
            trained on `truth`, because it overfits its own training events.
        network : str
            Of `hepgen_ml.reweighting.classifiers.NETWORKS`.
        folds : int
            Classifiers per final state, each without one part of the events.
        full : bool
            Also flavours, helicities, colour flow, scale and coupling; for samples of one
            program, because programs differ in these by convention.
        schedule : Schedule, optional
            Schedule of the training; its time is that of all classifiers together.
        seed : int
            Seed of all random numbers.
        device : torch.device, optional
        progress : callable, optional
            Called with stage, done, total and a dict of numbers.
        conditions : sequence of Condition
            Of the user, which both samples have: weights depend on them.

        Raises
        ------
        UsageError
            Fewer than two folds.
        SampleError
            The samples share no final state, or one's weights do not sum to a positive number.
        """
        if folds < 2:
            raise UsageError(f"{folds} folds are too few", remedy="use 2 at least, say 5")
        schedule = schedule or Schedule()
        both, exchange = _by_final_state(truth, generated, full, conditions)
        sums = [sample.weight.sum() for sample in (truth, generated)]
        sizes = [len(sample) for sample in (truth, generated)]
        large = max(sum(_trainable(both, s) for s in both[1]), 1)
        schedule = replace(schedule, seconds=schedule.seconds / (large * folds))
        ratios, done = {}, 0
        held_out, of_truth = np.ones(len(generated)), np.ones(len(truth))

        def report(fraction: float) -> None:
            if progress is not None:
                progress("classifier", done + fraction, float(large * folds), {})

        for signature, made in both[1].items():
            true = both[0].get(signature)
            rate = _rate(true, made, sums, sizes)
            if true is None or not _trainable(both, signature):
                ratios[signature] = GroupRatio([], NONE, NONE, rate)
                held_out[made.index] = rate
                if true is not None:
                    of_truth[true.index] = rate
            else:
                maker = Folds(true, made, network, folds, schedule, seed, device)
                members = []
                for k in range(folds):
                    members.append(maker.member(k, report))
                    done += 1
                ratio, log_weight = maker.finish(members, rate)
                ratios[signature] = ratio
                of_truth[true.index] = np.exp(log_weight[: len(true)])
                held_out[made.index] = np.exp(log_weight[len(true) :])
            ratios[signature].facts |= {
                "truth_events": 0 if true is None else len(true),
                "generated_events": len(made),
                "rate": rate,
            }
        missing = sum(float(g.weight.sum()) for s, g in both[0].items() if s not in both[1])
        mean = float(np.average(held_out, weights=generated.weight))
        held_out, of_truth = held_out / mean, of_truth / mean
        facts = {
            "network": network,
            "folds": folds,
            "full": full,
            "exchange_beams": exchange,
            **({"conditions": [c.to_config() for c in conditions]} if conditions else {}),
            "truth_events": len(truth),
            "generated_events": len(generated),
            "truth_without_counterpart": missing / sums[0],
            "mean_weight_before_normalisation": mean,
            "effective_sample_size": effective_size(held_out * generated.weight) / len(generated),
            "largest_weight": float(held_out.max()),
            "unweighting_limit": unweighting_limit(held_out),
            "seed": seed,
            "groups": {str(s): r.facts for s, r in ratios.items()},
        }
        return cls(network, ratios, full, facts, held_out, of_truth)

    @property
    def exchange(self) -> bool:
        """Whether the classifiers treat an event and its image with exchanged beams alike."""
        return bool(self.facts["exchange_beams"])

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Conditions of the user that weights depend on."""
        return tuple(map(Condition.from_config, self.facts.get("conditions", ())))

    @property
    def n_members(self) -> int:
        """Number K of classifiers of each final state."""
        return int(self.facts["folds"])

    def weights(self, sample: EventSample) -> tuple[FloatArray, FloatArray]:
        """Weights of events, nominal (n,) and of each classifier (K, n).

        Not normalised. Events of final states that were not in the generated sample of
        the training have weight one.
        """
        nominal, members = np.ones(len(sample)), np.ones((self.n_members, len(sample)))
        trained = {s: ratio.names for s, ratio in self.ratios.items() if ratio.names}
        for signature, group in groups(
            sample, full=self.full, conditions=self.conditions, trained=trained
        ).items():
            ratio = self.ratios.get(signature)
            if ratio is None:
                continue
            if ratio.names and ratio.names != group.names:
                raise SampleError(
                    f"events of {signature} have other numbers than those of the training: "
                    f"{_difference(group.names, ratio.names)}",
                    remedy="give events of the same format and program, or make the classifier "
                    "anew with `hepgen-ml reweight`",
                )
            seen = group.folded() if self.exchange else group
            one, each = ratio.log_weights(seen.inputs)
            nominal[group.index], members[:, group.index] = np.exp(one), np.exp(each)
        return nominal, members

    def save(self, directory: Path) -> Path:
        """Write the classifiers into a directory as one file."""
        return save_classifiers(directory, self.ratios, self.facts)

    @classmethod
    def load(cls, directory: Path, device: torch.device | None = None) -> Reweighter:
        """Read what `save` wrote.

        Raises
        ------
        ModelError
            Missing, damaged, of another version, or with other outputs than when stored.
        """
        return cls(*load_classifiers(directory, device))


def _difference(found: Sequence[str], wanted: Sequence[str]) -> str:
    """What some columns lack, or have too many, of others."""
    if missing := [name for name in wanted if name not in found]:
        return f"they lack {', '.join(missing[:5])}"
    more = [name for name in found if name not in wanted]
    return f"also {', '.join(more[:5])}" if more else "they are in another order"


def _rate(truth: Group | None, generated: Group, sums: list[float], sizes: list[int]) -> float:
    """Ratio of the frequencies of a final state, regularised towards one for rare ones."""
    shares = [
        (0.0 if g is None else float(g.weight.sum()) / total * n) + _PRIOR
        for g, total, n in zip((truth, generated), sums, sizes, strict=True)
    ]
    return float(max(shares[0], 0.0) / sizes[0] / (shares[1] / sizes[1])) if shares[1] > 0 else 1.0


def _by_final_state(
    truth: EventSample, generated: EventSample, full: bool, conditions: Sequence[Condition]
) -> tuple[list[dict[Signature, Group]], bool]:
    """Events of both samples by final state, and whether the exchange of beams is a symmetry.

    Raises
    ------
    SampleError
        The samples share no final state, or one's weights do not sum to a positive number.
    """
    for name, sample in (("truth", truth), ("generated sample", generated)):
        if not sample.weight.sum() > 0:
            raise SampleError(
                f"the {name} has no positive sum of weights", remedy="check its weights"
            )
    samples = (truth, generated)
    made = groups(generated, full=full, conditions=conditions)
    seen = {signature: group.names for signature, group in made.items()}
    both = [groups(truth, full=full, conditions=conditions, trained=seen), made]
    if not set(both[0]) & set(both[1]):
        raise SampleError(
            "the samples share no final state", remedy="compare events of the same process"
        )
    # labels of incoming partons would have to change places
    exchange = not full and all(has_equal_beams(sample.run) for sample in samples)
    exchange = exchange and all(g.looks_symmetric() for side in both for g in side.values())
    if exchange:
        both = [{s: g.folded() for s, g in side.items()} for side in both]
    return both, exchange


def _trainable(both: list[dict[Signature, Group]], signature: Signature) -> bool:
    found = [groups.get(signature) for groups in both]
    if any(g is None or len(g) < MIN_EVENTS or not g.weight.sum() > 0 for g in found):
        return False
    # the same programs and readers: columns can differ only where a sample lacks them
    return found[0].names == found[1].names  # type: ignore[union-attr]
