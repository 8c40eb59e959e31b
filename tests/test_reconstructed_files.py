"""Files of reconstructed objects: NanoAOD naming, Delphes, and showered events with jets."""

from __future__ import annotations

import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pyhepmc
import pytest
import uproot
from hepgen_adapters import _hepmc_objects, _hepmc_read, _root_file, _root_write
from hepgen_adapters._objects import Objects, object_columns
from hepgen_adapters.hepmc import HepMC
from hepgen_adapters.lhe import LHE
from hepgen_adapters.root import ROOT

from hepgen_ml.errors import InputError, OutputError, UsageError
from hepgen_ml.events import EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.formats import Reader, open_sample
from hepgen_ml.objects import JET, MASSES, Selection, parse_objects

from .parton_events import assert_same

COLUMNS = ("pdg_id", "px", "py", "pz", "energy", "mass")
MUON = MASSES["Muon"]


def chosen(text: str, **options: float) -> Selection:
    return Selection(parse_objects(text), **options)


def object_sample(n: int = 90, seed: int = 3) -> EventSample:
    """Two muons, up to four jets and now and then a photon, with weights."""
    rng = np.random.default_rng(seed)

    def some(counts: np.ndarray, masses: np.ndarray, charge: np.ndarray | None) -> Objects:
        size = int(counts.sum())
        px, py, pz = rng.normal(0, 50, (3, size))
        return Objects(counts, px, py, pz, masses[:size], charge)

    jets = rng.integers(0, 5, n)
    collections = {
        "Muon": some(np.full(n, 2), np.full(2 * n, MUON), np.tile([-1, 1], n)),
        "Photon": some((np.arange(n) % 30 == 29).astype(int), np.zeros(n), None),
        "Jet": some(jets, rng.exponential(5, int(jets.sum())), None),
    }
    offsets, columns = object_columns(collections, n)
    run = RunInfo(
        beam_energy=(6500.0, 6500.0),
        weight_strategy=-4,
        processes=(Subrun(3, 50.0, 0.5),),
        weight_names={"w 1": "first", "w_1": ""},
        header="some text",
    )
    weights = {name: rng.uniform(0.5, 1.5, n) for name in run.weight_names}
    return EventSample(run, offsets, columns, {"weight": rng.uniform(40, 60, n)}, weights=weights)


SAMPLE = object_sample()


def write(sample: EventSample, path: Path, chunk: int = 25, **options: bool) -> Path:
    writer = ROOT().create(path, sample.run, len(sample), **options)
    for part in sample.chunks(chunk):
        writer.write(part)
    writer.close()
    return path


def read(path: Path, selection: Selection | None = None, size: int = 17) -> EventSample:
    reader = open_sample(path, selection=selection)
    sample = concatenate(list(reader.chunks(size)), reader.run)
    reader.close()
    return sample


def numbers(sample: EventSample, pdg_id: int) -> np.ndarray:
    return np.bincount(sample.event_index[np.abs(sample.pdg_id) == pdg_id], minlength=len(sample))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_root_write, "_FLUSH_EVENTS", 40)
    monkeypatch.setattr(_root_file, "_BLOCK_EVENTS", 30)
    monkeypatch.setattr(_hepmc_read, "_SHOWERED", 3)


def test_order_and_signs() -> None:
    one = np.ones(1)
    jets = Objects(np.array([0, 2]), np.array([1.0, 2.0]), np.zeros(2), np.zeros(2), np.zeros(2))
    muons = Objects(
        np.array([2, 1]), np.array([1.0, 3.0, 5.0]), np.zeros(3), np.zeros(3), np.zeros(3),
        np.array([1, -1, -1]),
    )  # fmt: skip
    electron = Objects(np.array([0, 1]), 9 * one, 0 * one, 0 * one, 0 * one, one)
    offsets, columns = object_columns({"Jet": jets, "Muon": muons, "Electron": electron}, 2)
    np.testing.assert_array_equal(offsets, [0, 2, 6])
    np.testing.assert_array_equal(columns["pdg_id"], [-13, 13, -11, 13, JET, JET])
    np.testing.assert_array_equal(columns["px"], [1, 3, 9, 5, 2, 1])  # jets by pT, leptons not


def test_round_trip_is_exact_and_needs_no_selection(tmp_path: Path) -> None:
    path = write(SAMPLE, tmp_path / "events.root")
    sample = read(path)
    assert_same(sample, SAMPLE)
    assert tuple(sample.particles) == COLUMNS
    assert sample.run == SAMPLE.run
    assert sample.is_reconstructed


