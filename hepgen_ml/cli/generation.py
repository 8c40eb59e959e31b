"""The verb that makes events: generate."""

from __future__ import annotations

import os
import secrets
import sys
import time
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.options import (
    DEFAULT_MODEL,
    Debug,
    Device,
    Force,
    Format,
    GivenCondition,
    Verbose,
)
from hepgen_ml.cli.progress import Progress
from hepgen_ml.cli.quantities import parse_count, parse_shard, stated_cross_section
from hepgen_ml.errors import UsageError

if TYPE_CHECKING:
    from hepgen_ml.generation.clusters import Cluster
    from hepgen_ml.generation.generator import Generator
    from hepgen_ml.generation.weighting import Weights


def generate(
    out: Annotated[
        list[Path],
        typer.Option(
            readable=False,
            metavar="FILE",
            help="Output file: .lhe, .lhe.gz, .hepmc, .hepmc.gz, .root, .hdf5, or - for standard "
            "output. If repeated, each gets the same events. {shard} in the name is the number "
            "of the shard.",
        ),
    ],
    events: Annotated[
        str,
        typer.Option(
            "--events", "-n", metavar="N", help="Number of events of all shards together."
        ),
    ] = "10000",
    model: Annotated[
        Path,
        typer.Option(
            readable=False,
            metavar="DIR",
            help="Model directory, or the name of a model of the package.",
        ),
    ] = DEFAULT_MODEL,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The same seed gives the same events; random by default."),
    ] = None,
    device: Device = "auto",
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Generate only part I of N, I from 0 to N-1.")
    ] = "0/1",
    posterior: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="Weight variations from K posterior draws of a Bayesian model."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="classifier|sample",
            help="Weight events with the model's classifier, or as in a biased sample.",
        ),
    ] = None,
    unweight: Annotated[
        bool,
        typer.Option(
            "--unweight",
            help="Accept events in proportion to these weights and write unit weights.",
        ),
    ] = False,
    condition: GivenCondition = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of processes; by default one for each core."),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|slurm",
            help="Generate on the Dask cluster at this address, or on jobs of a batch system: "
            "slurm, htcondor, pbs, sge, lsf.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of jobs to submit with --dask slurm.")
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of files to write with --dask; {shard} in their name numbers them."
        ),
    ] = None,
    stream_format: Format = None,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Generate events: hepgen-ml generate -n 1e6 --out events.lhe.gz --out events.root."""
    with _console.reporting(lambda: "no file was written", verbose=verbose, debug=debug):
        total, part = parse_count(events), parse_shard(shard)
        paths = out if partitions else _outputs(out, part, force)
        if weights not in (None, "classifier", "sample"):
            raise UsageError(
                f"--weights {weights} is not known",
                remedy="write --weights classifier or --weights sample",
            )
        # Matrix products round alike for any number of threads; MKL reads it when torch is loaded.
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
        import torch

        from hepgen_ml.events.formats import output_format
        from hepgen_ml.generation.blocks import BLOCK, usable_cores
        from hepgen_ml.generation.generator import Generator

        chosen = cast("Weights | None", weights)
        for path in paths:
            output_format(path, stream_format)
        count = workers or usable_cores()
        if workers is not None or total > BLOCK:
            torch.set_num_threads(1)  # each process has one; copies of this one need it
        generator = Generator.load(model, device=device)
        n = Generator.shard_size(total, part)
        if n == 0:
            raise UsageError(f"shard {shard} of {total} events is empty", remedy="use fewer shards")
        from hepgen_ml.generation.conditions import parse_given

        given = parse_given(condition or [], generator.process.conditions)
        options = {
            "posterior": posterior, "weights": chosen, "unweight": unweight, "condition": given,
        }  # fmt: skip
        begun = time.monotonic()
        with _cluster(dask, jobs, partitions, shard) as cluster:
            if partitions is not None and cluster is not None:
                from hepgen_ml.generation.partitions import write_partitions

                if seed is None:
                    seed = secrets.randbits(32)
                with Progress() as progress:
                    progress("generate", 0, n)
                    write_partitions(
                        cluster, generator, paths, n, partitions, seed=seed, force=force,
                        progress=progress, **options,
                    )  # fmt: skip
            else:
                _write(
                    generator, paths, total, n, force, stream_format,
                    seed=seed, shard=part, workers=count, cluster=cluster, **options,
                )  # fmt: skip
        rate = n / (time.monotonic() - begun)
        run = generator.run_of(condition=given)
        sigma = stated_cross_section(run.cross_section, run.cross_section_error)
        for path in paths:
            size = f"{partitions} files" if partitions else _console.size_of(path)
            text = f"{path}: {n:,} events, {sigma}, {size}, {rate:,.0f} events/s"
            _console.result_line(text, paths)
        _show_weights(generator, unweight, paths)


def _show_weights(generator: Generator, unweight: bool, paths: list[Path]) -> None:
    """Print what weighted events are worth."""
    if (weighting := generator.weighting) is not None:
        text = f"effective sample size {weighting.effective_fraction:.1%}"
        if unweight:
            text += f", {weighting.efficiency:.1%} of {weighting.n_drawn:,} events accepted"
        _console.result_line(f"  {text}", paths)


def _write(
    generator: Generator,
    paths: list[Path],
    total: int,
    n: int,
    force: bool,
    stream_format: str | None,
    **options: Any,
) -> None:
    """Write n of `total` events to all files, which appear when they are complete."""
    from hepgen_ml.events.formats import AtomicWriter
    from hepgen_ml.generation.blocks import run_of_shard

    names = ("posterior", "weights", "unweight", "condition")
    run = generator.run_of(**{name: options[name] for name in names})
    run = run_of_shard(run, total, options["shard"])
    # Further processes are copies of this one, before it writes to anything or has other threads.
    start: Literal["spawn", "fork"] = "fork" if sys.platform == "linux" else "spawn"
    done = 0
    with (
        closing(generator.stream(total, start=start, **options)) as chunks,
        Progress() as progress,
        AtomicWriter(paths, run, n, force=force, format=stream_format) as writer,
    ):
        progress("generate", 0, n)
        for chunk in chunks:
            writer.write(chunk)
            done += len(chunk)
            progress("generate", done, n)


def _cluster(
    address: str | None, jobs: int | None, partitions: int | None, shard: str
) -> AbstractContextManager[Cluster | None]:
    if address is None:
        if jobs is not None or partitions is not None:
            what = "--jobs and --partitions are for clusters"
            raise UsageError(what, remedy="add --dask ADDRESS or --dask slurm")
        return nullcontext()
    if partitions is not None and shard != "0/1":
        raise UsageError("--partitions and --shard exclude each other", remedy="take one of them")
    from hepgen_ml.generation.clusters import open_cluster

    return open_cluster("dask", address, jobs)


def _outputs(paths: list[Path], shard: tuple[int, int], force: bool) -> list[Path]:
    """Put the shard into the names; `force` only where shards cannot replace each other."""
    index, n_shards = shard
    named = [Path(str(path).replace("{shard}", str(index))) for path in paths]
    if force and n_shards > 1:
        for before, after in zip(paths, named, strict=True):
            if before == after:
                raise UsageError(
                    "--force with --shard could replace the file of another shard",
                    path=before,
                    remedy="put {shard} into the name, as in events-{shard}.lhe.gz",
                )
    return named
