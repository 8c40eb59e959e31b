"""Classes of jets from files, and scores into files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.classification.tagger import Tagger
from hepgen_ml.errors import InputError, SampleError, UsageError
from hepgen_ml.events.formats import expand, format_of
from hepgen_ml.events.jets import Jets, JetSelection, joined, open_jets, read_jets, tell
from hepgen_ml.events.source import Progress
from hepgen_ml.files.outputs import PartialFile, make_readable, naming

_TREE = re.compile(r"(.+\.root):([A-Za-z_][\w/]*)")


def read_classes(
    classes: Sequence[str],
    files: Sequence[Path],
    selection: JetSelection,
    *,
    skip_bad: bool = False,
    max_jets: int | None = None,
) -> dict[str, Jets]:
    """Jets by class.

    Parameters
    ----------
    classes : sequence of str
        ``NAME=FILE``, also several times for one class; ``FILE`` may be a pattern, and
        ``FILE.root:TREE`` one tree of a file. With `files`: ``NAME=VALUE,VALUE`` of
        ``selection.label``, or ``NAME=COLUMN`` where the selection has no label.
    files : sequence of Path
        Files with the jets of all classes.
    selection : JetSelection
    skip_bad : bool
    max_jets : int, optional
        Of each file.

    Raises
    ------
    UsageError
        A class without a file, or jets whose class is not given.
    InputError
        A file has no jets of a class.
    """
    named = [_named(text) for text in classes]
    if not files:
        if selection.label:
            raise UsageError(
                "--label without --from", remedy="name the file with this column with --from"
            )
        if not named:
            raise UsageError(
                "no classes are given",
                remedy="write --class NAME=FILE for each, or --from FILE --label NAME",
            )
        found: dict[str, list[Jets]] = {}
        for name, place in named:
            path, one = _place(place, selection)
            jets = read_jets(path, one, skip_bad=skip_bad, max_jets=max_jets)
            found.setdefault(name, []).append(jets)
        return {name: joined(parts).with_label(name) for name, parts in found.items()}
    if not named and not selection.label:
        raise UsageError(
            "the class of each jet of --from is not given",
            remedy="add --label COLUMN, or --class NAME=COLUMN for each class",
        )
    if not selection.label:
        selection = replace(selection, flags=tuple(dict.fromkeys(value for _, value in named)))
    jets = read_jets(list(files), selection, skip_bad=skip_bad, max_jets=max_jets)
    return _by_label(jets, named, files[0], "" if selection.label is None else selection.label)


def _named(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not separator or not value or not re.fullmatch(r"[\w+.~ -]{1,100}", name):
        raise UsageError(
            f"--class {text[:100]!r} is not of the form NAME=FILE",
            remedy="write it as in top=top.root",
        )
    return name, value


def _place(text: str, selection: JetSelection) -> tuple[str, JetSelection]:
    """File and what to read of it, from a file name that may end in that of a tree."""
    match = _TREE.fullmatch(text)
    if match is None or Path(text).exists():
        return text, selection
    return match[1], replace(selection, tree=match[2])


def _by_label(
    jets: Jets, named: Sequence[tuple[str, str]], path: Path, label: str
) -> dict[str, Jets]:
    values = np.unique(jets.label).tolist()
    if not named:
        if len(values) > 50:
            raise UsageError(
                f"{label!r} has {len(values)} different values",
                path=path,
                remedy="give --class NAME=VALUE,VALUE for each class, or another --label",
            )
        if unknown := [value for value in values if value.lower() == "nan"]:
            first = int(np.flatnonzero(np.isin(jets.label, unknown))[0])
            raise InputError(
                f"jet {int(jets.number[first]) + 1} has {label} = nan, which is no class",
                path=path,
                remedy="say which values count with --class NAME=VALUE, other jets are left out",
            )
        named = [(value or "none", value) for value in values]
    wanted: dict[str, list[str]] = {}
    for name, value in named:
        parts = [part.strip() for part in value.split(",")] if label else [value]
        wanted.setdefault(name, []).extend(parts)
    for name, parts in wanted.items():
        for part in parts:
            if part not in values:
                shown = ", ".join(repr(v) for v in values[:20])
                raise InputError(
                    f"no jet has {f'{label} = {part}' if label else f'{part} = 1'}",
                    path=path,
                    remedy=f"class {name!r} would have no jets; the values are {shown}",
                )
    owners = [part for parts in wanted.values() for part in parts]
    if len(set(owners)) < len(owners):
        raise UsageError("a value belongs to two classes", remedy="name each value once")
    return {
        name: jets[np.isin(jets.label, parts)].with_label(name) for name, parts in wanted.items()
    }


def write_scores(
    tagger: Tagger,
    files: Sequence[Path],
    out: Path,
    selection: JetSelection,
    *,
    skip_bad: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> int:
    """Probabilities of all classes for the jets of files; memory is bounded apart from the result.

    Parameters
    ----------
    tagger : Tagger
    files : sequence of Path
    out : Path
        ``.npz`` with ``scores`` (n, C), ``classes``, ``source`` and ``jet``, or a file whose format
        writes columns (ROOT): ``score_NAME`` (other characters than letters and digits as ``_``,
        with a number if names are equal then), ``source`` and ``jet``. The last two say where a jet
        came from: which file of the command and which jet of it, both from 0.
    selection : JetSelection
        With the features of the tagger.
    skip_bad, force : bool
    progress : callable, optional

    Returns
    -------
    int
        Number of jets.
    """
    writer = None
    if out.suffix != ".npz":
        writer = getattr(format_of(out), "write_columns", None)
        if writer is None:
            raise UsageError("cannot hold scores", path=out, remedy="name it .npz or .root")
    tagger.require(selection.features)
    scores, places, numbers = [], [], []
    n = 0
    with PartialFile(out, force=force) as partial:
        for i, path in enumerate(expand(files)):
            reader = open_jets(path, selection, skip_bad=skip_bad)
            try:
                for chunk in reader.chunks():
                    scores.append(tagger.predict(chunk).astype(np.float32))
                    places.append(np.full(len(chunk), i, np.int32))
                    numbers.append(chunk.number)
                    n += len(chunk)
                    if progress is not None:
                        progress("tag", float(n), None, {})
            finally:
                reader.close()
            tell(path, reader.checked)
        if n == 0:
            raise SampleError("no jets", path=files[0], remedy="check the files and the selection")
        probability = np.concatenate(scores)
        more: dict[str, npt.NDArray[Any]] = {
            "source": np.concatenate(places),
            "jet": np.concatenate(numbers),
        }
        with naming(out):
            if writer is None:
                with partial.place.open("xb") as file:
                    np.savez(
                        file, scores=probability, classes=np.array(tagger.classes),
                        source=more["source"], jet=more["jet"],
                    )  # fmt: skip
            else:
                columns = dict(zip(_columns(tagger.classes), probability.T, strict=True))
                writer(partial.place, columns | more)
            make_readable(partial.place)
        partial.commit()
    return n


def _columns(classes: Sequence[str]) -> list[str]:
    """Names of the branches with the probabilities of classes, each of its own."""
    found: list[str] = []
    for name in classes:
        plain = column = "score_" + re.sub(r"\W", "_", name, flags=re.ASCII)
        number = 1
        while column in found:
            number += 1
            column = f"{plain}_{number}"
        found.append(column)
    return found
