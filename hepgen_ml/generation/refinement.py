r"""A classifier in the loss of a generator.

From a point of the training on, events count with the weight

.. math:: w(x)^\alpha, \quad w(x) = D(x) / (1 - D(x)),

of a classifier between the sample and the events of the generator at that time: regions that it
populates too little count more (arXiv:2110.13632, section 4; 2305.10475, section 5). A network that
learned the density perfectly has w = 1 and stays where it is.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.sampling import Sampler
from hepgen_ml.process.assembly import assemble
from hepgen_ml.process.encoded import Discrete, Encoded, without_pattern
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.reweighting.classifiers import NetworkName
from hepgen_ml.reweighting.training import Schedule
from hepgen_ml.reweighting.trees import boosting
from hepgen_ml.training.preparation import Prepared
from hepgen_ml.training.ranks import Packed
from hepgen_ml.training.surrogate_task import SurrogateTask
from hepgen_ml.training.trainer import Trainer

MAX_EVENTS = 50_000
"""Events of each sample that a classifier is trained on."""

_START = 0.4  # fraction of the training before the first classifier
_CHUNK = 20_000
_SCHEDULE = Schedule(epochs=8, patience=3)


def refine(trainer: Trainer[SurrogateTask], ready: Prepared) -> None:
    """Train a surrogate with classifiers in its loss, round after round.

    Parameters
    ----------
    trainer : Trainer
        Of a `SurrogateTask`, new or resumed.
    ready : Prepared
        Its surrogate is that of the trainer.

    Raises
    ------
    UsageError
        Boosted trees are to be trained without scikit-learn.
    """
    task, ranks = trainer.task, trainer.ranks
    refinement = Refinement(trainer, ready) if ranks.first else None
    n_rounds = trainer.config.classifier_rounds
    for number in range(trainer.round, n_rounds):
        task.loss_will_change = True
        trainer.run(until=_START + (1 - _START) * number / n_rounds)
        if trainer.done >= trainer.end:
            return
        with trainer.pause():
            task.weigh(*ranks.share(partial(_factors, refinement, number), _packed, _unpacked))
        trainer.loss_changed("density")
    task.loss_will_change = False
    trainer.run()


def _factors(refinement: Refinement | None, number: int) -> tuple[Tensor, Tensor]:
    assert refinement is not None
    return refinement.factors(number)


def _packed(factors: tuple[Tensor, Tensor]) -> Packed:
    return dict(zip(("training", "validation"), factors, strict=True)), {}


def _unpacked(packed: Packed) -> tuple[Tensor, Tensor]:
    return packed[0]["training"], packed[0]["validation"]


class Refinement:
    """Factors to the weights of events, from classifiers between the sample and generated events.

    Parameters
    ----------
    trainer, ready
        As for `refine`.
    """

    def __init__(self, trainer: Trainer[SurrogateTask], ready: Prepared) -> None:
        self.surrogate, self.device = trainer.task.module, trainer.task.device
        self.process, self.run = ready.process, ready.run
        self.training, self.validation = ready.training, ready.validation
        self.power, self.seed = trainer.config.classifier_power, trainer.seed
        self.network: NetworkName = "mlp" if bool((self.training.weight < 0).any()) else "trees"
        if self.network == "trees":
            boosting()  # a missing package is an error before the training

    def factors(self, number: int) -> tuple[Tensor, Tensor]:
        """Factors (m,) of training and validation events in a round, one on average.

        By the surrogate as it is.
        """
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(3, number)))
        n = min(len(self.training), MAX_EVENTS)
        chosen = torch.from_numpy(np.sort(rng.permutation(len(self.training))[:n]))
        truth = self._events(self.training[chosen])
        generator = torch.Generator(device=self.device)
        generator.manual_seed(int(rng.integers(1 << 62)))
        sampler = Sampler(self.surrogate, self.process, self.run, self.device)
        with torch.no_grad():
            made = sampler.events(n, rng, generator)[0]
        made.events["weight"] = np.ones(n)
        classifier = Reweighter.fit(
            truth, made, network=self.network, folds=2, schedule=_SCHEDULE, seed=self.seed,
            device=self.device,
        )  # fmt: skip
        assert classifier.held_out_truth is not None
        weight = self._classified(classifier, self.training)
        # weights of events that a classifier was trained on would follow their fluctuations
        seen = classifier.held_out_truth * classifier.facts["mean_weight_before_normalisation"]
        weight[chosen] = torch.from_numpy(seen)
        other = self._classified(classifier, self.validation)
        return self._factors(weight, self.training), self._factors(other, self.validation)

    def _events(self, encoded: Encoded) -> EventSample:
        """Complete events at a random azimuth, which is an input of the classifiers."""
        generator = torch.Generator().manual_seed(self.seed)
        phi = 2 * math.pi * torch.rand(len(encoded), dtype=encoded.x.dtype, generator=generator)
        kinematics = self.process.kinematics(encoded.x, encoded.labels, phi)
        p = encoded.pattern
        discrete = Discrete(torch.where(p < 0, without_pattern(p), p), encoded.branch, encoded.free)
        events = assemble(self.process, kinematics, encoded.labels, discrete, self.run)
        events.events["weight"] = encoded.weight.numpy().astype(float)
        return events

    def _classified(self, classifier: Reweighter, encoded: Encoded) -> Tensor:
        rows = torch.arange(len(encoded)).split(_CHUNK)
        found = [classifier.weights(self._events(encoded[i]))[0] for i in rows]
        return torch.from_numpy(np.concatenate(found))

    def _factors(self, weight: Tensor, encoded: Encoded) -> Tensor:
        factor = weight**self.power
        if self.surrogate.density.learns_rates:
            return factor / torch.mean(factor * encoded.weight) * encoded.weight.mean()
        # rates come from the sample: a channel keeps the weight that it has
        channel_of = self.process.channel_of[encoded.subprocess]
        for c in torch.unique(channel_of).tolist():
            mine = channel_of == c
            before, after = encoded.weight[mine].sum(), (factor * encoded.weight)[mine].sum()
            if before > 0 and after > 0:
                factor[mine] *= before / after
        return factor
