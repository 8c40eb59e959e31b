"""Between every pair of formats, what a file holds comes back exactly or is named as lost."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.events.conversion import convert
from hepgen_ml.events.formats import read, write
from hepgen_ml.events.sample import EVENT_COLUMNS, PARTICLE_COLUMNS, EventSample, Subrun
from tests.parton_events import parton_sample
from tests.samples import toy_top_pairs

SUFFIXES = (".lhe", ".lhe.gz", ".hepmc", ".hepmc.gz", ".root")

WORDS = {
    "px": "moment", "py": "moment", "pz": "moment", "energy": "energ", "mass": "mass",
    "lifetime": "lifetime", "spin": "spin", "pdg_id": "id", "status": "status",
    "mother1": "mother", "mother2": "mother", "color1": "colour", "color2": "colour",
    "weight": "weight", "scale": "scale", "alpha_qed": "coupling", "alpha_qcd": "coupling",
    "process_id": "process", "header": "header", "weight_groups": "weight groups",
    "generators": "generators", "weight_names": "description", "pdf_group": "PDF",
    "pdf_set": "PDF", "processes": "weights", "weight_cross_sections": "cross sections",
}  # fmt: skip
"""A word that names each thing where it is lost."""


def everything() -> EventSample:
    """Events in which every column has a value that is not its default."""
    sample = parton_sample(40)
    rng = np.random.default_rng(5)
    particles = {name: values.copy() for name, values in sample.particles.items()}
    n = len(particles["px"])
    particles["lifetime"] = rng.exponential(1.0, n)
    particles["spin"] = rng.choice([-1.0, 0.0, 0.37, 2.0, 9.0], n)
    incoming = np.flatnonzero(particles["status"] == -1)
    particles["mass"][incoming[::3]] = -0.25  # spacelike
    final = np.flatnonzero((particles["status"] == 1) & (particles["mother1"] == 3))
    particles["mass"][final[::5]] += 1e-3  # of another generator, rounded
    events = {name: values.copy() for name, values in sample.events.items()}
    events["scale"][3] = -1.0
    events["alpha_qcd"][4] = -1.0
    weights = {name: values.copy() for name, values in sample.weights.items()}
    weights["mur=2 muf=2"][7] = np.nan
    run = sample.run.with_(
        header="<MGVersion>3.5</MGVersion>\n# text with & and <tags>",
        weight_groups='<weightgroup name="scales" combine="envelope">\n'
        '<weight id="mur=2 muf=2">both up</weight>\n</weightgroup>\n'
        '<weight id="mur_2_muf_2">a "quote" \\ and more</weight>',
        pdf_group=(3, 4),
        processes=(Subrun(0, 30.0, 0.5), Subrun(7, 30.0, 0.25)),
        weight_cross_sections={"mur=2 muf=2": (61.0, 0.7)},
    )
    return EventSample(
        run, sample.offsets, particles, events, weights=weights, scales=sample.scales,
        attributes={"npLO": sample.attributes["npLO"], "note": np.array(["a b", ""] * 20)},
    )  # fmt: skip


def is_same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.all((a == b) | ((a != a) & (b != b))))


def differences(a: EventSample, b: EventSample) -> list[tuple[str, str]]:
    """Everything of `a` that `b` does not have exactly, with the word that has to name it."""
    found = []
    assert is_same(a.offsets, b.offsets)
    for name in (*PARTICLE_COLUMNS, *EVENT_COLUMNS):
        columns = [{**s.particles, **s.events}.get(name, np.zeros(0)) for s in (a, b)]
        if not is_same(*columns):
            found.append((name, WORDS[name]))
    for group in ("weights", "scales", "attributes"):
        first, second = getattr(a, group), getattr(b, group)
        for name in first:
            if name not in second or not is_same(first[name], second[name]):
                found.append((name, group.rstrip("s")))
    for name, word in WORDS.items():
        # what a file did not say at all may be made from what it did say
        if getattr(a.run, name, "") and getattr(a.run, name) != getattr(b.run, name):
            found.append((name, word))
    return found


@pytest.mark.parametrize(("first", "last"), list(itertools.product(SUFFIXES, SUFFIXES)))
def test_lost_or_exact(tmp_path: Path, first: str, last: str) -> None:
    source, out = tmp_path / f"a{first}", tmp_path / f"b{last}"
    write(everything(), source)
    done = convert(source, out)
    assert set(done.lost) == {out}
    text = " ".join(done.lost[out] + done.left_out[source])
    for name, word in differences(read(source), read(out)):
        assert word in text, f"{name} is lost without a word in: {text}"
    assert "partial" not in text


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_hold_what_was_written_or_say_so(tmp_path: Path, suffix: str) -> None:
    """The same for the first file, by what its format says about the sample."""
    from hepgen_ml.events.formats import format_of

    sample, path = everything(), tmp_path / f"a{suffix}"
    write(sample, path)
    text = " ".join(format_of(path).cannot_hold(sample))
    for name, word in differences(sample, read(path)):
        assert word in text, f"{name} is lost without a word in: {text}"


def test_awkward_records_have_scales_and_attributes() -> None:
    sample = toy_top_pairs(5)
    more = EventSample(
        sample.run, sample.offsets, sample.particles, sample.events,
        scales={"mups": np.arange(5.0)}, attributes={"mass:32": ["600", "800", "a b", "", "ü"]},
    )  # fmt: skip
    events = more.to_awkward()
    assert events.attributes["mass:32"].tolist() == ["600", "800", "a b", "", "ü"]
    assert events[events.attributes["mass:32"] == "800"].scales.mups.tolist() == [1.0]
    assert events[1:3].particles.pt[0].tolist() == events.particles.pt[1].tolist()
    assert "attributes" not in sample.to_awkward().fields
