"""Lists of weights as NanoAOD has them, and their titles, from files that nobody vouches for."""

from __future__ import annotations

import time
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from hepgen_adapters.root import ROOT
from hepgen_adapters.root.branches import Branches
from hepgen_adapters.root.weights import _texts, collections, weights_of_lists

from hepgen_ml.events.sample import RunInfo
from hepgen_ml.events.weight_groups import kept
from tests.adapters.test_root import read, write


def test_weights_of_nanoaod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of ratios to the nominal weight are named weights, of 8 or 9 entries and none."""
    titles = {
        "LHEScaleWeight": 'LHE scale variation weights (w_var / w_nominal); [0] is MUF="0.5" '
        'MUR="0.5"; [1] is MUF="0.5"  MUR="1.0" ; [7] is MUF="2.0" MUR="2.0"',
        "LHEPdfWeight": "LHE pdf variation weights (w_var / w_nominal) for LHA IDs 325300 - 325301",
        "PSWeight": "PS weights (w_var / w_nominal);   [0] is ISR=2 FSR=1[1] is ISR=1 FSR=2",
    }
    monkeypatch.setattr(Branches, "title", lambda self, name: titles.get(name, ""))
    scale = np.linspace(0.8, 1.2, 16, dtype=np.float32).reshape(2, 8)
    lists = {
        "LHEScaleWeight": [*scale.tolist(), []],
        "LHEPdfWeight": [[1.0, 0.5]] * 3, "PSWeight": [[1.5, 0.25]] * 3,
        "LHEReweightingWeight": [[-1.0]] * 3,
    }  # fmt: skip
    columns = {name: ak.values_astype(ak.Array(v), np.float32) for name, v in lists.items()}
    part = ak.zip({k: ak.Array([[30.0], [50.0], [40.0]]) for k in ("pt", "mass")}
                  | {k: ak.Array([[1.0], [-1.0], [0.5]]) for k in ("eta", "phi")}
                  | {"pdgId": ak.Array([[13], [21], [13]])})  # fmt: skip
    nominal = np.array([2.0, -3.0, 4.0], np.float32)
    path = tmp_path / "nano.root"
    with uproot.recreate(path) as file:
        types = {"LHEPart": part.type.content} | {k: v.type.content for k, v in columns.items()}
        file.mktree("Events", types | {"genWeight": "float32"})
        file["Events"].extend({"LHEPart": part, **columns, "genWeight": nominal})
    sample = read(path)
    assert len(sample.weights) == 8 + 2 + 2 + 1
    for k in range(8):  # without the nominal one, the fifth
        found = sample.weights[f"LHEScaleWeight_{k + (k > 3)}"]
        np.testing.assert_allclose(found, [2 * scale[0, k], -3 * scale[1, k], np.nan], rtol=1e-6)
    np.testing.assert_allclose(sample.weights["PSWeight_1"], nominal / 4)
    np.testing.assert_allclose(sample.weights["LHEReweightingWeight_0"], -nominal)
    texts = sample.run.weight_names
    assert texts["LHEScaleWeight_1"] == 'MUF="0.5" MUR="1.0"'
    assert texts["LHEScaleWeight_2"] == ""
    assert texts["LHEPdfWeight_1"] == "LHA ID 325301"
    assert texts["PSWeight_0"] == "ISR=2 FSR=1"
    assert not any("Weight" in text for text in ROOT().open(path).left_out)
    again = write(sample, tmp_path / "again.root")
    for name, values in read(again).weights.items():
        np.testing.assert_array_equal(values, sample.weights[name])
    with uproot.open(again) as file:
        for name in lists:
            found = ak.to_numpy(file["Events"][name].array())
            np.testing.assert_allclose(found[:2], ak.to_numpy(columns[name][:2]), rtol=1e-6)


def test_eight_scales_are_nine_without_the_nominal_one() -> None:
    nine = np.linspace(0.5, 1.3, 9)
    names = [f"LHEScaleWeight_{k}" for k in range(9)]
    lists = ak.Array([nine.tolist(), np.delete(nine, 4).tolist(), []])
    found = weights_of_lists(
        {"LHEScaleWeight": names}, {"LHEScaleWeight": lists}, np.array([1.0, 2.0, 3.0])
    )
    for k, name in enumerate(names):
        second = 2 * (nine[k] if k != 4 else 1.0)
        np.testing.assert_allclose(found[name], [nine[k], second, np.nan])


def file_of(path: Path, lists: list[list[float]]) -> Path:
    """File of another program with one particle in each event and these weights."""
    n = len(lists)
    part = ak.zip({k: ak.Array([[v]] * n) for k, v in (
        ("pt", 30.0), ("mass", 0.0), ("eta", 1.0), ("phi", 0.5), ("pdgId", 13)
    )})  # fmt: skip
    weights = ak.values_astype(ak.Array(lists), np.float32)
    with uproot.recreate(path) as file:
        file.mktree("Events", {
            "LHEPart": part.type.content, "LHEPdfWeight": weights.type.content,
            "genWeight": "float32",
        })  # fmt: skip
        file["Events"].extend({
            "LHEPart": part, "LHEPdfWeight": weights, "genWeight": np.arange(1.0, n + 1),
        })  # fmt: skip
    return path


def test_lists_of_many_lengths_are_read_in_small_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every event has as many weights as the longest list, whatever its own length is."""
    lists = [[k + 0.25 * i for i in range(k % 5)] for k in range(40)]
    path = file_of(tmp_path / "nano.root", lists)
    monkeypatch.setattr("hepgen_adapters.root.file._BLOCK_WEIGHTS", 30)
    reader = ROOT().open(path)
    chunks = list(reader.chunks(1000))
    assert max(map(len, chunks)) <= 30 // 4
    assert sum(map(len, chunks)) == 40
    sample = read(path)
    for i in range(4):
        expected = [(k + 1) * v[i] if i < len(v) else np.nan for k, v in enumerate(lists)]
        np.testing.assert_allclose(sample.weights[f"LHEPdfWeight_{i}"], expected, rtol=1e-6)


