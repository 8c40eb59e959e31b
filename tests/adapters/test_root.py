"""ROOT files in NanoAOD naming: read with uproot alone, and back to the same events."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from hepgen_adapters.root import ROOT
from hepgen_adapters.root import write as root

from hepgen_ml.errors import InputError, OutputError
from hepgen_ml.events.sample import EventSample, concatenate
from tests.object_files import nano
from tests.parton_events import BEAM, assert_same, changed, parton_sample

SAMPLE = parton_sample(60)


def write(sample: EventSample, path: Path, chunk: int = 25, **options) -> Path:
    writer = ROOT().create(path, sample.run, len(sample), **options)
    for part in sample.chunks(chunk):
        writer.write(part)
    writer.close()
    return path


def read(path: Path, size: int = 17, **options) -> EventSample:
    reader = ROOT().open(path, **options)
    sample = concatenate(list(reader.chunks(size)), reader.run)
    reader.close()
    return sample


@pytest.fixture(autouse=True)
def small_baskets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "_FLUSH_EVENTS", 40)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    sample = read(write(SAMPLE, tmp_path / "events.root"))
    assert_same(sample, SAMPLE)
    assert sample.run == SAMPLE.run


def test_names_and_types_of_nanoaod(tmp_path: Path) -> None:
    path = write(SAMPLE, tmp_path / "events.root")
    with uproot.open(path) as file:
        tree = file["Events"]
        types = {name: branch.typename for name, branch in tree.items()}
        assert types["run"] == types["luminosityBlock"] == "uint32_t"
        assert types["event"] == "uint64_t"
        for name in ("pt", "eta", "phi", "mass", "incomingpz"):
            assert types[f"LHEPart_{name}"] == "float[]"
        for name in ("pdgId", "status", "spin"):
            assert types[f"LHEPart_{name}"] == "int32_t[]"
        for name in ("firstMotherIdx", "lastMotherIdx"):
            assert types[f"LHEPart_{name}"] == "int16_t[]"
        events = tree.arrays()
        np.testing.assert_array_equal(events.event, np.arange(1, 61))
        np.testing.assert_array_equal(events.nLHEPart, SAMPLE.counts)
        np.testing.assert_array_equal(events.genWeight, SAMPLE.weight)
        np.testing.assert_array_equal(events.LHEWeight_mur_2_muf_2, SAMPLE.weights["mur=2 muf=2"])
        names = json.loads(str(file["hepgen_ml"]))["weights"]
        assert set(names.values()) == set(SAMPLE.weights)
        assert set(names) <= set(types)
        incoming = events.LHEPart_status == -1
        assert ak.all(events.LHEPart_pt[incoming] == 0)
        assert ak.all(events.LHEPart_eta[incoming] == 0)
        assert ak.all(events.LHEPart_incomingpz[~incoming] == 0)
        np.testing.assert_allclose(
            ak.flatten(events.LHEPart_incomingpz[incoming]), SAMPLE.pz[SAMPLE.status == -1], 1e-6
        )
        np.testing.assert_array_equal(ak.flatten(events.LHEPart_firstMotherIdx), SAMPLE.mother1 - 1)
        final = events.LHEPart_status == 1
        px = ak.flatten((events.LHEPart_pt * np.cos(events.LHEPart_phi))[final])
        pz = ak.flatten((events.LHEPart_pt * np.sinh(events.LHEPart_eta))[final])
        np.testing.assert_allclose(px, SAMPLE.px[SAMPLE.status == 1], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(pz, SAMPLE.pz[SAMPLE.status == 1], rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(events.Generator_id1, SAMPLE.pdg_id[SAMPLE.offsets[:-1]])
        np.testing.assert_allclose(
            events.Generator_x2, SAMPLE.energy[SAMPLE.offsets[:-1] + 1] / BEAM
        )
        runs = file["Runs"].arrays()
        assert runs.genEventCount[0] == 60
        assert runs.genEventSumw[0] == runs.genEventSumw2[0] == 60.0
        assert runs.genCrossSection[0] == SAMPLE.run.cross_section
        assert runs.genCrossSectionError[0] == SAMPLE.run.cross_section_error


def test_fields_are_no_second_set_of_coordinates(tmp_path: Path) -> None:
    """Coffea and vector refuse records with both polar and cartesian momenta."""
    path = write(SAMPLE, tmp_path / "events.root")
    with uproot.open(path) as file:
        fields = {k[8:] for k in file["Events"].keys() if k.startswith("LHEPart_")}  # noqa: SIM118
    others = {"px", "py", "pz", "x", "y", "z", "E", "e", "t", "energy", "theta", "tau", "M", "m"}
    assert not fields & others


def test_without_four_vectors(tmp_path: Path) -> None:
    path = write(SAMPLE, tmp_path / "events.root", four_vectors=False)
    assert "LHEPart_pxExact" not in uproot.open(path)["Events"]
    sample = read(path)
    # a resonance without transverse momentum has no place in pt, eta, phi
    seen = (SAMPLE.status != 2) | (np.hypot(SAMPLE.px, SAMPLE.py) > 0)
    np.testing.assert_allclose(sample.momentum[seen], SAMPLE.momentum[seen], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(sample.color1, SAMPLE.color1)
    np.testing.assert_array_equal(sample.mother2, SAMPLE.mother2)


def test_few_columns(tmp_path: Path) -> None:
    names = ("pdg_id", "status", "px", "py", "pz", "energy")
    sample = EventSample(SAMPLE.run, SAMPLE.offsets, {k: SAMPLE.particles[k] for k in names})
    assert_same(read(write(sample, tmp_path / "events.root")), sample)


def test_files_of_others(tmp_path: Path) -> None:
    """NanoAOD of a version without status, mothers and incoming particles."""
    path = tmp_path / "nano.root"
    with uproot.recreate(path) as file:
        part = ak.zip(
            {
                "pt": ak.Array([[30.0, 40.0], [50.0]]),
                "eta": ak.Array([[0.0, 1.0], [-2.0]]),
                "phi": ak.Array([[0.0, 1.0], [3.0]]),
                "mass": ak.Array([[0.0, 5.0], [0.0]]),
                "pdgId": ak.Array([[13, -13], [21]]),
            }
        )
        file.mktree("Events", {"LHEPart": part.type.content, "genWeight": "float32"})
        file["Events"].extend({"LHEPart": part, "genWeight": np.array([2.0, -2.0], np.float32)})
    sample = read(path)
    np.testing.assert_array_equal(sample.pdg_id, [13, -13, 21])
    np.testing.assert_array_equal(sample.status, 1)
    np.testing.assert_allclose(sample.px[0], 30.0)
    np.testing.assert_allclose(
        sample.energy[1] ** 2 - np.sum(sample.momentum[1, :3] ** 2), 25.0, rtol=1e-9
    )
    np.testing.assert_array_equal(sample.weight, [2, -2])
    assert sample.run.weight_strategy == -4


def test_columns_must_not_change(tmp_path: Path) -> None:
    writer = ROOT().create(tmp_path / "events.root", SAMPLE.run, 120)
    writer.write(SAMPLE)
    other = EventSample(SAMPLE.run, SAMPLE.offsets, SAMPLE.particles, SAMPLE.events)
    with pytest.raises(OutputError, match="change between chunks"):
        writer.write(other)
    writer.close()


def test_bad_files(tmp_path: Path) -> None:
    good = write(SAMPLE, tmp_path / "events.root")

    def refuses(path: Path, match: str) -> None:
        with pytest.raises(InputError, match=match) as error:
            read(path)
        assert error.value.path == path
        assert error.value.remedy

    bad = tmp_path / "bad.root"
    bad.write_bytes(b"this is no ROOT file at all")
    refuses(bad, "not a ROOT file")
    content = good.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    refuses(bad, "not a ROOT file|damaged|cannot be read")
    with uproot.recreate(bad) as file:
        file.mktree("Other", {"x": "float64"})
    refuses(bad, "no tree 'Events'")
    with uproot.recreate(bad) as file:
        file.mktree("Events", {"Muon_pt": "var * float32"})
        file["Events"].extend({"Muon_pt": ak.Array([[1.0], []])})
    refuses(bad, "have no LHEPart_eta")
    write(SAMPLE[:0], bad)
    refuses(bad, "no events|no tree")
    for change in ({"version": 99}, {"run": "{}x"}, {"weights": {"nowhere": "x"}}, {"columns": 3}):
        writer = ROOT().create(bad, SAMPLE.run, 60)
        writer.write(SAMPLE)
        with pytest.MonkeyPatch.context() as patch:
            dumps = json.dumps
            patch.setattr(
                root.json, "dumps", lambda c, change=change, f=dumps, **kw: f(c | change, **kw)
            )
            patch.setattr(root, "dump_run", lambda run, f=root.dump_run: "{}")
            writer.close()
        refuses(bad, "newer version|not valid")
    broken = changed(SAMPLE, "px", SAMPLE.offsets[22] + 2, np.nan)
    refuses(write(broken, bad), "event 23: a number is not finite")
    reader = ROOT().open(bad, skip_bad=True)
    assert sum(map(len, reader.chunks(7))) == 59
    assert (reader.n_skipped, reader.skipped[0].event) == (1, 23)
    reader.close()


def test_reconstructed_objects_are_refused_clearly(data_dir: Path) -> None:
    with pytest.raises(InputError, match=r'LHEPart.*--objects "Muon:2,Jet:0-5"'):
        ROOT().open(data_dir / "zjets_train.root")


def test_cross_section_of_foreign_runs(tmp_path: Path) -> None:
    path = write(SAMPLE, tmp_path / "events.root")
    stripped = tmp_path / "stripped.root"
    with uproot.open(path) as source, uproot.recreate(stripped) as target:
        arrays = source["Events"].arrays(
            ["LHEPart_pt", "LHEPart_eta", "LHEPart_phi", "LHEPart_pdgId"]
        )
        part = ak.zip({name[8:]: arrays[name] for name in arrays.fields})
        target.mktree("Events", {"LHEPart": part.type.content})
        target["Events"].extend({"LHEPart": part})
        runs = source["Runs"].arrays(library="np")
        target.mktree("Runs", {name: values.dtype for name, values in runs.items()})
        target["Runs"].extend(runs)
    (process,) = read(stripped).run.processes
    assert process.cross_section == pytest.approx(60.0)
    assert process.error == pytest.approx(SAMPLE.run.cross_section_error)


def test_names_in_a_file_are_never_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may bring aliases, which uproot evaluates where a name is not found by lookup."""
    marker, name = tmp_path / "marker", "LHEPart_/pt"
    path = tmp_path / "evil.root"
    with uproot.recreate(path) as file:
        lists = {k: ak.Array([[1.0, 2.0], [3.0]]) for k in ("pt", "eta", "phi", "mass")}
        columns = {f"LHEPart_{k}": v for k, v in lists.items()}
        columns |= {"LHEPart_pdgId": ak.Array([[1, 2], [21]]), name: lists["pt"]}
        file.mktree("Events", {k: v.type.content for k, v in columns.items()})
        file["Events"].extend(columns)
    code = f"().__class__.__base__ and open({str(marker)!r}, 'w').close()"
    seen: list[str] = []
    tree_class = uproot.behaviors.TTree.TTree

    def aliases(self: object) -> dict[str, str]:
        seen.append("asked")
        return {name: code, f"/{name}": code, "LHEPart_pt": code}

    monkeypatch.setattr(tree_class, "aliases", property(aliases))
    reader = ROOT().open(path)
    sample = next(iter(reader.chunks()))
    assert any("not plain" in text for text in reader.left_out)
    reader.close()
    assert sample.counts.tolist() == [2, 1]
    assert not seen
    assert not marker.exists()
    with uproot.open(path) as file, contextlib.suppress(Exception):
        file["Events"].arrays([name])  # what was done before
    assert seen


