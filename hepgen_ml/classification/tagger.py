"""Taggers: probabilities of the classes of jets, learned from jets of known class."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepgen_ml.classification.directory import DIRECTORY, fingerprint
from hepgen_ml.classification.division import (
    features_of,
    hardest,
    listed,
    require_usable,
    split_to_train,
)
from hepgen_ml.classification.inputs import JetTensors
from hepgen_ml.classification.metrics import Merit, merit
from hepgen_ml.classification.network import JetNetwork, is_last
from hepgen_ml.classification.settings import (
    FINE_TUNING,
    RATE_BEFORE,
    TRAINING,
    TaggerSettings,
)
from hepgen_ml.classification.storage import load_network, save_network
from hepgen_ml.classification.task import TaggingTask
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.jets import Jets
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.events.source import Progress
from hepgen_ml.training.devices import find_device
from hepgen_ml.training.trainer import Trainer

log = logging.getLogger(__name__)

_BATCH = 4096


class Tagger:
    """Classifier of jets, made by `fit` or `load`.

    Attributes
    ----------
    classes : tuple of str
    features : tuple of str
        Numbers of constituents beside their momenta that it was trained with.
    most : int
        Number of hardest constituents of a jet that it uses.
    settings : TaggerSettings
    facts : dict
        About the training, plain values.

    Examples
    --------
    >>> jets = {"top": read_jets("top.root"), "qcd": read_jets("qcd.root")}  # doctest: +SKIP
    >>> tagger = Tagger.fit(jets, TaggerSettings("transformer"))  # doctest: +SKIP
    >>> tagger.predict(read_jets("unknown.root"))[:, 0]  # doctest: +SKIP
    """

    def __init__(
        self,
        module: JetNetwork,
        classes: tuple[str, ...],
        features: tuple[str, ...],
        most: int,
        settings: TaggerSettings,
        facts: dict[str, Any],
    ) -> None:
        self.module, self.classes, self.features, self.most = module, classes, features, most
        self.settings, self.facts = settings, facts

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.module.parameters()).device

    @classmethod
    def fit(
        cls,
        jets: Mapping[str, Jets],
        settings: TaggerSettings | None = None,
        *,
        start: Tagger | None = None,
        rate_before: float = RATE_BEFORE,
        most: int | None = None,
        seed: int = 0,
        device: str = "auto",
        directory: Path | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Tagger:
        """Train a tagger.

        All classes count equally: probabilities are those of a sample with the same number of jets
        of each class.

        Parameters
        ----------
        jets : mapping of str to Jets
            Jets of each class, in any order.
        settings : TaggerSettings, optional
        start : Tagger, optional
            Tagger of other classes to start from, with a new last layer; it determines network,
            inputs and sizes.
        rate_before : float
            With `start`, learning rate of all other layers, in units of that of the last.
        most : int, optional
            Number of constituents to use of each jet; by default all, or as many as `start` uses.
        seed : int
        device : str
        directory : Path, optional
            For checkpoints and the history of the training.
        resume : bool
            Continue the unfinished training in this directory, if there is one.
        progress : callable, optional
            Called with stage, done, total and a dict of numbers.

        Raises
        ------
        SampleError
            Fewer than two classes, one with too few jets, or classes with other features.
        UsageError
            No such network, a size of it that is impossible, too many classes or a name that is no
            text, or the unfinished training was begun with something else.
        """
        settings = settings or TaggerSettings()
        config = settings.training or (TRAINING if start is None else FINE_TUNING)
        classes, features = tuple(jets), features_of(jets)
        if start is not None:
            start.require(features)
            settings = TaggerSettings(
                start.settings.network, start.settings.sizes, start.settings.inputs, config
            )
        most = most or (
            start.most if start else max(int(some.counts.max()) for some in jets.values())
        )
        place = find_device(device)
        train, validation = split_to_train(jets, config.validation_fraction, seed, most)
        torch.manual_seed(seed)
        module = JetNetwork(
            settings.network, len(features), len(classes), settings.inputs == "kinematic", most,
            **settings.all_sizes,
        ).to(place)  # fmt: skip
        tensors = JetTensors.of(train, place, classes)
        if start is None:
            module.fit(tensors)
        else:
            _take_over(module, start.module)
        module.reduced = config.precision == "bfloat16"
        task = TaggingTask(
            module, tensors, JetTensors.of(validation, place, classes),
            1.0 if start is None else rate_before,
        )  # fmt: skip
        if directory is not None:
            about = (settings.network, settings.all_sizes, settings.inputs, classes, most, seed,
                     config.batch_size, _sum_of(start))  # fmt: skip
            DIRECTORY.begin(directory, fingerprint((train, validation), about), resume=resume)
        trainer = Trainer(task, config, seed=seed, directory=directory, progress=progress)
        if resume:
            trainer.resume()
        trainer.run()
        module.eval()
        facts = {
            "jets": {name: len(some) for name, some in jets.items()},
            "steps": trainer.step,
            "seconds": round(trainer.seconds, 1),
            "passes": round(trainer.passes, 2),
            "validation_loss": trainer.best_loss,
            "parameters": sum(p.numel() for p in module.parameters()),
            "fine_tuned_from": [] if start is None else list(start.classes),
        }
        return cls(module, classes, features, most, settings, facts)

    def require(self, features: tuple[str, ...], path: Path | None = None) -> None:
        """Raise `SampleError` unless constituents have the numbers of the training."""
        if features != self.features:
            raise SampleError(
                f"constituents have {listed(features)}, the tagger was trained with "
                f"{listed(self.features)}",
                path=path,
                remedy=f"read the jets with --features {','.join(self.features)}"
                if self.features
                else "read the jets without --features",
            )

    @torch.no_grad()
    def predict(self, jets: Jets) -> FloatArray:
        """Class probabilities (n, C), as for a sample with equal numbers of all classes.

        Raises
        ------
        SampleError
            Constituents have other features than in the training, or jets have none.
        """
        self.require(jets.names)
        require_usable(jets, "the sample")
        self.module.eval()
        parts = [np.zeros((0, len(self.classes)))]
        for start in range(0, len(jets), _BATCH):
            some = JetTensors.of(hardest(jets[start : start + _BATCH], self.most), self.device)
            logits = self.module(some, torch.arange(len(some), device=self.device))
            parts.append(logits.double().softmax(-1).cpu().numpy())
        return np.concatenate(parts)

    def judge(self, jets: Mapping[str, Jets], background: str | None = None) -> Merit:
        """Figures of merit on jets of known class that it was not trained on.

        Parameters
        ----------
        jets : mapping of str to Jets
            At least two of its classes.
        background : str, optional
            Class that the others are separated from; by default the last of the tagger.

        Raises
        ------
        UsageError
            A class that the tagger does not know, or jets of only one.
        """
        jets = {name: some for name, some in jets.items() if len(some)}
        for name in (*jets, *((background,) if background else ())):
            if name not in self.classes:
                raise UsageError(
                    f"the tagger has no class {name!r}", remedy=f"it has {', '.join(self.classes)}"
                )
        if len(jets) < 2:
            raise UsageError(
                "jets of one class cannot test a tagger",
                remedy="give jets of two classes at least",
            )
        probability = np.concatenate([self.predict(some) for some in jets.values()])
        label = np.repeat(
            [self.classes.index(name) for name in jets], [len(some) for some in jets.values()]
        )
        back = background or next(c for c in reversed(self.classes) if c in jets)
        return merit(probability, label, self.classes, self.classes.index(back))

    def described(self) -> dict[str, Any]:
        """Description in plain values for `hepgen-ml info`."""
        return {
            "kind": "tagger", "network": self.settings.network,
            "sizes": self.settings.all_sizes, "inputs": self.settings.inputs,
            "classes": list(self.classes), "features": list(self.features), "most": self.most,
            "training": self.facts,
        }  # fmt: skip

    def save(self, directory: str | Path) -> None:
        """Write it into a directory, which is made if need be.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        save_network(
            Path(directory), self.module, self.settings, self.classes, self.features, self.most,
            self.facts,
        )  # fmt: skip
        DIRECTORY.finish(Path(directory))

    @classmethod
    def load(cls, directory: str | Path, device: str = "auto") -> Tagger:
        """Read what `save` wrote.

        Raises
        ------
        ModelError
            Missing, damaged, or of a newer version.
        """
        return cls(*load_network(Path(directory), find_device(device)))


def _sum_of(start: Tagger | None) -> float:
    """Identifier that distinguishes the taggers from which a fine-tuning may start."""
    if start is None:
        return 0.0
    return sum(float(t.double().sum()) for t in start.module.state_dict().values())


def _take_over(module: JetNetwork, start: JetNetwork) -> None:
    """Weights and standardisation of a trained network, but for the last layer."""
    own, other = module.state_dict(), start.state_dict()
    module.load_state_dict({n: own[n] if is_last(n) else other[n] for n in own})
