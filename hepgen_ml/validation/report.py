"""A report about generated events: a page, its figures and all numbers, in a directory.

Truth and events come from files or from memory; `validate` measures, draws and writes.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hepgen_ml.errors import ModelError, OutputError, SampleError, UsageError
from hepgen_ml.events.hard_process import hard_process
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.run import RunInfo, finite_or_none
from hepgen_ml.events.sample import EventSample, FloatArray, concatenate
from hepgen_ml.events.source import EventSource, Progress
from hepgen_ml.files.outputs import PartialFile, naming, write_json, write_text
from hepgen_ml.files.provenance import file_hash, packages
from hepgen_ml.validation.figures.style import plotting, save
from hepgen_ml.validation.measurements import Labelled, Measurements, finite, measure
from hepgen_ml.validation.report_figures import ReportFigure, draw
from hepgen_ml.validation.report_html import page
from hepgen_ml.validation.user_observables import ObservableFunction, extended
from hepgen_ml.validation.variations import compare_variations
from hepgen_ml.validation.verdict import summarize

if TYPE_CHECKING:
    from hepgen_ml.generation.judged import JudgedModel

log = logging.getLogger(__name__)

FORMAT, VERSION = "hepgen-ml validation", 1
PAGE, METRICS, FIGURES = "report.html", "metrics.json", "figures"
POSTERIOR_DRAWS = 10
"""Number of posterior draws of a Bayesian model by default."""

Files = str | Path | Sequence[str | Path]


class Stopwatch:
    """Seconds and processor seconds of each stage; a stage lasts until the next one begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}
        self._now: tuple[str, float, float] | None = None

    def __call__(self, stage: str | None) -> None:
        """Begin a stage; None: end the last one."""
        wall, cpu = time.perf_counter(), time.process_time()
        if self._now is not None:
            name, *begun = self._now
            spent = self.seconds.setdefault(name, {"seconds": 0.0, "cpu_seconds": 0.0})
            spent["seconds"] += wall - begun[0]
            spent["cpu_seconds"] += cpu - begun[1]
        self._now = None if stage is None else (stage, wall, cpu)


