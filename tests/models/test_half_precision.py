"""Models whose parameters are stored in half precision."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import hepgen_ml
from hepgen_ml import Generator
from hepgen_ml.errors import ModelError
from hepgen_ml.files.model_files import CONFIG, WEIGHTS
from hepgen_ml.files.provenance import file_hash
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.models.included import PRETRAINED


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    Generator.load("ttbar01j", device="cpu").save(tmp_path / "model", half=True)
    return tmp_path / "model"


def replace_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors, _ = load_tensors(model / WEIGHTS)
    change(tensors)
    save_tensors(model / WEIGHTS, tensors, {})
    document = json.loads((model / CONFIG).read_text())
    document["weights_sha256"] = file_hash(model / WEIGHTS)
    (model / CONFIG).write_text(json.dumps(document))


def test_half_the_size_and_the_same_density(stored: Path, shipped_sample: Path) -> None:
    whole = (PRETRAINED / "ttbar01j" / WEIGHTS).stat().st_size
    assert (stored / WEIGHTS).stat().st_size < 0.55 * whole
    sample = hepgen_ml.read(shipped_sample)[:1000]
    single, half = (Generator.load(m, device="cpu") for m in ("ttbar01j", stored))
    assert all(p.dtype == torch.float32 for p in half.surrogate.parameters())
    difference = half.log_prob(sample) - single.log_prob(sample)
    assert abs(difference.mean()) < 0.002
    assert 0 < difference.std() < 0.02
    assert np.abs(difference).max() < 0.2


def test_only_parameters_are_rounded(stored: Path) -> None:
    tensors, _ = load_tensors(stored / WEIGHTS)
    names = {name for name, _ in Generator.load(stored, device="cpu").surrogate.named_parameters()}
    assert {name for name, t in tensors.items() if t.dtype == torch.float16} == names
    assert tensors["density.mean"].dtype == torch.float64


def test_what_is_too_large_is_kept_as_it_is(tmp_path: Path) -> None:
    generator = Generator.load("ttbar01j", device="cpu")
    name, parameter = next(iter(generator.surrogate.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] = 1e6
    generator.save(tmp_path / "model", half=True)
    tensors, _ = load_tensors(tmp_path / "model" / WEIGHTS)
    assert tensors[name].dtype == torch.float32
    Generator.load(tmp_path / "model", device="cpu")


def test_the_same_model_saved_again_is_whole(stored: Path, tmp_path: Path) -> None:
    Generator.load(stored, device="cpu").save(tmp_path / "again")
    assert json.loads((tmp_path / "again" / CONFIG).read_text())["precision"] == "float32"
    Generator.load(tmp_path / "again", device="cpu")


def test_standardisations_in_half_precision_are_refused(stored: Path) -> None:
    replace_weights(stored, lambda t: t.update({"density.std": t["density.std"].half()}))
    with pytest.raises(ModelError, match=r"density\.std is stored in half precision"):
        Generator.load(stored, device="cpu")


@pytest.mark.parametrize("stated", ["float32", "float8", 16])
def test_precision_that_is_not_that_of_the_weights(stored: Path, stated: object) -> None:
    document = json.loads((stored / CONFIG).read_text())
    document["precision"] = stated
    (stored / CONFIG).write_text(json.dumps(document))
    with pytest.raises(ModelError, match="damaged"):
        Generator.load(stored, device="cpu")


def test_infinite_parameters_are_refused(stored: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(n for n, t in tensors.items() if t.dtype == torch.float16)
        tensors[name].view(-1)[0] = float("inf")

    replace_weights(stored, change)
    with pytest.raises(ModelError, match="not finite"):
        Generator.load(stored, device="cpu")
