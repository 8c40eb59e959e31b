"""Events of models and samples in a Pythia of the user's, and showers to HepMC3."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pyhepmc
import pytest
from hepgen_adapters.pythia import LHAupGenerator, LHAupSample, load_pythia

from hepgen_ml import EventSample, Generator, write
from hepgen_ml.errors import OutputError, SampleError, UsageError
from hepgen_ml.events.formats import read
from hepgen_ml.generation.showering import shower, shower_program
from tests.parton_events import parton_sample

pytest.importorskip("pythia8mc")

QUICK = ["Print:quiet = on", "PartonLevel:MPI = off", "HadronLevel:all = off"]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator.load("ttbar01j", device="cpu")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin also where the package was installed before it had one."""
    from hepgen_adapters.pythia import Showering

    monkeypatch.setattr(
        "hepgen_ml.generation.showering.shower_program", lambda name: Showering()
    )


def started(source: Any) -> Any:
    pythia = load_pythia().Pythia("", False)
    for line in [*QUICK, "Random:setSeed = on", "Random:seed = 7"]:
        assert pythia.readString(line)
    source.attach(pythia)
    assert pythia.init()
    return pythia


def events_of(pythia: Any) -> list[tuple[int, float, float]]:
    found = []
    while pythia.next():
        info = pythia.infoPython()
        energies = sum(pythia.event[i].e() for i in range(1, pythia.event.size()))
        found.append((pythia.event.size(), round(energies, 6), info.weight()))
    assert pythia.infoPython().atEndOfFile()
    return found


