"""The mass of a top pair as a function of the transverse momenta and directions of the quarks.

python examples/extending/mass_regression.py examples/ttbar01j_20k.lhe.gz
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import hepgen_ml
from hepgen_ml.config import TrainingConfig
from hepgen_ml.training.task import Task
from hepgen_ml.training.trainer import Trainer


@dataclass(frozen=True)
class Pairs:
    """Inputs (n, 7): log pT, rapidity and azimuth of both quarks, and log mass of the pair (n,)."""

    inputs: Tensor
    log_mass: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: slice) -> Pairs:
        return Pairs(self.inputs[rows], self.log_mass[rows])


def pairs(sample: hepgen_ml.EventSample) -> Pairs:
    """What a regression sees of events with one top pair."""
    top, antitop = (sample.momentum[sample.pdg_id == i] for i in (6, -6))  # (n, 4): px, py, pz, E
    columns = []
    for p in (top, antitop):
        columns += [np.log(np.hypot(p[:, 0], p[:, 1])), np.arctanh(p[:, 2] / p[:, 3])]
    phi = [np.arctan2(p[:, 1], p[:, 0]) for p in (top, antitop)]
    columns += [np.sin(phi[0] - phi[1]), np.cos(phi[0] - phi[1]), columns[1] - columns[3]]
    both = top + antitop
    mass = np.sqrt(both[:, 3] ** 2 - (both[:, :3] ** 2).sum(1))
    inputs = torch.from_numpy(np.stack(columns, axis=1)).float()
    return Pairs(inputs, torch.from_numpy(np.log(mass)).float())


class Network(nn.Module):
    """Perceptron on standardised inputs; what it takes from the events is stored in buffers."""

    def __init__(self, inputs: Tensor, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", inputs.mean(0))
        self.register_buffer("std", inputs.std(0))
        self.layers = nn.Sequential(
            nn.Linear(inputs.shape[1], width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, inputs: Tensor) -> Tensor:
        log_mass: Tensor = self.layers((inputs - self.mean) / self.std)
        return log_mass.squeeze(-1)


class MassRegression(Task[Pairs]):
    """Mean squared deviation of the logarithm of the mass."""

    def loss(self, part: str, data: Pairs, rows: Tensor) -> Tensor:
        predicted = self.module(data.inputs[rows])
        return nn.functional.mse_loss(predicted, data.log_mass[rows])


def regression(events: Pairs, config: TrainingConfig, seed: int = 0) -> Network:
    """Network that has learned the mass; a tenth of the events decides when to stop."""
    torch.manual_seed(seed)
    network = Network(events.inputs)
    held_out = len(events) // 10
    task = MassRegression(network, events[held_out:], events[:held_out])
    Trainer(task, config, seed=seed).run()
    return network.eval()


if __name__ == "__main__":
    found = pairs(hepgen_ml.read(sys.argv[1]))
    tested, known = found[:2000], found[2000:]
    network = regression(known, TrainingConfig(max_time=60.0))
    with torch.no_grad():
        deviation = network(tested.inputs) - tested.log_mass
    print(f"mass of the pair: {100 * float(deviation.std()):.1f} % off, of a spread of "
          f"{100 * float(tested.log_mass.std()):.0f} %")  # fmt: skip
