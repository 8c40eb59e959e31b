"""Files joined into one: the parts of a run are the run."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import uproot

from hepgen_ml import EventSample, Generator, convert, merge, read, write
from hepgen_ml.errors import InputError, OutputError, SampleError, UsageError
from hepgen_ml.events import source
from hepgen_ml.events.formats import expand
from hepgen_ml.events.sample import Shard, concatenate
from hepgen_ml.generation.blocks import run_of_shard
from tests.parton_events import parton_sample

N = 400
FORMATS = ["lhe", "lhe.gz", "hepmc", "hepmc.gz", "root", "hdf5"]


@pytest.fixture(scope="module")
def run() -> EventSample:
    """A whole run with named weights."""
    generator = Generator.load("ttbar01j", device="cpu")
    sample = generator.sample(N, seed=3)
    sample.weights["up"] = 1.5 * sample.weight + np.arange(N) / N
    sample.run = sample.run.with_(weight_names={"up": "scale up"})
    return sample


def shards(sample: EventSample, place: Path, suffix: str, n: int = 12) -> list[Path]:
    """The run in n parts, in the order of the alphabet, which is not that of the events."""
    bounds = np.linspace(0, len(sample), n + 1).astype(int)
    paths = []
    for i in range(n):
        paths.append(place / f"part-{i}.{suffix}")
        write(sample[bounds[i] : bounds[i + 1]], paths[-1])
    return sorted(paths)


@pytest.mark.parametrize("suffix", FORMATS)
def test_shards_are_the_run(run: EventSample, tmp_path: Path, suffix: str) -> None:
    if suffix == "hdf5":
        pytest.importorskip("h5py")
    done = merge(shards(run, tmp_path, suffix), tmp_path / f"all.{suffix}")
    write(run, tmp_path / f"whole.{suffix}")
    if suffix in ("root", "hdf5"):  # have blocks of their own, and a name inside
        got, whole = read(tmp_path / f"all.{suffix}"), read(tmp_path / f"whole.{suffix}")
        assert got.run == whole.run
        for group in ("particles", "events", "weights", "scales"):
            a, b = getattr(got, group), getattr(whole, group)
            assert list(a) == list(b)
            assert all(np.array_equal(a[k], b[k], equal_nan=True) for k in a), group
    else:
        texts = [(tmp_path / f"{name}.{suffix}").read_bytes() for name in ("all", "whole")]
        if suffix.endswith(".gz"):
            texts = [gzip.decompress(text) for text in texts]
        assert texts[0] == texts[1]
    assert done.n_events == N
    assert done.run.cross_section == pytest.approx(run.run.cross_section, rel=1e-15)
    assert not any(done.left_out.values())


def test_numbers_of_events_that_are_of_their_own_stay(tmp_path: Path) -> None:
    sample = parton_sample(60)
    sample.events["event_number"] = 1000 + np.arange(60)
    merge(shards(sample, tmp_path, "root", 3), tmp_path / "all.root")
    assert read(tmp_path / "all.root").events["event_number"].tolist() == list(range(1000, 1060))


def test_files_that_count_from_the_same_number_are_counted_anew(tmp_path: Path) -> None:
    merge(shards(parton_sample(60), tmp_path, "hepmc", 3), tmp_path / "all.hepmc")
    lines = (tmp_path / "all.hepmc").read_text().splitlines()
    assert [int(x.split()[1]) for x in lines if x.startswith("E ")] == list(range(60))
    sample = parton_sample(60)
    for i in range(2):
        half = sample[30 * i : 30 * i + 30]
        half.events["event_number"] = 7 + np.arange(30)
        write(half, tmp_path / f"{i}.root")
    merge([tmp_path / "0.root", tmp_path / "1.root"], tmp_path / "all.root")
    with uproot.open(tmp_path / "all.root") as file:
        assert file["Events/event"].array().to_list() == list(range(1, 61))


def test_the_same_events_twice_are_refused(tmp_path: Path) -> None:
    write(parton_sample(30), tmp_path / "a.lhe")
    write(parton_sample(50)[:30], tmp_path / "b.lhe.gz")
    with pytest.raises(SampleError, match=r"b\.lhe\.gz: holds the events of .*a\.lhe"):
        merge([tmp_path / "a.lhe", tmp_path / "b.lhe.gz"], tmp_path / "all.lhe")
    assert not (tmp_path / "all.lhe").exists()


def test_events_that_are_among_those_of_another_file_are_refused(tmp_path: Path) -> None:
    """However the shards were cut: the second begins far behind the beginning of the first."""
    sample = parton_sample(3000)
    write(sample[:2000], tmp_path / "a.lhe")
    write(sample[1500:], tmp_path / "b.lhe")
    for names in ("ab", "ba"):
        with pytest.raises(SampleError, match=r"a\.lhe: holds the first events of .*b\.lhe"):
            merge([tmp_path / f"{x}.lhe" for x in names], tmp_path / "all.lhe")
    write(sample[:7], tmp_path / "c.lhe")
    with pytest.raises(SampleError, match=r"a\.lhe: holds the first events of .*c\.lhe"):
        merge([tmp_path / "c.lhe", tmp_path / "a.lhe"], tmp_path / "all.lhe")
    assert not (tmp_path / "all.lhe").exists()


def test_events_that_tell_nothing_are_no_reason(tmp_path: Path) -> None:
    """Those of a particle gun are all the same, and may be in every file."""
    gun = parton_sample(1)[np.zeros(40, dtype=int)]
    for name in ("a.lhe", "b.lhe"):
        write(gun, tmp_path / name)
    done = merge([tmp_path / "a.lhe", tmp_path / "b.lhe"], tmp_path / "all.lhe")
    assert done.n_events == 80


def test_every_file_is_opened_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look and a pass: what else is asked of each of a thousand small files adds up."""
    parts = shards(parton_sample(600), tmp_path, "lhe", 12)
    opened: list[Path] = []
    monkeypatch.setattr(source, "open_sample", lambda path, f=source.open_sample, **kw: (
        opened.append(path), f(path, **kw)
    )[1])  # fmt: skip
    merge(parts, tmp_path / "all.lhe")
    assert len(opened) <= 2 * len(parts) + 1


