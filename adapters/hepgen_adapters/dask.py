"""Dask: generated events as an array in partitions, and clusters that generate events.

Needs ``pip install "hepgen-ml[dask]"``.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hepgen_ml.errors import NOTE, HepgenError, OutputError, UsageError
from hepgen_ml.generation.blocks import BLOCK, require_directory
from hepgen_ml.generation.partitions import loaded, partition

log = logging.getLogger("hepgen_adapters.dask")

_BATCH = {
    "slurm": "SLURMCluster", "htcondor": "HTCondorCluster", "pbs": "PBSCluster",
    "sge": "SGECluster", "lsf": "LSFCluster",
}  # fmt: skip
_SUBMIT = {
    "slurm": "sbatch", "htcondor": "condor_submit", "pbs": "qsub", "sge": "qsub", "lsf": "bsub",
}  # fmt: skip
"""Programs that submit jobs to batch systems."""

_ANSWER = 20.0  # seconds
_AHEAD = 4  # results waiting for each thread of the workers
_LEAST_AHEAD = 16


def from_generator(
    model: str | Path,
    n: int,
    npartitions: int | None = None,
    *,
    seed: int | None = None,
    posterior: int | None = None,
    weights: str | None = None,
    unweight: bool = False,
    condition: Mapping[str, Any] | None = None,
) -> Any:
    """Generated events as an array of dask-awkward, generated when it is computed.

    Parameters
    ----------
    model : path-like
        Directory to which the workers have access, or the name of a model of the package.
    n : int
        Events of all partitions together.
    npartitions : int, optional
        By default one for each block of 10,000 events, which is most efficient.
    seed : int, optional
        The same seed gives the same events, those of `hepgen_ml.Generator.stream`, for any number
        of partitions and workers. Without a seed every array differs, but each is reproducible.
    posterior, weights, unweight, condition
        See `hepgen_ml.Generator.sample`.

    Returns
    -------
    dask_awkward.Array
        Events as `hepgen_ml.EventSample.to_awkward` gives them.

    Raises
    ------
    UsageError
        dask-awkward is not installed, or there are more partitions than events.
    ModelError
        The model is missing or damaged.
    """
    dak, awkward = _import("dask_awkward"), _import("awkward")
    generator = loaded(Path(model))
    place = require_directory(generator.directory).absolute()
    count = npartitions or -(-n // BLOCK)
    if not 1 <= count <= n:
        raise UsageError(f"{count} partitions are more than {n} events", remedy="take fewer")
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    options = {
        "posterior": posterior, "weights": weights, "unweight": unweight, "condition": condition,
    }  # fmt: skip
    make = functools.partial(_array, place, n, seed, count, options)
    example = partition(place, 1, seed, (0, 1), options).to_awkward()
    meta = awkward.Array(example.layout.to_typetracer(forget_length=True))
    return dak.from_map(make, range(count), meta=meta, label="generate")


def _array(place: Path, n: int, seed: int, count: int, options: dict[str, Any], index: int) -> Any:
    return partition(place, n, seed, (index, count), options).to_awkward()


class Dask:
    """A Dask cluster that generates events; see `hepgen_ml.generation.clusters.Cluster`.

    Parameters
    ----------
    address : str
        ``tcp://host:8786``, or a kind of batch system (``slurm``, ``htcondor``, ``pbs``, ``sge``,
        ``lsf``) to which jobs are submitted with the settings of dask-jobqueue.
    jobs : int, optional
        Jobs to submit; only for a batch system.

    Raises
    ------
    UsageError
        Dask is not installed, no scheduler answers, or jobs cannot be submitted.
    """

    def __init__(self, address: str, jobs: int | None = None) -> None:
        distributed = _import("distributed")
        self._cluster: Any = None
        if address in _BATCH:
            self._cluster = _submitted(address, jobs or 1)
        elif jobs is not None:
            batch = ", ".join(_BATCH)
            raise UsageError("--jobs with a scheduler that has jobs", remedy=f"only for {batch}")
        try:
            if self._cluster is None:
                _connect_once(address)
            self._client = distributed.Client(self._cluster or address, timeout=_ANSWER)
        except (OSError, TimeoutError, ValueError) as error:
            self._close_cluster()
            raise UsageError(
                f"no Dask scheduler answers at {address}",
                remedy=f"start one with `dask scheduler`, or write one of {', '.join(_BATCH)}",
            ) from error
        threads = sum(self._client.nthreads().values())
        log.log(NOTE, "%s: %d threads of workers so far", address, threads)

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Results in order; see `hepgen_ml.generation.clusters.Cluster.map`."""
        waiting: deque[Any] = deque()
        try:
            for call in calls:
                waiting.append(self._client.submit(function, *call, pure=False))
                while len(waiting) >= self._ahead():
                    yield self._taken(waiting)
            while waiting:
                yield self._taken(waiting)
        finally:
            for future in waiting:
                future.release()

    def _ahead(self) -> int:
        return max(_LEAST_AHEAD, _AHEAD * sum(self._client.nthreads().values()))

    def _taken(self, waiting: deque[Any]) -> Any:
        import asyncio
        from concurrent.futures import CancelledError

        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        future = waiting.popleft()
        try:
            return future.result()
        except HepgenError:
            raise
        except KilledWorker as error:
            raise OutputError(
                "workers that generate events died repeatedly",
                remedy="give them more memory or time, and look at their logs",
            ) from error
        except (OSError, TimeoutError, CancelledError, asyncio.CancelledError,
                FutureCancelledError) as error:  # fmt: skip
            raise OutputError(
                "the connection to the Dask scheduler was lost",
                remedy="check its log, and run this command again",
            ) from error
        except ImportError as error:
            raise UsageError(
                f"workers cannot generate events: {error}",
                remedy="install the same hepgen-ml for the workers",
            ) from error
        finally:
            future.release()

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.close()

    def __enter__(self) -> Dask:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close(timeout=2)
        self._close_cluster()


def _connect_once(address: str) -> None:
    """Connect to a scheduler and leave it, without a client.

    A client that cannot connect is not closed, and its destructor waits for ever if it happens to
    run while another client starts.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    security = _import("distributed").Security().get_connection_args("client")
    connect = _import("distributed.comm").connect

    async def connected() -> None:
        comm = await connect(address, timeout=_ANSWER, **security)
        await comm.close()

    with ThreadPoolExecutor(1) as other:  # this thread may have an event loop, as in notebooks
        other.submit(asyncio.run, connected()).result()


def _submitted(kind: str, jobs: int) -> Any:
    """Jobs of a batch system, with the settings in the user's ``jobqueue.yaml``."""
    jobqueue, config = _import("dask_jobqueue"), _import("dask").config
    if shutil.which(_SUBMIT[kind]) is None:
        raise UsageError(
            f"jobs cannot be submitted to {kind}: there is no program {_SUBMIT[kind]}",
            remedy="run this where jobs are submitted, such as a login node",
        )
    settings = {
        name: config.get(f"jobqueue.{kind}.{name}", None) or default
        for name, default in (("cores", 1), ("processes", 1), ("memory", "2GB"))
    }
    try:
        cluster = getattr(jobqueue, _BATCH[kind])(**settings)
        cluster.scale(jobs=jobs)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"jobs cannot be submitted to {kind}: {error}",
            remedy=f"check jobqueue.{kind} in ~/.config/dask/jobqueue.yaml",
        ) from error
    return cluster


def _import(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{name} is not installed", remedy='pip install "hepgen-ml[dask]"'
        ) from error
