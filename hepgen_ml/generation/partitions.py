"""Parts of a run, each made by a worker of a cluster: in memory, or as a file of its own."""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hepgen_ml.errors import UsageError
from hepgen_ml.files.outputs import refuse_existing
from hepgen_ml.files.streams import is_stream
from hepgen_ml.generation.clusters import ONE_AT_A_TIME, Cluster, set_environment

if TYPE_CHECKING:
    from hepgen_ml.events.sample import EventSample
    from hepgen_ml.generation.generator import Generator


@functools.lru_cache(maxsize=1)
def loaded(directory: Path) -> Generator:
    """Model of a directory, kept for the next call in this process."""
    set_environment()
    from hepgen_ml.generation.generator import Generator

    return Generator.load(directory, device="cpu")


def partition(
    directory: Path, n: int, seed: int, shard: tuple[int, int], options: Mapping[str, Any]
) -> EventSample:
    """Events of one shard, as `Generator.stream` makes them; called on workers."""
    from hepgen_ml.events.sample import concatenate

    with ONE_AT_A_TIME:
        return concatenate(list(loaded(directory).stream(n, seed=seed, shard=shard, **options)))


def write_partitions(
    cluster: Cluster,
    generator: Generator,
    paths: Sequence[Path],
    n: int,
    n_partitions: int,
    *,
    seed: int,
    force: bool = False,
    progress: Callable[[str, float, float | None], None] | None = None,
    **options: Any,
) -> list[Path]:
    """Write one file for each partition on the workers, which need access to the same directories.

    Parameters
    ----------
    cluster : Cluster
    generator : Generator
        Of a stored model.
    paths : sequence of Path
        Names of the files with ``{shard}`` for the number of the partition.
    n, n_partitions : int
        Events of all partitions together.
    seed : int
    force : bool
        Replace existing files.
    progress : callable, optional
    **options
        Of `Generator.stream`: ``posterior``, ``weights``, ``unweight``, ``condition``.

    Returns
    -------
    list of Path
        All files. Each appears when it is complete; if one partition fails, the files of others
        stay.

    Raises
    ------
    UsageError
        A name without ``{shard}``, or more partitions than events.
    OutputError
        A file exists.
    """
    from hepgen_ml.generation.blocks import require_directory

    if n_partitions > n:
        raise UsageError(f"{n_partitions} partitions are more than {n} events", remedy="take fewer")
    for path in paths:
        if "{shard}" not in path.name or is_stream(path):
            what = "is one name for the files of all partitions"
            raise UsageError(what, path=path, remedy="put {shard} into it: events-{shard}.lhe.gz")
    place = require_directory(generator.directory).absolute()
    named = [
        [Path(str(p.absolute()).replace("{shard}", str(i))) for p in paths]
        for i in range(n_partitions)
    ]
    refuse_existing(*(path for group in named for path in group), force=force)
    calls = ((place, group, n, seed, (i, n_partitions), options) for i, group in enumerate(named))
    done = 0
    for count in cluster.map(_write, calls):
        done += count
        if progress is not None:
            progress("generate", done, n)
    return [path for group in named for path in group]


def _write(
    directory: Path,
    paths: Sequence[Path],
    n: int,
    seed: int,
    shard: tuple[int, int],
    options: Mapping[str, Any],
) -> int:
    """Write the files of one partition; called again if the worker was lost."""
    generator = loaded(directory)
    from hepgen_ml.events.formats import AtomicWriter
    from hepgen_ml.generation.blocks import run_of_shard

    # Unique names, which a lost worker on another machine cannot hold.
    own = [path.with_name(f".{secrets.token_hex(4)}-{path.name}") for path in paths]
    size = generator.shard_size(n, shard)
    run = run_of_shard(generator.run_of(**options), n, shard)
    with ONE_AT_A_TIME, AtomicWriter(own, run, size) as writer:
        for chunk in generator.stream(n, seed=seed, shard=shard, **options):
            writer.write(chunk)
    for made, path in zip(own, paths, strict=True):
        os.replace(made, path)
    return size
