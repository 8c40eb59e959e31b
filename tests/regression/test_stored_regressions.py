"""Directories of regressions: damaged ones, and trainings that go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hepgen_ml import Regressor
from hepgen_ml.errors import ModelError, OutputError, UsageError
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.regression.model import Settings
from hepgen_ml.regression.point_files import read_npz
from hepgen_ml.regression.regressor import DIRECTORY, REGRESSION
from tests.regression.amplitudes import FEW, points


def test_damaged_regressions_are_refused(tmp_path: Path) -> None:
    sample, columns = read_npz(points(tmp_path, 300))
    path = Regressor.fit(sample, columns["amplitude"], FEW).save(tmp_path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = json.loads(file.metadata()["json"])
    changes: list[dict[str, Any]] = [
        {"kind": "hepgen-ml model"}, {"version": 2}, {"members": 2}, {"calibration": [1.0, 2.0]},
        {"network": document["network"] | {"width": 64}}, {"columns": ["mass"]},
        {"network": document["network"] | {"width": 10**9}}, {"particles": [[True, 2]]},
        {"network": document["network"] | {"pickle": 1}}, {"signatures": []},
        {"target": document["target"] | {"std": 0.0}}, {"target": None},
        {"facts": document["facts"] | {"events": "many"}}, {"facts": {}},
    ]  # fmt: skip
    for change in changes:
        save_file(tensors, path, metadata={"json": json.dumps(document | change)})
        with pytest.raises(ModelError, match="is damaged"):
            Regressor.load(tmp_path)
    slot = next(n for n in tensors if n.endswith("last.bias"))
    save_file(tensors | {slot: tensors[slot] + 0.5}, path,
              metadata={"json": json.dumps(document)})  # fmt: skip
    with pytest.raises(ModelError, match="gives other outputs than when hepgen-ml"):
        Regressor.load(tmp_path)
    old = {k: v for k, v in document.items() if k != "probe"}
    save_file(tensors, path, metadata={"json": json.dumps(old)})
    Regressor.load(tmp_path)
    first = next(iter(tensors))
    broken = tensors | {first: torch.full_like(tensors[first], torch.nan)}
    save_file(broken, path, metadata={"json": json.dumps(document)})
    with pytest.raises(ModelError, match="not finite"):
        Regressor.load(tmp_path)
    (tmp_path / REGRESSION).unlink()
    with pytest.raises(ModelError, match="holds no regression"):
        Regressor.load(tmp_path)


class StoppedError(Exception):
    """A training ends in the middle."""


@pytest.mark.parametrize("more", [{"members": 2}, {"loss": "likelihood"}, {"bayesian": True}])
def test_an_interrupted_training_goes_on(
    tmp_path: Path, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, columns = read_npz(points(tmp_path, 400))
    settings = Settings(FEW.network, FEW.sizes, max_steps=40, batch_size=64, max_time=1e6, **more)
    whole = Regressor.fit(sample, columns["amplitude"], settings)
    clock, out = iter(range(10**6)), tmp_path / "out"
    monkeypatch.setattr("hepgen_ml.training.trainer.time.monotonic", lambda: float(next(clock)))
    told = iter(range(10**6))

    def stop(*_: object) -> None:
        if next(told) == 55 // (3 - settings.members):
            raise StoppedError

    def fit(target: FloatArray, chosen: Settings = settings, **options: Any) -> Regressor:
        return Regressor.fit(sample, target, chosen, directory=out, **options)

    with pytest.raises(StoppedError), DIRECTORY.claimed(out, force=False):
        fit(columns["amplitude"], progress=stop)
    assert not (out / REGRESSION).exists()
    with pytest.raises(OutputError, match="--resume"), DIRECTORY.claimed(out, force=False):
        pass
    with pytest.raises(UsageError, match="begun with other events, another target"):
        fit(columns["amplitude"] + 1.0, resume=True)
    with pytest.raises(UsageError, match="begun with other events, another target"):
        fit(columns["amplitude"], Settings(max_steps=40), resume=True)
    again = fit(columns["amplitude"], resume=True)
    again.save(out)
    assert again.facts["steps"] == whole.facts["steps"]
    assert [p.name for p in out.iterdir()] == [REGRESSION]
    for a, b in zip(again.predict(sample), whole.predict(sample), strict=True):
        np.testing.assert_array_equal(a, b)
    done = DIRECTORY.claimed(out, force=False, resume=True)
    with pytest.raises(OutputError, match="finished"), done:
        pass
