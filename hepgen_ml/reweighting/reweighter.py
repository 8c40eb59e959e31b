r"""Weights that turn one sample into another.

A classifier between truth and generated events, trained with equal numbers of
both, tends to D(x) = p(x)/(p(x) + q(x)), so that

.. math:: w(x) = D(x) / (1 - D(x)) = p(x) / q(x)

(arXiv:2305.10475, section 5; 2305.16774). Every final state has classifiers of its
own, and the ratio of its frequencies is a factor. K classifiers leave out a
different part of the events each: what they give there shows whether they
over-fit, calibrates them, and their spread is the uncertainty of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.errors import HepgenError, ModelError, SampleError, UsageError
from hepgen_ml.events import EventSample, FloatArray
from hepgen_ml.reweighting.features import Group, Inputs, groups
from hepgen_ml.reweighting.networks import Classifier, NetworkName, build
from hepgen_ml.reweighting.training import Labelled, Schedule, logits_of, loss_of, train
from hepgen_ml.training.checkpoint import load_tensors, save_tensors
from hepgen_ml.validation.classifier import weighted_auc
from hepgen_ml.validation.layouts import Signature
from hepgen_ml.validation.metrics import effective_size

FILE = "classifier.safetensors"
"""Name inside a model directory."""

MIN_EVENTS = 500
"""Final states with fewer events in either sample only have the ratio of their frequencies."""

MAX_LOG_WEIGHT = math.log(100.0)
"""Weights stay between 1/100 and 100 of those of their final state."""

_KIND, _VERSION = "hepgen-ml classifier", 1
_PRIOR = 10.0  # events that either sample is thought to have in every final state
_VALIDATION = 0.1

Progress = Callable[[str, float, float | None, dict[str, float]], None]


@dataclass(frozen=True)
class Calibration:
    """Logarithm of the weight as a function of the mean logit: slope * logit + offset."""

    slope: float
    offset: float


@dataclass
class GroupRatio:
    """Ratio of densities of one final state.

    Attributes
    ----------
    networks : list of Classifier
        None where there are too few events.
    calibration : Calibration
    rate : float
        Ratio of the frequencies of this final state.
    facts : dict
        What was found in training.
    """

    networks: list[Classifier]
    calibration: Calibration
    rate: float
    facts: dict[str, Any] = field(default_factory=dict)

    def log_weights(self, inputs: Inputs) -> FloatArray:
        """Logarithms (K, n) of the weights that each classifier gives; (1, n) without any."""
        if not self.networks:
            return np.full((1, len(inputs)), _log(self.rate))
        return self.calibrated(torch.stack([logits_of(n, inputs) for n in self.networks]))

    def calibrated(self, logits: Tensor) -> FloatArray:
        """Logarithms of weights from logits of any shape."""
        c = self.calibration
        shaped = (c.slope * logits + c.offset).clamp(-MAX_LOG_WEIGHT, MAX_LOG_WEIGHT)
        return np.asarray(shaped.numpy()) + _log(self.rate)


class Reweighter:
    """Weights from a sample to another, made by `fit` or `load`.

    Attributes
    ----------
    network : str
        Name of the classifier network.
    ratios : dict of Signature to GroupRatio
    facts : dict
        About the training, plain values; ``groups`` by final state.
    held_out, held_out_truth : (n,) and (m,) float array, or None
        After `fit`, weights of the generated and of the true events, each from the classifier
        that was not trained on it; the mean of the former is one. Not stored.
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
        network: NetworkName = "mlp",
        folds: int = 5,
        full: bool = False,
        schedule: Schedule | None = None,
        seed: int = 0,
        device: torch.device | None = None,
        progress: Progress | None = None,
    ) -> Reweighter:
        """Train classifiers between two samples.

        Parameters
        ----------
        truth, generated : EventSample
            Their weights count, signed ones too. The generator must not have been
            trained on `truth`: it would look better there than it is.
        network : {"mlp", "transformer", "lgatr"}
        folds : int
            Classifiers per final state, each without one part of the events.
        full : bool
            Also flavours, helicities, colour flow, scale and coupling; for samples of one
            program, because programs differ in these by convention.
        schedule : Schedule, optional
            Its seconds are for all classifiers together.
        seed : int
        device : torch.device, optional
        progress : callable, optional
            Called with stage, done, total and a dict of numbers.

        Raises
        ------
        UsageError
            Fewer than two folds.
        SampleError
            The samples share no final state, or one's weights do not sum to a positive number.
        """
        if folds < 2:
            raise UsageError(f"{folds} folds", remedy="use 2 at least, say 5")
        schedule = schedule or Schedule()
        for name, sample in (("truth", truth), ("generated sample", generated)):
            if not sample.weight.sum() > 0:
                raise SampleError(
                    f"the {name} has no positive sum of weights", remedy="check its weights"
                )
        both = [groups(sample, full=full) for sample in (truth, generated)]
        if not set(both[0]) & set(both[1]):
            raise SampleError(
                "the samples share no final state", remedy="compare events of the same process"
            )
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
                ratios[signature] = GroupRatio([], Calibration(0.0, 0.0), rate)
                held_out[made.index] = rate
                if true is not None:
                    of_truth[true.index] = rate
            else:
                maker = _Maker(true, made, network, folds, schedule, seed, device)
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
    def n_members(self) -> int:
        """Number K of classifiers of each final state."""
        return int(self.facts["folds"])

    def weights(self, sample: EventSample) -> tuple[FloatArray, FloatArray]:
        """Weights of events, nominal (n,) and of each classifier (K, n).

        Not normalised. Events of final states that were not in the generated sample of
        the training have weight one.
        """
        nominal, members = np.ones(len(sample)), np.ones((self.n_members, len(sample)))
        for signature, group in groups(sample, full=self.full).items():
            ratio = self.ratios.get(signature)
            if ratio is None:
                continue
            log_w = ratio.log_weights(group.inputs)
            nominal[group.index] = np.exp(log_w.mean(0))
            members[:, group.index] = np.exp(log_w)
        return nominal, members

    def save(self, directory: Path) -> Path:
        """Write the classifiers into a directory as one file."""
        tensors: dict[str, Tensor] = {}
        described = []
        for number, (signature, ratio) in enumerate(self.ratios.items()):
            for k, network in enumerate(ratio.networks):
                tensors |= {f"{number}.{k}.{n}": t for n, t in network.state_dict().items()}
            described.append(
                {
                    "final": list(signature.final),
                    "resonances": list(signature.resonances),
                    "members": len(ratio.networks),
                    "calibration": asdict(ratio.calibration),
                    "rate": ratio.rate,
                }
            )
        document = {"kind": _KIND, "version": _VERSION, "groups": described, "facts": self.facts}
        path = directory / FILE
        save_tensors(path, tensors or {"none": torch.zeros(1)}, document)
        return path

    @classmethod
    def load(cls, directory: Path, device: torch.device | None = None) -> Reweighter:
        """Read what `save` wrote.

        Raises
        ------
        ModelError
            Missing, damaged, or of a newer version.
        """
        path, retrain = directory / FILE, "make it anew with `hepgen-ml reweight`"
        try:
            tensors, document = load_tensors(path)
            if document.get("kind") != _KIND or int(document["version"]) > _VERSION:
                raise ValueError("no classifier, or of a newer version")
            facts = dict(document["facts"])
            name, ratios = facts["network"], {}
            if not 1 <= int(facts["folds"]) <= 1000 or not facts["unweighting_limit"] > 0:
                raise ValueError("impossible numbers")
            for number, group in enumerate(document["groups"]):
                members = [
                    _restored(name, tensors, f"{number}.{k}.").to(device or "cpu")
                    for k in range(int(group["members"]))
                ]
                calibration = Calibration(
                    *(float(group["calibration"][n]) for n in ("slope", "offset"))
                )
                signature = Signature(
                    *(tuple(int(c) for c in group[n]) for n in ("final", "resonances"))
                )
                ratios[signature] = GroupRatio(members, calibration, float(group["rate"]))
            return cls(name, ratios, bool(facts["full"]), facts)
        except ModelError:
            raise
        except (HepgenError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise ModelError(f"is damaged: {first}", path=path, remedy=retrain) from None


class _Maker:
    """Classifiers of one final state, fold by fold."""

    def __init__(
        self,
        truth: Group,
        generated: Group,
        network: NetworkName,
        folds: int,
        schedule: Schedule,
        seed: int,
        device: torch.device | None,
    ) -> None:
        self.network: NetworkName = network
        self.folds, self.schedule, self.seed = folds, schedule, seed
        self.device = device or torch.device("cpu")
        n = len(truth) + len(generated)
        weights = [torch.from_numpy(g.weight / g.weight.sum() * n / 2) for g in (truth, generated)]
        self.events = Labelled(
            Inputs.join(truth.inputs, generated.inputs),
            torch.cat([torch.ones(len(truth)), torch.zeros(len(generated))]),
            torch.cat(weights).float(),
        )
        rng = np.random.default_rng(seed)
        # each sample is divided by itself, so that every part holds its share of both
        parts = [rng.permutation(len(g)) % folds for g in (truth, generated)]
        self.fold = torch.from_numpy(np.concatenate(parts))
        self.logits = torch.zeros(n, dtype=torch.float64)
        self.training_areas: list[float] = []
        self.epochs: list[float] = []

    def member(self, k: int, report: Callable[[float], None]) -> Classifier:
        """Classifier that does not know part k."""
        torch.manual_seed(1000 * self.seed + k)
        known = torch.nonzero(self.fold != k).squeeze(-1)
        order = known[torch.randperm(len(known))]
        n_validation = max(int(_VALIDATION * len(order)), 1)
        validation, training = self.events[order[:n_validation]], self.events[order[n_validation:]]
        labels = self.events.inputs.labels
        categories = [torch.unique(labels[:, i]) for i in range(labels.shape[1])]
        network = build(
            self.network, self.events.inputs.values.shape[1], categories,
            self.events.inputs.particles.shape[1],
        ).to(self.device)  # fmt: skip
        found = train(
            network, training, validation, self.schedule, seed=self.seed + k, progress=report
        )
        self.epochs.append(found["epochs"])
        unknown = torch.nonzero(self.fold == k).squeeze(-1)
        self.logits[unknown] = logits_of(network, self.events.inputs[unknown])
        some = training[torch.arange(min(len(training), 4 * len(unknown)))]
        self.training_areas.append(_area(logits_of(network, some.inputs), some))
        return network

    def finish(self, members: list[Classifier], rate: float) -> tuple[GroupRatio, FloatArray]:
        """Calibrated ratio, and logarithms of held-out weights, of truth first."""
        calibration = calibrate(self.logits, self.events)
        area = _area(self.logits, self.events)
        ratio = GroupRatio(
            members,
            calibration,
            rate,
            {
                "auc_held_out": area,
                "auc_in_training": float(np.mean(self.training_areas)),
                "slope": calibration.slope,
                "offset": calibration.offset,
                "loss_held_out": float(loss_of(self.logits.float(), self.events)),
                "epochs": self.epochs,
            },
        )
        return ratio, ratio.calibrated(self.logits)


def calibrate(logits: Tensor, events: Labelled) -> Calibration:
    """Slope and offset that minimise the loss on held-out events, by Newton's method.

    A slope below one undoes over-confidence; it is kept between zero and two.
    """
    x = torch.stack([logits, torch.ones_like(logits)], dim=1)
    parameters = torch.tensor([1.0, 0.0], dtype=torch.float64)
    # a weak prior at (1, 0): where the logit hardly varies, its slope is not determined
    prior = torch.diag(torch.tensor([10.0, 10.0], dtype=torch.float64))
    start = parameters.clone()
    truth, weight = events.truth.double(), events.weight.double()
    for _ in range(30):
        p = torch.sigmoid(x @ parameters)
        gradient = x.T @ (weight * (p - truth)) + prior @ (parameters - start)
        curvature = (x * (weight * p * (1 - p)).unsqueeze(1)).T @ x + prior
        step = torch.linalg.lstsq(curvature, gradient.unsqueeze(1)).solution.squeeze(1)
        parameters = parameters - step
        if float(step.abs().max()) < 1e-9:
            break
    slope, offset = parameters.tolist()
    if not (math.isfinite(slope) and math.isfinite(offset)):
        return Calibration(1.0, 0.0)
    return Calibration(min(max(slope, 0.0), 2.0), offset)


def unweighting_limit(weights: FloatArray, loss: float = 1e-3) -> float:
    """Weight that counts as the largest when events are accepted with w/limit.

    Events above are accepted always, with a fraction `loss` of all weight lost at most.
    """
    ordered = np.sort(weights)[::-1]
    # lost above a limit at the i-th largest weight: sum of the larger ones minus i times it
    lost = np.cumsum(ordered) - np.arange(1, len(ordered) + 1) * ordered
    allowed = np.flatnonzero(lost <= loss * ordered.sum())
    return float(ordered[allowed[-1]])


def _rate(truth: Group | None, generated: Group, sums: list[float], sizes: list[int]) -> float:
    """Ratio of the frequencies of a final state; rare ones are drawn to one."""
    shares = [
        (0.0 if g is None else float(g.weight.sum()) / total * n) + _PRIOR
        for g, total, n in zip((truth, generated), sums, sizes, strict=True)
    ]
    return float(max(shares[0], 0.0) / sizes[0] / (shares[1] / sizes[1])) if shares[1] > 0 else 1.0


def _trainable(both: list[dict[Signature, Group]], signature: Signature) -> bool:
    found = [groups.get(signature) for groups in both]
    if any(g is None or len(g) < MIN_EVENTS or not g.weight.sum() > 0 for g in found):
        return False
    # the same programs and readers: columns can differ only where a sample lacks them
    return found[0].names == found[1].names  # type: ignore[union-attr]


def _area(logits: Tensor, events: Labelled) -> float:
    true = events.truth.numpy() > 0.5
    score, weight = logits.numpy(), events.weight.double().numpy()
    return weighted_auc(score[~true], score[true], weight[~true], weight[true])[0]


def _restored(name: NetworkName, tensors: dict[str, Tensor], prefix: str) -> Classifier:
    """Network from its tensors; their shapes tell its size."""
    state = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
    categories: list[Tensor] = []
    while f"known{len(categories)}" in state:
        categories.append(state[f"known{len(categories)}"])
    n_particles = len(state["place"]) if "place" in state else 0
    network = build(name, len(state["mean"]), categories, n_particles)
    network.load_state_dict(state)
    return network.eval()


def _log(x: float) -> float:
    return math.log(max(x, 1e-12))