def validate(
    truth: EventSample | Files,
    *,
    model: str | Path | None = None,
    generated: EventSample | Files | None = None,
    out: str | Path = "validation",
    n: int | None = None,
    seed: int = 0,
    posterior: int | None = None,
    observables: ObservableFunction | None = None,
    device: str = "auto",
    selection: Selection | None = None,
    skip_bad: bool = False,
    force: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Compare a model, or a file of events, with truth and write the report.

    Parameters
    ----------
    truth : EventSample or file names or glob patterns
        Events that the generator never saw.
    model : path-like, optional
        Model directory, or name of a pretrained model.
    generated : EventSample or file names or glob patterns, optional
        Instead of a model.
    out : path-like
        Directory of the report; appears when it is complete.
    n : int, optional
        Generated events; by default as many as truth has.
    seed : int
        Seed of the generated events and of the classifiers.
    posterior : int, optional
        Draws of a Bayesian model; 0: without its uncertainty. By default `POSTERIOR_DRAWS`, but
        none of a model whose densities take long.
    observables : callable, optional
        ``function(EventSample) -> dict of name to (n,) array``, further observables.
    device : str
        For the model.
    selection : Selection, optional
        Objects to read from files of reconstructed events.
    skip_bad : bool
        Leave out events that cannot be read.
    force : bool
        Replace an earlier report in `out`.
    command : sequence of str
        Command that made the report, to be shown in it.
    progress : callable, optional
        Called with stage, done and total.
    **options
        For `hepgen_ml.validation.comparison.compare`.

    Returns
    -------
    dict
        Contents of ``metrics.json``.

    Raises
    ------
    UsageError
        Neither or both of `model` and `generated`, missing packages, or a defect of the user's
        function.
    OutputError
        `out` exists or cannot be written.
    SampleError
        Nothing can be compared.
    """
    if (model is None) == (generated is None):
        raise UsageError(
            "one model or generated events are needed", remedy="give either of them, not both"
        )
    plotting()  # fail before the work
    out, tell, watch = Path(out), progress or (lambda *_: None), Stopwatch()
    _check_target(out, force)
    watch("read")
    judged = None
    if model is not None:
        from hepgen_ml.generation.judged import JudgedModel

        judged = JudgedModel(model, device)
    true = _read(truth, selection, skip_bad, judged)
    observables = _with_conditions(observables, judged)
    extended({}, true[:1000], observables)  # errors of the user's function appear at once
    watch("generate")
    if judged is not None:
        samples, facts = _generate(judged, n or len(true), seed, posterior, tell, true)
    else:
        assert generated is not None
        made = _read(generated, selection, skip_bad)
        if n and n < len(made):  # files are not in random order
            made = made[np.sort(np.random.default_rng(seed).permutation(len(made))[:n])]
        samples, facts = [Labelled("generated", made)], {}
    found = measure(true, samples, user=observables, seed=seed, stage=_both(watch, tell), **options)
    watch("weights")
    unknown, warnings = (0.0, []) if judged is None else judged.unknown(true)
    generator = None if judged is None else judged.generator
    variations = compare_variations(true, samples[0].events, found.comparisons[0], generator)
    watch("draw")
    history = None if judged is None else judged.history()
    metrics: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "truth": {"events": len(true), "unknown_structures": unknown, **_run(true.run)},
        "generated": {"events": len(samples[0].events), **_run(samples[0].events.run), **facts},
        **found.to_dict(),
        "weight_variations": variations,
        "warnings": [*_warnings(truth, judged), *warnings],
        "provenance": {
            "command": list(command),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": seed,
            "truth_files": _hashes(truth),
            "generated_files": _hashes(generated),
            "packages": packages(),
            **({} if judged is None else judged.provenance()),
        },
    }
    metrics["summary"] = summarize(metrics)
    metrics = finite(metrics)
    _write(out, force, found, metrics, history, watch, tell)
    if judged is not None:
        _tell_model(judged, metrics)
    return metrics


def _both(watch: Stopwatch, tell: Progress) -> Callable[[str], None]:
    def stage(name: str) -> None:
        watch(name)
        tell(name, 0, None, {})

    return stage


def _read(
    source: EventSample | Files,
    selection: Selection | None,
    skip_bad: bool,
    judged: JudgedModel | None = None,
) -> EventSample:
    """Events of a sample or of files, inside the cuts that were stated for a model."""
    inside, wanted = (None, ()) if judged is None else (judged.inside, judged.wanted)
    if isinstance(source, EventSample) and inside is None:
        return hard_process(source)
    events = EventSource(
        source, skip_bad=skip_bad, selection=selection, inside=inside, conditions=wanted,
        hard=True,
    )  # fmt: skip
    events.weigh_groups()
    parts = [events.joined(number, chunk) for number, chunk in events.raw() if len(chunk)]
    if not parts:
        path = events.paths[0] if events.paths else None
        raise SampleError("holds no events to compare", path=path, remedy="check cuts and objects")
    # Events of several processes are weighted by their cross sections.
    run = events.run.with_(weight_strategy=-4) if events.n_groups > 1 else events.run
    return concatenate(parts, run)


def _with_conditions(
    user: ObservableFunction | None, judged: JudgedModel | None
) -> ObservableFunction | None:
    """Observables of the user's, with the conditions of a model among them.

    Then the classifiers compare events at their condition, not only all of them together.
    """
    known = None if judged is None else judged.conditions
    if known is None:
        return user

    def function(sample: EventSample) -> dict[Any, Any]:
        values = known.of(sample)
        own = dict(zip(known.names, values.T, strict=True))
        return {**own, **({} if user is None else user(sample))}

    return function


def _generate(
    judged: JudgedModel,
    n: int,
    seed: int,
    posterior: int | None,
    tell: Progress,
    truth: EventSample,
) -> tuple[list[Labelled], dict[str, Any]]:
    """Samples of a model at the conditions of the truth, and the rate of generation."""
    generator, given = judged.generator, judged.given(truth, n, seed)
    draws = judged.draws(POSTERIOR_DRAWS) if posterior is None else posterior
    begun, parts, done = time.perf_counter(), [], 0
    for chunk in generator.stream(n, seed=seed, posterior=draws or None, condition=given):
        parts.append(chunk)
        done += len(chunk)
        tell("generate", done, n, {})
    samples = [Labelled("generated", concatenate(parts))]
    facts = {
        "events_per_second": n / (time.perf_counter() - begun),
        "posterior_draws": draws,
        "acceptance": generator.acceptance,
        "device": str(generator.device),
    }
    if getattr(generator, "classifier", None) is not None:
        weighted: dict[str, Any] = {"weights": "classifier", "condition": given}
        samples.append(Labelled("reweighted", generator.sample(n, seed=seed, **weighted)))
    return samples, facts


def _run(run: RunInfo) -> dict[str, Any]:
    return {
        "beams": list(run.beam_pdg_id),
        "beam_energy": list(run.beam_energy),
        "cross_section": finite_or_none(run.cross_section),
        "cross_section_error": finite_or_none(run.cross_section_error),
    }


def _hashes(source: EventSample | Files | None) -> dict[str, str]:
    if source is None or isinstance(source, EventSample):
        return {}
    from hepgen_ml.events.formats import expand

    paths = expand([source] if isinstance(source, str | Path) else source)
    return {str(path): file_hash(path) for path in paths}


def _warnings(truth: EventSample | Files, judged: JudgedModel | None) -> list[str]:
    """Warnings that qualify the numbers of the report."""
    if judged is None or isinstance(truth, EventSample):
        return []
    trained = {Path(str(f)).name for f in judged.generator.facts.get("sample_files", [])}
    same = sorted(trained & {Path(name).name for name in _hashes(truth)})
    return [
        f"{name} has the name of a file that the model was trained on: truth has to be events "
        "that training never saw, because overfitting is invisible otherwise"
        for name in same
    ]


def _check_target(out: Path, force: bool) -> None:
    if os.path.islink(out) and not force:
        raise OutputError(
            "is a link", path=out, remedy="name what it points to, or add --force to replace it"
        )
    with naming(out):
        if not out.exists():
            return
        names = os.listdir(out) if out.is_dir() else None
    if names is None or (names and METRICS not in names):
        raise OutputError("exists and is not a report", path=out, remedy="choose another --out")
    if names and not force:
        raise OutputError("holds a report already", path=out, remedy="add --force to replace it")


def _write(
    out: Path,
    force: bool,
    found: Measurements,
    metrics: dict[str, Any],
    history: dict[str, FloatArray] | None,
    watch: Stopwatch,
    tell: Progress,
) -> None:
    """Write the report to a temporary directory and move it to its place when it is complete."""
    with naming(out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with PartialFile(out, force=force, directory=True) as partial, naming(out):
        place = partial.place
        (place / FIGURES).mkdir(parents=True)
        drawn: list[ReportFigure] = []
        for figure in draw(found, history):
            names = [place / FIGURES / f"{figure.name}{suffix}" for suffix in (".png", ".pdf")]
            save(figure.figure, *names)
            drawn.append(figure)
            tell("draw", len(drawn), None, {})
        watch("page")
        images = {f.name: (place / FIGURES / f"{f.name}.png").read_bytes() for f in drawn}
        watch(None)
        metrics["timing"] = finite(watch.seconds)
        metrics["figures"] = [f.name for f in drawn]
        captions = [(f.section, f.name, f.caption) for f in drawn]
        write_text(place / PAGE, page(metrics, captions, images))
        write_json(place / METRICS, metrics)
        _check_target(out, force)
        partial.commit()


def _tell_model(judged: JudgedModel, metrics: dict[str, Any]) -> None:
    """Write the summary to the model directory, except for models of the package."""
    provenance = metrics["provenance"]
    summary = {
        "format": FORMAT,
        "version": VERSION,
        "date": provenance["date"],
        "truth": {"events": metrics["truth"]["events"], "files": provenance["truth_files"]},
        "generated": metrics["generated"],
        **metrics["summary"],
    }
    try:
        judged.keep(summary)
    except (OutputError, ModelError) as error:
        log.warning("the model card was not updated: %s", error)
