"""Models, encoded samples and checkpoints come from anybody: named errors, never a crash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hepgen_ml.errors import HepgenError, InputError, ModelError, UsageError
from hepgen_ml.files import documents
from hepgen_ml.files.model_files import CLASSIFIER, CONFIG, WEIGHTS
from hepgen_ml.files.provenance import file_hash
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.included import PRETRAINED
from hepgen_ml.process.encoded import Encoded, Kinematics
from hepgen_ml.process.process import Process
from hepgen_ml.process.structure import Structure
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.training.encoded import EncodedSample

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PRETRAINED / "ttbar01j", tmp_path / "model"))


def change_config(model: Path, change: Change) -> None:
    document = json.loads((model / CONFIG).read_text())
    change(document)
    (model / CONFIG).write_text(json.dumps(document))


def change_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors, _ = load_tensors(model / WEIGHTS)
    change(tensors)
    save_tensors(model / WEIGHTS, tensors, {})
    change_config(model, lambda d: d.update(weights_sha256=file_hash(model / WEIGHTS)))


def put(*keys: str | int, value: Any) -> Change:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


CHART, SUB = ("process", "channels", 0, "chart"), ("process", "subprocesses", 0)
RULES = ("process", "channels", 0, "auxiliaries")

CHANGES: dict[str, Change] = {
    "version infinite": put("version", value=float("inf")),
    "version text": put("version", value="1"),
    "version true": put("version", value=[]),
    "format": put("format", value=3),
    "hash": put("weights_sha256", value="0"),
    "hash a list": put("weights_sha256", value=["0" * 64]),
    "config null": put("config", value=None),
    "config a list": put("config", value=[]),
    "width nan": put("config", "network", "width", value=float("nan")),
    "width huge": put("config", "network", "width", value=10**9),
    "bins huge": put("config", "jetgpt", value={"bins": 10**9}),
    "seed huge": put("config", "seed", value=10**40),
    "no channels": put("process", "channels", value=[]),
    "no subprocesses": put("process", "subprocesses", value=[]),
    "chart unknown": put(*CHART, "kind", value="flat"),
    "chart a number": put(*CHART, value=7),
    "masses null": put(*CHART, "masses", value=None),
    "mass infinite": put(*CHART, "masses", value=[float("inf"), 173.0]),
    "mass huge": put(*CHART, "masses", value=[10**400, 173.0]),
    "mass a range that is empty": put(*CHART, "masses", value=[[2.0, 1.0], 173.0]),
    "labels too many": put(*CHART, "labels", value=["6"] * 10**5),
    "labels too few": put(*CHART, "labels", value=["6"]),
    "formula a number": put(*RULES, "scale", "options", 0, "formula", value=3),
    "formula unknown": put(*RULES, "scale", "options", 0, "formula", value="__import__('os')"),
    "formula of a missing particle": put(*RULES, "scale", "reference", value=["core_mt:99", 1.0]),
    "factor zero": put(*RULES, "scale", "options", 0, "factor", value=0),
    "reference null": put(*RULES, "scale", "reference", value=None),
    "no choice": put(*RULES, "alpha_qed", value={
        "options": [], "free": False, "reference": ["constant", 1.0]}),
    "table of one": put(*RULES, "alpha_qcd", "options", value=[
        {"kind": "table", "knots": [1.0], "inverse": [1.0]}]),
    "table of unequal lengths": put(*RULES, "alpha_qcd", "options", value=[
        {"kind": "table", "knots": [1.0, 2.0], "inverse": [1.0]}]),
    "cut null": put("process", "acceptance", 0, value=None),
    "cut on nothing": put("process", "acceptance", 0, "observable", value=None),
    "cut on text": put("process", "acceptance", 0, "low", value="346"),
    "evidence for one bound": put("process", "acceptance", 0, "evidence", value=[None]),
    "evidence of fewer than none": put("process", "acceptance", 0, "evidence", value=[
        {"entries": -1, "near": 64, "width": 1.0, "position": 0.5, "classes": ["j"]}, None]),
    "evidence of text": put("process", "acceptance", 0, "evidence", value=[None, "sharp"]),
    "cut nobody passes": put("process", "acceptance", 0, "high", value=1.0),
    "channel that does not exist": put(*SUB, "chart", value=5),
    "channel before the first": put(*SUB, "chart", value=-1),
    "order repeated": put(*SUB, "order", value=[2, 2]),
    "order outside": put(*SUB, "order", value=[2, 99]),
    "patterns ragged": put(*SUB, "patterns", 0, value=[1, 2]),
    "patterns empty": put(*SUB, "patterns", value=[]),
    "pattern beyond 32 bits": put(*SUB, "patterns", 0, 0, value=2**40),
    "pattern frequencies missing": put(*SUB, "pattern_frequency", value=[]),
    "frequency negative": put(*SUB, "frequency", value=-1.0),
    "mother that does not exist": put(*SUB, "structure", "mother1", value=[0, 0, 9, 9]),
    "columns of unequal lengths": put(*SUB, "structure", "status", value=[-1, -1, 1]),
    "one incoming particle": put(*SUB, "structure", "status", value=[-1, 1, 1, 1]),
    "beam energy null": put("process", "beam_energy", value=[None, 6500.0]),
    "run null": put("run", value=None),
    "generators of two": put("run", "generators", 0, value=["a", "b"]),
    "header a number": put("run", "header", value=1),
    "header no text": put("run", "header", value="\ud800"),
    "processes a number": put("run", "processes", value=3),
    "training a list": put("training", value=[1]),
    "training nested": put("training", "steps", value={"a": {"b": {}}}),
    "acceptance of nothing": put("training", "acceptance", value=[0.0, 1.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_changed_configuration(model: Path, name: str) -> None:
    change_config(model, CHANGES[name])
    with pytest.raises(ModelError) as found:
        Generator.load(model)
    assert found.value.path is not None
    assert found.value.path.parent == model
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 600


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"null", b"3", b'"text"', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe",
        b'{"version": 1e999}', b'{"version": ' + b"9" * 5000 + b"}", b"\x00" * 100,
    ],
)  # fmt: skip
def test_no_configuration(model: Path, text: bytes) -> None:
    (model / CONFIG).write_bytes(text)
    with pytest.raises(ModelError, match=r"config.json: is damaged"):
        Generator.load(model)


def test_more_than_any_configuration(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="larger than"):
        Generator.load(model)


@pytest.mark.parametrize("size", [{"width": 4096, "blocks": 64}, {"mixtures": 512, "width": 2048}])
def test_networks_beyond_their_weights_are_not_made(model: Path, size: dict[str, int]) -> None:
    change_config(model, lambda d: d["config"]["network"].update(size))
    with pytest.raises(ModelError, match="larger than its weights"):
        Generator.load(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(model: Path, value: float) -> None:
    change_weights(model, lambda t: t["density.mean"].fill_(value))
    with pytest.raises(ModelError, match=r"density.mean holds a number that is not finite"):
        Generator.load(model)


def test_weights_of_other_shapes_and_types(model: Path) -> None:
    def reshaped(tensors: dict[str, torch.Tensor]) -> None:
        tensors["density.mean"] = tensors["density.mean"][:, :1]

    def retyped(tensors: dict[str, torch.Tensor]) -> None:
        tensors["density.mean"] = tensors["density.mean"].long()

    for change in (reshaped, retyped, lambda t: t.pop("density.mean")):
        copy = Path(shutil.copytree(model, model.parent / "copy", dirs_exist_ok=True))
        change_weights(copy, change)
        with pytest.raises(ModelError, match="another network"):
            Generator.load(copy)


def test_types_that_no_weight_has(model: Path) -> None:
    change_weights(model, lambda t: t.update({"density.mean": t["density.mean"].bfloat16()}))
    with pytest.raises(ModelError, match="bfloat16"):
        Generator.load(model)


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, (10**15).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}"]
)
def test_no_weights(model: Path, data: bytes) -> None:
    (model / WEIGHTS).write_bytes(data)
    change_config(model, lambda d: d.update(weights_sha256=file_hash(model / WEIGHTS)))
    with pytest.raises(ModelError):
        Generator.load(model)


def test_missing_and_misplaced_files(model: Path) -> None:
    (model / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=WEIGHTS):
        Generator.load(model)
    (model / WEIGHTS).mkdir()
    with pytest.raises(ModelError, match=WEIGHTS):
        Generator.load(model)
    with pytest.raises(ModelError, match="no model"):
        Generator.load(model / CONFIG)
    (model / CONFIG).unlink()
    (model / CONFIG).mkdir()
    with pytest.raises(ModelError):
        Generator.load(model)


CLASSIFIER_CHANGES: dict[str, Change] = {
    "kind": put("kind", value=1),
    "version": put("version", value=None),
    "network": put("facts", "network", value=["mlp"]),
    "folds": put("facts", "folds", value=10**9),
    "groups": put("groups", value=None),
    "members": put("groups", 0, "members", value=10**9),
    "members missing": put("groups", 0, "members", value=3),
    "rate": put("groups", 0, "rate", value=None),
    "slope": put("groups", 0, "calibration", value={"slope": "1", "offset": 0.0}),
    "final": put("groups", 0, "final", value=[2**70]),
    "facts": put("facts", value=[]),
}


@pytest.mark.parametrize("name", CLASSIFIER_CHANGES)
def test_changed_classifiers(tmp_path: Path, name: str) -> None:
    calibration = {"slope": 0.0, "offset": 0.0}
    document: dict[str, Any] = {
        "kind": "hepgen-ml classifier",
        "version": 3,
        "groups": [
            {"final": [6, -6], "resonances": [], "members": 0, "calibration": calibration,
             "calibration_of_mean": calibration, "rate": 1.0}
        ],
        "facts": {"network": "mlp", "folds": 5, "full": False, "exchange_beams": True,
                  "unweighting_limit": 2.0},
    }  # fmt: skip
    save_tensors(tmp_path / CLASSIFIER, {"none": torch.zeros(1)}, document)
    assert Reweighter.load(tmp_path).n_members == 5
    CLASSIFIER_CHANGES[name](document)
    save_tensors(tmp_path / CLASSIFIER, {"none": torch.zeros(1)}, document)
    with pytest.raises(ModelError, match=CLASSIFIER):
        Reweighter.load(tmp_path)


def _encoded(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An encoded sample of four events of the pretrained model's process."""
    document = json.loads((PRETRAINED / "ttbar01j" / CONFIG).read_text())
    process = Process.from_config(document["process"])
    n = 4
    whole, real = torch.zeros(n, dtype=torch.int32), torch.ones(n)
    tensors = dict(
        zip(
            [name for name in Encoded.__dataclass_fields__ if name != "conditions"],
            [torch.zeros(n, process.n_coordinates, dtype=torch.float64), whole, whole, whole,
             torch.zeros(n, 3), real, torch.zeros(n, process.n_invariants), whole],
            strict=True,
        )
    )  # fmt: skip
    about = {
        "kind": "hepgen-ml encoded sample", "version": 1, "process": document["process"],
        "run": document["run"], "fingerprint": "0" * 64, "files": ["a.lhe"], "n_skipped": 0,
    }  # fmt: skip
    save_tensors(path, tensors, about)
    return tensors, about


