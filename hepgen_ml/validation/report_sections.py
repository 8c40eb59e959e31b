"""Tables and text of a report's sections, as HTML; all numbers come from its metrics."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from hepgen_ml.validation.verdict import counted, p_text, plain_words

Metrics = Mapping[str, Any]

_MOST_WEIGHTS = 12
"""Named weights in the table; all are among the numbers."""


def particles(text: str) -> str:
    """HTML of plain names of particles: ``t~`` with a bar, charges raised.

    Examples
    --------
    >>> particles("t~ mu+")
    '<span class="over">t</span> μ<sup>+</sup>'
    """
    text = escape(text)
    text = re.sub(r"\bmu(?=[+-])", "μ", text)
    text = re.sub(r"\btau(?=[+-])", "τ", text)
    text = re.sub(r"\b(\w+)~", r'<span class="over">\1</span>', text)
    return re.sub(
        r"(?<=[A-Za-zμτ])([+-])(?=[\s,:;\])]|$)",
        lambda m: f"<sup>{'+' if m[1] == '+' else '−'}</sup>",
        text,
    )


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form).replace("-", "−")


def _area(auc: Mapping[str, Any]) -> str:
    return f"{_number(auc['value'], '.4f')} ± {_number(auc['error'], '.4f')}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    """Table whose cells are HTML; columns from `numbers_from` on are aligned right."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="n"' if i >= numbers_from else "" for i in range(len(cells))]
        parts = [f"<{tag}{k}>{cell}</{tag}>" for k, cell in zip(kinds, cells, strict=True)]
        return f"<tr>{''.join(parts)}</tr>"

    inside = "".join(row(cells, "td") for cells in rows)
    return (
        f'<div class="wide"><table><thead>{row(head, "th")}</thead>'
        f"<tbody>{inside}</tbody></table></div>"
    )


def _details(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>"


def _badge(verdict: str) -> str:
    kind = {"indistinguishable": "good", "hardly distinguishable": "fair"}.get(verdict, "poor")
    return f'<span class="badge {kind}">{verdict}</span>'


def _summary(metrics: Mapping[str, Any]) -> str:
    summary = metrics["summary"]
    warnings = "".join(f'<p class="warn">{escape(w)}.</p>' for w in metrics["warnings"])
    several = len(metrics["samples"]) > 1
    rows = []
    for s in summary["final_states"]:
        name = particles(s["final_state"]) + (f", {s['sample']}" if several else "")
        worst = s["largest_chi2_observable"]
        rows.append([
            name,
            _badge(s["verdict"]),
            f"{s['n_generated']:,}",
            _area(s["auc"]),
            _area(s["auc_full"]),
            f'<span class="soft">{_area(s["auc_floor"])}</span>',
            f"{_number(s['largest_chi2_per_ndf'])} "
            f"<span class=\"soft\">{particles(worst or '')}</span>",
            f'<span class="soft">{_number(s["largest_chi2_per_ndf_floor"])}</span>',
            p_text(s["largest_chi2_p_value"]).removeprefix("p = "),
        ])  # fmt: skip
    head = ["final state", "verdict", "events", "AUC, kinematics", "AUC, all inputs",
            "AUC of truth", "largest χ²/ndf", "of truth", "p"]  # fmt: skip
    table = _table(head, rows, numbers_from=2)
    more = [_law_line(summary["laws"]), *_rate_lines(summary["rates"])]
    if several:
        for label, n in summary["effective_events"].items():
            more.append([f"effective sample size, {label}", f"{n:,.0f} events",
                         "(Σw)²/Σw²"])  # fmt: skip
    truth, made = metrics["truth"], metrics["generated"]
    if made["cross_section"] is not None:
        more.append(["cross section", _cross_section(made), f"truth: {_cross_section(truth)}"])
    words = "".join(f"<li>{particles(sentence)}</li>" for sentence in plain_words(summary))
    return (
        f"{warnings}{table}{_table(['', '', ''], more, 9)}"
        f"<h3>In words</h3><ul>{words}</ul>"
        '<p class="soft">AUC: area under the ROC curve of boosted trees between generated events '
        "and truth: 0.5 if they cannot separate them, 1 if they always can; “of truth” is the same "
        "test between two halves of truth, the lowest value to expect. A verdict is "
        "“indistinguishable” where the area is less than three of its errors above 0.5, “hardly” "
        "below 0.55, “clearly different” from 0.7 on. p: probability that the largest of so many "
        "χ² is as large by chance.</p>"
    )


def _law_line(laws: Mapping[str, Any]) -> list[str]:
    broken = laws["broken"]
    kind, text = ("poor", f"broken: {', '.join(broken)}") if broken else ("good", "none broken")
    return [
        "conservation laws",
        f'<span class="badge {kind}">{escape(text)}</span>',
        f"{laws['judged']} tested in every event",
    ]


def _rate_lines(rates: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            f"rates: {counted(r['categories'], kind)}",
            f"largest pull {_number(r['worst_pull'], '+z.1f')} "
            f'<span class="soft">({p_text(r["worst_p_value"])})</span>',
            f"{particles(r['worst'])}; χ²/ndf {_number(r['chi2_per_ndf'])}",
        ]
        for kind, r in rates.items()
    ]


