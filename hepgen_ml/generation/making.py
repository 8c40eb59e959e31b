"""Events of a stream, block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepgen_ml.errors import ModelError, UsageError, about
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.generation import posterior as posterior_weights
from hepgen_ml.generation.blocks import Block, Counts
from hepgen_ml.generation.sampling import Sampler
from hepgen_ml.generation.weighting import Weighting


class Maker:
    """Generates blocks of events, which depend only on the seed, their number and their size.

    Parameters
    ----------
    sampler : Sampler
        Set to the conditions of the events.
    entropy : int or sequence of int
        The seed.
    run : RunInfo
        Of the events before they are weighted.
    posterior : int or None
        Number of posterior draws.
    weighting : ClassifierWeights, SampleWeights or None
        Weights events, or accepts them by their weights.
    directory : Path or None
        Of the model, which errors name.
    """

    def __init__(
        self,
        sampler: Sampler,
        entropy: Any,
        run: RunInfo,
        posterior: int | None,
        weighting: Weighting | None,
        directory: Path | None,
    ) -> None:
        self.directory = directory
        self.sampler, self.entropy, self.run = sampler, entropy, run
        self.posterior, self.weighting = posterior, weighting
        self._asked = sampler.values, sampler.run

    def __call__(self, block: Block) -> EventSample:
        """Events of a block."""
        self.sampler.values, self.sampler.run = self._asked  # another stream may have others
        size = len(block)
        root = np.random.SeedSequence(self.entropy, spawn_key=(block.index,))
        numpy_seed, torch_seed = root.spawn(2)
        rng = np.random.default_rng(numpy_seed)
        generator = torch.Generator(device=self.sampler.device)
        generator.manual_seed(int(torch_seed.generate_state(1, np.uint64)[0] >> np.uint64(1)))

        def make(m: int) -> EventSample:
            return self._events(m, rng, generator)

        if self.sampler.values is not None:
            self.sampler.values.position = block.first
        with about(self.directory, ModelError, UsageError):
            return make(size) if self.weighting is None else self.weighting.block(size, make, rng)

    @torch.inference_mode()
    def _events(self, n: int, rng: np.random.Generator, generator: torch.Generator) -> EventSample:
        if self.posterior is None:
            return self.sampler.events(n, rng, generator)[0]
        events = posterior_weights.sample_posterior(
            self.sampler.surrogate.density,
            n,
            self.posterior,
            self.run,
            lambda numbers: self.sampler.events(len(numbers), rng, generator, numbers),
        )
        if self.sampler.values is not None:
            self.sampler.values.position += n
        return events

    @property
    def counts(self) -> Counts:
        """Events drawn and accepted so far, as `add` takes them."""
        sampler = self.sampler.drawn, self.sampler.accepted
        return sampler if self.weighting is None else (*sampler, *self.weighting.counts)

    def add(self, counts: Counts) -> None:
        """Add what another process drew."""
        self.sampler.drawn += int(counts[0])
        self.sampler.accepted += int(counts[1])
        if self.weighting is not None:
            self.weighting.add(counts[2:])

    def counted(self, block: Block) -> tuple[EventSample, Counts]:
        """Events of a block, and their contribution to the counts."""
        before = self.counts
        events = self(block)
        return events, tuple(b - a for a, b in zip(before, self.counts, strict=True))
