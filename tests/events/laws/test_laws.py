"""Each law catches a sample broken in exactly its way, and names the event."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.events.laws.checks import LawResult, bad_events, check_sample
from hepgen_ml.events.sample import EventSample, RunInfo, concatenate
from tests.parton_events import BEAM, changed, parton_sample

SAMPLE = parton_sample(60)
EVENT = 22  # from 0; a top pair
FIRST = int(SAMPLE.offsets[EVENT])


def check(sample: EventSample, tolerance: float | None = None) -> dict[str, LawResult]:
    results = {r.name: r for r in check_sample(sample.chunks(16), sample.run, tolerance)}
    assert all(r.text and "\n" not in r.text for r in results.values())
    return results


def broken(sample: EventSample) -> set[str]:
    return {name for name, r in check(sample).items() if r.n_broken}


def test_intact_sample_obeys_every_law() -> None:
    results = check(SAMPLE)
    assert not broken(SAMPLE)
    assert all(r.judged for r in results.values())
    assert not bad_events(SAMPLE).any()


@pytest.mark.parametrize(
    ("column", "row", "value", "laws"),
    [
        ("px", 3, lambda x: x + 1e-3, {"momentum balance", "mass shells"}),
        ("mass", 3, lambda x: x + 1.0, {"mass shells"}),
        ("energy", 3, lambda x: -x, {"momentum balance", "mass shells"}),
        ("pz", 0, lambda x: -x, {"momentum balance", "incoming particles"}),
        ("px", 0, lambda x: 1e-3, {"momentum balance", "incoming particles"}),
        (
            "energy",
            1,
            lambda x: BEAM + 1,
            {"momentum balance", "incoming particles", "mass shells"},
        ),
        (
            "status",
            1,
            lambda x: 1,
            {"momentum balance", "incoming particles", "mothers", "charge?"},
        ),
        (
            "px",
            7,
            lambda x: np.nan,
            {"finite numbers", "momentum balance", "mass shells", "resonances"},
        ),
        ("spin", 7, lambda x: np.inf, {"finite numbers"}),
        ("color1", 5, lambda x: 0, {"colour connection"}),
        ("color1", 5, lambda x: 777, {"colour connection"}),
        ("color2", 3, lambda x: 502, {"colour connection"}),
        ("color1", 2, lambda x: 502, {"colour connection"}),
        ("color1", 6, lambda x: 501, {"colour connection"}),
        ("color1", 0, lambda x: 502, {"colour connection"}),
        ("pdg_id", 4, lambda x: -24, {"charge"}),
        ("pdg_id", 6, lambda x: 13, {"charge"}),
        ("pdg_id", 3, lambda x: -5, {"charge"}),
        ("pdg_id", 7, lambda x: 99, {"particle ids"}),
        ("pdg_id", 7, lambda x: 0, {"particle ids"}),
        ("mother1", 6, lambda x: 0, {"mothers"}),
        ("mother1", 6, lambda x: 9, {"mothers"}),
        ("mother1", 6, lambda x: -1, {"mothers"}),
        ("mother1", 0, lambda x: 3, {"mothers"}),
        ("mother2", 3, lambda x: 1, {"mothers"}),
        ("energy", 2, lambda x: x + 1, {"mass shells", "resonances"}),
        ("status", 3, lambda x: 2, {"momentum balance", "resonances"}),
    ],
)
def test_law_is_broken(column, row, value, laws) -> None:
    sample = changed(SAMPLE, column, FIRST + row, value(SAMPLE.particles[column][FIRST + row]))
    results = check(sample)
    found = {name for name, r in results.items() if r.n_broken}
    required = {name for name in laws if not name.endswith("?")}
    assert required <= found
    # what follows from a change of status, charge or mothers elsewhere is a matter of definition
    allowed = (
        {"colour connection", "resonances", "charge"} if column in ("status", "mother1") else set()
    )
    assert found <= required | allowed
    for name in required:
        assert results[name].n_broken == 1
        assert results[name].worst_event == EVENT + 1
        assert str(EVENT + 1) in results[name].text
    expected = np.arange(len(sample)) == EVENT
    np.testing.assert_array_equal(bad_events(sample), expected)


def test_circle_of_mothers() -> None:
    sample = changed(changed(SAMPLE, "mother1", FIRST + 2, 5), "mother2", FIRST + 2, 5)
    assert "mothers" in broken(sample)
    assert check(sample)["mothers"].worst_event == EVENT + 1


def test_swapped_colour_lines_of_a_decay_are_found() -> None:
    """The colours of the final state fit, those of the resonance do not."""
    sample = changed(SAMPLE, "color1", FIRST + 2, 999)
    assert broken(sample) == {"colour connection"}


def test_junctions_and_sextets_are_no_defects() -> None:
    def event(rows, run=SAMPLE.run):
        n = len(rows)
        names = ("pdg_id", "status", "mother1", "mother2", "color1", "color2")
        columns = dict(zip(names, np.array(rows).T, strict=True))
        columns |= {name: np.zeros(n) for name in ("px", "py", "pz", "energy", "mass")}
        return EventSample(run, [0, n], columns)

    # baryon number violation: d~ (incoming) s~ -> t + X, i.e. three anticolours meet
    junction = event(
        [
            (-1, -1, 0, 0, 0, 501),
            (-3, -1, 0, 0, 0, 502),
            (1000006, 1, 1, 2, 503, 0),
        ]
    )
    result = {r.name: r for r in check_sample([junction], SAMPLE.run)}
    assert not result["colour connection"].n_broken
    # two up quarks fuse to a colour sextet, declared in the header
    header = "BLOCK QNUMBERS 9000006 # six\n 1 4\n 2 1\n 3 6\n 4 1\nDECAY 9000006 1.0\n"
    run = SAMPLE.run.with_(header=header)
    sextet = event(
        [
            (2, -1, 0, 0, 501, 0),
            (2, -1, 0, 0, 502, 0),
            (9000006, 1, 1, 2, 501, -502),
        ],
        run,
    )
    result = {r.name: r for r in check_sample([sextet], run)}
    assert not result["colour connection"].n_broken
    assert not result["charge"].n_broken
    assert not result["particle ids"].n_broken


def with_incoming(first: list[float], second: list[float], **run: object) -> EventSample:
    """One event e p -> e p whose incoming particles have these momenta and masses."""
    total = np.add(first[:4], second[:4])
    final = [*total[:3] / 2, total[3] / 2]
    rows = np.array([first[:4], second[:4], final, final])
    mass = [
        first[4],
        second[4],
        *2 * [np.sqrt(max(final[3] ** 2 - np.dot(total, total) / 4 + final[3] ** 2, 0))],
    ]
    columns = dict(zip(("px", "py", "pz", "energy"), rows.T, strict=True))
    columns |= {"pdg_id": [22] * 4, "status": [-1, -1, 1, 1], "mother1": [0, 0, 1, 1]}
    columns |= {"mother2": [0, 0, 2, 2], "mass": mass}
    return EventSample(SAMPLE.run.with_(**run), [0, 4], columns)


@pytest.mark.parametrize(
    ("first", "second", "good"),
    [
        ([0, 0, 8, 8, 0], [0, 0, 2.4e-13, 171.3, 171.3], True),  # a target at rest
        ([0, 0, 8, 8, 0], [0, 0, -2.4e-13, 171.3, 171.3], True),
        ([0, 0, 8, 8, 0], [0, 0, -0.0, 171.3, 171.3], True),
        ([0, 0, -0.0, 171.3, 171.3], [0, 0, 8, 8, 0], True),
        ([-0.0, -0.0, -8, 8, 0], [0, 0, 30, 30, 0], True),  # the one toward -z first
        ([0, 0, 8, 8, 0], [0, 0, 30, 30, 0], False),
        ([0, 0, -8, 8, 0], [0, 0, -30, 30, 0], False),
        ([0, 0, 8, 8, 0], [0.1, 0, -30, 30, 0], False),
        ([0, 0, 8, 8, 0], [0, 0, -6600, 6600, 0], False),
        ([0, 0, 8, 8, 0], [0, 0, np.nan, 30, 0], False),
    ],
)
def test_incoming_particles(first: list[float], second: list[float], good: bool) -> None:
    sample = with_incoming(first, second)
    result = {r.name: r for r in check_sample([sample], sample.run)}["incoming particles"]
    assert result.n_broken == (0 if good else 1), result.text


def test_energy_of_each_beam() -> None:
    """Each particle is below the energy of the beam of its side, whichever comes first."""
    for first, second in (((-900, 900), (20, 20)), ((20, 20), (-900, 900))):
        sample = with_incoming(
            [0, 0, *first, 0], [0, 0, *second, 0], beam_energy=(27.5, 920.0),
            beam_pdg_id=(11, 2212),
        )  # fmt: skip
        assert "incoming particles" not in broken(sample)
        assert "incoming particles" in broken(
            EventSample(
                sample.run.with_(beam_energy=(920.0, 27.5)), sample.offsets, sample.particles
            )
        )


def test_decays_of_one_particle() -> None:
    columns = {
        "pdg_id": [23, 13, -13], "status": [-1, 1, 1], "mother1": [0, 1, 1], "mother2": [0, 1, 1],
        "px": [0, 45, -45], "py": [0, 0, 0], "pz": [0, 0, 0], "energy": [90, 45, 45],
        "mass": [90, 0, 0], "color1": [0, 0, 0], "color2": [0, 0, 0],
    }  # fmt: skip
    one = SAMPLE.run.with_(beam_pdg_id=(23, 0), beam_energy=(90.0, 0.0), processes=())
    assert not broken(EventSample(one, [0, 3], columns))
    both = EventSample(SAMPLE.run, [0, 3], columns)
    assert "incoming particles" in broken(both)
    empty = EventSample(one, [0, 3, 3], columns)
    assert check(empty)["incoming particles"].worst_event == 2


@pytest.mark.parametrize(
    ("beam", "energy", "verdict"),
    [
        (11, 1.002, False),
        (11, 1.2, False),
        (11, 2.2, True),
        (14, 3.0, False),
        (2212, 1.002, True),
        (22, 1.01, False),
    ],
)
def test_beams_above_their_nominal_energy(beam: int, energy: float, verdict: bool) -> None:
    """Leptons have a spread, neutrinos a spectrum; partons have less than their hadron."""
    sample = lepton_pair((beam, -beam), energy * 45.0)
    assert ("incoming particles" in broken(sample)) == verdict


def test_digits_of_energies_far_above_a_target() -> None:
    """Rounding is that of the energies at hand where the beam states none."""
    sample = lepton_pair((14, 2112), 45.0)
    particles = dict(sample.particles) | {"energy": sample.energy.copy()}
    particles["energy"][0] += 3e-8
    for stated, verdict in ((0.0, False), (1.0, True)):
        run = sample.run.with_(beam_energy=(stated, 1.0))
        found = check(EventSample(run, sample.offsets, particles))["momentum balance"]
        assert bool(found.n_broken) == verdict


def lepton_pair(beams: tuple[int, int], energy: float) -> EventSample:
    """Two particles of this energy in GeV that become muons; 45 GeV are nominal."""
    signs = np.array([1.0, -1.0, 0.0, 0.0])
    columns = {
        "pdg_id": np.array([11, -11, 13, -13]), "status": np.array([-1, -1, 1, 1]),
        "mother1": np.array([0, 0, 1, 1]), "mother2": np.array([0, 0, 2, 2]),
        "px": energy * np.array([0.0, 0.0, 1.0, -1.0]), "py": np.zeros(4), "pz": energy * signs,
        "energy": np.full(4, energy), "mass": np.zeros(4), "color1": np.zeros(4, int),
        "color2": np.zeros(4, int),
    }  # fmt: skip
    return EventSample(RunInfo(beams, (45.0, 45.0)), [0, 4], columns)


def test_tolerance_follows_the_printed_digits() -> None:
    rounded = {
        name: np.array([float(f"{x:.7e}") for x in SAMPLE.particles[name]])
        for name in ("px", "py", "pz", "energy", "mass")
    }
    sample = EventSample(SAMPLE.run, SAMPLE.offsets, {**SAMPLE.particles, **rounded}, SAMPLE.events)
    assert check(sample, 1e-13)["momentum balance"].n_broken
    digits = SAMPLE.run.with_(significant_digits=8)
    assert not any(r.n_broken for r in check_sample([sample], digits))
    assert not bad_events(sample, digits).any()
    assert bad_events(sample, digits, 1e-13).any()


def test_events_without_incoming_particles_among_others() -> None:
    status = SAMPLE.particles["status"].copy()
    rows = slice(SAMPLE.offsets[32], SAMPLE.offsets[48])  # a whole chunk
    status[rows] = np.where(status[rows] == -1, 3, status[rows])
    sample = EventSample(SAMPLE.run, SAMPLE.offsets, {**SAMPLE.particles, "status": status})
    result = check(sample)["momentum balance"]
    assert (result.n_broken, result.worst_event) == (16, 33)


def test_samples_that_lack_columns_are_judged_by_what_they_have() -> None:
    momenta = {k: SAMPLE.particles[k] for k in ("px", "py", "pz", "energy", "mass")}
    sample = EventSample(SAMPLE.run.with_(processes=()), SAMPLE.offsets, momenta)
    results = check(sample)
    assert {name for name, r in results.items() if r.judged} == {"finite numbers", "mass shells"}
    assert "status" in results["momentum balance"].text
    assert not broken(sample)
    assert not bad_events(sample).any()
    assert not any(r.judged for r in check_sample([], SAMPLE.run))


def test_empty_events_are_no_crash() -> None:
    offsets = np.concatenate([[0, 0], SAMPLE.offsets[1:]])
    with_empty = EventSample(
        SAMPLE.run, np.append(SAMPLE.offsets, SAMPLE.offsets[-1]), SAMPLE.particles
    )
    results = check(with_empty)
    assert results["incoming particles"].worst_event == len(SAMPLE) + 1
    assert len(offsets) == len(with_empty) + 1


def test_weight_of_an_event_without_particles() -> None:
    offsets = np.insert(SAMPLE.offsets, 6, SAMPLE.offsets[5])
    events = {name: np.insert(values, 5, 0) for name, values in SAMPLE.events.items()}
    sample = EventSample(SAMPLE.run, offsets, SAMPLE.particles, events)
    results = check(sample)
    assert {name for name, r in results.items() if r.n_broken} == {"incoming particles"}
    assert results["incoming particles"].worst_event == 6
    assert "malformed record" in results["incoming particles"].text


def test_worst_event_is_counted_over_the_file() -> None:
    sample = concatenate([SAMPLE, changed(SAMPLE, "px", FIRST + 3, 0.0)])
    assert check(sample)["momentum balance"].worst_event == len(SAMPLE) + EVENT + 1


def test_real_files(data_dir: Path) -> None:
    """Nothing is broken in files of other programs but what is known to be."""
    from hepgen_ml.events.formats import open_sample

    known = {
        "pylhe-testfile-madgraph-2.2.1-Z-fxfx.lhe.gz": {"mass shells"},  # event 965: E < 0
    }
    paths = sorted((data_dir / "readers").glob("*.lhe*"))
    assert paths
    for path in [*paths, data_dir / "ttbar2j_train.lhe.gz"]:
        reader = open_sample(path)
        results = check_sample(reader.chunks(), reader.run)
        found = {r.name for r in results if r.n_broken}
        assert found == known.get(path.name, set()), path.name
        reader.close()
