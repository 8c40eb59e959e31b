"""Drawing events: coordinates from a density, discrete properties from the heads, inside cuts."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.errors import ModelError
from hepgen_ml.events.sample import FloatArray, RunInfo
from hepgen_ml.generation.conditions import ConditionValues
from hepgen_ml.generation.posterior import Block
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.assembly import add_lifetimes, assemble
from hepgen_ml.process.auxiliary import AUXILIARY
from hepgen_ml.process.channel_groups import by_value
from hepgen_ml.process.encoded import Discrete, Kinematics
from hepgen_ml.process.labels import labelled, which
from hepgen_ml.process.process import Process
from hepgen_ml.reweighting.named_weights.features import inputs
from hepgen_ml.reweighting.named_weights.ratios import WeightRatios

HEAD_BATCH = 8192
"""Events per call of the heads; bounds the memory of their logits."""

_MAX_ROUNDS = 200
"""Largest number of redraws of events outside the cuts before an error."""

_FEW_CHANNELS = 64
"""Channels up to which the heads are evaluated for each of them."""

_HOPELESS = 2_000
"""Number of draws without a single one inside the cuts before an error."""


class Sampler:
    """Draws events of a surrogate with the current setting of its density.

    Parameters
    ----------
    surrogate : Surrogate
    process : Process
    run : RunInfo
        Of the events.
    device : torch.device
        Of the surrogate.
    ratios : WeightRatios, optional
        Of the named weights that events get.

    Attributes
    ----------
    drawn, accepted : int
        Draws of the network, and those inside the cuts, so far.
    values : ConditionValues or None
        Of the user's conditions, as in the sample to begin with.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        process: Process,
        run: RunInfo,
        device: torch.device,
        ratios: WeightRatios | None = None,
    ) -> None:
        self.ratios = ratios
        self.surrogate, self.process, self.run, self.device = surrogate, process, run, device
        self.drawn = self.accepted = 0
        self.values: ConditionValues | None = None
        if process.conditions is not None:
            self.values = ConditionValues(process.conditions)

    def at(self, values: FloatArray | None, run: RunInfo) -> None:
        """Draw at conditions (n, K) from now on, as in the sample if None; events are of a run."""
        if self.process.conditions is not None:
            self.values = ConditionValues(self.process.conditions, values)
            self.run = run

    def to(self, device: torch.device) -> torch.device:
        """Draw on another device from now on."""
        self.device = device
        self.surrogate.to(device)
        if self.ratios is not None:
            self.ratios.to(device)
        return device

    @property
    def acceptance(self) -> float:
        """Fraction of the network's draws inside the cuts so far; nan before the first."""
        return self.accepted / self.drawn if self.drawn else math.nan

    def events(
        self,
        n: int,
        rng: np.random.Generator,
        generator: torch.Generator,
        numbers: Tensor | None = None,
    ) -> Block:
        """Draw n events, also as coordinates and subprocesses.

        Parameters
        ----------
        n : int
        rng, generator
            For what numpy and what torch draws.
        numbers : (n,) int64 tensor, optional
            Which of the next events these are, for their conditions; by default the first n.

        Raises
        ------
        ModelError
            Almost no draw of the network is inside the cuts.
        """
        given = None if self.values is None else self.values.next(n, rng, numbers)
        if self.surrogate.density.learns_rates:
            x, subprocess, kinematics = self._drawn_by_density(n, rng, generator, given)
        else:
            x, subprocess, kinematics = self._drawn_whole(n, rng, generator, given)
        discrete = self._discrete(x, kinematics, subprocess, generator)
        events = assemble(self.process, kinematics, subprocess, discrete, self.run)
        if self.surrogate.event_weights is not None:
            events.events["weight"] = self._weights(x, kinematics, subprocess)
        elif abs(self.run.weight_strategy) == 4 and math.isfinite(self.run.cross_section):
            events.events["weight"] = np.full(n, self.run.cross_section)
        if self.ratios is not None:
            ratio, _ = self.ratios(inputs(self.process, kinematics, subprocess, discrete))
            weights = ratio.numpy().T * events.weight
            events.weights |= dict(zip(self.ratios.names, weights, strict=True))
        add_lifetimes(self.process, events, subprocess, rng)
        return events, x, subprocess

    def _drawn_by_density(
        self, n: int, rng: np.random.Generator, generator: torch.Generator, given: Tensor | None
    ) -> tuple[Tensor, Tensor, Kinematics]:
        """Events whose subprocess the density chooses; it enforces the cuts itself."""
        further = [] if given is None else [given]
        drawn = self.surrogate.density.sample_events(n, generator, self.process.inside, *further)
        x, subprocess = drawn.x.cpu(), labelled(drawn.subprocess.cpu(), given)
        self.drawn += drawn.n_drawn
        self.accepted += drawn.n_inside
        phi = torch.from_numpy(rng.uniform(-math.pi, math.pi, n))
        return x, subprocess, self.process.kinematics(x, subprocess, phi)

    def _drawn_whole(
        self, n: int, rng: np.random.Generator, generator: torch.Generator, given: Tensor | None
    ) -> tuple[Tensor, Tensor, Kinematics]:
        """Events of subprocesses drawn with their frequencies; those outside are drawn again."""
        process = self.process
        if given is not None and self.surrogate.rates is not None:
            subprocess = self.surrogate.rates.draw(given.to(self.device), generator).cpu()
        else:
            subprocess = torch.from_numpy(
                rng.choice(len(process.subprocesses), n, p=process.frequencies)
            )
        x = torch.zeros(n, process.n_coordinates, dtype=torch.float64)
        final = torch.zeros(n, process.n_final, 4, dtype=torch.float64)
        incoming = torch.zeros(n, 2, 4, dtype=torch.float64)
        todo = torch.arange(n)
        for k in range(_MAX_ROUNDS):
            # Rejected events keep their subprocess, so that its frequency is not distorted.
            phi = torch.from_numpy(rng.uniform(-math.pi, math.pi, len(todo)))
            drawn = self._coordinates(subprocess[todo], generator)
            kinematics = process.kinematics(drawn, subprocess[todo], phi)
            good = kinematics.passes
            x[todo[good]] = drawn[good]
            final[todo[good]] = kinematics.final[good]
            incoming[todo[good]] = kinematics.incoming[good]
            self.drawn += len(todo)
            self.accepted += int(good.sum())
            todo = todo[~good]
            if len(todo) == 0:
                passes = torch.ones(n, dtype=torch.bool)
                return x, subprocess, Kinematics(final, incoming, passes)
            if len(todo) == n and (k + 1) * n >= _HOPELESS:
                break
        raise ModelError(
            f"{len(todo)} of {n} events keep falling outside the cuts",
            remedy="the model is not trained well enough; train longer",
        )

    def _coordinates(self, subprocess: Tensor, generator: torch.Generator) -> Tensor:
        """Coordinates from the network."""
        return self.surrogate.density.sample(subprocess.to(self.device), generator).to("cpu")

    def _weights(
        self, x: Tensor, kinematics: Kinematics, subprocess: Tensor
    ) -> npt.NDArray[np.float64]:
        """Weights that undo the bias of the density; their mean is the cross section."""
        assert self.surrogate.event_weights is not None
        parts = []
        for n_final, rows in self._together(subprocess):
            for part in rows.split(HEAD_BATCH):
                final, incoming = kinematics.final[part, :n_final], kinematics.incoming[part]
                sub = subprocess[part].to(self.device)
                parts.append((part, self.surrogate.event_weights(
                    self.process, final, incoming,
                    self.surrogate.density.prepare(x[part].to(self.device), sub),
                    self.process.invariants(incoming, final).to(self.device), sub,
                ).cpu()))  # fmt: skip
        weight = torch.zeros(len(x), dtype=torch.float64)
        for part, values in parts:
            weight[part] = values
        sigma = self.run.cross_section
        return np.asarray(weight.numpy() * (sigma if sigma > 0 else 1.0))

    def _discrete(
        self, x: Tensor, kinematics: Kinematics, subprocess: Tensor, generator: torch.Generator
    ) -> Discrete:
        process, n = self.process, len(subprocess)
        free = torch.zeros(n, len(AUXILIARY), dtype=torch.float64)
        discrete = Discrete(torch.zeros(n).long(), torch.zeros(n).long(), free)
        if process.is_reconstructed:
            return discrete
        for n_final, rows in self._together(subprocess):
            for part in rows.split(HEAD_BATCH):
                final = kinematics.final[part, :n_final]
                invariants = process.invariants(kinematics.incoming[part], final)
                sub = subprocess[part].to(self.device)
                z = self.surrogate.density.prepare(x[part].to(self.device), sub)
                drawn = self.surrogate.heads.sample(z, invariants.to(self.device), sub, generator)
                discrete.pattern[part] = drawn.pattern.to("cpu")
                discrete.branch[part] = drawn.branch.to("cpu")
                discrete.free[part] = drawn.free.to("cpu")
        return discrete

    def _together(self, subprocess: Tensor) -> list[tuple[int, Tensor]]:
        """Numbers of final-state particles, and events whose heads are evaluated together.

        These are the events of one channel; if there are very many channels, those of one length.
        """
        lengths = [len(channel.classes) for channel in self.process.channels]
        channel_of = self.process.channel_of[which(subprocess)]
        if len(lengths) <= _FEW_CHANNELS:
            return [(lengths[c], rows) for c, rows in by_value(channel_of)]
        return by_value(torch.tensor(lengths)[channel_of])