ENCODED_CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "kind": lambda t, d: d.update(kind=[]),
    "version": lambda t, d: d.update(version=2),
    "version infinite": lambda t, d: d.update(version=float("inf")),
    "files": lambda t, d: d.update(files="a.lhe"),
    "run": lambda t, d: d.update(run=[]),
    "process": lambda t, d: d["process"].update(channels=None),
    "subprocess": lambda t, d: t.update(subprocess=t["subprocess"] + 99),
    "pattern": lambda t, d: t.update(pattern=t["pattern"] + 99),
    "branch": lambda t, d: t.update(branch=t["branch"] - 1),
    "event": lambda t, d: t.update(event=t["event"] - 1),
    "real numbers": lambda t, d: t.update(subprocess=t["subprocess"].float()),
    "shape": lambda t, d: t.update(x=t["x"][:, 0]),
    "length": lambda t, d: t.update(weight=t["weight"][:2]),
    "scalar": lambda t, d: t.update(x=torch.tensor(1.0)),
    "nothing": lambda t, d: t.update({k: v[:0] for k, v in t.items()}),
    "weight": lambda t, d: t.update(weight=t["weight"] * float("inf")),
    "invariants": lambda t, d: t.update(invariants=t["invariants"] * float("nan")),
    "missing": lambda t, d: t.pop("free"),
}


