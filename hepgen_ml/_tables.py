"""Tables of ``hepgen-ml info``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hepgen_ml._console import cross_section, stdout_console

MAX_ROWS = 40
_NUMBERS = {"events", "fraction", "weight fraction", "cross section", "error"}
_STRATEGIES = {3: "unit weights", 4: "the mean weight is the cross section"}


def show(path: Path, found: Mapping[str, Any]) -> None:
    """Print what `info` found about a sample or a model."""
    console = stdout_console()
    if "final_state_particles" in found:
        _show_sample(console, path, found)
    else:
        _show_nested(console, str(path), found)


def _show_sample(console: Console, path: Path, found: Mapping[str, Any]) -> None:
    weights, n = found["weights"], found["events"]
    facts = _two_columns(str(path))
    beams = " on ".join(f"{b['name']} {b['energy']:g} GeV" for b in found["beams"])
    facts.add_row("format", found["format"])
    skipped = found["skipped_events"]
    facts.add_row("events", f"{n:,}" + (f" ({skipped:,} bad ones left out)" if skipped else ""))
    facts.add_row("beams", beams)
    facts.add_row(
        "cross section", cross_section(found["cross_section"], found["cross_section_error"])
    )
    if len(found["processes"]) > 1:
        for process in found["processes"]:
            value = cross_section(process["cross_section"], process["cross_section_error"])
            facts.add_row(f"  process {process['process_id']}", value)
    for generator in found["generators"]:
        facts.add_row("generator", f"{generator['name']} {generator['version']}".strip())
    meaning = _STRATEGIES.get(abs(weights["strategy"]))
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
        console.print(f"{found['events_without_subprocess']:,} events belong to no row above")


def _show_nested(console: Console, title: str, found: Mapping[str, Any]) -> None:
    """Any dictionary: plain values in one table, lists of records in tables of their own."""
    facts = _two_columns(title)
    tables: list[tuple[str, list[Mapping[str, Any]]]] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix} {key}".strip(), inner)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            tables.append((prefix, list(value)))
        else:
            facts.add_row(Text(prefix.replace("_", " ")), Text(_plain(value)))

    walk("", found)
    console.print(facts)
    for name, records in tables:
        header = tuple(dict.fromkeys(key for record in records for key in record))
        rows = [tuple(_plain(record.get(key, "")) for key in header) for record in records]
        console.print(name.replace("_", " "), style="bold")
        _print_table(console, tuple(key.replace("_", " ") for key in header), rows)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _two_columns(title: str) -> Table:
    table = Table(
        title=Text(title, style="bold"), title_justify="left", show_header=False, box=None
    )
    table.add_column(style="cyan")
    table.add_column()
    return table


def _print_table(
    console: Console, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]
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