def test_equal_events_give_equal_bytes(tmp_path: Path) -> None:
    """Whenever and under whichever name they are written."""
    first = write(SAMPLE, tmp_path / "a.root").read_bytes()
    (tmp_path / "other").mkdir()
    time.sleep(1.1)  # dates of ROOT files are of whole seconds
    assert write(SAMPLE, tmp_path / "other" / "a.root").read_bytes() == first


def test_attributes_have_no_counter_that_is_not_theirs(tmp_path: Path) -> None:
    """As coffea's NanoAODSchema groups branches: by what stands before the first underscore."""
    n = len(SAMPLE)
    attributes = {
        "trials": np.array([str(i) for i in range(n)]),
        "mu_f2": np.array(["7.5e3"] * (n - 1) + [""]),
        "note": np.array(["a text"] * n),
    }
    sample = EventSample(
        SAMPLE.run, SAMPLE.offsets, SAMPLE.particles, SAMPLE.events, weights=SAMPLE.weights,
        scales=SAMPLE.scales, attributes=attributes,
    )  # fmt: skip
    path = write(sample, tmp_path / "a.root")
    with uproot.open(path) as file:
        tree = file["Events"]
        names = [b.name for b in tree.branches]
        lists = [b.name for b in tree.branches if isinstance(b.interpretation, uproot.AsJagged)]
        assert tree["LHEText_trials"].array().tolist() == list(range(n))
        numbers = tree["LHEText_mu_f2"].array().to_numpy()
    assert np.array_equal(numbers, [7500.0] * (n - 1) + [np.nan], equal_nan=True)
    assert "LHEText_note" not in names
    for name in lists:
        collection = name.split("_")[0]
        members = [k for k in lists if k.split("_")[0] == collection]
        assert f"n{collection}" in names
        assert len(members) == 1 or collection == "LHEPart", members
    assert_same(read(path), sample)


