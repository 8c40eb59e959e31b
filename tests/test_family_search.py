"""The search for settings in the comparison of families: failures do not end it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hepgen_ml.errors import SampleError, UsageError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_failed_trainings_are_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import families

    areas = iter([0.56, 0.52])
    asked: list[list[str]] = []

    def train(*arguments: Any) -> Any:
        asked.append(arguments[4])
        if len(asked) == 2:
            raise SampleError("training diverged", remedy="take a smaller learning rate")
        return SimpleNamespace(sample=lambda n, seed: None)

    monkeypatch.setattr(families, "train", train)
    monkeypatch.setattr(families, "truth_of", lambda *_: ([0.0], [0.0]))
    monkeypatch.setattr(families.hepgen_ml, "read", lambda *_, **__: None)
    monkeypatch.setattr(families, "compare", lambda *_, **__: None)
    monkeypatch.setattr(families.zoo, "areas", lambda _: {"auc": (next(areas), 0.003)})
    families.search(tmp_path, "ttbar01j", "gan", 1.0, 3, ["training.max_steps=5"])
    found = json.loads((tmp_path / "search_gan.json").read_text())
    assert [r.get("auc", [None])[0] for r in found] == [0.52, 0.56, None]
    assert "diverged" in found[2]["failed"]
    assert found[1]["settings"] == []
    assert all(settings[-1] == "training.max_steps=5" for settings in asked)
    assert "training.max_steps=5" not in found[0]["settings"]
    monkeypatch.setattr(families, "train", lambda *_: (_ for _ in ()).throw(UsageError("no jets")))
    families.search(tmp_path, "ttbar01j", "jetgpt-splitting", 1.0, 3, [])
    assert "no jets" in capsys.readouterr().out
    assert not (tmp_path / "search_jetgpt-splitting.json").exists()
