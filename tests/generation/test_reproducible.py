"""The same seed gives the same events and bytes, whatever threads, chunks, shards and hashes."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from typer.testing import CliRunner

import hepgen_ml
from hepgen_ml.cli import app
from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.generation.blocks import blocks_of, range_of
from hepgen_ml.generation.generator import Generator
from hepgen_ml.generation.making import Maker
from hepgen_ml.networks.elementwise import silu, softmax_

SUFFIXES = (".lhe", ".lhe.gz", ".hepmc.gz", ".root")


def generate(directory: Path, *arguments: object, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    outputs = [a for s in suffixes for a in ("--out", str(directory / f"events{s}"))]
    result = CliRunner().invoke(
        app, ["generate", "--model", "ttbar01j", *map(str, arguments), *outputs]
    )
    assert result.exit_code == 0, result.output


def generate_apart(directory: Path, n: int, k: int) -> Path:
    """Events of a process of its own, with k threads and the k-th order of hashes."""
    out = directory / f"{k}.lhe"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(k),
        "OMP_WAIT_POLICY": "passive",
        "PYTHONHASHSEED": str(k),
    }
    subprocess.run(
        [
            sys.executable, "-m", "hepgen_ml", "generate", "-n", str(n), "--seed", "4",
            "--model", "ttbar01j", "--device", "cpu", "--out", str(out),
        ],
        env=environment, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return out


def columns(sample: EventSample) -> dict[str, np.ndarray]:
    return {
        "counts": sample.counts,
        **{f"particles.{k}": v for k, v in sample.particles.items()},
        **{f"events.{k}": v for k, v in sample.events.items()},
        **{f"weights.{k}": v for k, v in sample.weights.items()},
    }


def assert_same(one: EventSample, other: EventSample) -> None:
    a, b = columns(one), columns(other)
    assert a.keys() == b.keys()
    for name, column in a.items():
        assert np.array_equal(column, b[name]), name


def events_of(text: bytes) -> bytes:
    """The events of an LHE file, without what is before and after."""
    return text[text.index(b"<event>") : text.rindex(b"</event>")]


@pytest.mark.parametrize("n", [1, 2, 9_999, 10_000, 10_001, 25_003, 1_000_000])
def test_blocks_and_shards_divide_the_events(n: int) -> None:
    blocks = [(b.first, b.last) for b in blocks_of(n, 0, n)]
    assert [first for first, _ in blocks] == [0, *(last for _, last in blocks[:-1])]
    assert blocks[-1][1] == n
    sizes = {last - first for first, last in blocks}
    assert max(sizes) <= 10_000
    assert max(sizes) - min(sizes) <= 1
    for k in (1, 2, 7, 64):
        ranges = [range_of(n, (i, k)) for i in range(k)]
        assert [a for a, _ in ranges] == [0, *(b for _, b in ranges[:-1])]
        assert ranges[-1][1] == n
        for start, stop in ranges:  # those of a part are the blocks of all that have events of it
            some = [b for b in blocks_of(n, 0, n) if b.first < stop and b.last > start]
            assert blocks_of(n, start, stop) == some


def test_a_part_of_very_many_events_begins_at_once() -> None:
    """Blocks that are not its own are not even counted."""
    n = 10**15
    blocks = blocks_of(n, *range_of(n, (10**9 - 1, 10**9)))
    assert len(blocks) == 100
    assert blocks[-1].last == n
    assert blocks[-1].index == 10**11 - 1


def test_small_samples_are_not_cut_from_large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = Maker._events

    def counted(self: Maker, n: int, *rest: object) -> EventSample:
        made.append(n)
        return plain(self, n, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Maker, "_events", counted)
    Generator.load("ttbar01j", device="cpu").sample(100, seed=1)
    assert made == [100]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_seed_same_bytes(suffix: str, tmp_path: Path) -> None:
    texts = []
    for run, seed in enumerate((3, 3, 4)):
        place = tmp_path / str(run)
        place.mkdir()
        generate(place, "-n", 300, "--seed", seed, suffixes=(suffix,))
        texts.append((place / f"events{suffix}").read_bytes())
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_outputs_do_not_change_the_events(tmp_path: Path) -> None:
    for suffixes in (SUFFIXES, (".lhe",)):
        place = tmp_path / str(len(suffixes))
        place.mkdir()
        generate(place, "-n", 200, "--seed", 2, suffixes=suffixes)
    together, alone = ((tmp_path / str(k) / "events.lhe").read_bytes() for k in (4, 1))
    assert together == alone
    assert gzip.decompress((tmp_path / "4" / "events.lhe.gz").read_bytes()) == alone


@pytest.mark.parametrize("shards", [2, 3, 10])
def test_shards_joined_are_the_whole(
    shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As text, and after `convert`: the same events, cross section and error."""
    monkeypatch.setattr("hepgen_ml.generation.blocks.BLOCK", 130)
    generate(tmp_path, "-n", 700, "--seed", 6, suffixes=(".lhe",))
    whole = (tmp_path / "events.lhe").read_bytes()
    parts = []
    for i in range(shards):
        place = tmp_path / str(i)
        place.mkdir()
        arguments = ("-n", 700, "--seed", 6, "--shard", f"{i}/{shards}")
        generate(place, *arguments, suffixes=(".lhe", ".root", ".hepmc.gz"))
        parts.append(place)
    texts = [events_of((p / "events.lhe").read_bytes()) for p in parts]
    assert b"</event>\n".join(texts) == events_of(whole)
    expected = hepgen_ml.read(tmp_path / "events.lhe")
    for suffix in (".lhe", ".root", ".hepmc.gz"):
        joined = tmp_path / f"joined{suffix}.lhe"
        files = [str(p / f"events{suffix}") for p in parts]
        result = CliRunner().invoke(app, ["convert", *files, "--out", str(joined)])
        assert result.exit_code == 0, result.output
        found = hepgen_ml.read(joined)
        assert events_of(joined.read_bytes()) == events_of(whole), suffix
        assert found.run.cross_section == expected.run.cross_section
        assert found.run.cross_section_error == expected.run.cross_section_error