def test_a_truncated_part_is_named_and_nothing_written(tmp_path: Path) -> None:
    parts = shards(parton_sample(60), tmp_path, "lhe", 3)
    parts[1].write_bytes(parts[1].read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"part-1\.lhe"):
        merge(parts, tmp_path / "all.lhe")
    assert not (tmp_path / "all.lhe").exists()


def test_an_output_is_no_input_and_not_replaced(tmp_path: Path) -> None:
    parts = shards(parton_sample(60), tmp_path, "lhe", 3)
    with pytest.raises(UsageError, match="is an input"):
        merge(parts, parts[0], force=True)
    (tmp_path / "all.lhe").touch()
    with pytest.raises(OutputError, match="exists already"):
        merge(parts, tmp_path / "all.lhe")


@pytest.mark.parametrize("suffix", ["lhe", "hepmc", "root"])
def test_pipes_are_no_input(tmp_path: Path, suffix: str) -> None:
    """Nobody writes to this one: it would be waited for without end."""
    os.mkfifo(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match="is a pipe or a device"):
        merge(tmp_path / f"a.{suffix}", tmp_path / "all.lhe")


def test_memory_does_not_grow_with_the_files(run: EventSample, tmp_path: Path) -> None:
    import tracemalloc

    parts = shards(run, tmp_path, "lhe", 20)

    def peak(n: int) -> int:
        tracemalloc.start()
        merge(parts[:n], tmp_path / f"all-{n}.lhe")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(2), peak(20)
    assert many < 1.5 * few


def marked(sample: EventSample, place: Path, suffix: str, n: int, name: str = "part") -> list[Path]:
    """Shards as `generate` writes them."""
    bounds = np.linspace(0, len(sample), n + 1).astype(int)
    paths = [place / f"{name}-{i}.{suffix}" for i in range(n)]
    for i, path in enumerate(paths):
        part = sample[bounds[i] : bounds[i + 1]]
        part.run = run_of_shard(sample.run, len(sample), (i, n))
        write(part, path)
    return paths


