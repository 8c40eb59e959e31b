"""Training names what is wrong with events, and does not advise to bias a sample."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.errors import OutputError, SampleError
from hepgen_ml.events.formats import write
from hepgen_ml.events.sample import EventSample, RunInfo, concatenate
from hepgen_ml.generation.generator import Generator
from hepgen_ml.process.process import Process
from hepgen_ml.training.data import SampleSource, learn_process
from hepgen_ml.training.defects import find_defects
from hepgen_ml.training.trainer import Trainer
from tests.colored_events import colored
from tests.events.laws.test_color_lines import ALL
from tests.parton_events import changed
from tests.samples import toy_top_pairs

TOPS = toy_top_pairs(1500, jets=False)


def refusal(source: SampleSource) -> str:
    with pytest.raises(SampleError) as caught:
        list(source.chunks())
    return str(caught.value)


def test_law_number_and_first_event(tmp_path: Path) -> None:
    """One event of a file of many: leaving it out does no harm."""
    broken = changed(TOPS, "px", int(TOPS.offsets[700]) + 2, 5.0)
    write(TOPS, tmp_path / "a.lhe")
    write(broken, tmp_path / "b.lhe")
    text = refusal(SampleSource([tmp_path / "a.lhe", tmp_path / "b.lhe"]))
    assert (
        "b.lhe: event 701: breaks a law (momentum balance 1, mass shells 1), the only one" in text
    )
    assert "among 3,000 events" in text
    assert "--skip-bad leaves such events out, 0.0333 % of all" in text
    assert "bias" not in text


def test_a_whole_final_state_is_not_to_be_left_out() -> None:
    """Two per cent of the events, but all of what they are."""
    gluons = ALL["an end and a start that do not meet"][:2]
    odd = colored([*gluons, (6, 1, 1, 2, 503, 0), (-6, 1, 1, 2, 0, 504)], 20)
    some = colored([(2, -1, 0, 0, 501, 0), (-2, -1, 0, 0, 0, 501), (22, 1, 1, 2, 0, 0),
                    (23, 1, 1, 2, 0, 0)], 1500)  # fmt: skip
    sample = concatenate([some, odd], some.run)
    text = refusal(SampleSource(sample))
    assert "event 1501: breaks a law (colour connection 20), the first of 20 among 1,520" in text
    assert "--skip-bad" not in text
    assert "would bias the sample, by 1.32 % of all events and 100 % of those of g g > t t~" in text


def test_colours_of_a_whole_sample_that_do_not_connect() -> None:
    """They are learned as the program writes them, with a word; other defects are not."""
    rows = ALL["resonances with lines of their own that do not go on"]
    pair = [(1000006, 1, 1, 2, 503, 0), (-1000006, 1, 1, 2, 0, 502)]
    odd, good = colored(rows, 1100), colored([*rows[:2], *pair], 100)
    source = SampleSource(concatenate([good, odd], odd.run))
    process = learn_process(source, seed=0)
    (text,) = (t for t in source.not_learned if "colour lines" in t)
    assert text.startswith("colour lines of 91.7 % of the events do not connect")
    assert source.n_events == 1200
    assert len(process.encode(odd)) == len(odd)
    flows = {tuple(p[: 2 * 8]) for s in process.subprocesses for p in s.patterns.tolist()}
    assert (501, 502, 503, 501, 504, 0, 0, 504, 503, 0, 0, 0, 0, 502, 0, 0) in flows
    assert "momentum balance" in refusal(SampleSource(changed(odd, "px", 8 * 5 + 4, 5.0)))


def test_skipping_says_what_it_costs(caplog: pytest.LogCaptureFixture) -> None:
    rows = TOPS.offsets[np.arange(0, 1500, 10)] + 2
    particles = {**TOPS.particles, "px": TOPS.px.copy()}
    particles["px"][rows] += 5.0
    sample = EventSample(TOPS.run, TOPS.offsets, particles, TOPS.events)
    with caplog.at_level(logging.WARNING):
        learn_process(SampleSource(sample, skip_bad=True), seed=0)
    assert "left out 150 bad events of 1,500 (momentum balance 150, mass shells" in caplog.text
    assert "biases the sample, by 10 % of all events" in caplog.text


@pytest.mark.parametrize("skip_bad", [False, True])
def test_one_incoming_particle(skip_bad: bool) -> None:
    run = RunInfo((23, 0), (90.0, 0.0), weight_strategy=3)
    n = 1200
    columns = {
        "pdg_id": [23, 13, -13], "status": [-1, 1, 1], "mother1": [0, 1, 1], "mother2": [0, 1, 1],
        "px": [0, 45, -45], "py": [0, 0, 0], "pz": [0, 0, 0], "energy": [90, 45, 45],
        "mass": [90, 0, 0], "color1": [0, 0, 0], "color2": [0, 0, 0],
    }  # fmt: skip
    sample = EventSample(
        run, 3 * np.arange(n + 1), {name: np.tile(v, n) for name, v in columns.items()}
    )
    with pytest.raises(
        SampleError, match=r"1 incoming and 2 final.*decays of one particle are not"
    ):
        learn_process(SampleSource(sample, skip_bad=skip_bad), seed=0)


def test_incoming_particles_off_the_axis() -> None:
    kick = np.random.default_rng(1).uniform(0.02, 0.1, len(TOPS))
    px = TOPS.px.copy()
    for row in (0, 2):
        px[TOPS.offsets[:-1] + row] += kick
    energy, mass = TOPS.energy.copy(), TOPS.mass.copy()
    top = TOPS.offsets[:-1] + 2
    rest = TOPS.momentum
    mass[TOPS.offsets[:-1]] = -np.abs(kick)
    mass[top] = np.sqrt(energy[top] ** 2 - px[top] ** 2 - rest[top, 1] ** 2 - rest[top, 2] ** 2)
    sample = EventSample(
        TOPS.run, TOPS.offsets, {**TOPS.particles, "px": px, "mass": mass}, TOPS.events
    )
    text = refusal(SampleSource(sample))
    assert "event 1: has incoming particles off the beam axis, the first of 1,500 among" in text
    assert "not supported" in text
    assert "--skip-bad" not in text


def test_parts_of_a_file_that_no_event_passes(tmp_path: Path) -> None:
    """Cuts may leave nothing of many events that stand one after another."""
    write(TOPS, tmp_path / "a.lhe")
    low = float(np.hypot(TOPS.px, TOPS.py)[TOPS.pdg_id == 6].max())
    source = SampleSource(str(tmp_path / "a.lhe"), cuts=[f"pt(6) > {2 * low}"])
    assert sum(map(len, source.chunks())) == 0
    assert source.n_unselected == len(TOPS)
    assert find_defects(TOPS[:0]) == {}


def test_models_that_are_too_large_are_told_before_they_are_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def trained(*_: object) -> None:
        pytest.fail("was trained")

    monkeypatch.setattr(Trainer, "run", trained)
    monkeypatch.setattr("hepgen_ml.models.storage._MANY_SUBPROCESSES", 1)
    monkeypatch.setattr("hepgen_ml.files.documents.MAX_BYTES", 1000)
    with pytest.raises(OutputError, match="great many subprocesses"):
        Generator.train(TOPS, out=tmp_path / "m", device="cpu")


def test_models_that_could_not_be_loaded_are_told_before_they_are_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("was trained"))
    stored = Process.to_config
    monkeypatch.setattr(Process, "to_config", lambda self: stored(self) | {"channels": []})
    with pytest.raises(OutputError, match="cannot be stored: channels"):
        Generator.train(TOPS, out=tmp_path / "m", device="cpu")
