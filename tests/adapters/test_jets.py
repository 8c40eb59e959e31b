"""Jets with constituents from ROOT trees of several kinds and from showered events."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hepgen_adapters.hepmc import objects as _hepmc_objects
from hepgen_adapters.root.jets import _texts

from hepgen_ml.errors import InputError, UsageError
from hepgen_ml.events.jets import JetSelection, open_jets, read_jets
from tests.jets import toy, write
from tests.object_files import shower

MOMENTA = ("px", "py", "pz", "energy")
POLAR = ("pt", "eta", "phi", "mass")


@pytest.fixture
def lists() -> dict[str, Any]:
    return toy(30, 2, 0)


def test_components_and_polar_lists_are_the_same_jets(
    tmp_path: Path, lists: dict[str, Any]
) -> None:
    label = np.arange(30) % 3
    a = write(tmp_path / "a.root", lists, *MOMENTA, "charge", origin=label)
    b = write(tmp_path / "b.root", lists, *POLAR, "charge", tree="nominal", origin=label)
    selection = JetSelection(features=("charge",), label="origin")
    one, two = (read_jets(p, selection) for p in (a, b))
    np.testing.assert_allclose(one.momenta, two.momenta, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(one.label, label.astype(str))
    pt = np.hypot(one.momenta[:, 0], one.momenta[:, 1])
    assert all(np.all(np.diff(pt[i:j]) <= 0) for i, j in pairwise(one.offsets))
    total = ak.to_numpy(ak.sum(lists["px"], axis=1))
    np.testing.assert_allclose(one.momentum[:, 0], total, rtol=1e-5, atol=1e-3)
    some = one[np.array([4, 2])]
    np.testing.assert_allclose(some.momentum[:, 0], total[[4, 2]], rtol=1e-5, atol=1e-3)
    few = read_jets(a, JetSelection(most=3))
    np.testing.assert_array_equal(few.counts, 3)


def test_entries_that_are_events(tmp_path: Path, lists: dict[str, Any]) -> None:
    plain = read_jets(write(tmp_path / "a.root", lists, *POLAR))
    # the same jets, three in each event: NanoAOD's list for the event, with an index
    per_event = {n: ak.flatten(ak.unflatten(x, 3), axis=2) for n, x in lists.items() if n in POLAR}
    place = ak.unflatten(ak.local_index(lists["pt"], axis=0) % 3, 3)
    jet = ak.flatten(
        ak.broadcast_arrays(place[:, :, np.newaxis], ak.unflatten(lists["pt"], 3))[0], axis=2
    )
    branches = {f"PFCands_{n}": x for n, x in per_event.items()} | {
        "FatJetPFCands_jetIdx": jet,
        "FatJetPFCands_pFCandsIdx": ak.local_index(jet),
        "FatJet_pt": ak.unflatten(np.ones(30), 3),
        "FatJet_eta": ak.unflatten(np.ones(30), 3),
        "FatJet_phi": ak.unflatten(np.ones(30), 3),
        "FatJet_mass": ak.unflatten(np.ones(30), 3),
        "FatJet_kind": ak.unflatten(np.arange(30) % 2, 3),
    }
    path = tmp_path / "nano.root"
    with uproot.recreate(path) as file:
        tree = file.mktree("Events", {k: v.type.content for k, v in branches.items()})
        tree.extend(branches)
    found = read_jets(path, JetSelection(label="FatJet_kind"))
    np.testing.assert_array_equal(found.momenta, plain.momenta)
    np.testing.assert_array_equal(found.label, (np.arange(30) % 2).astype(str))


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda x: x + np.where(np.arange(30) == 5, np.nan, 0.0), "jet 6 has a number"),
        (lambda x: ak.concatenate([x[:7], x[7:8, :0], x[8:]]), "jet 8 has no constituents"),
    ],
)
def test_bad_jets(tmp_path: Path, lists: dict[str, Any], spoil: Any, what: str) -> None:
    broken = {name: spoil(lists[name]) for name in MOMENTA}
    path = write(tmp_path / "a.root", broken, *MOMENTA)
    with pytest.raises(InputError, match=what):
        read_jets(path)
    left = read_jets(path, skip_bad=True)
    assert len(left) == 29
    assert len(np.unique(left.number)) == 29


def test_what_is_missing_is_named(tmp_path: Path, lists: dict[str, Any]) -> None:
    path = write(tmp_path / "a.root", lists, *MOMENTA, "charge", number=np.arange(30))
    for selection, what in (
        (JetSelection(features=("d0",)), "no 'd0' .they have charge"),
        (JetSelection(label="nope"), "no column 'nope' .it has number"),
        (JetSelection(label="part_charge"), "not one value for each jet"),
        (JetSelection(tree="other"), "has no tree 'other' .it has tree"),
        (JetSelection(constituents="jet"), "no lists 'jet'.*: part"),
    ):
        with pytest.raises(InputError, match=what):
            read_jets(path, selection)
    with pytest.raises(UsageError, match="clustered already"):
        open_jets(path, JetSelection(jet_pt=10.0))
    with pytest.raises(InputError, match="no lists of momenta"):
        read_jets(write(tmp_path / "b.root", lists, "charge"))


def test_several_lists(tmp_path: Path, lists: dict[str, Any]) -> None:
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file["tree"] = {f"{p}_{n}": lists[n] for p in ("track", "cell", "Jet") for n in POLAR}
    with pytest.raises(InputError, match="--constituents: Jet, cell, track"):
        read_jets(path)
    assert len(read_jets(path, JetSelection(constituents="cell"))) == 30
    with uproot.recreate(path) as file:
        file["tree"] = {f"Jet_{n}": lists[n] for n in POLAR}
    with pytest.raises(InputError, match="if its Jet are constituents"):
        read_jets(path)


def test_jets_of_showered_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event = [
        (211, 1, 300.0, 0.5, 1.0), (22, 1, 100.0, 0.6, 1.2), (12, 1, 90.0, 0.5, 1.0),
        (2112, 1, 250.0, -1.0, -2.0), (-11, 1, 30.0, -1.1, -2.0),
    ]  # fmt: skip
    path = shower(tmp_path / "a.hepmc", [event, [event[0]], [(211, 1, 300.0, 4.0, 0.0)]])
    jets = read_jets(path, JetSelection(features=("charge", "photon")))
    np.testing.assert_array_equal(jets.counts, [2, 2, 1])
    pt = np.hypot(jets.momenta[:, 0], jets.momenta[:, 1])
    np.testing.assert_allclose(pt, [300, 100, 250, 30, 300], rtol=1e-5)
    np.testing.assert_array_equal(jets.features, [[1, 0], [0, 1], [0, 0], [1, 0], [1, 0]])
    assert len(read_jets(path, JetSelection(jet_pt=290.0, jet_eta=5.0))) == 3
    with pytest.raises(UsageError, match="no columns"):
        open_jets(path, JetSelection(label="origin"))
    with pytest.raises(UsageError, match="they have charge, photon"):
        open_jets(path, JetSelection(features=("d0",)))
    monkeypatch.setitem(sys.modules, "fastjet", None)
    _hepmc_objects.load_fastjet.cache_clear()
    with pytest.raises(UsageError, match=r'pip install "hepgen-ml\[fastjet\]"'):
        open_jets(path)
    monkeypatch.undo()
    _hepmc_objects.load_fastjet.cache_clear()


def test_formats_without_jets(tmp_path: Path) -> None:
    (tmp_path / "a.lhe").write_text("")
    with pytest.raises(UsageError, match="no jets with constituents"):
        open_jets(tmp_path / "a.lhe")


def test_the_class_of_a_jet_does_not_depend_on_other_jets() -> None:
    values = np.array([1.0, np.nan, 2.5, -3.0, 1e300], np.float64)
    assert _texts(values).tolist() == ["1", "nan", "2.5", "-3", "1e+300"]
    assert _texts(np.array([True, False])).tolist() == ["1", "0"]
    assert _texts(np.array([2**60], np.int64)).tolist() == [str(2**60)]
