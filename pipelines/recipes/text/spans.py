"""Labels that are spans: their one form, and what cannot be learned from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.problems.tagging import labelled
from pipelines.recipes.text.split import check_known

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.recipes.text.split import Texts


def span_labels(task: Texts, label: pd.Series[Any]) -> pd.Series[Any]:
    """The spans of each row as JSON, by place.

    Raises:
        PlatformError: a row has something else.
    """
    import pandas as pd

    made = []
    for row, value in enumerate(label.fillna("").astype(str), 1):
        try:
            made.append(json.dumps(labelled(value)))
        except ValueError as err:
            raise PlatformError(
                f"row {row}: {task.label} is no list of spans",
                detail=str(err)[:200],
                fix='write [[start, end, "TYPE"], ...], or data.tagged for files with a token and its tag on each line',
                code="bad_label",
                row=row,
            ) from err
    return pd.Series(made, index=label.index, dtype=object)


def check_spans(task: Texts, parts: Mapping[str, pd.DataFrame]) -> None:
    """Refuse spans that end beyond their text, and types that the training part does not have.

    Raises:
        PlatformError: naming the row's id, or the type.
    """
    kinds: dict[str, set[str]] = {}
    for part, rows in parts.items():
        kinds[part] = set()
        for name, value, *fields in zip(rows["id"], rows["label"], *(rows[each] for each in task.fields), strict=True):
            spans = labelled(value)
            kinds[part].update(kind for _, _, kind in spans)
            size = len("\n".join(text for text in fields if text))
            if beyond := [span for span in spans if span[1] > size]:
                raise PlatformError(
                    f"row {name!r}: a span ends at {beyond[0][1]}, and the text has {size} characters",
                    fix="count characters of the text as it is in the file, from 0",
                    code="bad_label",
                    row=name,
                )
    if not kinds["train"]:
        raise PlatformError(
            f"no text of the training part has a span in {task.label}",
            fix=f"give more {task.texts}, or map the columns: --set data.columns.{task.label}=NAME",
            code="bad_data",
        )
    check_known(kinds, "type", "types", lambda one: "give more rows of it")