def test_names_and_types_of_nanoaod(tmp_path: Path) -> None:
    with uproot.open(write(SAMPLE, tmp_path / "events.root")) as file:
        tree = file["Events"]
        types = {name: branch.typename for name, branch in tree.items()}
        for name in ("Muon_pt", "Muon_eta", "Muon_phi", "Muon_mass", "Jet_mass", "Photon_pt"):
            assert types[name] == "float[]"
        assert types["Muon_charge"] == "int32_t[]"
        assert types["Jet_pxExact"] == "double[]"
        assert "Photon_mass" not in types
        assert not any(name.startswith("LHEPart") for name in types)
        arrays = tree.arrays()
        np.testing.assert_array_equal(arrays.nJet, numbers(SAMPLE, JET))
        np.testing.assert_array_equal(arrays.nElectron, 0)
        np.testing.assert_array_equal(ak.flatten(arrays.Muon_charge), np.tile([-1, 1], 90))
        jets = SAMPLE.pdg_id == JET
        np.testing.assert_allclose(
            ak.flatten(arrays.Jet_pt), np.hypot(SAMPLE.px, SAMPLE.py)[jets], rtol=1e-6
        )
        np.testing.assert_allclose(
            ak.flatten(arrays.Jet_pt * np.sinh(arrays.Jet_eta)), SAMPLE.pz[jets], rtol=1e-4
        )
        np.testing.assert_array_equal(arrays.LHEWeight_w_1, SAMPLE.weights["w 1"])
        assert file["Runs"]["genCrossSection"].array()[0] == 50.0


def test_without_exact_columns(tmp_path: Path) -> None:
    path = write(SAMPLE, tmp_path / "events.root", four_vectors=False)
    assert "Muon_pxExact" not in uproot.open(path)["Events"]
    sample = read(path)
    np.testing.assert_array_equal(sample.pdg_id, SAMPLE.pdg_id)
    np.testing.assert_allclose(sample.momentum, SAMPLE.momentum, rtol=1e-4, atol=1e-3)
    square = sample.energy**2 - np.sum(sample.momentum[:, :3] ** 2, axis=1)
    np.testing.assert_allclose(square, sample.mass**2, atol=1e-8)  # on shell in 64 bits
    np.testing.assert_array_equal(sample.mass[abs(sample.pdg_id) == 13], MUON)


def test_selection(tmp_path: Path) -> None:
    path = write(SAMPLE, tmp_path / "events.root")
    reader = ROOT().open(path, selection=chosen("Muon:2,Jet:1-2"))
    assert reader.left_out == ["collection Photon"]
    sample = concatenate(list(reader.chunks(7)))
    n_jets = numbers(SAMPLE, JET)
    keep = (n_jets >= 1) & (n_jets <= 2)
    assert len(sample) == keep.sum()
    assert reader.n_unselected == (~keep).sum()
    assert reader.unselected_weight == pytest.approx(SAMPLE.weight[~keep].sum())
    assert reader.n_skipped == 0
    np.testing.assert_array_equal(sample.weight, SAMPLE.weight[keep])
    assert set(np.abs(sample.pdg_id)) == {13, JET}
    np.testing.assert_array_equal(numbers(sample, JET), n_jets[keep])
    with pytest.raises(InputError, match=r'no event has Muon:3 .*"Muon:2,Photon:0-1,Jet:0-4"'):
        read(path, chosen("Muon:3"))
    with pytest.raises(UsageError, match="clustered already"):
        read(path, chosen("Muon:2,Jet:0-4", jet_pt=30.0))


def test_other_formats_refuse(tmp_path: Path) -> None:
    for fmt, name in ((LHE(), "a.lhe"), (HepMC(), "a.hepmc")):
        writer = fmt.create(tmp_path / name, SAMPLE.run, 90)
        with pytest.raises(OutputError, match=r"cannot hold reconstructed objects .*\.root"):
            writer.write(SAMPLE)
        writer.close()
    with pytest.raises(UsageError, match="holds partons"):
        LHE().open(tmp_path / "a.lhe", selection=chosen("Muon:2"))
    particles = SAMPLE.particles | {"pdg_id": np.full(len(SAMPLE.px), 21)}
    gluons = EventSample(SAMPLE.run, SAMPLE.offsets, particles)
    with pytest.raises(OutputError, match="event 1: particle 21 belongs to no collection"):
        write(gluons, tmp_path / "gluons.root")