def _cross_section(run: Mapping[str, Any]) -> str:
    sigma, error = run["cross_section"], run["cross_section_error"]
    if sigma is None:
        return "unknown"
    return f"{sigma:.6g} pb" if error is None else f"{sigma:.6g} ± {error:.2g} pb"


def _marginals(metrics: Metrics) -> str:
    tables = []
    for sample in metrics["samples"]:
        for group in sample["comparison"]["groups"]:
            rows = [
                [
                    f"<code>{escape(name)}</code>",
                    _number(m["chi2"], ".1f"),
                    str(m["ndf"]),
                    _number(m["chi2"] / m["ndf"]),
                    _number(m["p_value"], ".3g"),
                    _number(m["chi2_per_ndf_floor"]),
                ]
                for name, m in group["marginals"].items()
            ]
            head = ["observable", "χ²", "ndf", "χ²/ndf", "p", "χ²/ndf of truth"]
            title = f"χ² of {particles(group['final_state'])}, {sample['label']} events"
            tables.append(_details(title, _table(head, rows)))
    left_out = metrics["samples"][0]["comparison"]["left_out"]
    if left_out:
        tables.append(f"<p>{left_out:.2%} of the truth is in final states too rare to compare.</p>")
    return "".join(tables)


def _correlations(metrics: Metrics) -> str:
    rows = []
    for sample in metrics["samples"]:
        for name, c in sample["correlations"].items():
            pair = ", ".join(f"<code>{escape(o)}</code>" for o in c["worst_pair"])
            pulls = _number(c["rms_pull"]), _number(c["worst_pull"], "+z.1f")
            rows.append(
                [particles(name), sample["label"], str(len(c["observables"])), *pulls, pair]
            )
    if not rows:
        return ""
    head = ["final state", "events", "observables", "rms pull", "largest pull", "of"]
    return _table(head, rows, numbers_from=2)


def _peaks(metrics: Metrics) -> str:
    rows = []
    labels = ["truth", *(s["label"] for s in metrics["samples"])]
    for name, peak in metrics["peaks"].items():
        for label, fit in zip(labels, peak["fits"], strict=True):
            if fit is None:
                rows.append([particles(name), label, "no fit", "", ""])
                continue
            rows.append([
                particles(name),
                label,
                f"{fit['position']:.4f} ± {fit['position_error']:.4f}",
                f"{fit['width']:.4f} ± {fit['width_error']:.4f}",
                _number(fit["chi2"] / fit["ndf"]),
            ])  # fmt: skip
    if not rows:
        return ""
    head = ["resonance", "events", "position [GeV]", "width [GeV]", "χ²/ndf of the fit"]
    return _table(head, rows, numbers_from=2)


def _rates(metrics: Metrics) -> str:
    tables = []
    for kind, rows in metrics["rates"].items():
        name = counted(1, kind).removeprefix("1 ")
        head = [name, "truth", "generated", "model uncertainty", "pull"]
        cells = [
            [
                particles(r["name"]),
                f"{r['truth']:.5f} ± {r['truth_error']:.5f}",
                f"{r['generated']:.5f} ± {r['generated_error']:.5f}",
                _number(r["model_error"], ".5f"),
                _number(r["pull"], "+z.2f"),
            ]
            for r in rows
        ]
        tables.append(_details(counted(len(rows), kind), _table(head, cells)))
    return "".join(tables)