def test_a_model_and_its_file_give_the_same_showers(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "events.lhe"
    write(generator.sample(40, seed=5), path)
    of_file = load_pythia().Pythia("", False)
    for line in [*QUICK, "Random:setSeed = on", "Random:seed = 7", "Beams:frameType = 4",
                 f"Beams:LHEF = {path}"]:  # fmt: skip
        assert of_file.readString(line)
    assert of_file.init()
    assert events_of(started(LHAupGenerator(generator, n=40, seed=5))) == events_of(of_file)


def test_sources_live_as_long_as_pythia(generator: Generator) -> None:
    pythia = started(LHAupGenerator(generator, n=5, seed=1))
    gc.collect()
    assert len(events_of(pythia)) == 5
    source = LHAupSample(generator.sample(5, seed=1))
    pythia = started(source)
    del pythia
    gc.collect()
    other = started(source)
    assert other.next()
    del other
    gc.collect()
    with pytest.raises(UsageError, match="showered already"):
        started(source)


def test_two_pythias_cannot_share(generator: Generator) -> None:
    source = LHAupSample(generator.sample(5, seed=1))
    pythia = started(source)
    with pytest.raises(UsageError, match="another Pythia"):
        source.attach(load_pythia().Pythia("", False))
    assert len(events_of(pythia)) == 5


def test_what_cannot_be_is_said_at_once(generator: Generator) -> None:
    make = LHAupGenerator
    for n in (0, -1):
        with pytest.raises(UsageError, match=f"cannot generate {n} events"):
            make(generator, n=n)
    with pytest.raises(UsageError, match="cannot be handed to 'str'"):
        make(generator, n=3).attach("pythia")


def test_errors_of_the_model_come_through() -> None:
    def failing() -> Any:
        yield parton_sample(2)
        raise SampleError("the network is broken")

    from hepgen_adapters.pythia.source import classes

    pythia = started(classes()["Source"](parton_sample(2).run, failing()))
    assert pythia.next()
    assert pythia.next()
    with pytest.raises(SampleError, match="the network is broken"):
        pythia.next()


@pytest.mark.parametrize("strategy", [3, -4])
def test_named_weights_reach_pythia(strategy: int) -> None:
    sample = parton_sample(12)
    nominal = np.full(12, 1.0 if strategy == 3 else sample.run.cross_section)
    sample = EventSample(
        sample.run.with_(weight_strategy=strategy), sample.offsets, sample.particles,
        sample.events | {"weight": nominal}, weights={"up": 1.5 * nominal, "down": 0.5 * nominal},
    )  # fmt: skip
    pythia = started(LHAupSample(sample))
    n = 0
    while pythia.next():
        info = pythia.infoPython()
        n += 1
        assert list(info.weightNameVector())[1:] == ["up", "down"]
        values = np.array(list(info.weightValueVector()))
        np.testing.assert_allclose(values / values[0], [1.0, 1.5, 0.5])
    assert n == 12


def test_reconstructed_models_are_refused(generator: Generator) -> None:
    class Reconstructed:
        is_reconstructed = True

    other = object.__new__(Generator)
    other.process = Reconstructed()  # type: ignore[assignment]
    with pytest.raises(SampleError, match="reconstructed"):
        LHAupGenerator(other, n=1)
    with pytest.raises(SampleError, match="reconstructed"):
        shower(other, Path("a.hepmc"), 1, seed=1)


@pytest.mark.parametrize("name", ["a.lhe.gz", "a.root", "a.txt", "-"])
def test_showers_are_hepmc(generator: Generator, name: str, tmp_path: Path) -> None:
    out = Path(name) if name == "-" else tmp_path / name
    with pytest.raises(UsageError, match="written as HepMC3"):
        shower(generator, out, 1, seed=1, format="lhe" if name == "-" else None)
    assert not list(tmp_path.iterdir())


def showered(generator: Generator, path: Path, n: int = 30, **options: Any) -> Path:
    settings = ["PartonLevel:MPI = off"]
    done = shower(generator, path, n, seed=3, settings=settings, **options)
    assert (done.n_events, done.n_refused) == (n, 0)
    return path


def test_showered_files_conserve_momentum(
    generator: Generator, tmp_path: Path, program: None
) -> None:
    path = showered(generator, tmp_path / "events.hepmc.gz")
    numbers = []
    with pyhepmc.open(path) as file:
        for event in file:
            numbers.append(event.event_number)
            momenta = np.array([
                [p.momentum.px, p.momentum.py, p.momentum.pz, p.momentum.e]
                for p in event.particles if p.status == 1
            ])  # fmt: skip
            np.testing.assert_allclose(momenta.sum(0), [0, 0, 0, 13000], atol=1e-4)
            assert [p.pid for p in event.beams] == [2212, 2212]
            assert {p.status for p in event.beams} == {4}
            assert all(v.particles_in and v.particles_out for v in event.vertices)
            assert event.cross_section.xsec() == pytest.approx(generator.run.cross_section)
    assert numbers == list(range(1, 31))
    assert len(read(path)) == 30


def test_the_number_of_processes_does_not_matter(
    generator: Generator, tmp_path: Path, program: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepgen_ml.generation.showering.CHUNK", 11)
    one = showered(generator, tmp_path / "one.hepmc", workers=1)
    two = showered(generator, tmp_path / "two.hepmc", workers=2)
    assert one.read_bytes() == two.read_bytes()


def test_refusals(generator: Generator, tmp_path: Path, program: None) -> None:
    path = tmp_path / "events.hepmc"
    with pytest.raises(UsageError, match="does not know the setting 'Not:a = 1'"):
        shower(generator, path, 5, seed=1, settings=["Not:a = 1"])
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        shower(generator, path, 5, seed=1)
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["events.hepmc"]


def test_events_that_are_refused_are_replaced(
    generator: Generator, tmp_path: Path, program: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Generator.stream

    def damaged(self: Generator, n: int, **options: Any) -> Any:
        for chunk in true(self, n, **options):
            if n == 20:
                chunk.particles["color1"][chunk.offsets[:3]] = 0  # Pythia refuses these
            yield chunk

    monkeypatch.setattr(Generator, "stream", damaged)
    path = tmp_path / "events.hepmc"
    done = shower(generator, path, 20, seed=1, settings=["PartonLevel:MPI = off"])
    assert (done.n_events, done.n_refused) == (20, 3)
    assert len(read(path)) == 20


@pytest.mark.parametrize("line", ["PartonLevel:all = off", "ProcessLevel:all = offf"])
def test_settings_that_leave_nothing_are_refused(
    line: str, generator: Generator, tmp_path: Path, program: None
) -> None:
    """Pythia would give events without particles, and takes any other word for off."""
    with pytest.raises(UsageError, match="is off, so that the events would be empty"):
        shower(generator, tmp_path / "a.hepmc", 3, settings=[line], seed=1)
    assert not (tmp_path / "a.hepmc").exists()


def test_unknown_programs() -> None:
    with pytest.raises(UsageError, match="the shower program 'quasar' is not known"):
        shower_program("quasar")
