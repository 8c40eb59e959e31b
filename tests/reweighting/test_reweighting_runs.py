"""Runs of `hepgen-ml reweight` for models of the package and for events of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hepgen_ml
from hepgen_ml.cli import app
from hepgen_ml.errors import OutputError, UsageError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation import reweighting as tasks
from tests.reweighting.conftest import kept


def test_pretrained_is_left_alone(shipped_sample: Path) -> None:
    """Models inside the package are not written to."""
    with pytest.raises(UsageError, match="copy"):
        tasks.reweight_model("ttbar01j", [shipped_sample], tasks.Options())


def test_sample_to_sample(truth: EventSample, distorted: EventSample, tmp_path: Path) -> None:
    """Events of one file follow another file, without a model."""
    for name, sample in (("truth.lhe.gz", truth), ("source.lhe.gz", distorted)):
        hepgen_ml.write(sample, tmp_path / name)
    command = ["reweight", "--source", str(tmp_path / "source.lhe.gz")]
    command += ["--truth", str(tmp_path / "truth.lhe.gz"), "--folds", "2"]
    command += ["--network", "mlp"]  # finds more than trees among so few events
    out = tmp_path / "weighted.root"
    done = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert done.exit_code == 0, done.output
    weighted = hepgen_ml.read(out)
    assert len(weighted) == len(distorted)
    assert weighted.weight.mean() == pytest.approx(truth.run.cross_section, rel=1e-6)
    right = 1 / kept(weighted)
    assert np.corrcoef(np.log(right), np.log(weighted.weight))[0, 1] > 0.8
    again = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert again.exit_code == OutputError.exit_code
    wrong = CliRunner().invoke(app, command)
    assert wrong.exit_code == UsageError.exit_code
