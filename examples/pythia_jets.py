"""Generated events through Pythia to jets, with no file between.

    python examples/pythia_jets.py [MODEL] [N]

Needs the extras pythia, fastjet and plots; draws jets.png.
"""

import sys

import awkward as ak
import fastjet
import hist
import matplotlib
import numpy as np
import pythia8mc
import vector
from hepgen_adapters.pythia import LHAupGenerator

matplotlib.use("agg")
vector.register_awkward()


def main(model: str = "ttbar01j", n: str = "500") -> None:
    """Shower n events of a model and draw the transverse momenta of their jets."""
    pythia = pythia8mc.Pythia("", False)
    for setting in ("Print:quiet = on", "PartonLevel:MPI = off"):
        pythia.readString(setting)
    LHAupGenerator(model, n=int(n), seed=1).attach(pythia)
    pythia.init()
    jets = hist.Hist.new.Regular(40, 20, 420, label="jet pT [GeV]").Double()
    anti_kt = fastjet.JetDefinition(fastjet.antikt_algorithm, 0.4)
    while len(batch := pythia.nextBatch(100)):
        p = batch.prt[batch.prt.status > 0]
        seen = p.p[~((abs(p.id) == 12) | (abs(p.id) == 14) | (abs(p.id) == 16))]
        columns = {"px": seen.px, "py": seen.py, "pz": seen.pz, "E": seen.e}
        particles = ak.zip(columns, with_name="Momentum4D")
        found = fastjet.ClusterSequence(particles, anti_kt).inclusive_jets(20.0)
        jets.fill(np.hypot(ak.flatten(found.px), ak.flatten(found.py)))
    axes = jets.plot1d()[0].stairs.axes
    axes.set_yscale("log")
    axes.figure.savefig("jets.png", dpi=150)
    print(f"jets.png: {jets.sum():.0f} jets of {n} events")


if __name__ == "__main__":
    main(*sys.argv[1:])
