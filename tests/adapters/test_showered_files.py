"""Showered events: which particles make jets, and what is left beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyhepmc
import pytest
from hepgen_adapters.hepmc import HepMC
from hepgen_adapters.hepmc import objects as _hepmc_objects
from hepgen_adapters.hepmc import read as _hepmc_read
from hepgen_adapters.root import ROOT

from hepgen_ml.errors import InputError, UsageError
from hepgen_ml.events.interfaces import Reader
from hepgen_ml.events.objects import JET
from hepgen_ml.events.sample import EventSample, Subrun, concatenate
from tests.object_files import COLUMNS, MUON, chosen, numbers, read, shower


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hepmc_read, "_SHOWERED", 3)


def test_what_goes_into_jets(tmp_path: Path) -> None:
    z = [(13, 1, 45.0, 0.0, 0.0), (-13, 1, 40.0, 0.1, 3.1)]
    events = [
        [
            *z,
            (211, 1, 15.0, 1.0, 1.0), (22, 1, 10.0, 1.1, 1.1),  # a jet of 25 GeV with a photon
            (13, 1, 8.0, 1.0, 1.1),  # and a third, soft muon
            (111, 2, 90.0, 2.0, 2.0),  # decayed
            (12, 1, 70.0, -1.0, -1.0), (1000022, 1, 70.0, -1.0, 1.0),  # not seen
        ],
        [*z, (2112, 1, 30.0, 6.0, 0.5), (130, 1, 19.0, 0.0, 1.5)],  # outside, too soft
        [z[0], (211, 1, 30.0, 0.0, 2.0)],  # one muon only
        [*z, *((211, 1, 30.0, eta, 2.0) for eta in (-2.0, 0.0, 2.0))],  # too many jets
        [*z, (2112, 1, 30.0, 4.0, 0.5), (130, 1, 35.0, 0.0, 1.5)],
    ]  # fmt: skip
    path = shower(tmp_path / "shower.hepmc", events)
    reader = HepMC().open(path, selection=chosen("Muon:2,Jet:0-2"))
    sample = concatenate(list(reader.chunks()))
    assert set(sample.particles) == set(COLUMNS)
    assert set(sample.events) == {"weight"}
    assert (len(sample), reader.n_unselected, reader.unselected_weight) == (3, 2, 2.0)
    np.testing.assert_array_equal(sample.pdg_id, [13, -13, JET, 13, -13, 13, -13, JET, JET])
    pt = np.hypot(sample.px, sample.py)
    assert pt[2] == pytest.approx(33.0, rel=0.01)
    np.testing.assert_allclose(pt[-2:], [35, 30])
    np.testing.assert_array_equal(sample.mass[:2], MUON)
    square = sample.energy**2 - np.sum(sample.momentum[:, :3] ** 2, axis=1)
    np.testing.assert_allclose(square, sample.mass**2, atol=1e-9)
    assert reader.run.processes == (Subrun(0, 9.0, 1.0),)  # of the last event
    assert "chosen objects" in reader.left_out[0]

    wide = read(path, chosen("Muon:2,Jet:1-9", jet_pt=10.0, jet_eta=7.0, jet_radius=0.05))
    np.testing.assert_array_equal(numbers(wide, JET), [2, 2, 3, 2])
    photons = read(path, chosen("Muon:0-3,Photon:0-1,Jet:0-9"))
    np.testing.assert_array_equal(numbers(photons, 22), [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(numbers(photons, 13), [3, 2, 1, 2, 2])
    np.testing.assert_array_equal(numbers(photons, JET), [0, 0, 1, 3, 2])
    only = read(path, chosen("Muon:2"))
    np.testing.assert_array_equal(only.pdg_id, np.tile([13, -13], 4))
    with pytest.raises(InputError, match="no event has Muon:4"):
        read(path, chosen("Muon:4"))


@pytest.mark.parametrize(
    ("pdg_id", "visible"),
    [
        *[(i, False) for i in (12, -14, 16, 1000022, 1000012, 1000039, 39, 51, 9900012)],
        *[(i, True) for i in (11, -13, 15, 22, 21, 1, -5, 211, 130, 2112, 1000010020, 9940003)],
        *[(i, True) for i in (1000612, 1000512, 1000011, 24)],
    ],
)
def test_visible(pdg_id: int, visible: bool) -> None:
    assert _hepmc_objects.is_visible(pdg_id) is visible


def test_without_fastjet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shower(tmp_path / "a.hepmc", [[(13, 1, 45.0, 0.0, 0.0)]])
    monkeypatch.setitem(sys.modules, "fastjet", None)
    _hepmc_objects.load_fastjet.cache_clear()
    with pytest.raises(UsageError, match=r'pip install "hepgen-ml\[fastjet\]"'):
        HepMC().open(path, selection=chosen("Muon:1,Jet:0-2"))
    assert len(read(path, chosen("Muon:1"))) == 1  # without jets it is not needed
    monkeypatch.undo()
    _hepmc_objects.load_fastjet.cache_clear()


def plain_loop(path: Path) -> list[tuple[list[list[float]], list[list[float]]]]:
    """Muons and jets of each event by pyhepmc and FastJet's classic interface alone."""
    import fastjet

    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, 0.4)
    found = []
    with pyhepmc.open(path) as file:
        for event in file:
            muons, others = [], []
            for p in event.particles:
                if p.status != 1 or abs(p.pid) in (12, 14, 16):
                    continue
                (muons if abs(p.pid) == 13 else others).append([p.pid, *p.momentum])
            muons.sort(key=lambda p: -np.hypot(p[1], p[2]))
            others += muons[2:]
            sequence = fastjet.ClusterSequence(
                [fastjet.PseudoJet(*p[1:]) for p in others], definition
            )
            jets = fastjet.sorted_by_pt(sequence.inclusive_jets(20.0))
            four = [[j.px(), j.py(), j.pz(), j.e()] for j in jets if abs(j.eta()) < 5]
            found.append((muons[:2], four))
    return found