@pytest.mark.parametrize("name", ENCODED_CHANGES)
def test_changed_encoded_samples(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sample.safetensors"
    tensors, document = _encoded(path)
    assert len(EncodedSample.load(path).encoded) == 4
    ENCODED_CHANGES[name](tensors, document)
    save_tensors(path, tensors, document)
    with pytest.raises(InputError, match=r"sample\.safetensors") as found:
        EncodedSample.load(path)
    assert "\n" not in str(found.value)


def test_errors_of_a_model_in_use_name_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator.load(model)
    kinematics = Process.kinematics

    def outside(*arguments: Any) -> Kinematics:
        found = kinematics(*arguments)
        return replace(found, passes=torch.zeros_like(found.passes))

    monkeypatch.setattr(Process, "kinematics", outside)
    with pytest.raises(ModelError, match="outside the cuts") as caught:
        generator.sample(1000)
    assert caught.value.path == model
    for options in ({"posterior": 5}, {"weights": "classifier"}, {"weights": "sample"}):
        with pytest.raises(UsageError) as refused:
            generator.sample(10, **options)
        assert str(refused.value).startswith(f"{model}: ")


def test_products_of_resonances_are_found_once() -> None:
    n = 60  # each of two mothers: as many ways to the last as Fibonacci's numbers
    structure = Structure(
        0, (23,) * n, (2,) * (n - 1) + (1,), (0, 1, *range(1, n - 1)), (0, 1, *range(2, n))
    )
    assert structure.leaves(0) == [n - 1]


def test_errors_in_documents_name_the_entry() -> None:
    with pytest.raises(ValueError, match=r"a\.1\.b: nan is not a finite number"):
        documents.parse('{"a": [0, {"b": NaN}]}')
    with pytest.raises(ValueError, match="beam_energy") as found:
        Process.from_config({"beam_energy": [1.0, None], "channels": 3})
    assert documents.problem(found.value).startswith("beam_energy.1: ")
    assert issubclass(ModelError, HepgenError)