def test_blocks_and_seeds_share_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepgen_ml.generation.blocks.BLOCK", 100)
    generator = Generator.load("ttbar01j", device="cpu")
    samples = [generator.sample(500, seed=s) for s in (0, 1, 2)]
    energies = np.concatenate([s.energy[s.offsets[:-1]] for s in samples])
    # the same random numbers again would repeat whole events
    assert len(np.unique(energies)) > 0.999 * len(energies)


@pytest.mark.parametrize("chunk", [1, 999, 20_000, 10**9])
def test_chunks_are_of_the_size_asked_for(chunk: int) -> None:
    generator = Generator.load("ttbar01j", device="cpu")
    sizes = [len(c) for c in generator.stream(1500, seed=0, chunk=chunk)]
    assert sizes == [chunk] * (1500 // chunk) + [1500 % chunk] * (1500 % chunk > 0)


def test_frequencies_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepgen_ml.generation.blocks.BLOCK", 50)
    generator = Generator.load("ttbar01j", device="cpu")
    made = concatenate(list(generator.stream(4000, seed=9)))
    jets = {len(s.structure.final): 0.0 for s in generator.process.subprocesses}
    for s in generator.process.subprocesses:
        jets[len(s.structure.final)] += s.frequency
    for final, expected in jets.items():
        found = float(np.mean(made.counts == final + 2))
        assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)


def test_processes(tmp_path: Path) -> None:
    """Neither threads nor the order of sets and dictionaries matter."""
    one, other = (generate_apart(tmp_path, 4_501, k) for k in (1, 2))
    assert one.read_bytes() == other.read_bytes()


def test_threads() -> None:
    """To the last bit: threads share the work in ways that round alike."""
    generator = Generator.load("ttbar01j", device="cpu")
    before = torch.get_num_threads()
    try:
        samples = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            samples.append(generator.sample(4_500, seed=8))
    finally:
        torch.set_num_threads(before)
    for sample in samples[1:]:
        assert_same(samples[0], sample)


@pytest.mark.parametrize("shape", [(1, 3, 5), (7, 4, 1001)])
def test_functions_that_round_alike(shape: tuple[int, ...]) -> None:
    """They are what they are called, and an element does not depend on those beside it."""
    x = 20 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    flat = x.flatten()
    torch.testing.assert_close(silu(x), functional.silu(x))
    assert torch.equal(torch.cat([silu(v) for v in flat[:3000].split(1)]), silu(flat)[:3000])
    weight = softmax_(x.clone())
    torch.testing.assert_close(weight, x.softmax(0))
    columns = [softmax_(v.contiguous()) for v in x[..., :40].split(1, -1)]
    assert torch.equal(torch.cat(columns, -1), weight[..., :40])
    wild = torch.tensor([-3e38, -1e4, 0.0, 1e4, 3e38])
    assert torch.equal(silu(wild), torch.tensor([0.0, 0.0, 0.0, 1e4, 3e38]))
