"""The page of a report: one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hepgen_ml.validation.report_sections import CONTENTS, particles

SECTIONS = {
    "summary": "Summary",
    "marginals": "Marginal distributions",
    "correlations": "Correlations",
    "peaks": "Mass peaks",
    "rates": "Rates",
    "weights": "Named weights",
    "judge": "Classifier test",
    "laws": "Conservation laws",
    "training": "Training and generation",
    "provenance": "Provenance",
}

_STYLE = """
:root { --ink: #1d2329; --soft: #5b6670; --line: #dde3e8; --accent: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 17px/1.55 "Helvetica Neue", Helvetica, Arial, "DejaVu Sans", sans-serif; }
header { padding: 2.2rem 0 1.6rem; border-bottom: 4px solid var(--accent); }
header, main, nav ul { max-width: 1180px; margin: 0 auto; padding-left: 28px;
  padding-right: 28px; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .3rem; font-weight: 600; }
h2 { font-size: 1.5rem; margin: 2.8rem 0 .8rem; padding-bottom: .25rem; font-weight: 600;
  border-bottom: 1px solid var(--line); scroll-margin-top: 3.2rem; }
h3 { font-size: 1.1rem; margin: 1.6rem 0 .5rem; font-weight: 600; }
header p { margin: 0; color: var(--soft); }
nav { position: sticky; top: 0; background: #fffffff2; border-bottom: 1px solid var(--line); }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; list-style: none; margin-top: 0;
  margin-bottom: 0; padding-top: .55rem; padding-bottom: .55rem; font-size: .93rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0 1.2rem; font-size: .93rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line);
  padding: .35rem .8rem .35rem 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: .35rem .8rem .35rem 0; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
.wide { overflow-x: auto; }
.soft { color: var(--soft); }
.badge { display: inline-block; border-radius: 1rem; padding: .05rem .7rem; font-size: .88rem;
  white-space: nowrap; border: 1.5px solid; }
.good { color: #00664b; border-color: #009E73; background: #e6f5f0; }
.fair { color: #7a5200; border-color: #E69F00; background: #fdf4e0; }
.poor { color: #8f3d00; border-color: #D55E00; background: #fbeadf; }
.warn { border-left: 5px solid #D55E00; background: #fbeadf; padding: .6rem 1rem; }
figure { margin: 1.4rem 0 2rem; }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .93rem; margin-top: .4rem; }
details { margin: .6rem 0 1.2rem; }
summary { cursor: pointer; color: var(--accent); }
code, pre { font: .88em/1.5 "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre { background: #f5f7f9; padding: .8rem 1rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.over { text-decoration: overline; }
sup { line-height: 0; font-size: .72em; }
footer { color: var(--soft); font-size: .88rem; padding: 2rem 0 3rem; }
@media print { nav { display: none; } figure, tr { break-inside: avoid; } }
"""

_INTRO = {
    "marginals": "Fractions of events per bin. Blue is the truth, orange the generated sample; "
    "bands are one standard deviation. χ²/ndf uses finer bins, which resolve peaks and tails, and "
    "does not depend on the figure: it is 1 for samples of the same density, with a spread of "
    "about 0.2.",
    "correlations": "Rank correlations of pairs of observables, and their differences divided by "
    "the statistical error. For samples of the same density one of twenty is beyond 2.",
    "peaks": "Position and width of a Breit-Wigner shape on a straight line, in the same window "
    "for both samples.",
    "rates": "Frequencies of final states, subprocesses, colour flows and helicities. Pulls are "
    "differences divided by the errors of truth and generated events; the frequencies of a model "
    "are those of its training sample, whose statistical error comes in addition.",
    "weights": "Weights that truth and generated events have both. σ/σ₀ is the cross section over "
    "the nominal one; the χ² is the largest of all distributions filled with the weight, beside "
    "that of the same distribution with the nominal weight. Errors of ratios to the nominal weight "
    "(median) and pulls are those of predictions for the events of truth.",
    "judge": "Boosted trees are trained on one half of the events to separate generated events "
    "from truth, and evaluated on the other. An area under the ROC curve of 0.5 means that they "
    "cannot separate them. D/(1 − D), where D is the estimated probability of truth, is the ratio "
    "of the densities of truth and generator at an event.",
    "laws": "Every generated event is tested for the laws that hold exactly in nature or in the "
    "format.",
}


def page(
    metrics: Mapping[str, Any],
    captions: Sequence[tuple[str, str, str]],
    images: Mapping[str, bytes],
) -> str:
    """Write the page.

    Parameters
    ----------
    metrics : mapping
        Contents of ``metrics.json``; the only source of numbers.
    captions : sequence of (section, name, caption)
        Captions of the figures.
    images : mapping of name to PNG

    Returns
    -------
    str
        HTML with embedded images, without scripts and external resources.
    """
    content = {key: CONTENTS[key](metrics) for key in SECTIONS}
    body, links = [], []
    for key, title in SECTIONS.items():
        figures = [_figure(name, text, images[name]) for s, name, text in captions if s == key]
        if not content[key] and not figures:
            continue
        links.append(f'<li><a href="#{key}">{title}</a></li>')
        intro = f"<p>{_INTRO[key]}</p>" if key in _INTRO else ""
        # numbers come first where they are the message, else they follow the pictures
        inside = [*figures, content[key]] if key == "marginals" else [content[key], *figures]
        body.append(f'<section><h2 id="{key}">{title}</h2>{intro}{"".join(inside)}</section>')
    title = _title(metrics)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<header><h1>{particles(title)}</h1><p>{_subtitle(metrics)}</p></header>\n"
        f"<nav><ul>{''.join(links)}</ul></nav>\n<main>\n{chr(10).join(body)}\n"
        f"<footer>Written by hepgen-ml {escape(_version(metrics))}. All numbers are in "
        "<code>metrics.json</code>, all figures also as PDF.</footer>\n</main></body></html>\n"
    )


def _title(metrics: Mapping[str, Any]) -> str:
    states = [g["final_state"] for g in metrics["samples"][0]["comparison"]["groups"]]
    more = f" and {len(states) - 4} more final states" if len(states) > 4 else ""
    energy = sum(metrics["truth"]["beam_energy"]) / 1000
    at = f" at {energy:.4g} TeV" if energy > 0 else ""
    return f"Generated events against truth: {', '.join(states[:4])}{more}{at}"


def _subtitle(metrics: Mapping[str, Any]) -> str:
    provenance = metrics["provenance"]
    parts = [
        f"{metrics['generated']['events']:,} generated, {metrics['truth']['events']:,} held-out "
        "events",
        f"model {provenance['model']} ({provenance['config']['model']})"
        if "model" in provenance
        else "a file of events",
        provenance["date"][:10],
    ]
    return " · ".join(escape(p) for p in parts)


def _version(metrics: Mapping[str, Any]) -> str:
    return str(metrics["provenance"]["packages"].get("hepgen-ml", ""))


def _figure(name: str, caption: str, image: bytes) -> str:
    data = base64.b64encode(image).decode("ascii")
    return (
        f'<figure id="{name}"><img alt="{escape(caption, quote=True)}" '
        f'src="data:image/png;base64,{data}"/><figcaption>{particles(caption)}</figcaption>'
        "</figure>"
    )