def test_real_shower(data_dir: Path) -> None:
    path = data_dir / "zmumu_250.hepmc.gz"
    sample = read(path, chosen("Muon:2,Jet:0-10"))
    expected = plain_loop(path)
    assert len(sample) == len(expected) == 250
    for i, (muons, jets) in enumerate(expected):
        rows = slice(*sample.offsets[i : i + 2])
        momentum, number = sample.momentum[rows], sample.pdg_id[rows]
        assert sorted(number[:2]) == sorted(int(m[0]) for m in muons)
        by_pt = np.argsort(-np.hypot(*momentum[:2, :2].T))
        np.testing.assert_allclose(
            momentum[:2][by_pt, :3], [m[1:4] for m in muons], rtol=1e-9, atol=1e-9
        )
        assert len(momentum) == 2 + len(jets)
        if jets:
            np.testing.assert_allclose(momentum[2:], jets, rtol=1e-6, atol=1e-6)


def test_showers_agree_with_the_clustered_sample(data_dir: Path) -> None:
    """The same process: mean numbers within the statistics of 250 events."""
    shower = read(data_dir / "zmumu_250.hepmc.gz", chosen("Muon:2,Jet:0-10"))
    reader: Reader = ROOT().open(data_dir / "zjets_train.root", selection=chosen("Muon:2,Jet:0-10"))
    truth = next(iter(reader.chunks(20_000)))

    def quantities(sample: EventSample) -> dict[str, np.ndarray]:
        jets = sample.pdg_id == JET
        pt = np.hypot(sample.px, sample.py)
        first = sample.offsets[:-1]
        pair = sample.momentum[first] + sample.momentum[first + 1]
        return {
            "jets": numbers(sample, JET).astype(float),
            "jet pt": pt[jets],
            "jet mass": sample.mass[jets],
            "muon pt": pt[~jets],
            "pair mass": np.sqrt(pair[:, 3] ** 2 - np.sum(pair[:, :3] ** 2, axis=1)),
        }

    a, b = quantities(shower), quantities(truth)
    for name in a:
        difference = a[name].mean() - b[name].mean()
        error = np.hypot(a[name].std() / len(a[name]) ** 0.5, b[name].std() / len(b[name]) ** 0.5)
        assert abs(difference) < 4 * error, name
