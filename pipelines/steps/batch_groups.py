"""Thresholds by group in a batch: the group of each row is joined from a table of its own, which nothing keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts import storage
from contracts.bundle import BundleDocument
from contracts.errors import PlatformError
from contracts.fairness import NOT_STATED
from pipelines.evaluation.group_cuts import moved

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "groups."  # of settings of a batch
TABLE, KEY = f"{PREFIX}table", f"{PREFIX}key"


def parted(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of how rows are read, and those of groups.

    Raises:
        PlatformError: ``code="bad_config"``: one of groups that there is not, or a key without a table.
    """
    own = {key: value for key, value in settings.items() if key.startswith(PREFIX)}
    if own and (set(own) - {TABLE, KEY} or not own.get(TABLE)):
        raise PlatformError(
            f"groups of a batch are said by {TABLE} and {KEY}",
            detail=f"given: {', '.join(sorted(own))}",
            fix=f"--set {TABLE}=people.csv --set {KEY}=id",
            code="bad_config",
        )
    return {key: value for key, value in settings.items() if key not in own}, own


class GroupCuts:
    """Of one batch: answers by the thresholds of the bundle, if the batch says its groups.

    Attributes:
        warnings: what a reader of the answers must know.
    """

    def __init__(self, document: BundleDocument, settings: Mapping[str, Any]) -> None:
        self._decision: Any = document.decision
        self._classes: list[str] = getattr(document.signature.output, "classes", [])
        self._by: Any = getattr(self._decision, "by_group", None)
        self._counts = Counter[str]()
        self._of: dict[str, str] | None = None
        self._key = str(settings.get(KEY, "id"))
        self.warnings: list[str] = []
        if settings and self._by is None:
            raise PlatformError(
                f"{document.name} has no thresholds by group",
                fix="score without groups.table, or train with mitigation.method=thresholds",
                code="bad_config",
            )
        if settings and self._by is not None:
            self._of = _read(str(settings[TABLE]), self._key, self._by.column)
        elif self._by is not None:
            self.warnings.append(
                f"the model has thresholds by {self._by.column}; these rows are answered by the common one, as "
                f"requests are: give --set {TABLE}=FILE"
            )

    def apply(self, table: pa.Table, answers: Any) -> Any:
        """The answers, with whose common threshold the right ones are chosen."""
        if self._of is None:
            return answers
        if self._key not in table.column_names:
            raise PlatformError(
                f"the rows have no column {self._key}, by which their groups are looked up",
                detail=f"columns: {', '.join(table.column_names)}",
                fix=f"name another one: --set {KEY}=COLUMN",
                code="unknown_column",
            )
        names = [self._of.get(str(value), NOT_STATED) for value in table.column(self._key).to_pylist()]
        self._counts.update(name if name in self._by.thresholds else NOT_STATED for name in names)
        return moved(answers, names, self._classes.index(self._decision.positive), self._decision)

    def told(self, made: list[Any], names: Sequence[str], answers: Any) -> list[Any]:
        """The columns `made` of what `apply` gave: what follows is by group, probabilities are what the model said."""
        import pyarrow as pa

        said = {f"probability_{name}": pa.array(answers[:, at]) for at, name in enumerate(self._classes)}
        return made if self._of is None else [said.get(name, one) for name, one in zip(names, made, strict=True)]

    def counts(self) -> dict[str, int]:
        """Rows of each group so far."""
        return dict(self._counts)

    def count(self, rows: Mapping[str, int]) -> None:
        """Add rows that others have answered."""
        self._counts.update(rows)

    def document(self) -> dict[str, Any]:
        """What was done, for the summary; {} where nothing was."""
        if self._of is None:
            return {}
        rows = {**dict.fromkeys(self._by.thresholds, 0), **dict(sorted(self._counts.items()))}
        return {"thresholds_by_group": {"column": self._by.column, "reason": self._by.reason, "rows": rows}}


def _read(address: str, key: str, column: str) -> dict[str, str]:
    import io

    import pandas as pd

    name = address.rsplit("/", 1)[-1]
    data = io.BytesIO(storage.read_bytes(address if "://" in address else str(Path(address).expanduser())))
    frame = pd.read_parquet(data) if name.endswith(".parquet") else pd.read_csv(data, dtype=str)
    if missing := [one for one in (key, column) if one not in frame.columns]:
        raise PlatformError(
            f"{name} has no column {missing[0]}",
            detail=f"it has: {', '.join(map(str, frame.columns))}",
            fix=f"give a table with {key} and {column}",
            code="unknown_column",
        )
    keys = frame[key].astype(str)
    if keys.duplicated().any():
        raise PlatformError(
            f"{name} has the {key} {keys[keys.duplicated()].iloc[0]!r} twice", fix="give every row one", code="bad_data"
        )
    texts = frame[column].astype("string").str.strip().fillna("")
    return {one: str(text) or NOT_STATED for one, text in zip(keys, np.asarray(texts, dtype=object), strict=True)}
