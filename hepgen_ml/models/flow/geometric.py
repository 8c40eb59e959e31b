r"""Equivariant velocity networks of flow matching: L-GATr and GATr.

Coordinates become momenta, an equivariant network gives each particle a vector v_p, and
the Jacobian turns it back (2405.14806, figure 4; thesis figure 6.4),

.. math:: v_x = \frac{\partial x}{\partial p} v_p .

Logarithmic coordinates, whose Jacobian has no bound, are moved by scalar outputs instead. The
velocity has to be a continuous function with bounded slopes of all coordinates, those of no event
among them: the likelihood is the integral of its divergence, which would know nothing of a jump.
So momenta are those of a chart that is `continued`, and velocities through its Jacobian have a
bound. The code does not depend on the chart of the coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hepgen_ml.config import Config
from hepgen_ml.models.conditions import Condition, Layouts, TimeSubprocessEmbedding
from hepgen_ml.models.flow.settings import LGATrConfig
from hepgen_ml.models.flow.velocity import NamedHead, Velocity
from hepgen_ml.networks.lgatr import LGATr, Multivectors
from hepgen_ml.networks.lgatr.embedding import (
    append_channels,
    append_tokens,
    embed_components,
    embed_momenta,
    reference_components,
    vector_part,
)
from hepgen_ml.networks.lgatr.inference import Prepared
from hepgen_ml.phase_space.chart import Chart
from hepgen_ml.phase_space.coordinates import Coordinate, invariant_mass_squared
from hepgen_ml.process.labels import values_of
from hepgen_ml.process.process import Process

_LIMIT = 10.0
"""Bound of standardised coordinates at the input of the network."""

_LARGEST_VELOCITY = 50.0
"""Bound of the velocity of a standardised coordinate through the Jacobian; that of a straight path
is a few."""

_OUTPUT_SCALARS = 32


class GeometricVelocity(Velocity):
    """Velocity by an equivariant transformer over the final-state particles.

    Tokens carry the momentum, directions that break the symmetry to what the beams leave,
    and scalars: flow time, subprocess, which particle it is, and its logarithmic coordinates,
    which rotations about the beam and boosts along it do not change.

    Parameters
    ----------
    process, layouts, config
        See `Velocity`.
    """

    symmetry = "lorentz"
    settings = ()
    within_cuts = True  # where momenta are those of events
    suggested: ClassVar[Mapping[str, Any]] = {"batch_size": 2048, "learning_rate": 6e-3}

    def __init__(self, process: Process, layouts: Layouts, config: Config) -> None:
        super().__init__(process, layouts, config)
        net = config.section(LGATrConfig)
        self.bfloat16_blocks = config.training.precision == "bfloat16"
        self.channels, self.layouts = process.channels, layouts
        self.conditions = process.conditions
        self.mean: Tensor
        self.std: Tensor
        self.unit: Tensor
        shape = (len(layouts), process.n_coordinates)
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("std", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("unit", torch.ones(()))
        names = sorted({label for c in self.channels for label in c.chart.labels})
        self.names = [[names.index(label) for label in c.chart.labels] for c in self.channels]
        self.particle = nn.Embedding(len(names), net.scalars)
        self.condition = TimeSubprocessEmbedding(process, net.scalars)
        references = reference_components(net.reference, net.time)
        self.as_tokens = net.reference_tokens
        n_channels = 1 if self.as_tokens else 1 + len(references)
        self.register_buffer("references", references, persistent=False)
        self.references: Tensor
        if self.as_tokens:
            self.reference_scalars = nn.Parameter(torch.randn(len(references), net.scalars))
        only_rotations = net.reference == "beams" or (net.reference == "plane" and net.time)
        self.every = net.coordinates and only_rotations
        # One slot for every kind of coordinate that a particle can have and the network is given.
        self.slots = sorted({_kind(v) for layout in layouts for v in layout if self._scalar(v)})
        self.head = NamedHead(layouts, _OUTPUT_SCALARS)
        self.network = LGATr(
            blocks=net.blocks,
            in_channels=n_channels,
            channels=net.channels,
            in_scalars=net.scalars + len(self.slots),
            out_scalars=_OUTPUT_SCALARS,
            scalars=net.scalars,
            heads=net.heads,
            symmetry=self.symmetry,  # type: ignore[arg-type]
        )
        with torch.no_grad():  # start from the velocity of the head alone
            for p in self.network.last.parameters():
                p.mul_(0.1)
        self._prepared = Prepared(self.network)

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Take over the standardisation; energies are measured in those of a typical event."""
        self.mean.copy_(mean)
        self.std.copy_(std)
        total, count = 0.0, 0
        for c in range(len(self.layouts)):
            z = torch.zeros(1, len(self.layouts[c]), device=mean.device)
            typical = None
            if self.conditions is not None:
                typical = torch.from_numpy(self.conditions.points[:1]).to(mean.device)
            p = self.momenta(z, c, typical)
            total, count = total + float(p[..., 3].sum()), count + p.shape[1]
        self.unit.fill_(total / count)

    def momenta(self, z: Tensor, channel: int, values: Tensor | None = None) -> Tensor:
        """Final-state momenta (m, n, 4) in GeV of standardised coordinates (m, D).

        In double precision, which charts need where energies differ much (a beam of fixed energy),
        and in the frame in which the azimuth of the event is zero. Conditions (m, K) where there
        are any. Coordinates without any momenta have those of a typical event.
        """
        d, z = z.shape[1], z.double()
        real = torch.tensor([not v.periodic for v in self.layouts[channel]], device=z.device)
        z = torch.where(real, z.clamp(-_LIMIT, _LIMIT), z)
        x = z * self.std[channel, :d].double() + self.mean[channel, :d].double()
        chart, join = self.chart(channel, values), self.channels[channel].join
        p, _ = chart.inverse(join(x, x.new_zeros(len(x))))
        lost = ~torch.isfinite(p).all(-1).all(-1)
        if lost.any():  # gradients through nan are nan
            x = torch.where(lost.unsqueeze(-1), self.mean[channel, :d].double(), x)
            p, _ = chart.inverse(join(x, x.new_zeros(len(x))))
        return p

    def _scalar(self, coordinate: Coordinate) -> bool:
        """Whether a coordinate is an input and moved by an output without direction.

        Logarithmic ones are invariant whatever the references are; rotations about the beam change
        none but azimuths.
        """
        return coordinate.logarithmic or (self.every and not coordinate.periodic)

    def chart(self, channel: int, values: Tensor | None) -> Chart:
        """The channel's chart at conditions (m, K), continued beyond phase space."""
        chart = self.channels[channel].chart
        return chart.given(None if values is None else values.double()).continued()

    def tokens(self, t: Tensor, z: Tensor, p: Tensor, subprocess: Tensor, c: int) -> Multivectors:
        """Input of the network: p in units of a typical energy."""
        m, n = p.shape[:2]
        condition = self.condition(t, subprocess).unsqueeze(1)
        scalars = condition + self.particle.weight[self.names[c]]
        extra = z.new_zeros(m, n, len(self.slots))
        for i, coordinate in enumerate(self.layouts[c]):
            if self._scalar(coordinate):
                extra[:, coordinate.particle, self.slots.index(_kind(coordinate))] = z[:, i]
        scalars = torch.cat([scalars, extra], dim=-1)
        vectors = embed_momenta(p, scalars, self.symmetry)
        if len(self.references) == 0:
            return vectors
        if not self.as_tokens:
            return append_channels(
                vectors, embed_components(self.references.unsqueeze(0), self.symmetry)
            )
        plain = nn.functional.pad(condition + self.reference_scalars, (0, len(self.slots)))
        references = embed_components(self.references.unsqueeze(-2), self.symmetry)
        return append_tokens(vectors, references, plain)

    def forward(self, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        subprocess, channel = condition
        values = values_of(subprocess)
        p = self.momenta(z, channel, values)
        tokens = self.tokens(t, z, (p / self.unit).to(z.dtype), subprocess, channel)
        with torch.autocast(
            z.device.type, torch.bfloat16, enabled=self.bfloat16_blocks and self.training
        ):
            out = self._prepared()(tokens)
        out = Multivectors(*(part.to(z.dtype) for part in out))
        n = p.shape[1]
        hidden = out.scalars[:, :n, 2:]
        # In units of each particle's transverse mass, which keeps velocities of order one.
        # No difference of energy and momentum, which is zero for a massless particle along a beam.
        pt2 = (p[..., :2] ** 2).sum(-1)
        mt = torch.sqrt(pt2 + invariant_mass_squared(p).clamp_min(0.0))
        v = vector_part(out, self.symmetry)[:, :n].to(p.dtype) * mt.unsqueeze(-1)
        if v.requires_grad and self.training:
            # Zero times an infinite slope is nan; such columns are left out below.
            v.register_hook(lambda slope: torch.nan_to_num(slope, 0.0, 0.0, 0.0))
        which, layout = self.channels[channel], self.layouts[channel]
        pushed = self.chart(channel, values).push_forward(p, v)
        if which.cyclic is not None:
            pushed = torch.cat([pushed[:, : which.cyclic], pushed[:, which.cyclic + 1 :]], dim=-1)
        pushed = pushed / self.std[channel, : z.shape[1]].to(p.dtype)
        bounded = pushed.clamp(-_LARGEST_VELOCITY, _LARGEST_VELOCITY).to(z.dtype)
        owner = [v.particle for v in layout]
        logarithmic = torch.tensor([v.logarithmic for v in layout], device=z.device)
        usable = torch.isfinite(pushed) & ~logarithmic
        by_scalars = torch.tensor([self._scalar(v) for v in layout], device=z.device) | ~usable
        direct = self.head(hidden[:, owner] * by_scalars.to(z.dtype).unsqueeze(-1), channel)
        return direct + torch.where(usable, bounded, 0.0)


class RotationVelocity(GeometricVelocity):
    """Equivariant under rotations only: the ablation that measures the benefit of boosts."""

    symmetry = "rotation"


def _kind(coordinate: Coordinate) -> str:
    """Name without the particle."""
    return coordinate.name.partition(":")[0]
