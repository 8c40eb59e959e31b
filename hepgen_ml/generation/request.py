"""Which events are asked of a generator, and where they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.generation import posterior as posterior_weights
from hepgen_ml.generation.blocks import Block, Counts, made_here, require_directory
from hepgen_ml.generation.clusters import Cluster, made_on
from hepgen_ml.generation.conditions import ConditionValues, values_for
from hepgen_ml.generation.making import Maker
from hepgen_ml.generation.parts import Parts, load_parts
from hepgen_ml.generation.sampling import Sampler
from hepgen_ml.generation.weighting import Weighting, Weights, choose_weighting
from hepgen_ml.generation.workers import can_be_copied, made_by_copies, made_by_workers
from hepgen_ml.process.conditions import Given


class Request(NamedTuple):
    """Which events are asked for, see `Generator.sample`."""

    posterior: int | None = None
    weights: Weights | None = None
    unweight: bool = False
    condition: Given | None = None

    def check(self, parts: Parts) -> None:
        """Refuse what cannot be made, and warn of extrapolations.

        Raises
        ------
        UsageError
            Events are to be accepted by their weights at several conditions.
        """
        conditions = parts.model.process.conditions
        values = values_for(parts.model.process, self.condition)
        if self.unweight and values is not None and len(values) > 1:
            raise UsageError(
                "events cannot be accepted by their weights at given conditions",
                remedy="leave --unweight out, or give one value of each condition",
            )
        if values is not None and conditions is not None:
            conditions.warn_outside(values)

    def run(self, parts: Parts) -> RunInfo:
        """Run information of the events.

        Raises
        ------
        UsageError
            The model has no such conditions, posterior or weights.
        """
        run = self._unweighted_run(parts)
        weighting = self._weighting(parts, run)
        return run if weighting is None else weighting.run

    def maker(self, parts: Parts, sampler: Sampler, entropy: Any) -> Maker:
        """Makes blocks of the events by a sampler and a seed; raises as `run` does."""
        run = self._unweighted_run(parts)
        sampler.at(values_for(parts.model.process, self.condition), run)
        weighting = self._weighting(parts, run)
        return Maker(sampler, entropy, run, self.posterior, weighting, parts.directory)

    def _unweighted_run(self, parts: Parts) -> RunInfo:
        model = parts.model
        run, conditions = model.run, model.process.conditions
        values = values_for(model.process, self.condition)
        if conditions is not None:
            run = ConditionValues(conditions, values).run(run)
        if self.posterior is not None:
            posterior_weights.check(model.surrogate.density, self.posterior)
            run = posterior_weights.with_posterior(run, self.posterior)
        return run

    def _weighting(self, parts: Parts, run: RunInfo) -> Weighting | None:
        learned = parts.model.surrogate.event_weights
        return choose_weighting(learned, parts.classifier, run, self.weights, self.unweight)


def made(
    blocks: list[Block],
    make: Maker,
    asked: Request,
    *,
    workers: int = 1,
    start: Literal["spawn", "fork"] = "spawn",
    cluster: Cluster | None = None,
) -> Iterator[tuple[Block, EventSample]]:
    """Blocks in order, made in this process, by several, or on a cluster.

    Parameters
    ----------
    blocks : list of Block
    make : Maker
    asked : Request
        That `make` is of, for other processes to begin with.
    workers : int
        Processes at most.
    start : {"spawn", "fork"}
        How they begin; see `Generator.stream`.
    cluster : Cluster, optional
    """
    how = (make.entropy, *asked)  # plain values: the types of this package load torch
    if cluster is not None:
        place = require_directory(make.directory).absolute()
        begin = f"{__name__}:{block_maker.__name__}"
        return made_on(cluster, blocks, begin, (place, *how), make.add)
    if workers == 1 or len(blocks) == 1 or make.sampler.device.type != "cpu":
        return made_here(blocks, make)
    if start == "fork" and can_be_copied():
        return made_by_copies(blocks, make.counted, workers, make.add)
    place = require_directory(make.directory)
    return made_by_workers(blocks, make, workers, block_maker, (place, *how), make.add)


def block_maker(
    directory: Path, entropy: Any, *asked: Any
) -> Callable[[Block], tuple[EventSample, Counts]]:
    """Function that generates blocks in another process, with the counts of each."""
    torch.set_num_threads(1)
    parts = load_parts(directory, "cpu")
    return Request(*asked).maker(parts, parts.sampler(), entropy).counted
