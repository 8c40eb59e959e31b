"""What the command line says about samples: check, info and their summary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from hepgen_ml.cli import app
from hepgen_ml.cli.tables import _meaning
from hepgen_ml.events.formats import read, write
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.events.summary import SampleSummary


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def events(shipped_sample: Path) -> EventSample:
    return read(shipped_sample, max_events=300)


def test_check_passes_good_events(events: EventSample, tmp_path: Path) -> None:
    write(events, tmp_path / "good.lhe")
    done = run("check", tmp_path / "good.lhe")
    assert done.exit_code == 0, done.output
    assert "BROKEN" not in done.stdout
    assert len(done.stdout.splitlines()) > 5


def test_check_names_what_is_broken(events: EventSample, tmp_path: Path) -> None:
    particles = dict(events.particles)
    particles["px"] = particles["px"].copy()
    particles["px"][events.offsets[17] + 2] += 5.0
    broken = EventSample(events.run, events.offsets, particles, events.events)
    write(broken, tmp_path / "broken.lhe")
    write(events, tmp_path / "good.lhe")
    (tmp_path / "unreadable.lhe").write_text("no events here")
    done = run("check", tmp_path / "good.lhe", tmp_path / "broken.lhe")
    assert done.exit_code == 1
    assert any("BROKEN" in line and "18" in line for line in done.stdout.splitlines())
    everything = run("check", *sorted(tmp_path.iterdir()))
    assert everything.exit_code == 3
    assert "BROKEN" in everything.stdout
    assert "unreadable.lhe" in everything.stderr
    assert run("check", tmp_path / "missing.lhe").exit_code == 3


def test_check_counts_unreadable_events(events: EventSample, tmp_path: Path) -> None:
    path = tmp_path / "e.lhe"
    write(events, path)
    parts = path.read_text().split("<event>")
    parts[5] = "\n" + "not a number " * 6 + parts[5]
    path.write_text("<event>".join(parts))
    assert run("check", path).exit_code == 3
    done = run("check", "--skip-bad", path)
    assert done.exit_code == 1
    broken = [line for line in done.stdout.splitlines() if "readable events" in line]
    assert "1 left out" in broken[0]
    assert "event 5" in broken[0]


@pytest.mark.parametrize(
    ("strategy", "weight", "words"),
    [
        (3, 1.0, "unit weights"),
        (3, 1.79e5, "only the sign counts"),
        (-4, 500.0, "the mean weight is the cross section"),
        (-4, 5.46e5, "weights of any scale"),
    ],
)
def test_info_says_what_weights_mean(strategy: int, weight: float, words: str) -> None:
    weights = {"strategy": strategy, "minimum": weight, "maximum": weight, "mean": weight}
    assert words in _meaning(weights, 500.0)


def test_info_of_a_sample(events: EventSample, tmp_path: Path) -> None:
    write(events, tmp_path / "e.lhe.gz")
    done = run("info", tmp_path / "e.lhe.gz")
    assert done.exit_code == 0, done.output
    assert "p 6500 GeV on p 6500 GeV" in done.stdout
    assert "g g > t t~ g" in done.stdout
    found = json.loads(run("info", "--json", tmp_path / "e.lhe.gz").stdout)
    assert found["events"] == len(events)
    assert found["cross_section"] == pytest.approx(events.run.cross_section)
    assert sum(s["events"] for s in found["subprocesses"]) == len(events)
    assert sum(found["final_state_particles"].values()) == len(events)
    assert run("info", tmp_path / "missing.lhe").exit_code == 3


def test_summary_of_mixed_events() -> None:
    # u u~ > Z > mu+ mu-, twice, once with the muons exchanged; then 70 particles; then none final.
    pdg_id = [2, -2, 23, -13, 13, 2, -2, 23, 13, -13, *[21] * 70, 22]
    status = [-1, -1, 2, 1, 1, -1, -1, 2, 1, 1, *[1] * 70, 0]
    n = len(pdg_id)
    zeros = np.zeros(n)
    sample = EventSample(
        RunInfo(),
        [0, 5, 10, 80, 81],
        {
            "pdg_id": pdg_id,
            "status": status,
            "px": zeros,
            "py": zeros,
            "pz": zeros,
            "energy": zeros,
        },
        {"weight": [1.0, 2.0, -1.0, 2.0]},
    )
    summary = SampleSummary()
    summary.add(sample[:1])
    summary.add(sample[1:])
    found = summary.as_dict(sample.run)
    assert found["final_state_particles"] == {"0": 1, "2": 2, "70": 1}
    assert [s["name"] for s in found["subprocesses"]] == ["u u~ > mu- mu+", ">"]
    assert found["subprocesses"][0]["events"] == 2
    assert found["subprocesses"][0]["weight_fraction"] == 0.75
    assert found["subprocesses"][0]["intermediate_names"] == ["Z0"]
    assert found["events_without_subprocess"] == 1
    assert found["weights"]["negative_events"] == 1
