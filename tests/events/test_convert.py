"""Conversion between formats: nothing is lost unsaid, weights survive, files combine."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import hepgen_ml
from hepgen_ml.cli import app
from hepgen_ml.cli.options import EventOptions, parse_cross_section
from hepgen_ml.errors import InputError, OutputError, UsageError
from hepgen_ml.events import formats
from hepgen_ml.events.conversion import Conversion, convert
from hepgen_ml.events.formats import AtomicWriter, format_of, read, write
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.events.source import EventSource
from hepgen_ml.generation.generator import Generator
from hepgen_ml.training.data import SampleSource
from tests.events.test_combined_runs import one_process
from tests.object_files import object_sample, shower
from tests.parton_events import assert_same, parton_sample

SAMPLE = parton_sample(60)
NAMES = ("e.root", "e.hepmc", "e.hepmc.gz", "e.lhe", "e.lhe.gz")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


@pytest.mark.parametrize("last", NAMES)
@pytest.mark.parametrize("first", NAMES)
def test_there_and_back(tmp_path: Path, first: str, last: str) -> None:
    weights = {"a": SAMPLE.weights["mur=2 muf=2"], "b:c": SAMPLE.weights["mur_2_muf_2"]}
    names = {"a": "first", "b:c": "second"}
    sample = EventSample(
        SAMPLE.run.with_(weight_names=names), SAMPLE.offsets, SAMPLE.particles, SAMPLE.events,
        weights=weights, scales=SAMPLE.scales, attributes=SAMPLE.attributes,
    )  # fmt: skip
    a, b = tmp_path / f"a.{first}", tmp_path / f"b.{last}"
    write(sample, a)
    done = convert(a, b)
    assert (done.n_events, done.n_skipped, done.n_unselected) == (60, 0, 0)
    assert done.left_out == {a: ()}
    # LHE files declare weights in a group, which HepMC has no place for
    declared = ".lhe" in first and "hepmc" in last
    assert done.lost == {b: ("declarations of weight groups",) if declared else ()}
    back = read(b)
    if ".lhe" in first or ".lhe" in last:
        back.scales["mups"] = np.where(np.isnan(SAMPLE.scales["mups"]), np.nan, back.scales["mups"])
    assert_same(back, sample)
    assert back.run.processes == sample.run.processes
    assert dict(back.run.weight_names) == names


def same(a: np.ndarray, b: np.ndarray) -> bool:
    both_nan = (a != a) & (b != b) if a.dtype.kind == "f" else False
    return bool(np.all((a == b) | both_nan))


def check_nothing_unsaid(path: Path, out: Path, said: tuple[str, ...]) -> None:
    """Every difference between two files is one that the report names."""
    a, b = read(path), read(out)
    text = " ".join(said)
    np.testing.assert_array_equal(a.offsets, b.offsets)
    assert list(a.weights) == list(b.weights)
    for group in ("particles", "events", "weights", "scales", "attributes"):
        before, after = getattr(a, group), getattr(b, group)
        assert set(before) == set(after)
        for name in before:
            if name == "weight" and "size of the weights" in text:
                np.testing.assert_array_equal(np.sign(before[name]), after[name])
            elif name == "mother2":  # 0 after a single mother means that mother
                assert same(*(np.maximum(x[name], x["mother1"]) for x in (before, after)))
            else:
                assert same(before[name], after[name]), name
    changes = {
        "header": "header text", "weight_groups": "declarations of weight groups",
        "processes": "size of the weights",  # and with them their maximum
    }  # fmt: skip
    if not a.run.cross_section > 0:  # then the mean weight is the cross section
        if abs(a.run.weight_strategy) == 4:
            assert b.run.cross_section == pytest.approx(a.weight.mean())
        b.run = b.run.with_(processes=a.run.processes)
    for name in vars(a.run):
        if getattr(a.run, name) != getattr(b.run, name) and name != "significant_digits":
            assert changes.get(name, "nothing") in text, name


@pytest.mark.parametrize("suffix", [".root", ".hepmc", ".lhe"])
@pytest.mark.parametrize("number", range(12))
def test_files_of_generators(data_dir: Path, tmp_path: Path, number: int, suffix: str) -> None:
    path = sorted((data_dir / "readers").glob("*.lhe*"))[number]
    out = tmp_path / f"out{suffix}"
    if "pr29" in path.name and suffix == ".lhe":  # GiBUU: weights of a strategy of its own, no sum
        with pytest.raises(InputError, match="--cross-section"):
            convert(path, out)
        return
    done = convert(path, out)
    check_nothing_unsaid(path, out, done.lost[out])
    if "pp_to_jj" in path.name:
        assert len(read(out).weights) == 145
        assert any("<mgrwt>" in text for text in done.left_out[path])


def test_weights_survive_every_way(data_dir: Path, tmp_path: Path) -> None:
    """145 weights from LHE to HepMC, ROOT and back to LHE."""
    path = next((data_dir / "readers").glob("*pp_to_jj*"))
    steps = [path, tmp_path / "a.hepmc.gz", tmp_path / "b.root", tmp_path / "c.lhe"]
    for before, after in itertools.pairwise(steps):
        convert(before, after)
    first, last = read(path), read(steps[-1])
    assert list(first.weights) == list(last.weights)
    assert all(same(w, last.weights[name]) for name, w in first.weights.items())
    assert dict(first.run.weight_names) == dict(last.run.weight_names)


def test_real_nanoaod_to_others(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "readers" / "nanoAOD_2015_CMS_Open_Data_ttbar.root"
    chosen = Selection(parse_objects("Muon:1,Jet:0-20"), cross_section=831.0)
    out = tmp_path / "objects.root"
    done = convert(path, out, selection=chosen)
    assert (done.n_events, done.n_unselected) == (39, 161)
    assert "other branches" in done.left_out[path][0]
    source = read(path, selection=chosen)
    assert_same(read(out), source)
    # the cross section is that of the selected events
    assert done.run.cross_section == read(out).run.cross_section
    total = read(path, selection=Selection(parse_objects("Muon:0-9,Jet:0-20"))).weight.sum()
    assert done.run.cross_section == pytest.approx(831.0 * source.weight.sum() / total)


def test_showers_to_objects(tmp_path: Path) -> None:
    events = [[(13, 1, 45.0, 0.0, 0.0), (-13, 1, 40.0, 0.1, 3.1), (211, 1, 30.0 + i, 1.0, 1.0)]
              for i in range(5)]  # fmt: skip
    path, out = shower(tmp_path / "a.hepmc", events), tmp_path / "objects.root"
    done = convert(path, out, selection=Selection(parse_objects("Muon:2,Jet:0-3"), jet_pt=32.5))
    assert (done.n_events, done.n_unselected) == (5, 0)
    assert any("particles" in text for text in done.left_out[path])
    back = read(out)
    np.testing.assert_array_equal(back.counts, [2, 2, 2, 3, 3])
    assert back.run.cross_section == 9.0
    with pytest.raises(OutputError, match=r"HepMC3 cannot hold .*\.root"):
        convert(path, tmp_path / "b.hepmc", selection=Selection(parse_objects("Muon:2")))
    whole = convert(path, tmp_path / "c.root")
    assert len(read(tmp_path / "c.root")) == whole.n_events == 5


class Counting:
    """A format that has to know the number of events, and writes the run first."""

    needs_n_events = True
    run_last = False
    name, suffixes = "counting", (".count",)

    def __init__(self) -> None:
        self.begun: list[tuple[RunInfo, int]] = []

    def create(self, path: Path, run: RunInfo, n_events: int, **_: Any) -> Counting:
        self.begun.append((run, n_events))
        self.path, self.run, self.lines = path, run, []
        return self

    def write(self, sample: EventSample) -> None:
        self.lines += [f"{w:g}" for w in sample.weight]

    def close(self) -> None:
        self.path.write_text("\n".join(self.lines))

    def cannot_hold(self, sample: EventSample) -> list[str]:
        return ["everything but weights"]


def test_formats_that_need_the_number_of_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fmt = Counting()
    monkeypatch.setattr(formats, "available_formats", lambda f=formats.available_formats: {
        **f(), "counting": fmt,
    })  # fmt: skip
    path = tmp_path / "objects.root"
    sample = object_sample(50)
    write(sample, path)
    done = convert(path, tmp_path / "a.count", selection=Selection(parse_objects("Jet:0-2")))
    (run_, n_events), = fmt.begun  # fmt: skip
    assert n_events == done.n_events == len((tmp_path / "a.count").read_text().split())
    assert 0 < done.n_unselected < 50
    assert run_.cross_section == done.run.cross_section < sample.run.cross_section
    assert done.lost[tmp_path / "a.count"] == ("everything but weights",)


def test_run_information_is_replaced_only_where_it_is_written_last(tmp_path: Path) -> None:
    sample = one_process(10.0, 10, 0)
    paths = [tmp_path / "a.root", tmp_path / "a.lhe"]
    with AtomicWriter(paths, sample.run, None) as out:
        out.write(sample)
        out.set_run(sample.run.with_(processes=(Subrun(1, 5.0, 0.1),)))
    assert read(paths[0]).run.cross_section == 5.0
    assert read(paths[1]).run.cross_section == 10.0
    assert [format_of(p).run_last for p in paths] == [True, False]


def test_sources_remember_what_they_left_out(tmp_path: Path) -> None:
    path = tmp_path / "objects.root"
    write(object_sample(50), path)
    source = EventSource(path, selection=Selection(parse_objects("Jet:1-2")))
    assert source.run.cross_section == 50.0
    n = sum(len(chunk) for _, chunk in source.raw())
    assert (source.n_events, source.n_unselected) == (n, 50 - n)
    assert source.run.cross_section < 50.0
    assert source.left_out[path] == ("collection Muon", "collection Photon")
    plain, other = SampleSource(path), SampleSource(path, selection=source.selection)
    assert plain.fingerprint() != other.fingerprint()


# ---- command line


def test_command(tmp_path: Path) -> None:
    write(SAMPLE, tmp_path / "a.root")
    done = run("convert", tmp_path / "a.root", "--out", tmp_path / "b.root")
    assert done.exit_code == 0, done.output
    assert "60 events, 60.00 ± 0.56 pb" in done.stdout
    assert "nothing was lost" in done.stdout
    assert run("convert", tmp_path / "a.root", "--out", tmp_path / "b.root").exit_code == 6
    assert run("convert", "--out", "x.root", tmp_path / "no.root").exit_code == 3
    again = run(
        "convert", tmp_path / "a.root", "--out", tmp_path / "b.root", "--force",
        "--out", tmp_path / "c.hepmc",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert "which named weights are absent" not in again.stdout
    chained = run("convert", tmp_path / "c.hepmc", "--out", tmp_path / "d.lhe")
    assert chained.exit_code == 0, chained.output
    np.testing.assert_array_equal(read(tmp_path / "d.lhe").momentum, SAMPLE.momentum)


def test_command_with_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.root"
    write(object_sample(50), path)
    out = tmp_path / "b.root"
    done = run("convert", path, "--out", out, "--objects", "Muon:2,Jet:1-2")
    assert done.exit_code == 0, done.output
    assert "events with other numbers of objects" in done.stdout
    assert f"not taken from {path}: collection Photon" in done.stdout
    assert "nothing was lost" not in done.stdout
    refused = run("convert", path, "--out", tmp_path / "c.lhe")
    assert refused.exit_code == 6
    assert ".root" in refused.stderr
    assert run("convert", path, "--out", out, "--objects", "Muon").exit_code == 2
    assert run("convert", path, "--out", out, "--jet-pt", 30).exit_code == 2


def test_info_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.root"
    sample = object_sample(50)
    write(sample, path)
    found = json.loads(run("info", path, "--json").stdout)
    assert found["objects"]["Muon"] == {"2": 50}
    assert sum(found["objects"]["Jet"].values()) == 50
    assert found["selected_fraction"] == 1.0
    shown = run("info", path, "--objects", "Muon:2,Jet:0-2").stdout
    for text in ("R(n+1)/n", "unselected", "selected  "):
        assert text in shown
    assert "subprocess" not in shown


def test_check_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.root"
    write(object_sample(50), path)
    done = run("check", path, "--objects", "Muon:2,Jet:0-4,Photon:0-1")
    assert done.exit_code == 0, done.output
    assert "ok      mass shells" in done.stdout
    assert run("check", path, "--objects", "Electron:1").exit_code == 3


def test_selection_reaches_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hepgen_ml.generation.generator import Generator
    from hepgen_ml.training import encoded

    asked: list[Any] = []

    def stop(*_: Any, selection: Any, **__: Any) -> None:
        asked.append(selection)
        raise InputError("enough")

    monkeypatch.setattr(encoded, "encode_sample", stop)
    path = tmp_path / "a.root"
    write(object_sample(50), path)
    options = ["--objects", "Jet:1-2", "--cross-section", "5.5+-0.5", "--jet-radius", "0.8"]
    expected = Selection(parse_objects("Jet:1-2"), 5.5, 0.5, jet_radius=0.8)
    for verb, out in (("train", "m"), ("encode", "m.safetensors")):
        assert run(verb, path, "--out", tmp_path / out, *options).exit_code == 3
    with pytest.raises(InputError, match="enough"):
        Generator.train(path, out=tmp_path / "n", selection=expected)
    assert asked == [expected] * 3


def test_options() -> None:
    assert EventOptions().selection() is None
    assert EventOptions(cross_section="3").selection() == Selection(cross_section=3.0)
    assert parse_cross_section("1460.9") == (1460.9, None)
    assert parse_cross_section("1.5e3±2 pb") == (1500.0, 2.0)
    for text in ("", "-3", "0", "x", "1+-", "nan", "1e999"):
        with pytest.raises(UsageError, match="not a cross section"):
            parse_cross_section(text)
    with pytest.raises(UsageError, match="--jet-pt needs jets"):
        EventOptions("Muon:2", jet_pt=30.0).selection()


def test_from_python() -> None:
    assert hepgen_ml.convert is convert
    assert hepgen_ml.Selection is Selection
    assert Conversion.__doc__


def test_event_numbers_survive(tmp_path: Path) -> None:
    """From HepMC to ROOT and back; an LHE file has no place for them, which is said."""
    numbers = np.arange(len(SAMPLE))[::-1] * 3 + 1000
    sample = SAMPLE[:]
    sample.events["event_number"] = numbers
    write(sample, tmp_path / "a.hepmc")
    done = convert(tmp_path / "a.hepmc", [tmp_path / "b.root", tmp_path / "b.lhe"])
    assert read(tmp_path / "b.root").events["event_number"].tolist() == numbers.tolist()
    assert any("event numbers" in text for text in done.lost[tmp_path / "b.lhe"])
    convert(tmp_path / "b.root", tmp_path / "c.hepmc")
    assert read(tmp_path / "c.hepmc").events["event_number"].tolist() == numbers.tolist()


def test_shards_have_numbers_of_their_own(tmp_path: Path) -> None:
    generator = Generator.load("ttbar01j")
    for i in range(2):
        part = [*generator.stream(21, seed=1, shard=(i, 2))]
        write(concatenate(part), tmp_path / f"{i}.root")
        write(concatenate(part), tmp_path / f"{i}.hepmc")
    for suffix in ("root", "hepmc"):
        found = [
            read(tmp_path / f"{i}.{suffix}").events.get("event_number", np.arange(1, 12))
            for i in range(2)
        ]
        assert np.concatenate(found).tolist() == list(range(1, 22))


def test_equal_selections_are_equal() -> None:
    """Also where the error of the cross section is not known."""
    one, same, other = (
        EventOptions(cross_section=text).selection() for text in ("3", "3.0", "3+-1")
    )
    assert one == same
    assert one != other
