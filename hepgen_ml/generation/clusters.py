"""Blocks of events made on a cluster.

The core knows no batch system. A cluster is an object found through the entry-point group
`ENTRY_POINT_GROUP`, with the attributes and methods of `Cluster`.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from hepgen_ml.errors import UsageError

if TYPE_CHECKING:
    from hepgen_ml.events.sample import EventSample
    from hepgen_ml.generation.blocks import Block, Counts

ENTRY_POINT_GROUP = "hepgen_ml.clusters"

ONE_AT_A_TIME = threading.Lock()  # workers of several threads share a model


class Cluster(Protocol):
    """Machines that call functions; a context manager.

    If a worker is lost, another one repeats its call.
    """

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Results in order; a bounded number of them waits.

        Raises
        ------
        OutputError
            The scheduler is lost, or every worker that ran a call has died.
        HepgenError
            What a call raises.
        """

    def __enter__(self) -> Cluster: ...

    def __exit__(self, *error: object) -> None: ...


def open_cluster(name: str, address: str, jobs: int | None = None) -> Cluster:
    """Connect to a cluster.

    Parameters
    ----------
    name : str
        Of the plugin: ``dask``.
    address : str
        Address of the scheduler, or the kind of batch system to which the plugin submits jobs.
    jobs : int, optional
        To submit.

    Raises
    ------
    UsageError
        There is no such plugin, or no scheduler answers.
    """
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise UsageError(
            f"the cluster plugin {name!r} is not installed", remedy="install hepgen-ml anew"
        )
    opened: Cluster = found[name].load()(address, jobs)
    return opened


def made_on(
    cluster: Cluster,
    blocks: Sequence[Block],
    maker: str,
    arguments: tuple[Any, ...],
    add: Callable[[Counts], None],
) -> Iterator[tuple[Block, EventSample]]:
    """Blocks in order, made on a cluster.

    Parameters
    ----------
    cluster : Cluster
    blocks : sequence of Block
    maker : str
        Module and name of the function that is called once on each worker and returns the function
        that generates blocks. A name and not the function, because torch must be loaded after
        `set_environment`.
    arguments : tuple
        Of this function.
    add : callable
        Takes in the counts of each block.
    """
    run = secrets.token_hex(8)
    results = cluster.map(_block, ((run, maker, arguments, block) for block in blocks))
    for block, (sample, counts) in zip(blocks, results, strict=True):
        add(counts)
        yield block, sample


_begun: dict[str, Callable[[Block], tuple[EventSample, Counts]]] = {}
"""What generates blocks on this worker, by the run; only the latest is kept."""


def _block(
    run: str, maker: str, arguments: tuple[Any, ...], block: Block
) -> tuple[EventSample, Counts]:
    with ONE_AT_A_TIME:
        if run not in _begun:
            set_environment()
            module, name = maker.split(":")
            _begun.clear()
            _begun[run] = getattr(import_module(module), name)(*arguments)
        return _begun[run](block)


def set_environment() -> None:
    """Make matrix products independent of the number of threads; call before torch is loaded."""
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
