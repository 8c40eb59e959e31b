"""HepMC3 files: pyhepmc reads what we write; what it and others write, we read."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
import pyhepmc
import pytest
from hepgen_adapters.hepmc import HepMC

from hepgen_ml.errors import InputError, OutputError
from hepgen_ml.events.formats import format_of
from hepgen_ml.events.sample import EventSample, Subrun, concatenate
from tests.parton_events import BEAM, assert_same, changed, parton_sample

SAMPLE = parton_sample(60)


def write(sample: EventSample, path: Path, chunk: int = 25) -> Path:
    writer = HepMC().create(path, sample.run, len(sample))
    try:
        for part in sample.chunks(chunk):
            writer.write(part)
    finally:
        writer.close()
    return path


def read(path: Path, size: int = 17, **options) -> EventSample:
    reader = HepMC().open(path, **options)
    sample = concatenate(list(reader.chunks(size)), reader.run)
    reader.close()
    return sample


@pytest.mark.parametrize("suffix", HepMC.suffixes)
def test_round_trip_is_exact(tmp_path: Path, suffix: str) -> None:
    path = write(SAMPLE, tmp_path / f"events{suffix}")
    assert format_of(path).name == "hepmc"
    sample = read(path)
    assert_same(sample, SAMPLE)
    tool = ("By hand", "1.0", "two lines\nof text")
    assert sample.run == SAMPLE.run.with_(generators=(tool,))


def test_pyhepmc_finds_what_rivet_and_delphes_need(tmp_path: Path) -> None:
    path = write(SAMPLE, tmp_path / "events.hepmc")
    with pyhepmc.open(path) as file:
        events = list(file)
    assert len(events) == len(SAMPLE)
    for i, event in enumerate(events):
        assert event.event_number == i
        assert event.momentum_unit == pyhepmc.Units.GEV
        assert event.length_unit == pyhepmc.Units.MM
        assert [(b.pid, b.status, b.momentum.e) for b in event.beams] == [(2212, 4, BEAM)] * 2
        assert event.weight_names == ["Default", "mur=2_muf=2", "mur_2_muf_2"]
        np.testing.assert_array_equal(
            event.weights, [SAMPLE.weight[i], *(w[i] for w in SAMPLE.weights.values())]
        )
        assert event.cross_section.xsec() == SAMPLE.run.cross_section
        assert event.cross_section.xsec_err() == SAMPLE.run.cross_section_error
        attributes = event.attributes
        assert int(str(attributes["signal_process_id"])) == SAMPLE.process_id[i]
        assert float(str(attributes["event_scale"])) == SAMPLE.scale[i]
        assert float(str(attributes["alphaQCD"])) == SAMPLE.alpha_qcd[i]
        assert float(str(attributes["alphaQED"])) == SAMPLE.alpha_qed[i]
        assert int(str(attributes["mpi"])) == 0
        first = SAMPLE.offsets[i]
        pdf = event.pdf_info
        assert (pdf.parton_id1, pdf.parton_id2) == tuple(SAMPLE.pdg_id[first : first + 2])
        assert pdf.x1 == SAMPLE.energy[first] / BEAM
        assert pdf.x2 == SAMPLE.energy[first + 1] / BEAM
        assert (pdf.scale, pdf.pdf_id1) == (SAMPLE.scale[i], 247000)
        final = [p for p in event.particles if p.status == 1]
        stored = SAMPLE.pdg_id[first : SAMPLE.offsets[i + 1]][
            SAMPLE.status[first : SAMPLE.offsets[i + 1]] == 1
        ]
        assert [p.pid for p in final] == list(stored)
        assert all(p.end_vertex is None for p in final)


def test_momentum_is_conserved_at_every_vertex(tmp_path: Path) -> None:
    path = write(SAMPLE, tmp_path / "events.hepmc")
    with pyhepmc.open(path) as file:
        for event in file:
            assert len(event.vertices) == (5 if len(event.particles) > 9 else 4)
            for vertex in event.vertices:
                ins, outs = (
                    np.sum([list(p.momentum) for p in side], axis=0)
                    for side in (vertex.particles_in, vertex.particles_out)
                )
                np.testing.assert_allclose(ins, outs, rtol=0, atol=1e-9)


def test_leptons_that_carry_the_whole_beam_are_the_beams(tmp_path: Path) -> None:
    muons = SAMPLE[1:2]
    ids = muons.pdg_id.copy()
    ids[:2] = 11, -11
    energies = tuple(muons.energy[:2])
    run = SAMPLE.run.with_(beam_pdg_id=(11, -11), beam_energy=energies)
    sample = EventSample(
        run, muons.offsets, {**muons.particles, "pdg_id": ids}, muons.events, weights=muons.weights
    )
    path = write(sample, tmp_path / "events.hepmc")
    with pyhepmc.open(path) as file:
        event = next(iter(file))
    assert [(p.pid, p.status) for p in event.particles] == [
        (11, 4), (-11, 4), (23, 2), (13, 1), (-13, 1),
    ]  # fmt: skip
    assert [p.pid for p in event.beams] == [11, -11]
    np.testing.assert_array_equal(read(path).momentum, sample.momentum)


def test_one_of_two_leptons_carries_the_whole_beam(tmp_path: Path) -> None:
    """One lepton radiates, the other one does not: both are incoming, none is left out."""
    muons = SAMPLE[1:2]
    ids = muons.pdg_id.copy()
    ids[:2] = 11, -11
    for whole in (0, 1):
        energies = [float(2 * e) for e in muons.energy[:2]]
        energies[whole] /= 2
        run = SAMPLE.run.with_(beam_pdg_id=(11, -11), beam_energy=tuple(energies))
        sample = EventSample(
            run, muons.offsets, {**muons.particles, "pdg_id": ids}, muons.events,
            weights=muons.weights,
        )  # fmt: skip
        path = write(sample, tmp_path / f"{whole}.hepmc")
        with pyhepmc.open(path) as file:
            event = next(iter(file))
        statuses = {p.pid: p.status for p in event.particles if abs(p.pid) == 11}
        assert sorted(p.pid for p in event.beams) == [-11, 11]
        assert statuses[(11, -11)[whole]] == 4
        back = read(path)
        for name in ("pdg_id", "status", "mother1", "mother2", "px", "pz", "energy"):
            np.testing.assert_array_equal(back.particles[name], sample.particles[name])


def test_daughters_before_their_mothers(tmp_path: Path) -> None:
    """The accord does not order particles; HepMC3 does."""
    sample = SAMPLE[1:2]
    order = [0, 1, 3, 4, 2]
    particles = {name: values[order] for name, values in sample.particles.items()}
    for name in ("mother1", "mother2"):
        particles[name] = np.where(particles[name] == 3, 5, particles[name])
    shuffled = EventSample(SAMPLE.run, sample.offsets, particles, sample.events)
    back = read(write(shuffled, tmp_path / "events.hepmc"))
    np.testing.assert_array_equal(back.momentum, sample.momentum)
    np.testing.assert_array_equal(back.mother1, sample.mother1)


def test_many_events_at_once(tmp_path: Path) -> None:
    """More than the writer formats at a time."""
    sample = concatenate([SAMPLE] * 200)
    back = read(write(sample, tmp_path / "events.hepmc", 12_000), 5_000)
    assert_same(back, sample)


def test_parton_level_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write(SAMPLE, tmp_path / "events.hepmc", 10)
    assert sum("parton level" in r.message for r in caplog.records) == 1


def test_absent_weights_are_zero_for_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = {name: values.copy() for name, values in SAMPLE.weights.items()}
    weights["mur=2 muf=2"][3] = np.nan
    sample = EventSample(SAMPLE.run, SAMPLE.offsets, SAMPLE.particles, weights=weights)
    back = read(write(sample, tmp_path / "events.hepmc"))
    assert np.flatnonzero(np.isnan(back.weights["mur=2 muf=2"])).tolist() == [3]
    number = 1 + list(sample.weights).index("mur=2 muf=2")
    text, line = (tmp_path / "events.hepmc").read_text(), f"A 0 absent_weights {number}\n"
    (tmp_path / "others.hepmc").write_text(text.replace(line, ""))
    assert read(tmp_path / "others.hepmc").weights["mur=2 muf=2"][3] == 0.0
    odd = f"A 0 absent_weights 0 x -1 999 {'9' * 99}\n"
    (tmp_path / "odd.hepmc").write_text(text.replace(line, odd))
    assert np.array_equal(read(tmp_path / "odd.hepmc").weight, sample.weight)
    assert sum("lack named weights" in r.message for r in caplog.records) == 1


def test_what_cannot_be_written(tmp_path: Path) -> None:
    circle = changed(
        changed(SAMPLE, "mother1", SAMPLE.offsets[22] + 2, 5), "mother2", SAMPLE.offsets[22] + 2, 5
    )
    with pytest.raises(OutputError, match="event 23: the mothers"):
        write(circle, tmp_path / "a.hepmc")
    with pytest.raises(OutputError, match=r"event 23: .*not finite"):
        write(changed(SAMPLE, "px", SAMPLE.offsets[22] + 2, np.nan), tmp_path / "b.hepmc")
    names = ("pdg_id", "px", "py", "pz", "energy")
    objects = {k: SAMPLE.particles[k] for k in names}
    with pytest.raises(OutputError, match=r"reconstructed objects .*\.root"):
        write(EventSample(SAMPLE.run, SAMPLE.offsets, objects), tmp_path / "c.hepmc")
    objects["status"] = SAMPLE.status
    with pytest.raises(OutputError, match="needs mother1"):
        write(EventSample(SAMPLE.run, SAMPLE.offsets, objects), tmp_path / "c.hepmc")


def foreign(path: Path, n: int = 5, status: int = 61, product: int = 211) -> Path:
    """A file as shower programs write it: beams, an intermediate state, hadrons or others."""
    info = pyhepmc.GenRunInfo()
    info.weight_names = ["Weight", "up"]
    with pyhepmc.open(path, "w") as file:
        for i in range(n):
            event = pyhepmc.GenEvent(pyhepmc.Units.MEV, pyhepmc.Units.MM)
            event.run_info = info
            event.event_number = i
            momenta = [
                (0, 0, 7e6, 7e6),
                (0, 0, -7e6, 7e6),
                (0, 0, 1e3, 14e6),
                (0, 0, 0, 7e6),
                (0, 0, 0, 7e6),
            ]
            ids, codes = [2212, 2212, 23, product, -product], [4, 4, status, 1, 1]
            rows = [
                pyhepmc.GenParticle(p, k, s) for p, k, s in zip(momenta, ids, codes, strict=True)
            ]
            for row in rows:
                row.generated_mass = 139.57
            hard, decay = pyhepmc.GenVertex(), pyhepmc.GenVertex()
            for row in rows[:2]:
                hard.add_particle_in(row)
            hard.add_particle_out(rows[2])
            decay.add_particle_in(rows[2])
            for row in rows[3:]:
                decay.add_particle_out(row)
            event.add_vertex(hard)
            event.add_vertex(decay)
            event.weights = [2.0, 3.0]
            cross_section = pyhepmc.GenCrossSection()
            event.cross_section = cross_section
            cross_section.set_cross_section(100.0 + i, 5.0, -1, -1)
            file.write(event)
    return path


def test_files_of_shower_programs(tmp_path: Path) -> None:
    sample = read(foreign(tmp_path / "full.hepmc"))
    assert len(sample) == 5
    np.testing.assert_array_equal(sample.pdg_id[:4], [2212, 2212, 211, -211])
    np.testing.assert_array_equal(sample.status[:4], [-1, -1, 1, 1])
    np.testing.assert_array_equal(sample.mother1[:4], [0, 0, 1, 1])
    np.testing.assert_array_equal(sample.mother2[:4], [0, 0, 2, 2])
    np.testing.assert_allclose(sample.energy[:4], 7000)
    np.testing.assert_allclose(sample.mass[:4], 0.13957)
    np.testing.assert_array_equal(sample.weights["up"], 3)
    assert sample.run.processes == (Subrun(0, 104.0, 5.0),)  # of the last event
    assert sample.run.beam_energy == (7000.0, 7000.0)
    assert sample.run.weight_strategy == -4
    parton = read(foreign(tmp_path / "simple.hepmc", status=2, product=13))
    np.testing.assert_array_equal(parton.pdg_id[:5], [2212, 2212, 23, 13, -13])
    np.testing.assert_array_equal(parton.mother1[:5], [0, 0, 1, 3, 3])


def test_bad_files(tmp_path: Path) -> None:
    path = write(SAMPLE, tmp_path / "events.hepmc")
    text = path.read_text()

    def refuses(content: str | bytes, match: str, name: str = "bad.hepmc", **options) -> None:
        bad = tmp_path / name
        bad.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(InputError, match=match) as error:
            read(bad, **options)
        assert error.value.path == bad
        assert error.value.remedy

    refuses("", "not HepMC3")
    refuses("<LesHouchesEvents version='3.0'>\n", "not HepMC3")
    refuses(text[: len(text) // 2], "truncated after 3[0-9] events")
    refuses(gzip.compress(text.encode())[:-3000], "truncated or damaged", "bad.hepmc.gz")
    refuses("\n".join(text.splitlines()[:5]) + "\nHepMC::Asciiv3-END_EVENT_LISTING\n", "no events")
    refuses(text.replace('"weight_strategy": 3', '"weight_strategy": "x"'), "weight_strategy")
    refuses(text.replace('"cross_section": 30.0', '"cross_section": NaN'), "nan|valid")
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("E 22 ")) + 2
    refuses("\n".join([*lines[:at], "W 1.0", *lines[at + 1 :]]), "event 23")
    particle = next(i for i in range(at, len(lines)) if lines[i].startswith("P 3 "))
    fields = lines[particle].split()
    fields[4] = "nan"
    damaged = "\n".join([*lines[:particle], " ".join(fields), *lines[particle + 1 :]])
    refuses(damaged, "event 23: a number is not finite")
    reader = HepMC().open(tmp_path / "bad.hepmc", skip_bad=True)
    assert sum(map(len, reader.chunks(7))) == len(SAMPLE) - 1
    assert reader.n_skipped == 1
    assert reader.skipped[0].event == 23
    reader.close()


def test_circles_of_particles_are_refused_with_what_helps(tmp_path: Path) -> None:
    """As in files of Sherpa, whose signal vertex is not tree-like; the library never ends there."""
    lines = (
        "HepMC::Version 3.02.05", "HepMC::Asciiv3-START_EVENT_LISTING", "E 0 2 3", "U GEV MM",
        "W 1", "P 1 0 11 0 0 1 1 0 4", "V -1 0 [1,3]", "P 2 -1 11 0 0 1 1 0 1", "V -2 0 [2]",
        "P 3 -2 11 0 0 1 1 0 1", "HepMC::Asciiv3-END_EVENT_LISTING", "",
    )  # fmt: skip
    (tmp_path / "a.hepmc").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"event 1: line 7: .*HEPMC_TREE_LIKE"):
        read(tmp_path / "a.hepmc")


def test_real_shower_file(data_dir: Path) -> None:
    sample = read(data_dir / "zmumu_250.hepmc.gz")
    assert len(sample) == 250
    sign = np.where(sample.status == -1, -1.0, 1.0)
    for column in (sample.px, sample.py, sample.pz, sample.energy):
        assert np.abs(np.bincount(sample.event_index, sign * column)).max() < 1e-4
    assert 1300 < sample.run.cross_section < 1700
