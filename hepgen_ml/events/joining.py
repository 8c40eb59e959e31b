"""Files of the parts of one run, or of several, joined into one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.conversion import Conversion, Progress, convert
from hepgen_ml.events.formats import expand, open_sample
from hepgen_ml.events.sample import EventSample

_COMPARED = 20
"""Number of first events that tell two files apart."""


def merge(
    source: str | Path | Sequence[str | Path],
    out: str | Path | Sequence[str | Path],
    *,
    force: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Join files into one, in chunks.

    Parts of one run (shards, partitions, jobs of one gridpack) keep their cross section and its
    error; cross sections of independent runs of the same processes are averaged, those of
    different processes add (`hepgen_ml.events.merging`). The parts of one run in their order are
    the run itself.

    Parameters
    ----------
    source : path or glob pattern, or several
        Taken in the order of the numbers in their names: ``part-2`` before ``part-10``.
    out, force, format, progress
        As of `hepgen_ml.convert`.

    Raises
    ------
    InputError, SampleError
        A file cannot be read to its end, or the files do not belong together.
    SampleError
        Two files hold the same events.
    OutputError
        An output exists or cannot hold such events.
    """
    paths = sorted(expand([source] if isinstance(source, str | Path) else source), key=_in_order)
    outputs = [Path(p) for p in ([out] if isinstance(out, str | Path) else out)]
    for path in paths:
        if any(o.exists() and path.samefile(o) for o in outputs):
            what = "is an input and the output"
            raise UsageError(what, path=path, remedy="choose another name for the output")
    _require_different(paths)
    return convert(paths, out, force=force, format=format, progress=progress)


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Key that sorts names by the numbers in them."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(pieces)]


def _require_different(paths: Sequence[Path]) -> None:
    found: dict[bytes, Path] = {}
    for path in paths:
        with closing(open_sample(path)) as reader:
            first = next(iter(reader.chunks(_COMPARED)), None)
        if first is None or not len(first):
            continue
        other = found.setdefault(_digest(first), path)
        if other is not path:
            raise SampleError(
                f"holds the events of {other}", path=path,
                remedy="take one of them; jobs need seeds or shards of their own",
            )  # fmt: skip


def _digest(sample: EventSample) -> bytes:
    digest = hashlib.sha256(sample.offsets.tobytes())
    for name, column in sorted(sample.particles.items()):
        digest.update(name.encode() + column.tobytes())
    return digest.digest()
