"""Outputs appear when whole; killed runs and runs at the same time do no harm."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hepgen_ml.errors import OutputError
from hepgen_ml.files import locks
from hepgen_ml.files.directories import DirectoryLock, is_unfinished
from hepgen_ml.files.outputs import PREFIX, PartialFile, replacing, write_text

KILLED = """
import os, sys
from hepgen_ml.files.outputs import PartialFile
partial = PartialFile(sys.argv[1], force=True)
partial.place.write_text("half")
os.kill(os.getpid(), 9)
"""


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def killed_while_writing(path: Path) -> str:
    """Name of what a killed process leaves of an output."""
    before = set(names(path.parent))
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = set(names(path.parent)) - before
    return left


def test_appears_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with PartialFile(path) as partial:
        partial.place.write_text("whole")
        assert not path.exists()
        partial.commit()
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["a.txt"]


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail() -> None:
        with replacing(path) as place:
            place.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


def test_unfinished_outputs_are_nobody_elses(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "a.txt") as one, PartialFile(tmp_path / "b.txt") as two:
        assert stat.S_IMODE(one.place.parent.stat().st_mode) == 0o700
        assert one.place.parent.name[:25] != two.place.parent.name[:25]
        assert one.place.name == "a.txt"  # formats go by the name


def test_links_are_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "precious", tmp_path / "a.txt"
    target.write_text("precious")
    link.symlink_to(target)
    with pytest.raises(OutputError, match="exists already"):
        PartialFile(link)
    write_text(link, "new")
    assert target.read_text() == "precious"
    assert link.read_text() == "new"
    assert not link.is_symlink()


def test_a_link_to_nothing_exists(tmp_path: Path) -> None:
    link = tmp_path / "a.txt"
    link.symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="exists already"):
        PartialFile(link)


def test_the_next_run_cleans_up_after_a_killed_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    left = killed_while_writing(path)
    assert is_unfinished(left)
    write_text(tmp_path / "b.txt", "another output")
    write_text(tmp_path / "aa.txt", "one with a longer name")
    assert left in names(tmp_path)
    write_text(path, "whole")
    assert names(tmp_path) == ["a.txt", "aa.txt", "b.txt"]


def test_the_next_run_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("precious")
    (tmp_path / f"{PREFIX}{'0' * 16}-a.txt").symlink_to(victim)
    (tmp_path / f"{PREFIX}{'1' * 16}-a.txt").write_text("a file")
    full = tmp_path / f"{PREFIX}{'2' * 16}-a.txt"
    full.mkdir()
    (full / "no lock beside it").write_text("precious")
    inside = tmp_path / killed_while_writing(tmp_path / "a.txt")
    (inside / "link").symlink_to(victim)
    write_text(tmp_path / "a.txt", "whole")
    assert (victim / "precious").read_text() == "precious"
    assert len(names(tmp_path)) == 5
    assert not inside.exists()


def test_of_two_runs_the_first_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with PartialFile(path) as first:
        for force in (False, True):
            with pytest.raises(OutputError, match="another run") as refused:
                PartialFile(path, force=force)
            assert refused.value.exit_code == 6
        first.place.write_text("first")
        first.commit()
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_that_appears_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for number, links in enumerate([True, False]):
        if not links:
            monkeypatch.setattr(os, "link", no_links)
        path = tmp_path / f"{number}.txt"
        partial = PartialFile(path)
        partial.place.write_text("late")
        path.write_text("early")
        with pytest.raises(OutputError, match="appeared"):
            partial.commit()
        assert path.read_text() == "early"
        late = PartialFile(tmp_path / f"{number}-free.txt")
        late.place.write_text("late")
        late.commit()
    assert names(tmp_path) == ["0-free.txt", "0.txt", "1-free.txt", "1.txt"]


def test_without_locks_the_process_and_the_clock_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "take", lambda file: None)
    path = tmp_path / "a.txt"
    with (
        PartialFile(path),
        pytest.raises(OutputError, match="another run"),
    ):
        PartialFile(path)
    left = tmp_path / killed_while_writing(path)
    write_text(path, "of a process that is gone")
    assert not left.exists()
    left = tmp_path / killed_while_writing(path)
    (left / ".in-use").write_text("elsewhere 1")
    with pytest.raises(OutputError, match="another run"):
        write_text(path, "of another machine")
    for file in left.iterdir():
        os.utime(file, (time.time() - 1e5, time.time() - 1e5))
    write_text(path, "long ago")
    assert not left.exists()


def test_locks_of_other_machines_count(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    left = tmp_path / killed_while_writing(path)
    (left / ".in-use").write_text("elsewhere 1")
    with pytest.raises(OutputError, match="another run"):
        write_text(path, "x")


@pytest.mark.parametrize("force", [False, True])
def test_directories_appear_when_whole(tmp_path: Path, force: bool) -> None:
    out = tmp_path / "report"
    out.mkdir()
    if force:
        (out / "old").write_text("old")
    with PartialFile(out, force=force, directory=True) as partial:
        partial.place.mkdir()
        (partial.place / "new").write_text("new")
        partial.commit(sync=True)
    assert names(out) == ["new"]
    assert names(tmp_path) == ["report"]


def test_a_directory_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "report"
    partial = PartialFile(out, directory=True)
    partial.place.mkdir()
    out.mkdir()
    (out / "early").write_text("early")
    with pytest.raises(OutputError, match="appeared"):
        partial.commit()
    assert names(out) == ["early"]
    assert names(tmp_path) == ["report"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n" * 256, "choose a shorter name"),
        ("missing/a.txt", "does not exist"),
        ("directory", "is a directory"),
        (".in-use", "not a name for a file"),
    ],
)
def test_impossible_names(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(OutputError, match=words):
        write_text(tmp_path / name, "x")
    assert names(tmp_path) == ["directory"]


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "-", "*?[a]", "a\nb", "\udcff"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    killed_while_writing(path)
    write_text(path, "x")
    assert names(tmp_path) == [name]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    code = """
import resource, sys
from hepgen_ml.errors import OutputError
from hepgen_ml.files.outputs import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(sys.argv[1], "x" * 5000)
except OutputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.txt")], capture_output=True, check=True
    )
    assert b"a.txt: cannot be written: File too large" in done.stdout
    assert names(tmp_path) == []


def test_one_run_at_a_time_in_a_directory(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        with pytest.raises(OutputError, match="another run"):
            DirectoryLock(tmp_path)
        assert is_unfinished(*names(tmp_path))
    assert names(tmp_path) == []
    (tmp_path / ".in-use").write_text("elsewhere 1")  # of a killed run: nobody holds it
    with DirectoryLock(tmp_path):
        pass
    assert names(tmp_path) == []


def test_locks_are_not_followed_through_links(tmp_path: Path) -> None:
    (tmp_path / ".in-use").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError):
        DirectoryLock(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_directory_lock_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "take", lambda file: None)
    with DirectoryLock(tmp_path), pytest.raises(OutputError, match="remove"):
        DirectoryLock(tmp_path)
    (tmp_path / ".in-use").write_text(f"{locks.owner().decode().split()[0]} {2**22 + 1}")
    with DirectoryLock(tmp_path):  # that process is gone
        pass