def nano(path: Path, tree: str = "Events", **branches: object) -> Path:
    arrays = {k: ak.Array(v) for k, v in branches.items()}
    with uproot.recreate(path) as file:
        file.mktree(tree, {k: v.type.content for k, v in arrays.items()})
        file[tree].extend(arrays)
    return path


def test_nanoaod_of_others(tmp_path: Path) -> None:
    """No masses of leptons, masses of jets below zero, branches of no use, a weight."""
    path = nano(
        tmp_path / "nano.root",
        Muon_pt=[[30.0, 40.0], [50.0], [60.0, 10.0]],
        Muon_eta=[[0.0, 1.0], [-2.0], [9.0, 0.0]],
        Muon_phi=[[0.0, 1.0], [3.0], [-1.0, 2.0]],
        Muon_charge=[[-1, 1], [1], [1, -1]],
        Muon_isolation=[[0.1, 0.1], [0.1], [0.1, 0.1]],
        Jet_pt=[[21.0], [], [25.0, 45.0]],
        Jet_eta=[[0.5], [], [0.5, 0.7]],
        Jet_phi=[[0.5], [], [0.5, 0.7]],
        Jet_mass=[[-3e-5], [], [4.0, 6.0]],
        genWeight=[2.0, 2.5, -2.0],
    )
    with pytest.raises(InputError, match=r'no LHEPart_eta.*--objects "Muon:1-2,Jet:0-2"'):
        ROOT().open(path)
    selection = chosen("Muon:2,Jet:0-2", cross_section=7.0, cross_section_error=0.5)
    reader = ROOT().open(path, selection=selection)
    assert reader.left_out == ["branch Muon_isolation"]
    assert reader.run.processes == (Subrun(0, 7.0, 0.5),)
    assert reader.run.weight_strategy == -4
    sample = concatenate(list(reader.chunks()))
    assert (reader.n_unselected, reader.unselected_weight) == (1, 2.5)
    assert set(sample.particles) == set(COLUMNS)
    np.testing.assert_array_equal(sample.pdg_id, [13, -13, JET, -13, 13, JET, JET])
    np.testing.assert_array_equal(sample.weight, [2, -2])
    np.testing.assert_array_equal(sample.mass, [MUON, MUON, 0, MUON, MUON, 6, 4])
    np.testing.assert_allclose(sample.px[-2:], [45 * np.cos(0.7), 25 * np.cos(0.5)], rtol=1e-6)
    np.testing.assert_allclose(sample.pz[3], 60 * np.sinh(9.0))  # not to 32 bits only
    with pytest.raises(InputError, match=r"no Photon_pt, .*Muon:1-2,Jet:0-2"):
        ROOT().open(path, selection=chosen("Photon:1"))


def test_delphes(tmp_path: Path) -> None:
    path = nano(
        tmp_path / "delphes.root",
        tree="Delphes",
        **{
            "Event.Weight": [[0.5], [0.5], [0.25]],
            "Event.CrossSection": [[11.0], [12.0], [13.0]],
            "Event.CrossSectionError": [[3.0], [2.0], [1.0]],
            "Electron/Electron.PT": [[30.0], [], [31.0]],
            "Electron/Electron.Eta": [[0.0], [], [1.0]],
            "Electron/Electron.Phi": [[0.0], [], [1.0]],
            "Electron/Electron.Charge": [[1], [], [-1]],
            "Photon.PT": [[], [], [20.0]],
            "Photon.Eta": [[], [], [0.0]],
            "Photon.Phi": [[], [], [0.0]],
            "Jet.PT": [[50.0, 70.0], [], []],
            "Jet.Eta": [[0.0, 1.0], [], []],
            "Jet.Phi": [[0.0, 1.0], [], []],
            "Jet.Mass": [[5.0, 7.0], [], []],
            "Jet.BTag": [[0, 1], [], []],
        },
    )
    with pytest.raises(InputError, match='"Electron:0-1,Photon:0-1,Jet:0-2"'):
        ROOT().open(path)
    reader = ROOT().open(path, selection=chosen("Electron:1,Jet:0-2"))
    assert reader.run.processes == (Subrun(0, 13.0, 1.0),)  # the last event counts
    sample = concatenate(list(reader.chunks()))
    np.testing.assert_array_equal(sample.pdg_id, [-11, JET, JET, 11])
    np.testing.assert_array_equal(sample.weight, [0.5, 0.25])
    np.testing.assert_allclose(sample.mass, [MASSES["Electron"], 7, 5, MASSES["Electron"]])
    assert (reader.n_unselected, reader.unselected_weight) == (1, 0.5)
    assert any("Jet.BTag" in text for text in reader.left_out)
    with pytest.raises(InputError, match=r"no Muon\.PT"):
        ROOT().open(path, selection=chosen("Muon:1"))


