"""Generated events in an analysis: the invariant mass of the top pair, without a file in between.

Usage: python examples/analysis.py [MODEL], by default with a model of the package.
"""

from __future__ import annotations

import sys

import numpy as np

from hepgen_ml import Generator

generator = Generator.load(sys.argv[1] if len(sys.argv) > 1 else "ttbar01j")
sample = generator.sample(20_000, seed=1)

# An awkward array of events; particles behave as vectors.
events = sample.to_awkward()
final = events.particles[events.particles.status == 1]
top = final[final.pdg_id == 6][:, 0]
antitop = final[final.pdg_id == -6][:, 0]
mass = (top + antitop).mass.to_numpy()

# Each event stands for cross section x weight / sum of weights.
weight = sample.run.cross_section * sample.weight / sample.weight.sum()
sigma, edges = np.histogram(mass, bins=np.arange(300, 1001, 50), weights=weight)
sigma /= np.diff(edges)
for low, high, value in zip(edges[:-1], edges[1:], sigma, strict=True):
    bar = "#" * round(40 * value / sigma.max())
    print(f"{low:5.0f} - {high:4.0f} GeV  {value:7.4f} pb/GeV  {bar}")
print(f"total {weight.sum():.1f} ± {sample.run.cross_section_error:.1f} pb")