def _weights(metrics: Metrics) -> str:
    """The named weights whose distributions are furthest from truth."""
    found = metrics.get("weight_variations", [])
    shown = sorted(found, key=lambda w: -(w["chi2_per_ndf"] or 0.0))[:_MOST_WEIGHTS]
    rows = [
        [
            escape(w["name"]),
            f"{w['truth']:.5f} ± {w['truth_error']:.5f}",
            f"{w['generated']:.5f} ± {w['generated_error']:.5f}",
            _number(w["pull"], "+z.2f"),
            _number(w["chi2_per_ndf"]),
            f'<span class="soft">{_number(w["chi2_per_ndf_nominal"])}</span>',
            particles(w["observable"] or ""),
            _number(w.get("median_error"), ".2%"),
            _number(w.get("pull_width")),
        ]
        for w in shown
    ]
    head = ["weight", "σ/σ₀, truth", "σ/σ₀, generated", "pull", "largest χ²/ndf", "nominal", "of",
            "error of ratios", "width of pulls"]  # fmt: skip
    more = f"<p>The {len(shown)} worst of {len(found)}.</p>" if len(found) > len(shown) else ""
    return _table(head, rows) + more if rows else ""


def _judge(metrics: Metrics) -> str:
    rows = []
    for sample in metrics["samples"]:
        for g in sample["comparison"]["groups"]:
            for key, inputs in (("auc", "kinematics"), ("auc_full", "and flavours, helicities, "
                                                        "colours")):  # fmt: skip
                rows.append([particles(g["final_state"]), sample["label"], inputs, _area(g[key]),
                             _area(g[f"{key}_floor"]),
                             f"{g[key]['events_per_sample']:,}"])  # fmt: skip
    head = ["final state", "events", "inputs", "AUC", "AUC of truth", "events per sample"]
    return _table(head, rows, numbers_from=3)


def _laws(metrics: Metrics) -> str:
    rows = []
    for law in metrics["laws"]:
        kind = "poor" if law["broken"] else "good" if law["judged"] else "fair"
        text = "broken" if law["broken"] else "holds" if law["judged"] else "not tested"
        rows.append([escape(law["name"]), f'<span class="badge {kind}">{text}</span>',
                     escape(law["text"])])  # fmt: skip
    return _table(["law", "", ""], rows, numbers_from=9)


def _training(metrics: Metrics) -> str:
    made, provenance = metrics["generated"], metrics["provenance"]
    rows = []
    if "events_per_second" in made:
        draws = made["posterior_draws"]
        rate = f"{made['events_per_second']:,.0f} events/s on {made['device']}"
        inside = f"{_number(made['acceptance'], '.4%')} of the network’s draws are inside the cuts"
        rows += [
            ["generation", rate + (f" with {draws} posterior draws" if draws else "")],
            ["acceptance", inside],
        ]
    facts = provenance.get("training", {})
    names = {
        "events": "training events",
        "steps": "steps",
        "training_seconds": "seconds of training",
        "validation_loss": "validation loss",
        "parameters": "parameters",
    }
    for key, text in names.items():
        if key in facts:
            value = facts[key]
            shown = f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
            rows.append([text, shown])
    stages = [
        [name, f"{t['seconds']:.1f}", f"{t['cpu_seconds']:.1f}"]
        for name, t in metrics["timing"].items()
    ]
    timing = _table(["stage of this report", "seconds", "processor seconds"], stages)
    return (_table(["", ""], rows, 9) if rows else "") + _details("Time for this report", timing)


def _provenance(metrics: Metrics) -> str:
    p = metrics["provenance"]
    rows = [["date", p["date"]], ["seed", str(p["seed"])]]
    if p["command"]:
        rows.append(["command", f"<code>{escape(shlex.join(p['command']))}</code>"])
    for what in ("truth_files", "generated_files", "model_files"):
        for name, digest in p.get(what, {}).items():
            text = f"<code>{escape(name)}</code>, SHA-256 <code>{digest}</code>"
            rows.append([what.replace("_", " ").removesuffix("s"), text])
    rows.append(["packages", escape(", ".join(f"{k} {v}" for k, v in p["packages"].items()))])
    rows += [[key, escape(str(p[key]))] for key in ("model", "parameters", "cuts") if key in p]
    more = "".join(
        _details(title, f"<pre>{escape(json.dumps(p[key], indent=1))}</pre>")
        for key, title in (("config", "Configuration"), ("training", "Training"))
        if key in p
    )
    return _table(["", ""], rows, 9) + more


CONTENTS: dict[str, Callable[[Metrics], str]] = {
    "summary": _summary,
    "marginals": _marginals,
    "correlations": _correlations,
    "peaks": _peaks,
    "rates": _rates,
    "weights": _weights,
    "judge": _judge,
    "laws": _laws,
    "training": _training,
    "provenance": _provenance,
}
"""HTML of each section; may be empty."""
