"""Quantities that ratios of weights depend on.

At leading order a ratio of two weights is a product: the ratio of the parton densities of each
incoming parton, a function of its flavour, its momentum fraction x and the scale; a ratio of
powers of the strong coupling, a function of the scale; and a ratio of squared matrix elements, a
function of invariants and helicities. The inputs of the network are these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.events.helicities import helicities
from hepgen_ml.events.sample import UNKNOWN_SPIN
from hepgen_ml.process.assembly import scales_and_couplings
from hepgen_ml.process.channel_groups import by_value
from hepgen_ml.process.encoded import Discrete, Encoded, Kinematics, pair_invariants
from hepgen_ml.process.labels import values_of, which
from hepgen_ml.process.process import Process
from hepgen_ml.process.symmetry import images

N_PARTON, N_COUPLING = 3, 2
"""Inputs of each incoming parton, and of the couplings."""

_LEAST = 1e-9

_FAMILIES = {"quark": (1, 2, 3, 4), "charged lepton": (11, 13, 15), "neutrino": (12, 14, 16)}
"""Flavours of light fermions; the bottom quark differs in its mass and that of its partner."""


@dataclass
class Inputs:
    """Inputs of the network for m events.

    Attributes
    ----------
    parton : (m, 2, 3) float32 tensor
        log x, log(1 - x) and the logarithm of the scale, for each incoming parton.
    coupling : (m, 2) float32 tensor
        Logarithms of scale and strong coupling; zero where not known.
    event : (m, F) float32 tensor
        Pair invariants, directions, momentum fractions, scale, coupling and helicities.
    subprocess : (m,) int64 tensor
    """

    parton: Tensor
    coupling: Tensor
    event: Tensor
    subprocess: Tensor

    def __len__(self) -> int:
        return len(self.subprocess)

    def __getitem__(self, rows: Tensor) -> Inputs:
        return Inputs(
            self.parton[rows], self.coupling[rows], self.event[rows], self.subprocess[rows]
        )

    def to(self, device: torch.device) -> Inputs:
        """The same on a device."""
        return Inputs(
            self.parton.to(device),
            self.coupling.to(device),
            self.event.to(device),
            self.subprocess.to(device),
        )


def n_event_inputs(process: Process) -> int:
    """Number F of inputs of a whole event."""
    n = process.n_final
    n_given = 0 if process.conditions is None else process.conditions.n_features
    if process.is_reconstructed:
        return math.comb(n + 2, 2) + 2 * n + 6 + n_given
    return math.comb(n + 2, 2) + n + 6 + _n_rows(process) + n_given


def exchanged_inputs(process: Process) -> tuple[list[int], list[float]]:
    """Order and signs (F,) of the inputs of a whole event after the beams are exchanged."""
    n, size = process.n_final, n_event_inputs(process)
    order, sign = list(range(size)), [1.0] * size
    if process.is_reconstructed:
        return order, sign
    pairs = list(combinations(range(n + 2), 2))
    other = {0: 1, 1: 0}
    for k, (i, j) in enumerate(pairs):
        i, j = sorted((other.get(i, i), other.get(j, j)))
        order[k] = pairs.index((i, j))
    k = len(pairs)
    order[k : k + 4] = [k + 2, k + 3, k, k + 1]  # momentum fractions
    k += 4 + N_COUPLING
    sign[k : k + n] = [-1.0] * n  # sides
    k += n
    order[k : k + 2] = [k + 1, k]  # helicities of incoming particles
    return order, sign


def representatives(process: Process) -> list[int]:
    """Of each subprocess and its mirror image, with the beams exchanged, the one that both use."""
    orders = [sub.order for sub in process.subprocesses]
    return [
        s if image is None or orders[s] != orders[image] else min(s, image)
        for s, image in enumerate(images(process))
    ]


def kinds(process: Process) -> list[int]:
    """Number of the kind of each subprocess.

    Those of a kind differ by flavours of quarks and leptons alone, which interact alike.
    """
    known: dict[tuple[tuple[str, int], ...], int] = {}
    found = []
    for sub in process.subprocesses:
        seen: dict[int, int] = {}
        key = []
        for pdg_id, status in zip(sub.structure.pdg_id, sub.structure.status, strict=True):
            flavour = abs(pdg_id)
            family = next((name for name, ids in _FAMILIES.items() if flavour in ids), None)
            if family is None:
                key.append((str(status), pdg_id))
                continue
            number = seen.setdefault(flavour, 1 + len(seen))
            key.append((f"{status} {family}", number if pdg_id > 0 else -number))
        found.append(known.setdefault(tuple(key), len(known)))
    return found


def _n_rows(process: Process) -> int:
    return max(len(s.structure.pdg_id) for s in process.subprocesses)


def inputs_of(process: Process, encoded: Encoded) -> Inputs:
    """Inputs of encoded events."""
    subprocess = encoded.labels.cpu()
    x = torch.nn.functional.pad(encoded.x, (0, process.n_coordinates - encoded.x.shape[1]))
    kinematics = process.kinematics(x, subprocess, torch.zeros(len(x), dtype=torch.float64))
    discrete = Discrete(encoded.pattern.cpu(), encoded.branch.cpu(), encoded.free.cpu())
    return inputs(process, kinematics, subprocess, discrete)


def inputs(
    process: Process, kinematics: Kinematics, subprocess: Tensor, discrete: Discrete
) -> Inputs:
    """Inputs of events from their momenta and discrete properties."""
    final, incoming = kinematics.final, kinematics.incoming
    labels, subprocess = subprocess, which(subprocess)
    m = len(subprocess)
    log_x = torch.zeros(m, 2, 2, dtype=torch.float64)
    coupling = torch.zeros(m, N_COUPLING, dtype=torch.float64)
    further = []
    if process.is_reconstructed:
        pt = torch.hypot(final[..., 0], final[..., 1]).clamp_min(_LEAST)
        further = [torch.log(pt), torch.asinh(final[..., 2] / pt)]
    else:
        energy = incoming[..., 3] / torch.tensor(process.beam_energy, dtype=torch.float64)
        log_x = torch.log(torch.stack([energy, 1 - energy], -1).clamp_min(1e-7))
        values = scales_and_couplings(process, kinematics, subprocess, discrete)
        for k, name in enumerate(("scale", "alpha_qcd")):
            if name in values:
                known = np.where(values[name] > 0, values[name], 1.0)
                coupling[:, k] = torch.log(torch.from_numpy(known))
        further = [_sides(incoming, final), _spins(process, subprocess, discrete.pattern)]
    given = values_of(labels)
    if process.conditions is not None and given is not None:
        further.append(process.conditions.features(given).double())
    scale = coupling[:, :1]
    parton = torch.cat([log_x, scale[:, None].expand(m, 2, 1)], -1)
    event = torch.cat(
        [pair_invariants(incoming, final).double(), log_x.flatten(1), coupling, *further], 1
    )
    return Inputs(parton.float(), coupling.float(), event.float(), subprocess)


def _sides(incoming: Tensor, final: Tensor) -> Tensor:
    """(p2 - p1).p_i / (p1 + p2).p_i of all final particles (m, n), a cosine for massless ones.

    An asymmetry, which distinguishes the directions of the beams, is a smooth function of it.
    """
    metric = final.new_tensor([-1.0, -1.0, -1.0, 1.0])
    products = torch.einsum("mic,mjc->mij", incoming * metric, final).clamp_min(1e-3)
    one, two = products[:, 0], products[:, 1]
    return (two - one) / (two + one)


def _spins(process: Process, subprocess: Tensor, pattern: Tensor) -> Tensor:
    """Helicities (m, rows) of all particles, zero where they are not known."""
    spins = torch.zeros(len(subprocess), _n_rows(process), dtype=torch.float64)
    for number, rows in by_value(subprocess):
        sub = process.subprocesses[number]
        n = len(sub.structure.pdg_id)
        found = np.asarray(helicities(sub.patterns[:, 2 * n :]), dtype=np.float64)
        table = torch.from_numpy(np.where(found == UNKNOWN_SPIN, 0.0, found))
        spins[rows, :n] = table[pattern[rows]]
    return spins
