"""Jets with constituents from showered events in HepMC3 files, clustered by FastJet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.hepmc.objects import is_visible, load_fastjet
from hepgen_adapters.hepmc.read import HepMCReader
from hepgen_ml.errors import InputError, UsageError
from hepgen_ml.events.jets import Checked, Jets, JetSelection

FEATURES = ("charge", "photon", "neutral_hadron", "charged_hadron", "electron", "muon")
"""Features of a constituent in addition to its momentum: its charge, and flags of its kind."""

_RADIUS, _PT, _ETA = 0.8, 200.0, 2.5
_EVENTS = 200  # clustered together


class HepMCJets:
    """Anti-kT jets of the visible stable particles; see `hepgen_ml.events.jets.JetReader`.

    Every jet above the smallest transverse momentum and inside the largest pseudorapidity counts,
    so that an event may give several, in falling transverse momentum.

    Raises
    ------
    InputError
        No HepMC3.
    UsageError
        FastJet is not installed, or columns of a tree are asked for.
    """

    def __init__(self, path: Path, selection: JetSelection, *, skip_bad: bool = False) -> None:
        if selection.label or selection.flags or selection.tree or selection.constituents:
            raise UsageError(
                "events of HepMC3 files have no columns",
                path=path,
                remedy="name a file for each class: --class top=a.hepmc.gz --class qcd=b.hepmc.gz",
            )
        if unknown := [f for f in selection.features if f not in FEATURES]:
            raise UsageError(
                f"particles have no {unknown[0]!r}",
                path=path,
                remedy=f"they have {', '.join(FEATURES)}",
            )
        self._fastjet = load_fastjet()
        self.path, self.selection = path, selection
        radius = _RADIUS if selection.jet_radius is None else selection.jet_radius
        self._definition = self._fastjet.JetDefinition(self._fastjet.antikt_algorithm, radius)
        self._pt = _PT if selection.jet_pt is None else selection.jet_pt
        self._eta = _ETA if selection.jet_eta is None else selection.jet_eta
        self.checked = Checked(path, selection, skip_bad)
        self._reader = HepMCReader(path, skip_bad=skip_bad)

    def chunks(self) -> Iterator[Jets]:
        """Jets in the order of the file."""
        batch: list[Any] = []
        with contextlib.closing(self._reader.events()) as events:
            for number, (_, data) in enumerate(events, 1):
                if self._is_good(data, number):
                    batch.append(data.particles.copy())
                if len(batch) == _EVENTS:
                    yield self._clustered(batch)
                    batch = []
        if batch:
            yield self._clustered(batch)

    def _is_good(self, data: Any, number: int) -> bool:
        if all(np.isfinite(data.particles[k]).all() for k in ("px", "py", "pz", "e")):
            return True
        if not self.checked.skip_bad:
            raise InputError(
                "a number is not finite",
                path=self.path,
                event=number,
                remedy="use --skip-bad to leave such events out",
            )
        return False

    def _clustered(self, batch: list[Any]) -> Jets:
        import awkward as ak

        particles: Any = np.concatenate(batch)
        event = np.repeat(np.arange(len(batch)), [len(p) for p in batch])
        ids, inverse = np.unique(particles["pid"], return_inverse=True)
        seen = np.array([is_visible(int(i)) for i in ids], dtype=bool)[inverse]
        use = (particles["status"] == 1) & seen & (particles["e"] > 0)
        particles, event, inverse = particles[use], event[use], inverse[use]
        momenta = np.stack([particles[k] for k in ("px", "py", "pz", "e")], axis=1)
        columns = dict(zip(("px", "py", "pz", "E"), momenta.T, strict=True))
        counts = np.bincount(event, minlength=len(batch))
        lists = ak.unflatten(
            ak.zip({k: np.ascontiguousarray(v) for k, v in columns.items()},
                   with_name="Momentum4D"), counts,
        )  # fmt: skip
        sequence = self._fastjet.ClusterSequence(lists, self._definition)
        jets = sequence.inclusive_jets(min_pt=self._pt)
        inside = sequence.constituent_index(min_pt=self._pt)
        pt = np.hypot(jets.px, jets.py)
        good = abs(np.arcsinh(jets.pz / pt)) < self._eta
        order = ak.argsort(pt[good], axis=1, ascending=False)
        inside = inside[good][order]
        first = np.cumsum(counts) - counts
        n_jets = ak.to_numpy(ak.num(inside, axis=1))
        sizes = ak.to_numpy(ak.flatten(ak.num(inside, axis=2))).astype(np.int64)
        rows = ak.to_numpy(ak.flatten(inside, axis=None)).astype(np.int64)
        rows += np.repeat(np.repeat(first, n_jets), sizes)
        table = np.array([_facts(int(i)) for i in ids]).reshape(len(ids), len(FEATURES))
        wanted = [FEATURES.index(f) for f in self.selection.features]
        return self.checked.jets(sizes, momenta[rows], table[inverse[rows]][:, wanted])

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _facts(pdg_id: int) -> npt.NDArray[np.float64]:
    """Values of `FEATURES` of a particle."""
    from particle import pdgid

    charge = float(pdgid.charge(pdg_id) or 0.0) if pdgid.is_valid(pdg_id) else 0.0
    size = abs(pdg_id)
    hadron = size not in (11, 13, 22)
    flags = (size == 22, hadron and charge == 0, hadron and charge != 0, size == 11, size == 13)
    return np.array([charge, *flags], dtype=np.float64)
