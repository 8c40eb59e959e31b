"""Summary of a report and its meaning in sentences, for the first table and for model cards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SIGNIFICANT = 3.0
"""Standard deviations above which a difference is reported."""

VISIBLE, CLEAR = 0.55, 0.7
"""AUC above which samples are called visibly different, and clearly different."""


def summarize(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Compact summary of a report's numbers.

    Parameters
    ----------
    metrics : mapping
        Contents of ``metrics.json``.

    Returns
    -------
    dict
        ``final_states`` (one entry for each sample and final state), ``laws``, ``rates``.
    """
    states = [
        {"sample": sample["label"], **_state(sample, group)}
        for sample in metrics["samples"]
        for group in sample["comparison"]["groups"]
    ]
    judged = [law for law in metrics["laws"] if law["judged"]]
    frequencies = metrics["samples"][0]["comparison"]["frequencies"]
    return {
        "final_states": states,
        "laws": {
            "judged": len(judged),
            "broken": [law["name"] for law in judged if law["broken"]],
        },
        "rates": {
            kind: {
                "categories": f["categories"],
                "chi2_per_ndf": f["chi2"] / f["ndf"] if f["ndf"] else None,
                "worst": f["worst"],
                "worst_pull": f["worst_pull"],
                "worst_p_value": f["worst_p_value"],
            }
            for kind, f in frequencies.items()
        },
        "effective_events": {s["label"]: s["effective_events"] for s in metrics["samples"]},
    }


def _state(sample: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    tested = [(m["chi2"] / m["ndf"], name) for name, m in group["marginals"].items()]
    floors = [m["chi2_per_ndf_floor"] for m in group["marginals"].values()]
    largest, name = max(tested, default=(None, None))
    p_value = group["marginals"][name]["p_value"] if name else None
    correlated = sample["correlations"].get(group["final_state"], {})
    return {
        "final_state": group["final_state"],
        "n_truth": group["n_truth"],
        "n_generated": group["n_generated"],
        **{key: group[key] for key in ("auc", "auc_floor", "auc_full", "auc_full_floor")},
        "verdict": judged_by_area(max(group["auc"], group["auc_full"], key=lambda a: a["value"])),
        "largest_chi2_per_ndf": largest,
        "largest_chi2_observable": name,
        # the chance that the largest of so many independent ones is larger
        "largest_chi2_p_value": of_many(p_value, len(tested)),
        "largest_chi2_per_ndf_floor": max((f for f in floors if f is not None), default=None),
        "worst_correlation_pull": correlated.get("worst_pull"),
        "worst_correlation_pair": correlated.get("worst_pair"),
    }


def of_many(p_value: float | None, n: int) -> float | None:
    """Probability that the smallest of n independent p-values is smaller."""
    if p_value is None:
        return None
    return 1.0 if p_value >= 1 else -math.expm1(n * math.log1p(-p_value))


def p_text(p_value: float | None) -> str:
    """``p = 0.12``, or a bound if it rounds to zero."""
    if p_value is None:
        return "p unknown"
    return "p < 1e-12" if p_value < 1e-12 else f"p = {p_value:.2g}"


def judged_by_area(auc: Mapping[str, float]) -> str:
    """Verdict in words, from ``indistinguishable`` to ``clearly different``."""
    if auc["value"] - 0.5 < SIGNIFICANT * auc["error"]:
        return "indistinguishable"
    if auc["value"] < VISIBLE:
        return "hardly distinguishable"
    return "visibly different" if auc["value"] < CLEAR else "clearly different"


def plain_words(summary: Mapping[str, Any]) -> list[str]:
    """Sentences about the summary for readers who know the physics but not the tests."""
    sentences = []
    for s in summary["final_states"]:
        auc, floor = s["auc"], s["auc_floor"]
        sentences.append(
            f"{s['final_state']}, {s['sample']} events: {s['verdict']}. Boosted trees "
            f"separate them from truth with an area under the ROC curve of {auc['value']:.4f} ± "
            f"{auc['error']:.4f}; for truth against truth it is {floor['value']:.4f} ± "
            f"{floor['error']:.4f}."
        )
        p = s["largest_chi2_p_value"]
        if p is not None:
            rare = (
                "compatible with the largest statistical fluctuation of so many"
                if p > 0.01
                else "larger than statistical fluctuations explain"
            )
            sentences.append(
                f"{s['final_state']}, {s['sample']} events: the largest χ²/ndf of a marginal is "
                f"{s['largest_chi2_per_ndf']:.2f}, in {s['largest_chi2_observable']}; this is "
                f"{rare} ({p_text(p)})."
            )
    broken = summary["laws"]["broken"]
    sentences.append(
        f"Of {summary['laws']['judged']} laws of conservation and consistency, "
        + (f"these are broken: {', '.join(broken)}." if broken else "none is broken by any event.")
    )
    for kind, r in summary["rates"].items():
        expected = "expected" if (r["worst_p_value"] or 0) > 0.01 else "not expected"
        sentences.append(
            f"Frequencies of {counted(r['categories'], kind)}: the largest pull is "
            f"{r['worst_pull']:+z.1f} ({r['worst']}), {expected} among so many "
            f"({p_text(r['worst_p_value'])})."
        )
    return sentences


def counted(n: int, kind: str) -> str:
    """Number of categories of a kind (`hepgen_ml.analysis.frequencies`), in words."""
    one, many = _KINDS.get(kind, (kind, f"{kind} categories"))
    return f"{n} {one if n == 1 else many}"


_KINDS = {
    "final state": ("final state", "final states"),
    "subprocess": ("subprocess", "subprocesses"),
    "color flow": ("colour flow", "colour flows"),
    "helicity": ("helicity configuration", "helicity configurations"),
}
