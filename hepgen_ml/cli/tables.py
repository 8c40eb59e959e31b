"""Tables of ``hepgen-ml info``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hepgen_ml.cli.console import stdout_console
from hepgen_ml.cli.quantities import cross_section

MAX_ROWS = 40
_NUMBERS = {"events", "fraction", "weight fraction", "colour and helicity patterns", "R(n+1)/n"}
_UNDERSTOOD = {"auxiliary_fractions", "not_learned", "beam_exchange", "reflection",
               "unseen_structures"}  # fmt: skip
"""Facts about a training that the table states in sentences."""

_SHOWN = {"parameters"}
"""Facts that are in another row."""

_CLOSE = 0.1
"""Relative difference of the mean weight and the cross section up to which they are the same."""


def show(path: Path, found: Mapping[str, Any]) -> None:
    """Print what `info` found about a sample or a model."""
    console = stdout_console()
    if "final_state_particles" in found:
        _show_sample(console, path, found)
    else:
        _show_model(console, path, found)


def _show_sample(console: Console, path: Path, found: Mapping[str, Any]) -> None:
    weights, n = found["weights"], found["events"]
    facts = two_columns(str(path))
    beams = " on ".join(f"{b['name']} {b['energy']:g} GeV" for b in found["beams"])
    if not any(b["energy"] for b in found["beams"]):
        beams = "not known"
    facts.add_row("format", found["format"])
    notes = {"bad": found["skipped_events"], "unselected": found["unselected_events"]}
    left_out = ", ".join(f"{count:,} {kind}" for kind, count in notes.items() if count)
    facts.add_row("events", f"{n:,}" + (f" ({left_out} ones left out)" if left_out else ""))
    facts.add_row("beams", beams)
    facts.add_row(
        "cross section", cross_section(found["cross_section"], found["cross_section_error"])
    )
    if found["unselected_events"]:
        part = found["selected_fraction"]
        sigma, error = (
            None if found[key] is None else part * found[key]
            for key in ("cross_section", "cross_section_error")
        )
        value = cross_section(sigma, error)
        facts.add_row("  selected", f"{value} ({100 * part:.4g} %)")
    if len(found["processes"]) > 1:
        for process in found["processes"]:
            value = cross_section(process["cross_section"], process["cross_section_error"])
            facts.add_row(f"  process {process['process_id']}", value)
    for generator in found["generators"]:
        facts.add_row("generator", f"{generator['name']} {generator['version']}".strip())
    meaning = _meaning(weights, found["cross_section"])
    facts.add_row("weight strategy", str(weights["strategy"]) + (f", {meaning}" if meaning else ""))
    facts.add_row(
        "weights",
        f"mean {weights['mean']:.6g}, from {weights['minimum']:.6g} to {weights['maximum']:.6g}, "
        f"{weights['negative_events']:,} negative, {weights['effective_events']:,.0f} effective",
    )
    if weights["named"]:
        names = weights["named"]
        more = f" … ({len(names)})" if len(names) > 5 else ""
        facts.add_row("named weights", ", ".join(names[:5]) + more)
    console.print(facts)
    for name, counts in found["objects"].items():
        _print_table(console, (name, "events", "fraction", "R(n+1)/n"), _rates(counts, n))
    if found["objects"]:
        return
    rows = [(key, f"{v:,}", f"{v / n:.4f}") for key, v in found["final_state_particles"].items()]
    _print_table(console, ("final-state particles", "events", "fraction"), rows)
    subprocesses = found["subprocesses"]
    with_resonances = any(s["intermediate"] for s in subprocesses)
    lines = []
    for one in subprocesses:
        line = [one["name"], f"{one['events']:,}", f"{one['weight_fraction']:.4f}"]
        lines.append(tuple(line + [" ".join(one["intermediate_names"])] * with_resonances))
    header = ("subprocess", "events", "weight fraction")
    _print_table(console, (*header, "intermediate") if with_resonances else header, lines)
    if found["events_without_subprocess"]:
        console.print(f"{found['events_without_subprocess']:,} events without such a row")


def _meaning(weights: Mapping[str, Any], sigma: float | None) -> str:
    """Description of the weights by the weight strategy."""
    strategy = abs(weights["strategy"])
    if strategy == 3:
        unit = weights["minimum"] in (1.0, -1.0) and weights["maximum"] == 1.0
        return "unit weights" if unit else "weights of which only the sign counts"
    if strategy != 4:
        return ""
    # HepMC3 and ROOT files, and their generators, may give weights any scale.
    if sigma is not None and abs(weights["mean"] - sigma) > _CLOSE * abs(sigma):
        return "weights of any scale, whose sum corresponds to the cross section"
    return "the mean weight is the cross section"


def _rates(counts: Mapping[str, int], n: int) -> Sequence[tuple[str, ...]]:
    """Rows of numbers of objects with the ratio of rates to the next number and its error."""
    rows = []
    for key, count in counts.items():
        more = counts.get(str(int(key) + 1), 0)
        ratio = ""
        if count and more:
            error = more / count * (1 / more + 1 / count) ** 0.5
            ratio = f"{more / count:.4f} ± {error:.4f}"
        rows.append((key, f"{count:,}", f"{count / n:.4f}", ratio))
    return rows


def _fraction(value: float) -> str:
    """With four decimals, or two digits where these say nothing."""
    return f"{value:.4f}" if value >= 1e-3 else f"{value:.2g}"


def _show_model(console: Console, path: Path, found: Mapping[str, Any]) -> None:
    facts = two_columns(str(path))
    facts.add_row("model", f"{found['model']}, {found['parameters']:,} parameters")
    facts.add_row(
        "cross section", cross_section(found["cross_section"], found["cross_section_error"])
    )
    for subject, text in found["understood"]:
        facts.add_row(subject, Text(text))
    for key, value in found["training"].items():
        if key == "acceptance":
            if value:
                facts.add_row(key, _acceptance(value))
        elif key not in _UNDERSTOOD | _SHOWN:
            facts.add_row(key.replace("_", " "), Text(_plain(value)))
    console.print(facts)
    subprocesses = sorted(found["subprocesses"], key=lambda s: -s["frequency"])
    columns = ["subprocess", "fraction", "colour and helicity patterns"]
    if all(s["patterns"] == 1 for s in subprocesses):  # as of reconstructed objects
        del columns[2:]
    rows = [
        (s["name"], _fraction(s["frequency"]), str(s["patterns"]))[: len(columns)]
        for s in subprocesses
    ]
    _print_table(console, columns, rows)
    variations = found["weight_variations"]
    shown = sorted(variations, key=lambda w: -w.get("median_error", 0.0))[:MAX_ROWS]
    errors = ("median_error", "largest_error")
    lines = [
        (
            w["name"],
            f"{w['cross_section']:.5f}",
            *(f"{100 * w[key]:.2g} %" if key in w else "exact" for key in errors),
        )
        for w in variations
        if w in shown
    ]
    header = ("named weight", "cross section over nominal", "error (median)", "error (99 %)")
    _print_table(console, header, lines)
    if len(variations) > MAX_ROWS:
        console.print(f"the {MAX_ROWS} least certain of {len(variations)} named weights")


def show_understanding(sentences: Sequence[Sequence[str]]) -> None:
    """Print how a training interpreted its sample, one line for each subject."""
    table = two_columns("understood")
    for subject, text in sentences:
        table.add_row(subject, Text(text))
    stdout_console().print(table)


def _acceptance(of_channels: Sequence[float]) -> str:
    """Fraction of the draws inside the cuts, in the channel with the least and the most."""
    low, high = (f"{100 * bound(of_channels):.4g} %" for bound in (min, max))
    where = "of the draws are inside the cuts"
    return f"{low} {where}" if low == high else f"{low} to {high} {where}, by channel"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def two_columns(title: str) -> Table:
    """Table of names and descriptions."""
    table = Table(
        title=Text(title, style="bold"), title_justify="left", show_header=False, box=None
    )
    table.add_column(style="cyan")
    table.add_column()
    return table


def _print_table(
    console: Console, header: Sequence[str], rows: Sequence[tuple[str, ...]]
) -> None:
    if not rows:
        return
    from rich.box import SIMPLE_HEAD

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=number == 0)
    for row in rows[:MAX_ROWS]:
        table.add_row(*map(Text, row))
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"… and {len(rows) - MAX_ROWS:,} more (all with --json)")
