"""Shower generated events with Pythia and count charged particles.

Run after `hepgen-ml generate`: python examples/shower.py events.lhe.gz 2000
"""

from __future__ import annotations

import sys

import pythia8mc

path = sys.argv[1] if len(sys.argv) > 1 else "events.lhe.gz"
n_wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
pythia = pythia8mc.Pythia("", False)
for command in (
    "Print:quiet = on",
    "SLHA:verbose = 0",
    "Beams:frameType = 4",
    f"Beams:LHEF = {path}",
    "PartonLevel:MPI = off",  # many times faster
):
    pythia.readString(command)
if not pythia.init():
    sys.exit(f"Pythia refuses {path}")

n_events = n_charged = 0
while n_events < n_wanted and not pythia.infoPython().atEndOfFile():
    if pythia.next():
        n_events += 1
        n_charged += sum(p.isFinal() and p.isCharged() for p in pythia.event)
sigma = pythia.infoPython().sigmaGen() * 1e9  # Pythia counts in mb
print(f"{n_events} events showered, {n_charged / n_events:.0f} charged particles each")
print(f"cross section {sigma:.0f} pb")
