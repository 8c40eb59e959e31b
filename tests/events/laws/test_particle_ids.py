"""Charges and colours of particles by their ids, and what is known of unusual ones."""

from __future__ import annotations

import numpy as np
import pytest

from hepgen_ml.events.laws.particle_ids import (
    ANY_COLOR,
    ParticleIds,
    is_hadron,
    taken_as_neutral,
)
from hepgen_ml.events.sample import EventSample
from hepgen_ml.training.defects import find_defects
from tests.events.laws.test_laws import SAMPLE, check


@pytest.mark.parametrize(
    ("pdg_id", "header", "verdict"),
    [
        (9000005, "", "not judged with 9000005"),  # no quark, whatever its digits look like
        (6000006, "", "not judged with 6000006"),
        (9900441, "", "not judged with 9900441"),
        (9000005, "Block QNUMBERS 9000005 # alp\n 1 0\n 3 1\n", "exact"),
        (-9000005, "block qnumbers 9000005\r\n    1 3 # 3 times the charge\r\n", "BROKEN"),
        (9000005, "BLOCK QNUMBERS 9000006\n 1 0\n", "not judged with 9000005"),
        (9000005, "BLOCK QNUMBERS 9000005\nBLOCK MASS\n 1 3\n", "not judged with 9000005"),
        (9000005, "BLOCK QNUMBERS 99999999999999999999\n 1 0\nDECAY\nBLOCK QNUMBERS x", "not"),
        (1000022, "", "exact"),
        (1000024, "", "BROKEN"),
        (5100039, "", "exact"),
        (9900041, "", "BROKEN"),
        (9000111, "", "exact"),
        (1000020040, "", "BROKEN"),
        (4900211, "", "exact"),  # a meson of a hidden valley, whatever its digits look like
        (4900101, "", "exact"),
        (4900001, "", "BROKEN"),
        (57, "", "not judged with 57"),
    ],
)  # fmt: skip
def test_charges_of_unusual_particles(pdg_id: int, header: str, verdict: str) -> None:
    rows = np.flatnonzero(SAMPLE.pdg_id == 23)
    ids = SAMPLE.pdg_id.copy()
    ids[rows] = pdg_id
    sample = EventSample(
        SAMPLE.run.with_(header=header), SAMPLE.offsets, {**SAMPLE.particles, "pdg_id": ids}
    )
    result = check(sample)["charge"]
    assert bool(result.n_broken) == (verdict == "BROKEN")
    assert verdict == "BROKEN" or verdict in result.text


def test_ids_without_an_entry_are_named() -> None:
    """They are no broken law, neither for `check` nor in training; a mass declares an id, too."""
    ids = np.where(SAMPLE.pdg_id == 23, 1023, SAMPLE.pdg_id)
    for header, verdict in (("", "1023: neither"), ("BLOCK MASS\n 1023 20.0 # A'\n", "exact")):
        run = SAMPLE.run.with_(header=header)
        sample = EventSample(run, SAMPLE.offsets, {**SAMPLE.particles, "pdg_id": ids})
        result = check(sample)["particle ids"]
        assert not result.n_broken
        assert not find_defects(sample)
        assert verdict in result.text
    none = EventSample(
        SAMPLE.run, SAMPLE.offsets, {**SAMPLE.particles, "pdg_id": np.where(ids == -13, 99, ids)}
    )
    assert check(none)["particle ids"].n_broken
    assert "particle ids" in find_defects(none)
    (said,) = taken_as_neutral([1023, -1023, 11, 4900211], "")
    assert "charge of 1023 is" in said
    assert not taken_as_neutral([1023], "BLOCK QNUMBERS 1023\n 1 0\n")


def test_header_is_read_in_linear_time() -> None:
    from time import process_time

    begun = process_time()
    for piece in (
        "\n",
        " ",
        "BLOCK QNUMBERS 1\n",
        "BLOCK ",
        "\n DECAY",
        "BLOCK QNUMBERS 1 \n1 1\n",
    ):
        ParticleIds(piece * (2_000_000 // len(piece)))
    assert process_time() - begun < 10


def test_states_of_generators_are_no_diquarks() -> None:
    """9942103 is a colour octet of charmonium in Pythia, whatever its last digits look like."""
    charge, color, _ = ParticleIds().look_up(np.array([9942103, 9941103, 2103]))
    assert color.tolist() == [ANY_COLOR, ANY_COLOR, -3]
    assert charge[2] == 1


@pytest.mark.parametrize("number", [99925, 99926, 99211, 9926])
def test_digits_that_denote_no_quarks_have_no_charge(number: int) -> None:
    """Models number their particles so; two thirds of a charge, or one third, were theirs."""
    assert not is_hadron(number)
    ids = np.where(SAMPLE.pdg_id == 23, number, SAMPLE.pdg_id)
    sample = EventSample(SAMPLE.run, SAMPLE.offsets, {**SAMPLE.particles, "pdg_id": ids})
    results = check(sample)
    assert not any(r.n_broken for r in results.values())
    assert f"{number}: neither" in results["particle ids"].text
    assert not ParticleIds(f"BLOCK QNUMBERS {number}\n 1 0\n 3 1\n").without_charge([number])


@pytest.mark.parametrize("number", [211, 2212, 990, 4214122, 1000993, 10411, 100443])
def test_hadrons_are_those_of_the_numbering(number: int) -> None:
    from particle import PDGID

    assert is_hadron(number) == PDGID(number).is_hadron
