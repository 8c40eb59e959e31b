"""The models that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hepgen_ml import Generator
from hepgen_ml.cli import app
from hepgen_ml.errors import ModelError
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.files.model_files import VALIDATION, WEIGHTS
from hepgen_ml.files.provenance import file_hash
from hepgen_ml.models.included import (
    PRETRAINED,
    described,
    find_model,
    pretrained,
    read_document,
)


def test_names() -> None:
    assert pretrained() == ["drellyan", "ttbar01j", "ttbar2j", "ttbar_hadronic", "zjets"]
    size = sum(f.stat().st_size for f in PRETRAINED.rglob("*") if f.is_file())
    assert size < 15e6


@pytest.mark.parametrize("name", pretrained())
def test_events_obey_the_laws(name: str) -> None:
    generator = Generator.load(name, device="cpu")
    sample = generator.sample(1000, seed=1)
    results = check_sample([sample], sample.run)
    assert any(r.judged for r in results)
    assert not any(r.n_broken for r in results)
    assert generator.acceptance > 0.95  # cuts in distances are enforced by drawing again


@pytest.mark.parametrize("name", pretrained())
def test_cards_say_what_was_measured(name: str) -> None:
    facts = read_document(PRETRAINED / name)["training"]
    assert described()[name]["sample"] in (PRETRAINED / name / "README.md").read_text()
    if name == "ttbar01j":  # older than the summary of a validation
        assert "AUC" in facts["validation"]
        return
    assert {"licence", "command", "commit", "half_precision"} <= set(facts)
    summary = json.loads((PRETRAINED / name / VALIDATION).read_text())
    assert summary["weights_sha256"] == file_hash(PRETRAINED / name / WEIGHTS)
    assert "## Validation" in (PRETRAINED / name / "README.md").read_text()
    assert not summary["laws"]["broken"]


def test_command_line_on_a_machine_that_never_trained(tmp_path: Path) -> None:
    out = tmp_path / "events.lhe.gz"
    arguments = ["generate", "-n", "500", "--model", "ttbar01j", "--out", str(out), "--seed", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "500 events" in result.output
    assert "t t~" in CliRunner().invoke(app, ["info", "ttbar01j"]).output


def test_a_directory_of_the_same_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ttbar01j").mkdir()
    assert find_model("ttbar01j") == Path("ttbar01j")
    with pytest.raises(ModelError, match="ttbar01j"):
        find_model("ttbar9j")