def test_bad_numbers(tmp_path: Path) -> None:
    particles = dict(SAMPLE.particles)
    particles["px"] = particles["px"].copy()
    particles["px"][SAMPLE.offsets[50]] = np.nan
    path = write(EventSample(SAMPLE.run, SAMPLE.offsets, particles), tmp_path / "bad.root")
    with pytest.raises(InputError, match="event 51: a number is not finite"):
        read(path)
    reader = ROOT().open(path, skip_bad=True, selection=chosen("Muon:2,Jet:0-4"))
    assert sum(map(len, reader.chunks())) == 89
    assert (reader.n_skipped, reader.n_unselected) == (1, 0)
    ragged = nano(
        tmp_path / "ragged.root",
        Jet_pt=[[21.0]], Jet_eta=[[0.5, 1.0]], Jet_phi=[[0.5]], Jet_mass=[[0.0]],
    )  # fmt: skip
    with pytest.raises(InputError, match="different lengths"):
        read(ragged, chosen("Jet:1"))


def test_real_nanoaod(data_dir: Path) -> None:
    path = data_dir / "readers" / "nanoAOD_2015_CMS_Open_Data_ttbar.root"
    reader = ROOT().open(path, selection=chosen("Muon:1-2,Jet:0-20"))
    sample = concatenate(list(reader.chunks()))
    with uproot.open(path) as file:
        events = file["Events"].arrays(["Muon_pt", "Jet_pt", "Jet_mass", "genWeight"])
    events = events[ak.num(events.Muon_pt) > 0]
    assert len(sample) == len(events) == 40
    assert reader.n_unselected == 160
    np.testing.assert_array_equal(numbers(sample, JET), ak.num(events.Jet_pt))
    np.testing.assert_array_equal(sample.weight, events.genWeight)
    muons = abs(sample.pdg_id) == 13
    pt = np.hypot(sample.px, sample.py)
    np.testing.assert_allclose(pt[muons], ak.flatten(events.Muon_pt), rtol=1e-12)
    np.testing.assert_allclose(
        pt[~muons], ak.flatten(ak.sort(events.Jet_pt, ascending=False)), rtol=1e-12
    )


def test_real_z_jets(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = data_dir / "zjets_train.root"
    reader = ROOT().open(path, selection=chosen("Muon:2,Jet:0-10", cross_section=1460.9))
    n_jets = np.zeros(12, dtype=int)
    for chunk in reader.chunks():
        n_jets += np.bincount(chunk.counts - 2, minlength=12)
    assert n_jets[:9].tolist() == [744200, 194179, 47430, 10948, 2540, 551, 124, 25, 3]
    assert reader.n_unselected == 0
    assert chunk.mass.min() >= 0


# ---- showered events


def shower(path: Path, events: list[list[tuple[int, int, float, float, float]]]) -> Path:
    """Events of (id, status, pt, eta, phi), all from the beams."""
    with pyhepmc.open(path, "w") as file:
        for i, particles in enumerate(events):
            event = pyhepmc.GenEvent(pyhepmc.Units.GEV, pyhepmc.Units.MM)
            event.event_number = i
            vertex = pyhepmc.GenVertex()
            for pz in (6500.0, -6500.0):
                vertex.add_particle_in(pyhepmc.GenParticle((0, 0, pz, 6500.0), 2212, 4))
            for pdg_id, status, pt, eta, phi in particles:
                p = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta))
                vertex.add_particle_out(pyhepmc.GenParticle(p, pdg_id, status))
            event.add_vertex(vertex)
            event.weights = [1.0]
            cross_section = pyhepmc.GenCrossSection()
            event.cross_section = cross_section
            cross_section.set_cross_section(5.0 + i, 1.0, -1, -1)
            file.write(event)
    return path


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
    _hepmc_objects._fastjet.cache_clear()
    with pytest.raises(UsageError, match=r'pip install "hepgen-ml\[fastjet\]"'):
        HepMC().open(path, selection=chosen("Muon:1,Jet:0-2"))
    assert len(read(path, chosen("Muon:1"))) == 1  # without jets it is not needed
    monkeypatch.undo()
    _hepmc_objects._fastjet.cache_clear()


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
