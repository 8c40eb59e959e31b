"""Jets as tensors, and the inputs of networks.

Every jet is rotated about the beam axis to azimuth zero, which is an exact symmetry of its
features. Constituents have the kinematic numbers of Particle Transformer (arXiv:2202.03772, table
2, with its standardisation): logarithms of transverse momentum and energy, absolute and relative to
the jet, and the distance from its axis. Numbers of the file (charges …) follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hepgen_ml.events.jets import Jets

KINEMATIC = (
    "log_pt", "log_energy", "log_pt_share", "log_energy_share", "delta_eta", "delta_phi", "delta_r",
)  # fmt: skip

_SMALLEST = 1e-6  # GeV
_STEEPEST = 10.0  # |eta| of constituents along the beam


@dataclass(frozen=True)
class JetTensors:
    """Jets as flat tensors on a device.

    Attributes
    ----------
    offsets : (n + 1,) int64 tensor
    momenta : (rows, 4) float32 tensor
        px, py, pz, energy.
    features : (rows, s) float32 tensor
    label : (n,) int64 tensor
        Number of the class.
    weight : (n,) float32 tensor
    """

    offsets: Tensor
    momenta: Tensor
    features: Tensor
    label: Tensor
    weight: Tensor

    @classmethod
    def of(cls, jets: Jets, device: torch.device, classes: tuple[str, ...] = ()) -> JetTensors:
        """Jets of known classes, all with the same sum of weights; or jets without classes."""
        number = {name: i for i, name in enumerate(classes)}
        label = torch.tensor([number.get(name, 0) for name in jets.label.tolist()])
        label = label.to(torch.int64)
        weight = torch.ones(len(jets))
        if classes:
            counts = torch.bincount(label, minlength=len(classes)).clamp_min(1)
            weight = (len(jets) / (len(classes) * counts.float()))[label]
        columns = (
            torch.from_numpy(jets.offsets), torch.from_numpy(jets.momenta),
            torch.from_numpy(jets.features), label, weight,
        )  # fmt: skip
        return cls(*(column.to(device) for column in columns))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Tensor:
        """Constituents (n,) of jets."""
        return self.offsets.diff()

    def padded(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Momenta (m, k, 4), features (m, k, s) and mask (m, k) of some jets, k the largest."""
        first, counts = self.offsets[rows], self.counts[rows]
        place = torch.arange(int(counts.max()), device=first.device)
        mask = place < counts.unsqueeze(1)
        index = torch.where(mask, first.unsqueeze(1) + place, first.unsqueeze(1))
        momenta = self.momenta[index] * mask.unsqueeze(-1)
        return momenta, self.features[index] * mask.unsqueeze(-1), mask

    def groups(self, rows: Tensor, most: int) -> Iterator[Tensor]:
        """Positions in `rows` of jets of similar size, in groups of limited numbers of tokens.

        This keeps padding small; otherwise half of the tokens of a batch may be padding.
        """
        counts = self.counts[rows]
        order = torch.argsort(counts, stable=True)
        sizes = counts[order].tolist()
        start = 0
        while start < len(sizes):
            stop = start + 1
            while (
                stop < len(sizes)
                and sizes[stop] * (stop + 1 - start) <= most
                and sizes[stop] <= 1.3 * sizes[start] + 4
            ):
                stop += 1
            yield order[start:stop]
            start = stop


def turned(momenta: Tensor) -> Tensor:
    """Momenta (m, k, 4) of jets that are rotated about the beam axis to azimuth zero."""
    total = momenta.sum(1)
    pt = torch.hypot(total[:, 0], total[:, 1]).clamp_min(_SMALLEST)
    cos, sin = (total[:, 0] / pt).unsqueeze(1), (total[:, 1] / pt).unsqueeze(1)
    px, py = momenta[..., 0], momenta[..., 1]
    return torch.stack([cos * px + sin * py, cos * py - sin * px, *momenta.unbind(-1)[2:]], dim=-1)


def kinematic(momenta: Tensor) -> Tensor:
    """Numbers (m, k, 7) of constituents of jets at azimuth zero; zero for padding stays finite."""
    total = momenta.sum(1, keepdim=True)
    pt = torch.hypot(momenta[..., 0], momenta[..., 1]).clamp_min(_SMALLEST)
    jet_pt = torch.hypot(total[..., 0], total[..., 1]).clamp_min(_SMALLEST)
    energy, jet_energy = (p[..., 3].clamp_min(_SMALLEST) for p in (momenta, total))
    eta, jet_eta = (
        torch.asinh(p[..., 2] / t).clamp(-_STEEPEST, _STEEPEST)
        for p, t in ((momenta, pt), (total, jet_pt))
    )
    delta_eta = eta - jet_eta
    delta_phi = torch.atan2(momenta[..., 1], momenta[..., 0])
    return torch.stack([
        (pt.log() - 1.7) * 0.7, (energy.log() - 2.0) * 0.7,
        ((pt / jet_pt).log() + 4.7) * 0.7, ((energy / jet_energy).log() + 4.7) * 0.7,
        delta_eta, delta_phi, (torch.hypot(delta_eta, delta_phi) - 0.2) * 4.0,
    ], dim=-1)  # fmt: skip
