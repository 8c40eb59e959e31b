"""Showered and hadronised events of Sherpa as HepMC3 text.

    LD_LIBRARY_PATH=SITE/lib64/SHERPA-MC python sherpa_worker.py CARD OUT.hepmc.gz N SEED

Run by `sherpa_zjets.py`, with the Python of an environment that has Sherpa's module and need have
nothing else. Each event has the beams, one vertex, and the stable particles; the cross section of
each is that of all events so far, so that the last one states that of the file. Integration, the
first time, takes minutes; its results lie in the working directory for the next run.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator

import Sherpa

PROTON_MASS = 0.93827208816  # GeV, PDG 2022
ELEMENTARY_OR_HADRON = 1  # Sherpa's status of a particle that has not been replaced by others


def stable(blobs: Sherpa.Blob_List) -> Iterator[tuple[int, float, float, float, float, float]]:
    """PDG number, momentum, energy and mass in GeV of all particles that nothing comes out of."""
    for i in range(blobs.size()):
        blob = blobs[i]
        for k in range(blob.NOutP()):
            particle = blob.OutPart(k)
            if particle.Stat() == ELEMENTARY_OR_HADRON and not particle.HasDecBlob():
                flavour, p = particle.Flav(), particle.Momentum()
                number = -flavour.Kfcode() if flavour.IsAnti() else flavour.Kfcode()
                yield number, p[1], p[2], p[3], p[0], particle.FinalMass()


def hepmc(generator: Sherpa.Sherpa, event: int, energy: float) -> str:
    """One event as HepMC3 text."""
    blobs = generator.GetBlobList()
    particles = list(stable(blobs))
    pz = (energy**2 - PROTON_MASS**2) ** 0.5
    lines = [
        f"E {event} 1 {len(particles) + 2}",
        "U GEV MM",
        f"W {blobs.Weight():.10e}",
        f"A 0 GenCrossSection {generator.TotalXS():.8e} {generator.TotalErr():.8e} -1 -1",
        f"P 1 0 2212 0 0 {pz:.12e} {energy:.12e} {PROTON_MASS:.12e} 4",
        f"P 2 0 2212 0 0 {-pz:.12e} {energy:.12e} {PROTON_MASS:.12e} 4",
        "V -1 0 [1,2]",
    ]
    lines += [
        f"P {row} -1 {number} {x:.10e} {y:.10e} {z:.10e} {e:.10e} {mass:.6e} 1"
        for row, (number, x, y, z, e, mass) in enumerate(particles, start=3)
    ]
    return "\n".join(lines) + "\n"


def main(card: str, out: str, n: int, seed: int, energy: float) -> None:
    """Write n events; the file gets its name when it is whole."""
    arguments = ["Sherpa", "-f", card, "-R", str(seed), "-e", str(n)]
    generator = Sherpa.Sherpa(len(arguments), arguments)
    generator.InitializeTheRun()
    generator.InitializeTheEventHandler()
    with gzip.open(out + ".partial", "wt", compresslevel=1) as file:
        file.write("HepMC::Version 3.02.06\nHepMC::Asciiv3-START_EVENT_LISTING\n")
        file.write("W Weight\nT Sherpa\\|3\\|\n")
        done = 0
        while done < n:
            if generator.GenerateOneEvent():
                file.write(hepmc(generator, done, energy))
                done += 1
        file.write("HepMC::Asciiv3-END_EVENT_LISTING\n")
    os.replace(out + ".partial", out)
    generator.SummarizeRun()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
