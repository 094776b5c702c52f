"""Rows that a run leaves out: how many, why, where, and which classes lose more of theirs than chance explains.

One document, ``left_out``, travels in the artifacts (report.json, dataset.json, evaluation.json), so that steps from
the cache lose nothing: rows_read, rows_left_out, groups (step, reason, rows, where) and classes (step, class, rows,
left_out, others, others_left_out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task

_LEVEL = 0.05  # of a false alarm about any of the classes of a step
_SHOWN = 3  # reasons in one line


def document(read: int, groups: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The document of one step."""
    kept = [dict(group) for group in groups if group["rows"]]
    return {
        "rows_read": read,
        "rows_left_out": sum(group["rows"] for group in kept),
        "groups": kept,
        "classes": [dict(each) for each in classes],
    }


def joined(first: Mapping[str, Any] | None, then: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a step after that of an earlier one, whose rows it got; None: the earlier one says nothing."""
    if not first:
        return dict(then)
    both = {key: [*first[key], *then[key]] for key in ("groups", "classes")}
    return document(first["rows_read"], **both)


def losers(step: str, rows: Mapping[str, int], lost: Mapping[str, int]) -> list[dict[str, Any]]:
    """Classes that lost a larger share than the other classes, beyond chance (Fisher's exact test, one-sided).

    `rows` and `lost` are numbers of rows by class; the level is divided by the number of classes (Bonferroni).
    """
    total, gone = sum(rows.values()), sum(lost.values())
    found = []
    for name in sorted(rows):
        if tail(total, rows[name], gone, lost.get(name, 0)) < _LEVEL / len(rows):
            each = {"rows": rows[name], "left_out": lost[name]}
            others = {"others": total - rows[name], "others_left_out": gone - lost[name]}
            found.append({"step": step, "class": name, **each, **others})
    return found


def tail(total: int, marked: int, drawn: int, hits: int) -> float:
    """The chance of `hits` or more marked ones among `drawn` of `total`, `marked` of which are marked."""
    most = min(marked, drawn)
    if hits <= marked * drawn / max(total, 1) or hits > most:
        return 1.0
    term = math.exp(_log_choose(marked, hits) + _log_choose(total - marked, drawn - hits) - _log_choose(total, drawn))
    chance = 0.0
    for at in range(hits, most + 1):  # terms fall from the expected number on
        chance += term
        term *= (marked - at) * (drawn - at) / ((at + 1) * (total - marked - drawn + at + 1))
        if term < chance * 1e-12:
            break
    return min(chance, 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def of_split(
    task: Task,
    frame: pd.DataFrame,
    frames: Mapping[str, pd.DataFrame],
    config: Any,
    classes: pd.Series[Any] | None,
) -> dict[str, Any]:
    """What the split left out of the clean rows `frame`; `classes` are their strata, of `Evaluation.strata`.

    A task may say why with ``left_out(frame, frames, config)``: a mask of the rows by reason. The first reason counts.
    """
    import numpy as np

    explain = getattr(task, "left_out", None)
    if explain is not None:
        reasons: Mapping[str, Any] = explain(frame, frames, config)
    else:
        used = {str(value) for part in frames.values() for value in part["id"]}
        reasons = {"left out by the task's split": ~frame[task.id].astype(str).isin(used)}
    gone = np.zeros(len(frame), dtype=bool)
    groups = []
    for reason, mask in reasons.items():
        new = np.asarray(mask, dtype=bool) & ~gone
        gone |= new
        groups.append({"step": "build_dataset", "reason": reason, "rows": int(new.sum()), "where": ""})
    found = [] if classes is None else losers("build_dataset", _counts(classes), _counts(classes[gone]))
    return document(len(frame), groups, found)


def _counts(labels: pd.Series[Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in labels.value_counts().items()}


def in_words(found: Mapping[str, Any], step: str = "") -> list[str]:
    """Lines for people about what was left out, of one step or of all; none when nothing was."""
    groups = [group for group in found["groups"] if step in ("", group["step"])]
    rows = sum(group["rows"] for group in groups)
    if not rows:
        return []
    why = "; ".join(f"{group['reason']} ({group['rows']:,})" for group in groups[:_SHOWN])
    more = f"; {len(groups) - _SHOWN} more reasons" if len(groups) > _SHOWN else ""
    where = next((f"; see {group['where']}" for group in groups if group["where"]), "")
    lines = [f"{rows:,} of {found['rows_read']:,} rows left out: {why}{more}{where}"]
    for each in found["classes"]:
        if step in ("", each["step"]):
            lines.append(
                f"class {each['class']} loses more than its share: {each['left_out']:,} of {each['rows']:,} rows "
                f"({each['left_out'] / each['rows']:.1%}), the others {each['others_left_out']:,} of "
                f"{each['others']:,} ({each['others_left_out'] / max(each['others'], 1):.1%})"
            )
    return lines


def as_table(found: Mapping[str, Any]) -> dict[str, Any]:
    """The groups as MLflow keeps tables."""
    columns = ["step", "reason", "rows", "where"]
    return {"columns": columns, "data": [[group[name] for name in columns] for group in found["groups"]]}
