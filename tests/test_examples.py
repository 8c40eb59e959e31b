"""The examples of the documentation work as they are printed there."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from hepgen_ml import read, write
from hepgen_ml.errors import InputError
from hepgen_ml.phase_space.coordinates import invariant_mass_squared

EXAMPLES = Path(__file__).parents[1] / "examples"
ENTRY_POINT = "[hepgen_ml.formats]\nlines = event_lines:EventLines\n"


def example(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installed_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The format of the documentation, installed as a package would be."""
    place = tmp_path / "site"
    information = place / "event_lines-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: event-lines\nVersion: 1.0")
    (information / "entry_points.txt").write_text(ENTRY_POINT)
    (place / "event_lines.py").write_text((EXAMPLES / "extending/event_lines.py").read_text())
    monkeypatch.syspath_prepend(place)
    yield
    sys.modules.pop("event_lines", None)


@pytest.mark.usefixtures("installed_lines")
def test_an_added_format_is_written_and_read(shipped_sample: Path, tmp_path: Path) -> None:
    events = read(shipped_sample, max_events=200)
    write(events, tmp_path / "e.jsonl")
    again = read(tmp_path / "e.jsonl")
    for name in ("pdg_id", "color1", "px", "energy", "mass"):
        np.testing.assert_array_equal(events.particles[name], again.particles[name])
    np.testing.assert_array_equal(events.weight, again.weight)
    assert again.run.cross_section == events.run.cross_section


@pytest.mark.usefixtures("installed_lines")
@pytest.mark.parametrize(
    "damage", ["[[1, 1, 1], [21]]", "[", '{"a": 1}', '[[1, 1, "x"]]', "[" * 3000, "3"]
)
def test_an_added_format_names_the_bad_event(
    shipped_sample: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "e.jsonl"
    write(read(shipped_sample, max_events=20), path)
    lines = path.read_text().splitlines()
    lines[7] = damage
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"event 7: line 8: .*--skip-bad"):
        read(path)
    assert len(read(path, skip_bad=True)) == 19
    path.write_text(damage)
    with pytest.raises(InputError, match="line 1"):
        read(path)


def test_an_added_chart_keeps_the_contract() -> None:
    chart = example("extending/dijet_chart.py").DijetChart(["j1", "j2"], 20.0)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    p, total = chart.inverse(x)
    torch.testing.assert_close(chart.forward(p), x)
    assert (invariant_mass_squared(p).abs() < 1e-14 * p[..., 3] ** 2).all()
    assert total[:, :2].abs().max() < 1e-12 * p[..., 3].max()

    def measured(one: torch.Tensor) -> torch.Tensor:
        momenta, _ = chart.inverse(one)
        return torch.cat([momenta[0, :3], momenta[1, 2:3]])

    for i in range(len(x)):
        jacobian = torch.func.jacrev(measured)(x[i])
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert math.isclose(chart.log_det(x[i]), expected, rel_tol=1e-9, abs_tol=1e-9)
    assert json.loads(json.dumps(chart.to_config()))["kind"] == "dijet"


@pytest.mark.slow
def test_generated_events_are_showered(tmp_path: Path) -> None:
    pytest.importorskip("pythia8mc")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    generate = ["-m", "hepgen_ml", "generate", "--model", "ttbar01j", "-n", "100"]
    commands = ([*generate, "--out", "events.lhe.gz"], [str(EXAMPLES / "shower.py")])
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "100 events showered" in done.stdout
