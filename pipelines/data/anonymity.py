"""How well people hide among each other in a file that is to be given away: k-anonymity and l-diversity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contracts.errors import PlatformError
from pipelines.data.chunks import empty, text_format
from pipelines.data.origins import source_here
from pipelines.data.sources import column_names, list_files, read_chunks
from pipelines.task import DataConfig

FEW = 5  # rows of a group that is told


def measure(source: str, by: Sequence[str], secret: str, data: DataConfig) -> dict[str, Any]:
    """k and l of all rows of `source`, read by `data` (Sweeney 2002; Machanavajjhala 2007, distinct values).

    Args:
        by: columns by which others may know somebody, such as age and place.
        secret: column that they are to learn nothing of; "" for none.

    Returns:
        rows, groups (of rows that are alike in `by`), k (rows of the smallest), alone (rows that are a group of
        their own), few (rows in groups of fewer than `FEW`) and, with `secret`, l (fewest different values in a group)
        and same (rows in groups that have one value only).

    Raises:
        PlatformError: the source cannot be read, or lacks a column.
    """
    import pandas as pd

    wanted = list(dict.fromkeys([*by, secret] if secret else by))
    form, frames = text_format(data), []
    with source_here(source) as here:
        for path in list_files(here):
            names = column_names(path, form)
            if lacking := [name for name in wanted if name not in names]:
                raise PlatformError(
                    f"{path.name} has no column {lacking[0]!r}",
                    detail=f"columns there: {', '.join(names[:40])}",
                    fix="name columns of the file",
                    code="bad_schema",
                    column=lacking[0],
                )
            frames += [chunk.table.select(wanted).to_pandas() for chunk in read_chunks(path, names, form)]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if not len(frame):
        raise empty(source)
    groups = frame.groupby(list(by), dropna=False, sort=False)
    sizes = groups.size()
    found = {
        "rows": len(frame),
        "groups": len(sizes),
        "k": int(sizes.min()),
        "alone": int((sizes == 1).sum()),
        "few": int(sizes[sizes < FEW].sum()),
    }
    if secret:
        kinds = groups[secret].nunique(dropna=False)
        found |= {"l": int(kinds.min()), "same": int(sizes[kinds == 1].sum())}
    return found
