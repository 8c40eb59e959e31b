"""A model that is compared with truth: events that it never saw."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import NOTE
from hepgen_ml.events.conditions import Wanted
from hepgen_ml.events.sample import EventSample
from hepgen_ml.files.provenance import file_hash
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.included import PRETRAINED, find_model
from hepgen_ml.models.storage import store_validation
from hepgen_ml.process.inside import inside_cuts
from hepgen_ml.process.unseen import unknown_share, unknown_warning
from hepgen_ml.training.history import read_history

log = logging.getLogger(__name__)


class JudgedModel:
    """A model, and which events can be compared with those that it generates.

    Parameters
    ----------
    model : path-like
        Model directory, or name of a pretrained model.
    device : str

    Attributes
    ----------
    generator : Generator
    directory : Path
    conditions : Conditions or None
        That the model was trained with.
    wanted : tuple of Wanted
        The same, as events of the truth have to have them.
    """

    def __init__(self, model: str | Path, device: str) -> None:
        self.generator, self.directory = Generator.load(model, device=device), find_model(model)
        self.conditions = self.generator.process.conditions
        self.wanted: tuple[Wanted, ...] = () if self.conditions is None else self.conditions.wanted

    @property
    def inside(self) -> Callable[[EventSample], npt.NDArray[np.bool_]] | None:
        """Which events are inside the cuts that were stated for the model; None if none were."""
        return inside_cuts(self.generator.config.cuts)

    def given(self, truth: EventSample, n: int, seed: int) -> dict[str, npt.NDArray[Any]] | None:
        """Conditions of n events, as they occur in the truth."""
        return None if self.conditions is None else self.conditions.as_in(truth, n, seed)

    def draws(self, most: int) -> int:
        """Number of posterior draws for a band, at most so many; none where it would take long."""
        density = self.generator.surrogate.density
        n = int(min(most, density.most_draws))
        if n and density.costly_likelihood:
            log.log(NOTE, "no posterior band, because densities of this model take long; "
                    "--posterior %d makes one", n)  # fmt: skip
            return 0
        return n

    def unknown(self, truth: EventSample) -> tuple[float, list[str]]:
        """Fraction of the truth whose structure the model lacks, with a warning if there is any."""
        share = unknown_share(self.generator.process, truth)
        return share, [unknown_warning(share)] if share else []

    def history(self) -> dict[str, npt.NDArray[np.float64]] | None:
        """Columns of the history of its training; None without a history."""
        return read_history(self.directory)

    def provenance(self) -> dict[str, Any]:
        """Facts of a report about the model, in plain values."""
        generator, files = self.generator, sorted(self.directory.glob("*.safetensors"))
        return {
            "model": self.directory.name,
            "model_files": {f.name: file_hash(f) for f in files},
            "config": generator.config.model_dump(mode="json"),
            "training": dict(generator.facts),
            "parameters": generator.surrogate.n_parameters,
            "subprocesses": len(generator.process.subprocesses),
            "cuts": generator.process.cuts_in_words,
        }

    def keep(self, summary: Mapping[str, Any]) -> None:
        """Put the summary of a report into the directory, unless it is not the user's to change.

        Raises
        ------
        ModelError, OutputError
            The directory holds no model any more, or cannot be written to.
        """
        if PRETRAINED not in self.directory.resolve().parents:
            store_validation(self.directory, summary)
