"""Run information of generated events, from that of the sample."""

from __future__ import annotations

from dataclasses import replace

from hepgen_ml.events.sample import RunInfo
from hepgen_ml.events.weights import declared
from hepgen_ml.files.version import __version__
from hepgen_ml.process.process import Process


def output_run(run: RunInfo, process: Process, fingerprint: str) -> RunInfo:
    """Run information of generated events: that of the sample, without properties of its file.

    A process with a sum of weights that is not positive is not generated; the others share its
    cross section, so that the total is unchanged. If the format of the sample declares no
    processes, they get the shares of their events.
    """
    made: dict[int, float] = {}
    for s in process.subprocesses:
        number = s.structure.process_id
        made[number] = made.get(number, 0.0) + s.frequency
    if not process.is_reconstructed:
        run = declared(run, made)
    left = [p for p in run.processes if p.process_id in made]
    rest = sum(p.cross_section for p in left)
    if left and rest > 0 and len(left) < len(run.processes) and not process.is_reconstructed:
        run = run.with_(processes=tuple(
            replace(p, cross_section=p.cross_section * run.cross_section / rest) for p in left
        ))  # fmt: skip
    strategy = -4 if abs(run.weight_strategy) == 4 and run.cross_section > 0 else 3
    top = run.cross_section if strategy == -4 else 1.0
    processes = tuple(type(p)(p.process_id, p.cross_section, p.error, top) for p in run.processes)
    text = f"trained on a sample with SHA-256 {fingerprint}"
    return run.with_(
        weight_strategy=strategy,
        processes=processes,
        generators=(*run.generators, ("hepgen-ml", __version__, text)),
        weight_groups="",
        weight_names={},
        weight_cross_sections={},
        significant_digits=None,
        shard=None,
    )


def weighted_run(run: RunInfo, largest: float) -> RunInfo:
    """Run information of events whose mean weight is the cross section.

    Parameters
    ----------
    run : RunInfo
    largest : float
        Largest weight over the mean.
    """
    if not run.cross_section > 0:  # the size of weights then has no meaning
        return run
    top = run.cross_section * largest
    processes = tuple(replace(p, max_weight=top) for p in run.processes)
    return run.with_(weight_strategy=-4, processes=processes)
