"""Files of reconstructed objects: NanoAOD naming and Delphes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from hepgen_adapters._objects import Objects, object_columns
from hepgen_adapters.hepmc import HepMC
from hepgen_adapters.lhe import LHE
from hepgen_adapters.root import ROOT
from hepgen_adapters.root import file as _root_file
from hepgen_adapters.root import write as _root_write

from hepgen_ml.errors import InputError, OutputError, UsageError
from hepgen_ml.events.objects import JET, MASSES
from hepgen_ml.events.sample import EventSample, Subrun, concatenate
from tests.object_files import COLUMNS, MUON, chosen, nano, numbers, object_sample, read
from tests.parton_events import assert_same

SAMPLE = object_sample()


def write(sample: EventSample, path: Path, chunk: int = 25, **options: bool) -> Path:
    writer = ROOT().create(path, sample.run, len(sample), **options)
    for part in sample.chunks(chunk):
        writer.write(part)
    writer.close()
    return path


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_root_write, "_FLUSH_EVENTS", 40)
    monkeypatch.setattr(_root_file, "_BLOCK_EVENTS", 30)


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


@pytest.mark.parametrize(
    ("branch", "value"), [("Muon_pt", -31.0), ("Muon_charge", 2), ("Muon_charge", 0)]
)
def test_what_is_no_measurement_is_a_bad_event(tmp_path: Path, branch: str, value: float) -> None:
    branches = {
        "Muon_pt": [[30.0], [31.0], [32.0]], "Muon_eta": [[0.5]] * 3, "Muon_phi": [[0.5]] * 3,
        "Muon_charge": [[1], [-1], [1]],
    }  # fmt: skip
    branches[branch][1] = [value]
    path = nano(tmp_path / "events.root", **branches)
    with pytest.raises(InputError, match=r"event 2: .*momentum negative or .* charge not ±1"):
        read(path, chosen("Muon:1"))
    reader = ROOT().open(path, skip_bad=True, selection=chosen("Muon:1"))
    assert sum(map(len, reader.chunks())) == 2
    assert reader.n_skipped == 1


def test_the_newest_cycle_of_a_tree_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def events(n: int) -> dict[str, object]:
        names = ("Muon_pt", "Muon_eta", "Muon_phi", "Muon_charge")
        return {k: ak.Array([[1.0]] * n) for k in names}

    for name, sizes in (("backup", (2, 3)), ("shorter", (3, 2))):
        path = tmp_path / f"{name}.root"
        with uproot.recreate(path) as file:
            for n in sizes:
                file.mktree("Events", {k: v.type.content for k, v in events(n).items()})
                file["Events"].extend(events(n))
        assert len(read(path, chosen("Muon:1"))) == sizes[1]
        assert ("Events;1 has 3" in caplog.text) == (name == "shorter")


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


def runs_tree(path: Path, weights: list[float], **columns: object) -> Path:
    """Two muons an event with these weights, and a tree ``Runs``."""
    muons = {k: ak.Array([[v, v]] * len(weights)) for k, v in (("pt", 30.0), ("eta", 0.5))}
    muons |= {
        "phi": ak.Array([[0.0, 3.0]] * len(weights)),
        "charge": ak.Array([[1, -1]] * len(weights)),
    }
    branches = {f"Muon_{k}": v for k, v in muons.items()} | {"genWeight": np.array(weights)}
    with uproot.recreate(path) as file:
        file.mktree("Events", {k: ak.Array(v).type.content for k, v in branches.items()})
        file["Events"].extend(branches)
        file.mktree("Runs", {k: np.float64 for k in columns})
        file["Runs"].extend({k: np.asarray(v, dtype=np.float64) for k, v in columns.items()})
    return path


def test_a_skim_has_its_part_of_the_cross_section(tmp_path: Path) -> None:
    """Docs: genWeight times cross section over genEventSumw, which counts all events."""
    path = runs_tree(
        tmp_path / "skim.root", [2.0] * 30, genEventSumw=[60.0, 20.0],
        genCrossSection=[1000.0, 1000.0], genCrossSectionError=[1.0, 1.0],
    )  # fmt: skip
    run = read(path, chosen("Muon:2")).run
    assert run.cross_section == pytest.approx(1000 * 60 / 80)
    assert run.cross_section_error == pytest.approx(60 / 80)


def test_sums_of_other_events_give_no_cross_section(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """More weight in the events than in all that Runs counts: it would be scaled up."""
    path = runs_tree(
        tmp_path / "joined.root", [2.0] * 30, genEventSumw=[20.0],
        genCrossSection=[1000.0], genCrossSectionError=[1.0],
    )  # fmt: skip
    run = read(path, chosen("Muon:2")).run
    assert math.isnan(run.cross_section)
    assert "3 times genEventSumw" in caplog.text
    assert "--cross-section" in caplog.text


def test_runs_without_entries_say_nothing(tmp_path: Path) -> None:
    path = runs_tree(tmp_path / "empty.root", [2.0] * 3, genEventSumw=[], genCrossSection=[])
    assert math.isnan(read(path, chosen("Muon:2")).run.cross_section)


def test_an_error_that_is_not_stated_is_not_known(tmp_path: Path) -> None:
    path = runs_tree(tmp_path / "no_error.root", [1.0] * 3, genCrossSection=[12.0])
    run = read(path, chosen("Muon:2")).run
    assert run.cross_section == 12.0
    assert math.isnan(run.cross_section_error)


def test_lists_are_needed(tmp_path: Path) -> None:
    scalars = {f"Jet_{k}": np.array([30.0, 40.0]) for k in ("pt", "eta", "phi", "mass")}
    path = tmp_path / "flat.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {k: v.dtype for k, v in scalars.items()})
        file["Events"].extend(scalars)
    with pytest.raises(InputError, match="Jet_pt holds one number an event"):
        read(path, chosen("Jet:1"))


@pytest.mark.parametrize(
    "charge",
    [
        np.array([True, False]), np.array([1, -1], np.int8), np.array([1, 255], np.uint8),
        np.array([1.0, -1.0], np.float32),
    ],
    ids=str,
)  # fmt: skip
def test_charges_of_any_type(tmp_path: Path, charge: np.ndarray) -> None:
    muons = {f"Muon_{k}": ak.Array([[30.0, 20.0]] * 4) for k in ("pt", "eta", "phi")}
    muons["Muon_charge"] = ak.unflatten(np.tile(charge, 4), 2)
    path = nano(tmp_path / "charges.root", **muons)
    assert read(path, chosen("Muon:2")).pdg_id.tolist() == [-13, 13] * 4


def test_rntuple(tmp_path: Path) -> None:
    """The newer kind of tree, as NanoAOD has it from ROOT 6.34 on."""
    muons = {f"Muon_{k}": ak.Array([[30.0, 20.0], [25.0], []]) for k in ("pt", "eta", "phi")}
    muons["Muon_charge"] = ak.Array([[1, -1], [1], []])
    path = tmp_path / "rntuple.root"
    with uproot.recreate(path) as file:
        file.mkrntuple("Events", ak.Array(muons))
    sample = read(path, chosen("Muon:0-2"))
    assert sample.counts.tolist() == [2, 1, 0]
    assert np.allclose(np.hypot(sample.px, sample.py), [30, 20, 25])


def test_trees_in_directories(tmp_path: Path) -> None:
    muons = {f"Muon_{k}": ak.Array([[30.0, 20.0], [25.0]]) for k in ("pt", "eta", "phi")}
    muons["Muon_charge"] = ak.Array([[1, -1], [1]])
    path = nano(tmp_path / "a.root", tree="analysis/nominal", **muons)
    selection = chosen("Muon:0-2")
    with pytest.raises(InputError, match="analysis/nominal: choose one with --tree"):
        read(path, selection)
    sample = read(path, replace(selection, tree="analysis/nominal"))
    assert sample.counts.tolist() == [2, 1]
    with pytest.raises(InputError, match="'analysis/other'"):
        read(path, replace(selection, tree="analysis/other"))