@pytest.mark.parametrize(("longest", "few"), [(200, 3), (10_001, 10_001)])
def test_lists_that_would_be_filled_up_without_bound_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, longest: int, few: int
) -> None:
    lists = [[1.0] * (longest if k == 3 else few) for k in range(60)]
    path = file_of(tmp_path / "nano.root", lists)
    assert read(path).weights == {}
    assert [r.message for r in caplog.records if f"up to {longest:,} entries" in r.message]
    assert len(caplog.records) == 1
    assert any("LHEPdfWeight" in text for text in ROOT().open(path).left_out)


def test_groups_of_weights_know_entities_and_groups_in_groups() -> None:
    run = RunInfo(weight_groups=(
        '<weightgroup name="scale"><weight id="a&lt;&#98;">x</weight>'
        '<weightgroup name="inner"><weight id="c"/></weightgroup><weight id="d"/></weightgroup>'
        '<weightgroup name="pdf"><weight id="e"/></weightgroup><weight id="f"/>'
    ))  # fmt: skip
    found = collections(run, ["a<b", "c", "d", "e", "f"])
    assert found == {"LHEScaleWeight": ["a<b", "c", "d"], "LHEPdfWeight": ["e"]}
    assert kept(run.weight_groups, ["a<b"]).count("<weight ") == 1


def test_long_titles_take_no_long_time() -> None:
    begun = time.process_time()
    texts = _texts("[0] is  MUF=1 " + " " * 200_000 + "MUR=2; [1]is  x ", 3)
    assert time.process_time() - begun < 5.0  # minutes if each blank begins a search of its own
    assert texts == ["MUF=1 MUR=2", "x", ""]
