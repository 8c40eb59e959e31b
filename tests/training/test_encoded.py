"""Encoded samples: what travels to a machine without file libraries."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from hepgen_ml import Generator
from hepgen_ml.cli import app
from hepgen_ml.config import load_config
from hepgen_ml.errors import InputError
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.training.encoded import EncodedSample, encode_sample
from tests.samples import toy_top_pairs

TINY = ["network.width=16", "network.blocks=1", "network.heads=2", "network.mixtures=4",
        "training.max_steps=4", "training.batch_size=128"]  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoded") / "sample.safetensors"
    encode_sample(toy_top_pairs(1500)).save(path)
    return path


def test_round_trip(path: Path) -> None:
    sample, back = encode_sample(toy_top_pairs(1500)), EncodedSample.load(path)
    assert back.process.to_config() == sample.process.to_config()
    assert back.run.cross_section == sample.run.cross_section
    assert back.fingerprint == sample.fingerprint
    for field in fields(Encoded):
        one, two = getattr(sample.encoded, field.name), getattr(back.encoded, field.name)
        assert one.dtype == two.dtype
        exact = field.name in ("x", "subprocess", "pattern", "branch", "event")
        assert torch.equal(one, two) if exact else torch.allclose(one, two, rtol=1e-6)


def test_training_from_it_is_training_from_the_sample(path: Path, tmp_path: Path) -> None:
    config = load_config(None, TINY)
    one = Generator.train(toy_top_pairs(1500), out=tmp_path / "a", config=config, device="cpu")
    two = Generator.train(path, out=tmp_path / "b", config=config, device="cpu")
    assert one.facts["sample_sha256"] == two.facts["sample_sha256"]
    assert one.facts["validation_loss"] == pytest.approx(two.facts["validation_loss"], abs=1e-4)
    assert len(two.sample(50, seed=1)) == 50


@pytest.mark.parametrize("damage", ["truncated", "other", "shape", "version", "missing"])
def test_other_files_are_refused(damage: str, path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    tensors = load_file(path)
    document = {"kind": "hepgen-ml encoded sample", "version": 1}
    if damage == "truncated":
        bad.write_bytes(path.read_bytes()[:1000])
    elif damage == "other":
        save_file({"a": torch.zeros(3)}, bad)
    elif damage == "shape":
        tensors["x"] = tensors["x"][:5].clone()
        save_file(tensors, bad, metadata={"json": json.dumps(document)})
    elif damage == "version":
        save_file(tensors, bad, metadata={"json": json.dumps({**document, "version": 9})})
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        EncodedSample.load(bad)


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hepgen_ml import write

    source, out = tmp_path / "toy.lhe", tmp_path / "toy.safetensors"
    write(toy_top_pairs(1200), source)
    arguments = ["encode", "--from-lhe", str(source), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "1,200 events" in result.output
    assert CliRunner().invoke(app, arguments).exit_code == 6
    assert CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "toy.npz")]).exit_code == 2
    example = Path(__file__).parents[2] / "examples" / "train_on_gpu.py"
    command = [str(example), str(out), "--model", "jetgpt", "--device", "cpu",
               "--out", str(tmp_path / "model")]  # fmt: skip
    for setting in TINY:
        command += ["--set", setting]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:  # in this process, which has imported everything
        runpy.run_path(str(example), run_name="__main__")
    assert end.value.code == 0, capsys.readouterr().err
    assert len(Generator.load(tmp_path / "model", device="cpu").sample(20, seed=0)) == 20
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(example), run_name="__main__")
    assert end.value.code == 6
    assert "exists already" in capsys.readouterr().err