@pytest.mark.parametrize("entries", [-1, 10])
def test_trees_that_state_fewer_events_than_their_branches_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: int
) -> None:
    path = write(SAMPLE, tmp_path / "a.root")
    monkeypatch.setattr(
        "uproot.behaviors.TTree.TTree.num_entries", property(lambda tree: entries)
    )
    with pytest.raises(InputError, match=f"states {entries} events, but branch"):
        ROOT().open(path)


@pytest.mark.parametrize(
    ("branch", "value"),
    [("pt", -20.0), ("pdgId", 13.5), ("pdgId", float("nan")), ("pdgId", 2**40), ("spin", np.inf),
     ("status", float("nan")), ("firstMotherIdx", 4), ("lastMotherIdx", -2)],
)  # fmt: skip
def test_what_no_particle_has_is_a_bad_event(tmp_path: Path, branch: str, value: float) -> None:
    """Never another number in silence."""
    columns = {
        "pt": [0.0, 0.0, 20.0, 20.0], "eta": [0.0, 0.0, 0.5, -0.5], "phi": [0.0, 0.0, 0.0, np.pi],
        "pdgId": [21, 21, 13, -13], "status": [-1, -1, 1, 1], "spin": [9, 9, 9, 9],
        "incomingpz": [22.5, -22.5, 0.0, 0.0], "firstMotherIdx": [-1, -1, 0, 0],
        "lastMotherIdx": [-1, -1, 1, 1],
    }  # fmt: skip
    events = {f"LHEPart_{k}": [v, v[:], v] for k, v in columns.items()}
    events[f"LHEPart_{branch}"][1][2] = value
    path = nano(tmp_path / "a.root", **events)
    with pytest.raises(InputError, match="event 2: a number is not finite, a transverse"):
        read(path)
    assert len(read(path, skip_bad=True)) == 2


def test_one_number_an_event_is_no_list(tmp_path: Path) -> None:
    names = ("pt", "eta", "phi", "pdgId")
    path = nano(tmp_path / "a.root", **{f"LHEPart_{name}": [1, 2, 3] for name in names})
    with pytest.raises(InputError, match="holds one number an event"):
        read(path)