@pytest.mark.parametrize("suffix", ["lhe.gz", "hepmc", "root", "hdf5"])
def test_a_missing_shard_is_noticed(tmp_path: Path, suffix: str) -> None:
    if suffix == "hdf5":
        pytest.importorskip("h5py")
    sample, out = parton_sample(60), tmp_path / f"all.{suffix}"
    sample.run = sample.run.with_(header="<a>text</a>")
    parts = marked(sample, tmp_path, suffix, 4)
    assert read(parts[2]).run.shard == run_of_shard(sample.run, 60, (2, 4)).shard
    what = r"part-0.*: is one of 4 shards, of which 1 is missing \(counted from 0: 3\).*incomplete"
    with pytest.raises(SampleError, match=what):
        merge(parts[:3], out)
    with pytest.raises(SampleError, match=r"part-1.*3 are missing \(counted from 0: 0, 2, 3\)"):
        merge(parts[1], out)
    assert not out.exists()
    assert merge(parts[:3], out, incomplete=True).n_events == 45
    assert merge(parts, out, force=True).n_events == 60
    assert read(out).run.shard is None
    if suffix != "hepmc":  # which has no place for it
        assert read(out).run.header == "<a>text</a>"


def test_a_shard_there_twice_is_noticed(tmp_path: Path) -> None:
    """Other events, as of a job that ran again without a seed."""
    parts = marked(parton_sample(60), tmp_path, "lhe", 3)
    other = parton_sample(60, seed=8)
    other.run = read(parts[0]).run.with_(shard=None)
    others = marked(other, tmp_path, "root", 3, "other")
    for part, path in zip(parts, others, strict=True):
        sample = read(path)
        sample.run = read(part).run
        write(sample, path, force=True)
    with pytest.raises(SampleError, match=r"part-1\.lhe: is shard 1 of 3, as is .*other-1\.root"):
        merge([*parts, others[1]], tmp_path / "all.lhe")
    with pytest.raises(SampleError, match=r"others are there once .*incomplete"):
        merge([*parts, *others[:2]], tmp_path / "all.lhe")
    assert merge([*parts, *others], tmp_path / "all.lhe").n_events == 120


def test_shards_keep_their_mark_in_other_formats(tmp_path: Path) -> None:
    parts = marked(parton_sample(60), tmp_path, "lhe", 3)
    for i, path in enumerate(parts[:2]):
        convert(path, tmp_path / f"{i}.root")
    with pytest.raises(SampleError, match="1 is missing"):
        merge(tmp_path / "*.root", tmp_path / "all.lhe")
    convert(parts, tmp_path / "all.root")
    assert read(tmp_path / "all.root").run.shard is None
    assert read(parts).run.shard is None
    assert concatenate([read(p) for p in parts]).run.shard is None
    assert concatenate([read(parts[0])[:5], read(parts[0])[5:]]).run.shard == Shard(
        0, 3, read(parts[1]).run.shard.request  # type: ignore[union-attr]
    )


@pytest.mark.parametrize("text", [
    '<HepgenShard index="3" number="3" request="abc"/>',
    '<HepgenShard index="0" number="9999999999" request="abc"/>',
])  # fmt: skip
def test_what_is_no_shard_is_header(tmp_path: Path, text: str) -> None:
    sample = parton_sample(3)
    sample.run = sample.run.with_(header=text)
    write(sample, tmp_path / "a.lhe")
    assert read(tmp_path / "a.lhe").run.header == text
    assert merge(tmp_path / "a.lhe", tmp_path / "b.lhe").n_events == 3


def test_a_file_that_is_named_twice_counts_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.lhe", "b.lhe"):
        (tmp_path / name).touch()
    names = [tmp_path / "b.lhe", f"{tmp_path}/*.lhe"]
    assert expand(names) == [tmp_path / "b.lhe", tmp_path / "a.lhe"]
    assert "b.lhe: named more than once, counted once" in caplog.text
    caplog.clear()
    expand([f"{tmp_path}/*.lhe"])
    assert not caplog.text
