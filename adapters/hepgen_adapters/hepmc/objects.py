"""Reconstructed objects from the particles of showered events: leptons, photons, anti-kT jets.

Jets by FastJet: M. Cacciari, G.P. Salam and G. Soyez, arXiv:1111.6097; the
algorithm: the same, arXiv:0802.1189.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters._objects import Objects, is_selected, object_columns
from hepgen_ml.errors import UsageError
from hepgen_ml.events.objects import MASSES, OBJECTS, ObjectCount, Selection
from hepgen_ml.events.sample import EventSample, RunInfo

log = logging.getLogger("hepgen_adapters.hepmc")

_FIELDS = {"px": "px", "py": "py", "pz": "pz", "E": "e"}


@functools.cache
def is_visible(pdg_id: int) -> bool:
    """Whether a stable particle leaves a signal: charged ones, hadrons, photons, gluons.

    Neutrinos, neutralinos, gravitinos, gravitons and dark matter do not. Ids outside the PDG
    numbering count as visible.
    """
    from particle import pdgid

    if not pdgid.is_valid(pdg_id):
        return True
    hadron = pdgid.is_hadron(pdg_id) or pdgid.is_Rhadron(pdg_id) or pdgid.is_nucleus(pdg_id)
    return bool(hadron or pdgid.charge(pdg_id) or abs(pdg_id) in (21, 22, 23, 25))


class Clusterer:
    """Picks out leptons and photons and clusters everything else.

    Of each collection of leptons or photons in the selection, the hardest
    particles are picked out, as many as its largest number; so that an electron from the decay of a
    hadron stays in its jet only if harder ones fill the places. All other visible stable particles
    go into jets, including photons radiated by bare leptons. Leptons have the masses of
    `hepgen_ml.events.objects.MASSES` and keep their order.

    Parameters
    ----------
    selection : Selection
        With objects.

    Raises
    ------
    UsageError
        Jets are asked for and fastjet is not installed.
    """

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.n_unselected, self.unselected_weight = 0, 0.0
        self.most: dict[str, ObjectCount] = {}
        self._jets = any(o.name == "Jet" for o in selection.objects)
        if self._jets:
            fastjet = load_fastjet()
            self._fastjet = fastjet
            self._definition = fastjet.JetDefinition(fastjet.antikt_algorithm, selection.jet_radius)

    def sample(
        self,
        records: list[Any],
        run: RunInfo,
        weight_names: list[str],
        numbered: bool = False,
        attributes: Mapping[str, npt.NDArray[np.str_]] | None = None,
    ) -> EventSample:
        """Objects of the events with the selected numbers.

        Parameters
        ----------
        records : list of GenEventData
            In GeV.
        run : RunInfo
        weight_names : list of str
            The nominal weight first.
        numbered : bool
            Keep the numbers of the events.
        attributes : mapping of str to (n,) array of str, optional
            Of the events.
        """
        n = len(records)
        particles: Any = np.concatenate([r.particles for r in records])
        event = np.repeat(np.arange(n), [len(r.particles) for r in records])
        stable = particles["status"] == 1
        particles, event = particles[stable], event[stable]
        ids, inverse = np.unique(particles["pid"], return_inverse=True)
        seen = np.array([is_visible(int(i)) for i in ids], dtype=bool)[inverse]
        particles, event = particles[seen], event[seen]
        weights = np.array([r.weights if len(r.weights) else [1.0] for r in records])
        weights = weights.reshape(n, len(weight_names))

        left = np.ones(len(event), dtype=bool)
        collections, counts = {}, {}
        for o in self.selection.objects:
            if o.name != "Jet":
                rows = _hardest(particles, event, OBJECTS[o.name], o.high)
                left[rows] = False
                collections[o.name] = _leptons(o.name, particles[rows], event[rows], n)
                counts[o.name] = collections[o.name].counts
        if self._jets:
            # cluster only events that can be selected
            possible = is_selected(
                counts, [o for o in self.selection.objects if o.name in counts], n
            )
            use = left & possible[event]
            collections["Jet"] = self._cluster(particles[use], event[use], n)
            counts["Jet"] = collections["Jet"].counts
        offsets, columns = object_columns(collections, n)
        sample = EventSample(
            run,
            offsets,
            columns,
            {"weight": weights[:, 0]}
            | ({"event_number": [r.event_number for r in records]} if numbered else {}),
            weights={name: weights[:, i] for i, name in enumerate(weight_names) if i},
            attributes=attributes,
        )
        selected = is_selected(counts, self.selection.objects, n)
        if selected.all():
            return sample
        self.n_unselected += int((~selected).sum())
        self.unselected_weight += float(weights[~selected, 0].sum())
        return sample[selected]

    def _cluster(self, particles: Any, event: npt.NDArray[np.int64], n: int) -> Objects:
        import awkward as ak

        momenta = ak.zip(
            {name: np.ascontiguousarray(particles[k]) for name, k in _FIELDS.items()},
            with_name="Momentum4D",
        )
        momenta = ak.unflatten(momenta, np.bincount(event, minlength=n))
        sequence = self._fastjet.ClusterSequence(momenta, self._definition)
        jets = sequence.inclusive_jets(min_pt=self.selection.jet_pt)
        counts = ak.to_numpy(ak.num(jets)).astype(np.int64)
        flat = ak.flatten(jets)
        px, py, pz, e = (ak.to_numpy(flat[k]).astype(np.float64) for k in _FIELDS)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.abs(np.arcsinh(pz / np.hypot(px, py))) < self.selection.jet_eta
        of_jet = np.repeat(np.arange(n), counts)[inside]
        px, py, pz, e = (x[inside] for x in (px, py, pz, e))
        size = np.sqrt(px**2 + py**2 + pz**2)
        mass = np.sqrt(np.maximum((e - size) * (e + size), 0.0))
        return Objects(np.bincount(of_jet, minlength=n).astype(np.int64), px, py, pz, mass)


def _hardest(
    particles: Any, event: npt.NDArray[np.int64], number: int, most: int
) -> npt.NDArray[np.int64]:
    """Rows of the `most` particles of largest transverse momentum of each event, in file order."""
    rows = np.flatnonzero(np.abs(particles["pid"]) == number)
    pt = np.hypot(particles["px"][rows], particles["py"][rows])
    order = rows[np.lexsort((-pt, event[rows]))]
    of = event[order]
    first = np.searchsorted(of, of)
    chosen: npt.NDArray[np.int64] = np.sort(order[np.arange(len(of)) - first < most])
    return chosen


def _leptons(name: str, rows: Any, event: npt.NDArray[np.int64], n: int) -> Objects:
    px, py, pz = (np.ascontiguousarray(rows[k]) for k in ("px", "py", "pz"))
    mass = np.full(len(px), MASSES[name])
    counts = np.bincount(event, minlength=n).astype(np.int64)
    return Objects(counts, px, py, pz, mass, -np.sign(rows["pid"]))


@functools.cache
def load_fastjet() -> Any:
    """FastJet without its banner.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        import fastjet
    except ImportError:
        raise UsageError(
            "jets need FastJet, which is not installed",
            remedy='pip install "hepgen-ml[fastjet]"',
        ) from None
    # Its banner would be mixed with standard output; the documentation has the citation it asks
    # for.
    with contextlib.suppress(ImportError, AttributeError):
        from fastjet import _swig

        _swig.ClusterSequence.set_fastjet_banner_stream(None)
    log.info("jets are clustered by FastJet; please cite arXiv:1111.6097")
    return fastjet
