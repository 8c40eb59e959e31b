"""Outputs that are read while they are written: standard output, descriptors, named pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from isal import igzip

from hepgen_ml import EventSample, convert, read, write
from hepgen_ml.errors import OutputError, PipeClosedError, UsageError
from hepgen_ml.events.formats import AtomicWriter
from hepgen_ml.files.streams import Stream, is_stream
from tests.parton_events import parton_sample

COMMAND = [sys.executable, "-m", "hepgen_ml"]


@pytest.fixture(scope="module")
def events() -> EventSample:
    return parton_sample(300)


class Reader:
    """Reads a named pipe in a thread."""

    def __init__(self, path: Path, at_most: int | None = None) -> None:
        os.mkfifo(path)
        self.path, self.at_most, self.got = path, at_most, b""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        with open(self.path, "rb") as file:
            self.got = file.read(self.at_most if self.at_most is not None else -1)

    def result(self) -> bytes:
        self.thread.join(timeout=30)
        return self.got


@pytest.fixture(scope="module")
def source(events: EventSample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streams") / "events.lhe"
    write(events, path)
    return path


@pytest.mark.parametrize("suffix", ["lhe", "lhe.gz", "hepmc", "hepmc.gz"])
def test_a_named_pipe_gets_the_bytes_of_a_file(source: Path, tmp_path: Path, suffix: str) -> None:
    reader = Reader(tmp_path / f"pipe.{suffix}")
    convert(source, [reader.path, tmp_path / f"file.{suffix}"])
    assert reader.result() == (tmp_path / f"file.{suffix}").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"file.{suffix}", f"pipe.{suffix}"]


def test_format_of_a_pipe_with_any_name(source: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path / "pipe")
    convert(source, reader.path, format="lhe.gz")
    assert igzip.decompress(reader.result()) == _lhe(source, tmp_path)


def _lhe(source: Path, tmp_path: Path) -> bytes:
    convert(source, tmp_path / "whole.lhe")
    return (tmp_path / "whole.lhe").read_bytes()


@pytest.mark.parametrize("out", ["-", "/dev/stdout", "/dev/fd/1"])
def test_standard_output_holds_events_alone(source: Path, tmp_path: Path, out: str) -> None:
    command = [*COMMAND, "convert", str(source), "--out", out, "--format", "lhe"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == _lhe(source, tmp_path)
    assert b"300 events" in done.stderr


def test_what_is_appended_to_stays(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "log"
    place.write_bytes(b"before\n")
    command = [*COMMAND, "convert", str(source), "--out", "-", "--format", "lhe"]
    with place.open("ab") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=True)
    assert place.read_bytes() == b"before\n" + _lhe(source, tmp_path)


def test_a_reader_that_ends_is_one_line(tmp_path: Path) -> None:
    write(parton_sample(4000), tmp_path / "long.lhe")
    command = [*COMMAND, "convert", "long.lhe", "--out", "-", "--format", "lhe"]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.read(1000)
    running.stdout.close()
    assert running.stderr.read() == b"error: -: its reader ended before the last event\n"
    running.stderr.close()
    assert running.wait() == PipeClosedError.exit_code == 141


def test_a_full_device_is_named(source: Path) -> None:
    command = [*COMMAND, "convert", str(source), "--out", "/dev/full", "--format", "lhe"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == OutputError.exit_code
    assert done.stderr.startswith(b"error: /dev/full: cannot be written: No space left")


def _broken_off(
    path: Path, events: EventSample, error: BaseException | None, *beside: Path
) -> None:
    """Write a third of the events, then fail, or end too early."""
    with AtomicWriter([path, *beside], events.run, len(events)) as writer:
        writer.write(events[: len(events) // 3])
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [RuntimeError("halfway"), KeyboardInterrupt(), None])
def test_what_failed_is_not_ended_as_a_whole_file(
    events: EventSample, tmp_path: Path, error: BaseException | None
) -> None:
    reader = Reader(tmp_path / "pipe.lhe")
    with pytest.raises(type(error) if error else OutputError):
        _broken_off(reader.path, events, error, tmp_path / "file.lhe")
    assert b"</LesHouchesEvents>" not in reader.result()
    assert [p.name for p in tmp_path.iterdir()] == ["pipe.lhe"]


def test_no_file_appears_beside_a_pipe_that_fails(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "pipe.lhe", at_most=10)
    write(parton_sample(4000), tmp_path / "long.lhe")
    with pytest.raises(PipeClosedError):
        convert(tmp_path / "long.lhe", [reader.path, tmp_path / "file.lhe"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.lhe", "pipe.lhe"]


def test_a_reader_that_does_not_read_does_not_hold_up_an_interrupt(tmp_path: Path) -> None:
    path = tmp_path / "pipe.lhe"
    os.mkfifo(path)
    idle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(KeyboardInterrupt):
        _broken_off(path, parton_sample(4000), KeyboardInterrupt())
    os.close(idle)


def test_weights_of_different_size_are_found_before_the_first_event_is_written(
    tmp_path: Path,
) -> None:
    sample = parton_sample(300)
    sample.events["weight"] = np.linspace(1.0, 2.0, 300)
    write(sample, tmp_path / "weighted.hepmc")
    reader = Reader(tmp_path / "pipe.lhe")
    convert(tmp_path / "weighted.hepmc", reader.path)
    (tmp_path / "got.lhe").write_bytes(reader.result())
    got = read(tmp_path / "got.lhe")
    assert abs(got.run.weight_strategy) == 4
    assert len(got) == 300


@pytest.mark.parametrize(
    ("out", "name", "match"),
    [
        ("-", None, "--format"),
        ("-", "root", "cannot be written to a pipe"),
        ("-", "hdf5", "cannot be written to a pipe"),
        ("/dev/null", None, "--format"),
    ],
)
def test_formats_that_no_pipe_can_have(
    source: Path, out: str, name: str | None, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        convert(source, out, format=name)


def test_descriptors_that_are_not_open(source: Path) -> None:
    with pytest.raises(OutputError, match="is not open"):
        convert(source, "/dev/fd/987", format="lhe")


def test_files_are_no_streams(tmp_path: Path) -> None:
    assert not is_stream(tmp_path)
    assert not is_stream(tmp_path / "events.lhe")
    assert not is_stream("/dev/fd")
    assert is_stream("/dev/null")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stream = Stream("/dev/null", ".lhe")
    stream.place.write_bytes(b"x" * 100_000)
    stream.commit()
    stream.discard()
    Stream("/dev/null", ".lhe").discard()
    assert not list(tmp_path.iterdir())


def test_pythia_reads_events_while_they_are_generated(tmp_path: Path) -> None:
    pythia8mc = pytest.importorskip("pythia8mc")
    path = tmp_path / "events.lhe"
    os.mkfifo(path)
    command = [*COMMAND, "generate", "--model", "ttbar01j", "-n", "400", "--seed", "1"]
    with subprocess.Popen(
        [*command, "--workers", "1", "--out", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        pythia = pythia8mc.Pythia("", False)
        for line in (
            "Print:quiet = on", "Beams:frameType = 4", f"Beams:LHEF = {path}",
            "Beams:readLHEFheaders = off", "PartonLevel:all = off", "HadronLevel:all = off",
        ):  # fmt: skip
            assert pythia.readString(line)
        assert pythia.init()
        n = 0
        while pythia.next():
            n += 1
        assert running.wait() == 0
    assert n == 400
    assert pythia.infoPython().atEndOfFile()
