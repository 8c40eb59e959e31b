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

from hepgen_ml import Generator, read, write
from hepgen_ml.config import TrainingConfig, load_config
from hepgen_ml.errors import InputError
from hepgen_ml.phase_space.coordinates import invariant_mass_squared
from tests.samples import toy_top_pairs

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their types up there
    spec.loader.exec_module(module)
    return module


def install(module: str, entry_points: str, place: Path) -> None:
    """Put an example where pip would put a package with these entry points."""
    information = place / f"{module}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0")
    (information / "entry_points.txt").write_text(entry_points)
    (place / f"{module}.py").write_text((EXAMPLES / f"extending/{module}.py").read_text())


@pytest.fixture
def installed_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(
        "event_lines", "[hepgen_ml.formats]\nlines = event_lines:EventLines\n", tmp_path / "site"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    sys.modules.pop("event_lines", None)


@pytest.fixture
def installed_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from hepgen_ml.models import registry
    from hepgen_ml.models.flow import velocities

    install("gated_network", "[hepgen_ml.models]\ngated-cfm = gated_network\n", tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    yield
    velocities.VELOCITIES.pop("gated", None)
    sys.modules.pop("gated_network", None)


@pytest.mark.usefixtures("installed_network")
def test_an_added_network_is_trained_and_stored(tmp_path: Path) -> None:
    sample = toy_top_pairs(1200)
    settings = ["training.max_steps=20", "network.width=16", "network.blocks=2", "flow.steps=2"]
    config = load_config(overrides=[*settings, "training.batch_size=128"])
    out = tmp_path / "model"
    trained = Generator.train(sample, model="gated-cfm", config=config, out=out, device="cpu")
    again = Generator.load(out, device="cpu")
    events = again.sample(50, seed=1)
    np.testing.assert_array_equal(events.px, trained.sample(50, seed=1).px)
    assert np.isfinite(again.log_prob(events)).all()


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
    shower = [str(EXAMPLES / "shower.py"), "events.lhe.gz", "50"]
    commands = ([*generate, "--out", "events.lhe.gz"], shower)
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "50 events showered" in done.stdout


def test_regression_of_a_mass(shipped_sample: Path) -> None:
    """A task of its own file, trained by the trainer of the package."""
    module = example("extending/mass_regression.py")
    events = module.pairs(read(shipped_sample)[:8000])
    tested, known = events[:1000], events[1000:]
    network = module.regression(known, TrainingConfig(batch_size=256, max_steps=500))
    with torch.no_grad():
        deviation = network(tested.inputs) - tested.log_mass
    assert float(deviation.std()) < 0.3 * float(tested.log_mass.std())
