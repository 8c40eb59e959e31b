"""LHEH5 files: ours read by others, those of others and damaged ones read by us."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pylhe
import pytest
from hepgen_adapters.lheh5 import LHEH5
from hepgen_adapters.lheh5.layout import EVENTS, INIT, PARTICLES, PROCESSES

from hepgen_ml import EventSample, read, write
from hepgen_ml.errors import InputError, OutputError, UsageError
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.sample import concatenate
from tests.parton_events import assert_same, parton_sample
from tests.samples import toy_z_jets

h5py = pytest.importorskip("h5py")

FORMAT = LHEH5()


def stored(sample: EventSample, path: Path) -> Path:
    writer = FORMAT.create(path, sample.run, None)
    for chunk in sample.chunks(23):
        writer.write(chunk)
    writer.close()
    return path


def opened(path: Path, size: int = 7, **options: Any) -> EventSample:
    reader = FORMAT.open(path, **options)
    try:
        return concatenate(list(reader.chunks(size)), reader.run)
    finally:
        reader.close()


def test_a_sample_comes_back(tmp_path: Path) -> None:
    sample = parton_sample(60)
    again = opened(stored(sample, tmp_path / "events.hdf5"))
    assert_same(sample, again, tolerance=3e-16)  # equal weights are multiplied, and divided again
    np.testing.assert_array_equal(again.weight, sample.weight)
    np.testing.assert_array_equal(again.momentum, sample.momentum)
    assert again.run.with_(significant_digits=None) == sample.run.with_(significant_digits=None)
    for group in ("weights", "scales", "attributes"):
        assert list(getattr(again, group)) == list(getattr(sample, group))


@pytest.mark.parametrize(
    "names", [["scale", "NOMINAL", "weight"], ["weight_pid", "pid", "weight_weight_pid"]]
)
def test_weights_may_have_the_names_of_columns(tmp_path: Path, names: list[str]) -> None:
    sample = parton_sample(30)
    weights = {name: sample.weight * (k + 2) for k, name in enumerate(names)}
    run = sample.run.with_(weight_names=dict.fromkeys(names, ""), weight_groups="")
    sample = EventSample(
        run, sample.offsets, sample.particles, sample.events, weights=weights,
        scales=sample.scales, attributes=sample.attributes,
    )  # fmt: skip
    again = opened(stored(sample, tmp_path / "events.hdf5"))
    assert list(again.weights) == names
    for name in names:
        np.testing.assert_allclose(again.weights[name], weights[name], rtol=1e-14)
    np.testing.assert_allclose(again.events["scale"], sample.events["scale"])


def test_the_same_events_are_the_same_bytes(tmp_path: Path) -> None:
    a, b = (stored(parton_sample(40), tmp_path / f"{i}.h5") for i in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_what_the_reader_of_pythia_needs(tmp_path: Path) -> None:
    sample = parton_sample(60)
    with h5py.File(stored(sample, tmp_path / "events.hdf5")) as file:
        events, particles = file["events"], file["particles"]
        names = [n for n in events.attrs["properties"]]
        assert sorted(events.attrs)[0] == "properties"
        assert tuple(names[: len(EVENTS)]) == EVENTS
        assert events.chunks[1] == events.shape[1]
        assert particles.chunks[1] == len(PARTICLES)
        n_lo = file["procInfo"][:, 1]
        assert n_lo.max() >= max(sample.counts.max(), 3)
        assert len(particles) >= len(events) * n_lo.max()
        assert (events[:, 3] == 1).all()
        assert set(events[:, 0]) <= set(file["procInfo"][:, 0])
        assert not particles[int(sample.offsets[-1]) :].any()
        assert file["init"].attrs["properties"][-1] == INIT[-1]
        assert file["procInfo"].attrs["properties"][-1] == PROCESSES[-1]
        assert file["version"][0] == 2


@pytest.mark.skipif(
    not hasattr(pylhe, "LesHouchesEvents"), reason="pylhe below 2 does not read HDF5"
)
def test_pylhe_reads_the_same_events(tmp_path: Path) -> None:
    sample = parton_sample(30)
    path = stored(sample, tmp_path / "events.hdf5")
    events = list(pylhe.LesHouchesEvents.fromfile(path).events)
    assert [len(e.particles) for e in events] == sample.counts.tolist()
    assert [p.px for e in events for p in e.particles] == sample.px.tolist()
    weights = [e.eventinfo.weight for e in events]
    assert np.mean(weights) == pytest.approx(sample.run.cross_section, rel=0.5)


def test_equal_weights_have_the_cross_section_as_their_mean(tmp_path: Path) -> None:
    sample = parton_sample(20)
    sample = EventSample(
        sample.run.with_(weight_strategy=3), sample.offsets, sample.particles,
        sample.events | {"weight": np.where(np.arange(20) % 5, 1.0, -1.0)},
    )  # fmt: skip
    path = stored(sample, tmp_path / "events.hdf5")
    with h5py.File(path) as file:
        assert np.abs(file["events"][:, 9]) == pytest.approx(sample.run.cross_section)
    np.testing.assert_array_equal(opened(path).weight, sample.weight)


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="reconstructed"):
        FORMAT.create(tmp_path / "a.h5", toy_z_jets(5).run, None).write(toy_z_jets(5))
    with pytest.raises(UsageError, match="partons"):
        FORMAT.open(tmp_path / "a.h5", selection=Selection(parse_objects("Jet:1-2")))


def foreign(path: Path, **changes: Any) -> Path:
    """A file as another program writes it: e+ e- -> mu+ mu-, four events of up to two trials."""
    e = 45.6
    rows = np.zeros((4, 4, 13))
    rows[:, :, 0] = -11, 11, 13, -13
    rows[:, :, 1] = -1, -1, 1, 1
    rows[:, 2:, 2:4] = 1, 2
    rows[:, :, 8] = e, -e, 0, 0
    rows[:, :, 6] = 0, 0, e, -e
    rows[:, :, 9] = e
    rows[:, :, 12] = 9
    names = list(changes.get("names", EVENTS))
    columns = {
        "pid": np.ones(4), "nparticles": np.full(4, 4.0), "start": 4.0 * np.arange(4),
        "trials": np.array([1.0, 2.0, 1.0, 1.0]), "scale": np.full(4, 91.2),
        "fscale": np.full(4, 91.2), "rscale": np.full(4, 45.6), "aqed": np.full(4, 0.0078),
        "aqcd": np.full(4, 0.118), "NOMINAL": np.array([10.0, 12.0, 9.0, 11.0]),
        "up": np.array([11.0, 13.0, 10.0, 12.0]),
    } | changes.get("columns", {})  # fmt: skip
    with h5py.File(path, "w") as file:
        tables = {
            "version": np.array([2, 0, 0]),
            "init": np.array([-11, 11, e, e, 0, 0, 0, 0, 1, 1]),
            "procInfo": np.array([[1, 4, -1, changes.get("sigma", 8.4), 0.1, 1e-9]]),
            "events": np.stack([columns[n] for n in names], axis=1),
            "particles": rows.reshape(-1, 13),
        }
        labels = {"init": INIT, "procInfo": PROCESSES, "events": names, "particles": PARTICLES}
        for name, values in tables.items():
            if name in changes.get("without", ()):
                continue
            dataset = file.create_dataset(name, data=values)
            if name in labels and changes.get("labelled", True):
                dataset.attrs["properties"] = list(labels[name])
    return path


def test_weights_over_trials_are_the_cross_section(tmp_path: Path) -> None:
    names = [*EVENTS, "up"]
    sample = opened(foreign(tmp_path / "a.hdf5", names=names))
    assert sample.run.weight_strategy == -4
    assert sample.weight.mean() == pytest.approx(42 / 5)
    assert sample.weights["up"].mean() == pytest.approx(46 / 5)
    assert sample.run.cross_section == 8.4
    assert sample.run.beam_energy == (45.6, 45.6)
    assert sample.scales["mur"].tolist() == [45.6] * 4
    assert sample.process_id.tolist() == [1] * 4


def test_a_placeholder_is_no_cross_section(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sample = opened(foreign(tmp_path / "a.hdf5", sigma=1e6))
    assert sample.run.cross_section == pytest.approx(42 / 5)
    assert "1e+06 pb" in caplog.text


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    names = [*EVENTS[::-1], "up"]
    a = opened(foreign(tmp_path / "a.hdf5", names=names))
    b = opened(foreign(tmp_path / "b.hdf5", names=[*EVENTS, "up"]))
    assert_same(a, b)
    unnamed = opened(foreign(tmp_path / "c.hdf5", names=[*EVENTS, "up"], labelled=False))
    np.testing.assert_array_equal(unnamed.weights["weight1"], b.weights["up"])


def test_rows_without_a_weight_count_their_trials(tmp_path: Path) -> None:
    columns = {"NOMINAL": np.array([10.0, 0.0, 9.0, 11.0])}
    sample = opened(foreign(tmp_path / "a.hdf5", columns=columns, sigma=6.0))
    assert len(sample) == 3
    assert sample.weight.mean() == pytest.approx(30 / 5)


def test_trials_that_are_none_count_as_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = {"trials": np.array([np.nan, 0.0, 1.0, 1.0])}
    with caplog.at_level(logging.WARNING):
        sample = opened(foreign(tmp_path / "a.hdf5", columns=columns, sigma=10.5))
    assert sample.weight.mean() == pytest.approx(42 / 4)
    assert "trials of 2 events" in caplog.text


def test_process_numbers_may_be_rows(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.hdf5", columns={"pid": np.array([1.0, 0.0, 1.0, 1.0])})
    with h5py.File(path, "r+") as file:
        file["procInfo"][0, 0] = 66
    assert opened(path).process_id.tolist() == [66] * 4


def grouped(path: Path, version: int) -> Path:
    """The same events in groups, as versions 0 and 1 have them."""
    flat = foreign(path.with_name("flat.hdf5"), names=[*EVENTS, "up"])
    with h5py.File(flat) as source, h5py.File(path, "w") as file:
        for k, name in enumerate(INIT):
            file[f"init/{name}"] = source["init"][k]
        for k, name in enumerate(PROCESSES):
            file[f"procInfo/{name}"] = source["procInfo"][:, k]
        for k, name in enumerate(PARTICLES):
            file[f"particle/{name}"] = source["particles"][:, k]
        for k, name in enumerate(EVENTS):
            file[f"event/{'weight' if name == 'NOMINAL' else name}"] = source["events"][:, k]
        if version == 1:
            del file["event/weight"]
            file["event/weight"] = source["events"][:, 9:]
            file["event/weight"].attrs["names"] = ["NOMINAL", "up"]
        else:
            file.move("event/start", "index/start")
    return path


@pytest.mark.parametrize("version", [0, 1])
def test_versions_in_groups(tmp_path: Path, version: int) -> None:
    sample = opened(grouped(tmp_path / "a.hdf5", version))
    assert sample.weight.tolist() == [10.0, 12.0, 9.0, 11.0]
    assert list(sample.weights) == (["up"] if version else [])
    assert sample.pdg_id[:4].tolist() == [-11, 11, 13, -13]
    assert sample.run.cross_section == 8.4


DAMAGED: dict[str, dict[str, Any]] = {
    "no dataset 'particles'": {"without": ("particles",)},
    "lack 'start'": {"names": [n for n in EVENTS if n != "start"]},
    "no weight": {"names": EVENTS[:-1]},
    "event 2: its particles reach": {"columns": {"nparticles": np.array([4.0, 90.0, 4.0, 4.0])}},
    "event 3: its particles reach": {"columns": {"start": np.array([0.0, 4.0, -3.0, 8.0])}},
    "event 1: its number of particles": {
        "columns": {"nparticles": np.array([np.nan, 4.0, 4.0, 4.0])}
    },
    "event 4: holds a number": {"columns": {"NOMINAL": np.array([1.0, 1.0, 1.0, np.inf])}},
    "all weights are zero": {"columns": {"NOMINAL": np.zeros(4)}},
}


@pytest.mark.parametrize("message", DAMAGED)
def test_damage_is_named(tmp_path: Path, message: str) -> None:
    path = foreign(tmp_path / "a.hdf5", **DAMAGED[message])
    with pytest.raises(InputError, match=message):
        opened(path)


def test_bad_events_are_left_out(tmp_path: Path) -> None:
    counts = np.array([4.0, 90.0, np.nan, 4.0])
    reader = FORMAT.open(foreign(tmp_path / "a.h5", columns={"nparticles": counts}), skip_bad=True)
    sample = concatenate(list(reader.chunks()), reader.run)
    assert (len(sample), reader.n_skipped) == (2, 2)
    assert [e.event for e in reader.skipped] == [2, 3]


def test_cut_short(tmp_path: Path) -> None:
    path = stored(parton_sample(300), tmp_path / "a.hdf5")
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(InputError, match=r"a\.hdf5"):
        opened(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["layer/kernel"] = np.zeros(3)
    with pytest.raises(InputError, match="no Les Houches events, only layer"):
        opened(path)
    path.write_bytes(b"<LesHouchesEvents>")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        opened(path)


def test_other_files_are_never_opened(tmp_path: Path) -> None:
    secret = foreign(tmp_path / "secret.hdf5")
    path = foreign(tmp_path / "a.hdf5", without=("particles",))
    with h5py.File(path, "r+") as file:
        file["particles"] = h5py.ExternalLink(str(secret), "/particles")
    with pytest.raises(InputError, match="'particles' is a link"):
        opened(path)
    with h5py.File(path, "r+") as file:
        del file["particles"]
        layout = h5py.VirtualLayout((16, 13), np.float64)
        layout[:] = h5py.VirtualSource(str(secret), "particles", (16, 13))
        file.create_virtual_dataset("particles", layout)
    with pytest.raises(InputError, match="in other files"):
        opened(path)
    with h5py.File(path, "r+") as file:
        del file["particles"]
        file.create_dataset("particles", (16, 13), np.float64, external=[(str(secret), 0, 1664)])
    with pytest.raises(InputError, match="in other files"):
        opened(path)


def test_metadata_is_checked(tmp_path: Path) -> None:
    path = stored(parton_sample(5), tmp_path / "a.hdf5")
    for text in ('{"version": 9}', "{}", "nan", '{"version": 1, "process_ids": "x"}'):
        with h5py.File(path, "r+") as file:
            del file["hepgen_ml/document"]
            file["hepgen_ml/document"] = text
        with pytest.raises(InputError, match=r"not valid|newer"):
            opened(path)


def test_counter_events_are_named(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        file["ctevents"] = np.zeros((1, 9))
    reader = FORMAT.open(path)
    assert any("counter-events" in text for text in reader.left_out)
    reader.close()


def test_by_name_of_the_file(tmp_path: Path) -> None:
    sample = parton_sample(5)
    write(sample, tmp_path / "a.lheh5")
    assert_same(read(tmp_path / "a.lheh5"), sample)


def test_rows_that_were_never_written_are_not_read_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write(parton_sample(20), path)
    with h5py.File(path, "r+") as file:
        names, width = file["events"].attrs["properties"], file["events"].shape[1]
        del file["events"], file["hepgen_ml"]
        file.create_dataset("events", (10**12, width), "f8", chunks=(1000, width))
        file["events"].attrs["properties"] = names
    with pytest.raises(InputError, match="'events' claims 1,000,000,000,000 rows"):
        read(path)


def test_unknown_filters_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write(parton_sample(20), path)
    with h5py.File(path, "r+") as file:
        shape = file["events"].shape
        del file["events"]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((10, shape[1]))
        how.set_filter(60_000, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, b"events", h5py.h5t.IEEE_F64LE, space, how)
    with pytest.raises(InputError, match="by filter 60000 of HDF5, which is not installed"):
        read(path)
