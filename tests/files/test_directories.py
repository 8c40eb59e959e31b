"""Which directories a training may write into."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from hepgen_ml.classification.directory import DIRECTORY as TAGGER
from hepgen_ml.errors import OutputError
from hepgen_ml.files.directories import Contents, DirectoryLock, claimed
from hepgen_ml.training.directory import claimed as model

CONTENTS = Contents("a model", finished="config.json", plan="training.json")


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory)) - {DirectoryLock.name}


@pytest.mark.parametrize(
    ("there", "options", "message"),
    [
        ({"notes.txt"}, {}, "other files than those of a model"),
        ({"notes.txt"}, {"force": True}, "other files than those of a model"),
        ({"notes.txt"}, {"resume": True}, "other files than those of a model"),
        ({"config.json"}, {}, "exists already"),
        ({"config.json"}, {"resume": True}, "its training is finished"),
        ({"training.json"}, {}, "holds an unfinished training.*--resume"),
    ],
)
def test_refused(tmp_path: Path, there: set[str], options: dict[str, bool], message: str) -> None:
    for name in there:
        (tmp_path / name).touch()
    with pytest.raises(OutputError, match=message), claimed(tmp_path, CONTENTS, **options):
        raise AssertionError("not reached")
    assert set(os.listdir(tmp_path)) == there


@pytest.mark.parametrize(
    ("there", "options"),
    [
        (set(), {}),
        ({".partial-0123456789abcdef-config.json"}, {}),
        ({"config.json", "notes.txt"}, {"force": True}),
        ({"training.json"}, {"resume": True}),
        ({"training.json", "config.json"}, {"resume": True}),
    ],
)
def test_given(tmp_path: Path, there: set[str], options: dict[str, bool]) -> None:
    for name in there:
        (tmp_path / name).touch()
    with claimed(tmp_path, CONTENTS, **options):
        assert (tmp_path / DirectoryLock.name).exists()
        with (
            pytest.raises(OutputError, match="another run"),
            claimed(tmp_path, CONTENTS, force=True),
        ):
            raise AssertionError("not reached")
    assert set(os.listdir(tmp_path)) == there


def test_a_running_training_is_not_called_unfinished(tmp_path: Path) -> None:
    with claimed(tmp_path, CONTENTS):
        (tmp_path / "training.json").touch()
        with pytest.raises(OutputError, match="another run"), claimed(tmp_path, CONTENTS):
            raise AssertionError("not reached")


def test_a_directory_is_left_if_something_was_written_into_it(tmp_path: Path) -> None:
    empty, full = tmp_path / "a" / "empty", tmp_path / "full"
    with claimed(empty, CONTENTS):
        assert empty.is_dir()
    assert not empty.exists()
    with claimed(full, CONTENTS):
        (full / "config.json").touch()
    assert names(full) == {"config.json"}
    own = tmp_path / "own"
    own.mkdir()
    with claimed(own, CONTENTS):
        pass
    assert own.is_dir()


@pytest.mark.parametrize("further", [(), ("checkpoint.safetensors",)])
def test_a_plan_without_anything_to_resume_is_removed(
    tmp_path: Path, further: tuple[str, ...]
) -> None:
    """After Ctrl-C before the first checkpoint the same command begins again."""
    with suppress(KeyboardInterrupt), claimed(tmp_path / "new", CONTENTS):
        for name in ("training.json", *further):
            (tmp_path / "new" / name).touch()
        raise KeyboardInterrupt
    assert (tmp_path / "new" / "training.json").exists() == bool(further)
    assert (tmp_path / "new").exists() == bool(further)


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OutputError, match="is a file"), claimed(tmp_path / "a", CONTENTS):
        raise AssertionError("not reached")


def test_a_model_does_not_replace_a_tagger(tmp_path: Path) -> None:
    """Both have a history of their training and a checkpoint."""
    for name in ("tagger.safetensors", "history.csv"):
        (tmp_path / name).touch()
    with pytest.raises(OutputError, match="those of a model"), model(tmp_path, force=True):
        raise AssertionError("not reached")
    with TAGGER.claimed(tmp_path, force=True):
        pass
