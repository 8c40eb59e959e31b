"""Colour lines are followed vertex by vertex; Pythia agrees about every flow here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.events.formats import write
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.sample import EventSample, concatenate
from tests.colored_events import Row, colored

SEXTET = """<slha>
BLOCK MASS
 9000006 400.0
DECAY 9000006 1.0
Block QNUMBERS 9000006 # six
 1 4
 2 1
 3 6
 4 1
</slha>
"""
HIGGS: list[Row] = [(21, -1, 0, 0, 501, 502), (21, -1, 0, 0, 502, 501), (35, 2, 1, 2, 0, 0)]
ANNIHILATION: list[Row] = [(2, -1, 0, 0, 501, 0), (-2, -1, 0, 0, 0, 501)]
GLUONS: list[Row] = [(21, -1, 0, 0, 501, 502), (21, -1, 0, 0, 503, 501)]


def decay(mother: int, ids: tuple[int, ...], tags: tuple[int, ...]) -> list[Row]:
    """Quarks (antiquarks) of a resonance with these colours (anticolours)."""
    return [
        (i, 1, mother, mother, t if i > 0 else 0, t if i < 0 else 0)
        for i, t in zip(ids, tags, strict=True)
    ]


GOOD: dict[str, list[Row]] = {
    "junction of incoming quarks": [
        (-1, -1, 0, 0, 0, 501), (-3, -1, 0, 0, 0, 502), (1000006, 1, 1, 2, 503, 0)],
    "junction of the hard process": [
        (2, -1, 0, 0, 501, 0), (1, -1, 0, 0, 502, 0), (-3, 1, 1, 2, 0, 503),
        (1000022, 1, 1, 2, 0, 0)],
    "junctions in both decays of neutralinos": [
        *ANNIHILATION, (1000022, 2, 1, 2, 0, 0), (1000022, 2, 1, 2, 0, 0),
        *decay(3, (2, 1, 3), (502, 503, 504)), *decay(4, (-2, -1, -3), (505, 506, 507))],
    "junctions in production and decay": [
        (-1, -1, 0, 0, 0, 501), (-3, -1, 0, 0, 0, 502), (1000006, 2, 1, 2, 503, 0),
        *decay(3, (-5, -3), (504, 505))],
    "gluinos with opposite baryon numbers": [
        *GLUONS, (1000021, 2, 1, 2, 503, 504), (1000021, 2, 1, 2, 504, 502),
        *decay(3, (-2, -1, -3), (504, 520, 521)), *decay(4, (2, 1, 3), (504, 530, 531))],
    "squarks with opposite baryon numbers": [
        *GLUONS, (1000006, 2, 1, 2, 503, 0), (-1000006, 2, 1, 2, 0, 502),
        *decay(3, (-1, -3), (504, 505)), *decay(4, (1, 3), (506, 507))],
    "junctions of squarks with the same new tags": [
        *GLUONS, (1000006, 2, 1, 2, 503, 0), (-1000006, 2, 1, 2, 0, 502),
        *decay(3, (-5, -3), (504, 505)), *decay(4, (5, 3), (504, 505))],
    "a junction with the tag of incoming quarks": [
        *ANNIHILATION, (1000022, 2, 1, 2, 0, 0), (1000022, 2, 1, 2, 0, 0),
        *decay(3, (2, 1, 3), (501, 503, 504)), *decay(4, (-2, -1, -3), (505, 506, 507))],
    "junctions in production and decay with the same tags": [
        (-1, -1, 0, 0, 0, 501), (-3, -1, 0, 0, 0, 502), (1000006, 2, 1, 2, 503, 0),
        *decay(3, (-1, -3), (501, 502))],
    "a colourless decay with its own line": [
        *ANNIHILATION, (23, 2, 1, 2, 0, 0), *decay(3, (2, -2), (502, 502))],
    "sextet": [
        (2, -1, 0, 0, 501, 0), (2, -1, 0, 0, 502, 0), (9000006, 2, 1, 2, 501, -502),
        *decay(3, (2, 2), (501, 502))],
    "antisextet": [
        (-2, -1, 0, 0, 0, 501), (-2, -1, 0, 0, 0, 502), (-9000006, 2, 1, 2, -501, 502),
        *decay(3, (-2, -2), (501, 502))],
    "pair of sextets": [
        *GLUONS, (9000006, 2, 1, 2, 503, -505), (-9000006, 2, 1, 2, -505, 502),
        *decay(3, (2, 2), (503, 505)), *decay(4, (-2, -2), (502, 505))],
}  # fmt: skip
BAD: dict[str, list[Row]] = {
    "an end and a start that do not meet": [*HIGGS, *decay(3, (2, -2), (503, 504))],
    "two ends and two starts": [*HIGGS, *decay(3, (2, 1, -2, -1), (503, 504, 505, 506))],
    "which three of six belong together": [
        *HIGGS, *decay(3, (2, 1, 3, 2, 1, 3), (503, 504, 505, 506, 507, 508))],
    "a line in production and in a decay": [
        *ANNIHILATION, (23, 2, 1, 2, 0, 0), *decay(3, (2, -2), (501, 501))],
    "a line in two decays": [
        *ANNIHILATION, (23, 2, 1, 2, 0, 0), (23, 2, 1, 2, 0, 0),
        *decay(3, (2, -2), (502, 502)), *decay(4, (2, -2), (502, 502))],
    "resonances with lines of their own that do not go on": [
        *GLUONS, (1000006, 2, 1, 2, 504, 0), (-1000006, 2, 1, 2, 0, 504),
        (5, 1, 3, 3, 503, 0), (1000024, 1, 3, 3, 0, 0),
        (-5, 1, 4, 4, 0, 502), (-1000024, 1, 4, 4, 0, 0)],
}  # fmt: skip
ALL = {**GOOD, **BAD}
NOT_HADRONISED: dict[str, list[Row]] = {
    f"the same tags of {name}": [
        *ANNIHILATION, (1000022, 2, 1, 2, 0, 0), (1000022, 2, 1, 2, 0, 0),
        *decay(3, (2, 1, 3), (502, 503, 504)), *decay(4, ids, (502, 503, 504))]
    for name, ids in (("two junctions", (2, 1, 3)), ("junction and opposite", (-2, -1, -3)))
}  # fmt: skip
"""Pythia takes these as hard processes, but makes no hadrons of them or searches for ever."""


def header_of(rows: list[Row]) -> str:
    return SEXTET if any(abs(row[0]) == 9000006 for row in rows) else ""


@pytest.mark.parametrize("name", ALL)
def test_check(name: str) -> None:
    sample = colored(ALL[name], header=header_of(ALL[name]))
    results = check_sample(sample.chunks(7), sample.run)
    broken = {r.name: r.n_broken for r in results if r.n_broken}
    assert broken == ({} if name in GOOD else {"colour connection": len(sample)})


@pytest.mark.parametrize("name", NOT_HADRONISED)
def test_junctions_that_cannot_be_told_apart(name: str) -> None:
    sample = colored(NOT_HADRONISED[name])
    (broken,) = (r for r in check_sample(sample.chunks(7), sample.run) if r.n_broken)
    assert (broken.name, broken.n_broken) == ("colour connection", len(sample))


@pytest.mark.parametrize("name", ALL)
def test_pythia_agrees(name: str, tmp_path: Path) -> None:
    pytest.importorskip("pythia8mc")
    from hepgen_adapters.pythia import shower_acceptance

    sample = colored(ALL[name], header=header_of(ALL[name]))
    write(sample, tmp_path / "e.lhe")
    found = shower_acceptance(tmp_path / "e.lhe", settings=["PartonLevel:all = off"])
    assert found.n_accepted == (len(sample) if name in GOOD else 0)


def test_bad_events_are_found_among_good_ones() -> None:
    samples = [colored(rows, 3) for rows in ALL.values() if not header_of(rows)]
    sample = concatenate(samples, samples[0].run)
    order = np.random.default_rng(1).permutation(len(sample))
    result = {r.name: r for r in check_sample(sample[order].chunks(10), sample.run)}
    assert result["colour connection"].n_broken == 3 * len(BAD)


TOPS: list[Row] = [*GLUONS, (6, 1, 1, 2, 503, 0), (-6, 1, 1, 2, 0, 502)]


def test_no_colours_at_all() -> None:
    """Some generators write no colour flow; that breaks no law, unless others in the file have."""
    sample = colored([(*row[:4], 0, 0) for row in TOPS])
    result = {r.name: r for r in check_sample([sample], sample.run)}["colour connection"]
    assert not result.judged
    assert result.text == "colour flow not given"
    both = concatenate([sample, colored(TOPS)])
    result = {r.name: r for r in check_sample(both.chunks(20), both.run)}["colour connection"]
    assert result.n_broken == len(sample)


def test_documentation_lines_are_passed_over() -> None:
    sample = colored(GOOD["sextet"], header=SEXTET)
    rows = [
        *GOOD["sextet"][:3],
        (9000006, 3, 3, 3, 501, -502),
        *decay(4, (2, 2), (501, 502)),
    ]
    take = np.add.outer(sample.offsets[:-1], [0, 1, 2, 2, 3, 4]).ravel()
    particles = {name: values[take] for name, values in sample.particles.items()}
    names = ("pdg_id", "status", "mother1", "mother2", "color1", "color2")
    particles |= dict(zip(names, np.tile(np.array(rows).T, len(sample)), strict=True))
    sample = EventSample(sample.run, 6 * np.arange(len(sample) + 1), particles, sample.events)
    result = {r.name: r for r in check_sample([sample], sample.run)}
    assert not result["colour connection"].n_broken


def test_resonances_that_decay_together() -> None:
    """Daughters with a range of mothers: one vertex for both."""
    rows: list[Row] = [
        *GLUONS, (1000021, 2, 1, 2, 503, 504), (1000021, 2, 1, 2, 504, 502),
        (2, 1, 3, 4, 503, 0), (-2, 1, 3, 4, 0, 502), (21, 1, 3, 4, 505, 505)]  # fmt: skip
    good = [*rows[:-1], (1000022, 1, 3, 4, 0, 0)]
    bad = [*rows[:-2], (-2, 1, 3, 4, 0, 509), (1000022, 1, 3, 4, 0, 0)]
    names = ("pdg_id", "status", "mother1", "mother2", "color1", "color2")
    for flow, n_broken in ((good, 0), (bad, 1)):
        columns = dict(zip(names, np.array(flow).T, strict=True))
        columns |= {name: np.zeros(7) for name in ("px", "py", "pz", "energy", "mass")}
        sample = EventSample(colored(TOPS, 1).run, [0, 7], columns)
        result = {r.name: r for r in check_sample([sample], sample.run)}
        assert result["colour connection"].n_broken == n_broken
