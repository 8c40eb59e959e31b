"""The command line: options, exit codes, what is left behind. The generator is a stand-in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import hepgen_ml
from hepgen_ml import errors
from hepgen_ml.cli import app, share_cores
from hepgen_ml.cli import console as _console
from hepgen_ml.cli.quantities import cross_section, parse_count, parse_duration, parse_shard
from hepgen_ml.events.formats import AtomicWriter, read, write
from hepgen_ml.events.sample import EventSample, RunInfo


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def events(shipped_sample: Path) -> EventSample:
    return read(shipped_sample, max_events=300)


class StandIn:
    """Has the interface of Generator; hands out the events it was given."""

    sample_: EventSample
    trained: dict[str, Any]
    fault: BaseException | None = None
    weighting = None
    process = types.SimpleNamespace(conditions=())

    def __init__(self) -> None:
        self.run = self.sample_.run

    @classmethod
    def train(cls, source: Any, **options: Any) -> StandIn:
        cls.trained = {"source": source, **options}
        options["progress"]("read", 300, None, {})
        options["progress"]("train", 5.0, 10.0, {"loss": 1.25, "events_per_s": 1e4})
        if cls.fault is not None:
            raise cls.fault
        return cls()

    @classmethod
    def load(cls, path: Path, **_: Any) -> StandIn:
        if not Path(path).is_dir():
            raise errors.ModelError("no such model", path=path, remedy="train one")
        return cls()

    def run_of(self, *_: Any, **__: Any) -> RunInfo:
        return self.run

    @staticmethod
    def shard_size(n: int, shard: tuple[int, int]) -> int:
        return n // shard[1] + (shard[0] < n % shard[1])

    def stream(self, n: int, *, shard: tuple[int, int] = (0, 1), **_: Any) -> Iterator[EventSample]:
        size = self.shard_size(n, shard)
        for start in range(0, size, 100):
            yield self.sample_[start : min(start + 100, size)]
            if self.fault is not None:
                raise self.fault

    def describe(self) -> dict[str, Any]:
        return {
            "model": "stand-in",
            "parameters": 1234567,
            "beams": [2212, 2212],
            "beam_energy": [6500.0, 6500.0],
            "cross_section": 1078.6,
            "cross_section_error": 0.4,
            "subprocesses": [
                {"name": "g g > t t~", "frequency": 1.0, "patterns": 8}
            ],
            "understood": [["beams", "p 6500 GeV on p 6500 GeV"], ["cuts", "pt(jet) > 20 GeV"]],
            "cuts": ["pt(jet) > 20 GeV", "|eta(jet)| < 5"],
            "weight_variations": [],
            "training": {
                "events": 20000,
                "sample_files": ["a.lhe"],
                "steps": 100,
                "training_seconds": 65.0,
                "validation_loss": -1.5,
            },
        }


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, events: EventSample, tmp_path: Path) -> type[StandIn]:
    made = type("Generator", (StandIn,), {"sample_": events})
    module = types.ModuleType("hepgen_ml.generation.generator")
    module.Generator = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hepgen_ml.generation.generator", module)
    monkeypatch.setattr(hepgen_ml, "generator", module, raising=False)
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("1.5h", 5400), ("45", 45), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *[(parse_duration, t) for t in ("", "h", "20x", "-5m", "0s", "30m1h", "nan")],
        *[(parse_shard, t) for t in ("", "3", "4/4", "0/0", "-1/4", "1/2/3", "a/b")],
        *[(parse_count, t) for t in ("", "0", "-3", "1.5", "nan", "inf", "many")],
    ],
)
def test_nonsense_is_a_usage_error(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(errors.UsageError):
        parse(text)


def test_shards_and_counts() -> None:
    assert parse_shard("0/1") == (0, 1)
    assert parse_shard("7/8") == (7, 8)
    assert [parse_count(t) for t in ("1", "50_000", "1e6")] == [1, 50_000, 1_000_000]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1078.6123, 0.4061, "1078.61 ± 0.41 pb"),
        (5e-7, 3e-9, "5e-07 ± 3e-09 pb"),
        (12.0, 0.0, "12 pb"),
        (-1.0, float("nan"), "-1 pb"),
        (123456.0, 700.0, "123456 ± 700 pb"),
    ],
)
def test_cross_sections(value: float, error: float, text: str) -> None:
    assert cross_section(value, error) == text


def test_an_output_that_was_removed_is_no_defect(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.lhe")
    assert _console.size_of(tmp_path / "pipe.lhe") == "a pipe"
    (tmp_path / "pipe.lhe").unlink()
    assert _console.size_of(tmp_path / "pipe.lhe") == "removed since"


def test_train_takes_several_files_after_one_option(
    stand_in: type[StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepgen_ml.cli.progress.BRIEF", 0.0)
    for name in ("a.lhe", "b.lhe.gz", "c1.lhe", "c2.lhe"):
        (tmp_path / name).touch()
    done = run(
        *["train", "--from-lhe", "a.lhe", "b.lhe.gz", "--out", "m", "--max-time", "1h30m"],
        *["--seed", 5, "--from-lhe", "c?.lhe", "--device", "cpu", "--skip-bad"],
    )
    assert done.exit_code == 0, done.output
    assert "learned 20,000 events, 100 steps in 1 min 05 s" in done.stdout
    trained = stand_in.trained
    assert {p.name for p in trained["source"]} == {"a.lhe", "b.lhe.gz", "c1.lhe", "c2.lhe"}
    assert trained["out"] == Path("m")
    assert (trained["max_time"], trained["seed"], trained["device"]) == (5400, 5, "cpu")
    assert trained["skip_bad"]
    assert trained["config"].find_cuts
    assert not trained["resume"]
    assert not trained["force"]
    assert "train: 50 %" in done.stderr
    assert "10,000 events/s" in done.stderr


def test_cuts_are_stated_or_not_looked_for(stand_in: type[StandIn], tmp_path: Path) -> None:
    (tmp_path / "a.lhe").touch()
    done = run("train", "--from-lhe", "a.lhe", "--out", "m", "--no-cuts", "--cut", "pt(j) > 25")
    assert done.exit_code == 0, done.output
    config = stand_in.trained["config"]
    assert not config.find_cuts
    assert config.cuts == ("pt(j) > 25",)


def test_train_refuses_what_it_cannot_mean(stand_in: type[StandIn], tmp_path: Path) -> None:
    (tmp_path / "a.root").touch()
    assert run("train").exit_code == 2
    assert run("train", "--from-lhe", "a.root").exit_code == 2
    assert run("train", "--from", "a.root").exit_code == 0
    assert run("train", "a.root").exit_code == 0
    assert run("train", "--from", "missing*.lhe").exit_code == 3
    assert run("train", "a.root", "--max-time", "soon").exit_code == 2
    bad = run("train", "a.root", "--set", "no_such_setting=1")
    assert bad.exit_code == 2
    assert bad.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (errors.SampleError("too few", path="a.lhe", event=3, remedy="more"), 4),
        (errors.ModelError("damaged"), 5),
        (errors.OutputError("exists already"), 6),
        (KeyboardInterrupt(), 130),
        (_console.Terminated(), 143),
        (RuntimeError("two\nlines"), 70),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    stand_in: type[StandIn], tmp_path: Path, fault: BaseException, code: int
) -> None:
    (tmp_path / "a.lhe").touch()
    stand_in.fault = fault
    done = run("train", "--from-lhe", "a.lhe")
    assert done.exit_code == code
    assert "Traceback" not in done.output
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    if code == 4:
        assert line == "error: a.lhe: event 3: too few (more)"


def test_debug_shows_the_traceback(stand_in: type[StandIn], tmp_path: Path) -> None:
    (tmp_path / "a.lhe").touch()
    stand_in.fault = RuntimeError("defect")
    done = run("train", "--from-lhe", "a.lhe", "--debug")
    assert done.exit_code == 70
    assert "Traceback" in done.stderr


def test_interrupted_training_says_what_is_kept(stand_in: type[StandIn], tmp_path: Path) -> None:
    (tmp_path / "a.lhe").touch()
    stand_in.fault = KeyboardInterrupt()
    assert "nothing is kept" in run("train", "a.lhe", "--out", "new").stderr
    (tmp_path / "model" / "checkpoint.safetensors").touch()
    assert "--resume" in run("train", "a.lhe", "--out", "model").stderr


def test_generate_writes_the_same_events_everywhere(
    stand_in: type[StandIn], tmp_path: Path
) -> None:
    done = run(
        *["generate", "-n", 250, "--model", "model", "--seed", 1],
        *["--out", "e.lhe.gz", "--out", "e.lhe"],
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["e.lhe.gz", "e.lhe"]
    assert all("250 events" in line and "pb" in line for line in lines)
    a, b = read("e.lhe.gz"), read("e.lhe")
    assert len(a) == 250
    np.testing.assert_array_equal(a.px, b.px)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.lhe", "e.lhe.gz", "model"]


def test_generate_does_not_replace_unasked(stand_in: type[StandIn], tmp_path: Path) -> None:
    target = tmp_path / "e.lhe"
    target.write_text("precious")
    assert run("generate", "--model", "model", "-n", 10, "--out", target).exit_code == 6
    assert target.read_text() == "precious"
    done = run("generate", "--model", "model", "-n", 10, "--out", target, "--force")
    assert done.exit_code == 0, done.output
    assert len(read(target)) == 10


@pytest.mark.parametrize(
    ("fault", "code"), [(KeyboardInterrupt(), 130), (_console.Terminated(), 143), (OSError(), 70)]
)
def test_interrupted_generation_leaves_nothing(
    stand_in: type[StandIn], tmp_path: Path, fault: BaseException, code: int
) -> None:
    stand_in.fault = fault
    done = run("generate", "--model", "model", "-n", 250, "--out", "e.lhe", "--out", "f.lhe.gz")
    assert done.exit_code == code
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_generate_usage(stand_in: type[StandIn]) -> None:
    assert run("generate", "--model", "absent", "--out", "e.lhe").exit_code == 5
    assert run("generate", "--model", "model", "--out", "e.xyz").exit_code == 2
    assert run("generate", "--model", "model", "--out", "no/e.lhe").exit_code == 6
    assert run("generate", "--model", "model", "--out", "e.lhe", "--out", "e.lhe").exit_code == 2
    assert run("generate", "--model", "model", "--out", "e.lhe", "-n", 0).exit_code == 2
    shards = ("generate", "--model", "model", "-n", 3, "--shard", "3/4")
    assert run(*shards, "--out", "e.lhe").exit_code == 2


def test_shards_make_the_whole(stand_in: type[StandIn]) -> None:
    for i in range(3):
        done = run(
            *["generate", "--model", "model", "-n", 100, "--shard", f"{i}/3"],
            *["--out", "e-{shard}.lhe", "--force"],
        )
        assert done.exit_code == 0, done.output
    assert [len(read(f"e-{i}.lhe")) for i in range(3)] == [34, 33, 33]


def test_shards_cannot_replace_each_other(stand_in: type[StandIn]) -> None:
    shard = ("generate", "--model", "model", "-n", 100, "--out", "e.lhe", "--shard")
    assert run(*shard, "0/3", "--force").exit_code == 2
    assert run(*shard, "0/3").exit_code == 0
    assert run(*shard, "1/3").exit_code == 6
    assert len(read("e.lhe")) == 34


def test_an_output_that_appears_meanwhile_is_kept(events: EventSample, tmp_path: Path) -> None:
    target = tmp_path / "e.lhe"
    writer = AtomicWriter([target], events.run, 10)
    writer.write(events[:10])
    target.write_text("another run")
    with pytest.raises(errors.OutputError, match="appeared"):
        writer.__exit__(None, None, None)
    assert target.read_text() == "another run"
    assert list(tmp_path.iterdir()) == [target]


def test_sigterm_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom hepgen_ml.cli.console import reporting\n"
        "with reporting(lambda: 'nothing'):\n    os.kill(os.getpid(), signal.SIGTERM)\n    input()"
    )
    wrapped = f"import typer\ndef f() -> None:\n{'    ' + code.replace(chr(10), chr(10) + '    ')}"
    done = subprocess.run(
        [sys.executable, "-c", f"{wrapped}\ntyper.run(f)"], capture_output=True, text=True
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "error: terminated: nothing\n"


def test_a_closed_pipe_is_no_error(events: EventSample, tmp_path: Path) -> None:
    write(events, tmp_path / "e.lhe")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from hepgen_ml.cli import main; main()", "info", "e.lhe"]
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == ""


def test_info_of_a_model(stand_in: type[StandIn]) -> None:
    assert json.loads(run("info", "model", "--json").stdout)["model"] == "stand-in"
    shown = run("info", "model").stdout
    for text in ("g g > t t~", "1,234,567", "p 6500 GeV", "1078.60 ± 0.40 pb", "pt(jet) > 20"):
        assert text in shown


def test_waiting_threads_leave_busy_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    assert os.environ["KMP_BLOCKTIME"] == "0"
    for name in names:
        monkeypatch.setattr(os, "environ", {name: "7"})  # what the user has chosen
        share_cores()
        assert os.environ == {name: "7"}


@pytest.mark.parametrize(("rank", "who"), [("0", ""), ("1", "process 1 of 2: ")])
def test_an_option_that_only_one_process_has(
    rank: str, who: str, shipped_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall: it ended without a word, and the first process waited for it."""
    for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "h"),
                        ("MASTER_PORT", "1")):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_console, "_POLITENESS", 0.01)
    result = run("train", shipped_sample, "--max-time", "soon")
    assert result.exit_code == 2
    assert f"error: {who}" in result.stderr

    def ended(seconds: float) -> None:
        raise _console.Terminated

    monkeypatch.setattr(_console.time, "sleep", ended)  # as torchrun does after the first one's end
    result = run("train", shipped_sample, "--max-time", "soon")
    assert result.exit_code == 2
    assert ("error" in result.stderr) == (rank == "0")
